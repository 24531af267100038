"""Blocks of tensors on their way: memory, uploads, what a kernel is given, sinks."""
