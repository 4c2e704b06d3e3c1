"""Lines of submission files."""

import json

import pytest

from processors.formats.writers import SUBMISSIONS, cluener_line, json_line
from processors.spans import Span
from processors.tasks import TASKS
from processors.text.word_cutting import WordCutter


def test_a_cluener_line_has_surfaces_with_inclusive_ends() -> None:
    entities = [Span("name", 0, 3), Span("company", 4, 6), Span("name", 7, 10), Span("name", 11, 12)]
    line = cluener_line("7", "叶老桂在浙商和叶老桂、桂", entities)
    label = {"name": {"叶老桂": [[0, 2], [7, 9]], "桂": [[11, 11]]}, "company": {"浙商": [[4, 5]]}}
    assert json.loads(line) == {"id": 7, "label": label}


def test_a_line_is_one_line_of_readable_chinese() -> None:
    line = cluener_line("7", "叶\n", [Span("name", 0, 2)])
    assert "叶" in line
    assert "\n" not in line


def test_a_text_without_entities_has_an_empty_label() -> None:
    assert json.loads(cluener_line("0", "无", [])) == {"id": 0, "label": {}}


@pytest.mark.parametrize(("guid", "written"), [("12", 12), ("test-3", "test-3")])
def test_an_id_is_a_number_where_it_is_one(guid: str, written: int | str) -> None:
    assert json.loads(cluener_line(guid, "", []))["id"] == written


def test_words_of_cluener_are_the_characters_that_submissions_count() -> None:
    text = "iPhone 4S 😀 a"
    assert WordCutter(TASKS["cluener"].word_unit).split(text)[0] == list(text)


def test_every_submission_that_a_task_names_exists() -> None:
    assert {task.submission for task in TASKS.values()} - {None} == set(SUBMISSIONS)


@pytest.mark.parametrize(("text", "read"), [("四川", "四川"), ("\ud83d", "\ufffd"), ("a\udc00b", "a\ufffdb")])
def test_a_line_is_utf8_without_lone_surrogates(text: str, read: str) -> None:
    line = json_line({"text": text})
    assert json.loads(line.encode("utf-8")) == {"text": read}
    assert "\\u" not in line
