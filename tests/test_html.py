"""`report.html`: what it says, that it asks no server for anything, and that no name breaks it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from pages import Page, page_of
from records import (
    BENCHMARKS,
    MERGED,
    POPULATION,
    UNSCORED,
    by_benchmark,
    failed,
    record,
    shifted,
    write_all,
)

from aim_exp.errors import AimError
from aim_exp.report import refresh
from aim_exp.report.compare.comparison import compare_runs
from aim_exp.report.figures.style import METHODS, OTHER_MARKERS
from aim_exp.report.html import render
from aim_exp.report.html.figures import SHAPES
from aim_exp.report.models import Estimate, Model
from aim_exp.report.plots import pair_fronts
from aim_exp.report.results import collect
from aim_exp.store.records import RunRecord

EVIL = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;<b>"""


def test_a_sweep_has_its_page(sweep):
    refresh(sweep)
    page = Page((sweep / "report.html").read_text(encoding="utf-8"))
    sections = {"leaderboard", "front", "omega", "profiles", "changes", "population", "failed"}
    assert sections | {"trust", "runs"} <= page.ids
    assert "6 jobs, 5 scored, 1 failed" in page.text
    assert "method.density=2: must lie in (0, 1]" in page.text
    assert len(page.named("details", **{"class": "run"})) == 7
    assert "python run.py method=dare_ties omega=null" in page.text
    assert len({a["id"] for _, a in page.elements if "id" in a}) == sum(
        "id" in attributes for _, attributes in page.elements
    )


def test_the_page_asks_no_server_for_anything(sweep):
    page = page_of(sweep)
    (policy,) = page.named("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; ")
    assert not re.search(r"https?:", policy["content"])
    loading = {"link", "img", "iframe", "object", "embed", "base", "form[action]"}
    assert not loading & {name for name, _ in page.elements}
    assert not any("src" in attributes for _, attributes in page.elements)
    style = (Path(render.__code__.co_filename).parent / "assets" / "report.css").read_text()
    assert "@import" not in style
    assert "url(" not in style
    assert "plotly.js v" in page.scripts[1]


def test_every_heading_link_leads_somewhere(sweep):
    page = page_of(sweep)
    links = {a["href"] for a in page.named("a") if (a["href"] or "").startswith("#")}
    assert len(links) > 12
    assert {link[1:] for link in links} <= page.ids


def test_the_leaderboard_begins_with_the_best(sweep):
    page = page_of(sweep)
    rows = [a for name, a in page.elements if name == "tr" and "data-omega" in a]
    shown = [(a["data-method"], a["data-omega"]) for a in rows]
    assert shown[:5] == [
        ("ties", "0.2"), ("ties", "0.4"), ("ties", "null"),
        ("dare_ties", "0.4"), ("dare_ties", "null"),
    ]  # fmt: skip
    sets = [a["data-filter"] for a in page.named("fieldset")]
    assert sets == ["method", "omega"]
    values = [a["value"] for a in page.named("input", type="checkbox")]
    assert values == ["ties", "dare_ties", "null", "0.2", "0.4"]


def controls(*scalings: str) -> list[RunRecord]:
    aim = record().aim
    made = [record(scores=shifted(0.01 + 0.01 * i), aim={**aim, "scaling": name})
            for i, name in enumerate(scalings)]  # fmt: skip
    return [record(omega=None), *made]


def test_controls_are_told_apart_where_there_are_several_scalings(tmp_path):
    page = page_of(write_all(tmp_path, *controls("identity", "uniform", "shuffled")))
    assert [a["data-filter"] for a in page.named("fieldset")] == ["omega", "scaling"]
    values = [a["value"] for a in page.named("input", type="checkbox")]
    assert values == ["null", "0.4", "identity", "uniform", "shuffled"]
    rows = [attributes for name, attributes in page.elements if name == "tr"]
    told = [a.get("data-scaling") for a in rows if "data-omega" in a][:4]
    assert told == ["shuffled", "uniform", "identity", None], "a plain merge has none"
    merged = [model for model in page.data["models"] if model["role"] == "merged"]
    assert [model["mark"]["symbol"] for model in merged] == [
        "circle", "circle", "circle-open-dot", "circle-open-dot"
    ]  # fmt: skip
    assert "ties omega=0.4 scaling=uniform" in {model["label"] for model in merged}
    assert [curve["filtered"].get("scaling") for curve in page.data["curves"]] == [
        "identity", "uniform", "shuffled"
    ]  # fmt: skip
    assert "control of the saliency: uniform, shuffled" in page.text


