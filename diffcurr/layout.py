"""How arrays lie over devices: the axes of a mesh, and one table of rules for the parameters.

Training places a state by it; networks gather and multiply by it what has been placed so.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # over these the first axis of every array of a batch is spread

Axes = str | tuple[str, ...] | None
"""The axes of the mesh that a dimension is spread over."""


class Rule(NamedTuple):
    """How a parameter, and whatever mirrors it (averages, Adam's moments), lies over a mesh.

    Attributes:
      pattern: a regular expression that is searched for in its path.
      axes: axes of the mesh for the last dimensions. Leading ones (stacked blocks) stay whole.
      by_columns: the parameter is never gathered: each device multiplies the inputs of its whole group with its own
        columns. For kernels whose inputs, one row an example, are smaller than themselves, and their biases.
    """

    pattern: str
    axes: tuple[Axes, ...]
    by_columns: bool = False


RULES = (  # the first match counts
    Rule(r"/v_(row|col)/", ()),  # Adafactor's means of rows and columns are small, and mirror nothing
    Rule(r"(modulation|affine)/kernel$", (None, ("fsdp", "tensor")), by_columns=True),
    Rule(r"(modulation|affine)/bias$", (("fsdp", "tensor"),), by_columns=True),
    Rule(r"(qkv|text/query|text/key_value|fc1)/kernel$", ("fsdp", "tensor")),
    Rule(r"(proj|fc2)/kernel$", ("tensor", "fsdp")),
    Rule(r"(qkv|text/query|text/key_value|fc1)/bias$", ("tensor",)),
    Rule(r"/kernel$", ("fsdp", None)),
)


def rule_of(path: str, shape: tuple[int, ...]) -> Rule | None:
    """The rule for the parameter of this path, "a/b/kernel"; None for one that is whole on every device."""
    for rule in RULES:
        if re.search(rule.pattern, path) and len(shape) >= len(rule.axes):
            return rule
    return None


def partition(path: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    """How a parameter lies over a mesh: by its rule, each axis only where it divides the dimension.

    Args:
      sizes: sizes of the mesh's axes, by name.
    """
    rule = rule_of(path, shape)
    if rule is None:
        return PartitionSpec()
    leading = len(shape) - len(rule.axes)
    last = (dividing(axes, dim, sizes) for axes, dim in zip(rule.axes, shape[leading:], strict=True))
    return PartitionSpec(*(None,) * leading, *last)


def dividing(axes: Axes, dim: int, sizes: Mapping[str, int]) -> Axes:
    """The axes, or the first of them, that divide a dimension."""
    names = (axes,) if isinstance(axes, str) else axes or ()
    parts, kept = 1, []
    for name in names:
        parts *= sizes[name]
        if dim % parts:
            break
        kept.append(name)
    return tuple(kept) if len(kept) > 1 else kept[0] if kept else None


def path_name(path: tuple[Any, ...]) -> str:
    """A pytree path as "a/b/c"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
