"""Texts with layers of several sources, from one file or several."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.entities import Annotation, Entity
from processors.examples import DataError
from processors.layers import LayeredText, read_layers
from processors.spans import Reading

WORDS = ["Anna", "met", "Bob", "in", "New", "York"]
TEXT = " ".join(WORDS)


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    return str(path)


def read(*files: str) -> tuple[list[LayeredText], dict[str, int]]:
    texts, findings = read_layers(files, Reading())
    return texts, findings.counts


def test_spans_count_what_they_count_for_readers(tmp_path: Path) -> None:
    spans = {"a": [[0, 4, "PER"]], "b": [], "c": None, "d": {"spans": [[9, 12, "PER"]], "annotated": [[0, 12]]}}
    words = {"a": [{"start": 4, "end": 6, "label": "LOC"}], "d": {"spans": [], "complete": ["PER"]}}
    file = write(tmp_path / "x.jsonl", {"id": 7, "text": TEXT, "sources": spans}, {"tokens": WORDS[:5], "sources": {}})
    one, two = read(file)[0]
    assert (one.example.guid, one.example.entities, two.layers, two.example.guid) == ("7", None, {}, "x-1")
    assert one.layers == {
        "a": Annotation(6, [Entity("PER", 0, 0)], []),
        "b": Annotation(6, [], []),
        "d": Annotation(6, [Entity("PER", 2, 2)], [(3, 5)]),
    }
    (third,) = read(write(tmp_path / "y.jsonl", {"tokens": WORDS, "tags": ["O"] * 6, "sources": words}))[0]
    assert third.example.entities == []
    assert third.layers == {
        "a": Annotation(6, [Entity("LOC", 4, 5)], []),
        "d": Annotation(6, [], [], frozenset(["PER"])),
    }


def test_files_of_the_same_texts_are_put_together(tmp_path: Path) -> None:
    anna = write(
        tmp_path / "anna.jsonl", {"text": "Anna-Maria left", "label": [[0, 4, "PER"]]}, {"text": TEXT, "label": []}
    )
    columns = tmp_path / "bob.txt"
    columns.write_text("Anna-Maria B-PER\nleft O\n\nAnna-Maria B-ORG\nleft O\n", "utf-8")
    gold = write(tmp_path / "gold.jsonl", {"tokens": WORDS, "tags": ["B-PER", "?", "O", "O", "B-LOC", "I-LOC"]})
    texts, counts = read(f"anna={anna}", f"bob={columns}", gold)
    assert counts == {"entities that begin or end inside a word of the other file, widened": 1}
    assert [one.example.words for one in texts] == [["Anna-Maria", "left"], WORDS, ["Anna-Maria", "left"]]
    assert [texts[0].layers[name].entities for name in ("anna", "bob")] == [[Entity("PER", 0, 0)]] * 2
    assert list(texts[2].layers) == ["bob"]
    assert texts[1].example.entities == [Entity("PER", 0, 0), Entity("LOC", 4, 5)]
    assert texts[1].example.unannotated == [(1, 1)]
    assert list(texts[1].layers) == ["anna"]


def test_all_faults_of_all_files_are_told(tmp_path: Path) -> None:
    record = {"text": TEXT, "sources": {"a": []}}
    one = write(tmp_path / "one.jsonl", record, {"text": "x", "sources": []}, {"text": "y", "sources": ["a"]}, 3)
    two = write(
        tmp_path / "two.jsonl",
        record,
        {"text": TEXT, "id": "k", "sources": {"a": [[0, 99, "PER"]], "b": [["PER"]]}},
        {"sentences": [["a"], ["b"]], "ner": [[], []], "sources": {"a": []}},
    )
    with pytest.raises(DataError) as found:
        read(one, two, str(tmp_path / "none.jsonl"))
    said = str(found.value)
    for part in (
        "one.jsonl:3: one-2: sources is ['a']",
        "one.jsonl:4: expected a JSON object",
        "two.jsonl:1: two-0: the source a has annotated this text before",
        "two.jsonl:2: k: b: cannot read the annotation",
        "two.jsonl:3: two-2: sources of a document of several sentences",
        "none.jsonl: there is no such file",
    ):
        assert part in said
    gold = [write(tmp_path / f"{name}.jsonl", {"text": TEXT, "label": [[0, 4, name]]}) for name in ("A", "B")]
    with pytest.raises(DataError, match=r"B\.jsonl:1: B-0: this text has another annotation in an earlier file"):
        read(*gold)
    assert len(read(gold[0], gold[0])[0]) == 1
