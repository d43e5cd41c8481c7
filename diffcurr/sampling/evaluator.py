"""Samples of a network beside the data: drawn, put on the grid of stored values, seen through features, measured."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from diffcurr.conditioning import Condition
from diffcurr.data import pipeline
from diffcurr.data.datasets import Dataset
from diffcurr.errors import UserError
from diffcurr.metrics import evaluation
from diffcurr.metrics.evaluation import Measure, Measured, Metric
from diffcurr.metrics.features import Features, of_reference
from diffcurr.sampling.drawing import Sampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A function of parameters, always of the same noise.

    Attributes:
      sampler: draws the samples.
      dataset: what they are compared with.
      features: network whose features both are compared by.
      measure: what is measured of the features of `number` samples.
      key, condition, number: the samples.
      reference_number: number of images that they are compared with.
    """

    sampler: Sampler
    dataset: Dataset
    features: Features
    measure: Measure
    key: PRNGKeyArray
    condition: Condition
    number: int
    reference_number: int

    @classmethod
    def of(
        cls,
        sampler: Sampler,
        dataset: Dataset,
        features: Features,
        metrics: Mapping[str, Metric],
        *,
        number: int,
        seed: int,
        key: PRNGKeyArray,
    ) -> "Evaluator":
        """Samples with the conditions of the sampler's conditioning in turn, beside all images of the data set's split.

        Args:
          seed: seed of what is drawn in measuring.
          key: random key of the samples.

        Raises:
          UserError: if the samples are too few for these features, or the images cannot be had.
        """
        if number <= features.width:
            raise UserError(
                f"{number} samples to evaluate: give more than the {features.width} features of {features.name}"
            )
        source = dataset.opened()
        images = pipeline.load(source, dataset, sampler.conditioning.of, len(source), seed=0).x
        real = of_reference(features, images)
        return cls(
            sampler=sampler,
            dataset=dataset,
            features=features,
            measure=evaluation.measure(metrics, real, number, seed),
            key=key,
            condition=sampler.conditioning.chosen(number),
            number=number,
            reference_number=len(real),
        )

    def __call__(
        self, params: Any, after_part: Callable[[int, int], None] = lambda done, number: None
    ) -> tuple[Float[np.ndarray, "number height width channel"], Measured]:
        """(the samples, what was measured of them).

        Args:
          after_part: called with (samples drawn, number) on the way.
        """
        images = self.sampler.draw(params, self.key, self.condition, self.number, after_part)
        with jax.transfer_guard("allow"):
            return images, self.measure(self.features.extract(self.dataset.quantised(images)))
