"""What the network is told beside the noisy x: nothing, or a class."""

from diffcurr import lazy
from diffcurr.conditioning.base import Condition, Conditioning, Field
from diffcurr.conditioning.label import Class
from diffcurr.conditioning.nothing import Nothing

CONDITIONINGS: dict[str, type[Conditioning]] = {"none": Nothing, "class": Class}
"""`conditioning.name` in a config -> the class."""

__all__ = ["CONDITIONINGS", "Class", "Condition", "Conditioning", "Field", "Nothing"]

__getattr__ = lazy.modules_of(__name__)
