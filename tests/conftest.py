"""Eight forced CPU devices, a compilation cache for the session, and every jaxtyping annotation checked at run time."""

import atexit
import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
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
