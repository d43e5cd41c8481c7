"""diffcurr: train diffusion models easy-to-hard, in one compiled, sharded JAX step."""
