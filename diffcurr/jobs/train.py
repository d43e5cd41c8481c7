"""Train, or go on training: `python -m diffcurr.main --config=...`"""

import contextlib
import functools
import signal
from collections.abc import Sequence
from typing import Any

import grain
import jax
import numpy as np
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr import reporting
from diffcurr.data.sources import Source, identity
from diffcurr.errors import UserError
from diffcurr.experiment import Experiment
from diffcurr.metrics import evaluation
from diffcurr.reporting import wandb_run
from diffcurr.reporting.progress import Line, Progress, duration
from diffcurr.reporting.wandb_run import WandbRun
from diffcurr.reporting.writers import EVALUATIONS, Discard, MetricWriter, read_rows
from diffcurr.training import distributed, memory
from diffcurr.training.averages import Snapshots
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.compilation_cache import Watch
from diffcurr.training.loop import Loop
from diffcurr.training.profiling import FOLDER, Profile
from diffcurr.training.termination import Termination
from diffcurr.training.window import from_plain, to_plain
from diffcurr.training.workdir import DATA, Workdir

UNLOGGED = 1000  # steps after which the loss is read in a run that logs nothing
DATA_PICTURE = "data.png"
SHOWN = 64  # examples in it, at most
CUT_BY = (
    "curriculum.clusters",
    "curriculum.clustering",
    "process",
    "analysis",
    "seed",
    "dataset",
    "codec",
)
"""What the edges of the clusters follow from; all but the first three only where a curve is measured."""


def run(
    config: ConfigDict,
    workdir: epath.PathLike,
    allow_change: Sequence[str] = (),
    wandb: str | None = None,
    profile: str = "",
) -> int:
    """Trains into `workdir` from its newest checkpoint, or from the start. Returns the exit code.

    Args:
      allow_change: keys of the config that may differ from those that the workdir was made with; `data` stands for the
        examples.
      wandb: a project of Weights & Biases that is told of the run too; none if None.
      profile: STEP:STEPS, the steps of which a trace is written; "" for none.

    Raises:
      UserError: for whatever the user gave that does not work; the last checkpoint is kept.
    """
    if wandb is not None:
        wandb_run.require(wandb)
    experiment = experiment_lib.from_config(config)
    tracing = Profile(profile, experiment.config.steps)
    memory.check(experiment.abstract_state, experiment.mesh)
    source = distributed.primary_first(experiment.dataset.opened)
    with Workdir(workdir, experiment.config, allow_change) as folder, Termination() as termination:
        folder.check_state(experiment.abstract_state, lambda old: experiment_lib.from_config(old).abstract_state)
        told = experiment.told_by | experiment.dataset.features_identity()
        folder.check_data(identity(source) | told, getattr(source, "classes", None))
        try:
            with memory.explaining(), folder.explaining(), Checkpoints(folder.path / "checkpoints") as checkpoints:
                return _train(experiment, source, folder, checkpoints, termination, tracing, wandb)
        except FloatingPointError as error:
            saved = "nothing was saved" if termination.saved is None else f"step {termination.saved} is saved"
            raise UserError(
                f"{error}; {saved}. A lower rate may help; the same command goes on with "
                f"--config.optimizer.learning_rate=RATE --allow_change=optimizer.learning_rate"
            ) from error


