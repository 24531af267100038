"""Activation-Informed Merging: experiments on merging fine-tuned language models."""

__version__ = "0.1.0"
