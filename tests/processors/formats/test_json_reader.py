"""JSON in its four forms, and annotations that do not fit their text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tag_schemes import tags_to_entities
from processors.corpus import Corpus
from processors.examples import DataError, Example
from processors.formats.json_files import read_json
from processors.spans import Reading
from tests.tags import iob2

Read = Callable[..., list[Example]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.json"


@pytest.fixture
def read(path: Path) -> Read:
    """Writes records as JSON lines (a string as it is) and reads them."""

    def write_and_read(*records: Any, labelled: bool = True, **reading: Any) -> list[Example]:
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return list(read_json(path, Reading(labelled=labelled, **reading)))

    return write_and_read


@pytest.mark.parametrize("token_key", ["tokens", "words"])
@pytest.mark.parametrize("tag_key", ["tags", "ner_tags", "labels"])
def test_tokens_with_tags(read: Read, token_key: str, tag_key: str) -> None:
    (example,) = read({token_key: ["New", "York", ""], tag_key: ["B-LOC", "I-LOC", "O"]})
    assert (example.words, iob2(example)) == (["New", "York", ""], ["B-LOC", "I-LOC", "O"])


@pytest.mark.parametrize("key", ["entities", "spans", "label", "labels"])
@pytest.mark.parametrize(
    "spans",
    [
        [[0, 8, "LOC"], [12, 16, "PER"]],
        [{"start": 0, "end": 8, "type": "LOC"}, {"start": 12, "end": 16, "type": "PER"}],
        [{"start": 12, "end": 16, "label": "PER"}, {"start": 0, "end": 8, "label": "LOC"}],
        {"LOC": {"New York": [[0, 7]]}, "PER": {"Anna": [[12, 15]]}},
    ],
    ids=["lists", "types", "labels", "cluener"],
)
def test_text_with_spans(read: Read, key: str, spans: Any) -> None:
    (example,) = read({"text": "New York is Anna.", key: spans})
    assert example.words == ["New", "York", "is", "Anna", "."]
    assert iob2(example) == ["B-LOC", "I-LOC", "O", "B-PER", "O"]
    assert example.text == "New York is Anna."
    assert example.offsets == [(0, 3), (4, 8), (9, 11), (12, 16), (16, 17)]


def test_chinese_text_is_cut_into_characters_of_which_spaces_are_some(read: Read) -> None:
    (example,) = read({"text": "叶老桂 AB。", "label": {"name": {"叶老桂": [[0, 2]]}, "game": {"AB": [[4, 5]]}}})
    assert example.words == list("叶老桂 AB。")
    assert iob2(example) == ["B-name", "I-name", "I-name", "O", "B-game", "I-game", "O"]


def test_an_entity_may_stand_at_several_places(read: Read) -> None:
    (example,) = read({"text": "中国中国", "label": {"address": {"中国": [[0, 1], [2, 3]]}}})
    assert example.entities == [("address", 0, 1), ("address", 2, 3)]


def test_nested_entities_are_all_read(read: Read) -> None:
    label = {
        "address": {"北京": [[0, 1]], "大学": [[2, 3]]},
        "organization": {"北京大学": [[0, 3]]},
        "name": {"他": [[5, 5]]},
    }
    (example,) = read({"text": "北京大学，他", "label": label})
    assert example.entities == [("organization", 0, 3), ("address", 0, 1), ("address", 2, 3), ("name", 5, 5)]


def test_a_repeated_annotation_counts_once(read: Read) -> None:
    (example,) = read({"text": "Anna", "spans": [[0, 4, "PER"], [0, 4, "PER"]]})
    assert example.entities == [("PER", 0, 0)]


@pytest.mark.parametrize("indent", [None, 4])
def test_the_object_form(read: Read, indent: int | None) -> None:
    entries = {"0": {"sents": "EU rejects", "ner_labels": "B-ORG O"}, "1": {"sents": "Peter", "ner_labels": "B-PER"}}
    examples = read(json.dumps(entries, indent=indent))
    assert [(example.guid, example.words, iob2(example)) for example in examples] == [
        ("0", ["EU", "rejects"], ["B-ORG", "O"]),
        ("1", ["Peter"], ["B-PER"]),
    ]


def test_an_unlabelled_object_form(read: Read) -> None:
    (example,) = read({"0": {"sents": "EU rejects"}}, labelled=False)
    assert (example.words, iob2(example)) == (["EU", "rejects"], None)


def test_unlabelled_text_keeps_its_id(read: Read) -> None:
    (example,) = read({"id": 17, "text": "四川"}, labelled=False)
    assert (example.guid, example.words, iob2(example)) == ("17", ["四", "川"], None)


def test_examples_without_an_id_are_numbered_and_know_their_line(read: Read) -> None:
    examples = read({"tokens": ["a"], "tags": ["O"]}, "", {"guid": "x", "tokens": ["b"], "tags": ["O"]})
    assert [(example.guid, example.line_of(0)) for example in examples] == [("train-0", 1), ("x", 3)]


def test_byte_order_marks_windows_line_ends_and_odd_line_ends_inside_strings(path: Path) -> None:
    path.write_bytes('\ufeff{"tokens": ["a\u2028b"], "tags": ["O"]}\r\n\r\n{"tokens": [], "tags": []}\r\n'.encode())
    assert [(example.words, iob2(example)) for example in read_json(path, Reading())] == [
        (["a\u2028b"], ["O"]),
        ([], []),
    ]


def test_tokens_keep_the_text_that_they_were_cut_from(read: Read) -> None:
    kept, lost = read(
        {"text": " anna  met", "tokens": ["anna", "met"], "tags": ["B-P", "O"]},
        {"text": "anna (she) met", "tokens": ["anna", "met"], "tags": ["B-P", "O"]},
    )
    assert (kept.text, kept.offsets) == (" anna  met", [(1, 5), (7, 10)])
    assert (lost.text, lost.offsets) == ("anna met", [(0, 4), (5, 8)])


def test_lone_surrogates_are_replaced_wherever_they_stand_and_pairs_are_characters(path: Path) -> None:
    lines = [
        r'{"id": "a\ud83d", "text": "Lena \ud83d met \ud83d\ude00", "spans": [[0, 4, "P\udc00"], [11, 12, "E"]]}',
        r'{"tokens": ["\ud83d", "\\ud83d"], "tags": ["B-\ud800", "O"]}',
        r'{"text": "中\ud800", "label": {"name": {"\ud800": [[1, 1]]}}}',
    ]
    for content in ("\n".join(lines), f"[{','.join(lines)}]"):
        path.write_text(content, "utf-8")
        reader = Reading(edges="error", offset_unit="code_point")
        text, words, chinese = read_json(path, reader)
        assert (text.guid, text.text) == ("a\ufffd", "Lena \ufffd met 😀")
        assert text.entities == [("P\ufffd", 0, 0), ("E", 3, 3)]
        assert (words.words, iob2(words)) == (["\ufffd", "\\ud83d"], ["B-\ufffd", "O"])
        assert (chinese.words, iob2(chinese)) == (["中", "\ufffd"], ["O", "B-name"])
        assert reader.findings.counts == {"lone surrogates, replaced by U+FFFD": 7}


def test_an_empty_text_has_no_words(read: Read) -> None:
    (empty,) = read({"text": "", "label": {}})
    assert (empty.words, iob2(empty)) == ([], [])


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_has_no_examples(read: Read, content: str) -> None:
    assert read(content) == []


BAD_RECORDS: list[tuple[Any, list[str]]] = [
    ('{"text": "a", "label": [], "label": []}', ["duplicate key 'label'"]),
    ('{"text": "a", "label": [[' + "9" * 5000 + ', 1, "A"]]}', ["unreadable JSON"]),
    ("null", ["expected a JSON object, found NoneType"]),
    ('{"text": "a", }', ["not JSON", "column"]),
    ('["a"]', ["expected a JSON object, found list"]),
    ({"sentence": "a"}, ["expected a key tokens or text", "sentence"]),
    ({"text": 5}, ["expected a key tokens or text"]),
    ({}, ["expected a key tokens or text"]),
    ({"text": "a"}, ["no labels", "text", "expected tokens and tags"]),
    ({"tokens": ["a"]}, ["no labels", "tokens"]),
    ({"tokens": ["a", "b"], "tags": ["O"]}, ["2 tokens but 1 tags"]),
    ({"tokens": "a b", "tags": ["O", "O"]}, ["tokens is not a list of strings"]),
    ({"tokens": ["a"], "tags": [True]}, ["tags is not a list of strings"]),
    ({"tokens": ["a"], "tags": [3]}, ["tags holds numbers of classes without their names", "--labels"]),
    ({"tokens": ["a"], "tags": ["12"]}, ["'12' is not a tag"]),
    ({"text": "Anna left", "spans": [[0, 3, "PER"]]}, ["PER 'Ann' [0, 3) cuts 'Anna'", "--word_unit char"]),
    ({"text": "Anna left", "spans": [[4, 9, "PER"]]}, ["PER ' left' [4, 9) begins or ends in white space"]),
    ({"text": "Anna", "spans": [[0, 5, "PER"]]}, ["PER [0, 5) lies outside the 4 characters"]),
    ({"text": "Anna", "spans": [[2, 2, "PER"]]}, ["PER [2, 2) is empty"]),
    ({"text": "Anna", "spans": [[-4, 4, "PER"]]}, ["PER [-4, 4) lies outside"]),
    (
        {"text": "叶老桂", "label": {"name": {"老桂": [[0, 1]]}}},
        ["name '老桂' [0, 2) does not match the text there"],
    ),
    ({"text": "Anna", "label": {"name": {"Anna": [0, 3]}}}, ["cannot read the annotation"]),
    ({"text": "Anna", "label": {"name": {"Anna": [[0, 3, 5]]}}}, ["cannot read the annotation"]),
    ({"text": "Anna", "label": {"name": [[0, 3]]}}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [[0, 4]]}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [{"start": 0, "type": "PER"}]}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [{"start": 0, "end": 4}]}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [{"start": "x", "end": 4, "type": "PER"}]}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [{"start": 0, "end": 4, "label": 7}]}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [{"start": 0, "end": 3.7, "type": "PER"}]}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [[False, 4, "PER"]]}, ["cannot read the annotation"]),
    ({"text": "Anna", "spans": [[0, 4, ""]]}, ["the entity [0, 4) has no type"]),
    ({"text": "Anna", "label": {" ": {"Anna": [[0, 3]]}}}, ["has no type"]),
    ({"text": "Anna", "spans": 7}, ["cannot read the annotation"]),
]


@pytest.mark.parametrize(("record", "said"), BAD_RECORDS, ids=[str(record)[:80] for record, _ in BAD_RECORDS])
def test_a_bad_record_is_refused_with_its_line(
    read: Read, path: Path, at: Callable[..., str], record: Any, said: list[str]
) -> None:
    with pytest.raises(DataError, match=at(path, 3, *said)):
        read({"tokens": ["a"], "tags": ["O"]}, "", record, edges="error")


def test_a_file_that_begins_with_broken_json_is_refused_with_its_line(
    read: Read, path: Path, at: Callable[..., str]
) -> None:
    with pytest.raises(DataError, match=at(path, 1, "not JSON")):
        read('{"tokens": ["a"] "tags": ["O"]}', {"tokens": ["a"], "tags": ["O"]})


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_of_records_is_read_as_lines_are(read: Read, indent: int | None) -> None:
    records = [{"tokens": ["a"], "tags": ["O"]}, {"text": "Anna", "spans": [[0, 4, "PER"]]}]
    first, second = read(json.dumps(records, indent=indent))
    assert (first.words, iob2(second), second.line) == (["a"], ["B-PER"], 10 if indent else 1)


def test_an_array_of_something_else_is_refused(read: Read, path: Path, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at(path, 1, "expected a JSON object, found int")):
        read(json.dumps([{"tokens": ["a"], "tags": ["O"]}, 5]))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"sents": "a b", "ner_labels": "O"}, "2 tokens but 1 tags"),
        ({"sents": "a", "ner_labels": "12"}, "'12' is not a tag"),
        ({"sents": ["a"], "ner_labels": ["O"]}, "'17'"),
        ({"sentence": "a"}, "'17'"),
        ("a", "'17'"),
        ({"sents": "a"}, "no labels"),
    ],
)
def test_a_bad_entry_of_the_object_form_is_refused_with_its_line(
    read: Read, path: Path, at: Callable[..., str], entry: Any, said: str
) -> None:
    entries = {"0": {"sents": "a", "ner_labels": "O"}, "17": entry}
    with pytest.raises(DataError, match=at(path, 6, said)):
        read(json.dumps(entries, indent=4))


def test_broken_utf8_is_refused_with_its_line(path: Path, at: Callable[..., str]) -> None:
    path.write_bytes(b'{"text": "a", "label": {}}\n{"text": "\xce\xd2", "label": {}}\n')
    with pytest.raises(DataError, match=at(path, 2, "not UTF-8", "ce d2", "iconv")):
        list(read_json(path, Reading()))


@given(st.data())
def test_spans_over_characters_are_read_back(read: Read, data: st.DataObject) -> None:
    text = data.draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
    borders = sorted(data.draw(st.sets(st.integers(0, len(text)), min_size=2)))
    spans = [
        (data.draw(st.sampled_from(["A", "b-c"])), start, end)
        for start, end in zip(borders[::2], borders[1::2], strict=False)
    ]
    (example,) = read({"text": text, "spans": [[start, end, kind] for kind, start, end in spans]}, word_unit="char")
    assert example.entities == [(kind, start, end - 1) for kind, start, end in spans]


THREE_TAGS = {"tokens": ["Anna"], "pos_tags": ["NN"], "chunk": ["B-NP"], "ner_tags": ["B-PER"]}


@pytest.mark.parametrize(("tag_column", "tag"), [("last", "B-PER"), ("ner", "B-PER"), ("chunk", "B-NP")])
def test_the_tag_column_is_named(path: Path, tag_column: str, tag: str) -> None:
    path.write_text(json.dumps(THREE_TAGS))
    assert iob2(next(read_json(path, Reading(tag_column=tag_column)))) == [tag]


def test_a_tag_column_that_is_not_there_is_refused(path: Path, at: Callable[..., str]) -> None:
    path.write_text(json.dumps(THREE_TAGS))
    with pytest.raises(DataError, match=at(path, 1, "no labels", "nonsense/nonsense_tags")):
        list(read_json(path, Reading(tag_column="nonsense")))


def test_a_corpus_of_plain_classes_may_be_json(path: Path) -> None:
    path.write_text(json.dumps(THREE_TAGS))
    corpus = Corpus("pos", split_files={"train": path}, tag_column="pos")
    assert [one.entities for one in corpus.examples("train")] == [[("NN", 0, 0)]]


@pytest.mark.parametrize(
    "places",
    [
        [{"start": 0, "end": 2, "char_start": 0, "char_end": 8}, {"start": 3, "end": 4, "char_start": 12}],
        [{"first_word": 0, "last_word": 1, "start": 0, "end": 8}, {"first_word": 3, "last_word": 3, "start": 12}],
    ],
    ids=["version_1", "version_2"],
)
def test_predictions_are_read_with_their_confidences(path: Path, places: list[dict[str, int]]) -> None:
    found = [{"type": kind, **place, "confidence": 0.5} for kind, place in zip(["LOC", "PER"], places, strict=True)]
    words = ["New", "York", "met", "Bo"]
    record = {"id": "a", "text": "New York met Bo", "tokens": words, "tags": ["B-LOC", "I-LOC", "O", "B-PER"]}
    path.write_text(json.dumps({**record, "entities": found}))
    reader = Reading()
    (example,) = read_json(path, reader)
    assert (example.entities, example.confidences) == ([("LOC", 0, 1), ("PER", 3, 3)], [0.5, 0.5])
    assert reader.findings.counts == {}


def test_predictions_without_tags_may_be_nested(path: Path) -> None:
    found = [("LOC", 1, 1, 4, 8, "York", 0.25), ("ORG", 0, 1, 0, 8, "New York", 0.75)]
    keys = ("type", "first_word", "last_word", "start", "end", "text", "confidence")
    record = {"text": "New York met", "tokens": ["New", "York", "met"], "format_version": 2}
    path.write_text(json.dumps({**record, "entities": [dict(zip(keys, one, strict=True)) for one in found]}))
    (example,) = read_json(path, Reading(edges="error"))
    assert (example.entities, example.confidences) == ([("ORG", 0, 1), ("LOC", 1, 1)], [0.75, 0.25])


def test_null_tags_are_none(path: Path) -> None:
    path.write_text(json.dumps({**THREE_TAGS, "ner_tags": None}))
    assert [iob2(one) for one in read_json(path, Reading(labelled=False))] == [None]


@pytest.mark.parametrize(
    ("written", "usual"),
    [
        ("O B_PER I_PER", "O B-PER I-PER"),
        ("O PER-B PER-I", "O B-PER I-PER"),
        ("0 b-PER i-PER", "O B-PER I-PER"),
        ("O PER LOC", "O I-PER I-LOC"),
    ],
)
def test_tags_of_a_dialect_are_read_with_all_tags_of_the_file_in_view(path: Path, written: str, usual: str) -> None:
    path.write_text("".join(json.dumps({"tokens": ["a"], "tags": [tag]}) + "\n" for tag in written.split()))
    reader = Reading()
    assert [example.entities for example in read_json(path, reader)] == [
        tags_to_entities([tag]) for tag in usual.split()
    ]
    changed = sum(left != right for left, right in zip(written.split(), usual.split(), strict=True))
    assert list(reader.findings.counts.values()) == [changed]
