"""Public weights into our networks, and ours under public names. Knows no network, and reads and writes no file.

A module that public weights are loaded into says in `torch_layout` where each of its parameters comes from. The same
table is read backwards to export it.
"""

from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

import jax.numpy as jnp  # with it, NumPy knows bfloat16
import numpy as np
from flax import nnx

FLOATS = tuple(np.dtype(kind) for kind in (np.float16, jnp.bfloat16, np.float32, np.float64))

Path = tuple[str | int, ...]

HEAD = "alignment_head"
"""Attribute of a network under which training hangs what is trained with it and is no part of it; never public."""


class Transform(NamedTuple):
    """A change of an array's layout, which loses nothing. Called, it goes forward.

    Attributes:
      forward: a public array -> our layout; as it is, where it cannot be brought into it.
      backward: the inverse.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return self.forward(array)


class Source(NamedTuple):
    """Where one of our parameters comes from.

    Attributes:
      names: names of the public arrays: those of each block in turn where our parameter is stacked over blocks.
      transform: a public array <-> our layout.
      stacked: whether our parameter is stacked over blocks.
      joined: how many arrays after one another are joined along their last axis, after `transform`.
    """

    names: tuple[str, ...]
    transform: Transform
    stacked: bool = False
    joined: int = 1


class Layout(NamedTuple):
    """How the public weights of a network are arranged.

    Attributes:
      sources: path of each of our parameters -> where it comes from.
      fixed: name -> table that the public weights hold and ours compute, which must be the same.
      ignored: names that may be there and that our network has no use for.
      copies: name -> name of the array that it repeats.
      notes: what whoever exports to this layout must know, a sentence each.
    """

    sources: Mapping[Path, Source]
    fixed: Mapping[str, np.ndarray] = {}
    ignored: frozenset[str] = frozenset()
    copies: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()


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
    return {path: np.shape(value) for path, value in _flat(network).items()}


def load(network: nnx.Module, arrays: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Puts public weights into a network, in place.

    Args:
      network: may have shapes for arrays (`nnx.eval_shape`).

    Raises:
      ValueError: naming the arrays that are missing, left over, of another shape, no floats, not finite, or (for fixed
        tables) of other values. The network is then as it was.
    """
    ours = parameters_of(network)
    wanted = {name for source in layout.sources.values() for name in source.names}
    wanted |= set(layout.fixed) | set(layout.copies)
    check_names(set(arrays) - layout.ignored, wanted)
    exact = {name: as_float32(name, np.asarray(arrays[name])) for name in sorted(wanted)}
    copies = {name: exact[original] for name, original in layout.copies.items()}
    for name, table in {**layout.fixed, **copies}.items():
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


def export(parameters: Mapping[Path, np.ndarray], layout: Layout) -> dict[str, np.ndarray]:
    """Parameters under public names, with the fixed tables and copies that belong to them: `load` backwards.

    Args:
      parameters: path -> array of each parameter, see `arrays_of`.

    Raises:
      ValueError: if two arrays would have one name.
    """
    found: dict[str, np.ndarray] = {}

    def put(name: str, array: np.ndarray) -> None:
        if name in found:
            raise ValueError(f"{name}: would be the name of two arrays: a layout must name each once")
        found[name] = np.ascontiguousarray(array)

    for path, source in layout.sources.items():
        parts = list(parameters[path]) if source.stacked else [parameters[path]]
        parts = [part for joined in parts for part in np.split(joined, source.joined, axis=-1)]
        for name, part in zip(source.names, parts, strict=True):
            put(name, source.transform.backward(part))
    for name, table in layout.fixed.items():
        put(name, table)
    for name, original in layout.copies.items():
        put(name, found[original])
    return found


def arrays_of(network: nnx.Module) -> dict[Path, np.ndarray]:
    """Path -> array of each parameter, on the host."""
    return {path: np.asarray(value) for path, value in _flat(network).items()}


def _flat(network: nnx.Module) -> dict[Path, Any]:
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    return dict(nnx.traversals.flatten_mapping({name: one for name, one in state.items() if name != HEAD}))


def check_names(found: Set[str], wanted: Set[str]) -> None:
    """Raises ValueError that names the arrays that are missing or left over, if there are any."""
    missing, left = wanted - found, found - wanted
    if missing or left:
        raise ValueError(f"arrays missing: {_listed(missing)}; left over: {_listed(left)}: give the file as published")


def _into_kernel(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _from_kernel(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


same = Transform(lambda array: array, lambda array: array)
"""Leaves an array as it is."""

kernel = Transform(_into_kernel, _from_kernel)
"""[out, in] <-> [in, out]; [out, in, height, width] <-> [height, width, in, out]."""


def _listed(names: Set[str], most: int = 4) -> str:
    shown = [name if name.isprintable() and len(name) < 80 else f"{name!a:.80}" for name in sorted(names)[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
