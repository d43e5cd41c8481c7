"""Averages of two or more widths, stored in a workdir from time to time, of which any other width is made afterwards.

averages/STEP.safetensors holds those of `ema.widths` after a step: 2 or 4 bytes for each parameter and width
(`ema.snapshots`), so that with two widths in float16 a file is as large as the parameters in float32. None is deleted
while a run goes on. The user may delete some, and loses exactness.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from safetensors import SafetensorError
from safetensors.numpy import load, save

from diffcurr import atomic_file
from diffcurr.errors import UserError, first_line
from diffcurr.layout import path_name
from diffcurr.training import distributed, power_average, sharding
from diffcurr.training.state import TrainState

FOLDER = "averages"
LARGEST_ERROR = 0.1  # of a reconstructed profile, over its length


class Snapshots:
    """Stores the averages of a run."""

    def __init__(self, workdir: epath.Path, widths: Sequence[float], dtype: str):
        self._folder, self._widths = workdir / FOLDER, tuple(widths)
        self._stored = jax.jit(lambda averages: jax.tree.map(lambda x: x.astype(dtype), averages))

    def drop_after(self, step: int) -> None:
        """Removes what a run stored that then went back to an earlier checkpoint. Process 0's."""
        for stored in steps_in(self._folder):
            if stored > step:
                _file(self._folder, stored).unlink()

    def has(self, step: int) -> bool:
        return _file(self._folder, step).exists()

    def store(self, state: TrainState, step: int, submit: Callable[..., None]) -> None:
        """Copies the averages to the host, in every process, and lets process 0 write them.

        Args:
          submit: calls a function with arguments in the background.
        """
        with jax.transfer_guard("allow"):
            on_host = sharding.on_host(self._stored(state.averages))
        if distributed.is_primary():
            submit(self._write, on_host, step)

    def _write(self, averages: Any, step: int) -> None:
        self._folder.mkdir(exist_ok=True)
        arrays = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(averages)}
        with atomic_file.replacing(_file(self._folder, step)) as path:
            path.write_bytes(save(arrays, metadata={"step": str(step), "widths": json.dumps(self._widths)}))


def of_width(workdir: epath.Path, state: TrainState, widths: Sequence[float], width: float) -> Any:
    """The parameters averaged with another width at the step of a state, float32 on the host.

    Args:
      state: state of the workdir's latest checkpoint; its own averages are exact, the earlier ones are read one by one.
      widths: `ema.widths` of the run.
      width: sigma_rel, in (0, 0.28].

    Raises:
      UserError: if no averages are kept, a file is damaged, or what is stored does not make the width within 10 %.
    """
    if not widths:
        raise UserError(
            f"ema_width = {width}: workdir {workdir} keeps no averages of other widths; train with "
            f"--config.ema.widths='(0.05, 0.1)'"
        )
    last = int(state.step)
    earlier = [step for step in steps_in(workdir / FOLDER) if step < last]
    times = [step for step in (*earlier, last) for _ in widths]
    gammas = [power_average.gamma_of(one) for one in widths] * (len(earlier) + 1)
    try:
        error = power_average.fit(times, gammas, width, last).error
    except ValueError as found:
        raise UserError(f"ema_width = {width}: {found}") from found
    if error > LARGEST_ERROR:
        raise UserError(
            f"ema_width = {width}: the averages of {len(earlier)} steps in {workdir / FOLDER} and those of step {last} "
            f"make it only to {error:.0%}; choose one nearer to {' or '.join(map(str, widths))}, or train with a "
            f"smaller checkpoint_every"
        )

    def each() -> Iterator[Any]:
        for step in earlier:
            yield from _read(_file(workdir / FOLDER, step), state.averages)
        yield from (jax.device_get(average) for average in state.averages)

    return power_average.reconstruct(each(), times, gammas, width, last)


def steps_in(folder: epath.Path) -> list[int]:
    """The steps whose averages are stored, in their order."""
    return sorted(int(path.stem) for path in folder.glob("*.safetensors") if path.stem.isdigit())


def _read(path: epath.Path, like: tuple[Any, ...]) -> tuple[Any, ...]:
    """Raises UserError for a file that is damaged or of another network."""

    def of_leaf(at: tuple[Any, ...], leaf: Any) -> np.ndarray:
        array = arrays[path_name(at)]
        if array.shape != leaf.shape or not np.isfinite(array).all():
            raise ValueError(f"{path_name(at)} has another shape, or is not finite")
        return array

    try:
        arrays = load(path.read_bytes())
        read: tuple[Any, ...] = jax.tree_util.tree_map_with_path(of_leaf, like)
        return read
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}): bring it back, or remove it and go without that step"
        ) from error


def _file(folder: epath.Path, step: int) -> epath.Path:
    return folder / f"{step:08d}.safetensors"
