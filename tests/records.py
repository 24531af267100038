"""Records that the program could have written, without a run: real configurations, real keys."""

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from io import StringIO
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict
from rich.console import Console

from aim_exp.aim.settings import AimSettings
from aim_exp.config.schema import CONFIG_FOLDER, register
from aim_exp.pareto import hypervolume, hypervolume_difference, hypervolume_gain, non_dominated
from aim_exp.store.run_record import (
    BenchmarkRecord,
    Dose,
    ModelRecord,
    PopulationRecord,
    RunRecord,
    ScoreRecord,
    Standing,
)
from aim_exp.store.stage_spec import content_key
from aim_exp.types import Benchmark

POPULATION = {
    "base": (0.32, 0.38, 0.28, 0.44, 0.61, 0.28),
    "code": (0.93, 0.80, 0.17, 0.21, 0.48, 0.22),
    "instruct": (0.09, 0.26, 0.16, 0.28, 0.97, 0.69),
    "math": (0.25, 0.34, 0.45, 0.81, 0.54, 0.27),
}
MERGED = (0.50, 0.54, 0.24, 0.35, 0.80, 0.51)
SPECIALTY = {"code": (0, 1), "math": (2, 3), "instruct": (4, 5)}
"""By expert, the places of its benchmarks in the tiny suite."""
N_ITEMS = 149
CREATED = "2026-01-02T03:04:05+00:00"
STOCHASTIC = {"dare_ties", "dare_linear"}
Scores = Sequence[float | Sequence[float]]
"""By benchmark a score, or what the model got of each item."""
ITEMS: dict[tuple[str, float], list[dict[str, Any]]] = {}
"""By a score's key and value, the lines of its items, for `write_all`."""


def record(
    *overrides: str,
    scores: Scores | None = MERGED,
    members: Mapping[str, Scores] = POPULATION,
    references: Mapping[str, Scores] | None = None,
    specialty: Mapping[str, tuple[str, ...]] | None = None,
    lm_eval: str = "0.4.13",
    **changed: Any,
) -> RunRecord:
    """A completed run of `python run.py OVERRIDES`; `scores` None: nothing was scored."""
    config, choices = configured(overrides)
    population, method = config["population"], choices["method"]
    tasks = {} if scores is None else benchmarks_of(config)
    names, corner = list(tasks), config["benchmarks"].get("reference_point", 0.0)
    merged_names = tuple(population["merge"] or [name for name in members if name != "base"])
    parts = Keys(config, choices, lm_eval)
    undrawn = Keys(undrawn_config(config), choices, lm_eval)
    if specialty is None:
        own = {expert: [names[i] for i in places if i < len(names)]
               for expert, places in SPECIALTY.items()}  # fmt: skip
        specialty = {name: tuple(own[name]) for name in own if name in members and own[name]}
    models = [("base" if name == "base" else "expert", name, row) for name, row in members.items()]
    models += [("reference", name, row) for name, row in (references or {}).items()]
    if method != "none":
        models.append(("merged", "merged", scores or ()))
    made = RunRecord(
        status="completed",
        created=CREATED,
        command=f"python run.py {' '.join(overrides)}",
        config=config,
        choices=choices,
        overrides=overrides,
        population=PopulationRecord(
            name=population.get("name") or choices["population"],
            base="somewhere/base",
            experts={name: f"somewhere/{name}" for name in members if name != "base"},
            references={name: f"elsewhere/{name}" for name in references or {}},
            merged=merged_names,
            specialty=specialty,
        ),
        benchmarks={
            name: BenchmarkRecord(
                task=about["task"],
                reference_point=about.get("reference_point", corner),
                objective=about.get("objective", True),
                protocol=parts.task(about),
                num_fewshot=0,
            )
            for name, about in tasks.items()
        },
        models=tuple(
            ModelRecord(
                name=name,
                role=role,
                identity=content_key("identity", 1, parts.weights(name, merged_names)),
                keys={
                    "weights": content_key("weights", 1, parts.weights(name, merged_names)),
                    "responses": content_key("responses", 1, parts.responses(name, merged_names)),
                    "undrawn": content_key("weights", 1, undrawn.weights(name, merged_names)),
                },
                scores={
                    benchmark: score_record(
                        name, benchmark, about["metric"], row[number],
                        content_key("scores", 1, parts.scores(name, merged_names, about)),
                        content_key("scores", 1, undrawn.scores(name, merged_names, about)),
                        ends_of(about),
                    )
                    for number, (benchmark, about) in enumerate(tasks.items())
                },
            )
            for role, name, row in models
        ),
        draws=parts.draws(scored=scores is not None),
        omega=parts.omega,
        relaxed=parts.relaxes,
        relaxation=parts.relaxation,
        timings={"merge": 1.0, "evaluate": 2.0},
        versions={"torch": "2.13.0", "lm-eval": lm_eval},
        dtype=config["dtype"] or "float32",
        device="cpu",
    )  # fmt: skip
    made = replace(made, standing=standing_of(made))
    return replace(made, **changed)


