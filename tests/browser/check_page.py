"""`make check-browser`: `report.html` in headless Chromium. Not a part of `make test`."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from records import BENCHMARKS, failed, record, shifted, write_all
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from test_html import controls, hostile, many, other_population
from test_studies import asked, lucky_seed

from aim_exp.report.compare.comparison import compare_runs
from aim_exp.report.html import write_html
from aim_exp.report.results import collect
from aim_exp.store.records import RunRecord

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWEEP = [
    record(method, omega, shifted(0.02 * i + 0.01 * j))
    for i, method in enumerate(("dare_ties", "ties", "task_arithmetic"))
    for j, omega in enumerate((None, 0.2, 0.4))
]
PAGES: dict[str, list[RunRecord]] = {
    "sweep": [*SWEEP, failed()],
    "hostile": [hostile(), failed("</script>")],
    "one job": [record()],
    "failed": [failed()],
    "two populations": [*SWEEP, record(population_scores=other_population())],
    "controls": controls("identity", "uniform", "shuffled"),
    "200 jobs": many(),
    "protocols": [asked(20, record("ties", 0.4, shifted(0.1))), *(asked(None, r) for r in SWEEP)],
    "seeds": lucky_seed(),
}
WIDTHS = (390, 1440)
FIGURES = ("front", "omega", "profiles")

Browser = webdriver.Chrome


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests; it resolves no host name."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.exit("no Chromium: apt-get install chromium chromium-driver", returncode=1)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage",
                     "host-resolver-rules=MAP * ~NOTFOUND"):  # fmt: skip
        options.add_argument(f"--{argument}")
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Their addresses, by name."""
    addresses = {}
    for name, records in PAGES.items():
        directory = write_all(tmp_path_factory.mktemp("sweep"), *records)
        results = collect(directory)
        page = write_html(results, directory / "report.html", compare_runs(results))
        addresses[name] = page.as_uri()
    return addresses


