"""Muon (Jordan et al. 2024): moves each matrix by its momentum made nearly orthogonal, and the rest in another way.

What counts as a matrix is said here alone, by the path of a parameter. Layers that compute several things at once hold
several matrices side by side, such as query, key and value: each is made orthogonal by itself. So is that of each of
stacked blocks.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Shaped
from optax.contrib import MuonDimensionNumbers

from diffcurr.layout import path_name
from diffcurr.weights import HEAD


class Fused(NamedTuple):
    """How many matrices a kernel holds, and how they share its last dimension.

    Attributes:
      parts: their number.
      alternating: whether their columns take turns; if not, one matrix lies behind the other.
    """

    parts: int = 1
    alternating: bool = False


# The first pattern that is found in a parameter's path counts. None is a parameter that Muon does not move: what the
# network begins and ends with, and whatever is no kernel, such as biases and tables.
RULES: tuple[tuple[str, Fused | None], ...] = (
    (r"(x_embedder|final_modulation|final_linear)/kernel$", None),  # DiT
    (r"(map_label|map_augment|_conv/conv|_aux_\w+/conv)/kernel$", None),  # the U-Net
    (r"(conv_in|conv_out)/kernel$", None),  # the autoencoder
    (r"(^|/)head/kernel$", None),  # the token transformer
    (r"(from_picture|score)/kernel$", None),  # the discriminator
    (rf"{HEAD}/fc3/kernel$", None),  # the head of an alignment
    (r"qkv/conv/kernel$", Fused(3, alternating=True)),  # the U-Net's attention
    (r"qkv/kernel$", Fused(3)),
    (r"key_value/kernel$", Fused(2)),
    (r"modulation/kernel$", Fused(6)),
    (r"kernel$", Fused()),
)


def muon(
    rate: optax.Schedule, others: optax.GradientTransformation, *, momentum: float, rms: float, weight_decay: float
) -> optax.GradientTransformation:
    """Optax's Muon for the matrices that `RULES` names, and `others` for the rest.

    The state has the shapes of the parameters, so it is sharded as they are.

    Args:
      momentum: decay rate of the mean of gradients (Nesterov's).
      rms: root mean square of an update's elements at learning rate 1, whatever the shape (Liu et al. 2025, "Muon is
        Scalable for LLM Training").
      weight_decay: share of each matrix that is subtracted, times the learning rate.
    """
    of_matrices = optax.chain(
        optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=_dimensions),
        optax.stateless(lambda updates, params: _scaled(updates, rms)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(rate),
    )
    both = optax.partition({"muon": of_matrices, "others": others}, _labels)

    def init(params: Any) -> Any:
        return joined(both.init(cut(params)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        moved, after = both.update(cut(updates), cut(state), None if params is None else cut(params))
        return joined(moved), joined(after)

    return optax.GradientTransformation(init, update)


def rule(name: str, ndim: int) -> Fused | None:
    """The entry of `RULES` for the parameter of a path, or whatever mirrors it; None for one that is no matrix."""
    found = next((fused for pattern, fused in RULES if re.search(pattern, name)), None)
    return found if ndim >= 2 else None


def cut(tree: Any) -> Any:
    """Parameters, or what mirrors them, with an axis for the parts of each fused kernel."""

    def of_leaf(path: tuple[Any, ...], x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        fused = rule(path_name(path), x.ndim)
        if fused is None or fused.parts == 1:
            return x
        inside, width = x.shape[:-1], x.shape[-1] // fused.parts
        return x.reshape(*inside, width, fused.parts) if fused.alternating else x.reshape(*inside, fused.parts, width)

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def joined(tree: Any) -> Any:
    """Inverse of `cut`."""

    def of_leaf(path: tuple[Any, ...], x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        fused = rule(path_name(path), x.ndim)
        return x if fused is None or fused.parts == 1 else x.reshape(*x.shape[:-2], -1)

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def _labels(params: Any) -> Any:
    def label(path: tuple[Any, ...], x: Any) -> str:
        return "others" if rule(path_name(path), x.ndim) is None else "muon"

    return jax.tree_util.tree_map_with_path(label, params)


def _dimensions(matrices: Any) -> Any:
    """Which axes of each kernel that was cut are a matrix, for Optax; the others count its matrices."""
    return jax.tree_util.tree_map_with_path(_dimensions_of, matrices)


def _dimensions_of(path: tuple[Any, ...], x: Any) -> MuonDimensionNumbers:
    fused = rule(path_name(path), x.ndim)
    assert fused is not None
    was_cut = fused.parts > 1
    # Of a convolution all that goes into an output is one side: rows, columns and channels.
    first = -5 if x.ndim - was_cut >= 4 else -3
    inside = tuple(range(first + (not was_cut), -1 - was_cut))
    return MuonDimensionNumbers(inside, -2 if fused.alternating else -1)


def _scaled(matrices: Any, rms: float) -> Any:
    """Orthogonal matrices, whose elements are 1 / sqrt(longer side) in the root mean square, with elements of `rms`."""

    def of_leaf(path: tuple[Any, ...], x: Array) -> Array:
        numbers = _dimensions_of(path, x)
        inside = math.prod(x.shape[axis] for axis in numbers.reduction_axis)
        return x * (rms * math.sqrt(max(inside, x.shape[numbers.output_axis])))

    return jax.tree_util.tree_map_with_path(of_leaf, matrices)
