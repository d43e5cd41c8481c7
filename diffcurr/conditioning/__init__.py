"""What the network is told beside the noisy x: nothing, a class, or a text."""

from diffcurr import lazy
from diffcurr.conditioning.base import Condition, Conditioning, Field, Wish
from diffcurr.conditioning.label import Class
from diffcurr.conditioning.nothing import Nothing
from diffcurr.conditioning.text import Text

CONDITIONINGS: dict[str, type[Conditioning]] = {"none": Nothing, "class": Class, "text": Text}
"""`conditioning.name` in a config -> the class."""

__all__ = ["CONDITIONINGS", "Class", "Condition", "Conditioning", "Field", "Nothing", "Text", "Wish"]

__getattr__ = lazy.modules_of(__name__)
