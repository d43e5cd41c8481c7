"""Where kernels and activations lie while layers multiply them, on the mesh in force.

Left alone, the compiler turns "gather, then multiply" into loops that multiply a few rows at a time, adds forward
partial sums in the compute dtype, and may move activations to where a kernel lies. Layers say it instead: a kernel is
gathered in the compute dtype, activations stay where their examples are, and a gradient goes to its parameter's shards.
"""

from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

from diffcurr import layout

FREE = PartitionSpec.UNCONSTRAINED
GROUP_AXES = tuple(axis for axis in layout.BATCH_AXES if axis != "fsdp")  # of rows that are whole in each group


class Layer(nnx.Module):
    """A layer that is told its place in the network, by which the rules of `diffcurr.layout` know its parameters."""

    path = ""

    def places(self, shape: tuple[int, ...], rank: int) -> "Places | None":
        """Where the arrays of its product lie; None where nothing is spread, or its place was not told.

        Args:
          shape: shape of the layer's kernel.
          rank: number of axes of what goes in.
        """
        return places(f"{self.path}/kernel", shape, rank) if self.path else None


def name_layers(network: nnx.Module) -> None:
    """Tells each layer its place in the network."""
    for path, module in nnx.iter_graph(network):
        if isinstance(module, Layer):
            module.path = "/".join(map(str, path))


class Places(NamedTuple):
    """Where the arrays of a product lie. Hashable.

    Attributes:
      kernel: the kernel, and its gradient.
      columns: the axes that the last dimension of what comes out is spread over, where devices multiply the rows of
        their group with their own columns; else None, and they multiply their own rows with the gathered kernel.
    """

    kernel: PartitionSpec
    columns: layout.Axes = None

    @property
    def by_columns(self) -> bool:
        """Whether devices multiply their own columns."""
        return self.columns is not None

    def gathered(self, kernel: Shaped[Array, "*window inside outside"]) -> Shaped[Array, "*window inside outside"]:
        """The kernel as it is multiplied."""
        gathered = {"fsdp": None, ("fsdp", "tensor"): "tensor"}
        axes = self.kernel if self.by_columns else (gathered.get(axes, axes) for axes in self.kernel)
        return jax.lax.with_sharding_constraint(kernel, PartitionSpec(*axes))

    def of_kernel(self, gradient: Shaped[Array, "*window inside outside"]) -> Shaped[Array, "*window inside outside"]:
        """The gradient of the kernel, on the kernel's shards."""
        return jax.lax.with_sharding_constraint(gradient, self.kernel)

    def rows(self, x: Shaped[Array, "*batch inside"]) -> Shaped[Array, "*batch inside"]:
        """What goes in."""
        return _constrained(x, GROUP_AXES if self.by_columns else layout.BATCH_AXES)

    def of_rows(self, gradient: Shaped[Array, "*batch inside"]) -> Shaped[Array, "*batch inside"]:
        """The gradient of what goes in, where it came from."""
        return _constrained(gradient, layout.BATCH_AXES)

    def results(self, x: Shaped[Array, "*batch outside"]) -> Shaped[Array, "*batch outside"]:
        """What comes out, and its gradient."""
        return _constrained(x, GROUP_AXES, self.columns) if self.by_columns else _constrained(x, layout.BATCH_AXES)


def places(path: str, shape: tuple[int, ...], rank: int) -> Places | None:
    """The places of a product with the kernel of this path; None where every device has the whole kernel.

    Args:
      shape: the kernel's.
      rank: number of axes of what goes in.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not set(layout.MESH_AXES) <= set(mesh.axis_names):
        return None
    rule, kernel = layout.rule_of(path, shape), layout.partition(path, shape, mesh.shape)
    if all(mesh.shape[axis] == 1 for axes in kernel if axes for axis in ((axes,) if isinstance(axes, str) else axes)):
        return None
    by_columns = rule is not None and rule.by_columns and rank == 2 and mesh.shape["fsdp"] > 1
    return Places(kernel, kernel[-1] if by_columns else None)


def _constrained(x: Array, first: layout.Axes, last: Any = FREE) -> Array:
    """Asks that the first and the last axis of an array are spread so."""
    return jax.lax.with_sharding_constraint(x, PartitionSpec(first, *(FREE,) * (x.ndim - 2), last))


def keep_batch_spread(x: Shaped[Array, "batch *rest"]) -> Shaped[Array, "batch *rest"]:
    """Asks that an activation stays spread over devices by its first axis, where a mesh with a batch is in force.

    Otherwise the compiler may follow a parameter that is sharded by its features, and move activations instead of it.
    """
    axes = tuple(axis for axis in layout.BATCH_AXES if axis in jax.sharding.get_abstract_mesh().axis_names)
    if not axes:
        return x
    rest = (FREE,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))
