"""Train, or go on training: `python -m diffcurr.main --config=...`"""

import signal
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr.data import pipeline, sources
from diffcurr.errors import UserError
from diffcurr.jobs import experiment as experiment_lib
from diffcurr.jobs import sample as sample_job
from diffcurr.jobs.experiment import Experiment
from diffcurr.jobs.workdir import Workdir
from diffcurr.metrics import figures
from diffcurr.metrics.progress import Progress, duration
from diffcurr.metrics.writers import MetricWriter, read_rows
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.step import Metrics


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Trains into `workdir` from its newest checkpoint, or from the start. Returns the exit code."""
    experiment = experiment_lib.from_config(config)
    source = sources.open_source(experiment.dataset, config.dataset.split, config.dataset.data_dir)
    with Workdir(workdir, config) as folder, _Termination() as termination:
        checkpoints = Checkpoints(folder.path / "checkpoints")
        try:
            return _train(experiment, source, folder.path, checkpoints, termination)
        finally:
            checkpoints.close()


def _train(
    experiment: Experiment,
    source: sources.Source,
    workdir: epath.Path,
    checkpoints: Checkpoints,
    termination: "_Termination",
) -> int:
    config, compiled, pacing = experiment.config, experiment.compiled, experiment.pacing
    progress = Progress(config.steps)

    ##################################################################### data
    dataset = pipeline.make_dataset(
        source,
        experiment.dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        flip=config.dataset.flip,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    batches = pipeline.make_iterator(dataset, threads=config.dataset.threads)

    ################################################ state: restored, or the first
    restored = checkpoints.restore(compiled.abstract_state)
    if restored:
        state, data_position = restored
        batches.set_state(data_position)
        step = int(state.step)
        if step >= config.steps:
            progress.say(f"{workdir}: this run is finished, at step {step}. A larger --config.steps continues it.")
            return 0
        progress.say(f"{workdir}: continuing from the checkpoint at step {step}")
    else:
        state, step = experiment.init_state(), 0
        progress.say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    mask = compiled.initial_mask(state)
    progress.say(
        f"{config.dataset.name}: {len(source):,} images; {pacing.num_stages} stages of {pacing.order}; "
        f"{experiment.mesh.size} {jax.devices()[0].platform} device(s); writing to {workdir}"
    )

    ################################################################ the loop
    writer = MetricWriter(workdir, last_step=step)
    sampler = sample_job.make_sampler(experiment, config.sampling.samples)
    interval = _Interval(experiment, step)
    in_flight: _Interval | None = None
    loss: float | None = None  # of the last interval, if comparable between checkpoints

    def report(done: _Interval) -> None:
        nonlocal loss
        values = done.summary()
        loss = values["loss"] if values["stage"] == values["num_stages"] else None
        writer.write(done.last_step, values)
        progress.report(done.last_step, values)

    progress.say("compiling the train step ...")
    began, compiled_after = time.perf_counter(), 0.0
    try:
        with jax.transfer_guard("disallow"):
            while step < config.steps and not termination.requested:
                asked = time.perf_counter()
                local = next(batches)
                interval.waited += time.perf_counter() - asked
                batch = {
                    name: jax.make_array_from_process_local_data(compiled.batch_sharding, rows)
                    for name, rows in local.items()
                }
                state, mask, metrics = compiled.step(state, batch, mask)
                interval.add(metrics)
                step += 1
                if not compiled_after:
                    compiled_after = interval.paused = time.perf_counter() - began
                    progress.say(f"compiled in {duration(compiled_after)}")

                if _due(step, config.log_every):
                    interval.close()
                    if in_flight:
                        report(in_flight)
                    interval, in_flight = _Interval(experiment, step), interval
                last = step == config.steps or termination.requested
                if _due(step, config.checkpoint_every) or last:
                    # What is saved is known to be finite, so here, and only here, the host waits for the device.
                    if in_flight:
                        report(in_flight)
                        in_flight = None
                    interval.check_finite()
                    checkpoints.save(step, state, batches.get_state(), config_lib.to_json(config), loss)
                if _due(step, config.sample_every) or step == config.steps:
                    asked = time.perf_counter()
                    images = sampler(state.ema)
                    interval.paused += time.perf_counter() - asked
                    grid = workdir / "samples" / f"{step:08d}.png"
                    writer.submit(figures.save_grid, grid, images, sample_job.grid_columns(experiment))
                    writer.submit(_draw_curriculum, workdir, experiment)
    except FloatingPointError as error:
        raise UserError(f"{error}. The last good checkpoint is kept; lower the learning rate or raise warmup_steps.")
    finally:
        writer.close()
    if termination.requested and step < config.steps:
        progress.say(f"stopped by {termination.name} after saving step {step}; the same command continues")
        return 128 + termination.requested
    progress.say(f"finished {step} steps: see {workdir}")
    return 0


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _draw_curriculum(workdir: epath.Path, experiment: Experiment) -> None:
    figures.save_curriculum(workdir / "curriculum.png", read_rows(workdir), experiment.edges)


class _Interval:
    """The metrics of the steps between two log lines, left on the device until `summary` fetches them."""

    def __init__(self, experiment: Experiment, first_step: int):
        self._experiment = experiment
        self._began = time.perf_counter()
        self._seconds = 0.0
        self._metrics: list[Metrics] = []
        self.first_step = first_step
        self.waited = 0.0  # seconds that the loop stood still for data
        self.paused = 0.0  # seconds that it did something else than train: compile, draw samples

    @property
    def last_step(self) -> int:
        return self.first_step + len(self._metrics)

    def add(self, metrics: Metrics) -> None:
        self._metrics.append(metrics)

    def close(self) -> None:
        """Ends the interval and starts its transfer to the host."""
        self._seconds = time.perf_counter() - self._began - self.paused
        for array in jax.tree.leaves(self._metrics):
            array.copy_to_host_async()

    def check_finite(self) -> list[Metrics]:
        """The metrics on the host.

        Raises:
          FloatingPointError: naming the first step, its stage and clusters with a loss or gradient that is not finite.
        """
        fetched: list[Metrics] = jax.device_get(self._metrics)
        for step, m in enumerate(fetched, self.first_step + 1):
            if not (np.isfinite(m.loss) and np.isfinite(m.grad_norm)):
                what = f"the loss is {m.loss}" if not np.isfinite(m.loss) else f"the gradient's norm is {m.grad_norm}"
                bad = np.flatnonzero(~np.isfinite(m.cluster_loss)) + 1
                where = f" in clusters {', '.join(map(str, bad))}" if len(bad) else ""
                stages = self._experiment.pacing.num_stages
                raise FloatingPointError(f"{what} at step {step}, stage {m.stage}/{stages}{where}")
        return fetched

    def summary(self) -> dict[str, Any]:
        """What is logged of the interval: means over its steps and rates."""
        config, rows = self._experiment.config, self.check_finite()
        count = np.sum([m.cluster_count for m in rows], axis=0)
        total = np.sum([m.cluster_loss for m in rows], axis=0)
        return {
            "loss": float(np.mean([m.loss for m in rows])),
            "stage": int(rows[-1].stage),
            "num_stages": self._experiment.pacing.num_stages,
            "loss_by_cluster": np.where(count > 0, total / np.maximum(count, 1), np.nan),
            "grad_norm": float(np.mean([m.grad_norm for m in rows])),
            "learning_rate": float(self._experiment.learning_rate(self.last_step - 1)),
            "steps_per_second": len(rows) / self._seconds,
            "images_per_second": len(rows) * config.batch_size / self._seconds,
            "data_wait": self.waited / self._seconds,
        }


class _Termination:
    """Notes SIGTERM and SIGINT, so that the loop saves and leaves; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.requested = 0
        self._previous: dict[int, Any] = {}

    @property
    def name(self) -> str:
        return signal.Signals(self.requested).name

    def __enter__(self) -> "_Termination":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        del frame
        print(f"{signal.Signals(number).name}: saving after this step", file=sys.stderr, flush=True)
        self.requested = number
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
