"""What a rule costs: the time of a step with it over that of one without a curriculum, in one process.

    PYTHONPATH=. python tests/studies/curriculum_cost.py --rule=information

Each pair is 200 steps of each, in turns of 5; a pair's figure is the median ratio of neighbouring turns. The clusters
are those of the config, measured first if they follow from relative entropy.
"""

import argparse
import tempfile
import time

import jax
import numpy as np
import scipy.stats
from etils import epath

from diffcurr import config as config_lib
from diffcurr import experiment as experiment_lib
from diffcurr.curriculum import RULES
from diffcurr.data import pipeline
from diffcurr.reporting.progress import Line


class Runner:
    """A run that can be advanced step by step."""

    def __init__(self, config: str, rule: dict[str, object], folder: epath.Path, samples: int | None):
        changes: dict[str, object] = {"curriculum": rule}
        if samples:
            changes["analysis"] = {"samples": samples}
        changed = config_lib.changed(config_lib.complete(config_lib.load(config)), changes)
        experiment = experiment_lib.from_config(changed, jax.devices()[:1]).with_clusters(folder, Line())
        self.compiled, self.state = experiment.compiled, experiment.init_state()
        self.weights = self.compiled.initial_carry(self.state)
        dataset = pipeline.make_dataset(
            experiment.dataset.open(),
            experiment.dataset,
            experiment.conditioning.of,
            batch_size=changed.batch_size,
            seed=0,
        )
        self.batches = [jax.device_put(dataset[i], self.compiled.batch_sharding) for i in range(8)]

    def advance(self, steps: int) -> float:
        """Seconds of one of so many steps."""
        began = time.perf_counter()
        for step in range(steps):
            batch = self.batches[step % len(self.batches)]
            self.state, self.weights, _ = self.compiled.step(self.state, batch, self.weights)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="digits")
    parser.add_argument("--rule", default="patience", choices=list(RULES))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200, help="of each of a pair")
    parser.add_argument("--turn", type=int, default=5, help="steps at a time")
    parser.add_argument("--samples", type=int, help="of the curve that clusters follow from; the config's if not given")
    given = parser.parse_args()

    none = {"name": "patience", "order": "none"}
    # Patience stays in its stage: both train all the while with the same network.
    rule = {"name": given.rule} | ({"order": "easy_to_hard", "patience": 10**6} if given.rule == "patience" else {})
    with tempfile.TemporaryDirectory() as folder:
        runners = {
            name: Runner(given.config, one, epath.Path(folder), given.samples)
            for name, one in (("rule", rule), ("none", none))
        }
    for runner in runners.values():
        runner.advance(20)
    ratios: list[float] = []
    for pair in range(given.pairs):
        turns: dict[str, list[float]] = {name: [] for name in runners}
        for turn in range(given.steps // given.turn):  # side by side, so that a slow spell of the machine hits both
            for name in sorted(runners, reverse=bool((pair + turn) % 2)):
                turns[name].append(runners[name].advance(given.turn))
        in_pair = np.array(turns["rule"]) / np.array(turns["none"])
        ratios.extend(in_pair)
        spent = 1000 * np.median(turns["none"])
        print(f"pair {pair + 1}: {spent:.2f} ms a step without, ratio {np.median(in_pair):.4f}", flush=True)
    low, high = scipy.stats.bootstrap([ratios], np.median, rng=0).confidence_interval
    print(f"median ratio of {len(ratios)} turns {np.median(ratios):.4f}, 95 % interval {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
