"""Answers of language models as a source, from the command line."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from common.entities import Entity
from processors.layers import read_layers
from processors.spans import Reading
from tools import import_markup
from tools.script import run_script

TEXT = "Anna met Bob Smith in New York."


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    return path


def imported(folder: Path, *words: object) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records that are written, and the failures."""
    output = folder / "out" / "layer.jsonl"
    output.unlink(missing_ok=True)
    with patch.object(sys, "argv", ["import_markup", *map(str, words), "--output", str(output)]):
        run_script(import_markup.main)
    files = (output, output.with_suffix(".failures.jsonl"))
    records, failures = ([json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in files)
    return records, failures


def test_records_keep_what_they_have_and_get_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["Anna", "met", "Bob", "Smith-", "son"]
    marked = "<PER>Anna</PER> met Bob <PER>Smith</PER>- son"
    answers = [{"text": "Anna", "type": "PER"}, {"text": "Paris", "type": "LOC"}]
    path = write(
        tmp_path / "answers.jsonl",
        {"id": "one", "text": TEXT, "answer": json.dumps(answers), "sources": {"rules": []}, "meta": 1},
        {"tokens": words, "answer": marked},
        {"text": " ".join(words), "tokens": words, "answer": marked},
        {"text": TEXT, "answer": "<PER>Anna</PER> met"},
        {"text": TEXT, "answer": None},
    )
    records, failures = imported(tmp_path, path, "--source", "llm")
    lost = {"spans": [[0, 4, "PER"]], "complete": ["PER"]}  # Paris was not found
    assert records == [
        {"id": "one", "text": TEXT, "sources": {"rules": [], "llm": lost}, "meta": 1},
        {"tokens": words, "sources": {"llm": [[0, 1, "PER"], [3, 4, "PER"]]}},
        {"text": " ".join(words), "tokens": words, "sources": {"llm": [[0, 4, "PER"], [13, 19, "PER"]]}},
        {"text": TEXT, "sources": {}},
        {"text": TEXT},
    ]
    why = "no such words in the text"
    assert failures[0] == {"id": "one", "place": f"{path}:1", "why": why, "type": "LOC", "surface": "Paris"}
    assert [(one["place"], one["why"]) for one in failures[1:]] == [(f"{path}:4", "the answer is cut off")]
    lines = [" ".join(line.split()[1:-1]) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "texts │ 5",
        f"{why} │ 1",
        "texts without an answer │ 1",
        "answers that cannot be used │ 1",
        "entities │ 5",
    ):
        assert line in lines
    texts, _ = read_layers([str(tmp_path / "out" / "layer.jsonl")], Reading())
    assert [one.layers["llm"].entities for one in texts[1:2]] == [[Entity("PER", 0, 0), Entity("PER", 3, 3)]]


def test_answers_may_be_in_another_file(tmp_path: Path) -> None:
    texts, answers = tmp_path / "texts.txt", tmp_path / "answers.txt"
    texts.write_text(f"{TEXT}\nBob left.\n", "utf-8")
    answers.write_text(f"{TEXT.replace('Anna', '@@Anna##')}\nBob left.\n", "utf-8")
    records, _ = imported(tmp_path, texts, answers, "--types", "PER")
    assert [one["sources"] for one in records] == [{"model": [[0, 4, "PER"]]}, {"model": []}]
    assert records[1]["id"] == f"{texts}:2"
    records = [{"id": name, "text": TEXT} for name in ("a", "b")]
    given = write(tmp_path / "given.jsonl", {"id": "b", "answer": [["Bob Smiht", "PER"], ["New York", "XYZ"]]})
    options = [write(tmp_path / "texts.jsonl", *records), given, "--types", "PER", "LOC"]
    records, failures = imported(tmp_path, *options)
    assert [one.get("sources") for one in records] == [None, {"model": [[9, 18, "PER"]]}]
    assert [(one["why"], one["type"], one["surface"]) for one in failures] == [
        ("the type is unknown", "XYZ", "New York")
    ]
    _, failures = imported(tmp_path, *options, "--min_similarity", 1)
    assert len(failures) == 2


def test_all_that_is_wrong_with_the_files_is_told(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.jsonl", {"text": TEXT}, {"text": "x", "answer": [], "sources": {"model": []}}, 3)
    with pytest.raises(SystemExit) as end:
        imported(tmp_path, texts)
    for part in (
        "texts.jsonl:1: texts-0: no answer; add it, or name a file of answers",
        "texts.jsonl:2: texts-1: there is a source model already; choose another --source",
        "texts.jsonl:3: expected a JSON object, found int",
    ):
        assert part in str(end.value)
    texts = write(tmp_path / "texts.jsonl", {"id": "a", "text": TEXT}, {"id": "b", "text": TEXT})
    answers = write(tmp_path / "answers.jsonl", {"id": "a", "answer": ""}, {"id": "a"}, {"id": "c", "answer": ""})
    with pytest.raises(SystemExit) as end:
        imported(tmp_path, texts, answers)
    for part in (
        "answers.jsonl:2: no answer; found id",
        "answers.jsonl:2: a second answer to the id 'a'",
        "answers.jsonl:3: there is no text with the id 'c'",
    ):
        assert part in str(end.value)
    with pytest.raises(SystemExit, match="1 answers to 2 texts; give all answers the id of their text"):
        imported(tmp_path, texts, write(tmp_path / "answers.jsonl", {"answer": ""}))
    with (
        pytest.raises(SystemExit, match="already exists"),
        patch.object(sys, "argv", ["import_markup", str(texts), "--output", str(texts)]),
    ):
        run_script(import_markup.main)
