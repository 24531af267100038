"""`make check-browser`: `report.html` in headless Chromium. Not a part of `make test`."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from pages import text_of
from records import failed, record, relaxed_sweep, shifted, write_all
from safetensors.numpy import save_file
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from test_html import hostile, many, other_population
from test_report_items import DIFFERING, pair
from test_report_relaxation import DOSE, LAYERS

from aim_exp.report import refresh
from aim_exp.report.__main__ import main
from aim_exp.report.load import load
from aim_exp.report.plots import make_charts
from aim_exp.report.rows import make_report
from aim_exp.store.run_record import RunRecord

BENCHMARKS = list(record().benchmarks)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWEEP = [
    record(f"method={method}", f"omega={omega}", scores=shifted(0.02 * i + 0.01 * j))
    for i, method in enumerate(("dare_ties", "ties", "task_arithmetic"))
    for j, omega in enumerate(("null", "0.2", "0.4"))
]
SCALINGS = ("identity", "uniform", "shuffled")
PAGES: dict[str, list[RunRecord]] = {
    "sweep": [*SWEEP, failed()],
    "hostile": [hostile(), failed("</script>")],
    "one job": [record(references={"joint": (0.8,) * 6})],
    "failed": [failed()],
    "two populations": [
        *SWEEP, record("population.seed=1", "omega=0.7", members=other_population()),
    ],
    "scalings": [
        record("omega=null"),
        *(record("omega=0.4", f"aim.scaling={name}", scores=shifted(0.01 * i))
          for i, name in enumerate(SCALINGS)),
    ],
    "samples": [
        record("omega=null"),
        *(record(f"omega={omega}", f"calibration.n_samples={n}", scores=shifted(omega / 9))
          for omega in (0.2, 0.6) for n in (4, 16, 64, 1024)),
    ],
    "200 jobs": many(200),
    "protocols": [
        record("omega=0.4", "benchmarks.limit=20", scores=shifted(0.1)),
        *(record(*each.overrides, "benchmarks.limit=40", scores=shifted(0.02 * i))
          for i, each in enumerate(SWEEP)),
    ],
    "seeds": [
        *(record("method=dare_ties", "omega=0.4", f"seed={seed}", scores=shifted(shift))
          for seed, shift in enumerate((-0.1, 0.05, -0.1))),
        record("method=ties", "omega=0.4"),
    ],
    "relaxed": [],
}  # fmt: skip
WIDTHS = (390, 1440)
FIGURES = ("front", "sweep", "profiles")

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
        directory = tmp_path_factory.mktemp("sweep")
        write_all(directory, *records) if records else relaxed_sweep(directory)
        page = directory / "report.html"
        page.write_text(text_of(directory), encoding="utf-8")
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


def drawn(browser: Browser, figure: str, what: str) -> list[dict[str, float]]:
    """The pieces of a figure that are called so: where each lies, and how faded it is."""
    pieces = f"document.querySelectorAll('#plot-{figure} [aria-description=\"{what}\"] > *')"
    return browser.execute_script(
        f"return [...{pieces}].map(piece => {{"
        "const {x, y, width, height} = piece.getBoundingClientRect();"
        "const opacity = Number(piece.getAttribute('opacity') ?? 1);"
        "return {x: x + width / 2, y: y + height / 2, opacity}})"
    )


def titles(browser: Browser, figure: str) -> list[str]:
    labels = find_all(browser, f"#plot-{figure} g[aria-label$='axis label'] text")
    return sorted(label.text for label in labels)


def legend(browser: Browser, figure: str) -> list[str]:
    """What it names now."""
    entries = find_all(browser, f"#{figure} .legend li")
    return [entry.text for entry in entries if entry.is_displayed()]


def choose(browser: Browser, selector: str, text: str) -> None:
    Select(find(browser, selector)).select_by_visible_text(text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_loads_without_error_request_or_overflow(name, width, scheme, browser, pages):
    show(browser, pages[name], width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource')") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for figure in find_all(browser, ".plot"):
        assert figure.find_elements(By.CSS_SELECTOR, "svg path"), "something is drawn"
        assert figure.size["height"] > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_items_are_read_from_disk_and_from_a_bundle(width, scheme, browser, tmp_path):
    """From a cell of the differences to the items; those that changed, then all."""
    directory = write_all(tmp_path / "sweep", *pair())
    assert main([str(directory), "--bundle", str(tmp_path / "site")]) == 0
    refresh(directory)
    for page in (directory / "report.html", tmp_path / "site" / "index.html"):
        show(browser, page.as_uri(), width, scheme)
        link = find(browser, "#changes-1 td a")
        browser.execute_script("location.hash = arguments[0].hash", link)
        wait = WebDriverWait(browser, 10)
        shown = wait.until(lambda b: find_all(b, "#items article"))
        assert len(shown) == min(20, len(DIFFERING))
        words = find(browser, "#items output").text
        assert words.startswith(f"{len(DIFFERING)} of 40 items; ")
        choose(browser, "#items select[name=kind]", "all")
        wait.until(lambda b: find(b, "#items output").text.startswith("40 of 40 items"))
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_any_swept_setting_has_a_figure_and_a_table(browser, pages):
    show(browser, pages["samples"])
    choose(browser, "#sweep select[name=key]", "n_samples")
    find(browser, "#sweep summary").click()
    headings = [cell.text for cell in find_all(browser, "#sweep-table thead th")]
    assert headings == ["n_samples", "4", "16", "64", "1024", "without it"]
    cells = [cell.text for cell in find_all(browser, "#sweep-table tbody td")]
    assert len(cells) == 10
    assert all(cells)


INK = "#plot-front [aria-label='x-axis tick label']"


def test_both_schemes_have_contrast(browser, pages):
    seen = {}
    for scheme in ("light", "dark"):
        show(browser, pages["sweep"], scheme=scheme)
        style = "getComputedStyle(document.body)"
        paper, ink = browser.execute_script(f"return [{style}.backgroundColor, {style}.color]")
        shown = find(browser, INK).value_of_css_property("fill")
        seen[scheme] = (paper, ink, shown)
        for text in (ink, shown):
            assert contrast(paper, text) > 4.5
        for look in range(1, 4):  # the methods' colours: large marks
            style = f"getComputedStyle(document.documentElement).getPropertyValue('--look-{look}')"
            red, green, blue = (int(browser.execute_script(f"return {style}.trim()")[i : i + 2], 16)
                                for i in (1, 3, 5))  # fmt: skip
            assert contrast(paper, f"rgb({red}, {green}, {blue})") > 2.5
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
    before = find(page, INK).value_of_css_property("fill")
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    assert find(page, INK).value_of_css_property("fill") != before


@pytest.mark.parametrize("name", ["omega", "avg", "gain", *BENCHMARKS])
def test_a_heading_sorts_its_column(name, page):
    index = [cell.text.strip() for cell in find_all(page, "#leaderboard thead th")].index(name)
    for direction in ("descending", "ascending"):
        button = heading(page, name).find_element(By.TAG_NAME, "button")
        button.send_keys(Keys.ENTER)
        if heading(page, name).get_attribute("aria-sort") != direction:
            button.send_keys(Keys.ENTER)
        assert heading(page, name).get_attribute("aria-sort") == direction
        assert len(find_all(page, "#leaderboard [aria-sort]")) == 1
        texts = [re.split(r"[\s±]", text)[0] for text in column(page, index)]
        values = [float("inf") if text == "null" else float(text) for text in texts]
        assert len(set(values)) >= 3
        if name != "omega":  # where null stands is another matter
            assert values == sorted(values, reverse=direction == "descending")


def test_filters_hold_for_tables_and_figures(page):
    assert find(page, ".filters output").text == "9 of 9 merges"
    find(page, "[data-filter=method] input[value=ties]").send_keys(Keys.SPACE)
    assert column(page, 1) == ["ties"] * 3
    assert find(page, ".filters output").text == "3 of 9 merges"
    find(page, "[data-filter=omega] input[value='0.2']").send_keys(Keys.SPACE)
    assert column(page, 2) == ["0.2"]
    shown = [row for row in find_all(page, "#changes-1 tbody tr") if row.is_displayed()]
    assert [row.find_elements(By.TAG_NAME, "td")[0].text for row in shown] == ["ties omega=0.2"]
    assert len(drawn(page, "front", "point")) == 4 + 1
    assert len(drawn(page, "sweep", "point")) == 1
    assert len(drawn(page, "profiles", "profile")) == 4 + 1
    find(page, ".filters [type=reset]").click()
    page.execute_async_script("setTimeout(arguments[0], 50)")
    assert len(column(page, 0)) == 9
    assert len(drawn(page, "profiles", "profile")) == 4 + 9
    assert page.get_log("browser") == []


def test_what_a_filter_does_not_concern_stays(browser, pages):
    show(browser, pages["scalings"])
    assert len(drawn(browser, "sweep", "point")) == 3 + 1, "one plain merge, drawn once"
    find(browser, "[data-filter=scaling] input[value=identity]").send_keys(Keys.SPACE)
    assert sorted(column(browser, 3)) == ["identity", "–"], "the plain merge has no scaling"
    assert len(drawn(browser, "profiles", "profile")) == 4 + 2
    assert len(drawn(browser, "sweep", "point")) == 1 + 1
    assert len(drawn(browser, "sweep", "plain")) == 1
    assert browser.get_log("browser") == []


def test_the_front_of_any_two_benchmarks_is_that_of_the_figures(page, pages):
    """Of all pairs, by the same code as the PDF's; dominated models are faded."""
    directory = Path(pages["sweep"].removeprefix("file://")).parent
    report = make_report(load(directory))
    pairs = list(combinations(range(len(BENCHMARKS)), 2))
    assert len(pairs) == 15
    for first, second in pairs:
        (plane,) = make_charts(report, (report.benchmarks[first], report.benchmarks[second])).planes
        keys = page.execute_script(
            "const [x, y] = [...arguments].map(number => number + data.first);"
            "const place = ({key, values}) => ({key, x: values[x], y: values[y]});"
            "return frontOf(data.rows.map(place)).map(point => point.key)", first, second,
        )  # fmt: skip
        assert set(keys) == {row.key[:16] for row in plane.front}
        choose(page, "#front [name=x]", report.benchmarks[first])
        choose(page, "#front [name=y]", report.benchmarks[second])
        whole = [point for point in drawn(page, "front", "point") if point["opacity"] == 1]
        assert len(whole) == len(plane.front)
        assert set(titles(page, "front")) == {
            f"{report.benchmarks[first]} (%)", f"{report.benchmarks[second]} (%)",
        }  # fmt: skip
    choose(page, "#front [name=y]", report.benchmarks[first])
    assert page.get_log("browser") == [], "one benchmark twice is no error"


