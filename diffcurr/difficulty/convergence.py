"""How fast each noise level is learned: the paper's other observation, from networks that see one interval alone.

K networks are trained at once, each on one interval of noise levels: the train step, vmapped over K masks with one
cluster each (and over seeds), so there is one program to compile. Within a seed they start from the same parameters
and see the same images and noise; only the noise level differs.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr.curriculum.pacing import PacingConfig
from diffcurr.training.randomness import step_key, stream_key
from diffcurr.training.state import TrainState, init_state
from diffcurr.training.step import Batch, StepConfig, draw, microbatch_loss, train_step


class Convergence(NamedTuple):
    """Losses of networks trained on one interval each.

    Attributes:
      steps: optimizer steps taken at each evaluation; the first is 0.
      loss: of each network on its own interval, on examples, noise levels and noise fixed per seed.
    """

    steps: Int[np.ndarray, " evaluation"]
    loss: Float[np.ndarray, "seed interval evaluation"]


def train_intervals(
    config: StepConfig,
    init_params: Callable[[PRNGKeyArray], Any],
    data: Batch,
    edges: Float[np.ndarray, " edge"],
    *,
    seeds: Sequence[int],
    steps: int,
    batch_size: int,
    evaluate_every: int,
    num_evaluated: int = 128,
    report: Callable[[int, int], None] | None = None,
) -> Convergence:
    """Trains one network for each interval of `edges` and each seed, all at once, and evaluates them on the way.

    Args:
      config: of the train step; its pacing, edges and seed are replaced, microbatches taken as one.
      init_params: a network's first parameters from a key.
      data: all examples: `image` float [M, H, W, C], `label` int [M]. Batches are drawn with replacement.
      edges: of the intervals, in u.
      steps: optimizer steps of each network, a multiple of `evaluate_every`.
      batch_size: of each network.
      num_evaluated: examples in each evaluation, drawn from `data`; u is stratified over the interval.
      report: called with (steps done, steps in all) after each evaluation.

    Raises:
      ValueError: if a number is below 1, or steps is no multiple of evaluate_every.
    """
    num_intervals = len(edges) - 1
    check_numbers(
        intervals=num_intervals, seeds=len(seeds), steps=steps, batch_size=batch_size, evaluate_every=evaluate_every
    )
    masks = jnp.eye(num_intervals, dtype=bool)
    alone = dataclasses.replace(
        config, pacing=PacingConfig(clusters=num_intervals, order="none"), edges=edges, microbatches=1
    )

    def some(seed: Array, stream: str, step: int | Array, number: int) -> Batch:
        index = jax.random.randint(step_key(seed, stream, step), (number,), 0, len(data["image"]))
        return {name: rows[index] for name, rows in data.items()}

    def init(seed: Array) -> TrainState:
        first = init_state(init_params(stream_key(seed, "parameters")), alone.optimizer, alone.pacing)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_intervals, *x.shape)), first)

    def advance(seed: Array, states: TrainState) -> TrainState:
        seeded = dataclasses.replace(alone, seed=seed)

        def step(states: TrainState, _: None) -> tuple[TrainState, None]:
            batch = some(seed, "interval batch", states.step[0], batch_size)
            one = functools.partial(train_step, config=seeded)
            return jax.vmap(one, in_axes=(0, None, 0))(states, batch, masks)[0], None

        return jax.lax.scan(step, states, length=evaluate_every)[0]

    def evaluate(seed: Array, states: TrainState) -> Float[Array, " interval"]:
        stratified = dataclasses.replace(alone, seed=seed, stratified=True, class_dropout=0.0)
        batch = some(seed, "interval evaluation", 0, num_evaluated)

        def loss(params: Any, mask: Array) -> Array:
            draws = draw(stratified, jnp.int32(-1), 0, mask, batch["image"].shape)  # no training step's draws
            return microbatch_loss(params, stratified, batch, draws)[0]

        return jax.vmap(loss)(states.params, masks)

    seed_array = jnp.asarray(seeds, jnp.int32)
    states = jax.jit(jax.vmap(init))(seed_array)
    advance_all = jax.jit(jax.vmap(advance), donate_argnums=1)
    evaluate_all = jax.jit(jax.vmap(evaluate))
    evaluations = np.arange(0, steps + 1, evaluate_every)
    losses: list[np.ndarray] = []
    for done in evaluations:
        if done:
            states = advance_all(seed_array, states)
        losses.append(jax.device_get(evaluate_all(seed_array, states)))
        if not np.all(np.isfinite(losses[-1])):
            seed, interval = np.argwhere(~np.isfinite(losses[-1]))[0]
            raise FloatingPointError(
                f"the loss of interval {interval + 1} is not finite after {done} steps with seed {seeds[seed]}: "
                f"lower the learning rate"
            )
        if report:
            report(int(done), steps)
    return Convergence(evaluations, np.stack(losses, axis=-1))


def check_numbers(*, steps: int, evaluate_every: int, **numbers: int) -> None:
    """What `train_intervals` asks of its numbers.

    Raises:
      ValueError: if one is below 1, or steps is no multiple of evaluate_every.
    """
    for name, value in (numbers | {"steps": steps, "evaluate_every": evaluate_every}).items():
        if value < 1:
            raise ValueError(f"{name} = {value}: must be at least 1")
    if steps % evaluate_every:
        raise ValueError(f"steps = {steps}: must be a multiple of evaluate_every = {evaluate_every}")


def check_share(share: float) -> None:
    """Raises ValueError if a share of the improvement is not in (0, 1)."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"share = {share}: must lie between 0 and 1")


def normalised(loss: Float[np.ndarray, "*model evaluation"]) -> Float[np.ndarray, "*model evaluation"]:
    """Loss curves from 1 at the start to 0 at the end, which is the mean over the last tenth of the evaluations."""
    last = max(1, loss.shape[-1] // 10)
    final = np.mean(loss[..., -last:], axis=-1, keepdims=True)
    return (loss - final) / (loss[..., :1] - final)


def steps_to_share(convergence: Convergence, share: float) -> Float[np.ndarray, "seed interval"]:
    """Steps after which a network has made this share of its whole improvement, interpolated between evaluations.

    The first such step. What is compared is the improvement within the steps that were trained: of a network that
    would still improve much further it says too little.

    Raises:
      ValueError: if share is not in (0, 1).
    """
    check_share(share)
    left = normalised(convergence.loss) - (1.0 - share)  # at most 0 once it is reached
    after = np.argmax(left <= 0, axis=-1)
    before = np.maximum(after - 1, 0)
    high, low = (np.take_along_axis(left, i[..., None], -1)[..., 0] for i in (before, after))
    part = high / np.where(high > low, high - low, 1.0)
    return convergence.steps[before] + part * (convergence.steps[after] - convergence.steps[before])
