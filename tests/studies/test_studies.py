"""If these fail, a study no longer runs, and its numbers in docs/claims.md cannot be measured again."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STUDIES = pathlib.Path(__file__).parent
# Arguments that make each as small as it can be, and lines that it then prints.
SMALLEST: dict[str, tuple[str, list[str]]] = {
    "curriculum_cost": (
        "--pairs=2 --steps=4 --turn=2 --samples=50",
        [
            r"^pair 2: \d+\.\d\d ms a step without, ratio \d+\.\d{4}$",
            r"^median ratio of 4 turns \d+\.\d{4}, 95 % interval \d+\.\d{4} to \d+\.\d{4}$",
        ],
    ),
    "relative_entropy_scale": (
        "--latents=300 --dimension=16 --samples=100 --timesteps=20 --block=100",
        [
            r"^300 latents of 16 dimensions in 3 blocks; ",
            r"^mean and covariance: \S+ s, ",
            r"^relative entropy: \S+ pairs x levels a second on \d cpu device \(\S+ a CPU second\); ",
            r"^bound for v5e:4x4: \S+ s; \S+ s if distances are read from memory at each level$",
        ],
    ),
    "relative_entropy_speed": (
        "--dataset=digits --images=200 --samples=20 --repeats=1 --whole=400 --whole_samples=50 --timesteps 10 20",
        [
            r"^64 dimensions, 200 images, 20 samples, 19 pairs: separately \S+ s, shared \S+ s; ratio ",
            r"^3,072 dimensions, 200 images, 20 samples, 19 pairs: ",
            r"^T = 20: \d+\.\d s for 400 images and 50 samples$",
            r"^relative standard error at most \d+\.\d\d%$",
        ],
    ),
    "throughput": (
        "--configs digits --steps=2 --side=64 --compiled=digits --depths 1 2 --pairs=1",
        [
            r"^digits: first call \S+ s; then 2 steps, median \S+ s .* GFLOP/s; matrix product \d+ GFLOP/s$",
            r"^compiling 1 and 2 blocks: medians \S+ s and \S+ s, ratio \d+\.\d\d \(1 pairs\)$",
        ],
    ),
}


def test_every_study_is_tried() -> None:
    assert {path.stem for path in STUDIES.glob("*.py")} - {"test_studies"} == set(SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_study_runs(name: str) -> None:
    """With the smallest numbers; curriculum_cost on its own config, whose clusters are measured first."""
    arguments, lines = SMALLEST[name]
    command = [sys.executable, str(STUDIES / f"{name}.py"), *arguments.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert re.search(line, done.stdout, re.MULTILINE), f"{line} is not in\n{done.stdout}"


def test_the_commands_that_the_studies_name() -> None:
    """Each says how to start it, and its arguments are those that it has."""
    for name in SMALLEST:
        text = (STUDIES / f"{name}.py").read_text()
        (command,) = re.findall(r"^    PYTHONPATH=. python (.*)$", text, re.MULTILINE)
        path, *arguments = command.split()
        assert (ROOT / path) == STUDIES / f"{name}.py"
        for argument in arguments:
            assert f'"{argument.partition("=")[0]}"' in text
