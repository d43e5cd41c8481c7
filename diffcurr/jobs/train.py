"""Train, or go on training: `python -m diffcurr.main --config=...`"""

import functools
import signal
from typing import Any

import jax
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr import reporting
from diffcurr.data import pipeline
from diffcurr.data.sources import Source
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.metrics import evaluation
from diffcurr.reporting.progress import Line, Progress, duration
from diffcurr.reporting.writers import EVALUATIONS, Discard, MetricWriter, read_rows
from diffcurr.training import distributed
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.loop import Loop
from diffcurr.training.termination import Termination
from diffcurr.training.window import CurriculumWindow
from diffcurr.training.workdir import Workdir

UNLOGGED = 1000  # steps after which the loss is read in a run that logs nothing


def run(config: ConfigDict, workdir: epath.PathLike) -> int:
    """Trains into `workdir` from its newest checkpoint, or from the start. Returns the exit code."""
    experiment = experiment_lib.from_config(config)
    source = distributed.primary_first(experiment.dataset.opened)
    with Workdir(workdir, experiment.config) as folder, Termination() as termination:
        experiment = experiment.with_clusters(folder.path, Line())
        checkpoints = Checkpoints(folder.path / "checkpoints")
        try:
            return _train(experiment, source, folder.path, checkpoints, termination)
        finally:
            checkpoints.close()


def _train(
    experiment: Experiment, source: Source, workdir: epath.Path, checkpoints: Checkpoints, termination: Termination
) -> int:
    config, compiled, rule = experiment.config, experiment.compiled, experiment.rule
    primary = distributed.is_primary()
    progress = Progress(config.steps, silent=not primary)

    ##################################################################### data
    dataset = pipeline.make_dataset(
        source,
        experiment.dataset,
        experiment.conditioning.of,
        batch_size=config.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    batches = pipeline.make_iterator(dataset, threads=experiment.dataset.threads)

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
    progress.say(
        f"{config.dataset.name}: {len(source):,} images; {_describe(experiment)}; "
        f"{experiment.mesh.size} {jax.devices()[0].platform} device(s); writing to {workdir}"
    )

    ################################################################ the loop
    writer = MetricWriter(workdir, last_step=step) if primary else Discard()
    number = config.sampling.samples
    condition, sample_key = experiment.conditioning.chosen(number), experiment.sample_key
    evaluator = experiment.evaluator(config.evaluation.training_samples) if config.evaluate_every else None
    new_window = functools.partial(CurriculumWindow, batch_size=config.batch_size, num_stages=rule.num_stages)
    weights = compiled.initial_weights(state)
    loop = Loop(compiled.step, state, weights, batches, compiled.batch_sharding, new_window, step)
    del state  # the loop's from here on: each step donates it
    loss: float | None = None  # of the last window, if comparable between checkpoints

    def report(summary: dict[str, Any] | None) -> None:
        nonlocal loss
        if summary is None:
            return
        loss = summary["loss"] if summary["stage"] == summary["num_stages"] else None
        if config.log_every:
            at = summary.pop("step")
            writer.write(at, summary)
            progress.report(at, summary)

    progress.say("compiling the train step ...")
    began, first_step, stop = loop.clock.now(), step, False
    try:
        with jax.transfer_guard("disallow"):
            while loop.number < config.steps and not stop:
                loop.advance()
                step = loop.number
                if step == first_step + 1:
                    loop.leave_out()
                    progress.say(f"compiled in {duration(loop.clock.now() - began)}")

                if step % (config.log_every or UNLOGGED) == 0:
                    report(loop.close_window())
                # Read once: a signal that comes later is seen at the next step. All processes see it at the same one.
                stop = bool(termination.requested) or checkpoints.preempted(step)
                if _due(step, config.checkpoint_every) or step == config.steps or stop:
                    # What is saved is known to be finite, so here, and only here, the host waits for the device.
                    report(loop.finish())
                    loop.check_finite()
                    checkpoints.save(step, loop.state, batches.get_state(), config_lib.to_json(config), loss)
                if _due(step, config.sample_every) or (config.sample_every and step == config.steps):
                    jax.block_until_ready(loop.state)  # the steps still under way are not counted as time for samples
                    with loop.clock.paused():
                        images = experiment.sampler.draw(loop.state.ema, sample_key, condition, number)
                    grid = workdir / "samples" / f"{step:08d}.png"
                    writer.submit(reporting.figures.save_grid, grid, images, experiment.conditioning.columns)
                    writer.submit(_draw_curriculum, workdir, experiment)
                if evaluator and _due(step, config.evaluate_every):
                    jax.block_until_ready(loop.state)
                    with loop.clock.paused():
                        _, measured = evaluator(loop.state.ema)
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


def _describe(experiment: Experiment) -> str:
    """The curriculum in a few words."""
    settings, rule = experiment.config.curriculum, experiment.rule
    if rule.num_stages == 1:
        return f"rule {settings.name}"
    return f"{rule.num_stages} stages of {settings.get('order', settings.name)}"


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _draw_curriculum(workdir: epath.Path, experiment: Experiment) -> None:
    reporting.figures.save_curriculum(workdir / "curriculum.png", read_rows(workdir), experiment.step_config.edges)
