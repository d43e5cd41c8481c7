"""Keys that were renamed."""

# Key of version 0.1.0 -> what it is called now. Each part drops those that it does not have: there they had no effect.
RENAMED: dict[str, tuple[str, ...]] = {
    "class_conditional": ("conditioning.name",),
    "class_dropout": ("conditioning.dropout",),
    "process.prediction": ("process.prediction.name",),
    "process.sigma_data": ("process.prediction.sigma_data",),
    "process.weighting": ("process.weighting.name",),
    "process.weighting_gamma": ("process.weighting.gamma",),
    "process.weighting_k": ("process.weighting.k",),
    "process.distribution": ("process.density.name",),
    "process.mean": ("process.density.mean",),
    "process.std": ("process.density.std",),
    "process.speed_tau": ("process.density.tau", "process.weighting.tau"),
    "process.speed_k": ("process.density.k",),
    "process.speed_lambda": ("process.weighting.limit",),
    "curriculum.pacing": ("curriculum.name",),
    "curriculum.clustering": ("curriculum.clustering.name",),
    "curriculum.edges": ("curriculum.clustering.at",),
    "curriculum.entropy_power": ("curriculum.clustering.power",),
    "sampling.solver": ("sampling.solver.name",),
    "sampling.eta": ("sampling.solver.eta",),
    "sampling.churn": ("sampling.solver.churn",),
    "sampling.tolerance": ("sampling.solver.tolerance",),
    "evaluation.resamples": ("evaluation.metrics.frechet_distance.resamples",),
}
