"""Eight forced CPU devices, and every jaxtyping annotation of diffcurr checked at run time."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Callable, Iterator  # noqa: E402

import hypothesis  # noqa: E402
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

jaxtyping.install_import_hook("diffcurr", "beartype.beartype")

hypothesis.settings.register_profile("diffcurr", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("diffcurr")


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
