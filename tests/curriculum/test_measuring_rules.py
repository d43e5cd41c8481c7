"""A rule that measures would weigh clusters by something else than it says: another unit, stale numbers, noise."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from diffcurr.curriculum import clusters, quantiles
from diffcurr.curriculum.densities import Laplace, Table
from diffcurr.curriculum.levels import Levels
from diffcurr.curriculum.rules import Hold, Information, Patience, Progress, Rule, Schedule, Seen, Staged, Uncertainty
from diffcurr.processes import DDPM, EDM, Flow, Process
from diffcurr.processes.prediction import V, expand
from diffcurr.processes.weighting import MinSNR

VARIANCES = np.geomspace(1.0, 1e-4, 256)
PROCESSES: dict[str, Process] = {
    "ddpm, epsilon": DDPM(),
    "ddpm, v": DDPM(prediction=V()),
    "ddpm, epsilon, min-snr": DDPM(weighting=MinSNR()),
    "edm": EDM(),
    "flow": Flow(),
}


def levels_of(process: Process, edges: np.ndarray) -> Levels:
    return Levels(edges, process.log_snr(process.level_midpoints), process.noise_weight)


def optimal(process: Process) -> Callable[[Array, Array], Array]:
    """The best possible network of a process for independent normal pixels of VARIANCES."""
    variances = jnp.asarray(VARIANCES, jnp.float32)

    def predict(x: Float[Array, "batch pixel"], time: Float[Array, " batch"]) -> Float[Array, "batch pixel"]:
        if isinstance(process, EDM):  # which shows the network c_in x and log(sigma) / 4
            sigma = jnp.exp(4 * time)
            c_skip, c_out, c_in = process.prediction._scales(process.level(sigma))
            x = x / expand(c_in, x)
            x0 = x * variances / (variances + expand(sigma, x) ** 2)
            return (x0 - expand(c_skip, x) * x) / expand(c_out, x)
        level = process.level(time)
        alpha, sigma = expand(level.alpha, x), expand(level.sigma, x)
        x0 = x * alpha * variances / (alpha**2 * variances + sigma**2)
        a, b = process.prediction.coefficients(level)
        return expand(a, x) * x0 + expand(b, x) * (x - alpha * x0) / sigma

    return predict


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_information_is_the_analytic_density_under_every_process(process: Process) -> None:
    """Gaussian data, the analytic denoiser, and draws by the rule itself: rho = e g per log-SNR, within 5 %."""
    edges = clusters.by_log_snr(process.log_snr(process.level_midpoints), 60)
    levels = levels_of(process, edges)
    rule = Information(clusters=60, gate=0.05, warm_up=50, memory=2000.0).on(levels)
    predict = optimal(process)

    def step(state: tuple, key: Array) -> tuple[tuple, None]:
        weights, state = state
        key_u, key_x, key_noise = jax.random.split(key, 3)
        u = quantiles.draw(key_u, weights, edges, 1024)
        x0 = jnp.sqrt(jnp.asarray(VARIANCES, jnp.float32)) * jax.random.normal(key_x, (1024, 256))
        losses = process.losses(predict, x0, u, jax.random.normal(key_noise, (1024, 256)))
        member = jax.nn.one_hot(quantiles.cluster_of(u, edges), 60, dtype=jnp.float32)
        state = rule.update(state, Seen(jnp.mean(losses.loss), None, losses.noise_error @ member, member.sum(0)))
        return (rule.weights(state), state), None

    start = (rule.weights(rule.init()), rule.init())
    (weights, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 300))

    snr = np.exp(levels.log_snr)
    e = np.mean(snr[:, None] * VARIANCES / (1 + snr[:, None] * VARIANCES), axis=1)
    gate = 1 / (1 + (0.05 * np.exp(levels.log_snr / 2)) ** 3)
    wanted = levels.averaging @ (e * gate * levels.log_snr_slope) * levels.widths
    given = np.asarray(weights) * (levels.averaging @ levels.noise_weight) * levels.widths
    wanted, given = wanted / wanted.sum(), given / given.sum()
    holds = np.argsort(wanted)[::-1]
    holds = holds[: np.searchsorted(np.cumsum(wanted[holds]), 0.95) + 1]
    np.testing.assert_allclose(given[holds], wanted[holds], rtol=0.05)


def seen(error: np.ndarray | list, count: np.ndarray | list) -> Seen:
    """Examples in each cluster, each with the cluster's error."""
    count = jnp.asarray(count, jnp.float32)
    return Seen(jnp.float32(1), count, count * jnp.asarray(error, jnp.float32), count)


