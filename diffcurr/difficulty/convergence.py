"""How fast each noise level is learned: the paper's other observation.

The noise levels u in [0, 1) are divided into K u-intervals, and K networks are trained, each on the noise levels of one
u-interval. All are trained at once, by the train step vmapped over K curriculum weights and over seeds, so there is one
program to compile. Networks with the same seed start from the same parameters and see the same images and the same
noise; only their noise levels differ.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from diffcurr import ranges
from diffcurr.batch import Batch
from diffcurr.curriculum.rules import NoStages
from diffcurr.training.randomness import step_key, stream_key
from diffcurr.training.state import TrainState, init_state
from diffcurr.training.step import StepConfig, draw, microbatch_loss, train_step


class Convergence(NamedTuple):
    """Losses of networks that were each trained on one u-interval.

    Attributes:
      steps: number of optimizer steps before each evaluation; the first is 0.
      loss: loss of each network on its u-interval. All evaluations of a seed use the same examples, noise levels and
        noise.
    """

    steps: Int[np.ndarray, " evaluation"]
    loss: Float[np.ndarray, "seed u_interval evaluation"]


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
    """Trains one network for each u-interval and each seed, all at once, and evaluates them during training.

    Args:
      config: settings of the train step. Its rule, edges and seed are replaced, and batches are not split into
        microbatches.
      init_params: makes the initial parameters of a network from a random key.
      data: all examples. Batches are drawn from them with replacement.
      edges: edges of the u-intervals.
      seeds: seeds of the runs.
      steps: number of optimizer steps of each network, a multiple of `evaluate_every`.
      batch_size: number of examples in each batch of each network.
      evaluate_every: number of steps between evaluations.
      num_evaluated: number of examples in each evaluation, drawn from `data`. Their noise levels are stratified over
        the u-interval.
      report: called with (steps done, steps in all) after each evaluation.

    Raises:
      ValueError: if a number is below 1, or `steps` is not a multiple of `evaluate_every`.
      FloatingPointError: if a loss is not finite.
    """
    num_intervals = len(edges) - 1
    ranges.check(
        dict.fromkeys(("intervals", "seeds", "steps", "batch_size", "evaluate_every"), ranges.Steps),
        {
            "intervals": num_intervals,
            "seeds": len(seeds),
            "steps": steps,
            "batch_size": batch_size,
            "evaluate_every": evaluate_every,
        },
    )
    check_steps(steps, evaluate_every)
    one_cluster_each = jnp.eye(num_intervals)
    if config.codec is not None:  # `data` are encoded already, and augmentations apply to pixels
        config = dataclasses.replace(config, codec=None, augment=0.0)
    step_config = dataclasses.replace(
        config,
        rule=NoStages(clusters=num_intervals),
        edges=edges,
        unbiased=False,
        microbatches=1,
        ema_gammas=(),
        alignment=None,
    )

    def draw_batch(seed: Array, stream: str, step: int | Array, number: int) -> Batch:
        index = jax.random.randint(step_key(seed, stream, step), (number,), 0, len(data.x))
        return jax.tree.map(lambda examples: examples[index], data)

    def init(seed: Array) -> TrainState:
        first = init_state(init_params(stream_key(seed, "parameters")), step_config.optimizer, step_config.rule)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_intervals, *x.shape)), first)

    def advance(seed: Array, states: TrainState) -> TrainState:
        seeded = dataclasses.replace(step_config, seed=seed)

        def step(states: TrainState, _: None) -> tuple[TrainState, None]:
            batch = draw_batch(seed, "interval batch", states.step[0], batch_size)
            one = functools.partial(train_step, config=seeded)
            return jax.vmap(one, in_axes=(0, None, 0))(states, batch, one_cluster_each)[0], None

        return jax.lax.scan(step, states, length=evaluate_every)[0]

    def evaluate(seed: Array, states: TrainState) -> Float[Array, " u_interval"]:
        stratified = dataclasses.replace(step_config, seed=seed, stratified=True)
        batch = draw_batch(seed, "interval evaluation", 0, num_evaluated)

        def loss(params: Any, weights: Array) -> Array:
            # Step -1 belongs to no training step, so its draws do not occur in training.
            draws = draw(stratified, jnp.int32(-1), 0, weights, batch.x.shape)
            return microbatch_loss(params, stratified, batch, draws._replace(dropped=jnp.zeros_like(draws.dropped)))[0]

        return jax.vmap(loss)(states.params, one_cluster_each)

    seed_array = jnp.asarray(np.asarray(seeds, np.uint32).view(np.int32))  # a seed is 32 bits
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
            seed, u_interval = np.argwhere(~np.isfinite(losses[-1]))[0]
            raise FloatingPointError(
                f"the loss of u-interval {u_interval + 1} is not finite after {done} steps with seed {seeds[seed]}: "
                f"lower the learning rate"
            )
        if report:
            report(int(done), steps)
    return Convergence(evaluations, np.stack(losses, axis=-1))


def check_steps(steps: int, evaluate_every: int) -> None:
    """Raises ValueError if `steps` is not a multiple of `evaluate_every`."""
    if steps % evaluate_every:
        raise ValueError(f"steps = {steps}: must be a multiple of evaluate_every = {evaluate_every}")


def check_share(share: float) -> None:
    """Checks a share of the improvement.

    Raises:
      ValueError: if share is not in (0, 1).
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share = {share}: must lie between 0 and 1")


def normalised(loss: Float[np.ndarray, "*model evaluation"]) -> Float[np.ndarray, "*model evaluation"]:
    """Rescales loss curves so that they are 1 at the start and 0 at the end.

    The loss at the end is the mean over the last tenth of the evaluations. A curve that ends no lower than it starts is
    NaN: it has no improvement to be measured by.
    """
    last = max(1, loss.shape[-1] // 10)
    final = np.mean(loss[..., -last:], axis=-1, keepdims=True)
    improvement = loss[..., :1] - final
    return (loss - final) / np.where(improvement > 0, improvement, np.nan)


def steps_to_share(convergence: Convergence, share: float) -> Float[np.ndarray, "seed u_interval"]:
    """Finds the first step at which each network has made a share of its total improvement.

    Losses are interpolated linearly between evaluations. The total improvement is that of the steps that were trained,
    so the result is too low for a network that would still improve much with more steps. It is NaN for one that did not
    improve.

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
