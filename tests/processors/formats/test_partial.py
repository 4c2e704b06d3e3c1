"""What files say is not annotated: tags, regions, and types; reading and writing."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.entities import Annotation, Entity
from processors.corpus import Corpus
from processors.examples import DataError, Example
from processors.formats.columns import read_columns
from processors.formats.json_files import read_json
from processors.formats.writers import FORMATS
from processors.spans import Reading


def read(tmp_path: Path, *records: dict[str, Any], **reading: Any) -> list[Example]:
    path = tmp_path / "train.json"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return list(read_json(path, Reading(**reading)))


@pytest.mark.parametrize("tags", ["? B-PER I-PER ? O", "? b_PER i_PER ? O"])
def test_a_question_mark_is_the_tag_of_a_word_that_is_not_annotated(tmp_path: Path, tags: str) -> None:
    words = ["a", "b", "c", "d", "e"]
    path = tmp_path / "train.txt"
    path.write_text("".join(f"{word} {tag}\n" for word, tag in zip(words, tags.split(), strict=True)), "utf-8")
    reading = Reading()
    (of_columns,) = read_columns(path, reading)
    (of_json,) = read(tmp_path, {"tokens": words, "tags": tags.split()})
    for one in (of_columns, of_json):
        assert (one.entities, one.unannotated) == ([Entity("PER", 1, 2)], [(0, 0), (3, 3)])
    scheme = reading.tags.scheme("train.txt")
    assert scheme is not None
    assert (scheme.name, reading.tags.illegal(scheme)) == ("IOB2", (0, 0))


def test_an_entity_after_an_unknown_word_may_begin_there(tmp_path: Path) -> None:
    (one,) = read(tmp_path, {"tokens": ["a", "b"], "tags": ["?", "I-PER"]})
    assert (one.entities, one.unannotated) == ([Entity("PER", 1, 1)], [(0, 0)])


def test_regions_count_as_the_spans_of_their_record(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 4, "label": "PER"}]
    of_text, of_words, of_tags = read(
        tmp_path,
        {"text": "Anna saw Bob there", "spans": spans, "annotated": [[4, 8], [10, 18]]},
        {"tokens": ["Anna", "saw", "Bob", "there"], "entity_mentions": [], "annotated": [[1, 2], [3, 4]]},
        {"tokens": ["Anna", "saw", "Bob", "there"], "tags": ["B-PER", "O", "O", "O"], "annotated": [[1, 2]]},
    )
    assert (of_text.entities, of_text.unannotated) == ([Entity("PER", 0, 0)], [(2, 2)])  # Bob is cut by a region
    assert (of_words.entities, of_words.unannotated) == ([], [(0, 0), (2, 2)])
    assert (of_tags.entities, of_tags.unannotated) == ([Entity("PER", 0, 0)], [(2, 3)])


def test_regions_count_in_the_unit_of_the_spans(tmp_path: Path) -> None:
    spans = [{"start": 3, "end": 7, "label": "PER", "text": "Anna"}]
    (one,) = read(tmp_path, {"text": "\U0001f600 Anna saw Bob", "spans": spans, "annotated": [[3, 11]]})
    assert one.words[1:] == ["Anna", "saw", "Bob"]
    assert (one.entities, one.unannotated) == ([Entity("PER", 1, 1)], [(0, 0), (3, 3)])


def test_types_may_be_complete_per_text_or_per_corpus(tmp_path: Path) -> None:
    records = [{"tokens": ["a"], "tags": ["B-PER"]}, {"tokens": ["b"], "tags": ["O"], "complete": ["LOC", "PER"]}]
    assert [one.complete for one in read(tmp_path, *records)] == [None, frozenset({"LOC", "PER"})]
    corpus = Corpus("mine", split_files={"train": tmp_path / "train.json"}, complete_types=("PER",))
    assert [one.complete for one in corpus.examples("train")] == [frozenset({"PER"}), frozenset({"LOC", "PER"})]
    inventory = corpus.inventory("train")
    assert (inventory.incomplete, inventory.complete_types) == (2, {"PER": 2, "LOC": 1})
    assert Example("a", ["b"], [], complete=frozenset()).annotation == Annotation(1, [], [], frozenset())


def test_of_a_binary_answer_of_prodigy_only_its_span_is_known(tmp_path: Path) -> None:
    record = {"text": "Anna saw Bob", "spans": [{"start": 9, "end": 12, "label": "PER"}], "_is_binary": True}
    (one,) = read(tmp_path, {**record, "answer": "accept"}, {**record, "answer": "reject"})
    assert (one.entities, one.unannotated) == ([Entity("PER", 2, 2)], [(0, 1)])


def test_label_studio_tells_it_in_the_data_of_a_task(tmp_path: Path) -> None:
    data = {"text": "Anna saw Bob", "annotated": [[0, 8]], "complete": ["PER"]}
    (one,) = read(tmp_path, {"data": data, "annotations": [{"result": []}]})
    assert (one.entities, one.unannotated, one.complete) == ([], [(2, 2)], frozenset({"PER"}))


def test_faults_name_the_record_and_what_is_expected(tmp_path: Path) -> None:
    record = {"tokens": ["a", "b"], "tags": ["O", "O"]}
    wrong: list[dict[str, Any]] = [
        {"annotated": [[0, 3]]},
        {"annotated": [[1, 1]]},
        {"annotated": [0, 1]},
        {"complete": [1]},
    ]
    with pytest.raises(DataError) as caught:
        read(tmp_path, *(record | one for one in wrong))
    for message in (
        "train.json:1: train-0: the annotated region [0, 3) lies outside the 2 words",
        "train.json:2: train-1: annotated: [1, 1] is no region; expected 0 <= start < end (exclusive)",
        "train.json:3: train-2: annotated is [0, 1]; expected a list of [start, end]",
        "train.json:4: train-3: complete is [1]; expected a list of entity types",
    ):
        assert message in str(caught.value)


PARTIAL = Example("a", ["Anna", "saw", "\U0001f600", "Bob"], [Entity("A", 0, 0)], unannotated=[(2, 2)])


@pytest.mark.parametrize("name", ["jsonl", "doccano", "doccano_utf16", "label_studio", "conll"])
def test_what_is_not_annotated_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    complete = None if name == "conll" else frozenset({"A", "B"})
    example = Example("a", PARTIAL.words, PARTIAL.entities, unannotated=PARTIAL.unannotated, complete=complete)
    path = tmp_path / f"out{FORMATS[name].suffix}"
    assert not FORMATS[name].write([example], path).counts
    reading = Reading(offset_unit="utf16" if name == "doccano_utf16" else "code_point")
    (back,) = (read_columns if name == "conll" else read_json)(path, reading)
    assert (back.entities, back.unannotated, back.complete) == (example.entities, example.unannotated, complete)


@pytest.mark.parametrize("name", ["brat", "conll"])
def test_formats_that_cannot_mark_it_refuse(tmp_path: Path, name: str) -> None:
    types = Example("b", ["u"], [], complete=frozenset({"A"}))
    with pytest.raises(DataError, match="b: only A is annotated completely, which this format cannot mark"):
        FORMATS[name].write([types], tmp_path / "out")
    if name == "brat":
        with pytest.raises(DataError, match="a: words 2 to 2 are not annotated, which this format cannot mark"):
            FORMATS[name].write([PARTIAL], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
