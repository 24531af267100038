"""Studies: a design, locked before there are results; its replicates; and what they say.

    python -m aim_exp.study lock STUDY.yaml      # writes STUDY.lock
    python -m aim_exp.study run STUDY.lock 3     # replicate 3: its items to FOLDER/STUDY/3.csv.gz
    python -m aim_exp.study report STUDY.lock    # every number, from the kept items alone
    python -m aim_exp.study figure STUDY.lock    # its differences, to STUDY.png and STUDY.pdf

STUDY.lock holds the design, every job that it names with the digest of its configuration, the
items of each replicate, the code, the primary comparison and its margin. STUDY.yaml:

    name: aim_against_its_control
    question: Does AIM beat a uniform shrink of the same outputs?
    common: [population=smollm2_q4, benchmarks=held_out]   # of all jobs
    draws: [population.seed, benchmarks.items_seed]        # what a replicate's number sets
    replicates: {development: [0, 1], test: [2, 3, 4, 5, 6, 7]}
    over: [[method=task_arithmetic], [method=ties]]        # averaged over
    arms: {aim: [omega=0.4], control: [omega=0.4, aim.scaling=uniform]}
    primary: {arm: aim, against: control}
    secondary: []                                          # Holm's family, with the primary
    margin: 1.0                                            # points that do not matter
    rules: How the number of replicates is fixed, what is excluded.
    first: 6                                               # whose deviation fixes the number

An arm may have a list of overrides for each entry of `over`.
"""
