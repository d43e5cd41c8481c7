"""Aligning a network's inner states with features of the clean picture, beside the curriculum."""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar

import annotated_types as at
import jax.numpy as jnp
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Float, Int

from diffcurr import ranges
from diffcurr.data.base import Dataset
from diffcurr.networks import Alignable
from diffcurr.networks.layers import Linear
from diffcurr.weights import HEAD


class Alignment(ranges.Checked, abc.ABC):
    """What of a network's inner states is trained to be what.

    Attributes:
      block: the block, counted from 1, whose output it sees.
    """

    block: int

    @abc.abstractmethod
    def on(self, dataset: Dataset) -> tuple[Dataset, "Alignment"]:
        """(the data set that gives the features beside its examples, the alignment that knows how wide they are).

        Raises:
          ValueError: if it has none, or others.
        """

    @property
    def found(self) -> dict[str, Any]:
        """Settings that were left to be found in the data, as they are; a run's config keeps them."""
        return {}

    @abc.abstractmethod
    def features_shape(self, network: Any) -> tuple[int, int]:
        """(tokens, features) of an example that a network is aligned with."""

    @abc.abstractmethod
    def attach(self, network: Any, dtype: str, rngs: nnx.Rngs) -> None:
        """Hangs what is trained beside a network under its attribute `weights.HEAD`, in place.

        Raises:
          ValueError: if the network cannot be aligned so.
        """

    @abc.abstractmethod
    def weight_at(self, step: int | Int[Array, ""]) -> float | Float[Array, ""]:
        """The weight of the loss at a step, counted from 0."""

    @abc.abstractmethod
    def loss(
        self,
        network: Any,
        tokens_btd: Float[Array, "batch token width"],
        features_btf: Float[Array, "batch token feature"],
    ) -> Float[Array, ""]:
        """The mean loss of a batch.

        Args:
          network: with what was attached.
          tokens_btd: what came out of the block.
          features_btf: features of the clean pictures.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoAlignment(ranges.Checked):
    """The network is trained to denoise, and nothing else: the step is the one without an alignment."""

    def on(self, dataset: Dataset) -> tuple[Dataset, None]:
        """The data set as it is, and no alignment."""
        return dataset, None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repa(Alignment):
    """REPA (Yu et al. 2024, arXiv 2410.06940): a head of three layers sees what comes out of a block, and is to
    give the features of the clean picture, which `--job=encode` stores with `encode.features`. The loss of an example
    is minus the cosine between the two, averaged over the tokens; `weight` times its mean over the batch is added to
    the denoising loss. The curriculum decides which noise levels are drawn. It does not see or scale this loss.

    HASTE (Wang et al. 2025, arXiv 2505.16792) stops the alignment in the middle of training, here after `until` steps.
    The program is the same before and after: what the head computes is still paid for. Of HASTE's two losses that of
    the attention maps is not here.

    Attributes:
      block: the block, counted from 1, whose output the head sees.
      weight: weight of the loss, beside a denoising loss that is the mean over pixels. Where a process sums over them,
        as EDM's does, it is multiplied by their number.
      until: steps that are taken with it; 0 for all.
      hidden: width of the head's two inner layers.
      features: width of the features; 0 for that of those stored, which must be there then.
    """

    block: ranges.Few = 8
    weight: ranges.NotNegative = 0.5
    until: ranges.StepsOrNever = 0
    hidden: ranges.Width = 2048
    features: Annotated[int, at.Interval(ge=0, le=2**16)] = 0

    tokens: ranges.Classes = 0  # of a picture; 0 where what is stored is not known

    DERIVED: ClassVar[tuple[str, ...]] = ("tokens",)

    def on(self, dataset: Dataset) -> tuple[Dataset, Alignment]:
        dataset = dataset.with_features(needed=not self.features)
        stored = dataset.features_shape
        if stored is None and not self.features:
            raise ValueError("features = 0: to plan without the data, give the width of their features")
        tokens, width = stored or (0, self.features)
        if self.features not in (0, width):
            raise ValueError(f"features = {self.features}: those stored are {width} wide; give 0")
        return dataset, dataclasses.replace(self, features=width, tokens=tokens)

    @property
    def found(self) -> dict[str, Any]:
        return {"features": self.features}

    def attach(self, network: Any, dtype: str, rngs: nnx.Rngs) -> None:
        kind = type(network).__name__
        if not isinstance(network, Alignable):
            raise ValueError(
                f"{kind} has no blocks over tokens to align: choose network.name = 'dit', or alignment 'none'"
            )
        if self.block > network.depth:
            raise ValueError(f"block = {self.block}: the network has only {network.depth} blocks")
        if self.tokens not in (0, network.num_tokens):
            raise ValueError(
                f"the stored features are of {self.tokens} patches of a picture, and the network has "
                f"{network.num_tokens} tokens: encode them again by --job=encode with encode.features.patches = "
                f"{round(network.num_tokens**0.5)}, or change network.patch_size"
            )
        setattr(network, HEAD, Head(network.hidden_size, self.hidden, self.features, dtype, rngs))

    def features_shape(self, network: Any) -> tuple[int, int]:
        return network.num_tokens, self.features

    def weight_at(self, step: int | Int[Array, ""]) -> float | Float[Array, ""]:
        return jnp.where(step < self.until, self.weight, 0.0) if self.until else self.weight

    def loss(
        self,
        network: Any,
        tokens_btd: Float[Array, "batch token width"],
        features_btf: Float[Array, "batch token feature"],
    ) -> Float[Array, ""]:
        return -jnp.mean(cosine(getattr(network, HEAD)(tokens_btd), features_btf))


ALIGNMENTS: dict[str, type[Alignment] | type[NoAlignment]] = {"none": NoAlignment, "repa": Repa}
"""`alignment.name` in a config -> the class."""


class Head(nnx.Module):
    """Three dense layers with SiLU between them, over each token; Xavier's first kernels, as in REPA's public code."""

    def __init__(self, width: int, hidden: int, features: int, dtype: str, rngs: nnx.Rngs):
        def linear(inside: int, outside: int) -> Linear:
            kernel = initializers.xavier_uniform()
            return Linear(inside, outside, kernel_init=kernel, dtype=jnp.dtype(dtype), rngs=rngs)

        # By these names `diffcurr.layout` spreads the first two over the mesh as it does a block's MLP.
        self.fc1, self.fc2, self.fc3 = linear(width, hidden), linear(hidden, hidden), linear(hidden, features)

    def __call__(self, tokens_btd: Float[Array, "batch token width"]) -> Float[Array, "batch token feature"]:
        return self.fc3(nnx.silu(self.fc2(nnx.silu(self.fc1(tokens_btd)))))


def cosine(a: Float[Array, "*batch feature"], b: Float[Array, "*batch feature"]) -> Float[Array, "*batch"]:
    """The cosine between vectors, in float32; 0 where one of them is 0."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    squares = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    return jnp.sum(a * b, axis=-1) / jnp.sqrt(jnp.maximum(squares, 1e-24))
