"""What a user can ask for; one file a job, each reads top to bottom like a recipe."""
