"""Every section of a config that names a part, and the table of its names."""

from diffcurr import parts
from diffcurr.codecs import CODECS, QUANTIZERS
from diffcurr.conditioning import CONDITIONINGS
from diffcurr.curriculum import CLUSTERINGS, RULES, STAGES
from diffcurr.curriculum import DENSITIES as CURRICULUM_DENSITIES
from diffcurr.data.datasets import DATASETS
from diffcurr.metrics.evaluation import METRICS
from diffcurr.networks import NETWORKS
from diffcurr.pretrained.picture_features import PICTURE_FEATURES
from diffcurr.pretrained.text_encoders import TEXT_ENCODERS
from diffcurr.processes import DENSITIES, PREDICTIONS, PROCESSES, WEIGHTINGS
from diffcurr.sampling.solvers import SOLVERS
from diffcurr.tasks import TASKS
from diffcurr.training.alignment import ALIGNMENTS
from diffcurr.training.optimizer import OPTIMIZERS
from diffcurr.training.perceptual import PERCEPTUALS

parts.TABLES.update(
    {
        "task": TASKS,
        "task.perceptual": PERCEPTUALS,
        "dataset": DATASETS,
        "codec": CODECS,
        "codec.quantizer": QUANTIZERS,
        "process": PROCESSES,
        "process.prediction": PREDICTIONS,
        "process.weighting": WEIGHTINGS,
        "process.density": DENSITIES,
        "network": NETWORKS,
        "conditioning": CONDITIONINGS,
        "conditioning.encoder": TEXT_ENCODERS,
        "curriculum": RULES,
        "curriculum.density": CURRICULUM_DENSITIES,
        "curriculum.stages": STAGES,
        "curriculum.clustering": CLUSTERINGS,
        "optimizer": OPTIMIZERS,
        "sampling.solver": SOLVERS,
        "alignment": ALIGNMENTS,
        "encode.features": PICTURE_FEATURES,
        "evaluation.metrics": METRICS,
    }
)
