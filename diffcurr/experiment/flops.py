"""What the model of an experiment computes in a step, and how much of the chips that uses."""

import dataclasses

from diffcurr import config as config_lib
from diffcurr.experiment.assembly import from_config
from diffcurr.experiment.experiment import Experiment
from diffcurr.planning import chips, costs


def model_flops(experiment: Experiment) -> float | None:
    """Floating-point operations of the forward and backward pass of one step over the global batch.

    Those of the matrix products and convolutions of the model, whatever is computed again in the backward pass
    (`network.remat`) and without the codec. None for a task that does not count them.
    """
    plain, config = experiment, experiment.config
    section, key = experiment.task.remat_key.split(".")
    if config[section].get(key, "none") != "none":
        changed = config_lib.changed(config, {section: {key: "none"}})
        other = from_config(changed, list(experiment.mesh.devices.flat))
        plain = dataclasses.replace(experiment, make_network=other.make_network, codec=other.codec)
    loss = plain.task.example_loss(plain)
    if loss is None:
        return None
    return config.batch_size * costs.gradient_flops(loss, experiment.abstract_state.params)


def utilisation(experiment: Experiment) -> float | None:
    """`model_flops` over what all devices could do in a second, by their peak in bfloat16.

    Times steps a second it is the model-flops utilisation. None where the chip's peak is not known.
    """
    chip = chips.known(experiment.mesh.devices.flat[0].device_kind)
    flops = model_flops(experiment) if chip else None
    return flops / (experiment.mesh.size * chip.flops) if chip and flops else None
