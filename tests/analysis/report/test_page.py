"""The HTML of the page: well-formed, escaped, self-contained."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis.documents import ScoredDocument
from analysis.report.page import report_page, write_report
from analysis.report.run_data import read_run
from common.entities import Entity
from tests.analysis.report.scored import document, documents_of_each_kind, write_split
from tests.tools.runs import FinishedRun, start_script

_VOID = {"meta", "link", "input"}


class _Elements(HTMLParser):
    """Collects start tags with attributes; fails if elements are closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def elements_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Elements()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser.found


def data_of(page: str) -> dict[str, dict[str, list[list[object]]]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def page_with(run: FinishedRun, folder: Path, documents: list[ScoredDocument]) -> str:
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*", "test_*"))
    write_split(folder, "eval", documents)
    return report_page(read_run(folder))


@pytest.mark.parametrize("head", ["crf", "softmax"])
def test_a_page_of_a_run_is_well_formed_and_needs_nothing_from_outside(
    head: str, crf_run: FinishedRun, softmax_run: FinishedRun
) -> None:
    page = report_page(read_run((crf_run if head == "crf" else softmax_run).folder))
    elements = elements_of(page)
    links = [attributes.get(name) for _, attributes in elements for name in ("src", "href", "action", "srcset")]
    assert all(link.startswith(("#", "data:,")) for link in links if link)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    anchors = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert {link[1:] for link in links if link and link.startswith("#")} <= anchors
    assert ("transitions" in anchors) == (head == "crf")
    labelled = [attributes.get("aria-labelledby") for tag, attributes in elements if tag == "section"]
    assert set(labelled) <= anchors


def test_scores_are_those_of_the_run(crf_run: FinishedRun) -> None:
    run = read_run(crf_run.folder)
    page = report_page(run)
    for split in run.splits:
        assert f"<strong>{100 * split.results['f1']:.2f}</strong>" in page
        low, high = split.results["intervals"]["f1"]
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in page
        assert len(data_of(page)["splits"][split.name]) == len(split.documents)


def test_hostile_text_stays_text(crf_run: FinishedRun, tmp_path: Path) -> None:
    words = '</script><script>alert(1)</script> <!-- \u2028 " \ud800 <img/src=x>'
    bad = document('"><b>', words, [Entity("<i>TYPE</i>", 0, 0)], [Entity("<i>TYPE</i>", 0, 0)])
    page = page_with(crf_run, tmp_path / "<run>", [bad])
    tags = {tag for tag, _ in elements_of(page)}
    assert "img" not in tags
    assert page.count("<script") == 3
    ((guid, text, _),) = data_of(page)["splits"]["dev"]
    assert guid == '"><b>'
    assert text == words.replace("\ud800", "\ufffd")
    assert "<i>TYPE" not in page


def test_thousands_of_sentences_stay_small(crf_run: FinishedRun, tmp_path: Path) -> None:
    documents = documents_of_each_kind(1000)
    empty = len(page_with(crf_run, tmp_path / "empty", documents[:1]))
    assert len(page_with(crf_run, tmp_path / "full", documents)) - empty < 110 * len(documents)


def test_what_is_missing_is_named_with_its_command(crf_run: FinishedRun, tmp_path: Path) -> None:
    kept = shutil.ignore_patterns("checkpoint-*", "eval_*", "test_*", "tensorboard")
    shutil.copytree(crf_run.folder, tmp_path / "run", ignore=kept)
    page = report_page(read_run(tmp_path / "run"))
    elements_of(page)
    assert "Scores and sentences of dev" in page
    assert "--do_eval=True" in page
    assert 'id="sentences"' not in page


def test_the_command_writes_where_it_is_told(crf_run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(crf_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    finished = start_script("-m", "analysis.report", str(tmp_path / "run"))
    assert str(tmp_path / "run" / "report.html") in finished.stdout, finished.stderr
    assert write_report(tmp_path / "run", tmp_path / "other.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_command_refuses_a_folder_without_a_run(tmp_path: Path) -> None:
    finished = start_script("-m", "analysis.report", str(tmp_path))
    assert finished.returncode == 1
    assert "holds no run" in finished.stderr
    assert "Traceback" not in finished.stderr
