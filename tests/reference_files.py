"""Tiny instances of the public DiT, SiT and EDM networks: weights, inputs, outputs, losses and gradients.

In tests/reference/*.npz: `w/` weights and `g/` gradients by the public names, the rest inputs and outputs.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np


class Reference:
    """One of the files."""

    def __init__(self, name: str):
        self._arrays = np.load(pathlib.Path(__file__).parent / "reference" / f"{name}.npz")

    def __getitem__(self, key: str) -> jax.Array:
        """An input or output; images with their channels last."""
        array = self._arrays[key]
        return jnp.asarray(np.moveaxis(array, 1, -1) if array.ndim == 4 else array)

    def text(self, key: str) -> str:
        """A text that was recorded."""
        return str(self._arrays[key])

    def weights(self) -> dict[str, np.ndarray]:
        return {name[2:]: self._arrays[name] for name in self._arrays.files if name.startswith("w/")}

    def gradients(self) -> dict[str, np.ndarray]:
        """By the names of the weights; fixed tables, which have none, as they are."""
        found = {name[2:]: self._arrays[name] for name in self._arrays.files if name.startswith("g/")}
        return self.weights() | found
