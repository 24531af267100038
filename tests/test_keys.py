"""Content keys: which override changes which stage."""

import json
import shutil
from pathlib import Path

import pytest
from built_runs import STAGES, built, keys

from aim_exp.store.stage_spec import canonical_json, content_key

NOTHING: set[str] = set()

TABLE: dict[str, set[str]] = {
    # The models: their training, or which of them are merged.
    "population.seed=1": STAGES,
    "population.merge=[code,math]": {"merged"},
    "population.merge=[math,instruct,code]": {"merged"},
    "population.name=renamed": NOTHING,
    # The merge.
    "method=task_arithmetic": {"merged"},
    "method.density=0.3": {"merged"},
    "method.weight=0.9": {"merged"},
    "method.weight=1": NOTHING,
    "method.weight={code: 1, instruct: 1, math: 1}": NOTHING,
    "method.weight=[1,1]": {"merged"},
    "method.weight={*.mlp.*: 0.5, *: 1}": {"merged"},
    "method.density={code: 0.2, instruct: 0.2, math: 0.2}": NOTHING,
    "method.density={code: 0.2, instruct: 0.2, math: 0.3}": {"merged"},
    "method.density=[0.1,0.3]": {"merged"},
    "take={*.mlp.*: base}": {"merged"},
    "take={*.mlp.*: code, *: null}": {"merged"},
    "method.scale=0.7": {"merged"},
    "method.normalize=false": {"merged"},
    "method.trim_scope=model": {"merged"},
    "dtype=bfloat16": {"saliency", "members", "merged", "scores"},
    "dtype=float32": NOTHING,
    # AIM.
    "omega=0.6": {"merged"},
    "omega=null": {"merged", "saliency"},
    "omega=1": {"merged", "saliency"},
    "aim.scaling=uniform": {"merged"},
    "aim.scaling=shuffled": {"merged"},
    "aim.exclude=['*norm*']": {"merged"},
    "aim.omega_by=[0.2,0.6]": {"merged"},
    "aim.omega_by={*.mlp.*: 0.2}": {"merged"},
    "aim.tied_head=relax": {"merged"},
    "aim.scaling=uniform_out": {"merged"},
    "aim.scaling=power:2": {"merged"},
    "aim.scaling=lines": {"merged", "saliency"},  # which read no text
    "aim.scaling=svc": {"merged", "saliency"},
    "aim.dose=out:.8": {"merged"},
    "aim.statistic=rms": {"merged"},  # both are measured at once
    "aim.column_norm=true": {"merged"},
    "aim.normalise=p99": {"merged"},
    "aim.saliency=mean": {"merged"},  # base's counts as before, with the experts'
    # The calibration set.
    "calibration.n_samples=100": {"saliency", "merged"},
    "calibration.block_size=64": {"saliency", "merged"},
    "calibration.seed=7": {"saliency", "merged"},
    "calibration.add_special_tokens=false": {"saliency", "merged"},
    "calibration.long_texts=skip": {"saliency", "merged"},
    "calibration.skip_positions=1": {"saliency", "merged"},
    "calibration.offload=layers": NOTHING,
    "calibration.per_expert={code: x.txt}": NOTHING,  # which ties does not read
    # How responses are made and scored.
    "evaluator.max_length=128": {"members", "merged", "scores"},
    "evaluator.batch_size=7": NOTHING,
    "evaluator=hf_process": {"members", "merged", "scores"},
    "benchmarks.limit=10": {"scores"},
    "benchmarks.items_seed=1": {"scores"},
    "+benchmarks.tasks.tiny_mmlu.objective=false": NOTHING,
    "benchmarks.num_fewshot=1": {"scores"},
    "benchmarks.chat_template=true": {"scores"},
    "population.chat_template=code": NOTHING,  # until benchmarks use one
    "benchmarks.system_instruction=Be brief.": {"scores"},
    "benchmarks.fewshot_as_multiturn=true": {"scores"},
    "benchmarks.generation={max_gen_toks: 9}": {"scores"},
    "+benchmarks.tasks.tiny_math.reference_point=0.1": NOTHING,
    "benchmarks.reference_point=0.1": NOTHING,
    "benchmarks.tasks.tiny_math.metric=other": NOTHING,
    "repeat=1": {"members", "merged", "scores"},
    # What changes no number; the seed only where something is drawn.
    "seed=5": NOTHING,
    "device=cpu": NOTHING,
    "threads=2": NOTHING,
    "tracker=none": NOTHING,
    "select.on=populations": NOTHING,
    "select.of=['*']": NOTHING,
    "save_model=true": NOTHING,
    "vocabulary=base": NOTHING,  # as long as all have one
}