def _train(
    experiment: Experiment,
    source: Source,
    folder: Workdir,
    checkpoints: Checkpoints,
    termination: Termination,
    tracing: Profile,
    wandb: str | None,
) -> int:
    config, task, workdir = experiment.config, experiment.task, folder.path
    primary = distributed.is_primary()
    progress = Progress(config.steps, silent=not primary)

    ################################################ state: restored, or the first
    restored = checkpoints.restore(experiment.abstract_state)
    saved = restored.progress if restored else {}
    if restored:
        step = termination.saved = int(restored.state.step)
        if step >= config.steps and not any(_missing(config, workdir, step)):
            progress.say(f"{workdir}: this run is finished, at step {step}. A larger --config.steps continues it.")
            return 0
        progress.say(f"{workdir}: continuing from the checkpoint at step {step}")
    elif folder.has_saved():
        raise UserError(
            f"workdir {workdir} has no checkpoint any more, though one was saved: bring back its folder checkpoints, "
            f"or start another run with --workdir"
        )
    tracing.check(termination.saved or 0)
    experiment = experiment.with_texts(source, workdir, Line(silent=not primary))
    # Whatever can fail is done before anything else is written.
    evaluate = task.evaluator(experiment, config.evaluation.training_samples) if config.evaluate_every else None
    # The clusters stay those of the checkpoint, unless what they follow from was allowed to change since.
    cut_again = restored and any(key.startswith(CUT_BY) for key in config_lib.differences(restored.config, config))
    experiment = experiment.with_clusters(
        workdir, Line(silent=not primary), saved=None if cut_again else saved.get("edges")
    )
    compiled = experiment.compiled
    compiled.read_frozen()
    state = restored.state if restored else experiment.init_state()
    step = int(state.step)

    ##################################################################### data
    dataset = experiment.batches(source)
    batches = experiment.read_ahead(dataset)
    if restored:
        batches.set_state(restored.data)
    else:
        progress.say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
    progress.say(
        f"{config.dataset.name}: {len(source):,} images; {task.describe(experiment)}; "
        f"{experiment.mesh.size} {jax.devices()[0].platform} device(s); writing to {workdir}"
    )

    ################################################################ the loop
    sinks = [WandbRun(workdir, wandb, config_lib.to_json(config))] if primary and wandb is not None else []
    writer = MetricWriter(workdir, step, folder.check, sinks) if primary else Discard()
    snapshots = Snapshots(workdir, config.ema.widths, config.ema.snapshots)
    if config.ema.widths and primary:
        snapshots.drop_after(step)
    save_grid = functools.partial(reporting.grids.save_grid, alpha=experiment.has_alpha)
    new_window = functools.partial(task.window, experiment)
    earlier = from_plain(task.metrics, saved.get("window", {})) if config.log_every else []
    carry = compiled.initial_carry(state)
    loop = Loop(compiled.step, state, carry, batches, compiled.batch_sharding, new_window, step, earlier)
    del state, restored  # the loop's from here on: each step donates the state
    utilisation = experiment_lib.utilisation(experiment) if config.log_every else None
    loss: float | None = None  # of the last window, if comparable between checkpoints

    def report(summary: dict[str, Any] | None) -> None:
        nonlocal loss
        if summary is None:
            return
        folder.check()
        loss = summary["loss"] if summary.get("stage") == summary.get("num_stages") else None
        if config.log_every:
            at = summary.pop("step")
            if utilisation is not None:
                summary["mfu"] = summary["steps_per_second"] * utilisation
            writer.write(at, summary)
            progress.report(at, summary)

    def save() -> None:
        # What is saved is known to be finite, so here, and only here, the host waits for the device.
        report(loop.finish())
        folder.check()
        pending = loop.pending()
        if loop.number == config.steps:
            report(loop.close_rest())
        window = to_plain(pending) if config.log_every else {}
        position = task.position(experiment) | {"window": window}
        with contextlib.nullcontext() if checkpoints.proven else loop.clock.paused():  # the first is read back
            checkpoints.save(loop.number, loop.state, batches.get_state(), config_lib.to_json(config), loss, position)
        termination.saved = loop.number
        with jax.transfer_guard("allow"):
            task.export(experiment, loop.state, workdir)
        if primary:
            folder.note_saved(loop.number)
        store()

    def store() -> None:
        if config.ema.widths and _due(loop.number, config.checkpoint_every):
            snapshots.store(loop.state, loop.number, writer.submit)

    def look(sample: bool, measure: bool) -> None:
        """Draws and measures samples; the steps still under way are not counted as time for it."""
        if sample:
            jax.block_until_ready(loop.state)
            with loop.clock.paused(), jax.transfer_guard("allow"):
                images = task.drawn(experiment, loop.state)
            folder.check()
            if primary:
                (workdir / "samples").mkdir(exist_ok=True)
            columns, captions = task.columns(experiment), task.captions(experiment)
            with_captions = functools.partial(save_grid, captions=captions)
            writer.submit(with_captions, _grid(workdir, loop.number), images, columns)
            writer.picture(loop.number, _grid(workdir, loop.number))
            writer.submit(task.save_figures, experiment, workdir)
        if measure and evaluate:
            jax.block_until_ready(loop.state)
            with loop.clock.paused(), jax.transfer_guard("allow"):
                measured = evaluate(loop.state)
            progress.say(f"step {loop.number}: {evaluation.describe(measured)}")
            writer.write(loop.number, evaluation.flat(measured), EVALUATIONS)

    def wait() -> None:
        jax.block_until_ready(loop.state)

    stored, missing = distributed.from_primary(snapshots.has(step)), _missing(config, workdir, step)
    progress.say("compiling the train step ...")
    began, first_step, stop, unreadable = loop.clock.now(), step, False, None
    try:
        with jax.transfer_guard("disallow"), Watch("train_step") as watch:
            if step:  # what a run that was killed after its save had still to do
                if not stored:
                    store()
                look(*missing)
            while loop.number < config.steps and not stop:
                try:
                    with tracing.step(step + 1, workdir / FOLDER, wait, loop.clock):
                        loop.advance()
                except UserError as error:  # an example that cannot be read
                    if loop.number == first_step or jax.process_count() > 1:  # the others do not know of it
                        raise
                    unreadable = error
                step = loop.number
                if step == first_step + 1 and not unreadable:
                    loop.leave_out()
                    read = " (read from the compilation cache)" if watch.from_cache else ""
                    progress.say(f"compiled in {duration(loop.clock.now() - began)}{read}")
                    folder.keep(first_step)
                    if primary:
                        writer.submit(_draw_data, workdir, experiment, dataset)

                if step % (config.log_every or UNLOGGED) == 0 and not unreadable:
                    report(loop.close_window())
                # Read once: a signal that comes later is seen at the next step. All processes see it at the same one.
                stop = bool(termination.requested) or checkpoints.preempted(step) or unreadable is not None
                if (_due(step, config.checkpoint_every) or step == config.steps or stop) and step != termination.saved:
                    save()
                if unreadable:
                    raise UserError(
                        f"{unreadable}; step {step} is saved. The same command goes on once the file can be read, or "
                        f"without such files: --config.dataset.on_bad_file=skip --allow_change={DATA}"
                    ) from unreadable
                look(*_due_at(config, step))
    finally:
        with contextlib.ExitStack() as stack:
            stack.callback(writer.close)  # whatever the lines before it raise
            tracing.close()
            writer.submit(task.save_figures, experiment, workdir)
    if step < config.steps:
        number = termination.requested or signal.SIGTERM  # of another process
        progress.say(f"stopped by {signal.Signals(number).name} after saving step {step}; the same command continues")
        return 128 + number
    progress.say(f"finished {step} steps: see {workdir}")
    return 0


