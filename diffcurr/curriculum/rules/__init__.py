"""Rules: how densely each cluster is drawn at the next step, from what the last one saw.

A rule is arithmetic on a few scalars, so it runs on the device inside the compiled train step: its state goes in and
comes out, and no decision waits for the host. Its weights are relative to the process's own training distribution:
1 everywhere is training without a curriculum, 0 leaves a cluster out.
"""

from diffcurr.curriculum.rules.base import Rule, Seen
from diffcurr.curriculum.rules.fixed import Fixed
from diffcurr.curriculum.rules.hold import Hold
from diffcurr.curriculum.rules.information import Information
from diffcurr.curriculum.rules.patience import Patience
from diffcurr.curriculum.rules.progress import Progress
from diffcurr.curriculum.rules.schedule import Schedule
from diffcurr.curriculum.rules.staged import Staged
from diffcurr.curriculum.rules.stages import ORDERS, NoStages, Stages, StagesState
from diffcurr.curriculum.rules.uncertainty import Uncertainty

__all__ = [
    "ORDERS",
    "RULES",
    "STAGES",
    "Fixed",
    "Hold",
    "Information",
    "NoStages",
    "Patience",
    "Progress",
    "Rule",
    "Schedule",
    "Seen",
    "Staged",
    "Stages",
    "StagesState",
    "Uncertainty",
]

RULES: dict[str, type[Rule]] = {
    "patience": Patience,
    "fixed": Fixed,
    "hold": Hold,
    "schedule": Schedule,
    "information": Information,
    "progress": Progress,
    "uncertainty": Uncertainty,
}
"""`curriculum.name` in a config -> the class."""

STAGES: dict[str, type[Rule]] = {"none": NoStages, "patience": Patience, "fixed": Fixed}
"""`curriculum.stages.name` in a config -> the class: stages that are combined with a rule which has none."""
