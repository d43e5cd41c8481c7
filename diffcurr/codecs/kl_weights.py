"""Weights of the KL autoencoder under diffusers' names: read, and written again."""

from collections.abc import Iterable, Mapping

import numpy as np
from flax import nnx

from diffcurr import weights
from diffcurr.codecs.base import Params
from diffcurr.pretrained import arrays as arrays_lib
from diffcurr.weights import Layout, Path, Source, Transform

KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}  # the end of a parameter's path -> of its public name
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # in files of 2022


def layout(paths: Iterable[Path], names: Iterable[str]) -> Layout:
    """Where each parameter comes from.

    Args:
      paths: paths of the parameters.
      names: names of the public arrays.
    """
    names = set(names)
    return Layout({path: _source(path, names) for path in paths})


def public_arrays(params: Params) -> dict[str, np.ndarray]:
    """Parameters by diffusers' names and in its layout, bit for bit: the inverse of loading them."""
    flat = {path: np.asarray(value) for path, value in nnx.traversals.flatten_mapping(params).items()}
    return weights.export(flat, layout(flat, ()))


def to_bytes(params: Params, facts: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of an autoencoder's weights, as diffusers and the codec `kl` read it.

    Args:
      params: `diffcurr.codecs.kl.params_of(network)`.
      facts: texts that the file holds beside them.
    """
    return arrays_lib.to_bytes(public_arrays(params), facts)


def _name(path: Path) -> str:
    return ".".join(map(str, (*path[:-1], KINDS[str(path[-1])])))


def _source(path: Path, names: set[str]) -> Source:
    name = old = _name(path)
    for new, layer in OLD_NAMES.items():
        old = old.replace(f".attentions.0.{new}.", f".attentions.0.{layer}.")
    found = old if old in names and name not in names else name
    if path[-1] != "kernel":
        return Source((found,), weights.same)
    return Source((found,), _DENSE if ".attentions." in name else weights.kernel)


def _into_dense(array: np.ndarray) -> np.ndarray:
    """[out, in], or a 1x1 convolution's [out, in, 1, 1] as in some files, -> [in, out]."""
    return weights.kernel(array[..., 0, 0] if array.shape[2:] == (1, 1) else array)


_DENSE = Transform(_into_dense, weights.kernel.backward)
