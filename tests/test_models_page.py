"""The table of docs/models.md: every family of models, in every kind of files, as it was tried."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkpoints import checkpoint
from families import FAMILIES, SUM
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from aim_exp.checkpoint.fit import fit_problems
from aim_exp.checkpoint.matching import matched, name_problem
from aim_exp.checkpoint.modules import auto_class
from aim_exp.checkpoint.reader import TIED, Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter, untied
from aim_exp.merge.stream import stream_merge

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
MERGED, REFUSED = "merged", "refused, named"
STRAY = "model.stray.weight"


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "model.safetensors"
    content = {name: t.contiguous() for name, t in change(load_file(file)).items()}
    save_file(content, file, {"format": "pt"})


def tie(folder: Path, *, tied: bool) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    nested = {**config.get("text_config", {}), TIED: True}
    whole = {**config, TIED: True} | ({"text_config": nested} if "text_config" in config else {})
    path.write_text(json.dumps(whole if tied else untied(config)))


def of_expert(base: Checkpoint, expert: Checkpoint, out: Path) -> str:
    """The cell: what becomes of a merge onto `base` that is to be the expert again."""
    problems = [p for p in (name_problem(base), *fit_problems(base, [expert])) if p]
    if problems:
        assert all(STRAY in problem and "\n" not in problem for problem in problems), problems
        return REFUSED
    first, (other,) = matched(base, [expert])
    with CheckpointWriter(out, first, None) as writer:
        stream_merge(first, [other], SUM, writer, seed=0)
    models = []
    for folder in (expert.folder, out):
        loaded: Any = auto_class(AutoConfig.from_pretrained(folder)).from_pretrained(
            folder, output_loading_info=True
        )
        model, loading = loaded
        keys = ("missing_keys", "unexpected_keys", "mismatched_keys")
        assert not any(loading[key] for key in keys), loading
        models.append(model.state_dict())
    assert models[0].keys() == models[1].keys()
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, msg=name)
    return MERGED


def row(kind: str, folder: Path) -> list[str]:
    base, expert = checkpoint(folder, "base"), checkpoint(folder, "a")
    cells = [of_expert(base, expert, folder / "1")]
    model = auto_class(AutoConfig.from_pretrained(folder / "a")).from_pretrained(folder / "a")
    shutil.copytree(folder / "a", folder / "saved")
    model.save_pretrained(folder / "saved")
    cells.append(of_expert(base, checkpoint(folder, "saved"), folder / "2"))
    rewritten(folder / "saved", lambda content: {**content, STRAY: torch.ones(2)})
    cells.append(of_expert(base, checkpoint(folder, "saved"), folder / "3"))
    for name in ("base", "a"):
        head = checkpoint(folder, name).head
        tie(folder / name, tied=True)
        rewritten(folder / name, lambda c, head=head: {n: t for n, t in c.items() if n != head})
    base, expert = checkpoint(folder, "base"), checkpoint(folder, "a")
    cells.append(of_expert(base, expert, folder / "4"))
    embedding, head = expert.embedding, FAMILIES[kind].hub_name("lm_head.weight")
    assert embedding
    rewritten(folder / "a", lambda c: {**c, head: c[embedding] * 1.5})
    tie(folder / "a", tied=False)
    cells.append(of_expert(base, checkpoint(folder, "a"), folder / "5"))
    return cells


def table() -> dict[str, list[str]]:
    lines = PAGE.read_text().split("|---|---|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {kind: cells for kind, *cells in rows}


def test_the_table_has_every_family() -> None:
    assert list(table()) == list(FAMILIES)
    assert len(FAMILIES) == 17


def test_the_table_says_what_happens(saved: tuple[str, Path]) -> None:
    assert row(*saved) == table()[saved[0]]
