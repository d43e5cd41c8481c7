"""Public weights into our networks: arrays by name, as safetensors gives them. Knows no network, and reads no file.

A module that public weights are loaded into says in `torch_layout` where each of its parameters comes from.
"""

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

import jax.numpy as jnp  # with it, NumPy knows bfloat16
import numpy as np
from flax import nnx

FLOATS = tuple(np.dtype(kind) for kind in (np.float16, jnp.bfloat16, np.float32, np.float64))

Path = tuple[str | int, ...]


class Source(NamedTuple):
    """Where one of our parameters comes from.

    Attributes:
      names: names of the public arrays: those of each block in turn where our parameter is stacked over blocks.
      transform: a public array -> our layout; as it is, where it cannot be brought into it.
      stacked: whether our parameter is stacked over blocks.
      joined: how many arrays after one another are joined along their last axis, after `transform`.
    """

    names: tuple[str, ...]
    transform: Callable[[np.ndarray], np.ndarray]
    stacked: bool = False
    joined: int = 1


class Layout(NamedTuple):
    """How the public weights of a network are arranged.

    Attributes:
      sources: path of each of our parameters -> where it comes from.
      fixed: name -> table that the public weights hold and ours compute, which must be the same.
      ignored: names that may be there and that our network has no use for.
    """

    sources: Mapping[Path, Source]
    fixed: Mapping[str, np.ndarray] = {}
    ignored: frozenset[str] = frozenset()


def as_float32(name: str, array: np.ndarray) -> np.ndarray:
    """The array in float32.

    Args:
      name: stands in messages.

    Raises:
      ValueError: if it holds no floats, or some that are not finite in float32.
    """
    if array.dtype not in FLOATS:
        raise ValueError(f"{name}: is of dtype {array.dtype}: weights are floats, of 16, 32 or 64 bits")
    with np.errstate(over="ignore"):
        exact = array.astype(np.float32, copy=False)
    if not np.isfinite(exact).all():
        raise ValueError(f"{name}: holds NaN or infinity: the file is damaged, or its training failed")
    return exact


def parameters_of(network: nnx.Module) -> dict[Path, tuple[int, ...]]:
    """Path -> shape of each parameter."""
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    return {path: np.shape(value) for path, value in nnx.traversals.flatten_mapping(state).items()}


def load(network: nnx.Module, arrays: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Puts public weights into a network, in place.

    Args:
      network: may have shapes for arrays (`nnx.eval_shape`).

    Raises:
      ValueError: naming the arrays that are missing, left over, of another shape, no floats, not finite, or (for fixed
        tables) of other values. The network is then as it was.
    """
    ours = parameters_of(network)
    wanted = {name for source in layout.sources.values() for name in source.names} | set(layout.fixed)
    check_names(set(arrays) - layout.ignored, wanted)
    exact = {name: as_float32(name, np.asarray(arrays[name])) for name in sorted(wanted)}
    for name, table in layout.fixed.items():
        precision = max(1e-5, float(jnp.finfo(arrays[name].dtype).eps))  # files in half precision round the tables too
        if exact[name].shape != table.shape or not np.allclose(exact[name], table, atol=precision):
            raise ValueError(f"{name}: is another table than this network's")
    loaded = {}
    for path, source in layout.sources.items():
        parts = [source.transform(exact[name]) for name in source.names]
        shape = ours[path][1:] if source.stacked else ours[path]
        if source.joined > 1:
            shape = (*shape[:-1], shape[-1] // source.joined)
        for name, part in zip(source.names, parts, strict=True):
            if part.shape != shape:
                raise ValueError(f"{name}: gives shape {part.shape}, the network has {shape}")
        if source.joined > 1:
            firsts = range(0, len(parts), source.joined)
            parts = [np.concatenate(parts[first : first + source.joined], axis=-1) for first in firsts]
        loaded[path] = jnp.asarray(np.stack(parts) if source.stacked else parts[0])
    nnx.update(network, nnx.traversals.unflatten_mapping(loaded))


def check_names(found: Set[str], wanted: Set[str]) -> None:
    """Raises ValueError that names the arrays that are missing or left over, if there are any."""
    missing, left = wanted - found, found - wanted
    if missing or left:
        raise ValueError(f"arrays missing: {_listed(missing)}; left over: {_listed(left)}: give the file as published")


def same(array: np.ndarray) -> np.ndarray:
    """As it is."""
    return array


def kernel(array: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out]; [out, in, height, width] -> [height, width, in, out]."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _listed(names: Set[str], most: int = 4) -> str:
    shown = [name if name.isprintable() and len(name) < 80 else f"{name!a:.80}" for name in sorted(names)[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
