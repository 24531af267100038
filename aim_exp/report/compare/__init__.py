"""Runs held against each other, item by item: what a difference is worth."""
