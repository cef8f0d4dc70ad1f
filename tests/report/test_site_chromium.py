"""The page of a report in a real Chromium, opened from its folder: what a reader clicks, types and sees."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from ad_bench.report import collect
from ad_bench.report.rows import without_folders
from ad_bench.report.site import Extra, write_site
from tests.report.made_pictures import left_by_a_run
from tests.report.made_records import record, sure, write

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
)

pytestmark = pytest.mark.xdist_group("chromium")  # one browser at a time

HOSTILE = "<img src=x onerror=window.hit=1></script><script>window.hit=1</script>"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
SECONDS = 15_000  # milliseconds that anything may take on a busy machine


def program() -> str:
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name) if name else None
        if found:
            return found
    pytest.skip("no Chromium: set CHROMIUM to the program")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of two data sets with pictures, failed and skipped cells, and strings that mean harm."""
    results = tmp_path_factory.mktemp("results")
    values = {"patchcore": 0.9, "padim": 0.95, "stfpm": 0.85, "random": 0.5}
    paths = []
    for method, value in values.items():
        for category in "ab":
            made = sure(record(category=category, method=method, value=value), 0.02, 0.02, 0.01)
            made["metrics"]["full"]["pixel_aupro"] = 1.4 - value  # another order than the images have
            made["timing"] = {**made["timing"], "latency_ms_p50": 100 * value}
            paths += write(results, made)
    paths += write(results, record("other", "x"), record(category="a", protocol="few_shot-4", value=0.7))
    for path in paths:
        images = (("broken/000.png", "broken", 1), ("bad/1.png", HOSTILE, 1), ("good/001.png", "good", 0))
        left_by_a_run(path, images=images)
    failed = {"type": "DataError", "message": HOSTILE, "traceback": HOSTILE}
    evil = {"method": "evil", "title": HOSTILE, "taxonomy": HOSTILE, "marks": [HOSTILE], "fidelity": HOSTILE}
    write(
        results,
        record(category="a", value=0.99, **evil),
        record(category="b", status="failed", error=failed, **evil),
        record(category="b", method="spade", status="skipped", reason=HOSTILE),
    )
    extra = Extra(
        "more", HOSTILE, [HOSTILE], [HOSTILE], [[HOSTILE]], "<svg xmlns='http://www.w3.org/2000/svg'/>"
    )
    write_site(collect(results), results, results / "html", extras=[extra])
    return results / "html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program(), args=list(FLAGS))
        yield opened
        opened.close()


def until(page: Any, expression: str) -> None:
    """Wait until `expression` is true; asked from outside, as the page itself may not evaluate text."""
    end = time.monotonic() + SECONDS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


