"""Populations of a real language model: a base that is given, and experts fine-tuned from it here.

`source` is the population as configured, `phases` the recipe in numbers, `trainer` carries it
out, `unpack` makes a base of a package that holds one.
"""
