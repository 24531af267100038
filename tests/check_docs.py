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
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from documentation import PAGES, Block, blocks

CI = "run by .ci/run"
PIP = "pip install -c constraints.txt -e ."
LEFT_OUT = ("git clone", PIP, "make test", ". .venv/bin/activate")
"""Done already, by a test of its own, by .ci/run, by the environment here."""
HUB = "not run: needs the hub"
MEASURES = "measures: run small"
SMALL = {
    "merge": "--parameters 2000000 --rounds 1",
    "directions": "--hidden 48 --intermediate 96",
    "calibrate": "--parameters 2000000 --tokens 512 --rounds 1",
    "sweep": "--methods ties --omegas 0.2 0.4 --limit 2 --rounds 1 --tracker none",
    "scoring": "--rounds 1 --cache outputs/cache",
    "start": "--rounds 1 --cache outputs/cache",
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
    done, wrote = 0, False
    for block in blocks(page):
        if block.path:
            write(checkout / block.path, block)
        elif block.language == "diff":
            shell("patch -p1 --quiet", checkout, block, given=block.text)
        elif block.language == "bash" and block.note == HUB:
            for arguments in block.runs:
                plan(arguments, checkout, block)
        elif block.language == "bash" and block.note == MEASURES:
            for words in block.commands:
                shell(f"{shlex.join(words)} {SMALL[words[2].split('.')[-1]]}", checkout, block)
        elif block.language == "bash" and block.note in (None, CI):
            kept = [line for line in block.text.splitlines() if not line.startswith(LEFT_OUT)]
            shell("\n".join(["set -e", *with_latest_sweep(kept, checkout)]), checkout, block)
        else:
            continue
        done += 1
        wrote |= block.path is not None
    if wrote:
        shell("ruff check . && ruff format --check .", checkout, block)
    assert done or page.name in ("glossary.md", "models.md", "reliability.md")


def test_an_installation_without_make(tmp_path: Path) -> None:
    block = next(b for b in blocks(ROOT / "README.md") if b.text.startswith(PIP))
    checkout = copy_of_the_checkout(tmp_path / "checkout")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    shell(block.text, checkout, block, binaries=tmp_path / "venv" / "bin")
    assert list(checkout.glob("outputs/runs/*/result.json"))


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
    from aim_exp.population.embedded.corpus import calibration_texts

    (checkout / "texts.txt").write_text("\n\n".join(calibration_texts()))


def write(path: Path, block: Block) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = block.text
    if path.suffix == ".jsonl":  # knows no comments
        text = text.partition("\n")[2]
    path.write_text(text)


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


def shell(
    script: str,
    checkout: Path,
    block: Block,
    given: str | None = None,
    binaries: Path = ROOT / ".venv" / "bin",
) -> None:
    """Run it in an environment (this checkout's), the copy's package in front of the installed."""
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
