"""What a saved model carries: a card that the hub understands, and its exact recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from omegaconf import OmegaConf

from aim_exp.checkpoint.hub import CARD, HUB
from aim_exp.run.run import ADAPTER, Run
from aim_exp.store.run_record import RunRecord, ScoreRecord
from aim_exp.types import ModelRef

RECIPE_FILE = "aim_exp.yaml"
PAPER = "[Activation-Informed Merging](https://arxiv.org/abs/2502.02421)"
LICENSE_KEYS = ("license", "license_name", "license_link")


def describe_model(folder: Path, run: Run, record: RunRecord) -> None:
    """Write the card and the recipe into `folder`; `record` is that of the finished run."""
    paragraphs = [_front_matter(run, record), *_body(run, record)]
    (folder / CARD).write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    (folder / RECIPE_FILE).write_text(_recipe(run, record), encoding="utf-8")


def _recipe(run: Run, record: RunRecord) -> str:
    """What `build` makes the same run from (`config`, `choices`), and what the run met."""
    merged = run.plan.merged
    content = {
        "command": record.command,
        "choices": dict(run.choices),
        "config": _pinned(run),
        "models": {model.name: model.identity for model in _sources(run)},
        "keys": {
            "weights": merged and merged.weights.key,
            "saliency": run.plan.saliency and run.plan.saliency.key,
        },
        "versions": dict(record.versions),
        "git_commit": record.provenance["git_commit"],
    }
    head = "# How this model was made; `config` is the whole configuration of aim-exp.\n"
    return head + OmegaConf.to_yaml(OmegaConf.create(content))


def _pinned(run: Run) -> dict[str, Any]:
    """The configuration with each hub id at its commit: a branch moves on."""
    config = deepcopy(dict(run.settings))
    table, population = config["population"], run.recipe.population
    places = [(table, "base", population.base)]
    places += [(table.get("experts"), model.name, model) for model in population.experts]
    places += [(table["references"], model.name, model) for model in population.references]
    if run.recipe.given:
        places.append((config["method"], "path", run.recipe.given))
    for place, key, model in places:
        if _hub_id(model):
            place[key] = str(_itself(model).identity).removeprefix(HUB)
    return config


def _front_matter(run: Run, record: RunRecord) -> str:
    adapter = run.save_model == ADAPTER
    sources = [run.recipe.population.base] if adapter else _sources(run)
    on_hub = [hub_id for model in sources if (hub_id := _hub_id(model))]
    data = {
        **({"base_model": list(dict.fromkeys(on_hub))} if on_hub else {}),
        "base_model_relation": "adapter" if adapter else "merge",
        "library_name": "peft" if adapter else "transformers",
        **_license(run.recipe.population.base),
        "tags": ["merge", "aim-exp", record.method.rpartition("/")[2]],
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---"


def _body(run: Run, record: RunRecord) -> Iterator[str]:
    yield f"# A merge by {_literal(record.method)}" + ("" if record.omega is None else " with AIM")
    yield f"Made with aim-exp {record.versions['aim-exp']} from these models, base first:"
    yield "\n".join(f"- {_literal(model.name)}: {_source(model)}" for model in _sources(run))
    yield "## Method"
    yield "\n".join(f"- {line}" for line in _settings(record))
    if record.merged and record.merged.scores:
        yield "## Scores"
        yield (
            f"Percent ± standard error, by lm-eval {record.versions['lm-eval']}, suite "
            f"`{record.choices['benchmarks']}`."
        )
        yield "\n".join(_score_table(record))
    gain = record.standing.hypervolume_gain
    if gain is not None:
        yield f"Hypervolume gain over base and the merged experts: {gain:.3f}."
    yield "## How to repeat"
    fence = max(["``", *re.findall("`+", record.command)], key=len) + "`"
    yield f"{fence}bash\n{record.command}\n{fence}"
    yield (
        f"`{RECIPE_FILE}` holds the whole configuration, the identity of each model and the "
        "versions of the libraries."
    )


def _settings(record: RunRecord) -> Iterator[str]:
    config = record.config
    yield f"method: {_literal(record.method + _listed(config['method']))}"
    if config["take"]:
        taken = ", ".join(f"{name} of {model}" for name, model in config["take"].items())
        yield f"tensors taken whole: {_literal(taken)}"
    if record.omega is None:
        yield "AIM: none; this is the plain merge"
    else:
        yield f"AIM: {PAPER}, omega {record.omega:g}{_literal(_listed(config['aim']))}"
        texts = record.choices["calibration"] + _listed(config["calibration"])
        yield f"calibration: {_literal(texts)}"
        counts = (
            f"{count} {name.removeprefix('n_')}" for name, count in record.calibration.items()
        )
        yield f"read for calibration: {', '.join(counts)}"
    yield f"seed: {config['seed']}"
    yield f"dtype: {record.dtype}"


def _score_table(record: RunRecord) -> Iterator[str]:
    """Benchmarks by models, in the syntax of Markdown."""
    models = [model for model in record.models if model.role != "reference"]
    yield f"| benchmark | task | {' | '.join(map(_literal, (model.name for model in models)))} |"
    yield "|---|---" + "|---:" * len(models) + "|"
    for benchmark, about in record.benchmarks.items():
        cells = [_cell(model.scores[benchmark]) for model in models]
        yield f"| {_literal(benchmark)} | {_literal(about.task)} | {' | '.join(cells)} |"


def _cell(score: ScoreRecord) -> str:
    return f"{100 * score.value:.1f}" + (
        "" if score.stderr is None else f" ± {100 * score.stderr:.1f}"
    )


def _sources(run: Run) -> list[ModelRef]:
    """Base, then what was merged: experts, or the weights merged elsewhere."""
    recipe = run.recipe
    merged = [recipe.given] if recipe.given else recipe.population.merged_experts
    return [recipe.population.base, *merged]


def _itself(model: ModelRef) -> ModelRef:
    """An adapter without its base."""
    return model.adapter or model


def _hub_id(model: ModelRef) -> str | None:
    identity = _itself(model).identity
    if identity is None or not identity.startswith(HUB):
        return None
    return identity.removeprefix(HUB).partition("@")[0]


def _source(model: ModelRef) -> str:
    hub_id, identity = _hub_id(model), _itself(model).identity
    kind = "an adapter, " if model.adapter else ""
    if identity is None:
        return f"{kind}local, not digested"
    if hub_id is None:
        return f"{kind}local, {_code(identity)}"
    commit = _code(identity.partition("@")[2])
    return f"{kind}[{_literal(hub_id)}](https://huggingface.co/{quote(hub_id)}) at {commit}"


def _literal(text: str) -> str:
    """On one line, with nothing in it that Markdown or HTML would read."""
    return re.sub(r"[\\`*\[\]<>&|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


def _license(base: ModelRef) -> dict[str, Any]:
    """What base's own card says of its licence, under the hub's keys; nothing if unreadable."""
    card = (base.origin or base.path) / CARD
    if not card.is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        known: Mapping[str, Any] = metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {key: known[key] for key in LICENSE_KEYS if key in known}


def _listed(settings: Mapping[str, Any]) -> str:
    known = {name: value for name, value in settings.items() if name != "_target_"}
    return "".join(f", {name} {value}" for name, value in known.items() if value is not None)
