"""What a user reads of a run: figures, progress, log files, the texts of reports."""
