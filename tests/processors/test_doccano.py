"""doccano's lines as the tool writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processors.doccano import record_of
from processors.examples import DataError, Example, Findings
from processors.json_reader import read_json
from processors.spans import SpanReader
from processors.tag_schemes import tags_to_entities

TEXT = "Anna met Bob."
FOUND = [("PER", 0, 1), ("PER", 2, 3)]
SPANS = [[0, 4, "PER"], [9, 12, "PER"]]
ENTITIES = [
    {"id": 5, "label": "PER", "start_offset": 0, "end_offset": 4},
    {"id": 6, "label": "PER", "start_offset": 9, "end_offset": 12},
]
RELATION = {"id": 1, "from_id": 5, "to_id": 6, "type": "knows"}


def read(path: Path, *records: dict[str, Any], **reading: Any) -> tuple[list[Example], Findings]:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    reader = SpanReader(**reading)
    return list(read_json(path, "train", reader)), reader.findings


@pytest.mark.parametrize(
    ("annotation", "counts"),
    [
        ({"label": SPANS}, {}),
        ({"labels": SPANS}, {}),
        ({"label": SPANS, "Comments": ["sure?"]}, {"comments, not used": 1}),
        ({"Comments": [], "entities": ENTITIES, "relations": []}, {}),
        ({"entities": ENTITIES, "relations": [RELATION]}, {"relations, not used": 1}),
    ],
)
def test_each_export_is_read(tmp_path: Path, annotation: dict[str, Any], counts: dict[str, int]) -> None:
    (example,), findings = read(tmp_path / "train.jsonl", {"id": 17, "text": TEXT, **annotation, "source": "web"})
    assert (example.guid, example.text) == ("17", TEXT)
    assert tags_to_entities(example.labels or []) == FOUND
    assert findings.counts == counts


def test_an_entity_without_an_end_is_refused_with_its_line(tmp_path: Path, at: Callable[..., str]) -> None:
    path = tmp_path / "train.jsonl"
    records = {"text": TEXT, "label": []}, {"text": TEXT, "entities": [{"start_offset": 0, "label": "PER"}]}
    with pytest.raises(DataError, match=at(path, 2, "cannot read the spans", "end_offset")):
        read(path, *records)


@pytest.mark.parametrize("unit", ["code_point", "utf16"])
def test_lines_are_written_in_either_count(tmp_path: Path, unit: str) -> None:
    text = "👩 Anna"
    example = Example("a", ["👩", "Anna"], ["O", "B-PER"], text, [(0, 1), (2, 6)])
    record = record_of(example, unit)
    assert record == {"id": "a", "text": text, "label": [[3, 7, "PER"] if unit == "utf16" else [2, 6, "PER"]]}
    (back,), findings = read(tmp_path / "train.jsonl", record, edges="error", offset_unit=unit)
    assert (back.labels, findings.counts) == (["O", "B-PER"], {})


def test_an_unlabelled_text_has_no_label() -> None:
    assert record_of(Example("a", ["x"])) == {"id": "a", "text": "x"}
