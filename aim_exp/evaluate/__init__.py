"""Scoring a model on benchmarks, through lm-eval: the only place that knows it.

`spec`, `results` and `metrics` import nothing heavy; `harness`, `remote` and `check` import
lm-eval, torch and transformers, so import those late.
"""
