"""If these fail, `import diffcurr` offers less than a notebook needs, or costs more than it should."""

import pathlib
import re
import subprocess
import sys

import pytest

import diffcurr

ROOT = pathlib.Path(__file__).parents[1]


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, diffcurr; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "diffcurr" in done.stdout.split()
    heavy = {"jax", "tensorflow", "matplotlib", "scipy", "sklearn"} & set(done.stdout.split())
    assert not heavy


def test_rooms_and_their_modules_are_loaded_by_name() -> None:
    code = "import diffcurr; print(diffcurr.curriculum.clusters.uniform(2), diffcurr.metrics.frechet.distance.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0.  0.5 1. ] distance"
    assert diffcurr.Experiment.__module__ == "diffcurr.experiment.experiment"
    assert diffcurr.load_run.__module__ == diffcurr.Run.__module__ == "diffcurr.run"


@pytest.mark.parametrize("name", ["nothing", "_nothing"])
def test_a_name_that_is_not_there(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'diffcurr' has no attribute '{name}'"):
        getattr(diffcurr, name)


def test_the_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited
    assert cited[1] == diffcurr.__version__
    assert f"## {diffcurr.__version__}" in (ROOT / "CHANGELOG.md").read_text()
