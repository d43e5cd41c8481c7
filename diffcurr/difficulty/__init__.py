"""How hard each noise level is: the paper's two observations, measured on the user's own data."""
