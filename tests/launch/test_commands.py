"""If a test here fails, a command that launch/, docs/ or a docstring shows names a config or a setting that is not."""

import ast
import pathlib
import re

import pytest
from jobs.conftest import ROOT

from diffcurr import config as config_lib
from diffcurr import experiment, parts
from diffcurr.errors import UserError

del experiment  # imported because it registers every part that a config can name

PLACES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "launch/*",
    "configs/*.py",
    "diffcurr/**/*.py",
    "notebooks/*.py",
)
FILES = [path.relative_to(ROOT).as_posix() for place in PLACES for path in ROOT.glob(place) if path.is_file()]
CONFIG = re.compile(r"--config=([\w/]+(?:\.py)?(?::\w+)?)")
SETTING = re.compile(r"--config\.([a-z_0-9.]+)=([^\s`'\"{]+)")
EXAMPLES = ("my_config.py",)  # stand for a file that the reader has written
# Show how a setting is given, or are of another data set than the default one.
FORMS = (("key", "value"), ("dataset.on_bad_file", "skip"))


def commands(path: pathlib.Path) -> list[str]:
    """The lines of a file that show flags; one that ends with a backslash goes on in the next."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if "--config" in line]


def check(command: str, default: str = "digits") -> None:
    """Applies the settings of a command to its config.

    Args:
      default: the config that is meant where the command names none.

    Raises:
      AssertionError or UserError: if there is no such config, setting or part.
    """
    for name in CONFIG.findall(command) or [default]:
        if name in EXAMPLES:
            continue
        config = config_lib.complete(config_lib.load(name))
        given = [(key, value) for key, value in SETTING.findall(command) if (key, value) not in FORMS]
        chosen = {f"{key}.name": value.rstrip(".,;:") for key, value in given if key in parts.TABLES}
        config = config_lib.changed(config, config_lib.unflatten(chosen))
        for key, value in given:
            if key in parts.TABLES:
                continue
            known = config_lib.flatten(config.to_dict())
            assert key in known, f"{command.strip()!r}: there is no {key}"
            try:
                setting = ast.literal_eval(value)
            except (SyntaxError, ValueError):
                setting = value.rstrip(".,;:")
            config = config_lib.changed(config, config_lib.unflatten({key: setting}))


@pytest.mark.parametrize("name", [name for name in FILES if commands(ROOT / name)])
def test_commands_name_what_there_is(name: str) -> None:
    # The manifest has a flag a line, the config on the first.
    default = {"launch/gke_jobset.yaml": "imagenet256"}.get(name, name if name.startswith("configs/") else "digits")
    for command in commands(ROOT / name):
        check(command, default=default)


def test_wrong_commands_are_seen() -> None:
    for name in ("launch/gke_jobset.yaml", "launch/tpu_pod.sh", "docs/inception.md", "configs/digits.py"):
        assert any(CONFIG.search(line) for line in commands(ROOT / name)), name
    for wrong in ("--config=imagenet256_dit_xl_2", "--config=digits:vp", "--config=digits --config.process=vp"):
        with pytest.raises(UserError):
            check(wrong)
    with pytest.raises(AssertionError, match=r"there is no process\.shedule"):
        check("--config=digits --config.process.shedule=linear")
