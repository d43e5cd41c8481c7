"""What `pip install diffcurr` gives, in a fresh environment that holds the wheel and what it requires, and no more."""

import ast
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import pytest
import tiny
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
# With PYTHONPATH the fresh environment could find the checkout; XLA_FLAGS would force eight devices.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS" and not key.startswith("PYTHON")}


def run(*command: str | pathlib.Path, cwd: pathlib.Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [os.fspath(part) for part in command], cwd=cwd, env=ENVIRONMENT, text=True, capture_output=True
    )


def pip(*arguments: str | pathlib.Path, cwd: pathlib.Path) -> None:
    done = run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The wheel, built from a copy: the checkout is left without a build folder."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=left_out)
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", "./source", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A virtual environment with the wheel, and links to this environment's copies of what it requires."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    site = pathlib.Path(sysconfig.get_path("purelib", vars={"base": os.fspath(folder)}))
    (metadata,) = importlib.metadata.distributions(path=[os.fspath(site)])
    for distribution in required(metadata.requires or []):
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():  # packages share folders such as google
                (site / top).symlink_to(distribution.locate_file(top))
    return folder


def required(requirements: list[str]) -> list[importlib.metadata.Distribution]:
    """The installed packages that these requirements, none of them of an extra, bring, with what those require."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = importlib.metadata.distribution(name)
        for wanted in {"", *requirement.extras} - {known for package, known in seen if package == name}:
            seen.add((name, wanted))
            waiting += [(Requirement(text), wanted) for text in found[name].requires or []]
    return list(found.values())


def test_the_wheel_holds_the_package_and_its_configs(wheel: pathlib.Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {os.fspath(file.relative_to(ROOT)) for file in (ROOT / "diffcurr").rglob("*.py")}
    weights = {os.fspath(file.relative_to(ROOT)) for file in (ROOT / "diffcurr").rglob("*.safetensors")}
    configs = {f"diffcurr/configs/{file.name}" for file in (ROOT / "configs").iterdir() if file.is_file()}
    missing = (sources | weights | configs | {"diffcurr/py.typed"}) - names
    assert not missing, f"{sorted(missing)}: is each package in pyproject.toml's list?"
    (information,) = {name.split("/")[0] for name in names} - {"diffcurr"}
    assert {f"{information}/licenses/LICENSE", f"{information}/entry_points.txt"} <= names
    others = names - sources - weights - configs - {"diffcurr/py.typed"}
    assert all(name.startswith(f"{information}/") for name in others), sorted(others)


def test_every_import_is_declared() -> None:
    """Also those inside functions, which the other tests may not reach."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bare = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    extras = [project["optional-dependencies"][name] for name in ("tfds", "text", "wandb")]
    extra = {canonicalize_name(Requirement(text).name) for some in extras for text in some}
    providers = importlib.metadata.packages_distributions()
    for file in sorted((ROOT / "diffcurr").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {module.split(".")[0] for module in modules} - sys.stdlib_module_names - {"diffcurr"}:
                packages = {canonicalize_name(package) for package in providers.get(top, [top])}
                # An extra's only where it is needed: inside a function, or in a builder, which TFDS alone loads.
                allowed = bare | extra if node.col_offset or file.name.endswith("_builder.py") else bare
                assert packages & allowed, f"{file}:{node.lineno} imports {top}, which pyproject.toml does not declare"


@pytest.mark.timeout(600)
def test_digits_train_without_tensorflow(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    python = environment / "bin" / "python"
    where = run(
        python,
        "-c",
        "import diffcurr, importlib.util; print(diffcurr.__file__)\n"
        "print([importlib.util.find_spec(name) for name in ('tensorflow', 'tensorflow_datasets')])",
        cwd=tmp_path,
    )
    location, absent = where.stdout.splitlines()
    assert pathlib.Path(location).is_relative_to(environment), "another diffcurr than the wheel's"
    assert absent == "[None, None]", absent

    workdir = tmp_path / "run"
    flags = ["--config=digits", f"--workdir={workdir}", *tiny.FLAGS]
    intervals = ["--config.log_every=2", "--config.sample_every=4", "--config.analysis.samples=20"]
    done = run(environment / "bin" / "diffcurr", *flags, *intervals, "--config.steps=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(row)["step"] for row in (workdir / "metrics.jsonl").read_text().splitlines()] == [2, 4]
    assert (workdir / "checkpoints" / "4").is_dir()
    assert (workdir / "samples" / "00000004.png").is_file()

    # TensorBoard reads what was written, there too.
    reader = (
        "import sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "print([event.step for event in EventAccumulator(sys.argv[1]).Reload().Tensors('loss')])"
    )
    read = run(python, "-c", reader, workdir, cwd=tmp_path)
    assert read.stdout.strip() == "[2, 4]", read.stderr


def test_a_data_set_of_tfds_is_one_line_without_it(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run(environment / "bin" / "diffcurr", "--config=cifar10", f"--workdir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "pip install 'diffcurr[tfds]'" in done.stderr
