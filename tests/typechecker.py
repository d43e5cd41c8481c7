"""What checks the annotations at run time: an int may stand for a float, as Python's typing has it."""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
