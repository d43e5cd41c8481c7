"""Searches, by compiling: the largest batch that fits, or a gentler setting that does."""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from diffcurr.config import unflatten
from diffcurr.errors import UserError
from diffcurr.planning.chips import Chip
from diffcurr.planning.costs import MakeExperiment, compile_for
from diffcurr.planning.program import Compiled

SEARCH = 3  # compilations that looking for the largest batch may cost


def largest_batch(
    make: MakeExperiment, config: ConfigDict, chips: int, chip: Chip, compiled: Compiled, say: Callable[[str], None]
) -> int | None:
    """The largest global batch, in multiples of the number of chips, of those compiled that fits.

    What grows with the batch is almost linear in it, so the next one to try is where a line through the last two
    reaches the memory; the search ends when nothing larger is left to try, or after SEARCH compilations.
    """
    unit = chips * config.microbatches
    known = {0: compiled.total_bytes - compiled.temporary_bytes, config.batch_size: compiled.total_bytes}
    fits = config.batch_size if compiled.total_bytes <= chip.memory else 0
    too_large = math.inf
    for _ in range(SEARCH):
        (x0, y0), (x1, y1) = sorted(known.items())[-2:]
        slope = max((y1 - y0) / (x1 - x0), 1.0)
        guess = x1 + (0.98 * chip.memory - y1) / slope
        guess = min(guess, (fits + too_large) / 2 if too_large < math.inf else 16 * max(fits, unit))
        batch_size = int(guess // unit * unit)
        if batch_size <= fits or batch_size >= too_large or (fits and batch_size < 1.05 * fits):
            break
        trial = compile_for(make({"batch_size": batch_size}))
        ok = not trial.needed and trial.total_bytes <= chip.memory
        say(f"batch {batch_size:,}: {'fits' if ok else 'does not fit'} ({trial.seconds:.0f} s)")
        if not trial.needed:
            known[batch_size] = trial.total_bytes
        fits, too_large = (batch_size, too_large) if ok else (fits, batch_size)
    return fits or None


def remedies(make: MakeExperiment, config: ConfigDict, chips: int, chip: Chip, say: Callable[[str], None]) -> str:
    """The first of a few gentler settings that fits, as flags."""
    sharded: dict[str, Any] = {"mesh.data": 1, "mesh.fsdp": chips}
    recomputed: dict[str, Any] = {"network.remat": "full"} if "remat" in config.network else {}
    trials = [sharded, recomputed, sharded | recomputed]
    trials += [sharded | recomputed | {"batch_size": config.batch_size // part} for part in (2, 4, 8)]
    for changes in trials:
        flags = " ".join(f"--config.{key}={value}" for key, value in changes.items())
        try:
            compiled = compile_for(make(unflatten(changes)))
        except UserError:
            continue  # not a setting of this number of chips
        ok = not compiled.needed and compiled.total_bytes <= chip.memory
        say(f"{flags}: {'fits' if ok else 'does not fit'} ({compiled.seconds:.0f} s)")
        if ok:
            return flags
    return ""
