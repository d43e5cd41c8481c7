"""Which settings fit into the chips' memory: the largest batch, or a gentler setting."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from diffcurr.errors import UserError
from diffcurr.planning.program import Compiled

COMPILATIONS = 3  # that looking for the largest batch may cost


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Compiles the step with other settings than the config's, one trial after another.

    Attributes:
      config: the config to start from.
      chips: number of chips.
      memory: bytes of memory of each chip.
      compile_with: compiles the step with some settings changed, such as {"batch_size": 64}; raises UserError if they
        do not work.
      say: called with one line about each trial.
      remat_key: the setting that says what is recomputed.
    """

    config: ConfigDict
    chips: int
    memory: float
    compile_with: Callable[[Mapping[str, Any]], Compiled]
    say: Callable[[str], None]
    remat_key: str = "network.remat"

    def largest_batch(self, compiled: Compiled) -> int | None:
        """The largest global batch, of those that were tried, that fits; None if none does.

        What grows with the batch is almost linear in it, so the next one to try is where a line through the last two
        reaches the memory; the search ends when nothing larger is left to try, or after COMPILATIONS trials.

        Args:
          compiled: the step with the config's own batch size. Other sizes are multiples of chips x microbatches.
        """
        own, unit = self.config.batch_size, self.chips * self.config.microbatches
        known = {0: compiled.total_bytes - compiled.temporary_bytes, own: compiled.total_bytes}
        fits = own if compiled.fits(self.memory) else 0
        too_large = math.inf
        for _ in range(COMPILATIONS):
            (x0, y0), (x1, y1) = sorted(known.items())[-2:]
            slope = max((y1 - y0) / (x1 - x0), 1.0)
            guess = x1 + (0.98 * self.memory - y1) / slope
            guess = min(guess, (fits + too_large) / 2 if too_large < math.inf else 16 * max(fits, unit))
            batch_size = int(guess // unit * unit)
            if batch_size <= fits or batch_size >= too_large or (fits and batch_size < 1.05 * fits):
                break
            trial = self._try(f"batch {batch_size:,}", {"batch_size": batch_size})
            if not trial.needed:
                known[batch_size] = trial.total_bytes
            fits, too_large = (batch_size, too_large) if trial.fits(self.memory) else (fits, batch_size)
        return fits or None

    def gentler_settings(self) -> str:
        """The first of a few gentler settings that fits, as flags of the command line; empty if none does.

        They are, in this order: parameters sharded over all chips, activations recomputed, both, and both with a half,
        a quarter and an eighth of the batch. Those that do not work on this number of chips are said, and passed over.
        """
        sharded: dict[str, Any] = {"mesh.data": 1, "mesh.fsdp": self.chips // max(1, self.config.mesh.tensor)}
        section, key = self.remat_key.split(".")
        recomputed: dict[str, Any] = {self.remat_key: "full"} if key in self.config[section] else {}
        trials = [sharded, recomputed, sharded | recomputed]
        trials += [sharded | recomputed | {"batch_size": self.config.batch_size // part} for part in (2, 4, 8)]
        for changes in trials:
            flags = " ".join(f"--config.{key}={value}" for key, value in changes.items())
            try:
                trial = self._try(flags, changes)
            except UserError as error:  # not a setting of this number of chips
                self.say(f"{flags}: {error}")
                continue
            if trial.fits(self.memory):
                return flags
        return ""

    def _try(self, what: str, changes: Mapping[str, Any]) -> Compiled:
        trial = self.compile_with(changes)
        self.say(f"{what}: {'fits' if trial.fits(self.memory) else 'does not fit'} ({trial.seconds:.0f} s)")
        return trial
