"""Faster ways to the answers that lm-eval's own model class gives."""
