"""The train step and what surrounds it: state, randomness, sharding, optimizer, checkpoints."""