def after(rule: Rule, *steps: Seen) -> np.ndarray:
    """Weights after some steps."""
    state = rule.init()
    for one in steps:
        state = rule.update(state, one)
    return np.asarray(rule.weights(state))


LEVELS = levels_of(Flow(), np.linspace(0, 1, 5))
ERRORS, COUNTS = [0.8, 0.4, 0.1, 0.01], [8, 8, 8, 8]


def test_information_warms_up_and_leaves_out_nothing() -> None:
    rule = Information(clusters=4, warm_up=3).on(LEVELS)
    np.testing.assert_array_equal(after(rule, *[seen(ERRORS, COUNTS)] * 2), 1.0)
    weights = after(rule, *[seen(ERRORS, COUNTS)] * 3)
    assert np.all(weights > 0) and math.isclose(weights @ LEVELS.widths, 1.0, rel_tol=1e-5)
    np.testing.assert_array_equal(after(rule, *[seen(ERRORS, [8, 8, 0, 8])] * 3)[2], 1.0)  # never drawn


def test_information_averages_over_examples_not_steps() -> None:
    """A cluster drawn once in four steps has an average over as many examples, so a change counts as much."""
    rule = Information(clusters=4, memory=64.0).on(LEVELS)
    steps = [seen([1.0] * 4, [16, 16, 4, 4])] * 200 + [seen([0.0] * 4, [16, 16, 0, 0])] * 4
    steps += [seen([0.0] * 4, [0, 0, 4, 4])] * 16
    state = rule.init()
    for one in steps:
        state = rule.update(state, one)
    average = np.asarray(state.error / state.examples)
    np.testing.assert_allclose(average[:2], math.exp(-1), rtol=0.15)
    np.testing.assert_allclose(average[2:], math.exp(-1), rtol=0.05)


def test_aim_and_gate() -> None:
    """A larger aim moves weight to noise; a gate takes it from levels with less noise than c."""
    steps = [seen(ERRORS, COUNTS)] * 3
    aims = [after(Information(clusters=4, warm_up=0, aim=aim, gate=1e-3).on(LEVELS), *steps) for aim in (0.0, 0.5, 1.0)]
    noisiest = [weights[-1] / weights.sum() for weights in aims]
    assert noisiest[0] < noisiest[1] < noisiest[2]
    cleanest = [
        after(Information(clusters=4, warm_up=0, gate=gate).on(LEVELS), *steps)[0] / LEVELS.widths.sum()
        for gate in (1e-3, 0.3, 3.0)
    ]
    assert cleanest[0] > cleanest[1] > cleanest[2]


def test_the_gate_is_found_where_the_error_begins() -> None:
    """Clusters at the clean end with almost no error: the gate is at the first one with more than `onset` of it."""
    levels = levels_of(Flow(), np.linspace(0, 1, 6))
    errors = [1e-5, 1e-4, 0.5, 0.5, 0.5]
    found = after(Information(clusters=5, warm_up=0).on(levels), seen(errors, [8] * 5))
    centre = float(np.exp(-(levels.averaging @ levels.log_snr)[2] / 2))
    given = after(Information(clusters=5, warm_up=0, gate=centre).on(levels), seen(errors, [8] * 5))
    np.testing.assert_allclose(found, given, rtol=1e-4)


def test_progress_follows_what_still_falls_and_keeps_its_floor() -> None:
    rule = Progress(clusters=4, floor=0.4, memory=100.0).on(LEVELS)
    falling = [seen([0.8, 0.4 * 0.99**step, 0.1, 0.01], [8] * 4) for step in range(100)]
    weights = after(rule, *falling)
    assert np.argmax(weights) == 1 and weights[1] > 1.5
    assert np.all(weights >= 0.4 - 1e-6) and math.isclose(weights @ LEVELS.widths, 1.0, rel_tol=1e-5)
    # In another unit, whatever it is in each cluster, the same; and with no fall, as without the rule.
    scaled = [seen(np.array([3, 7, 0.1, 100]) * one.cluster_noise_error / 8, [8] * 4) for one in falling]
    np.testing.assert_allclose(after(rule, *scaled), weights, rtol=1e-4)
    np.testing.assert_allclose(after(rule, *[seen(ERRORS, COUNTS)] * 300), 1.0, rtol=1e-3)
    rising = [seen([0.8, 0.4 * 1.01**step, 0.1, 0.01], [8] * 4) for step in range(100)]
    np.testing.assert_allclose(after(rule, *rising), 1.0, rtol=1e-3)


def expected_losses(losses: list, rule: Uncertainty) -> np.ndarray:
    """s after many steps in which each cluster had its loss."""

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        return rule.update(state, Seen(jnp.float32(1), 8 * jnp.asarray(losses), None, jnp.full(4, 8.0))), None

    state, _ = jax.lax.scan(step, rule.init(), None, 3000)
    np.testing.assert_array_equal(rule.weights(state), 1.0)
    return -np.log(np.asarray(rule.factors(state)))