def test_whatever_varies_is_a_filter_if_its_values_are_few(tmp_path):
    runs = [
        record("ties", 0.4, shifted(0.001 * seed), seed=seed, method_settings={"density": density})
        for seed in range(9)
        for density in (0.2, 0.5)
    ]
    page = page_of(write_all(tmp_path, *runs))
    assert [a["data-filter"] for a in page.named("fieldset")] == ["density"], (
        "seeds are taken together"
    )
    rows = [a for name, a in page.elements if name == "tr" and "data-density" in a]
    assert {a["data-density"] for a in rows} == {"0.2", "0.5"}
    many = [replace(run, method_settings={"density": i}) for i, run in enumerate(runs[:9])]
    page = page_of(write_all(tmp_path / "many", *many))
    assert not page.named("fieldset"), "9 values are many"


def test_one_scaling_is_no_filter(tmp_path):
    page = page_of(write_all(tmp_path, *controls("identity")))
    assert [a["data-filter"] for a in page.named("fieldset")] == ["omega"]
    assert "control of the saliency" not in page.text


def test_the_figures_hold_the_numbers_of_the_runs(sweep):
    data = page_of(sweep).data
    assert data["quantities"] == ["average", "hypervolume gain", *BENCHMARKS]
    assert [model["label"] for model in data["models"][:5]] == [*POPULATION, "ties omega=null"]
    expected = record("ties", 0.2, shifted(0.02))
    (drawn,) = [model for model in data["models"] if model["label"] == "ties omega=0.2"]
    assert drawn["values"][1] == pytest.approx(expected.hypervolume_gain, abs=1e-5)
    scores = np.array(list(expected.scores.values()))
    assert drawn["values"][2:] == pytest.approx((100 * scores).tolist(), abs=1e-3)
    errors = np.array(list(expected.stderr.values()))
    assert drawn["errors"][2:] == pytest.approx((100 * errors).tolist(), abs=1e-3)
    code = data["models"][1]
    assert BENCHMARKS[code["peak"]] == "humaneval"
    ties, dare = data["curves"]
    assert [data["models"][i]["label"] for i in ties["runs"]] == [
        "ties omega=0.2",
        "ties omega=0.4",
    ]
    assert data["models"][dare["null"]]["label"] == "dare_ties omega=null"


def test_the_front_of_any_two_benchmarks(sweep):
    data = page_of(sweep).data
    (fronts,) = data["fronts"]
    assert len(fronts) == 15
    for pair, kept in fronts.items():
        x, y = (int(axis) + 2 for axis in pair.split(","))
        places = [(model["values"][x], model["values"][y]) for model in data["models"]]
        alone = {
            i
            for i, place in enumerate(places)
            if not any(o[0] >= place[0] and o[1] >= place[1] and o != place for o in places)
        }
        assert set(kept) == alone
        assert [places[i][0] for i in kept] == sorted(places[i][0] for i in kept)


def test_models_without_both_scores_are_on_no_front():
    def model(**scores: float) -> Model:
        return Model("m", "merged", {name: Estimate(value) for name, value in scores.items()})

    models = [model(a=0.5), model(a=0.1, b=0.2), model(b=0.9), model(a=0.1, b=0.3)]
    assert pair_fronts(models, ["a", "b"]) == {("a", "b"): (3,)}
    assert pair_fronts(models, ["a"]) == {}


def test_axes_can_be_chosen(sweep):
    page = page_of(sweep, ("mmlu", "math"))
    assert page.data["axes"] == [BENCHMARKS.index("mmlu"), BENCHMARKS.index("math")]
    chosen = [a["value"] for a in page.named("option") if "selected" in a]
    assert chosen == [str(BENCHMARKS.index("mmlu")), str(BENCHMARKS.index("math"))]
    with pytest.raises(AimError, match="chess"):
        page_of(sweep, ("mmlu", "chess"))


def test_changes_have_a_sign_and_a_direction(sweep):
    results = collect(sweep)
    text = render(results, compare_runs(results))
    before, after = np.mean(shifted(-0.02)), np.mean(MERGED)
    assert f'change up" title="+2.0; not tested">{100 * (after / before - 1):+.1f} %' in text
    assert "−" not in text.split('id="changes"')[1].split("<tbody>")[1]


def test_a_falling_score_is_red_with_its_sign(tmp_path):
    directory = write_all(tmp_path, record(omega=None), record(scores=shifted(-0.1)))
    text = render(collect(directory), compare_runs(collect(directory)))
    change = 100 * (np.mean(shifted(-0.1)) / np.mean(MERGED) - 1)
    assert re.search(rf'change down"[^>]*>−{-change:.1f} %<', text)


def hostile() -> RunRecord:
    names = [EVIL, 'a"b', "{{ x }}", "%{y}"]
    scores = {name: 0.25 * number for number, name in enumerate(names)}
    base = dict.fromkeys(names, 0.5)
    return replace(
        record(EVIL),
        command=f"python run.py x={EVIL}",
        population={"name": EVIL, "experts": {EVIL: "a"}, "merged": [EVIL]},
        suite=EVIL,
        scores=scores,
        stderr=dict.fromkeys(names, 0.1),
        population_scores={"base": base, EVIL: scores},
        population_stderr=None,
        warnings=[f"`{EVIL}` and `x`"],
        versions={EVIL: EVIL},
    )


