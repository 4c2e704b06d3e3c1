"""Label Studio's exports as the tool writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processors.examples import DataError, Example, Findings
from processors.formats.json_files import read_json
from processors.formats.label_studio import task_of
from processors.spans import Reading
from tests.tags import iob2, tagged

TEXT = "Anna 😀 met Bob in Paris"


def region(start: int, end: int, label: str, text: str | None = None, **more: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"start": start, "end": end, "labels": [label]}
    if text is not None:
        value["text"] = text
    names = {"from_name": "label", "to_name": "text", "type": "labels", "origin": "manual"}
    return {"value": value, "id": f"r{start}", **names, **more}


def annotation(*regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    dates = {"created_at": "2024-05-02T10:21:33.512Z", "lead_time": 12.3}
    return {"id": 9, "completed_by": 1, "result": list(regions), "was_cancelled": False, **dates, **more}


def task(*annotations: dict[str, Any], text: str = TEXT, **more: Any) -> dict[str, Any]:
    task: dict[str, Any] = {"id": 41, "annotations": list(annotations), "file_upload": "a.json", "drafts": []}
    return {**task, "predictions": [], "data": {"text": text}, "meta": {}, "project": 3, **more}


ANNA, BOB, PARIS = region(0, 4, "PER", "Anna"), region(11, 14, "PER", "Bob"), region(18, 23, "LOC", "Paris")
FOUND = [("PER", 0, 0), ("PER", 3, 3), ("LOC", 5, 5)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[list[Example], Findings]]:
    """Writes records as Label Studio does and reads them."""

    def write_and_read(*records: Any, labelled: bool = True, **reading: Any) -> tuple[list[Example], Findings]:
        reader = Reading(labelled=labelled, **reading)
        path = tmp_path / "train.json"
        path.write_text(json.dumps(records, indent=2, ensure_ascii=False), "utf-8")
        return list(read_json(path, reader)), reader.findings

    return write_and_read


Read = Callable[..., tuple[list[Example], Findings]]


def test_a_task_of_the_json_export(read: Read) -> None:
    (example,), findings = read(task(annotation(ANNA, BOB, PARIS)))
    assert (example.guid, example.text, example.line) == ("41", TEXT, 2)
    assert example.entities == FOUND
    assert findings.counts == {}


def test_an_export_from_before_2021_ends_counts_as_javascript_does(read: Read) -> None:
    (example,), findings = read(task(annotation(ANNA, region(12, 15, "PER", "Bob"), region(19, 24, "LOC", "Paris"))))
    assert example.entities == FOUND
    assert findings.counts == {"texts with offsets in another unit (utf16), as their entities show": 1}


def test_a_record_of_json_min(read: Read) -> None:
    regions = [one["value"] for one in (ANNA, BOB, PARIS)]
    record = {"text": TEXT, "id": 41, "label": regions, "annotator": 1, "annotation_id": 9, "lead_time": 2.5}
    second = {**record, "label": [], "annotator": 2, "annotation_id": 10}
    (example,), findings = read(record, second)
    assert (example.guid, example.entities) == ("41", FOUND)
    assert findings.counts == {"annotations after the first of their text, left out": 1}


def test_the_first_annotation_that_is_not_cancelled_counts(read: Read) -> None:
    cancelled, empty = annotation(ANNA, was_cancelled=True), annotation()
    examples, findings = read(task(cancelled, annotation(BOB), empty), task(empty, annotation(BOB), id=42))
    assert [example.entities for example in examples] == [[("PER", 3, 3)], []]
    assert findings.counts == {
        "cancelled annotations, left out": 1,
        "annotations after the first of their text, left out": 2,
    }


def test_tasks_that_nobody_annotated_are_left_out_of_training_and_predicted(read: Read) -> None:
    predicted = task(predictions=[{"result": [ANNA], "score": 0.5}])
    skipped = task(annotation(ANNA, was_cancelled=True))
    examples, findings = read(predicted, skipped, task(annotation(BOB)))
    assert len(examples) == 1
    assert findings.counts["tasks without an annotation, left out"] == 2
    assert findings.counts["predictions, not used"] == 1
    examples, _ = read(predicted, skipped, labelled=False)
    assert [iob2(example) for example in examples] == [None, None]


def test_what_marks_no_text_is_counted(read: Read) -> None:
    relation = {"from_id": "r0", "to_id": "r11", "type": "relation", "direction": "right"}
    choice = {"value": {"choices": ["good"]}, "from_name": "quality", "to_name": "text", "type": "choices"}
    both = region(0, 4, "PER", "Anna")
    both["value"]["labels"].append("VIP")
    (example,), findings = read(task(annotation(both, relation, choice)))
    assert example.entities == [("PER", 0, 0)]
    assert findings.counts == {
        "labels after the first of their region, left out": 1,
        "Label Studio results that mark no text with a label, not used": 2,
    }


def test_a_region_s_text_may_be_something_else(read: Read) -> None:
    odd = region(0, 4, "PER")
    odd["value"]["text"] = ["Anna"]
    (example,), _ = read(task(annotation(odd)), edges="error")
    assert example.entities == [("PER", 0, 0)]


def test_a_region_may_have_one_label_that_is_no_list(read: Read) -> None:
    alone = region(0, 4, "PER")
    alone["value"]["labels"] = "PER"
    (example,), findings = read(task(annotation(alone)))
    assert example.entities == [("PER", 0, 0)]
    assert findings.counts == {}


def test_regions_that_repeat_no_text_are_read_by_their_offsets(read: Read) -> None:
    (example,), findings = read(task(annotation(region(11, 14, "PER"))))
    assert example.entities == [("PER", 3, 3)]
    assert len(findings.counts) == 1  # the emoji before it may count as two


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (task(annotation(), data={"image": "a.png"}), "no text among the task's data (image)"),
        (task(annotation(), data={"a": "x y", "b": "y z"}), "several of the task's data could be its text (a, b)"),
        (
            task(annotation({**ANNA, "value": {"start": 0, "end": 4, "labels": 5}})),
            "its labels are not a list of strings",
        ),
        (task(annotations={"result": []}), "annotations is not a list of objects"),
        (task(annotation(result=["x"])), "result is not a list of objects"),
        (task(annotation(region("x", 3, "PER"))), "cannot read the region"),  # type: ignore[arg-type]
        (task(annotation(region(0, 99, "PER"))), "PER [0, 99) lies outside"),
    ],
)
def test_a_bad_task_is_refused_with_its_line_and_number(
    read: Read, tmp_path: Path, at: Callable[..., str], record: Any, said: str
) -> None:
    with pytest.raises(DataError, match=at(tmp_path / "train.json", 2, "41: ", said)):
        read(record)


def marked(kind: str, label: Any, **value: Any) -> dict[str, Any]:
    """A region of some kind of label."""
    return {"id": "r", "from_name": "label", "to_name": "text", "type": kind, "value": {**value, kind: label}}


HTML = "<p>Anna &amp; Bob<br/>met in <b>Paris</b></p>"  # reads "Anna & Bob\nmet in Paris"


def in_html(start: int, end: int, label: str, text: str, **more: Any) -> dict[str, Any]:
    xpath = {"start": "/p[1]/text()[1]", "end": "/p[1]/text()[1]", "startOffset": 0, "endOffset": 1}
    return marked("hypertextlabels", [label], **xpath, text=text, **more, globalOffsets={"start": start, "end": end})


HYPERTEXT = [in_html(0, 4, "PER", "Anna"), in_html(7, 10, "PER", "Bob"), in_html(18, 23, "LOC", "Paris")]
DIALOGUE = [{"author": "A", "text": "I am Anna."}, {"author": "B", "text": "Bob, from Paris"}]


def in_dialogue(paragraph: int, start: int, end: int, label: str, text: str) -> dict[str, Any]:
    place = {"start": str(paragraph), "end": str(paragraph), "startOffset": start, "endOffset": end}
    return marked("paragraphlabels", [label], **place, text=text)


PARAGRAPHS = [
    in_dialogue(0, 5, 9, "PER", "Anna"),
    in_dialogue(1, 0, 3, "PER", "Bob"),
    in_dialogue(1, 10, 15, "LOC", "Paris"),
]
TAXONOMY = [
    marked("taxonomy", [["PER"]], start=0, end=4, text="Anna"),
    marked("taxonomy", [["PER"]], start=11, end=14, text="Bob"),
    marked("taxonomy", [["LOC", "city"]], start=18, end=23, text="Paris"),
]


@pytest.mark.parametrize(
    ("data", "regions", "text"),
    [
        ({"text": HTML}, HYPERTEXT, "Anna & Bob\nmet in Paris"),
        ({"html": HTML, "id": "x"}, HYPERTEXT, "Anna & Bob\nmet in Paris"),
        ({"dialogue": DIALOGUE}, PARAGRAPHS, "I am Anna.\nBob, from Paris"),
        ({"text": TEXT}, TAXONOMY, TEXT),
        ({"sentence": TEXT, "image": "https://example.org/a.png"}, [ANNA, BOB, PARIS], TEXT),
        ({"title": "Nothing", "body": TEXT}, [ANNA, BOB, PARIS], TEXT),
        ({"title": "Anna", "text": TEXT}, [ANNA, BOB, PARIS], TEXT),
        ({"a": "Anna Bob Paris", "b": TEXT}, [{**one, "to_name": "b"} for one in (ANNA, BOB, PARIS)], TEXT),
    ],
    ids=["hypertext", "html", "paragraphs", "taxonomy", "sentence", "body", "title", "to_name"],
)
def test_every_kind_of_label_that_marks_text_is_read(
    read: Read, data: dict[str, Any], regions: list[dict[str, Any]], text: str
) -> None:
    min_record = {**data, "id": 41, "label": [one["value"] for one in regions], "annotator": 1, "annotation_id": 9}
    records = [task(annotation(*regions), data=data)]
    if not any(region["to_name"] in data for region in regions):  # JSON-MIN does not name the text
        records.append({**min_record, "id": 42, "created_at": "2024-05-02T10:21:33.512Z"})
    for record in records:
        (example,), findings = read(record, edges="error")
        assert (example.text, findings.counts) == (text, {})
        offsets = example.offsets or []
        found = [
            (kind.partition("/")[0], text[offsets[first][0] : offsets[last][1]])
            for kind, first, last in example.entities or []
        ]
        assert found == [("PER", "Anna"), ("PER", "Bob"), ("LOC", "Paris")]


def test_texts_of_markup_without_entities_lose_their_tags_too(read: Read) -> None:
    (example,), _ = read(task(annotation(), text=HTML))
    assert (example.text, example.entities) == ("Anna & Bob\nmet in Paris", [])


def test_hypertext_without_offsets_in_its_text_is_refused(read: Read) -> None:
    regions = [{**one, "value": {**one["value"], "globalOffsets": None}} for one in HYPERTEXT]
    with pytest.raises(DataError, match=r"cannot read the region .*globalOffsets"):
        read(task(annotation(*regions), text=HTML))


def test_regions_of_another_text_notes_and_drafts_are_counted(read: Read) -> None:
    title = region(0, 5, "X", "Title", to_name="title")
    described = marked("taxonomy", [["a"]], start=0, end=4, text="Anna")
    noted = {**ANNA, "meta": {"text": ["sure?"]}}
    data = {"text": TEXT, "title": "Title"}
    (example,), findings = read(task(annotation(noted, title, described), data=data, drafts=[{"result": []}]))
    assert example.entities == [("PER", 0, 0)]
    assert findings.counts == {
        "drafts, not used": 1,
        "notes on regions, not used": 1,
        "regions of another text of their task, left out": 1,
        "Label Studio results that mark no text with a label, not used": 1,
    }


def test_predictions_are_written_as_such_with_their_confidence(read: Read) -> None:
    labels = ["B-PER", "O", "B-LOC"]
    example = tagged("d7", ["Anna", "in", "Paris"], labels, confidences=[0.75, 0.5])
    written = task_of(example)
    assert written["annotations"] == []
    (prediction,) = written["predictions"]
    assert prediction["score"] == 0.5
    assert [one["score"] for one in prediction["result"]] == [0.75, 0.5]
    assert prediction["result"][1]["value"] == {"start": 8, "end": 13, "text": "Paris", "labels": ["LOC"]}
    accepted = {**written, "id": 3, "annotations": [prediction], "predictions": []}
    (back,), _ = read(accepted)
    assert (back.guid, back.text, iob2(back)) == ("d7", "Anna in Paris", labels)
