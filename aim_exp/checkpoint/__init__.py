"""Checkpoints on disk and in memory: read lazily, written as a stream, swapped in place."""
