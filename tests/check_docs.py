"""Every command of the documentation, run as a reader would run it: `make check-docs`.

A page at a time, in a copy of the checkout: files that a page shows are written, its diffs
applied, its commands run. Blocks that need the hub are planned only, on the tiny population;
those that measure do so once, on small models.
"""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from documentation import PAGES, Block, blocks

CI = "run by .ci/run"
LEFT_TO_CI = ("git clone", "pip install", "make test")
HUB = "not run: needs the hub"
MEASURES = "measures: run small"
SMALL = {
    "merge": "--parameters 2000000 --rounds 1",
    "calibrate": "--parameters 2000000 --tokens 512 --rounds 1",
    "sweep": "--methods ties --omegas 0.2 0.4 --limit 2 --rounds 1 --tracker none",
    "scoring": "--rounds 1 --cache outputs/cache",
    "prefill": "--rounds 1 --shared 100",
}
"""By what is measured; the last of an option counts."""
ON_TINY = ("population=tiny", "calibration=tiny", "benchmarks=tiny", "plan=true")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page(page: Path, tiny_cache: Path, tiny_population: Path, tmp_path: Path) -> None:
    checkout = copy_of_the_checkout(tmp_path / "checkout")
    shutil.copytree(tiny_cache, checkout / "outputs" / "cache")
    copy_models(tiny_population, checkout / "models")
    write_texts(checkout)
    done = 0
    for block in blocks(page):
        if block.path:
            write(checkout / block.path, block)
        elif block.language == "diff":
            shell("patch -p1 --quiet", checkout, block, given=unified(block.text, checkout))
        elif block.language == "bash" and block.note == HUB:
            for arguments in block.runs:
                plan(arguments, checkout, block)
        elif block.language == "bash" and block.note == MEASURES:
            for words in block.commands:
                shell(f"{shlex.join(words)} {SMALL[words[2].split('.')[-1]]}", checkout, block)
        elif block.language == "bash" and block.note in (None, CI):
            kept = [line for line in block.text.splitlines() if not line.startswith(LEFT_TO_CI)]
            shell("\n".join(["set -e", *with_latest_sweep(kept, checkout)]), checkout, block)
        else:
            continue
        done += 1
    assert done or page.name == "glossary.md"


def copy_of_the_checkout(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in filter(lambda name: (ROOT / name).exists(), listed):  # git lists deleted ones too
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def copy_models(population: Path, folder: Path) -> None:
    """A reader's own models, with the context that people's models have."""
    shutil.copytree(population, folder)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text()) | {"max_position_embeddings": 2048}
        path.write_text(json.dumps(config))


def write_texts(checkout: Path) -> None:
    """What a reader has beside the checkout: texts of his own."""
    from aim_exp.embedded.corpus import calibration_texts

    (checkout / "texts.txt").write_text("\n\n".join(calibration_texts()))


def write(path: Path, block: Block) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = block.text
    if path.suffix == ".jsonl":  # knows no comments
        text = text.partition("\n")[2]
    path.write_text(text)


def unified(text: str, checkout: Path) -> str:
    """The diff with the line numbers that its `@@` leave out."""
    lines, out = text.splitlines(), []
    source: list[str] = []
    for index, line in enumerate(lines):
        if line.startswith("--- a/"):
            source = (checkout / line.removeprefix("--- a/")).read_text().splitlines()
        if line != "@@":
            out.append(line)
            continue
        hunk = []
        for following in lines[index + 1 :]:
            if following == "@@" or following.startswith("--- "):
                break
            hunk.append(following)
        old = [part[1:] for part in hunk if part[:1] != "+"]
        starts = [i for i in range(len(source)) if source[i : i + len(old)] == old]
        assert len(starts) == 1, f"the diff's context is there {len(starts)} times: {old}"
        new = [part for part in hunk if part[:1] != "-"]
        out.append(f"@@ -{starts[0] + 1},{len(old)} +{starts[0] + 1},{len(new)} @@")
    return "\n".join(out) + "\n"


def with_latest_sweep(lines: list[str], checkout: Path) -> list[str]:
    """DATE_ID is the last sweep that ran; one that was only planned has no results."""
    done = sorted((checkout / "outputs" / "sweeps").glob("*/results.csv"))
    return [line.replace("DATE_ID", done[-1].parent.name) for line in lines] if done else lines


def plan(arguments: list[str], checkout: Path, block: Block) -> None:
    """What the command would do on the tiny population; it keeps benchmarks that it chooses."""
    own = [a for a in arguments if not a.startswith(("population.", "calibration."))]
    chosen = {argument.partition("=")[0] for argument in own}
    tiny = [option for option in ON_TINY if option.partition("=")[0] not in chosen]
    shell(f"python run.py {shlex.join([*own, *tiny])}", checkout, block)


def shell(script: str, checkout: Path, block: Block, given: str | None = None) -> None:
    """Run it with this checkout's environment, and the copy's package in front of the installed."""
    binaries = ROOT / ".venv" / "bin"
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "VENV": str(binaries.parent),
        "COLUMNS": "120",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=checkout, env=environment, input=given, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    place = f"{block.page.name}:{block.line}"
    assert done.returncode == 0, f"{place}\n{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
