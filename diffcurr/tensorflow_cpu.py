"""TensorFlow, on the CPU alone and only where TFDS prepares a data set with it; the extra `tfds` installs it."""

import os
from types import ModuleType


def import_tensorflow() -> ModuleType:
    """Imports TensorFlow (some seconds) and hides every accelerator from it: those belong to JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # unused here, and announced at length
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf
