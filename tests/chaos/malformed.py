"""Malformed files that a command can be given: config files, and the JSON and JSON lines of runs and data sets."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator

Make = Callable[[pathlib.Path], object]


@dataclasses.dataclass(frozen=True)
class Case:
    """A file, and what a command says of it.

    Attributes:
      group: which file of the command it is: see `tests.chaos.files.COMMANDS`.
      name: what is wrong with it.
      file: its path in the case's folder.
      make: writes it.
      words: a regular expression that the error line must hold beside the file's name.
      expect: "error"; "good" if it is a sound file; "either" where both are sensible; "interrupted", as by Ctrl-C.
    """

    group: str
    name: str
    file: str
    make: Make
    words: str = ""
    expect: str = "error"


GOOD = "from diffcurr.config import load\n\n\ndef get_config():\n    return load('digits:ddpm')\n"
NEST = "[" * 100_000

# Name -> (text, number of the line at which it fails; 0 where there is none).
CONFIGS: dict[str, tuple[str, int]] = {
    "a syntax error": ("import math\n\ndef get_config(:\n    pass\n", 3),
    "an indentation error": ("def get_config():\n    x = 1\n      return x\n", 3),
    "raises ValueError": ("x = 1\nraise ValueError('no')\n", 2),
    "raises in get_config": ("def get_config():\n    x = {}\n    return x['steps']\n", 3),
    "raises in a function of its own": ("def f():\n    return 1 / 0\n\ndef get_config():\n    return f()\n", 2),
    "raises SystemExit(0)": ("import sys\nsys.exit(0)\n", 2),
    "raises SystemExit of a text": ("def get_config():\n    raise SystemExit('bye')\n", 2),
    "raises KeyboardInterrupt": ("x = 1\nraise KeyboardInterrupt\n", 2),
    "raises a BaseException of its own": ("class Mine(BaseException):\n    pass\n\nraise Mine('mine')\n", 4),
    "raises GeneratorExit": ("def get_config():\n    raise GeneratorExit\n", 2),
    "raises MemoryError": ("raise MemoryError\n", 1),
    "raises several lines": ("raise ValueError('one\\ntwo\\nthree')\n", 1),
    "raises an error without words": ("def get_config():\n    raise RuntimeError\n", 2),
    "raises an error that cannot be shown": (
        "class Mine(Exception):\n    def __str__(self):\n        raise ValueError('hidden')\n\nraise Mine\n", 5
    ),
    "raises a group of errors": ("raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])\n", 1),
    "calls itself for ever": ("def get_config():\n    return get_config()\n", 2),
    "is nested too deeply": ("x = " + "(" * 5000 + ")" * 5000 + "\n", 0),
    "imports what is not there": ("import math\nimport a_package_that_is_not_there\n", 2),
    "imports a name that is not there": ("from diffcurr.config import no_such_name\n", 1),
    "asserts": ("def get_config():\n    assert False, 'never'\n", 2),
    "returns None": ("def get_config():\n    pass\n", 0),
    "returns a dict": ("def get_config():\n    return {'steps': 3}\n", 0),
    "returns a text": ("def get_config():\n    return 'digits'\n", 0),
    "returns a generator": ("def get_config():\n    yield 1\n", 0),
    "returns an empty ConfigDict": (
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict()\n", 0
    ),
    "has no get_config": ("x = 1\n", 0),
    "is empty": ("", 0),
    "has a number for get_config": ("get_config = 3\n", 0),
    "has a get_config of two arguments": ("def get_config(a, b):\n    return a\n", 0),
    "is huge": ("# nothing, again and again\n" * 1_000_000, 0),
    "holds NUL bytes": ("x = 1\n\0\0\0\n", 0),
    "leaves out a value": (
        GOOD.replace("    return", "    from ml_collections import config_dict\n    c =")
        + "    c.steps = config_dict.required_placeholder(int)\n    return c\n", 0,
    ),
    "holds itself": (GOOD.replace("    return", "    c =") + "    c.compare.arms.me = c\n    return c\n", 0),
}  # fmt: skip

ROW = '{"step": 2, "loss": 1.0}\n'
JSONS: dict[str, bytes] = {
    "no JSON": b"no JSON {",
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "a text": b'"text"',
    "an empty object": b"{}",
    "nested too deeply": NEST.encode(),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "not UTF-8": b'{"a": "\xe9\xff"}',
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "two objects": b"{}\n{}",
}
LABELS: dict[str, object] = {
    "labels are a number": 3,
    "labels are a text": "text",
    "labels are no pairs": [["00.png"], ["01.png"]],
    "a label is a text": [[f"{k:02d}.png", "cat"] for k in range(24)],
    "a label is null": [[f"{k:02d}.png", None] for k in range(24)],
    "a label is a fraction": [[f"{k:02d}.png", 1.5] for k in range(24)],
    "a label is negative": [[f"{k:02d}.png", -1] for k in range(24)],
    "a label is 10^30": [[f"{k:02d}.png", 10**30] for k in range(24)],
    "a label is a list": [[f"{k:02d}.png", [1]] for k in range(24)],
    "a name is a list": [[[f"{k:02d}.png"], 1] for k in range(24)],
    "a label is missing": [[f"{k:02d}.png", 1] for k in range(23)],
    "there are none": [],
}
ROWS: dict[str, bytes] = {
    "a row is no JSON": f"{ROW}no JSON\n{ROW}".encode(),
    "a row is a list": f"[]\n{ROW}".encode(),
    "a row is null": f"null\n{ROW}".encode(),
    "a row has no step": b'{"loss": 1.0}\n',
    "a step is a text": b'{"step": "two", "loss": 1.0}\n',
    "a step is null": b'{"step": null, "loss": 1.0}\n',
    "a step is NaN": b'{"step": NaN, "loss": 1.0}\n',
    "not UTF-8": ROW.encode() + b'{"step": "\xe9"}\n',
    "UTF-16": ROW.encode("utf-16"),
    "nested too deeply": f"{NEST}\n".encode(),
}


def writing(content: bytes) -> Make:
    """Writes these bytes in the place of what is there."""
    return lambda path: path.write_bytes(content)


def changing(**changes: object) -> Make:
    """Changes a JSON file; a key with the value Ellipsis is taken out."""

    def make(path: pathlib.Path) -> None:
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return make


def place_takers() -> dict[str, Make]:
    """What may stand in the place of a file."""

    def cleared(path: pathlib.Path) -> pathlib.Path:
        path.unlink(missing_ok=True)
        return path

    return {
        "a folder": lambda path: cleared(path).mkdir(),
        "a FIFO": lambda path: os.mkfifo(cleared(path)),
        "a link to nothing": lambda path: cleared(path).symlink_to("nowhere"),
    }


def cases() -> Iterator[Case]:
    """All of this file."""
    for name, (text, line) in CONFIGS.items():
        words = rf"line {line}\b|:{line}\b" if line else ""
        expect = "interrupted" if "KeyboardInterrupt" in name else "error"
        yield Case("config file", name, "config.py", writing(text.encode()), words, expect)
    for name, content in {
        "is UTF-16": GOOD.encode("utf-16"),
        "is not UTF-8": b"x = 'caf\xe9'\n" + GOOD.encode(),
    }.items():
        yield Case("config file", name, "config.py", writing(content))
    for name, make in place_takers().items():
        yield Case("config file", name, "config.py", make)
    yield Case("config file", "is sound", "config.py", writing(GOOD.encode()), expect="good")

    for name, content in JSONS.items():
        yield Case("a run's config", name, "run/config.json", writing(content))
    for key, value in {"steps": "many", "dataset": 3, "network": {"name": "none such"}, "seed": ..., "new": 1}.items():
        name = f"{key} is {'missing' if value is ... else value}"
        # Another version may have other keys; with its default in the place of the missing one, the run is the same.
        expect = "either" if value in (..., 1) else "error"
        yield Case("a run's config", name, "run/config.json", changing(**{key: value}), expect=expect)
    for file in ("metrics", "evaluations"):
        for name, content in ROWS.items():
            yield Case(f"a run's {file}", name, f"run/{file}.jsonl", writing(content), expect="either")
    for group, file in (("a run's config", "run/config.json"), ("labels", "data/dataset.json")):
        for name, make in place_takers().items():
            # A run without a config is a new one; pictures without labels have those of their folders.
            yield Case(group, name, file, make, expect="either" if name == "a link to nothing" else "error")
    for name, content in JSONS.items():
        yield Case("labels", name, "data/dataset.json", writing(content))
    for name, labels in LABELS.items():
        yield Case("labels", name, "data/dataset.json", writing(json.dumps({"labels": labels}).encode()))
    yield Case("labels", "are sound", "data/dataset.json", lambda path: None, expect="good")
