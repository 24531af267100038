"""The table of methods in docs/method.md: `python -m tests.methods_table SWEEP`.

SWEEP is the folder of `experiment=baselines population=tiny`, for the scores; all else comes from
the definitions and their files. The table takes the place of the one on the page.
"""

import argparse
import re
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from aim_exp.config.schema import CONFIG_FOLDER, OPTIONS
from aim_exp.merge import Fisher, Linear, Regmean, Sce, Ties, Widen
from aim_exp.merge.aligned import Aligned
from aim_exp.merge.angles import ByAngles
from aim_exp.merge.matrices import DataFree, MatrixMethod, SpectralMethod
from aim_exp.merge.method import MergeMethod
from aim_exp.merge.task_vectors import RandomDrop, TaskArithmetic

PAGE = Path(__file__).parents[1] / "docs" / "method.md"
HEAD = ("method", "by", "reads", "cost", "defaults", "source", "tiny", "with AIM")
KINDS: tuple[tuple[type[MergeMethod], str, str], ...] = (
    (Aligned, "matrix", "decompositions as large as all ranks, once"),
    (SpectralMethod, "matrix", "SVDs of each matrix, once"),
    (DataFree, "matrix", "an eigendecomposition of each matrix, once"),
    (Regmean, "matrix", "passes over texts and an eigendecomposition of each matrix, once"),
    (MatrixMethod, "channel", "passes over texts, once"),
    (Fisher, "element", "gradients on texts, once"),
    (ByAngles, "tensor", "two streams"),
    (Sce, "element", "three streams"),
    (Widen, "column", "two streams"),
    (RandomDrop, "element", "a stream"),
    (Ties, "element", "two streams"),
    (TaskArithmetic, "element", "a stream"),
    (Linear, "element", "a stream"),
)
HIDDEN = ("defaults", "weight", "files")


def methods() -> dict[str, type[MergeMethod]]:
    """By option, those that merge experts."""
    found = {name.removeprefix("method/"): built for name, built in OPTIONS.items()}
    return {
        name: built
        for name, built in found.items()
        if issubclass(built, MergeMethod) and built.merges and built.needs_experts
    }


def rows() -> dict[str, list[str]]:
    """By method, all columns but the scores."""
    table = {}
    for name, built in methods().items():
        file = CONFIG_FOLDER / "method" / f"{name}.yaml"
        values = OmegaConf.load(file)
        defaults = ", ".join(f"{k} {_text(v)}" for k, v in values.items() if k not in HIDDEN)
        source = re.search(r"\(([^()]*)\)\.?$", file.read_text().splitlines()[0])
        assert source, file
        by, cost = next((by, cost) for kind, by, cost in KINDS if issubclass(built, kind))
        reads = "texts per expert" if built.reads else ""
        table[name] = [f"`{name}`", by, reads, cost, defaults, source[1]]
    return table


def _text(value: object) -> str:
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def scores(sweep: Path) -> dict[str, list[str]]:
    """By method, the mean score in percent, plain and with AIM.

    Of random methods with its standard deviation over seeds; of pairs the least and the most.
    """
    results = pd.read_csv(sweep / "results.csv")
    return {
        str(name): [_score(jobs[jobs.relaxed == relaxed]) for relaxed in (False, True)]
        for name, jobs in results.groupby("method")
    }


def _score(jobs: pd.DataFrame) -> str:
    averages = 100 * jobs.groupby("population.merge").average.mean()
    spread = 100 * jobs.average.std()
    if len(averages) > 1:
        return f"{averages.min():.1f} to {averages.max():.1f}"
    return f"{averages.item():.1f}" + f" ±{spread:.1f}" * bool(spread > 1e-9)


def main() -> None:
    """Fill the page's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    measured = scores(parser.parse_args().sweep)
    lines = [HEAD, ["---"] * len(HEAD)]
    lines += [[*row, *measured[name]] for name, row in rows().items()]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    page = PAGE.read_text()
    start = page.index(f"| {HEAD[0]} | {HEAD[1]} |")
    end = page.index("\n\n", start) + 1
    PAGE.write_text(page[:start] + text + page[end:])


if __name__ == "__main__":
    main()