def failed(error: str = "method.density=2: must lie in (0, 1]", *overrides: str) -> RunRecord:
    """What a refused configuration leaves."""
    config, choices = configured(overrides)
    return RunRecord(
        status="failed",
        error=error,
        created=CREATED,
        command=f"python run.py {' '.join(overrides)}",
        config=config,
        choices=choices,
        overrides=overrides,
        omega=config["omega"],
        population=PopulationRecord(
            name=choices["population"], base=None, experts={}, merged=()
        ),
    )  # fmt: skip


def shifted(amount: float) -> tuple[float, ...]:
    return tuple(round(score + amount, 6) for score in MERGED)


def by_benchmark(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(benchmarks_of(configured(())[0]), values, strict=True))


def write_all(directory: Path, *records: RunRecord, asked_for: int = 0) -> Path:
    """A sweep's directory: `sweep.json`, the records in 0, 1, ..., and the items at hand.

    `asked_for`: jobs in all; those beyond the records were never begun.
    """
    jobs = []
    for number in range(max(len(records), asked_for)):
        made = records[number] if number < len(records) else None
        jobs.append({"name": str(number), "overrides": list(made.overrides) if made else []})
        if made:
            folder = directory / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            write_items(folder, made)
            made.write(folder)
    sweep = {
        "schema_version": 1,
        "created": "2026-01-02T03:04:05+00:00",
        "command": "",
        "jobs": jobs,
    }
    (directory / "sweep.json").write_text(json.dumps(sweep))
    return directory


def write_items(folder: Path, made: RunRecord) -> None:
    for model in made.models:
        for score in model.scores.values():
            lines = ITEMS.get((score.key, score.value))
            if lines is not None:
                file = Path(os.path.normpath(folder / score.items))
                file.parent.mkdir(parents=True, exist_ok=True)
                text = "".join(json.dumps(line) + "\n" for line in lines)
                file.write_bytes(gzip.compress(text.encode(), mtime=0))


def relaxed_sweep(directory: Path) -> Path:
    """Four methods, plain and with AIM."""
    kinds = ("all", "q_proj", "post_attention_layernorm", "down_proj")
    dose = {
        kind: Dose(parameters=100, relaxed_parameters=100, mean_r=0.7 + i / 20, norm=0.72 + i / 20)
        for i, kind in enumerate(kinds)
    }
    layers = {layer: replace(dose["all"], norm=0.6 + layer / 10) for layer in range(3)}
    methods = ("ties", "dare_ties", "task_arithmetic", "dare_linear")
    plain = [record(f"method={m}", "omega=null", scores=shifted(-0.02 * i))
             for i, m in enumerate(methods)]  # fmt: skip
    relaxed = [record(f"method={m}", "omega=0.4", scores=shifted(0.02 * i), dose=dose,
                      dose_by_layer=layers)
               for i, m in enumerate(methods)]  # fmt: skip
    return write_all(directory, *plain, *relaxed)


def printed(show, width=200) -> str:
    console = Console(width=width, highlight=False, record=True, file=StringIO())
    show(to=console)
    return console.export_text()


# Configurations, as Hydra makes them of overrides.


