"""The page in headless Chromium, from a file, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.report.page import write_report
from tests.analysis.report.scored import documents_of_each_kind, write_split
from tests.tools.runs import FinishedRun

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(_CHROMIUM is None, reason="there is no Chromium")]
COPIES = 30  # 180 sentences, 4 pages

# The contrast of a text with all that lies below it, by WCAG 2.2.
_CONTRAST = """(element) => {
  const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext("2d", {willReadFrequently: true});
  const luminance = (colours) => {
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    const [red, green, blue] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((value) => value / 255).map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const below = [];
  for (let one = element; one; one = one.parentElement) below.unshift(getComputedStyle(one).backgroundColor);
  const text = getComputedStyle(element).color;
  const [dark, light] = [luminance(below), luminance([...below, text])].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}"""


@pytest.fixture(scope="module")
def report(crf_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a CRF whose dev split has ``COPIES`` sentences of each kind."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(crf_run.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    write_split(folder, "eval", documents_of_each_kind(COPIES))
    return write_report(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report; a test fails if the browser logs an error or requests anything."""
    page = browser.new_page(viewport={"width": 1100, "height": 800}, color_scheme="light")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.goto(report.as_uri())
    yield page
    page.close()
    assert complaints == []


def status(page: Any) -> str:
    return page.inner_text("#status")


def ids(page: Any) -> list[str]:
    return page.locator("#list > li > .id").all_inner_texts()


def focused_id(page: Any) -> str:
    return page.evaluate("document.activeElement.querySelector('.id')?.textContent")


def test_errors_come_first_and_pages_turn(page: Any) -> None:
    assert status(page) == "180 of 180 sentences"
    assert page.inner_text("#page") == "page 1 of 4"
    assert len(ids(page)) == 50
    assert not any(one.startswith("right") for one in ids(page))
    assert page.locator("#previous").is_disabled()
    for _ in range(3):
        page.click("#next")
    assert all(one.startswith("right") for one in ids(page))
    assert len(ids(page)) == COPIES
    assert page.locator("#next").is_disabled()


@pytest.mark.parametrize(("label", "kind"), [("type", "type"), ("type and boundary", "both"), ("missed", "missed")])
def test_a_kind_of_error_can_be_chosen(page: Any, label: str, kind: str) -> None:
    page.locator("#filters .chips label").filter(has_text=f"{label} {COPIES}").first.click()
    assert {one.partition("-")[0] for one in ids(page)} == {kind}
    assert status(page) == f"{COPIES} of 180 sentences"
    page.click("#filters button[type=reset]")
    page.wait_for_function("document.querySelector('#status').textContent.startsWith('180')")


def test_types_search_and_order_can_be_chosen(page: Any) -> None:
    page.select_option("[name=gold]", "-")
    assert {one.partition("-")[0] for one in ids(page)} == {"spurious"}
    page.select_option("[name=predicted]", "PER")
    assert status(page) == "0 of 180 sentences"
    page.select_option("[name=gold]", "PER")
    assert {one.partition("-")[0] for one in ids(page)} == {"right", "boundary"}
    page.fill("[name=search]", "BOUNDARY anna")
    assert {one.partition("-")[0] for one in ids(page)} == {"boundary"}
    assert page.locator("#list > li").first.locator("mark").all_text_contents() == ["boundary ", "Anna"]
    page.select_option("[name=order]", "sure")
    assert ids(page) == [f"boundary-{copy}" for copy in reversed(range(COPIES))]
    page.select_option("[name=order]", "unsure")
    assert ids(page) == [f"boundary-{copy}" for copy in range(COPIES)]


def test_a_cell_of_the_confusion_shows_its_sentences(page: Any) -> None:
    page.click("[data-split=dev] button.cell[data-gold=LOC][data-predicted='-']")
    assert {one.partition("-")[0] for one in ids(page)} == {"missed"}
    page.click("[data-split=dev] .kinds button[data-kind='5']")
    assert {one.partition("-")[0] for one in ids(page)} == {"spurious"}


def test_places_are_marked_and_named(page: Any) -> None:
    page.fill("[name=search]", "boundary-7")
    (sentence,) = page.locator("#list > li").all()
    assert sentence.locator(".text").inner_text().startswith("boundary Anna Lee1 🎈 of <b>Rome</b>")
    assert sentence.locator(".text .gold").all_inner_texts() == ["Anna", " Lee"]
    assert sentence.locator(".text .gold .predicted").all_inner_texts() == ["Anna"]
    words = sentence.locator("ol li").inner_text().split()
    assert words == ["1", "boundary", "gold", "Anna", "Lee", "PER", "predicted", "Anna", "PER", "0.258"]


def test_the_other_split_takes_the_place_of_this(page: Any) -> None:
    page.check("input[value=test]", force=True)
    assert status(page) == "20 of 20 sentences"
    assert page.locator("#scores [data-split=dev]").is_hidden()
    assert page.locator("#scores [data-split=test]").is_visible()


def test_keys_go_from_sentence_to_sentence_and_over_pages(page: Any) -> None:
    order = ids(page)
    for key in ("j", "j", "ArrowDown", "k", "ArrowUp"):
        page.keyboard.press(key)
    assert focused_id(page) == order[0]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("n")
    assert page.inner_text("#page") == "page 2 of 4"
    page.keyboard.press("k")
    assert focused_id(page) == order[-1]
    page.keyboard.press("/")
    page.keyboard.type("jk/n")
    assert page.input_value("[name=search]") == "jk/n"
    assert page.locator("#list [tabindex='0']").count() == 0


def test_tab_reaches_every_control_and_shows_where_it_is(page: Any) -> None:
    reached = []
    for _ in range(120):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => {
          const one = document.activeElement, shown = one.matches("input") && one.nextElementSibling || one;
          return [one.id || one.name || one.tagName, getComputedStyle(shown).outlineStyle];
        }""")
        if name == "BODY":
            break
        assert outline in ("solid", "auto"), name
        reached.append(name)
    wanted = ["theme", "split", "search", "kind", "gold", "predicted", "order", "LI", "next"]
    places = [reached.index(name) for name in wanted]
    assert places == sorted(places)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_in_both_themes(page: Any, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    selectors = (
        ".lead, dt, dd, caption, th, td, figcaption, nav a, button, .id, .kind, .type, .sure, .right, sup, .chips span"
    )
    contrasts = page.eval_on_selector_all(
        selectors,
        f"(all) => all.filter((one) => one.checkVisibility()).map((one) => [({_CONTRAST})(one), one.outerHTML])",
    )
    assert len(contrasts) > 100
    low = [(round(contrast, 2), html[:120]) for contrast, html in contrasts if contrast < 4.5]
    low = [one for one in low if "disabled" not in one[1]]
    assert low == []


def test_the_theme_follows_the_system_until_it_is_chosen(page: Any) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    assert (dark := page.evaluate(paper)) != light
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: light"
    assert page.evaluate(paper) == light
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert page.evaluate(paper) == dark
    page.reload()
    assert page.evaluate(paper) == dark
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: auto"


@pytest.mark.parametrize("width", [320, 400, 800])
def test_nothing_sticks_out_of_a_narrow_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_scores_are_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#scores .figures").first.is_visible()
    assert "needs JavaScript" in page.inner_text("#sentences")
    context.close()
