"""Checkpoints: state, data position and config in one atomic Orbax checkpoint, verified when read.

Every checkpoint holds a fingerprint of the state's bits. It is integer arithmetic, so it is the same for any number of
devices, and any single altered value changes it. A checkpoint that cannot be read or whose fingerprint differs is
passed over, loudly, for the one before; it is moved aside, never deleted.
"""

import functools
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from diffcurr.errors import UserError, first_line
from diffcurr.layout import path_name
from diffcurr.training import distributed
from diffcurr.training.fingerprint import fingerprint, prints
from diffcurr.training.state import TrainState

T = TypeVar("T")
OTHER_REST = "its data position, config or progress differs from the one it was saved with"
FORMER_FIELDS = {"curriculum": "pacing"}
"""Field of the state -> what version 0.1.0 called it in its checkpoints."""


class Restored(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      state: the state, on the devices.
      data: the data iterator's state.
      config: the config of the run, JSON values as the version that saved it wrote them.
      progress: what else the run goes on from, JSON values; {} in a checkpoint of an older version.
    """

    state: TrainState
    data: dict[str, Any]
    config: dict[str, Any]
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: the two latest (so that there is one to fall back to) and the best.

    Attributes:
      proven: whether a checkpoint was read from the folder, so that what is saved there can be trusted.
    """

    def __init__(self, directory: epath.PathLike, *, read_only: bool = False):
        """
        Raises:
          UserError: if there is something else in the folder's place.
        """
        self._directory = epath.Path(directory).absolute()
        if self._directory.exists() and not self._directory.is_dir():
            raise UserError(f"{self._directory}: is no folder, so it holds no checkpoints; move it away")
        self._read_only = read_only
        self.proven = False

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's, which makes the folder: when something is to be written there, or to be read."""
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [
                        preservation_policy.LatestN(2),
                        preservation_policy.BestN(
                            get_metric_fn=lambda metrics: metrics["loss"],
                            reverse=True,  # descending: the least loss is kept
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                create=not self._read_only,
                cleanup_tmp_directories=not self._read_only,
            ),
        )

    def save(
        self,
        step: int,
        state: TrainState,
        data: dict[str, Any],
        config: dict[str, Any],
        loss: float | None,
        progress: dict[str, Any] | None = None,
    ) -> None:
        """Saves in the background; an error of an earlier save is raised here. The first save of a run is read back.

        Args:
          data: the data iterator's state, JSON values, the same on every process.
          loss: the loss by which the best checkpoint is chosen; None where it is comparable with no other (a stage in
            which not every cluster is active).
          progress: what else the run goes on from, JSON values.

        Raises:
          FloatingPointError: if a parameter is not finite; nothing is saved.
          UserError: if the checkpoint cannot be read again.
        """
        numbers, finite = fingerprint(state)
        if not finite:
            raise FloatingPointError(f"a parameter is not finite after step {step}")
        progress = progress or {}
        integrity = {"state": numbers.tolist(), "rest": _checksum(data, config, progress)}
        saved = self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_parts(state)),
                data=ocp.args.JsonSave(data),
                config=ocp.args.JsonSave(config),
                progress=ocp.args.JsonSave(progress),
                integrity=ocp.args.JsonSave(integrity),
            ),
            metrics=None if loss is None else {"loss": loss},
        )
        if not saved:
            raise UserError(
                f"the checkpoint of step {step} was not saved in {self._directory}, which has those of "
                f"{self._manager.all_steps()}: another run writes there; choose another --workdir"
            )
        if not self.proven:
            self._manager.wait_until_finished()
            self._read_back(step, state, numbers.tolist())
            self.proven = True

    def _read_back(self, step: int, state: TrainState, numbers: list[int]) -> None:
        """Reads a checkpoint again field by field, since the whole of it may not fit beside the state.

        Raises:
          UserError: if what is read is not what was saved.
        """
        found: list[int] = []
        try:
            with ocp.PyTreeCheckpointer() as reader:
                for name, part in _parts(state).items():
                    like = {name: jax.tree.map(ocp.utils.to_shape_dtype_struct, part)}
                    arguments = ocp.args.PyTreeRestore(
                        item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
                    )
                    restored = reader.restore(self._directory / str(step) / "state", args=arguments)
                    found += prints(restored).tolist()
        except Exception as error:  # whatever Orbax makes of a folder that does not give back what it took
            raise UserError(self._not_read_back(step, first_line(error, 300))) from error
        if found != numbers:
            raise UserError(self._not_read_back(step, "other values"))

    def _not_read_back(self, step: int, what: str) -> str:
        return (
            f"the checkpoint of step {step} in {self._directory} was saved and cannot be read again ({what}): the run "
            f"ends here, since nothing of it would last; choose another --workdir"
        )

    def preempted(self, step: int) -> bool:
        """Whether any of several processes was asked to leave; the same answer for all, at the same step."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def restore(self, abstract_state: TrainState) -> Restored | None:
        """The newest good checkpoint, or None if there is none at all.

        Args:
          abstract_state: shapes, dtypes and shardings to restore onto; they need not be those it was saved with.

        Raises:
          UserError: if there are checkpoints and none is good.
        """
        if not self._directory.exists():
            return None
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            found, problem = _tried(functools.partial(self._read, step, abstract_state))
            if found and not problem:
                _, problem = _tried(functools.partial(_check, *found))
            if found is None or problem:
                damaged[step] = problem
                print(f"WARNING: checkpoint {step} is damaged ({problem})", file=sys.stderr, flush=True)
                continue
            if damaged:
                print(f"WARNING: falling back to checkpoint {step}", file=sys.stderr, flush=True)
                self._set_aside(list(damaged))
            self.proven = True
            return found[0]
        if damaged:
            raise UserError(
                f"no checkpoint in {self._directory} can be read: {damaged}. Move the workdir away to start again."
            )
        return None

    def progress(self) -> dict[str, Any]:
        """`Restored.progress` of the newest checkpoint that has one, without its state; {} if there is none."""
        steps = self._manager.all_steps() if self._directory.exists() else []
        parts = ("data", "config", "progress")
        for step in sorted(steps, reverse=True):
            if not (self._directory / str(step) / "progress").exists():  # of an older version
                continue
            try:
                items = self._manager.restore(
                    step, args=ocp.args.Composite(**{name: ocp.args.JsonRestore() for name in (*parts, "integrity")})
                )
                if _checksum(*(items[name] for name in parts)) != items.integrity["rest"]:
                    raise ValueError(OTHER_REST)
            except Exception as error:  # whatever a damaged file makes Orbax raise: the one before may be whole
                print(f"WARNING: checkpoint {step} is damaged ({first_line(error, 300)})", file=sys.stderr, flush=True)
                continue
            found: dict[str, Any] = items.progress
            return found
        return {}

    def _read(self, step: int, abstract_state: TrainState) -> tuple[Restored, dict[str, Any]]:
        """(a checkpoint, its integrity), as each process reads its part of it."""
        config = self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore())).config
        former = FORMER_FIELDS if "class_conditional" in config else {}  # a key of version 0.1.0
        saved = {former.get(name, name): part for name, part in _parts(abstract_state).items()}
        # Versions before 0.2 saved no progress. Where it was saved and is gone, the checksum tells.
        plain = ["data", "config", "integrity"]
        plain += ["progress"] if (self._directory / str(step) / "progress").exists() else []
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(saved), **{name: ocp.args.JsonRestore() for name in plain}
            ),
        )
        rest = [items[name] for name in ("data", "config", "progress") if name in plain]
        state = TrainState(**{name: items.state[former.get(name, name)] for name in _parts(abstract_state)})
        if _checksum(*rest) != items.integrity["rest"]:
            raise ValueError(OTHER_REST)
        return Restored(state, items.data, items.config, items.progress if "progress" in plain else {}), items.integrity

    def _set_aside(self, steps: list[int]) -> None:
        if self._read_only:
            return
        aside = self._directory.parent / "checkpoints_damaged"
        if jax.process_index() == 0:
            aside.mkdir(parents=True, exist_ok=True)
            for step in steps:
                target = aside / str(step)
                while target.exists():
                    target = target.parent / f"{target.name}_again"
                (self._directory / str(step)).rename(target)
            print(f"WARNING: what is damaged was moved to {aside}", file=sys.stderr, flush=True)
        ocp.utils.sync_global_processes("diffcurr:set_aside")
        self._manager.reload()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the last save and raises its error if it had one."""
        if "_manager" in vars(self):
            self._manager.wait_until_finished()
            self._manager.close()


