"""A batch of examples, and the axes of the mesh over which it is spread."""

from typing import Any, NamedTuple

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # over these the first axis of every array of a batch is spread


class Batch(NamedTuple):
    """Examples as the process noises them and the network is told of them.

    Attributes:
      x: float [batch, *shape]: pixels in [-1, 1], or latents. As `condition`, NumPy's on the host, JAX's on devices.
      condition: what the network is told beside x, by name; the first axis of each array is the batch's.
    """

    x: Any
    condition: dict[str, Any]
