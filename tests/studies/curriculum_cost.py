"""What the curriculum costs: step time with patience pacing over step time without, in one process.

    PYTHONPATH=. python tests/studies/curriculum_cost.py

Each pair is 200 steps of each, in turns of 5; a pair's figure is the median ratio of neighbouring turns.
"""

import time

import jax
import numpy as np
import scipy.stats

from configs.digits import get_config
from diffcurr import experiment as experiment_lib
from diffcurr.data import pipeline, sources

PAIRS, STEPS, TURN = 15, 200, 5


class Runner:
    """A digits run with batch 64 that can be advanced step by step."""

    def __init__(self, order: str):
        config = get_config()
        config.curriculum.order = order
        config.curriculum.patience = 10**6  # stays in its stage: both train all the while with the same network
        self.experiment = experiment_lib.from_config(config, jax.devices()[:1])
        self.compiled = self.experiment.compiled
        self.state = self.experiment.init_state()
        self.mask = self.compiled.initial_mask(self.state)
        info = self.experiment.dataset
        dataset = pipeline.make_dataset(sources.open_source(info), info, batch_size=64, seed=0)
        self.batches = [jax.device_put(dataset[i], self.compiled.batch_sharding) for i in range(8)]
        self.advance(20)

    def advance(self, steps: int) -> float:
        began = time.perf_counter()
        for step in range(steps):
            self.state, self.mask, _ = self.compiled.step(self.state, self.batches[step % 8], self.mask)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - began) / steps


def main() -> None:
    runners = {"easy_to_hard": Runner("easy_to_hard"), "none": Runner("none")}
    ratios: list[float] = []
    for pair in range(PAIRS):
        turns: dict[str, list[float]] = {name: [] for name in runners}
        for turn in range(STEPS // TURN):  # side by side, so that a slow spell of the machine hits both
            for name in sorted(runners, reverse=bool((pair + turn) % 2)):
                turns[name].append(runners[name].advance(TURN))
        in_pair = np.array(turns["easy_to_hard"]) / np.array(turns["none"])
        ratios.extend(in_pair)
        spent = 1000 * np.median(turns["none"])
        print(f"pair {pair + 1}: {spent:.2f} ms a step without, ratio {np.median(in_pair):.4f}", flush=True)
    low, high = scipy.stats.bootstrap([ratios], np.median, rng=0).confidence_interval
    print(f"median ratio of {len(ratios)} turns {np.median(ratios):.4f}, 95 % interval {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
