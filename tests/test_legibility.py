"""Figures as printed: the width of a column, texts whole and large enough, colours told apart."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from records import relaxed_sweep

from aim_exp.report.load import load
from aim_exp.report.plots import draw, figures, make_charts
from aim_exp.report.plots.canvas import save
from aim_exp.report.plots.dose import draw_dose, draw_layers, profiles
from aim_exp.report.plots.saliency import draw_saliency, spread
from aim_exp.report.plots.style import METHODS, MUTED, WIDTH
from aim_exp.report.rows import make_report

COLUMN = 3.3
"""Inches."""


def test_figures_fit_a_column_and_can_be_read(tmp_path: Path) -> None:
    """As printed: the width of a column, no text below 7 points, fonts inside, no pixels."""
    assert WIDTH == COLUMN
    charts = make_charts(make_report(load(relaxed_sweep(tmp_path))))
    draw(charts, tmp_path)
    names = list(figures(charts))
    kept = ["delta_kept", "delta_kept_by_layer"]
    assert names == ["pareto_front", "omega_average", "omega_gain", *kept]
    for path in (tmp_path / "figures" / f"{name}.png" for name in names):
        with Image.open(path) as image:
            assert image.width == round(200 * COLUMN)
        pdf = path.with_suffix(".pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", pdf)
        assert box
        assert float(box[1]) == pytest.approx(72 * COLUMN, abs=0.1)
        assert b"/Subtype /Type42" in pdf or b"/FontFile2" in pdf
        assert b"/Subtype /Image" not in pdf


@pytest.mark.parametrize("layers", [1, 40])
def test_texts_are_whole_and_large_enough(layers: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = ("self_attn.q_proj", "self_attn.o_proj", "post_feedforward_layernorm", "mlp.down_proj")
    saliency = {
        f"model.layers.{layer}.{kind}.weight": rng.lognormal(size=64)
        for kind in kinds
        for layer in range(layers)
    } | {"model.norm.weight": rng.lognormal(size=64)}
    checked: list[Figure] = []

    def check(figure: Figure) -> None:
        engine = figure.get_layout_engine()
        assert engine
        engine.execute(figure)
        width, height = figure.canvas.get_width_height()
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            if text.get_text() and text.get_visible():
                assert float(text.get_fontsize()) >= 7, text
                box = text.get_window_extent()
                inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
                assert inside or text.axes is None or not _shown(text), text
        checked.append(figure)

    def paint_saliency(figure: Figure) -> None:
        draw_saliency(figure, spread(saliency))
        check(figure)

    shown = profiles(make_report(load(relaxed_sweep(tmp_path / "runs"))))
    deep = [replace(each, kept_by_layer={n: n / layers for n in range(layers)}) for each in shown]

    def paint_kept(figure: Figure) -> None:
        draw_dose(figure, shown)
        check(figure)

    def paint_layers(figure: Figure) -> None:
        draw_layers(figure, deep)
        check(figure)

    save("saliency", paint_saliency, tmp_path)
    save("kept", paint_kept, tmp_path)
    save("layers", paint_layers, tmp_path)
    assert len(checked) == 3


def _shown(text: Text) -> bool:
    """Ticks beyond an axis's ends have texts that are not drawn."""
    axes = text.axes
    assert axes
    ticks = [*axes.xaxis.get_ticklabels(which="both"), *axes.yaxis.get_ticklabels(which="both")]
    return text not in ticks


def test_colours_differ_for_the_colour_blind_too() -> None:
    """Deuteranopia and protanopia, simulated (Viénot, Brettel & Mollon 1999), and markers."""
    assert len({marker for _, marker in METHODS.values()}) == len(METHODS) == 7
    palettes = ([colour for colour, _ in METHODS.values()], list(MUTED))
    blind = {
        "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    }
    for palette in palettes:
        rgb = np.array([to_rgb(colour) for colour in palette]) ** 2.2
        for matrix in blind.values():
            seen = np.clip(rgb @ matrix.T, 0, 1) ** (1 / 2.2)
            distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
            closest = distances[~np.eye(len(seen), dtype=bool)].min()
            assert closest > 0.08, (palette, closest)
