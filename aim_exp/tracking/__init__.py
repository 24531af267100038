"""Experiment tracking: the protocol, the trackers, and what of a run and a sweep they log."""