def test_the_front_can_be_looked_at_closely(page):
    before = drawn(page, "front", "point")
    choose(page, "#front [name=range]", "merges")
    closer = drawn(page, "front", "point")
    widths = [max(p["x"] for p in some) - min(p["x"] for p in some) for some in (before, closer)]
    assert 9 <= len(closer) <= len(before)
    merged = [find(page, "#plot-front").rect[k] for k in ("x", "width")]
    assert all(merged[0] <= point["x"] <= sum(merged) for point in closer), widths
    assert page.get_log("browser") == []


def test_any_score_can_be_shown_against_any_setting(browser, pages):
    show(browser, pages["samples"])
    offered = [option.text for option in Select(find(browser, "#sweep [name=quantity]")).options]
    assert offered == ["average", "hypervolume gain", *BENCHMARKS]
    keys = [option.text for option in Select(find(browser, "#sweep [name=key]")).options]
    assert keys == ["omega", "n_samples"]
    choose(browser, "#sweep [name=quantity]", "hypervolume gain")
    assert titles(browser, "sweep") == ["hypervolume gain", "omega"]
    assert len(drawn(browser, "sweep", "series")) == 4
    choose(browser, "#sweep [name=key]", "n_samples")
    choose(browser, "#sweep [name=quantity]", "tiny_mmlu")
    assert titles(browser, "sweep") == ["n_samples", "tiny_mmlu (%)"]
    assert find(browser, "#sweep h2").text == "Against n_samples"
    assert len(drawn(browser, "sweep", "series")) == 2
    ticks = find_all(browser, "#plot-sweep [aria-label='x-axis tick label'] text")
    assert [tick.text for tick in ticks] == ["4", "16", "64", "1024"]
    places = [tick.rect["x"] + tick.rect["width"] / 2 for tick in ticks]
    first, second, last = (after - before for before, after in pairwise(places))
    assert first == pytest.approx(second, abs=2), "a logarithmic axis"
    assert last == pytest.approx(2 * first, abs=3)
    assert len(drawn(browser, "sweep", "point")) == 2 * 4, "the plain merge is a line"
    assert len(drawn(browser, "sweep", "plain")) == 1
    looks = {path.get_attribute("d") for path in find_all(
        browser, "#plot-sweep [aria-description=point] path")}  # fmt: skip
    assert len(looks) >= 2
    assert {"omega=0.2", "omega=0.6"} <= set(legend(browser, "sweep"))


