"""What happened between two log lines."""

from typing import Any

import jax
import numpy as np

from diffcurr.training.clock import Clock
from diffcurr.training.step import Metrics


class Window:
    """The metrics of the steps between two log lines, left on the device until `summary` fetches them."""

    def __init__(self, first_step: int, batch_size: int, num_stages: int):
        self._batch_size = batch_size
        self._num_stages = num_stages
        self._metrics: list[Metrics] = []
        self.first_step = first_step
        self.waited = 0.0  # seconds that the loop stood still for data

    @property
    def last_step(self) -> int:
        return self.first_step + len(self._metrics)

    def add(self, metrics: Metrics) -> None:
        self._metrics.append(metrics)

    def close(self, clock: Clock) -> None:
        """Starts the transfer to the host; `finished` will be the time at which the last step was."""
        self.finished = clock.when_computed(self._metrics[-1].loss)
        for array in jax.tree.leaves(self._metrics):
            array.copy_to_host_async()

    def check_finite(self) -> list[Metrics]:
        """The metrics on the host.

        Raises:
          FloatingPointError: naming the first step, its stage and clusters with a loss or gradient that is not finite.
        """
        fetched: list[Metrics] = jax.device_get(self._metrics)
        for step, m in enumerate(fetched, self.first_step + 1):
            if not (np.isfinite(m.loss) and np.isfinite(m.grad_norm)):
                what = f"the loss is {m.loss}" if not np.isfinite(m.loss) else f"the gradient's norm is {m.grad_norm}"
                bad = np.flatnonzero(~np.isfinite(m.cluster_loss)) + 1
                where = f" in clusters {', '.join(map(str, bad))}" if len(bad) else ""
                raise FloatingPointError(f"{what} at step {step}, stage {m.stage}/{self._num_stages}{where}")
        return fetched

    def summary(self, seconds: float) -> dict[str, Any]:
        """What is logged of the window: means over its steps, and rates, given how long its steps took."""
        rows = self.check_finite()
        count = np.sum([m.cluster_count for m in rows], axis=0)
        total = np.sum([m.cluster_loss for m in rows], axis=0)
        return {
            "loss": float(np.mean([m.loss for m in rows])),
            "stage": int(rows[-1].stage),
            "num_stages": self._num_stages,
            "loss_by_cluster": np.where(count > 0, total / np.maximum(count, 1), np.nan),
            "grad_norm": float(np.mean([m.grad_norm for m in rows])),
            "learning_rate": float(rows[-1].learning_rate),
            "steps_per_second": len(rows) / seconds,
            "images_per_second": len(rows) * self._batch_size / seconds,
            "data_wait": self.waited / seconds,
        }
