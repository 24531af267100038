"""Records of runs whose answers, item by item, are written by hand."""

import json
from dataclasses import replace
from pathlib import Path

from aim_exp.pareto import hypervolume_gain
from aim_exp.store.records import RunRecord

MEMBERS = {"base": 0.3, "a": 0.5}


def accuracies(share: float, items: int = 40) -> list[float]:
    return [float(number < round(share * items)) for number in range(items)]


def write(folder: Path, omega: float | None, values, score: float, **changed) -> RunRecord:
    """A run whose merge got `values` of the items of `x`; its population, fixed shares of them.

    `values` are the metric's by item, or by task and item.
    """
    by_task = values if isinstance(values, dict) else {"t": values}
    scores = {name: {"x": share} for name, share in MEMBERS.items()}
    folder.mkdir(parents=True)
    answers = {"merged": by_task, **{name: {"t": accuracies(s)} for name, s in MEMBERS.items()}}
    for name, tasks in answers.items():
        lines = [
            {"task": task, "doc_id": i, "filter": f, "target": i, "metrics": {"m": value}}
            for task, items in tasks.items()
            for i, item in enumerate(items)
            for f, value in (("strict", 0.0), ("flexible", item))
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = RunRecord(
        method="ties",
        omega=omega,
        population={"name": "p", "merged": ["a"], "models": {"base": "b", "a": "a"}},
        suite="s",
        benchmarks={"x": {"task": "t", "metric": "m,flexible", "reference_point": 0.0}},
        scores={"x": score},
        stderr={"x": 0.1},
        population_scores=scores,
        items={name: {"x": str(folder / f"{name}.jsonl")} for name in answers},
        average=score,
        hypervolume_gain=hypervolume_gain([score], [[s] for s in MEMBERS.values()]),
        keys={"weights": {"merged": str(folder), **{name: name for name in MEMBERS}}},
        versions={"torch": "2", "lm-eval": "0.4"},
    )
    record = replace(record, **changed)
    record.write(folder)
    return record
