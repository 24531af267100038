"""`report.html`: what it says, that it asks no server for anything, and that no name breaks it."""

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from pages import Page, page_of, text_of
from records import (
    MERGED,
    POPULATION,
    failed,
    record,
    relaxed_sweep,
    shifted,
    write_all,
)

from aim_exp.errors import AimError
from aim_exp.report import html
from aim_exp.report.plots.style import MARKERS, outline
from aim_exp.store.run_record import RunRecord

EVIL = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;<b>"""
LIMIT = 2_000_000
"""Bytes, whatever the sweep."""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two methods, plain and relaxed; one run fails and one was never begun."""
    return write_all(
        tmp_path,
        record("method=ties", "omega=null"),
        record("method=ties", "omega=0.2", scores=shifted(0.02)),
        record("method=ties", "omega=0.4", scores=shifted(0.01)),
        record("method=dare_ties", "omega=null", scores=shifted(-0.04)),
        record("method=dare_ties", "omega=0.4", scores=shifted(-0.02)),
        failed(),
        asked_for=7,
    )


def merges(page: Page) -> list[dict]:
    return [row for row in page.data["rows"] if row["role"] == "merged"]


def test_a_sweep_has_its_page(sweep: Path) -> None:
    page = page_of(sweep)
    sections = {"leaderboard", "front", "sweep", "profiles", "changes-1", "population", "failed"}
    assert sections | {"trust", "runs"} <= page.ids
    assert "method.density=2: must lie in (0, 1]" in page.text
    assert "not run" in page.text
    assert "python run.py method=dare_ties omega=null" in page.text
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {f"run-{number}" for number in range(7)} <= page.ids


def test_the_page_asks_no_server_for_anything(sweep: Path) -> None:
    page = page_of(sweep)
    (policy,) = page.named("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"]
    assert policy["content"].startswith("default-src 'none'; ")
    assert not re.search(r"https?:", policy["content"])
    loading = {"link", "img", "iframe", "object", "embed", "base", "form[action]"}
    assert not loading & {name for name, _ in page.elements}
    assert not any("src" in attributes for _, attributes in page.elements)
    style = (files("aim_exp.report.html") / "assets" / "report.css").read_text()
    assert "@import" not in style
    assert "url(" not in style
    assert len(page.scripts) == 4, "data, d3, Plot, the page's own"
    for script, name in zip(page.scripts[1:3], ("d3js.org", "@observablehq/plot"), strict=True):
        assert name in script[:60]


def test_what_draws_is_as_published_with_its_licence() -> None:
    vendor = files("aim_exp.report.html") / "vendor"
    about = (vendor / "README.md").read_text()
    for library in ("d3", "plot"):
        (version,) = re.findall(
            r"v(\d+\.\d+\.\d+)", (vendor / f"{library}.min.js").read_text()[:60]
        )
        assert version in about
        assert "Permission to use, copy" in (vendor / f"{library}.LICENSE").read_text()


def test_every_link_within_the_page_leads_somewhere(sweep: Path) -> None:
    page = page_of(sweep)
    links = {a["href"] for a in page.named("a") if (a["href"] or "").startswith("#")}
    assert {"#run-0", "#run-4", "#leaderboard", "#runs"} <= links
    assert {str(link)[1:] for link in links if "=" not in str(link)} <= page.ids


def test_the_leaderboard_begins_with_the_best(sweep: Path) -> None:
    page = page_of(sweep)
    labels = {row["key"]: row["label"] for row in page.data["rows"]}
    shown = [labels[a["data-row"]] for a in page.named("tr") if a.get("data-row") in labels]
    assert shown[:5] == [
        "ties omega=0.2", "ties omega=0.4", "ties omega=null",
        "dare_ties omega=0.4", "dare_ties omega=null",
    ]  # fmt: skip


def test_what_varies_is_a_filter_if_its_values_are_few(sweep: Path, tmp_path: Path) -> None:
    assert page_of(sweep).data["filters"] == {
        "method": ["dare_ties", "ties"], "omega": ["null", "0.2", "0.4"],
    }  # fmt: skip
    runs = [
        record("omega=0.4", f"method.density={density}", f"population.seed={seed}",
               scores=shifted(0.01 * seed + density / 9))
        for density in (0.2, 0.5) for seed in (0, 1)
    ]  # fmt: skip
    page = page_of(write_all(tmp_path / "few", *runs))
    assert page.data["filters"] == {"density": ["0.2", "0.5"]}, "seeds are taken together"
    assert [row["settings"]["density"] for row in merges(page)] == ["0.2", "0.5"]
    assert [len(row["draws"][0]) for row in merges(page)] == [2, 2]
    many = [record("omega=0.4", f"method.density={n / 10}", scores=shifted(n / 99))
            for n in range(1, 10)]  # fmt: skip
    assert page_of(write_all(tmp_path / "many", *many)).data["filters"] == {}, "9 values are many"


