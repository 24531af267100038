"""Scoring a live model on benchmarks, through lm-eval: the only place that knows it.

`spec`, `results` and `metrics` import nothing heavy; `harness` and `check` import lm-eval,
torch and transformers, so import those two late.
"""
