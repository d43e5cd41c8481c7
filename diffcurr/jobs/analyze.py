"""How hard each noise level of the data is, before training: `python -m diffcurr.main --config=... --job=analyze`"""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import experiment as experiment_lib
from diffcurr.batch import Batch
from diffcurr.config import flatten
from diffcurr.curriculum import clusters
from diffcurr.difficulty import analyzed, cost, curve
from diffcurr.difficulty import convergence as convergence_lib
from diffcurr.difficulty.analyzed import Data
from diffcurr.difficulty.convergence import Convergence
from diffcurr.difficulty.relative_entropy import RelativeEntropy
from diffcurr.errors import UserError, concerning
from diffcurr.experiment import Experiment
from diffcurr.networks import TokenNetwork
from diffcurr.planning.chips import GPUS, TPUS
from diffcurr.reporting import curriculum, figures
from diffcurr.reporting import difficulty as report
from diffcurr.reporting.progress import Countdown, Line, duration
from diffcurr.training import distributed
from diffcurr.training.state import split_network
from diffcurr.training.workdir import check_config, make_writable

IMAGENET = 1_281_167  # images of its training split
CHIPS = {"16 v5e chips": (TPUS["v5e"], 16), "8 H100": (GPUS["h100"], 8)}


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes relative_entropy.npz and .png, convergence.npz and .png, and report.md. Returns the exit code.

    Where the workdir holds a run, its curriculum.png is drawn again, and the report says what it tells.

    All processes measure together; process 0 writes files and logs.
    """
    primary = distributed.is_primary()
    experiment, workdir, line = experiment_lib.from_config(config), epath.Path(workdir), Line(silent=not primary)
    config = experiment.config
    if isinstance(experiment.network_outline, TokenNetwork):
        raise UserError(
            f"network.name = {config.network.name!r}: --job=analyze trains networks that denoise: analyze the config "
            f"of a run whose task is 'diffusion'"
        )
    check_config(workdir, config)
    make_writable(workdir)
    data = analyzed.load_data(experiment, line.say)
    trained = curriculum.of_workdir(workdir, config)

    ################################################## relative entropy of consecutive marginals
    pace = Pace()

    def countdown(what: str, unit: str) -> Callable[[int, int], None]:
        show = Countdown(line, what, unit)
        return pace.around(show) if unit == curve.UNIT else show

    mixture = curve.KEPT.known(workdir, experiment)
    if mixture is not None:
        line.say(f"{workdir / curve.KEPT.file} holds the relative entropy of these data already")
    surveyed = curve.look(experiment, data, countdown, covariance=True)
    wanted = (True,) if mixture is not None else (False, True)
    measured = curve.measure_each(experiment, data, countdown, wanted, surveyed)
    mixture, left_out = measured[0] if mixture is None else mixture, measured[-1]
    line.say(_pace(pace))
    line.say(_at_scale(experiment, pace, len(surveyed.mean)))

    intervals = clusters.uniform(config.analysis.convergence.intervals)
    share = config.analysis.convergence.share
    if primary:
        line.say(f"Gaussian of the same mean and covariance, {len(surveyed.mean):,} dimensions")
        gaussian = curve.gaussian(experiment, surveyed)
        edges = _suggested_edges(experiment, mixture)
        arrays = mixture._asdict() | {"gaussian": gaussian}
        arrays |= {f"leave_one_out_{name}": part for name, part in left_out._asdict().items() if name != "upper_bound"}
        arrays |= {f"edges_{name.replace(' ', '_')}": positions for name, positions in edges.items()}
        curve.KEPT.save(workdir, experiment, arrays)
        u = curve.levels(experiment).u[1:]
        figures.save_figure(
            workdir / "relative_entropy.png", figures.draw_relative_entropy(u, mixture, left_out, gaussian, edges)
        )

    ############################################### convergence of networks on one interval each
    # Every process trains all networks on its own: none waits for another.
    converged = _convergence(experiment, data.examples, intervals, line)
    if not primary:
        return 0
    with atomic_file.replacing(workdir / "convergence.npz") as path:
        np.savez_compressed(path, edges=intervals, **converged._asdict())
    figures.save_figure(workdir / "convergence.png", figures.draw_convergence(converged, intervals, share))

    ###################################################################################### words
    text = "\n".join(
        [
            f"# How hard is each noise level of {config.dataset.name}?",
            "",
            _conditions(experiment, data),
            "",
            "## Which noise levels are learned sooner",
            "",
            report.describe_convergence(converged, intervals, share),
            "",
            "![Losses and steps of networks trained on one interval each](convergence.png)",
            "",
            "## Relative entropy of consecutive marginals",
            "",
            report.describe_relative_entropy(mixture, left_out, gaussian, edges),
            "",
            "![The curves and the clusters that they suggest](relative_entropy.png)",
            "",
            *trained,
            _pace(pace),
            "",
        ]
    )
    with atomic_file.replacing(workdir / "report.md") as path:
        path.write_text(text)
    line.say(f"see {workdir / 'report.md'}")
    return 0


class Pace:
    """Measures the rate of a countdown, from its first call on, so that compiling does not count."""

    rate = 0.0

    def around(self, show: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """`show`, measured: `rate` is in its parts a second, 0 where there was one part."""
        first: list[tuple[float, int]] = []

        def measured(done: int, total: int) -> None:
            first.append((time.perf_counter(), done))
            (began, already), (now, _) = first[0], first[-1]
            self.rate = (done - already) / (now - began) if done > already else 0.0
            show(done, total)

        return measured


def _pace(pace: Pace) -> str:
    """The rate at which the curves were measured; empty where there was too little to tell."""
    where = f"{jax.device_count()} {jax.default_backend()} device(s) in {jax.process_count()} process(es)"
    return f"Measured at {pace.rate:.3g} {curve.UNIT} a second ({where})." if pace.rate else ""


def _at_scale(experiment: Experiment, pace: Pace, dimension: int) -> str:
    """What one curve of as many images as ImageNet has would take, at this rate and at least."""
    samples, levels = experiment.config.analysis.samples, experiment.process.num_levels
    needed = cost.work(IMAGENET, dimension, samples, levels)
    takes = [f"{duration(needed.pairs / pace.rate)} at this rate"] if pace.rate else []
    for name, (chip, number) in CHIPS.items():
        near, far = cost.bound(needed, chip.flops, chip.bandwidth, number)
        takes.append(f"at least {near:.2g} s on {name} (bound; {far:.2g} s if distances are read at each level)")
    size = f"{IMAGENET:,} images of {dimension:,} dimensions, {samples:,} samples, {levels:,} noise levels"
    return f"one curve of {size}: {', '.join(takes)}"


def _suggested_edges(experiment: Experiment, mixture: RelativeEntropy) -> dict[str, np.ndarray]:
    clusterings = {
        "relative entropy": clusters.RelativeEntropy(),
        "its square root": clusters.RelativeEntropy(power=0.5),
        "log SNR": clusters.LogSNR(),
    }
    number, log_snr = experiment.config.curriculum.clusters, experiment.log_snr
    return {name: one.edges(number, log_snr, mixture.value) for name, one in clusterings.items()}


def _convergence(experiment: Experiment, data: Batch, intervals: np.ndarray, line: Line) -> Convergence:
    config, settings = experiment.config, experiment.config.analysis.convergence
    line.say(
        f"training {settings.intervals} networks, one for each interval of noise levels, with {settings.seeds} seeds, "
        f"for {settings.steps} steps; compiling ..."
    )
    with concerning("analysis.convergence"):
        try:
            return convergence_lib.train_intervals(
                dataclasses.replace(experiment, edges=intervals).step_config,
                lambda key: split_network(experiment.make_network(nnx.Rngs(key)))[1],
                jax.tree.map(jnp.asarray, data),
                intervals,
                seeds=range(config.seed, config.seed + settings.seeds),
                steps=settings.steps,
                batch_size=settings.batch_size,
                evaluate_every=settings.evaluate_every,
                report=Countdown(line, "convergence", "steps", seconds_between=10.0),
            )
        except FloatingPointError as error:
            raise UserError(f"{error} (optimizer.learning_rate = {config.optimizer.learning_rate})") from error


def _conditions(experiment: Experiment, data: Data) -> str:
    config = experiment.config
    process, network = (
        ", ".join(f"{key.removesuffix('.name')} {value}" for key, value in flatten(section).items() if key != "name")
        for section in (config.process, config.network)
    )
    settings = config.analysis.convergence
    return (
        f"Data: {data.number:,} images of {'x'.join(map(str, experiment.dataset.shape))}, split "
        f"`{config.dataset.split}`, in [-1, 1]. Process: {config.process.name} ({process}). Relative entropy: "
        f"{config.analysis.samples:,} samples. Convergence: {config.network.name} ({network}), batches of "
        f"{settings.batch_size}, {config.optimizer.name} at {config.optimizer.learning_rate:g}. "
        f"Seed {config.seed}."
    )
