"""Samples of a network beside the data: drawn, put on the grid of stored values, seen through features, measured."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, PRNGKeyArray

from diffcurr.conditioning import Condition
from diffcurr.errors import UserError
from diffcurr.metrics import evaluation, pipelines, published
from diffcurr.metrics.evaluation import FrechetDistance, Measure, Measured, Metric, Wanted
from diffcurr.metrics.features import Features, not_finite, of_reference
from diffcurr.metrics.frechet import Statistics
from diffcurr.pretrained import inception
from diffcurr.sampling.drawing import Sampler
from diffcurr.sampling.real_pictures import RealPictures
from diffcurr.training import distributed

SHOWN = 100  # samples that are kept to be looked at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A function of parameters, always of the same noise, on all devices of all processes.

    Attributes:
      sampler: draws the samples.
      pictures: real pictures of the data set.
      features: network whose features both are compared by.
      measure: what is measured of the features of `number` samples; process 0 does it.
      key, condition, number: the samples.
      reference: what they are compared with, as JSON values: the data set's pictures, or a published file.
      reference_number: number of images that they are compared with; 0 where nobody says.
    """

    sampler: Sampler
    pictures: RealPictures
    features: Features
    measure: Measure | None
    key: PRNGKeyArray
    condition: Condition
    number: int
    reference: dict[str, Any]
    reference_number: int

    @classmethod
    def of(
        cls,
        sampler: Sampler,
        pictures: RealPictures,
        features: Features,
        metrics: Mapping[str, Metric],
        *,
        number: int,
        seed: int,
        key: PRNGKeyArray,
        reference: str = "",
        held_out: RealPictures | None = None,
    ) -> "Evaluator":
        """Samples with the conditions of the sampler's conditioning in turn, beside all pictures.

        Args:
          reference: file of published statistics that stand in the place of the pictures; "" for none.
          held_out: pictures that were not trained on, for the metrics that compare with those.
          seed: seed of what is drawn in measuring.
          key: random key of the samples.

        Raises:
          UserError: if the samples are too few for these features, or the images cannot be had.
        """
        check_number(number, features, metrics)
        condition, wanted = sampler.conditioning.chosen(number), Wanted(*sampler.conditioning.wanted(number))
        evaluation.check_wanted(metrics, wanted)
        statistics: dict[str, Statistics] = {}
        real: Float[np.ndarray, "n feature"] | None
        if reference:
            real, statistics, described = _published(reference, features, metrics)
        else:
            real, described = features_of(pictures, features), pictures.described
        unseen = None
        if held_out is not None and any(one.held_out for one in metrics.values()):
            unseen = features_of(held_out, features)
        measure = distributed.on_primary(
            lambda: evaluation.measure(
                metrics,
                real,
                number,
                seed,
                kinds=features.kinds,
                published=statistics,
                held_out=unseen,
                wanted=wanted,
            )
        )
        return cls(
            sampler=sampler,
            pictures=pictures,
            features=features,
            measure=measure,
            key=key,
            condition=condition,
            number=number,
            reference=described,
            reference_number=0 if real is None else len(real),
        )

    def __call__(
        self, params: Any, after_part: Callable[[int, int], None] = lambda done, number: None
    ) -> tuple[Float[np.ndarray, "shown height width channel"], Measured]:
        """(the first samples, what was measured of all of them; nothing but in process 0).

        Args:
          after_part: called with (samples drawn, number) on the way.

        Raises:
          UserError: see `Features.check_finite`; in all processes.
        """
        numbers, found, shown, spoilt = [], [], [], 0
        with jax.transfer_guard("allow"):
            for part in self.sampler.parts(params, self.key, self.condition, self.number, after_part):
                here, images = part.rows_here()
                shown.append((here[here < SHOWN], images[here < SHOWN]))
                spoilt += not_finite(images)
                images = self.features.shown(images, self.pictures.quantised)
                found.append(self.features.look(images, self.pictures.devices))
                numbers.append(here)
            everything = distributed.gather(np.concatenate(numbers), np.concatenate(found))
            first = distributed.gather(*(np.concatenate(rows) for rows in zip(*shown, strict=True)))
            self.features.check_finite(int(distributed.total(spoilt)), everything)
            return first, self.measure(everything) if self.measure else {}


def check_number(number: int, features: Features, metrics: Mapping[str, Metric]) -> None:
    """
    Raises:
      UserError: if so many samples are too few to compare their features with those of real pictures.
    """
    width = max((widths(features)[one.kind] for one in metrics.values() if one.real), default=0)
    if number <= width:
        raise UserError(f"{number} samples to evaluate: give more than the {width} features of {features.name}")


def features_of(pictures: RealPictures, features: Features) -> Float[np.ndarray, "n feature"]:
    """Features of all pictures, in every process, each of which looks at its share.

    A process that measures several runs keeps them: to find them in their cache takes a reading of all pictures.
    """
    key = repr((features.name, features.kinds, pictures.dataset, pictures.described, pictures.held_out))
    if key not in _KEPT:
        if len(_KEPT) == KEPT:
            _KEPT.pop(next(iter(_KEPT)))
        _KEPT[key] = _features_of(pictures, features)
    return _KEPT[key]


KEPT = 2  # sets of features, of the images trained on and of those held out
_KEPT: dict[str, Float[np.ndarray, "n feature"]] = {}


def _features_of(pictures: RealPictures, features: Features) -> Float[np.ndarray, "n feature"]:
    mine = pictures.numbers_here
    with jax.transfer_guard("allow"):
        found = of_reference(
            features,
            pictures.read,
            len(mine),
            pictures.devices,
            stored=pictures.stored,
            made_by=pictures.made_by,
        )
        return distributed.gather(mine, found)


def widths(features: Features) -> dict[str, int]:
    """How many features there are of each kind."""
    return {kind: len(range(*columns.indices(features.width))) for kind, columns in features.kinds.items()}


def _published(
    path: str, features: Features, metrics: Mapping[str, Metric]
) -> tuple[Float[np.ndarray, "n feature"] | None, dict[str, Statistics], dict[str, Any]]:
    """(features of the pictures in a published file, if a metric needs them; its statistics by kind; what it is)."""
    width = widths(features)
    found = published.read(path, width["pool"], width.get("spatial", inception.SPATIAL_WIDTH))
    statistics = {"pool": found.pool, "spatial": found.spatial}
    known = {kind: one for kind, one in statistics.items() if one is not None}
    real = None
    wanting = [one for one in metrics.values() if one.real and not one.held_out]
    if found.pictures and any(not isinstance(one, FrechetDistance) or one.kind not in known for one in wanting):
        batches = published.pictures(path, batch=features.batch)
        real = np.concatenate([features.look(pipelines.from_pixels(batch)) for batch in batches])
    described = {"file": epath.Path(path).name, "sha256": found.digest, "pictures": found.pictures}
    return real, known, described
