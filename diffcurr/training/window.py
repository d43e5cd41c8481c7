"""What happened between two log lines."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from diffcurr.training.clock import Clock


class Window:
    """The metrics of the steps between two log lines, left on the device until `summary` fetches them.

    Metrics are NamedTuples with `loss` and `grad_norm`.
    """

    def __init__(self, first_step: int, earlier: Sequence[Any] = (), *, batch_size: int):
        """
        Args:
          first_step: number of steps taken before the window.
          earlier: metrics of the window's first steps, which another process took: they count in means, not in rates.
        """
        self._batch_size = batch_size
        self._metrics: list[Any] = list(earlier)
        self._earlier = len(earlier)
        self.first_step = first_step
        self.waited = 0.0  # seconds that the loop stood still for data

    @property
    def last_step(self) -> int:
        return self.first_step + len(self._metrics)

    @property
    def empty(self) -> bool:
        """Whether no step was taken in it by this process."""
        return len(self._metrics) == self._earlier

    def add(self, metrics: Any) -> None:
        self._metrics.append(metrics)

    def close(self, clock: Clock) -> None:
        """Starts the transfer to the host; `finished` will be the time at which the last step was."""
        self.finished = clock.when_computed(self._metrics[-1].loss)
        for array in jax.tree.leaves(self._metrics[self._earlier :]):
            array.copy_to_host_async()

    def check_finite(self) -> list[Any]:
        """The metrics on the host.

        Raises:
          FloatingPointError: naming the first step with a loss or gradient that is not finite, and where.
        """
        fetched: list[Any] = jax.device_get(self._metrics)
        for step, m in enumerate(fetched, self.first_step + 1):
            if not (np.isfinite(m.loss) and np.isfinite(m.grad_norm)):
                what = f"the loss is {m.loss}" if not np.isfinite(m.loss) else f"the gradient's norm is {m.grad_norm}"
                raise FloatingPointError(f"{what} at step {step}{self.where(m)}")
        return fetched

    def where(self, metrics: Any) -> str:
        """More about a step that failed, for the end of a message."""
        del metrics
        return ""

    def summary(self, seconds: float) -> dict[str, Any]:
        """What is logged of the window: means over its steps, and rates, given how long its steps took."""
        steps = self.check_finite()
        rate = (len(steps) - self._earlier) / seconds
        return {
            "loss": float(np.mean([m.loss for m in steps])),
            "grad_norm": float(np.mean([m.grad_norm for m in steps])),
            "steps_per_second": rate,
            "images_per_second": rate * self._batch_size,
            "data_wait": self.waited / seconds,
        }


class MeansWindow(Window):
    """A window of steps whose metrics are numbers, all of which are logged as means; of the learning rate, the last."""

    def summary(self, seconds: float) -> dict[str, Any]:
        steps = self.check_finite()
        others = [name for name in steps[0]._fields if name not in ("loss", "grad_norm", "learning_rate")]
        means = {name: float(np.mean([getattr(m, name) for m in steps])) for name in others}
        return super().summary(seconds) | means | {"learning_rate": float(steps[-1].learning_rate)}


class CurriculumWindow(Window):
    """A window of the steps of a curriculum, `training.step.Metrics`."""

    def __init__(self, first_step: int, earlier: Sequence[Any] = (), *, batch_size: int, num_stages: int):
        super().__init__(first_step, earlier, batch_size=batch_size)
        self._num_stages = num_stages

    def where(self, metrics: Any) -> str:
        bad = np.flatnonzero(~np.isfinite(metrics.cluster_loss)) + 1
        clusters = f" in clusters {', '.join(map(str, bad))}" if len(bad) else ""
        return f", stage {metrics.stage}/{self._num_stages}{clusters}"

    def summary(self, seconds: float) -> dict[str, Any]:
        steps = self.check_finite()
        count = np.sum([m.cluster_count for m in steps], axis=0)

        def of_cluster(name: str) -> np.ndarray:
            total = np.sum([getattr(m, name) for m in steps], axis=0)
            return np.where(count > 0, total / np.maximum(count, 1), np.nan)

        last = steps[-1]
        return super().summary(seconds) | {
            "stage": int(last.stage),
            "num_stages": self._num_stages,
            "loss_by_cluster": of_cluster("cluster_loss"),
            "noise_error_by_cluster": of_cluster("cluster_noise_error"),
            "weight_by_cluster": last.weights,
            "learning_rate": float(last.learning_rate),
            **({} if last.alignment is None else {"alignment": float(np.mean([m.alignment for m in steps]))}),
        }


def to_plain(metrics: Sequence[Any]) -> dict[str, Any]:
    """Metrics of steps, on the host, as JSON values: {field: {"dtype", "values", one a step}}; {} of none.

    Fields that are None are left out.
    """
    if not metrics:
        return {}
    fields = zip(metrics[0]._fields, zip(*metrics, strict=True), strict=True)
    stacked = {name: np.stack(field) for name, field in fields if field[0] is not None}
    return {name: {"dtype": str(x.dtype), "values": x.tolist()} for name, x in stacked.items()}


def from_plain(kind: type[Any], plain: dict[str, Any]) -> list[Any]:
    """Inverse of `to_plain`, for metrics of a NamedTuple class."""
    if not plain:
        return []
    fields = {name: np.asarray(one["values"], one["dtype"]) for name, one in plain.items()}
    return [kind(**dict(zip(fields, step, strict=True))) for step in zip(*fields.values(), strict=True)]