def _due_at(config: ConfigDict, step: int) -> tuple[bool, bool]:
    """Whether samples are to be drawn, and measured, after a step."""
    last = bool(config.sample_every) and step == config.steps
    return last or _due(step, config.sample_every), _due(step, config.evaluate_every)


def _missing(config: ConfigDict, workdir: epath.Path, step: int) -> tuple[bool, bool]:
    """Which of the two was due after a step and is not there, as process 0 sees it."""
    sample, evaluate = _due_at(config, step)
    if distributed.is_primary():
        sample = sample and not _grid(workdir, step).exists()
        evaluate = evaluate and all(row["step"] != step for row in read_rows(workdir, EVALUATIONS))
    sample, evaluate = distributed.from_primary(np.array([sample, evaluate], np.float64))
    return bool(sample), bool(evaluate)


def _grid(workdir: epath.Path, step: int) -> epath.Path:
    return workdir / "samples" / f"{step:08d}.png"


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _draw_data(workdir: epath.Path, experiment: Experiment, dataset: grain.MapDataset) -> None:
    """Writes a grid of the first examples of the first batch as they are trained on, decoded."""
    if not (workdir / DATA_PICTURE).exists():
        batch = jax.tree.map(lambda x: x[:SHOWN], dataset[0])
        images = experiment.as_trained(batch)
        reporting.grids.save_grid(workdir / DATA_PICTURE, images, alpha=experiment.has_alpha)