def show(browser: Browser, address: str, width: int = 1440, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get_log("browser")
    browser.get("about:blank")
    browser.get(address)


@pytest.fixture
def page(browser: Browser, pages: dict[str, str]) -> Browser:
    """The sweep, wide and light."""
    show(browser, pages["sweep"])
    return browser


def find(browser: Browser, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def find_all(browser: Browser, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def column(browser: Browser, index: int) -> list[str]:
    """The shown cells of the leaderboard's column, from 0."""
    rows = [row for row in find_all(browser, "#leaderboard tbody tr") if row.is_displayed()]
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[index].text for row in rows]


def heading(browser: Browser, name: str) -> WebElement:
    cells = find_all(browser, "#leaderboard thead th")
    return next(cell for cell in cells if cell.text.strip() == name)


def traces(browser: Browser, figure: str) -> list[dict]:
    return browser.execute_script(
        f"return document.getElementById('plot-{figure}').data.map("
        "t => ({x: [...t.x], y: [...t.y], mode: t.mode, hover: t.hovertext ?? null}))"
    )


def titles(browser: Browser, figure: str) -> list[str]:
    return browser.execute_script(
        f"const l = document.getElementById('plot-{figure}').layout;"
        "return [l.xaxis.title?.text ?? '', l.yaxis.title?.text ?? '']"
    )


def legend(browser: Browser, figure: str) -> list[str]:
    """What it names now."""
    entries = find_all(browser, f"#{figure} .legend li")
    return [entry.text for entry in entries if entry.is_displayed()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_loads_without_error_request_or_overflow(name, width, scheme, browser, pages):
    show(browser, pages[name], width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource')") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for figure in find_all(browser, ".plot"):
        assert figure.find_elements(By.CSS_SELECTOR, ".main-svg"), "plotly has drawn"
        assert figure.size["height"] > 300


def test_both_schemes_have_contrast(browser, pages):
    seen = {}
    for scheme in ("light", "dark"):
        show(browser, pages["sweep"], scheme=scheme)
        style = "getComputedStyle(document.body)"
        paper, ink = browser.execute_script(f"return [{style}.backgroundColor, {style}.color]")
        drawn = find(browser, "#plot-front .xtick text").value_of_css_property("fill")
        seen[scheme] = (paper, ink, drawn)
        for text in (ink, drawn):
            assert contrast(paper, text) > 4.5
    assert not set(seen["light"]) & set(seen["dark"]), "the figures follow"


def contrast(first: str, second: str) -> float:
    """As in WCAG 2."""
    dark, light = sorted(map(luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_figures_follow_a_change_of_scheme(page):
    def ink() -> str:
        return find(page, "#plot-front .xtick text").value_of_css_property("fill")

    before = ink()
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert ink() != before


@pytest.mark.parametrize("name", ["omega", "average", "gain", *BENCHMARKS])
def test_a_heading_sorts_its_column(name, page):
    index = [cell.text.strip() for cell in find_all(page, "#leaderboard thead th")].index(name)
    for direction in ("descending", "ascending"):
        button = heading(page, name).find_element(By.TAG_NAME, "button")
        button.send_keys(Keys.ENTER)
        if heading(page, name).get_attribute("aria-sort") != direction:
            button.send_keys(Keys.ENTER)
        assert heading(page, name).get_attribute("aria-sort") == direction
        assert len(find_all(page, "#leaderboard [aria-sort]")) == 1
        texts = [text.split()[0].split("±")[0] for text in column(page, index)]
        values = [float("inf") if text == "null" else float(text) for text in texts]
        assert len(set(values)) >= 3
        assert values == sorted(values, reverse=direction == "descending")


def test_filters_hold_for_tables_figures_and_runs(page):
    find(page, "[data-filter=method] input[value=ties]").send_keys(Keys.SPACE)
    assert column(page, 1) == ["ties"] * 3
    assert find(page, ".filters output").text == "3 of 9 merges"
    find(page, "[data-filter=omega] input[value='0.2']").send_keys(Keys.SPACE)
    assert column(page, 2) == ["0.2"]
    shown = [row for row in find_all(page, "#changes tbody tr") if row.is_displayed()]
    names = [row.find_element(By.TAG_NAME, "th").text for row in shown]
    assert names == ["ties omega=null", "ties omega=0.2"]
    runs = [run for run in find_all(page, "details[id]") if run.is_displayed()]
    labels = [run.text.split(None, 1)[1] for run in runs]
    assert labels == ["ties omega=0.2", "ties omega=0.4 failed"]
    hovers = [h for trace in traces(page, "front") for h in trace["hover"] or []]
    assert [h for h in hovers if "omega=" in h] == [h for h in hovers if "ties omega=0.2" in h]
    assert len(traces(page, "profiles")) == 4 + 1
    assert len(traces(page, "omega")) == 3, "the null line, the curve, the plain merge"
    find(page, ".filters [type=reset]").click()
    page.execute_async_script("setTimeout(arguments[0], 50)")
    assert len(column(page, 0)) == 9
    assert len(traces(page, "profiles")) == 4 + 9


def test_controls_can_be_left_out(browser, pages):
    show(browser, pages["controls"])
    before = len(traces(browser, "omega"))
    find(browser, "[data-filter=scaling] input[value=identity]").send_keys(Keys.SPACE)
    assert sorted(column(browser, 3)) == ["identity", "–"], "the plain merge stays"
    assert len(traces(browser, "profiles")) == 4 + 2
    assert (before, len(traces(browser, "omega"))) == (3 + 2, 3), "one plain merge, drawn once"
    assert browser.get_log("browser") == []


def test_any_two_benchmarks_can_be_chosen(page):
    Select(find(page, "#front [name=x]")).select_by_visible_text("math")
    Select(find(page, "#front [name=y]")).select_by_visible_text("ifeval")
    assert titles(page, "front") == ["math", "ifeval"]
    line = traces(page, "front")[0]
    assert line["x"] == sorted(line["x"])
    assert line["y"] == sorted(line["y"], reverse=True)
    wanted = 100 * SWEEP[0].population_scores["math"]["math"]
    assert any(value == pytest.approx(wanted) for value in line["x"])
    Select(find(page, "#front [name=x]")).select_by_visible_text("ifeval")
    Select(find(page, "#front [name=y]")).select_by_visible_text("math")
    turned = traces(page, "front")[0]
    assert (turned["x"][1:-1], turned["y"][1:-1]) == (line["y"][-2:0:-1], line["x"][-2:0:-1])
    Select(find(page, "#front [name=y]")).select_by_visible_text("ifeval")
    assert page.get_log("browser") == [], "one benchmark twice is no error"


def test_any_score_can_be_shown_against_omega(page):
    choice = Select(find(page, "#omega select"))
    offered = [option.text for option in choice.options]
    assert offered == ["average", "hypervolume gain", *BENCHMARKS]
    for name, unit in (("hypervolume gain", ""), ("mmlu", " (%)")):
        choice.select_by_visible_text(name)
        assert titles(page, "omega") == ["omega", name + unit]
    lines = [trace for trace in traces(page, "omega") if trace["mode"] == "lines"]
    plain = [100 * item.scores["mmlu"] for item in SWEEP if item.omega is None]
    assert sorted(line["y"][0] for line in lines) == pytest.approx(sorted(plain))


def test_benchmarks_can_have_their_own_range(page):
    assert max(max(trace["y"]) for trace in traces(page, "profiles")) > 50
    Select(find(page, "#profiles select")).select_by_value("range")
    values = [value for trace in traces(page, "profiles") for value in trace["y"]]
    assert 0 <= min(values) < 0.2 < 0.8 < max(values) <= 1


def test_populations_have_fronts_of_their_own(browser, pages):
    show(browser, pages["two populations"])
    before = traces(browser, "front")[0]
    Select(find(browser, "#front [name=study]")).select_by_visible_text("[2]")
    assert traces(browser, "front")[0] != before
    assert browser.get_log("browser") == []


def test_protocols_are_chosen_one_at_a_time(browser, pages):
    show(browser, pages["protocols"])
    assert len(find_all(browser, "#leaderboard table")) == 2
    for figure in FIGURES:
        few = traces(browser, figure)
        Select(find(browser, f"#{figure} [name=study]")).select_by_visible_text("[2] limit=null")
        assert len(traces(browser, figure)) > len(few)
        names = {"dare_ties", "ties", "task_arithmetic", "plain merge"}
        assert names <= set(legend(browser, figure))
        Select(find(browser, f"#{figure} [name=study]")).select_by_visible_text("[1] limit=20")
        assert set(legend(browser, figure)) - {"base, experts", "front"} == {"ties"}
    assert browser.get_log("browser") == []


def test_curves_at_one_omega_stand_side_by_side(browser, pages):
    show(browser, pages["controls"])
    curves = [trace for trace in traces(browser, "omega") if trace["mode"] == "lines+markers"]
    places = [place for trace in curves for place in trace["x"]]
    assert len(set(places)) == 3
    ticks = find_all(browser, "#plot-omega .xtick text")
    assert [tick.text for tick in ticks] == ["0.4", "null"]
    apart = browser.execute_script(
        "return [...document.querySelectorAll('#plot-omega .scatterlayer .point')]"
        ".map(point => point.getBoundingClientRect().x)"
    )
    left = sorted(apart)[:3]
    assert min(b - a for a, b in pairwise(left)) > 10, "as far as a marker is wide"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_scrolls_up_and_down_but_the_page(width, browser, pages):
    """Neither a long table nor a long legend; at a desk, no table of a few columns to the side."""
    for name in ("200 jobs", "controls", "protocols"):
        show(browser, pages[name], width)
        cut = browser.execute_script(
            "return [...document.querySelectorAll('.scroll, .legend')].filter("
            "box => box.scrollHeight > box.clientHeight + 1).length"
        )
        assert cut == 0, name
        if width > 1000:
            wide = "const box = document.querySelector('#leaderboard .scroll');"
            wide += "return box.scrollWidth - box.clientWidth"
            assert browser.execute_script(wide) <= 0, name


def test_seeds_are_one_point_with_a_dot_for_each(browser, pages):
    show(browser, pages["seeds"])
    assert column(browser, 0) == ["3, 4", "0, 1, 2"]
    dare, dots, ties = traces(browser, "omega")
    assert (len(dare["y"]), len(dots["y"]), len(ties["y"])) == (1, 3, 1)
    assert dare["y"][0] == pytest.approx(sum(dots["y"]) / 3)
    assert "(n = 3)" in dare["hover"][0]


def test_a_link_opens_its_run_and_the_command_is_there(page):
    find(page, "#leaderboard tbody a").send_keys(Keys.ENTER)
    page.execute_async_script("setTimeout(arguments[0], 50)")
    (opened,) = find_all(page, "details[open]")
    command = opened.find_element(By.CSS_SELECTOR, ".command code").text
    assert command == "python run.py method=task_arithmetic omega=0.4"
    opened.find_element(By.CSS_SELECTOR, ".copy").send_keys(Keys.ENTER)
    assert page.get_log("browser") == []


def test_every_control_can_be_reached_by_keyboard(page):
    reached = set()
    for _ in range(400):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        if focused.tag_name == "body":
            break
        reached.add(focused.id)
    controls = find_all(page, "button, select, input, summary, a[href], .scroll")
    hidden = [c for c in controls if not c.is_displayed() and c.tag_name != "input"]
    assert len(controls) > 50
    assert {c.id for c in controls} - {c.id for c in hidden} <= reached


def test_hostile_names_run_nothing(browser, pages):
    show(browser, pages["hostile"])
    assert len(find_all(browser, "script")) == 3
    assert find_all(browser, "img") == []
    assert "<b>" in find(browser, "#plot-profiles .xtick text").get_attribute("textContent")


def test_tables_are_there_without_a_script(browser, pages, tmp_path):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, pages["sweep"])
        assert len(find_all(browser, "#leaderboard tbody tr")) == 9
        assert "need JavaScript" in find(browser, "main").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_page_is_a_file_that_can_be_moved(browser, pages, tmp_path):
    source = Path(pages["sweep"].removeprefix("file://"))
    show(browser, shutil.copy(source, tmp_path / "moved.html").as_uri())
    assert browser.get_log("browser") == []
    assert len(find_all(browser, ".plot .main-svg")) >= len(FIGURES)
