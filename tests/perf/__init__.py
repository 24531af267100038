"""Benchmarks that anyone can rerun, one command each; not part of the test run."""