def test_uncertainty_learns_the_mean_loss_of_each_level() -> None:
    """The minimum of L exp(-s) + s is at s = log L; with features, as close as they allow."""
    losses = [3.0, 1.0, 0.2, 0.05]
    free = expected_losses(losses, Uncertainty(clusters=4).on(LEVELS))
    np.testing.assert_allclose(free, np.log(losses), atol=0.02)
    smooth = expected_losses(losses, Uncertainty(clusters=4, features=64).on(LEVELS))
    np.testing.assert_allclose(smooth, np.log(losses), atol=0.05)
    constant = expected_losses([2.0] * 4, Uncertainty(clusters=4).on(LEVELS))
    np.testing.assert_allclose(constant, np.log(2.0), atol=0.02)


def test_the_first_step_of_uncertainty_by_hand() -> None:
    """At s = 0 the gradient is (count - sum of losses) / batch; Adam's first step has the size of the rate."""
    rule = Uncertainty(clusters=4, learning_rate=0.025).on(LEVELS)
    state = rule.update(rule.init(), Seen(jnp.float32(1), jnp.array([9.0, 2.0, 4.0, 0.0]), None, jnp.full(4, 4.0)))
    np.testing.assert_allclose(state.parameters, [0.025, -0.025, 0.0, -0.025], atol=1e-6)


def test_schedule() -> None:
    phases = ({"name": "laplace", "steps": 2}, {"name": "table", "at": (1, 0, 0, 1), "steps": 3}, {"name": "uniform"})
    rule = Schedule(clusters=4, phases=phases).on(LEVELS)
    first, second, last = Laplace().weights(LEVELS), Table(at=(1, 0, 0, 1)).weights(LEVELS), np.ones(4)
    state = rule.init()
    for number, expected in enumerate([first] * 2 + [second] * 3 + [last] * 2):
        np.testing.assert_allclose(rule.weights(state), expected, rtol=1e-6, err_msg=f"step {number}")
        state = rule.update(state, seen(ERRORS, COUNTS))
    assert rule.num_stages == 3 and int(rule.stage(state)) == 3


def test_a_rule_in_the_paper_s_stages() -> None:
    """The weights of the rule in the clusters that are active; both see every step."""
    rule = Staged(rule=Hold(clusters=4, density=Table(at=(1, 2, 3, 4))), stages=Patience(clusters=4, patience=1))
    rule = rule.on(LEVELS)
    state, weights = rule.init(), []
    for _ in range(8):
        weights.append(np.asarray(rule.weights(state)))
        state = rule.update(state, seen(ERRORS, COUNTS))
    whole = Table(at=(1, 2, 3, 4)).weights(LEVELS)
    np.testing.assert_allclose(weights[0], whole * [0, 0, 0, 1])
    np.testing.assert_allclose(weights[-1], whole * [0, 1, 1, 1])
    assert rule.num_stages == 4 and int(rule.stage(state)) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hold(clusters=4).weights(()), r"Hold: call on\(levels\) first"),
        (lambda: Hold(clusters=3).on(LEVELS), "4 clusters: the rule was made for 3"),
        (lambda: Hold(clusters=4, density=Table(at=(1, 2))).on(LEVELS), "give a weight for each of the 4 clusters"),
        (lambda: Schedule(phases=()), "give one density at least"),
        (lambda: Schedule(phases=({"name": "uniform"}, {"name": "uniform"})), "phase 1: steps = None: must be"),
        (lambda: Schedule(phases=({"name": "uniform", "steps": 3},)), "phase 1: steps = 3: the last phase lasts"),
        (lambda: Schedule(phases=({"name": "normal"},)), "phase 1: name = 'normal': choose one of"),
        (lambda: Information(aim=1.5), "aim = 1.5: must be"),
        (lambda: Progress(floor=-0.1), "floor = -0.1: must be"),
        (lambda: Staged(rule=Patience(), stages=Patience()), "the rule Patience has stages itself"),
        (
            lambda: Staged(
                rule=Hold(clusters=4, density=Table(at=(1, 0, 1, 1))), stages=Patience(clusters=4, accumulate=False)
            ).on(LEVELS),
            "accumulate = False trains each cluster alone, and the rule gives no weight to clusters 2",
        ),
        (
            lambda: Staged(rule=Hold(clusters=4, density=Table(at=(1, 1, 1, 0))), stages=Patience(clusters=4)).on(
                LEVELS
            ),
            "no weight to any cluster of the first stage",
        ),
    ],
)
def test_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