def test_a_pointer_is_told_the_numbers_and_a_click_leads_to_the_run(page):
    point = find_all(page, "#plot-sweep [aria-description=point] > *")[0]
    ActionChains(page).move_to_element(point).perform()
    page.execute_async_script("setTimeout(arguments[0], 100)")
    label, numbers = (line.text for line in find_all(page, "#plot-sweep [aria-label=tip] tspan"))
    assert re.fullmatch(r"average \d\d\.\d ±\d\.\d", numbers)
    ActionChains(page).click().perform()
    page.execute_async_script("setTimeout(arguments[0], 100)")
    (opened,) = find_all(page, "details.run[open]")
    assert label in find(page, f"#{opened.get_attribute('id')} summary").text


def test_benchmarks_can_have_their_own_range(page):
    before = drawn(page, "profiles", "point")
    assert len(before) == 9 * len(BENCHMARKS)
    choose(page, "#profiles select", "each its own range")
    after = drawn(page, "profiles", "point")
    assert [point["x"] for point in before] != [point["y"] for point in after]
    assert not find_all(page, "#plot-profiles [aria-label='y-axis tick label']")


def test_groups_are_chosen_one_at_a_time(browser, pages):
    show(browser, pages["protocols"])
    assert len(find_all(browser, "#leaderboard table")) == 2
    for name, methods, count in (
        ("limit=40", {"dare_ties", "ties", "task_arithmetic", "plain merge"}, 9),
        ("limit=20", {"ties"}, 1),
    ):
        choose(browser, "#which select", name)
        for figure in FIGURES:
            named = {"base, experts", "front"}
            assert set(legend(browser, figure)) - named == methods
        assert len(drawn(browser, "front", "point")) == 4 + count
        assert len(drawn(browser, "sweep", "point")) == count
    assert browser.get_log("browser") == []