def test_no_name_is_markup_in_the_markdown_either(tmp_path):
    """Read back as GitHub would: no HTML, no link, and emphasis only where the report puts it."""
    odd = "a*b*c <i>d</i> [e](f)"
    made = replace(hostile(), method=odd, population={"name": odd, "merged": [odd]})
    directory = write_all(tmp_path, made, replace(made, omega=None), failed(f"{odd}: no"))
    refresh(directory)
    for file in (directory / "report.md", directory / "tables" / "scores.md"):
        tokens = MarkdownIt("commonmark").enable("table").parse(file.read_text(encoding="utf-8"))
        parts = [part for token in tokens for part in token.children or ()]
        texts = [part.content for part in parts if part.type == "text"]
        assert not [p for p in (*tokens, *parts) if p.type in ("html_block", "html_inline")]
        links = {part.attrs["href"] for part in parts if part.type == "link_open"}
        assert not [link for link in links if not str(link).startswith(("figures/", "tables/"))]
        assert any(odd in text for text in texts), file.name
        assert any(EVIL in text for text in texts), file.name


def test_hostile_names_are_only_text(tmp_path):
    sources = [hostile(), replace(hostile(), omega=None), failed(EVIL)]
    page = page_of(write_all(tmp_path, *sources))
    assert len(page.scripts) == 3
    assert not page.named("img")
    assert not page.named("b", onerror="")
    assert page.text.count(EVIL) > 10
    assert "{{ x }}" in page.text
    assert EVIL not in page.scripts[0]
    escaped = EVIL.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert page.data["benchmarks"][0] == escaped, "plotly.js takes names for markup"
    assert page.data["models"][1]["label"] == escaped


SECTIONS = {"front", "omega", "profiles", "changes", "population", "failed"}


def many() -> list[RunRecord]:
    omegas = [None, *np.linspace(0.05, 0.95, 19).round(2).tolist()]
    return [
        record(method, omega, shifted(0.001 * i), seed=seed)
        for i, method in enumerate(["ties", "linear", "mine", "yours", "theirs"])
        for omega in omegas
        for seed in (0, 1)
    ]


def other_population() -> dict:
    return {name: by_benchmark([0.9 * x for x in row]) for name, row in POPULATION.items()}


def single(omega: float | None) -> RunRecord:
    base = {"base": {"mmlu": 0.5}}
    return RunRecord(method="ties", omega=omega, scores={"mmlu": 0.6}, population_scores=base)


ODD: dict[str, tuple[Callable[[], list[RunRecord]], set[str]]] = {
    "one job": (lambda: [record()], SECTIONS - {"changes", "failed"}),
    "no plain merge": (lambda: [record(), record(omega=0.6)], SECTIONS - {"changes", "failed"}),
    "no benchmarks": (lambda: [replace(record(), **UNSCORED)], set()),
    "one benchmark": (
        lambda: [single(None), single(0.4)],
        {"omega", "changes", "population"},
    ),
    "population only": (
        lambda: [replace(record("none", None), scores=None)],
        {"front", "profiles", "population"},
    ),
    "failed only": (lambda: [failed(), failed(None), RunRecord(status="failed")], {"failed"}),
    "no errors": (
        lambda: [record(stderr=None, population_stderr=None)], SECTIONS - {"changes", "failed"}
    ),
    "two populations": (
        lambda: [record(), record(omega=None), record(population_scores=other_population())],
        SECTIONS - {"failed"},
    ),
    "200 jobs": (many, SECTIONS - {"failed"}),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_sweeps_have_a_sensible_page(case, tmp_path):
    made, sections = ODD[case]
    records = made()
    page = page_of(write_all(tmp_path, *records))
    assert page.ids & SECTIONS == sections
    assert {"leaderboard", "runs"} <= page.ids
    runs = [a for a in page.named("details") if (a.get("id") or "").startswith("run-")]
    assert len(runs) == len(records)
    if sections & {"front", "omega", "profiles"}:
        assert len(page.data["fronts"]) == len(page.data["studies"])
    else:
        assert len(page.scripts) == 1, "no figure, no plotly.js"


def test_fronts_of_two_populations_are_apart(tmp_path):
    directory = write_all(tmp_path, record(), record(population_scores=other_population()))
    data = page_of(directory).data
    for number, fronts in enumerate(data["fronts"]):
        assert fronts
        kept = {i for front in fronts.values() for i in front}
        assert {data["models"][i]["study"] for i in kept} == {number}


def test_every_marker_has_a_shape():
    markers = {marker for _, marker in METHODS.values()} | set(OTHER_MARKERS)
    assert len(markers) >= 13
    assert markers == set(SHAPES)
    assert len({path for _, path in SHAPES.values()}) == len(SHAPES)
