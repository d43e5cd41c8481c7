"""Public networks in JAX, from their published weights; each is useful alone."""
