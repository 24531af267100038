"""The simulation's whole table: `make check-statistics`, a few minutes. CI runs a small part."""

from __future__ import annotations

from math import sqrt

from simulated import Study, gain_coverage, paired_t_coverage, rates

ROUNDS = 2000
NULL, PLANTED = 0.0, 0.05


def test_the_table() -> None:
    """False positives at most, coverage at least nominal, to two Monte Carlo errors."""
    error = 2 * sqrt(0.05 * 0.95 / ROUNDS)
    wrong = []
    print(f"\n{ROUNDS} studies each, Monte Carlo error {50 * error:.1f}; percent\n")
    print("| items | replicates | false positives | coverage of 0 | coverage of 5 points | power |")
    print("|---|---|---|---|---|---|")
    for shared in (False, True):
        for replicates in (5, 6, 12, 50):
            null = rates(Study(replicates, shared, NULL), ROUNDS)
            planted = rates(Study(replicates, shared, PLANTED), ROUNDS)
            row = (null.found, null.covered, planted.covered, planted.found)
            cells = " | ".join(f"{100 * share:.1f}" for share in row)
            print(f"| {'shared' if shared else 'own'} | {replicates} | {cells} |")
            if null.found > 0.05 + error or min(null.covered, planted.covered) < 0.95 - error:
                wrong.append((shared, replicates))
    print("\nA paired t on shared items would cover", end=" ")
    of = {n: paired_t_coverage(Study(n, True, NULL), ROUNDS) for n in (5, 12, 50)}
    print(", ".join(f"{100 * share:.0f} ({n} replicates)" for n, share in of.items()))
    print("The percentile bootstrap of a hypervolume gain covers", end=" ")
    gains = {lead: gain_coverage(ROUNDS // 2, lead=lead) for lead in (0.0, 0.05, 0.2)}
    print(", ".join(f"{100 * share:.0f} (lead {lead:g})" for lead, share in gains.items()))
    assert wrong == []
    assert of[50] < 0.9
    assert gains[0.0] < 0.5