@pytest.mark.parametrize("override", TABLE)
def test_an_override_changes_these_keys_and_no_others(override: str, tmp_path: Path) -> None:
    before, after = keys(built(tmp_path)), keys(built(tmp_path, override))
    assert {stage for stage in STAGES if before[stage] != after[stage]} == TABLE[override]


@pytest.mark.parametrize("setting", ["aim.scaling=lines", "aim.dose=out:.8"])
def test_where_omega_plays_no_part_only_1_and_null_count(setting: str, tmp_path: Path) -> None:
    runs = {omega: built(tmp_path, setting, f"omega={omega}") for omega in ("0.4", "0.6", "1")}
    merged = {omega: keys(run)["merged"] for omega, run in runs.items()}
    assert merged["0.4"] == merged["0.6"]
    assert merged["1"] == keys(built(tmp_path, "omega=null"))["merged"]
    assert not any(run.recipe.aim.uses_omega for run in runs.values())


@pytest.mark.parametrize(
    ("setting", "draws"),
    [
        ("method=ties", False),
        ("method=dare_linear", True),
        ("method=dare_ties", True),
        ("method=della", True),
        ("method=iso_c", False),
        ("method=authors/dare_ties", False),
        ("aim.scaling=shuffled", True),
        ("aim.scaling=inverted", False),
    ],
)
def test_the_seed_counts_where_something_is_drawn(
    setting: str, draws: bool, tmp_path: Path
) -> None:
    runs = [built(tmp_path, setting, f"seed={seed}") for seed in (0, 1)]
    first, second = (keys(run)["merged"] for run in runs)
    assert (first != second) == draws
    assert {run.recipe.stochastic for run in runs} == {draws}


def test_responses_belong_to_the_weights_and_to_what_they_are_asked_with(
    family: Path, tmp_path: Path
) -> None:
    """Not to the model that lends it: beside another base nothing is scored again."""

    def responses(base: Path) -> tuple[str, str]:
        run = built(
            tmp_path, "population=custom", f"population.base={base}", "omega=null",
            f"population.experts={{x: {family / 'b'}}}",
            "method=checkpoint", f"method.path={family / 'b'}",
        )  # fmt: skip
        assert run.plan.merged
        return run.plan.member("x").responses.key, run.plan.merged.responses.key

    other = shutil.copytree(family / "a", tmp_path / "other")
    first = responses(family / "base")
    assert first == responses(family / "a") == responses(other)
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": "left"}))
    expert, merged = responses(other)
    assert expert == first[0]  # it has a tokenizer of its own
    assert merged != first[1]  # it is asked with base's


def test_the_seed_of_a_control_that_does_not_run_counts_not(tmp_path: Path) -> None:
    off = ("aim.scaling=shuffled", "omega=null")
    assert keys(built(tmp_path, *off)) == keys(built(tmp_path, *off, "seed=1"))


def test_one_number_has_one_spelling() -> None:
    assert canonical_json({"b": 1.0, "a": [0.5, True, None]}) == '{"a":[0.5,true,null],"b":1}'
    assert content_key("s", 1, {"w": 1}) == content_key("s", 1, {"w": 1.0})
    assert content_key("s", 1, {}) != content_key("s", 2, {}) != content_key("t", 2, {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
