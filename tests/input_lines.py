"""Wrong lines, generated from the schema: every key with values that are of another kind."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from aim_exp.config.schema import OPTIONS, BenchmarksConfig, RunConfig

NUMBERS = ("nan", "inf", "-inf", "-1e308", "1e308", "-1")
TEXTS = ("''", "' '", "no_such_thing", "'a\\u0000b'", "../..")
SHAPES = ("[]", "[1,[2]]", "{}", "{a: {b: []}}", "[null]", "true")
REFERENCES = ("${nothing}", "${omega}${seed}", "???", "${oc.env:AIM_EXP_NOT_SET}", "${omega")
GROUPS = {
    "population",
    "method",
    "aim",
    "calibration",
    "benchmarks",
    "evaluator",
    "select",
    "tracker",
}


def keys() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each key, and the options that it is a key of."""
    for name in get_type_hints(RunConfig):
        if name not in GROUPS | {"cache_dir", "plan", "debug"}:  # the harness sets these
            yield name, ()
    for option, built in {**OPTIONS, "benchmarks/lm_eval": BenchmarksConfig}.items():
        group, _, choice = option.partition("/")
        chosen = (f"{group}={choice}",) if choice else ()
        for field in fields(built):
            if field.init:
                yield f"{group}.{field.name}", chosen


def lines() -> Iterator[tuple[str, list[str]]]:
    """A key and the overrides of a run in which its value is odd, or is not there."""
    for key, chosen in keys():
        for value in (*NUMBERS, *TEXTS, *SHAPES, *REFERENCES):
            yield key, [*chosen, f"{key}={value}"]
        yield key, [*chosen, f"~{key}"]
        yield key, [*chosen, f"{key}.deeper=1"]
        yield key, [*chosen, f"+{key}.deeper=1"]


def needs(overrides: list[str]) -> list[str]:
    """What an option cannot do without, for as far as it is not what is odd."""
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    wanted: Mapping[str, Mapping[str, Any]] = {
        "population=custom": {"population.base": "BASE", "population.experts": "{a: EXPERT}"},
        "population=smollm2": {"population.base": "BASE"},
        "calibration=text": {"calibration.path": "TEXTS", "calibration.block_size": "32"},
        "calibration=pile_val": {"calibration.path": "PILE", "calibration.block_size": "32"},
        "evaluator=hf_process": {"evaluator.python": "PYTHON"},
        "evaluator=hf_multimodal": {"evaluator.python": "PYTHON"},
        "evaluator=vllm": {"evaluator.python": "PYTHON"},
        "benchmarks=lm_eval": {
            "benchmarks.tasks": "[aim_tiny_gsm8k]",
            "benchmarks.task_folder": "tiny",
        },
        "method=checkpoint": {"method.path": "EXPERT"},
    }
    return [
        f"{key}={value}"
        for option, values in wanted.items()
        if option in overrides
        for key, value in values.items()
        if not any(name == key or name.startswith(f"{key}.") for name in given)
    ]
