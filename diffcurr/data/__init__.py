"""Data sets: where the examples come from, and the pipeline that serves them."""
