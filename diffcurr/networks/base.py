"""What a network is."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, PRNGKeyArray


@runtime_checkable
class Network(Protocol):
    """A Flax NNX module that a process sees x through.

    Its settings are the keyword arguments of `from_spec`, or of its constructor where `from_spec` takes any; arguments
    that `from_spec` works out are listed in `DERIVED`. A network with `dropout` above 0 is given a key in training.
    One that has a method `once(condition)` is told what that returns where it is called many times with one condition:
    the condition with what of it depends on neither x nor t computed. One that has a method `choices()` says what it
    decides by the mesh in force, by name, which plans print.
    """

    @classmethod
    def from_spec(
        cls, shape: tuple[int, ...], condition: Mapping[str, Any], *, learn_variance: bool, **settings: Any
    ) -> "Network":
        """The network for x of this shape.

        Args:
          shape: shape of x without the batch, such as (height, width, channels).
          condition: name -> `conditioning.Field` of everything that it is told beside x.
          learn_variance: whether it outputs a variance too, that is, twice the channels.
          settings: the settings of the config, the compute dtype `dtype`, and `rngs` for the first parameters.

        Raises:
          ValueError: if it cannot take such an x or condition.
        """

    def __call__(
        self,
        x: Float[Array, "batch *shape"],
        t: Float[Array, " batch"],
        condition: Mapping[str, Any],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch *shape"]:
        """The output, float32, for x at time t as the process gives it."""


@runtime_checkable
class Alignable(Protocol):
    """A `Network` of blocks over tokens, whose states can be aligned with features of the clean picture.

    Attributes:
      depth: number of blocks.
      hidden_size: width of a token.
      num_tokens: tokens of an x, row by row.
    """

    depth: int
    hidden_size: int

    @property
    def num_tokens(self) -> int: ...

    def with_block(
        self,
        block: int,
        x: Float[Array, "batch *shape"],
        t: Float[Array, " batch"],
        condition: Mapping[str, Any],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch token token_width"]]:
        """(the output of `__call__`, the tokens that come out of a block, counted from 1), in one forward pass."""


@runtime_checkable
class TokenNetwork(Protocol):
    """A Flax NNX module that predicts each token of a picture from those before it, row by row.

    It is made as `Network` is, by `from_spec`, whose shape is (rows, columns, number of codes).
    """

    def __call__(
        self,
        tokens: Int[Array, "batch row column"],
        condition: Mapping[str, Any],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch token code"]:
        """Logits of each token, float32; with a key, some activations are dropped."""

    def features(
        self, tokens: Int[Array, "batch row column"], condition: Mapping[str, Any]
    ) -> Float[Array, "block batch width"]:
        """What comes out of each block, averaged over the tokens, float32."""

    def empty_cache(self, batch: int) -> Any:
        """What `advance` needs to know before the first token, a pytree of arrays."""

    def advance(
        self, cache: Any, position: Int[Array, ""], before: Int[Array, " batch"], condition: Mapping[str, Any]
    ) -> tuple[Float[Array, "batch code"], Any]:
        """(logits of the token at a position, the next cache), given the token at the position before."""