def test_two_values_of_any_swept_setting_look_different(tmp_path: Path) -> None:
    """In the page as in the PDF; a plain merge is hollow."""
    runs = [
        record(f"method={method}", f"omega={omega}", f"calibration.n_samples={n}",
               scores=shifted(0.001 * n))
        for method in ("ties", "dare_ties") for omega in ("0.2", "0.4") for n in (4, 8, 16)
    ]  # fmt: skip
    data = page_of(write_all(tmp_path, *runs, record("omega=null"))).data
    (omega, samples, *_) = data["sweeps"]
    assert (omega["title"], samples["title"]) == ("omega", "n_samples")
    assert len(omega["series"]) == len({each["look"] for each in omega["series"]}) == 6
    assert len(samples["series"]) == len({each["look"] for each in samples["series"]}) == 4
    assert len({str(look) for look in data["looks"]}) == len(data["looks"])
    hollow = {row["label"]: row["hollow"] for row in data["rows"] if row["role"] == "merged"}
    assert [label for label, is_hollow in hollow.items() if is_hollow] == ["ties omega=null"]


def test_the_figures_hold_the_numbers_of_the_runs(sweep: Path) -> None:
    data = page_of(sweep).data
    benchmarks = list(record().benchmarks)
    assert [each["name"] for each in data["quantities"]] == [
        "average", "hypervolume gain", *benchmarks,
    ]  # fmt: skip
    assert [row["label"] for row in data["rows"][:5]] == [*POPULATION, "ties omega=null"]
    expected = record("method=ties", "omega=0.2", scores=shifted(0.02))
    (row,) = [row for row in data["rows"] if row["label"] == "ties omega=0.2"]
    assert row["values"][1] == pytest.approx(expected.standing.hypervolume_gain, abs=1e-4)
    assert expected.merged
    scores = expected.merged.scores.values()
    assert row["values"][2:] == pytest.approx([100 * s.value for s in scores], abs=1e-3)
    assert row["errors"][2:] == pytest.approx([100 * (s.stderr or 0) for s in scores], abs=1e-3)
    assert row["values"][0] == pytest.approx(100 * np.mean(shifted(0.02)), abs=1e-3)
    ties, dare = data["sweeps"][0]["series"]
    assert [data["rows"][i]["label"] for i in ties["rows"]] == ["ties omega=0.2", "ties omega=0.4"]
    assert data["rows"][dare["level"]]["label"] == "dare_ties omega=null"


def test_axes_can_be_chosen(sweep: Path) -> None:
    benchmarks = list(record().benchmarks)
    page = page_of(sweep, (benchmarks[4], benchmarks[2]))
    assert page.data["axes"] == [4, 2]
    selected = [a["value"] for a in page.named("option") if "selected" in a]
    assert selected[:4] == ["4", "2", "0", "0"]
    with pytest.raises(AimError, match="chess"):
        page_of(sweep, (benchmarks[4], "chess"))
    chosen = page_of(sweep, x="method").data
    assert chosen["sweeps"][chosen["first_sweep"]]["title"] == "method"


def test_what_a_relaxation_left_is_in_the_page(tmp_path: Path) -> None:
    page = page_of(relaxed_sweep(tmp_path))
    assert {"dose", "front"} <= page.ids
    assert page.data["dose"]["kinds"][0] == "all"
    assert len(page.data["dose"]["profiles"]) == 4
    assert "saliency" not in page.ids


def hostile() -> RunRecord:
    names = [EVIL, 'a"b', "{{ x }}", "%{y}"]
    made = record(members=dict.fromkeys(("base", EVIL), POPULATION["base"]), specialty={})
    benchmarks = list(made.benchmarks)[: len(names)]
    models = tuple(
        replace(
            model,
            scores={
                new: replace(model.scores[old], value=0.25 * i if model.role == "merged" else 0.5)
                for i, (new, old) in enumerate(zip(names, benchmarks, strict=True))
            },
        )
        for model in made.models
    )
    return replace(
        made,
        command=f"python run.py x={EVIL}",
        choices={**made.choices, "method": EVIL, "benchmarks": EVIL},
        population=replace(made.population, name=EVIL, specialty={}),
        benchmarks={n: made.benchmarks[old] for n, old in zip(names, benchmarks, strict=True)},
        models=models,
        warnings=(f"`{EVIL}` and `x`",),
        versions={EVIL: EVIL},
    )


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    page = page_of(write_all(tmp_path, hostile(), failed(EVIL)))
    assert len(page.scripts) == 4
    assert not page.named("img")
    assert not page.named("b", onerror="")
    assert page.text.count(EVIL) > 10
    assert "{{ x }}" in page.text
    assert EVIL not in page.scripts[0]
    assert page.data["quantities"][2]["name"] == EVIL