def configured(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Composed once for all that choose the same options; plain values are set afterwards."""
    known = _composed(())[1]
    chosen = tuple(each for each in overrides if each.lstrip("+").partition("=")[0] in known)
    config, choices = _composed(chosen)
    config = OmegaConf.create(config)
    with open_dict(config):
        for override in OverridesParser.create().parse_overrides(
            [each for each in overrides if each not in chosen]
        ):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=False)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return plain, choices  # type: ignore[return-value]


@cache
def _composed(chosen: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    register()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", list(chosen), return_hydra_config=True)
    choices = {
        group: option
        for group, option in config.hydra.runtime.choices.items()
        if isinstance(option, str) and not group.startswith("hydra/") and group != "local"
    }
    with open_dict(config):
        del config["hydra"]
    return OmegaConf.to_container(config), choices  # type: ignore[return-value]


def benchmarks_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(config["benchmarks"]["tasks"] or {})


def undrawn_config(config: dict[str, Any]) -> dict[str, Any]:
    undrawn = {**config, "seed": 0, "repeat": 0}
    undrawn["benchmarks"] = {**config["benchmarks"], "items_seed": 0}
    for group in ("population", "calibration"):
        undrawn[group] = {**config[group], **({"seed": 0} if "seed" in config[group] else {})}
    return undrawn


class Keys:
    """What the numbers of a run depend on, by stage, as in `aim_exp.run.keys`."""

    def __init__(self, config: dict[str, Any], choices: dict[str, str], lm_eval: str) -> None:
        self.config, self.choices, self.lm_eval = config, choices, lm_eval

    @property
    def relaxes(self) -> bool:
        omega = self.config["omega"]
        return self.choices["method"] != "none" and omega is not None and omega < 1

    @property
    def aim(self) -> AimSettings:
        own = {key: value for key, value in self.config["aim"].items() if key != "_target_"}
        return AimSettings(**{**own, "exclude": tuple(own["exclude"])})

    @property
    def relaxation(self) -> str | None:
        return self.aim.relaxation if self.relaxes else None

    @property
    def omega(self) -> float | None:
        return self.config["omega"] if not self.relaxes or self.aim.uses_omega else None

    @property
    def reads_texts(self) -> bool:
        return self.relaxes and self.aim.reads_texts

    @property
    def stochastic(self) -> bool:
        return self.choices["method"] in STOCHASTIC or self.relaxation == "shuffled"

    def draws(self, *, scored: bool) -> dict[str, int]:
        calibration, population = self.config["calibration"], self.config["population"]
        values = {
            "population.seed": population.get("seed"),
            "benchmarks.items_seed": self.config["benchmarks"]["items_seed"] or None,
            "calibration.seed": calibration.get("seed") if self.reads_texts else None,
            "seed": self.config["seed"] if self.stochastic else None,
            "repeat": self.config["repeat"] if scored else None,
        }
        return {key: value for key, value in values.items() if value is not None}

    def weights(self, name: str, merged: Sequence[str]) -> dict[str, Any]:
        population, method = self.config["population"], dict(self.config["method"])
        dtype = self.config["dtype"] or "float32"
        source = {
            key: value
            for key, value in population.items()
            if key not in ("name", "merge", "references", "chat_template")
        }
        if name != "merged":
            return {"model": [name, source], "dtype": dtype}
        for key in method.keys() & {"weight", "density"}:
            if not isinstance(method[key], dict):
                method[key] = dict.fromkeys(merged, method[key])
        calibration = dict(self.config["calibration"]) if self.reads_texts else {}
        calibration.pop("offload", None)
        calibration.pop("per_expert", None)
        omega = self.config["omega"] if self.aim.uses_omega else None
        own = [omega, self.aim.spec(), self.aim.saliency, calibration]
        return {
            "base": source,
            "experts": [[expert, source] for expert in merged],
            "method": method,
            "take": self.config["take"],
            "dtype": dtype,
            "seed": self.config["seed"] if self.stochastic else None,
            "aim": own if self.relaxes else None,
        }

    def responses(self, name: str, merged: Sequence[str]) -> dict[str, Any]:
        evaluator = dict(self.config["evaluator"])
        evaluator.pop("batch_size", None)
        weights, repeat = self.weights(name, merged), self.config["repeat"]
        return {"weights": weights, "evaluator": evaluator, "repeat": repeat}

    def task(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """What a benchmark's scores depend on, beside the responses."""
        suite = {
            key: value
            for key, value in self.config["benchmarks"].items()
            if key not in ("tasks", "reference_point")
        }
        unasked = ("metric", "reference_point", "objective")
        own = {key: about[key] for key in about if key not in unasked}
        return {**suite, **own, "lm_eval": self.lm_eval}

    def scores(self, name: str, merged: Sequence[str], about: Mapping[str, Any]) -> dict[str, Any]:
        return {"responses": self.responses(name, merged), "task": self.task(about)}


def score_record(
    model: str,
    benchmark: str,
    metric: str,
    score: float | Sequence[float],
    key: str,
    undrawn: str,
    ends: tuple[float, float] = (0.0, 1.0),
) -> ScoreRecord:
    answers = list(score) if not isinstance(score, float | int) else None
    value = fmean(answers) if answers is not None else float(score)  # type: ignore[arg-type]
    n = len(answers) if answers is not None else N_ITEMS
    if answers is not None:
        ITEMS[key, value] = [item(benchmark, metric, i, got, ends) for i, got in enumerate(answers)]
    own = f"items/{benchmark}.jsonl.gz"
    return ScoreRecord(
        key=key,
        undrawn=undrawn,
        value=value,
        stderr=sqrt(value * (1 - value) / n),
        n=n,
        metric=metric,
        metrics={metric: on_ends(value, ends)},
        ends=ends,
        items=own if model == "merged" else f"../shared/items/{key[:24]}.jsonl.gz",
    )


def ends_of(about: Mapping[str, Any]) -> tuple[float, float]:
    own = {name: about[name] for name in ("direction", "scale") if about.get(name)}
    return Benchmark("", "", **own).ends


def on_ends(score: float, ends: tuple[float, float]) -> float:
    return ends[0] + score * (ends[1] - ends[0])


def item(
    benchmark: str, metric: str, number: int, got: float, ends: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Any]:
    name, _, chosen_filter = metric.partition(",")
    return {
        "task": f"aim_tiny_{benchmark}",
        "doc_id": number,
        "filter": chosen_filter,
        "prompt": f"question {number}",
        "target": f"answer {number}",
        "choices": None,
        "text": f"answer {number}" if got else "something else",
        "filtered": f"answer {number}" if got else "something else",
        "metrics": {name: on_ends(got, ends)},
    }


def standing_of(made: RunRecord) -> Standing:
    """As `aim_exp.store.standing` computes it."""
    scored = [model for model in made.models if model.role != "reference" and model.scores]
    if not scored:
        return Standing()
    objectives = {name: about for name, about in made.benchmarks.items() if about.objective}
    corner = [about.reference_point for about in objectives.values()]
    points = {m.name: [m.scores[b].value for b in objectives] for m in scored}
    front = tuple(
        name
        for name, kept in zip(points, non_dominated(list(points.values())), strict=True)
        if kept
    )
    point = points.pop("merged", None)
    population = list(points.values())
    if point is None:
        return Standing(on_front=front, hypervolume=hypervolume(population, corner))
    own = [points[name] for name in ("base", *made.population.merged)]
    owner = {b: name for name, names in made.population.specialty.items() for b in names}
    at = list(objectives)
    shares = [
        value / points[owner[b]][at.index(b)]
        for b, value in zip(at, point, strict=True)
        if b in owner and points[owner[b]][at.index(b)] > 0
    ]
    return Standing(
        average=fmean(point),
        normalised_average=fmean(shares) if len(shares) == len(at) else None,
        gain_over_best_member=fmean(point) - max(map(fmean, population)),
        on_front=front,
        hypervolume=hypervolume([*population, point], corner),
        hypervolume_gain=hypervolume_gain(point, own, corner),
        hypervolume_gain_population=hypervolume_gain(point, population, corner),
        hypervolume_difference=hypervolume_difference(point, own, corner),
    )


def accuracies(share: float, items: int = N_ITEMS, seed: int = 0) -> list[float]:
    """Right answers in `share` of the items, at random places."""
    right = np.arange(items) < round(share * items)
    return np.random.default_rng(seed).permutation(right).astype(float).tolist()