def _tried(function: Callable[[], T]) -> tuple[T | None, str]:
    """(what it returns, why it failed), "" where it did not; it fails in every process where it does in one.

    Each process reads its part of a checkpoint; all must agree on the one to go on from.
    """
    result, problem, fault = None, "", None
    try:
        result = function()
    except Exception as error:  # whatever a damaged file makes Orbax raise: it is reported, and passed over
        problem = first_line(error, 300)
        fault = error if _is_of_the_machine(error) else None
    failed, broken = distributed.total(np.array([bool(problem), fault is not None], np.float64))
    if fault is not None:
        raise fault
    if broken:
        raise UserError("another process cannot read the checkpoint: its message says why")
    if failed and not problem:
        problem = "another process could not read its part"
    return result, problem


def _is_of_the_machine(error: BaseException) -> bool:
    """Whether a failed read says nothing of the checkpoint: no memory is left, or the file may not be read."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | PermissionError) or "RESOURCE_EXHAUSTED" in first_line(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _check(found: Restored, integrity: Mapping[str, Any]) -> None:
    """Raises ValueError if a state has other bits than it was saved with; all processes compute them together."""
    numbers, _ = fingerprint(found.state)
    if numbers.tolist() != integrity["state"]:
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(found.state)]
        changed = [n for n, a, b in zip(names, numbers, integrity["state"], strict=True) if a != b]
        raise ValueError(f"its fingerprint differs from the one it was saved with in {', '.join(changed)}")


def _parts(state: TrainState) -> dict[str, Any]:
    """Field -> part of the state as it is saved: without averages that are not kept, as in versions that had none."""
    return {name: part for name, part in state._asdict().items() if name != "averages" or part}


def _checksum(*values: Any) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
