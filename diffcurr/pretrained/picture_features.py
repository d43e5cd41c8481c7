"""Networks whose features of pictures are stored, for training to align others with, as parts of a config."""

import abc
import dataclasses
import functools
from typing import Any, ClassVar

from etils import epath
from flax import nnx
from jaxtyping import Array, Float

from diffcurr import ranges
from diffcurr.errors import UserError, concerning
from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.pretrained import dinov2, resizing

MOST_BYTES = 2**33  # the largest DINOv2 has 4.5 GB


class PictureFeatures(ranges.Checked, abc.ABC):
    """Features of each patch of a picture. It is settings: the weights are read when they are first needed.

    Class attributes:
      images_at_once: how many pictures one device looks at at a time, at most.
    """

    images_at_once: ClassVar[int] = 32

    @abc.abstractmethod
    def shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(rows, columns, features) of a picture of shape (height, width, channels).

        Raises:
          ValueError: if such pictures cannot be looked at.
          UserError: if the weights cannot be read.
        """

    @abc.abstractmethod
    def load(self) -> Any:
        """The weights, a pytree of arrays.

        Raises:
          UserError: if they cannot be read.
        """

    @abc.abstractmethod
    def encode_with(
        self, params: Any, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch row column feature"], None]:
        """(the features of pictures in [-1, 1], None, since nothing of them is drawn). Jit-able."""

    @abc.abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells its features from those of another network, as JSON values, to be stored beside them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoFeatures(ranges.Checked):
    """None are stored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchesOfDINOv2(PictureFeatures):
    """What DINOv2 says of each patch of a picture, after its last norm. The picture is resized to as many patches as
    asked for, without antialiasing, as REPA's public code does it (Yu et al. 2024). Position embeddings are
    interpolated as on Meta's hub, where REPA interpolates them once more, with antialiasing. Grey pictures count as
    three equal channels.

    Attributes:
      file: the weights, a safetensors file as Hugging Face has it: that of `facebook/dinov2-base` in REPA.
      patches: along each side: as many as the network that is trained has tokens there.
    """

    file: str = ""
    patches: ranges.Few = 16

    def shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        height, width, channels = image_shape
        if height != width:
            raise ValueError(f"pictures of {height}x{width}: DINOv2's are square here")
        if channels not in (1, 3):
            raise ValueError(f"pictures of {channels} channels: DINOv2 looks at grey and at coloured ones")
        return self.patches, self.patches, self._network[0].hidden_size

    def load(self) -> Any:
        return nnx.to_pure_dict(nnx.state(self._network[0], nnx.Param))

    def encode_with(
        self, params: Any, images: Float[Array, "batch height width channel"]
    ) -> tuple[Float[Array, "batch row column feature"], None]:
        network = nnx.merge(nnx.split(self._network[0])[0], params)
        states, _ = network(dinov2.normalised(images, self.patches * network.patch_size, resizing.torch_bicubic))
        return states[:, 1:].reshape(len(images), self.patches, self.patches, -1), None

    def identity(self) -> dict[str, Any]:
        return {"patches": self.patches, "weights": self._network[1]}

    @functools.cached_property
    def _network(self) -> tuple[dinov2.DINOv2, str]:
        """(the network, a hash of its weights)."""
        if not self.file:
            raise UserError(
                "encode.features.file is missing: give DINOv2's weights, a safetensors file as Hugging Face has it "
                "(facebook/dinov2-base)"
            )
        arrays, _ = arrays_lib.read(epath.Path(self.file).expanduser(), MOST_BYTES)
        with concerning(f"encode.features.file = {self.file}"):
            if not dinov2.is_dinov2(arrays):
                raise ValueError("holds no DINOv2: give the file as published")
            return dinov2.from_arrays(arrays, position_offset=dinov2.HUB_OFFSET), arrays_lib.digest(arrays)[:16]


PICTURE_FEATURES: dict[str, type[PictureFeatures] | type[NoFeatures]] = {"none": NoFeatures, "dinov2": PatchesOfDINOv2}
"""`encode.features.name` in a config -> the class."""
