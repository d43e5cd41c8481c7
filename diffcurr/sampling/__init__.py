"""Solvers over (alpha, sigma) that serve every process, and guidance."""
