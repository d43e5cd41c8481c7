"""A process as a scheduler of diffusers."""

from typing import Any

from diffcurr.processes.base import Process
from diffcurr.processes.ddpm import DDPM
from diffcurr.processes.prediction import X0, Epsilon, Prediction, V

PREDICTIONS: dict[type[Prediction], str] = {Epsilon: "epsilon", X0: "sample", V: "v_prediction"}
"""Prediction -> its name in diffusers."""


def scheduler(process: Process, clip: float) -> dict[str, Any]:
    """The content of scheduler_config.json: DDIM's steps from the noisiest level on.

    Args:
      clip: the estimate of x0 is clipped to [-clip, clip]; 0 for no limits.

    Raises:
      ValueError: if diffusers' pipelines of transformers do not sample such a process.
    """
    if not isinstance(process, DDPM):
        raise ValueError(
            f"process {type(process).__name__}: diffusers samples a DiT or PixArt by DDPM alone: give --format=public"
        )
    if type(process.prediction) not in PREDICTIONS:
        known = ", ".join(kind.__name__ for kind in PREDICTIONS)
        raise ValueError(
            f"process.prediction {type(process.prediction).__name__}: diffusers knows {known}: give --format=public"
        )
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": process.num_timesteps,
        "trained_betas": [float(beta) for beta in process.betas],
        "prediction_type": PREDICTIONS[type(process.prediction)],
        "clip_sample": clip > 0,
        "clip_sample_range": clip or 1.0,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "trailing",
    }
