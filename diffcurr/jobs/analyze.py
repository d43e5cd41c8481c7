"""How hard each noise level of the data is, before training: `python -m diffcurr.main --config=... --job=analyze`"""

import dataclasses
import functools

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
from diffcurr.difficulty import convergence as convergence_lib
from diffcurr.difficulty import curve
from diffcurr.difficulty.convergence import Convergence
from diffcurr.difficulty.relative_entropy import RelativeEntropy, gaussian_relative_entropy
from diffcurr.errors import UserError, concerning
from diffcurr.experiment import Experiment
from diffcurr.reporting import difficulty as report
from diffcurr.reporting import figures
from diffcurr.reporting.progress import Countdown, Line
from diffcurr.training.state import split_network
from diffcurr.training.workdir import cannot_be_written, check_config


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Writes relative_entropy.npz and .png, convergence.npz and .png, and report.md. Returns the exit code."""
    experiment, workdir, line = experiment_lib.from_config(config), epath.Path(workdir), Line()
    config = experiment.config
    check_config(workdir, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_be_written(workdir, error) from error
    countdown = functools.partial(Countdown, line)
    data = curve.load_data(experiment, line.say)

    ################################################## relative entropy of consecutive marginals
    known = curve.load(workdir, experiment)
    if known is None:
        mixture = curve.measure(experiment, data, countdown)
    else:
        line.say(f"{workdir / curve.FILE} holds the relative entropy of these data already")
        mixture = RelativeEntropy(*(known[name] for name in RelativeEntropy._fields))
    left_out = curve.measure(experiment, data, countdown, leave_one_out=True)
    gaussian = _gaussian(experiment, data, line)
    edges = _suggested_edges(experiment, mixture)
    arrays = mixture._asdict() | {"gaussian": gaussian}
    arrays |= {f"leave_one_out_{name}": part for name, part in left_out._asdict().items() if name != "upper_bound"}
    arrays |= {f"edges_{name.replace(' ', '_')}": positions for name, positions in edges.items()}
    curve.save(workdir, experiment, arrays)
    u = curve.levels(experiment).u[1:]
    figures.save_figure(
        workdir / "relative_entropy.png", figures.draw_relative_entropy(u, mixture, left_out, gaussian, edges)
    )

    ############################################### convergence of networks on one interval each
    intervals = clusters.uniform(config.analysis.convergence.intervals)
    share = config.analysis.convergence.share
    converged = _convergence(experiment, data, intervals, line)
    with atomic_file.replacing(workdir / "convergence.npz") as path:
        np.savez_compressed(path, edges=intervals, **converged._asdict())
    figures.save_figure(workdir / "convergence.png", figures.draw_convergence(converged, intervals, share))

    ###################################################################################### words
    text = "\n".join(
        [
            f"# How hard is each noise level of {config.dataset.name}?",
            "",
            _conditions(experiment, len(data.x)),
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
        ]
    )
    with atomic_file.replacing(workdir / "report.md") as path:
        path.write_text(text)
    line.say(f"see {workdir / 'report.md'}")
    return 0


def _gaussian(experiment: Experiment, data: Batch, line: Line) -> np.ndarray:
    """The curve of a Gaussian with the data's mean and covariance."""
    x = data.x.reshape(len(data.x), -1).astype(np.float64)
    line.say(f"Gaussian of the same mean and covariance, {x.shape[1]:,} dimensions")
    mean = x.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
    _, alphas, sigmas = curve.levels(experiment)
    # A covariance has no negative eigenvalue but by rounding.
    return gaussian_relative_entropy(np.maximum(eigenvalues, 0.0), alphas, sigmas, mean @ vectors)


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


def _conditions(experiment: Experiment, images: int) -> str:
    config = experiment.config
    process, network = (
        ", ".join(f"{key.removesuffix('.name')} {value}" for key, value in flatten(section).items() if key != "name")
        for section in (config.process, config.network)
    )
    settings = config.analysis.convergence
    return (
        f"Data: {images:,} images of {'x'.join(map(str, experiment.dataset.shape))}, split "
        f"`{config.dataset.split}`, in [-1, 1]. Process: {config.process.name} ({process}). Relative entropy: "
        f"{config.analysis.samples:,} samples. Convergence: {config.network.name} ({network}), batches of "
        f"{settings.batch_size}, {config.optimizer.name} at {config.optimizer.learning_rate:g}. "
        f"Seed {config.seed}."
    )
