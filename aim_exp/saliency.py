"""`python -m aim_exp.saliency MODEL ...`: whether a model's activations are flat or heavy-tailed.

It tells beforehand what AIM can do to a model: nothing is merged, nothing is scored.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from aim_exp.aim.calibration import CalibrationSet, EmbeddedTexts, PileValidation, TextFile
from aim_exp.aim.measure import measure
from aim_exp.aim.regime import ENOUGH_TOKENS, Input, Spread, regime
from aim_exp.checkpoint.identity import folder_of
from aim_exp.checkpoint.live import LiveModel
from aim_exp.console import console, error_console, print_whole, progress
from aim_exp.errors import AimError, ConfigError

FINE, TROUBLE = 0, 2
COLUMNS = ("max/median", "top 1 %", "Gini", "kurtosis", "r < .9", "halves")
EPILOG = """\
Columns, of s = mean |x| over the channels of an input, averaged over layers:
  max/median  1 would be flat
  top 1 %     the share of the sum of s in the top 1 % of the channels
  Gini        0: all channels alike; 1: all in one
  kurtosis    3 for a normal distribution
  r < .9      the share of channels that AIM pulls back noticeably
  halves      correlation of s on one half of the text with s on the other
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        models = {source: _measured(source, options) for source in options.models}
    except AimError as error:
        error_console.print(Text(f"error: {error}"), soft_wrap=True)
        return TROUBLE
    for source, inputs in models.items():
        _show(source, inputs, by_layer=options.layers)
    if options.figure:
        draw(models, options.figure)
        console.print(f"figure  {options.figure}", soft_wrap=True)
    return FINE


def _measured(source: str, options: argparse.Namespace) -> list[Input]:
    texts = _texts(options)
    if problems := texts.problems():
        raise ConfigError([problem.replace("calibration.", "") for problem in problems])
    folder = folder_of(source, "model", "MODEL", options.cache_dir / "digests")
    live = LiveModel(folder, options.dtype, options.device)
    blocks = texts.blocks(live.tokenizer).ids
    if len(blocks) < 2:
        raise AimError(f"--texts {options.texts}: one block only; lower --block-size")
    counted = blocks[:, options.skip_positions :].numel()
    if counted < ENOUGH_TOKENS:
        warning = f"{source}: {counted:,} tokens only; from {ENOUGH_TOKENS:,} on it is settled"
        console.print(Text(warning, style="yellow"), soft_wrap=True)
    with progress("Measuring activations", len(blocks)) as advance:
        half, other = (
            measure(live.model, part, advance, skip=options.skip_positions)
            for part in (blocks[0::2], blocks[1::2])
        )
    places = live.places
    return regime(half.on_checkpoint(places), other.on_checkpoint(places), options.omega)


def _texts(options: argparse.Namespace) -> CalibrationSet:
    recipe: dict[str, Any] = {
        "n_samples": options.n_samples,
        "block_size": options.block_size,
        "seed": 42,
        "add_special_tokens": True,
        "long_texts": "skip" if options.texts == "pile_val" else "split",
        "skip_positions": options.skip_positions,
        "offload": "none",
        "per_expert": None,
    }
    if options.texts == "tiny":
        return EmbeddedTexts(**recipe)
    if options.texts == "pile_val":
        return PileValidation(path=None, **recipe)
    return TextFile(path=options.texts, **recipe)


def _show(source: str, inputs: Sequence[Input], *, by_layer: bool) -> None:
    table = Table(title=source, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("weight" if by_layer else "input of", no_wrap=True)
    for heading in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    rows: Mapping[str, Spread] = {each.kinds: each.mean for each in inputs}
    if by_layer:
        rows = {name: spread for each in inputs for name, spread in each.spreads.items()}
    for name, spread in rows.items():
        table.add_row(name, *(f"{value:.3g}" for value in astuple(spread)))
    print_whole(console, table)


def draw(models: Mapping[str, Sequence[Input]], file: Path) -> None:
    """A panel for each model, a line for each kind of input: s / max s, channels by rank."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(models), 3.6), layout="constrained")
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, (source, inputs) in zip(panels, models.items(), strict=True):
        for each in inputs:
            ranks = [100 * (i + 1) / len(each.profile) for i in range(len(each.profile))]
            axes.plot(ranks, each.profile.numpy(), label=each.kinds, linewidth=1.2)
        axes.set(xscale="log", yscale="log", title=Path(source).name, xlabel="channels, top %")
        axes.legend(fontsize=7, frameon=False)
    panels[0].set_ylabel("mean |x|, of the largest channel's")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.saliency",
        description="How models spread their activations over channels, by kind of input.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="+", help="a folder, or a hub id (org/name@revision)")
    add("--texts", metavar="FILE", default="tiny", help="a file of text, tiny or pile_val")
    add("--n-samples", metavar="N", type=int, default=256, help="texts at most (default: 256)")
    add("--block-size", metavar="N", type=int, default=128, help="tokens a pass (default: 128)")
    add("--skip-positions", metavar="N", type=int, default=0, help="first positions left out")
    add("--omega", metavar="W", type=float, default=0.4, help="of r < .9 (default: 0.4)")
    add("--layers", action="store_true", help="a line per weight")
    add("--figure", metavar="FILE", type=Path, help="draw s / max s over the channels' ranks")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    add("--device", default="cpu")
    add("--cache-dir", metavar="DIR", type=Path, default=Path("outputs/cache"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
