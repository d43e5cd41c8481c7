"""The difficulty curriculum over noise levels, as pure functions of arrays.

Of diffcurr this package imports `ranges` alone, so another trainer can use it. Its time axis is the quantile ``u`` in
[0, 1) of a forward process's training distribution: u -> 0 is clean and hard, u -> 1 is noise and easy.

Method: Kim, Go, Kwon, Kim, "Denoising Task Difficulty-based Curriculum for Training Diffusion Models", ICLR 2025.
"""

from diffcurr.curriculum import clusters, densities, gating, quantiles, rules
from diffcurr.curriculum.clusters import CLUSTERINGS
from diffcurr.curriculum.densities import DENSITIES
from diffcurr.curriculum.levels import Levels
from diffcurr.curriculum.rules import RULES, STAGES, Rule, Seen

__all__ = [
    "CLUSTERINGS",
    "DENSITIES",
    "RULES",
    "STAGES",
    "Levels",
    "Rule",
    "Seen",
    "clusters",
    "densities",
    "gating",
    "quantiles",
    "rules",
]