def test_populations_have_fronts_of_their_own(browser, pages):
    show(browser, pages["two populations"])
    options = Select(find(browser, "#which select")).options
    assert len(options) == 2
    counts = []
    for option in [each.text for each in options]:
        choose(browser, "#which select", option)
        counts.append(len(drawn(browser, "front", "point")))
    assert sorted(counts) == [4 + 1, 4 + 9]


def test_curves_at_one_omega_stand_side_by_side(browser, pages):
    show(browser, pages["scalings"])
    points = sorted(point["x"] for point in drawn(browser, "sweep", "point"))
    ticks = find_all(browser, "#plot-sweep [aria-label='x-axis tick label'] text")
    assert [tick.text for tick in ticks] == ["0.4", "null"]
    assert min(b - a for a, b in pairwise(points)) > 10, "as far as a marker is wide"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_scrolls_up_and_down_but_the_page(width, browser, pages):
    """Neither a long table nor a long legend; at a desk, no table of a few columns to the side."""
    for name in ("200 jobs", "scalings", "protocols"):
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
    assert sorted(column(browser, 0)) == ["0, 1, 2", "3"]
    assert len(drawn(browser, "sweep", "point")) == 2
    dots = drawn(browser, "sweep", "draw")
    assert len(dots) == 3
    (mean,) = [point for point in drawn(browser, "sweep", "point")
               if abs(point["x"] - dots[0]["x"]) < 2]  # fmt: skip
    assert mean["y"] == pytest.approx(sum(dot["y"] for dot in dots) / 3, abs=1)


