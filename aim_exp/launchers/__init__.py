"""Launchers: the jobs of a sweep in other processes, of this machine, a Slurm or a Ray cluster.

`launch` is what Hydra calls; `stages` says what jobs have in common and is done first; a `task` is
what a process is given; `engines` starts tasks and tells their ends.
"""
