"""The curves that clusters may follow from."""

from diffcurr.difficulty import curve, information
from diffcurr.difficulty.kept import Curve

CURVES: dict[str, Curve] = {"relative_entropy": curve.KEPT, "information": information.KEPT}
"""`Clustering.needs_curve` -> what measures and keeps it."""
