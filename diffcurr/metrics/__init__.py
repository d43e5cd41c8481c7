"""What a run tells its user: numbers, progress, pictures."""
