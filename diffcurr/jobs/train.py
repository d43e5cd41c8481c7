"""Train, or go on training: `python -m diffcurr.main --config=...`"""

import functools
import signal
import time

import jax
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.data import pipeline, sources
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.jobs import evaluate as evaluate_job
from diffcurr.jobs import sample as sample_job
from diffcurr.metrics import evaluation
from diffcurr.reporting import figures
from diffcurr.reporting.progress import Line, Progress, duration
from diffcurr.reporting.writers import EVALUATIONS, Discard, MetricWriter, read_rows
from diffcurr.training import distributed
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.clock import Clock
from diffcurr.training.termination import Termination
from diffcurr.training.window import Window
from diffcurr.training.workdir import Workdir

UNLOGGED = 1000  # steps between looks at the loss in a run that logs nothing


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Trains into `workdir` from its newest checkpoint, or from the start. Returns the exit code."""
    experiment = experiment_lib.from_config(config)
    source = distributed.primary_first(experiment.open_source)
    with Workdir(workdir, config) as folder, Termination() as termination:
        experiment = experiment.with_clusters(folder.path, Line())
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
    termination: Termination,
) -> int:
    config, compiled, pacing = experiment.config, experiment.compiled, experiment.pacing
    primary = distributed.is_primary()
    progress = Progress(config.steps, silent=not primary)

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
    writer = MetricWriter(workdir, last_step=step) if primary else Discard()
    sampler = sample_job.make_sampler(experiment, config.sampling.samples)
    evaluate = None
    if config.evaluate_every:
        evaluate = evaluate_job.make_evaluator(experiment, config.evaluation.training_samples)
    new_window = functools.partial(Window, batch_size=config.batch_size, num_stages=pacing.num_stages)
    first_step, window = step, new_window(step)
    in_flight: Window | None = None
    clock, last_finished = Clock(), 0.0
    loss: float | None = None  # of the last window, if comparable between checkpoints

    def report(done: Window) -> None:
        nonlocal loss, last_finished
        finished = done.finished.result()
        values = done.summary(finished - last_finished)
        last_finished = finished
        loss = values["loss"] if values["stage"] == values["num_stages"] else None
        if config.log_every:
            writer.write(done.last_step, values)
            progress.report(done.last_step, values)

    progress.say("compiling the train step ...")
    began = last_finished = clock.now()
    stop = False
    try:
        with jax.transfer_guard("disallow"):
            while step < config.steps and not stop:
                asked = time.perf_counter()
                local = next(batches)
                window.waited += time.perf_counter() - asked
                with jax.transfer_guard_host_to_device("allow"):  # with several processes JAX does not call it explicit
                    batch = {
                        name: jax.make_array_from_process_local_data(compiled.batch_sharding, rows)
                        for name, rows in local.items()
                    }
                state, mask, metrics = compiled.step(state, batch, mask)
                window.add(metrics)
                step += 1
                if step == first_step + 1:
                    last_finished = clock.now()
                    progress.say(f"compiled in {duration(last_finished - began)}")

                if step % (config.log_every or UNLOGGED) == 0:
                    window.close(clock)
                    if in_flight:
                        report(in_flight)
                    window, in_flight = new_window(step), window
                # Read once: a signal that comes later is seen at the next step. All processes see it at the same one.
                stop = bool(termination.requested) or checkpoints.preempted(step)
                if _due(step, config.checkpoint_every) or step == config.steps or stop:
                    # What is saved is known to be finite, so here, and only here, the host waits for the device.
                    if in_flight:
                        report(in_flight)
                        in_flight = None
                    window.check_finite()
                    checkpoints.save(step, state, batches.get_state(), config_lib.to_json(config), loss)
                if _due(step, config.sample_every) or (config.sample_every and step == config.steps):
                    jax.block_until_ready(state)  # the steps still under way are not counted as time for samples
                    with clock.paused():
                        images = sampler(state.ema)
                    grid = workdir / "samples" / f"{step:08d}.png"
                    writer.submit(figures.save_grid, grid, images, sample_job.grid_columns(experiment))
                    writer.submit(_draw_curriculum, workdir, experiment)
                if evaluate and _due(step, config.evaluate_every):
                    jax.block_until_ready(state)
                    with clock.paused():
                        _, measured = evaluate(state.ema)
                    progress.say(f"step {step}: {evaluation.describe(measured)}")
                    writer.write(step, evaluation.flat(measured), EVALUATIONS)
    except FloatingPointError as error:
        raise UserError(
            f"{error}. The last good checkpoint is kept; lower the learning rate or raise warmup_steps."
        ) from error
    finally:
        writer.submit(_draw_curriculum, workdir, experiment)
        writer.close()
    if step < config.steps:
        number = termination.requested or signal.SIGTERM  # of another process
        progress.say(f"stopped by {signal.Signals(number).name} after saving step {step}; the same command continues")
        return 128 + number
    progress.say(f"finished {step} steps: see {workdir}")
    return 0


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _draw_curriculum(workdir: epath.Path, experiment: Experiment) -> None:
    figures.save_curriculum(workdir / "curriculum.png", read_rows(workdir), experiment.step_config.edges)
