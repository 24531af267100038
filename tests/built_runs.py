"""Runs built from the configuration as a command line would, and their keys."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from aim_exp.app import CONFIG_FOLDER
from aim_exp.config.build import build
from aim_exp.run.run import Run

STAGES = {"population", "saliency", "members", "merged", "scores"}


def built(tmp_path: Path, *overrides: str) -> Run:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", [f"cache_dir={tmp_path}", *overrides], return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        return build(config, choices)


def keys(run: Run) -> dict[str, object]:
    plan = run.plan
    assert plan.merged
    return {
        "population": plan.stages[0].key,
        "saliency": plan.saliency and plan.saliency.key,
        "members": [model.responses.key for model in plan.members],
        "merged": plan.merged.responses.key,
        # By the ingredients of their own: a change of responses changes every score anyway.
        "scores": [stage.spec["task"] for model in plan.members for stage in model.scores.values()]
        + [model.responses.key for model in plan.members],
    }