class Reader:
    """A window on the site, and all that went wrong in it."""

    def __init__(self, browser: Any, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.page = self.context.new_page()
        self.page.set_default_timeout(SECONDS)
        self.wrong: list[str] = []
        self.page.on(
            "console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._within)

    def _within(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme != "file" or not Path(unquote(parts.path)).is_relative_to(self.folder):
            self.wrong.append(f"a request left the folder: {request.url}")

    def open(self, address: str = "") -> Any:
        self.page.goto(f"{(self.folder / 'index.html').as_uri()}{address}")
        self.page.wait_for_selector("main h1")
        return self.page

    def go(self, address: str) -> Any:
        """As a link does: within the page."""
        title = self.page.title()
        self.page.evaluate("address => { location.hash = address }", address)
        until(self.page, f"document.title !== {json.dumps(title)}")
        return self.page

    def names(self) -> list[str]:
        return self.page.locator("table.data tbody th .name").all_inner_texts()


@pytest.fixture
def reader(browser: Any, folder: Path) -> Iterator[Reader]:
    opened = Reader(browser, folder)
    yield opened
    assert opened.page.evaluate("window.hit") is None, "a string of a record ran as a script"
    opened.context.close()
    assert opened.wrong == []


def sort_of(page: Any, title: str) -> str | None:
    return page.get_by_role("columnheader", name=title).first.get_attribute("aria-sort")


def test_it_sorts_by_every_heading(reader: Reader) -> None:
    page = reader.open()
    assert reader.names()[:4] == ["PaDiM", "PatchCore", "stfpm", "random"]  # best first
    heading = page.get_by_role("button", name="image AUROC")
    heading.click()
    assert reader.names()[:4] == ["random", "stfpm", "PatchCore", "PaDiM"]
    assert reader.names()[4] == HOSTILE  # misses a category: never among the complete rows
    assert sort_of(page, "image AUROC") == "ascending"
    page.get_by_role("button", name="Method").click()
    assert reader.names()[:4] == ["PaDiM", "PatchCore", "random", "stfpm"]
    assert sort_of(page, "image AUROC") == "none"
    page.get_by_role("button", name="latency").click()
    assert reader.names()[0] == "random"  # the fastest first


def test_ranks_best_and_missing_are_what_the_tables_say(reader: Reader) -> None:
    page = reader.open()
    rows = page.locator("table.data tbody tr[data-key]")
    assert rows.nth(0).locator("td.rank").inner_text() == "1"
    assert rows.nth(0).locator("td.focus strong.best").inner_text() == "0.950"
    assert rows.nth(1).locator("td.focus u.second").inner_text() == "0.900"
    evil = page.locator("tr", has=page.get_by_text(HOSTILE, exact=True)).first
    assert evil.locator("td.focus").inner_text() == "(0.990)"
    assert evil.locator("td.rank").inner_text() == ""
    skipped = page.locator('tr[data-key="made_up/spade/full"]')
    assert "no finished cell" in skipped.locator("td.focus").inner_text()


def test_it_filters_by_text_family_fidelity_and_protocol(reader: Reader) -> None:
    page = reader.open()
    page.get_by_label("Find").fill("padim")
    assert reader.names() == ["PaDiM"]
    assert page.locator(".count").inner_text() == "1 of 7 rows"
    until(page, "document.getElementById('status').textContent === '1 of 7 rows'")
    page.get_by_label("Find").fill("")
    page.get_by_label("Family").select_option(label="Baseline")
    assert reader.names() == ["random"]
    page.get_by_label("Family").select_option(label="all")
    page.get_by_label("Fidelity").select_option(HOSTILE)
    assert reader.names() == [HOSTILE]
    page.get_by_label("Fidelity").select_option(label="all")
    page.get_by_label("Protocol").select_option("few_shot-4")
    assert reader.names() == ["PatchCore"]
    page.get_by_label("Find").fill("nothing like it")
    assert page.get_by_text("No row fits these filters.").is_visible()


def test_switches_of_metric_data_set_and_columns(reader: Reader) -> None:
    page = reader.open()
    page.get_by_label("Metric", exact=True).select_option("full.pixel_aupro")
    assert reader.names()[:2] == ["random", "stfpm"]
    assert sort_of(page, "pixel AUPRO") == "descending"
    page.locator('[data-columns="categories"]').check()
    page.get_by_role("button", name="a", exact=True).wait_for()
    failed = page.locator("tbody tr", has=page.get_by_text(HOSTILE, exact=True)).first
    assert failed.locator("td.category").nth(1).inner_text() == "failed"
    page.locator('[data-columns="costs"]').uncheck()
    assert page.get_by_role("button", name="fit s").count() == 0
    page.get_by_label("Data set", exact=True).select_option("other")
    until(page, "document.title.startsWith('other')")
    assert reader.names() == ["PatchCore"]


def test_the_address_keeps_the_choices_and_the_back_button_works(reader: Reader) -> None:
    page = reader.open()
    page.get_by_label("Metric", exact=True).select_option("full.pixel_aupro")
    page.get_by_label("Find").fill("padim")
    address = page.evaluate("location.hash")
    page.get_by_role("link", name="PaDiM", exact=True).click()
    until(page, "document.title.startsWith('PaDiM')")
    page.go_back()
    until(page, "document.title.startsWith('made_up')")
    assert page.evaluate("location.hash") == address
    assert page.get_by_label("Metric", exact=True).input_value() == "full.pixel_aupro"
    assert reader.names() == ["PaDiM"]


def test_a_method_and_its_cells(reader: Reader) -> None:
    page = reader.open()
    page.get_by_role("link", name="PatchCore").first.click()
    until(page, "document.title.startsWith('PatchCore')")
    assert (
        page.get_by_role("link", name="arXiv:2106.08265").get_attribute("href")
        == "https://arxiv.org/abs/2106.08265"
    )
    assert page.locator(".about-method li").count() == 4
    page.get_by_text("conf/method/patchcore.yaml").click()
    assert "# [R] layer2, layer3" in page.get_by_label("The YAML of the method").inner_text()
    page.locator("table.matrix tbody a", has_text="0.900").first.click()
    until(page, "document.title.startsWith('a, PatchCore')")
    titles = page.locator("figure.chart figcaption").all_inner_texts()
    assert titles == [
        "Images, ROC", "Images, precision and recall", "Images, scores", "Images, by kind of defect",
        "Pixels, ROC", "Pixels, precision and recall", "Pixels, per-region overlap",
    ]  # fmt: skip
    page.locator("figure.chart svg.plot[role=img]").nth(6).wait_for()
    label = page.locator("figure.chart svg.plot").nth(2).get_attribute("aria-label")
    assert label == "Histogram of the scores of 1 normal and 2 anomalous images"
    assert page.get_by_role("row", name="image AUROC 0.9000 0.880 to 0.920").count() == 1
    loaded = "[...document.querySelectorAll('.extremes img')].every(image => image.naturalWidth > 0)"
    until(page, loaded)
    assert page.locator(".extremes img").count() == 9
    assert page.evaluate("getComputedStyle(document.querySelector('svg.plot')).display") == "block"


def test_curves_of_a_ranking_by_hand(reader: Reader) -> None:
    page = reader.open()
    found = page.evaluate("adbench.curves([1, 2, 2], [2, 3])")
    # From the highest: 3 anomalous; 2 is one anomalous and two normal; 1 normal.
    assert [point[:2] for point in found["roc"]] == [[0, 0], [0, 0.5], [pytest.approx(2 / 3), 1], [1, 1]]
    assert [point[:2] for point in found["pr"]] == [[0, 1], [0.5, 1], [1, 0.5], [1, 0.4]]


def test_the_gallery_shows_pictures_of_the_ticked_methods(reader: Reader) -> None:
    page = reader.open("#/dataset/made_up/gallery")
    images = page.locator("table.gallery img")
    assert images.count() == 3 * (2 + 4)
    until(page, "[...document.images].every(image => image.naturalWidth > 0)")
    until(page, "document.querySelector('table.gallery img').getBoundingClientRect().width > 300")
    assert page.locator("table.gallery thead .ends").first.inner_text().split()[:2] == ["5", "to"]
    kinds = page.locator("table.gallery tbody .kind").all_inner_texts()
    assert sorted(kinds) == sorted(["broken", HOSTILE, "normal"])
    page.locator('[data-row="made_up/padim/full"]').uncheck()
    assert images.count() == 3 * (2 + 3)
    page.get_by_label("lay the map over the input").check()
    assert page.locator("table.gallery .stack").count() == 3 * 3
    page.get_by_label("Category").select_option("b")
    until(page, "location.hash.includes('category=b')")
    assert "/b/" in page.locator("table.gallery img").first.get_attribute("src")


def test_accuracy_against_costs_with_the_front(reader: Reader) -> None:
    page = reader.open("#/dataset/made_up/costs")
    chart = page.locator("svg.plot")
    chart.wait_for()
    label = chart.get_attribute("aria-label")
    assert "On the Pareto front: random, 0.500 at 50; stfpm, 0.850 at 85; PatchCore" in label
    page.get_by_label("Cost").select_option("images_per_second")  # the same for all: the most accurate alone
    until(page, "document.querySelector('.count').textContent.includes('1 on the Pareto front')")
    assert page.locator(".on-front").count() == 1


def test_errors_and_reasons_are_shown_as_text(reader: Reader) -> None:
    page = reader.open("#/dataset/made_up/problems")
    shown = without_folders(HOSTILE)
    assert page.locator(".cause").all_inner_texts() == [f"DataError: {shown}", shown]
    page.get_by_role("link", name="b", exact=True).first.click()
    page.get_by_text("This cell failed").wait_for()
    assert page.get_by_label("Traceback").inner_text() == shown
    for address in ("#/method/evil", "#/row/made_up/evil/full", "#/more/more", "#/methods", "#/about"):
        reader.go(address)
    assert page.get_by_role("link", name="Analyses").get_attribute("href") == "#/more/more"
    assert page.title() == "How to read it · adbench"


def test_what_is_not_there_is_said(browser: Any, folder: Path) -> None:
    reader = Reader(browser, folder)
    page = reader.open("#/row/made_up/nobody/full")
    assert "data/rows/made_up/nobody/full.js is not in this folder" in page.locator("main").inner_text()
    reader.context.close()
    assert len(reader.wrong) == 1  # the browser's own line about the missing file
    assert "ERR_FILE_NOT_FOUND" in reader.wrong[0]


def test_the_keyboard_alone_is_enough(reader: Reader) -> None:
    page = reader.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"

    def tab_to(script: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(f"(element => {script})(document.activeElement)"):
                ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert ring != "none", "no focus ring"
                return
        raise AssertionError(f"the tabulator never comes to {script}")

    tab_to("element.textContent.startsWith('image AUROC') && element.className === 'sort'")
    page.keyboard.press("Enter")
    assert reader.names()[0] == "random"
    assert page.evaluate("document.activeElement.className") == "sort"  # the focus stays
    tab_to("element.matches('button.link, a.name')")
    page.keyboard.press("Enter")
    until(page, "document.title.startsWith('random')")
    assert page.evaluate("document.activeElement.tagName") == "H1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(browser: Any, folder: Path, scheme: str) -> None:
    reader = Reader(browser, folder, color_scheme=scheme)
    page = reader.open()
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(247, 246, 243)", "rgb(19, 20, 22)"
    assert page.evaluate(paper) == {"light": light, "dark": dark}[scheme]
    button = page.get_by_role("button", name="Colours")
    button.click()
    assert page.evaluate(paper) == light
    button.click()
    assert page.evaluate(paper) == dark
    page.reload()
    page.wait_for_selector("main h1")
    assert page.evaluate(paper) == dark  # remembered
    assert contrast_is_enough(page)
    reader.context.close()
    assert reader.wrong == []


def contrast_is_enough(page: Any) -> bool:
    """WCAG AA of the text colours on each ground, as the browser resolves them."""
    colours = page.evaluate(
        """() => {
            const probe = document.body.appendChild(document.createElement('i'));
            const read = name => {
                probe.style.color = `var(--${name})`;
                return getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
            };
            const texts = ['ink', 'muted', 'accent', 'normal', 'anomalous', 'good', 'warn', 'bad'].map(read);
            return [texts, ['paper', 'surface', 'raised'].map(read)];
        }"""
    )

    def light(colour: list[float]) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = [sorted((light(text), light(ground))) for text in colours[0] for ground in colours[1]]
    return all((high + 0.05) / (low + 0.05) >= 4.5 for low, high in pairs)


def test_nothing_scrolls_sideways_on_a_phone(browser: Any, folder: Path) -> None:
    reader = Reader(browser, folder, viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    page = reader.open("#/methods")
    pages = (
        "#/dataset/made_up?columns=published,all,costs,categories,unrun", "#/dataset/made_up/costs",
        "#/dataset/made_up/gallery", "#/dataset/made_up/problems", "#/method/patchcore", "#/method/evil",
        "#/row/made_up/patchcore/full", "#/cell/made_up/patchcore/full/a", "#/cell/made_up/evil/full/b",
        "#/about",
    )  # fmt: skip
    for address in pages:
        reader.go(address)
        until(page, "!document.querySelector('.plot-host:empty')")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        assert page.evaluate("document.querySelector('main').scrollWidth <= innerWidth"), address
    assert page.evaluate("getComputedStyle(document.querySelector('.skip')).transitionDuration") == "0s"
    reader.context.close()
    assert reader.wrong == []


def test_tables_are_tables_for_a_screen_reader(reader: Reader) -> None:
    page = reader.open()
    assert page.locator("html").get_attribute("lang") == "en"
    for address in (
        "#/methods",
        "#/row/made_up/patchcore/full",
        "#/dataset/made_up/gallery",
        "#/method/patchcore",
    ):
        reader.go(address)
        unlabelled = page.evaluate(
            """() => [...document.querySelectorAll('table')].filter(table => !table.caption).length
            + document.querySelectorAll('th:not([scope])').length
            + [...document.querySelectorAll('img')].filter(image => !image.hasAttribute('alt')).length
            + [...document.querySelectorAll('select, input')].filter(one => !one.labels.length).length
            + document.querySelectorAll('.scroller:not([tabindex="0"][aria-label][role="region"])').length"""
        )
        assert unlabelled == 0, address
        assert page.locator("h1").count() == 1


def test_data_are_loaded_when_they_are_needed(reader: Reader) -> None:
    asked: list[str] = []
    reader.page.on("request", lambda request: asked.append(request.url.rpartition("/html/")[2]))
    reader.open()
    data = [name for name in asked if name.startswith("data/")]
    assert data == ["data/index.js", "data/sets/made_up.js"]
    assert not [name for name in asked if "vendor" in name]
    stored = json.loads((reader.folder / "manifest.json").read_text())
    assert "data/rows/made_up/padim/full.js" in stored
