"""Bottlenecks that allow a finite number of codes: a learned codebook, or a fixed grid of numbers.

Both pass gradients straight through: what comes out has the values of a code and the gradient of what went in.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval, Len
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr import ranges

SHORTEST = 1e-12  # squared length that is added before a vector is divided by its length


class Quantised(NamedTuple):
    """What becomes of vectors in the bottleneck.

    Attributes:
      codes: the code of each vector; the gradient is that of the vector.
      tokens: the codes' numbers.
      to_code: mean squared distance of a number of the vector from its code's, whose gradient moves the vector.
      to_vector: the same distance, with a gradient that moves the code.
    """

    codes: Float[Array, "*position dim"]
    tokens: Int[Array, "*position"]
    to_code: Float[Array, ""]
    to_vector: Float[Array, ""]


class Quantizer(ranges.Checked, abc.ABC):
    """Settings of a bottleneck. Codes that are learned are an array which every method takes; None if there is none."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """How many numbers a code has."""

    @property
    @abc.abstractmethod
    def num_codes(self) -> int:
        """How many codes there are."""

    @property
    @abc.abstractmethod
    def scale(self) -> float:
        """What a number of a code is multiplied by for a mean square of about 1."""

    def init(self, key: PRNGKeyArray) -> Float[Array, "code dim"] | None:
        """The codes before the first step; None where nothing is learned."""
        del key
        return None

    @abc.abstractmethod
    def confined(self, vectors: Float[Array, "*position dim"]) -> Float[Array, "*position dim"]:
        """Vectors brought to where the codes are, not yet to one of them; twice is as good as once for a codebook."""

    @abc.abstractmethod
    def quantised(self, confined: Float[Array, "*position dim"], learned: Float[Array, "code dim"] | None) -> Quantised:
        """The nearest code of each vector that was `confined`."""

    @abc.abstractmethod
    def codes(
        self, tokens: Int[Array, "*position"], learned: Float[Array, "code dim"] | None
    ) -> Float[Array, "*position dim"]:
        """The codes of these numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebook(Quantizer):
    """Learned codes of length 1, and vectors of length 1 (Yu et al. 2022, section 3.2; van den Oord et al. 2017).

    Attributes:
      size: number of codes.
      code_dim: numbers of a code.
    """

    size: Annotated[int, Interval(ge=2, le=2**20)] = 8192
    code_dim: ranges.Width = 32

    @property
    def dim(self) -> int:
        return self.code_dim

    @property
    def num_codes(self) -> int:
        return self.size

    @property
    def scale(self) -> float:
        return math.sqrt(self.code_dim)

    def init(self, key: PRNGKeyArray) -> Float[Array, "code dim"]:
        return normalised(jax.random.normal(key, (self.size, self.code_dim)))

    def confined(self, vectors: Float[Array, "*position dim"]) -> Float[Array, "*position dim"]:
        return normalised(vectors)

    def quantised(self, confined: Float[Array, "*position dim"], learned: Float[Array, "code dim"] | None) -> Quantised:
        assert learned is not None
        book = normalised(learned)
        # Of vectors of length 1, the nearest is the one with the largest product. It takes float32's full precision,
        # which accelerators do not give by default.
        products = jnp.einsum("...d,kd->...k", confined, book, precision=jax.lax.Precision.HIGHEST)
        tokens = jnp.argmax(products, axis=-1).astype(jnp.int32)
        found = book[tokens]
        to_code = jnp.mean(jnp.square(confined - jax.lax.stop_gradient(found)))
        to_vector = jnp.mean(jnp.square(jax.lax.stop_gradient(confined) - found))
        return Quantised(straight_through(found, confined), tokens, to_code, to_vector)

    def codes(
        self, tokens: Int[Array, "*position"], learned: Float[Array, "code dim"] | None
    ) -> Float[Array, "*position dim"]:
        assert learned is not None
        return normalised(learned)[tokens]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiniteScalar(Quantizer):
    """Each number rounded to one of a few levels; nothing is learned (Mentzer et al. 2023, section 3).

    Numbers are confined to (-1, 1) by a hyperbolic tangent. With L levels a code's number is i / (L // 2) with
    i = -(L // 2) .. (L - 1) // 2, as in the paper, and token = sum over numbers of (i + L // 2) times the product of
    the levels before.

    Attributes:
      levels: levels of each number of a code; their product is the number of codes.
    """

    levels: Annotated[Sequence[Annotated[int, Interval(ge=2, le=256)]], Len(1, 16)] = (8, 8, 8, 5, 5, 5)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "levels", tuple(int(level) for level in self.levels))  # hashable
        if self.num_codes > 2**20:
            raise ValueError(f"levels = {self.levels}: their product is {self.num_codes} codes; 2^20 are the most")

    @property
    def dim(self) -> int:
        return len(self.levels)

    @property
    def num_codes(self) -> int:
        return math.prod(self.levels)

    @property
    def scale(self) -> float:
        return math.sqrt(3.0)  # of numbers that are uniform in (-1, 1)

    def confined(self, vectors: Float[Array, "*position dim"]) -> Float[Array, "*position dim"]:
        # With an even number of levels they are not symmetric about 0: the shift makes 0 stay 0.
        return (jnp.tanh(vectors + np.arctanh(self._middle / self._reach)) * self._reach - self._middle) / self._half

    def quantised(
        self, confined: Float[Array, "*position dim"], learned: Float[Array, "code dim"] | None = None
    ) -> Quantised:
        del learned
        found = jnp.clip(jnp.round(confined * self._half), -self._half, self._levels - 1 - self._half)
        tokens = jnp.sum((found + self._half).astype(jnp.int32) * self._steps, axis=-1, dtype=jnp.int32)
        zero = jnp.zeros(())
        return Quantised(straight_through(found / self._half, confined), tokens, zero, zero)

    def codes(
        self, tokens: Int[Array, "*position"], learned: Float[Array, "code dim"] | None = None
    ) -> Float[Array, "*position dim"]:
        del learned
        number = tokens[..., None] // self._steps % self._levels
        return (number - self._half) / jnp.asarray(self._half, jnp.float32)

    @functools.cached_property
    def _levels(self) -> Int[np.ndarray, " dim"]:
        return np.array(self.levels, np.int32)

    @functools.cached_property
    def _half(self) -> Int[np.ndarray, " dim"]:
        return self._levels // 2

    @functools.cached_property
    def _steps(self) -> Int[np.ndarray, " dim"]:
        """How much a token grows with each number's level."""
        return np.concatenate([[1], np.cumprod(self._levels[:-1])]).astype(np.int32)

    @functools.cached_property
    def _reach(self) -> Float[np.ndarray, " dim"]:
        """The hyperbolic tangent's, a little short of half a level beyond the outermost, where rounding would err."""
        return ((self._levels - 1) * (1 + 1e-3) / 2).astype(np.float32)

    @functools.cached_property
    def _middle(self) -> Float[np.ndarray, " dim"]:
        return np.where(self._levels % 2, 0.0, 0.5).astype(np.float32)


QUANTIZERS: dict[str, type[Quantizer]] = {"codebook": Codebook, "fsq": FiniteScalar}
"""`codec.quantizer.name` in a config -> the class."""


def normalised(vectors: Float[Array, "*position dim"]) -> Float[Array, "*position dim"]:
    """Vectors divided by their lengths."""
    return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + SHORTEST)


def straight_through(
    values: Float[Array, "*position dim"], inputs: Float[Array, "*position dim"]
) -> Float[Array, "*position dim"]:
    """The values, with the gradient of the inputs (Bengio et al. 2013)."""
    return inputs + jax.lax.stop_gradient(values - inputs)