def many(count: int, *more: str) -> list[RunRecord]:
    """So many merges of five methods, each with its scores."""
    rng = np.random.default_rng(0)
    omegas = ["null", *(f"{n / 20:g}" for n in range(1, 20))]
    runs = []
    for number in range(count):
        method = ("ties", "linear", "dare_ties", "task_arithmetic", "dare_linear")[number % 5]
        omega, weight = omegas[number // 5 % 20], 0.5 + number // 100 / 100
        scores = np.clip(np.array(MERGED) + rng.normal(0, 0.05, 6), 0, 1).round(4).tolist()
        overrides = (f"method={method}", f"omega={omega}", f"method.weight={weight:g}", *more)
        runs.append(record(*overrides, scores=scores))
    return runs


def test_a_page_stays_small_and_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path, *many(80), *(failed() for _ in range(3)))
    whole = text_of(tmp_path)
    assert html.LIMIT == LIMIT
    assert len(whole.encode()) < LIMIT
    assert "best merges" not in whole
    own = len(whole.encode()) - 500_000
    monkeypatch.setattr(html, "LIMIT", 500_000 + own // 3)
    text = text_of(tmp_path)
    assert len(text.encode()) <= html.LIMIT
    page, every = Page(text), merges(Page(whole))
    assert len(every) == 80
    shown = merges(page)
    assert f"shows the {len(shown)} best merges" in page.text
    averages = sorted((row["values"][0] for row in every), reverse=True)
    assert sorted((row["values"][0] for row in shown), reverse=True) == averages[: len(shown)]
    assert "failed" in page.ids
    links = {a["href"] for a in page.named("a") if (a["href"] or "").startswith("#")}
    assert {str(link)[1:] for link in links if "=" not in str(link)} <= page.ids


SECTIONS = {"front", "sweep", "profiles", "changes-1", "population", "failed"}


def other_population() -> dict[str, tuple[float, ...]]:
    return {name: tuple(0.9 * x for x in row) for name, row in POPULATION.items()}


ODD: dict[str, tuple[Callable[[], list[RunRecord]], set[str]]] = {
    "one job": (lambda: [record()], {"front", "profiles", "changes-1", "population"}),
    "no plain merge": (
        lambda: [record(), record("omega=0.6", scores=shifted(0.01))],
        SECTIONS - {"failed"},
    ),
    "nothing scored": (lambda: [record(scores=None)], set()),
    "one benchmark": (
        lambda: [record("benchmarks.tasks={a: {task: a, metric: m}}", f"omega={omega}",
                        scores=(score,), members={"base": (0.5,), "code": (0.6,)}, specialty={})
                 for omega, score in (("null", 0.5), ("0.4", 0.6))],
        {"sweep", "changes-1", "population"},
    ),
    "population only": (
        lambda: [record("method=none")],
        {"front", "profiles", "population"},
    ),
    "failed only": (lambda: [failed(), failed("")], {"failed"}),
    "two populations": (
        lambda: [record(), record("omega=null"),
                 record("population.seed=1", "omega=0.2", members=other_population())],
        SECTIONS - {"failed"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_sweeps_have_a_sensible_page(case: str, tmp_path: Path) -> None:
    make, sections = ODD[case]
    records = make()
    page = page_of(write_all(tmp_path, *records))
    assert page.ids & SECTIONS == sections
    assert {"leaderboard", "runs"} <= page.ids
    runs = [a for a in page.named("details") if (a.get("id") or "").startswith("run-")]
    assert len(runs) == len(records)
    if not sections & {"front", "sweep", "profiles"}:
        assert len(page.scripts) == 1, "no figure, and nothing that draws"


def test_merges_of_more_and_fewer_experts_have_a_table(tmp_path: Path) -> None:
    chosen = ("[code,math]", "[code,instruct]", "[code,instruct,math]")
    runs = [record(f"population.merge={experts}", scores=shifted(0.01 * number))
            for number, experts in enumerate(chosen)]  # fmt: skip
    assert "experts-title" in page_of(write_all(tmp_path, *runs)).ids


def test_every_marker_is_a_path_of_its_own() -> None:
    paths = {marker: outline(marker)[0] for marker in MARKERS}
    assert len({str(path) for path in paths.values()}) == len(MARKERS) == 14
    for path in paths.values():
        places = [number for _, *numbers in path for number in numbers]
        assert max(map(abs, places)) <= 1.6
    edge, part = outline("o", "left")
    assert edge == paths["o"]
    assert part
    assert max(x for _, *numbers in part for x in numbers[::2]) == pytest.approx(0, abs=1e-3)