def test_what_a_relaxation_left_is_drawn(browser, pages):
    show(browser, pages["relaxed"])
    assert len(drawn(browser, "dose", "point")) == 4 * 4
    assert legend(browser, "dose")[-1].endswith("mean r")

    choose(browser, "#dose [name=by]", "layer")
    assert len(drawn(browser, "dose", "layers")) == 4
    assert len(drawn(browser, "dose", "point")) == 4 * 3
    assert titles(browser, "dose") == ["layer", "share of the delta that is left"]
    choose(browser, "#dose [name=by]", "kind of module")
    assert len(drawn(browser, "dose", "point")) == 4 * 4
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_has_what_the_report_in_markdown_has(width, scheme, browser, tmp_path):
    """Section by section; differences in points, interval and p to read without a pointer."""
    path = "../shared/saliency/0.safetensors"
    channels = {f"model.layers.{n}.self_attn.q_proj.weight": np.arange(9.0) + n for n in range(2)}
    (tmp_path / "shared" / "saliency").mkdir(parents=True)
    save_file(channels, tmp_path / "shared" / "saliency" / "0.safetensors")
    write_all(tmp_path, *(replace(each, saliency=path, dose=DOSE, dose_by_layer=LAYERS)
                          for each in pair()))  # fmt: skip
    refresh(tmp_path)
    show(browser, (tmp_path / "report.html").as_uri(), width, scheme)
    written = re.findall(r"^## (.*)", (tmp_path / "report.md").read_text(), re.MULTILINE)
    shown = {each.text for each in find_all(browser, "h2")}
    assert {"What was chosen", "What the relaxation left"} <= set(written)
    apart = {"Figures", "Tables for papers", "How to repeat each"}
    assert set(written) - apart <= shown | {"Against omega"}
    assert {"The saliency of base's channels", "Runs, and how to repeat them"} <= shown
    for figure in ("dose", "saliency", "layers"):
        assert find_all(browser, f"#plot-{figure} svg")
    cell = find(browser, "#changes-1 tbody td.number").text
    assert re.fullmatch(r"[+-]\d+\.\d\s+\(\+?-?[\d.]+ to [+-][\d.]+;\s+p <?\d\.\d{3}\)", cell), cell
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_a_running_sweep_says_so_and_reloads_itself(width, scheme, browser, tmp_path):
    page = tmp_path / "report.html"

    def end(jobs, *, running):
        write_all(tmp_path, *SWEEP[:jobs], asked_for=3)
        refresh(tmp_path, running=running)
        page.write_text(page.read_text().replace('content="30"', 'content="1"'))

    end(2, running=True)
    show(browser, page.as_uri(), width, scheme)
    assert "This sweep is running" in find(browser, "[role=status]").text
    assert len(column(browser, 0)) == 2
    end(3, running=False)
    WebDriverWait(browser, 10).until(lambda b: not find_all(b, "[role=status]"))
    assert len(column(browser, 0)) == 3
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_marks_of_tables_and_figures_are_the_same(page):
    marks = "#leaderboard tbody .symbol path"
    shapes = {path.get_attribute("d") for path in find_all(page, marks)}
    assert len(find_all(page, marks)) == 9
    assert len(shapes) == 3, "a marker for each method"
    hollow = [
        path for path in find_all(page, marks) if path.get_attribute("fill") == "var(--paper)"
    ]
    assert len(hollow) == 3, "plain merges"
    assert shapes <= {path.get_attribute("d") for path in find_all(page, "#front .legend path")}


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
    assert len(find_all(browser, "script")) == 4
    assert find_all(browser, "img") == []
    ticks = find_all(browser, "#plot-profiles [aria-label='x-axis tick label'] text")
    assert "<b>" in ticks[0].get_attribute("textContent")
    assert browser.get_log("browser") == []


def test_tables_are_there_without_a_script(browser, pages):
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
    assert len(find_all(browser, ".plot svg")) == len(FIGURES)
