"""Eight forced CPU devices, a compilation cache for the session, and every jaxtyping annotation checked at run time."""

import atexit
import os
import pathlib
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"  # where they are left out: see below
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the cache of the process that started them
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="diffcurr-test-cache-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

from collections.abc import Callable, Iterator

import hypothesis
import jax
import jaxtyping
import pytest

jaxtyping.install_import_hook("diffcurr", "typechecker.check")

hypothesis.settings.register_profile("diffcurr", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("diffcurr")


TESTS = pathlib.Path(__file__).parent
# Where whole runs are tested, of tiny networks: compiling takes most of the time, and half of it with least effort.
LIGHTLY = ("codecs", "jobs", "networks", "notebooks", "sampling", "training", "test_guests.py", "test_run.py")
AS_USERS_DO = ("jobs/test_encode.py", "jobs/test_plan.py", "training/test_old_workdir.py")  # bytes, programs, figures
# Files of minutes, longest first: one that came last would leave a worker waiting for it.
LONG = (
    "jobs/test_processes.py",
    "jobs/test_distributed.py",
    "jobs/test_compare.py",
    "jobs/test_train.py",
    "jobs/test_resume.py",
    "training/test_step.py",
    "jobs/test_analyze_processes.py",
    "jobs/test_analyze.py",
    "jobs/test_plan.py",
    "jobs/test_text.py",
    "jobs/test_signals.py",
    "jobs/test_changes.py",
    "notebooks/test_notebooks.py",
    "test_guests.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed to the workers in the order below, not by their number of tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {TESTS / file: place for place, file in enumerate(LONG)}
    assert all(path.exists() for path in places), "conftest.LONG names a file that is not there"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures: how much effort is made in compiling, here and in what it starts."""
    file = item.path.relative_to(TESTS)
    lightly = file.parts[0] in LIGHTLY and file.as_posix() not in AS_USERS_DO
    if str(int(lightly)) != os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]:
        jax.config.update("jax_disable_most_optimizations", lightly)
        jax.clear_caches()  # no program of the other kind is used
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(lightly))


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Features that a process keeps would hide whether their file is written and read."""
    from diffcurr.sampling import evaluator  # once the hook is there

    evaluator._KEPT.clear()


@pytest.fixture
def compilations() -> Iterator[Callable[[], int]]:
    """A function that says how many programs XLA has compiled since the test began."""
    count = 0

    def listen(event: str, duration: float, **kwargs: object) -> None:
        nonlocal count
        del duration, kwargs
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: count
    jax.monitoring.unregister_event_duration_listener(listen)
