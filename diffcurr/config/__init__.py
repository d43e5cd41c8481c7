"""What every config shares, how a config is found, and how two are compared.

A file in `configs/` starts from `outline()` and sets what it needs. A section with a `name` is a part
(`diffcurr.parts`): beside the name stand the settings of its class, and `complete` adds those that are not given.
"""

from diffcurr.config.files import load, run_name, variant_of
from diffcurr.config.keys import KEYS
from diffcurr.config.outline import changed, check_keys, complete, needs_curve, outline, own_keys
from diffcurr.config.plain import flatten, to_json, unflatten, without
from diffcurr.config.versions import FREE_KEYS, RENAMED, differences, upgrade

__all__ = [
    "FREE_KEYS",
    "KEYS",
    "RENAMED",
    "changed",
    "check_keys",
    "complete",
    "differences",
    "flatten",
    "load",
    "needs_curve",
    "outline",
    "own_keys",
    "run_name",
    "to_json",
    "unflatten",
    "upgrade",
    "variant_of",
    "without",
]
