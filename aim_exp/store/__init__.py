"""What is kept: entries by content key, and the records of runs."""
