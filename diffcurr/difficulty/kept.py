"""Curves over noise levels that clusters follow from: measured once, kept in the workdir, the same in every process."""

import abc
import json
import sys
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import config as config_lib
from diffcurr.data.sources import identity
from diffcurr.difficulty.analyzed import Experiment
from diffcurr.errors import first_line
from diffcurr.training import distributed

DATA = "data"
"""Key beside the config's in what a curve was measured on: what the examples are."""
Say = Callable[[str], None]
Countdown = Callable[[int, int], None]
"""Called with (parts done, parts in all)."""
NewCountdown = Callable[[str, str], Countdown]
"""(What is done, the unit of its parts) -> what to call after each part."""
Values = TypeVar("Values", bound=tuple[Any, ...])


class Curve(abc.ABC):
    """A curve of a config's data under its process.

    Class attributes:
      file: where a workdir keeps it.
      what: name of the curve in messages.
      kind: a NamedTuple of arrays of one length; the first, `value`, is the curve.
    """

    file: ClassVar[str]
    what: ClassVar[str]
    kind: ClassVar[type[Any]]

    @abc.abstractmethod
    def length(self, experiment: Experiment) -> int:
        """Number of its values."""

    @abc.abstractmethod
    def measured_on(self, config: ConfigDict) -> dict[str, Any]:
        """Everything that the curve depends on beside the examples: a part of the config, as JSON values."""

    @abc.abstractmethod
    def measure(self, experiment: Any, say: Say, new_countdown: NewCountdown) -> Any:
        """The curve, of `kind`, the same in every process to the bit; all processes call it together.

        Raises:
          UserError: if it cannot be measured.
        """

    def former(self, measured_on: dict[str, Any]) -> dict[str, Any]:
        """`measured_on` of an older version as this one writes it, but for keys of the config that were renamed."""
        return measured_on

    def had(self, workdir: epath.Path, experiment: Any, say: Say, new_countdown: NewCountdown) -> Any:
        """The curve, of `kind`: the workdir's, or measured and kept there. All processes call it."""
        found = self.known(workdir, experiment)
        if found is None:
            say(f"measuring the {self.what} from which the clusters follow (once; kept in the workdir)")
            found = self.measure(experiment, say, new_countdown)
            if distributed.is_primary():
                self.save(workdir, experiment, found._asdict())
        return found

    def known(self, workdir: epath.Path, experiment: Experiment) -> Any:
        """What `load` finds in process 0, of `kind`, in every process, which all call it; None for nothing."""
        found = self.load(workdir, experiment) if distributed.is_primary() else None
        if not distributed.from_primary(float(found is not None)):
            return None
        nothing = np.zeros(self.length(experiment))
        return from_first(self.kind(*(nothing if found is None else found[name] for name in self.kind._fields)))

    def save(self, workdir: epath.Path, experiment: Experiment, arrays: dict[str, Any]) -> None:
        """Writes the curve and what belongs to it, with what it was measured on."""
        measured_on = json.dumps(self.measured_on(experiment.config) | {DATA: _data(experiment)})
        with atomic_file.replacing(workdir / self.file) as path:
            np.savez_compressed(path, u=experiment.process.level_midpoints, measured_on=measured_on, **arrays)

    def load(self, workdir: epath.Path, experiment: Experiment) -> dict[str, np.ndarray] | None:
        """What a workdir holds of this config's curve; None if nothing, or that of other data or another process."""
        path = workdir / self.file
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = dict(arrays)
            measured_on = json.loads(str(found["measured_on"]))
            data = measured_on.pop(DATA, None)  # older files do not say it
            measured_on = config_lib.upgrade(self.former(measured_on))
            if self.measured_on(measured_on) != self.measured_on(experiment.config):
                return None
            for name in self.kind._fields:
                if found[name].shape != (self.length(experiment),) or not np.all(np.isfinite(found[name])):
                    raise ValueError(f"{name} is no curve of {experiment.process.num_levels} levels")
        except Exception as error:  # whatever a damaged file makes of NumPy, zlib and JSON: said, and measured again
            print(f"WARNING: {path} is damaged ({first_line(error)}): the curve is measured again", file=sys.stderr)
            return None
        return found if data is None or data == _data(experiment) else None


def _data(experiment: Experiment) -> dict[str, Any]:
    """What tells the examples, and the weights that encode them, from others, as JSON values."""
    codec = {} if experiment.encoder is None else {"codec": experiment.encoder.identity()}
    return identity(experiment.dataset.opened()) | codec


def from_first(curve: Values) -> Values:
    """A curve as process 0 has it, in every process, to the bit: clusters follow from it."""
    kind: Any = type(curve)
    first: Values = kind(*distributed.from_primary(np.stack([np.asarray(field, np.float64) for field in curve])))
    return first
