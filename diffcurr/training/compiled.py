"""A train step compiled once for one mesh, whatever it trains: every sharding pinned, the state donated."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from diffcurr.batch import Batch
from diffcurr.training import sharding
from diffcurr.training.state import TrainState

Step = Callable[..., tuple[TrainState, Any, Any]]
"""(state, batch, carry) -> (state, carry, metrics)."""


def with_shardings(mesh: Mesh, init: Callable[[Any], TrainState], abstract_params: Any) -> TrainState:
    """Shapes, dtypes and shardings of a state.

    Args:
      init: parameters -> the state before the first step.
      abstract_params: shapes of the parameters.
    """
    abstract = jax.eval_shape(init, abstract_params)
    shardings = sharding.state_shardings(mesh, abstract)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)


class Frozen(NamedTuple):
    """Weights that a step takes and does not train, such as those of a codec.

    Attributes:
      abstract_params: shapes of the weights.
      params: reads the weights, on every device.
    """

    abstract_params: Any
    params: Callable[[], Any]


class WithFrozen(NamedTuple):
    """A compiled step that takes frozen weights too; called and lowered as one that does not.

    Attributes:
      step: (state, batch, carry, frozen weights) -> (state, carry, metrics).
      frozen: the weights.
    """

    step: Any
    frozen: Frozen

    def __call__(self, state: TrainState, batch: Batch, carry: Any) -> tuple[TrainState, Any, Any]:
        with jax.transfer_guard("allow"):  # at the first call they are read
            params = self.frozen.params()
        result: tuple[TrainState, Any, Any] = self.step(state, batch, carry, params)
        return result

    def lower(self, state: Any, batch: Any, carry: Any) -> Any:
        """Like `jax.jit(step).lower`. Reads no weights."""
        return self.step.lower(state, batch, carry, self.frozen.abstract_params)

    def eval_shape(self, state: Any, batch: Any, carry: Any) -> Any:
        """Like `jax.jit(step).eval_shape`. Reads no weights."""
        return self.step.eval_shape(state, batch, carry, self.frozen.abstract_params)


class CompiledStep(NamedTuple):
    """The step for one mesh, with the shardings of what goes in and out.

    Attributes:
      step: (state, batch, carry) -> (state, carry, metrics); donates the state. A curriculum's carry are the weights of
        its clusters.
      initial_carry: state -> carry of its next step, for the start of a run and after a restore.
      abstract_state: shapes, dtypes and shardings of the state.
      batch_sharding: sharding of every array of the batch.
    """

    step: Any
    initial_carry: Any
    abstract_state: TrainState
    batch_sharding: Any

    def read_frozen(self) -> None:
        """Reads what the step takes and does not train, which else its first call does: a fault shows before that."""
        if isinstance(self.step, WithFrozen):
            self.step.frozen.params()


def compile_step(
    step: Step,
    initial_carry: Callable[[TrainState], Any],
    state: TrainState,
    mesh: Mesh,
    frozen: Frozen | None = None,
) -> CompiledStep:
    """Pins every sharding, so that the step compiles once whatever is fed back into it.

    Args:
      step: (state, batch, carry) -> (state, carry, metrics); with frozen weights, these are its last argument.
      initial_carry: state -> carry.
      state: shapes, dtypes and shardings.
      frozen: weights that the step takes and does not train.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    everywhere, by_example = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    @functools.wraps(step)
    def on_mesh(*arguments: Any) -> tuple[TrainState, Any, Any]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # networks keep their activations spread over it
            return step(*arguments)

    on_mesh.__name__ = "train_step"
    jitted: Any = jax.jit(
        on_mesh,
        in_shardings=(shardings, by_example, everywhere, *((everywhere,) if frozen else ())),
        out_shardings=(shardings, everywhere, everywhere),
        donate_argnums=0,
    )
    initial = jax.jit(initial_carry, in_shardings=(shardings,), out_shardings=everywhere)
    return CompiledStep(WithFrozen(jitted, frozen) if frozen else jitted, initial, state, by_example)
