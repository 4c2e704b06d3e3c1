"""Every shape of a record: words with tags or spans, texts with spans, documents; and what is left out or refused."""

from pathlib import Path
from typing import Any

import pytest

from processors.corpus import Corpus
from processors.examples import DataError, Example, Findings
from processors.formats.records import RecordReader
from processors.spans import Reading, Source
from tests.tags import iob2

SOURCE = Source(Path("train.jsonl"), 3, "train-2")
WORDS = ["Anna", "met", "New", "York"]
TEXT = "Anna met New York"
FOUND = [("PER", "Anna"), ("LOC", "New York")]


def read(record: dict[str, Any], edges: str = "snap", **reading: Any) -> tuple[list[Example], Findings]:
    """Reads one record and raises its faults."""
    reader = Reading(edges=edges, **reading)
    examples = RecordReader(reader, tuple).read(record, SOURCE)
    reader.findings.raise_faults()
    return examples, reader.findings


def entities(example: Example) -> list[tuple[str, str]]:
    text, offsets = example.text or "", example.offsets or []
    assert [text[start:end] for start, end in offsets] == example.words
    found = example.entities or []
    return [(kind, text[offsets[first][0] : offsets[last][1]]) for kind, first, last in found]


def tokens_of(text: str, *texts: str) -> list[dict[str, Any]]:
    """Tokens as Prodigy has them."""
    starts = [text.index(one) for one in texts]
    return [
        {"text": one, "start": start, "end": start + len(one), "id": number, "ws": True}
        for number, (start, one) in enumerate(zip(starts, texts, strict=True))
    ]


MENTIONS = [
    {"start": 0, "end": 1, "entity_type": "PER", "text": "Anna"},
    {"start": 2, "end": 4, "entity_type": "LOC", "text": "New York"},
]
SHAPES: dict[str, dict[str, Any]] = {
    "tags": {"tokens": WORDS, "ner_tags": ["B-PER", "O", "B-LOC", "I-LOC"]},
    "tags called ner": {"words": WORDS, "ner": ["B-PER", "O", "B-LOC", "I-LOC"]},
    "mentions": {"tokens": WORDS, "doc_id": "7", "entity_mentions": MENTIONS},
    "mentions, no text": {"tokens": WORDS, "entity_mentions": [{**one, "text": None} for one in MENTIONS]},
    "mentions with last positions": {
        "tokens": WORDS,
        "entity_mentions": [{**one, "end": int(str(one["end"])) - 1} for one in MENTIONS],
    },
    "SpERT": {
        "tokens": WORDS,
        "entities": [{"type": "PER", "start": 0, "end": 1}, {"type": "LOC", "start": 2, "end": 4}],
        "relations": [],
    },
    "W2NER": {"sentence": WORDS, "ner": [{"index": [3, 2], "type": "LOC"}, {"index": [0], "type": "PER"}]},
    "GLiNER": {"tokenized_text": WORDS, "ner": [[0, 0, "PER"], [2, 3, "LOC"]]},
    "words and ner": {"words": WORDS, "ner": [[0, 0, "PER"], [2, 3, "LOC"]]},
    "lists over words": {"words": WORDS, "spans": [[0, 1, "PER"], [2, 4, "LOC"]]},
    "DyGIE": {"doc_key": "d", "sentences": [WORDS], "ner": [[[0, 0, "PER"], [2, 3, "LOC"]]]},
    "Prodigy": {
        "text": TEXT,
        "tokens": tokens_of(TEXT, *WORDS),
        "spans": [
            {"start": 0, "end": 4, "token_start": 0, "token_end": 0, "label": "PER"},
            {"start": 9, "end": 17, "token_start": 2, "token_end": 3, "label": "LOC"},
        ],
        "answer": "accept",
    },
    "spaCy": {
        "text": TEXT,
        "ents": [{"start": 0, "end": 4, "label": "PER"}, {"start": 9, "end": 17, "label": "LOC"}],
        "tokens": [
            {"id": 0, "start": 0, "end": 4},
            {"start": 5, "end": 8},
            {"start": 9, "end": 12, "head": 0},
            {"start": 13, "end": 17},
        ],
    },
    "doccano": {"id": 1, "text": TEXT, "label": [[0, 4, "PER"], [9, 17, "LOC"]], "Comments": []},
    "doccano data": {"id": 1, "data": TEXT, "label": [[0, 4, "PER"], [9, 17, "LOC"]]},
    "doccano labels": {"text": TEXT, "labels": [[0, 4, "PER"], [9, 17, "LOC"]], "entities": None},
    "doccano relations": {
        "text": TEXT,
        "entities": [
            {"id": 5, "label": "PER", "start_offset": 0, "end_offset": 4},
            {"id": 6, "label": "LOC", "start_offset": 9, "end_offset": 17},
        ],
        "relations": [],
        "cats": [],
    },
    "CMeEE": {
        "text": TEXT,
        "entities": [
            {"start_idx": 0, "end_idx": 3, "type": "PER", "entity": "Anna"},
            {"start_idx": 9, "end_idx": 16, "type": "LOC", "entity": "New York"},
        ],
    },
    "CMeEE with exclusive ends": {
        "text": TEXT,
        "entities": [
            {"start_idx": 0, "end_idx": 4, "type": "PER", "entity": "Anna"},
            {"start_idx": 9, "end_idx": 17, "type": "LOC", "entity": "New York"},
        ],
    },
    "CLUENER": {"text": TEXT, "label": {"PER": {"Anna": [[0, 3]]}, "LOC": {"New York": [[9, 16]], "x": None}}},
    "pipeline": {
        "text": TEXT,
        "entities": [
            {"entity_group": "PER", "start": 0, "end": 4, "word": "anna", "score": 0.9},
            {"entity": "LOC", "start": 9, "end": 17, "word": "new york", "index": None},
        ],
    },
    "a table of structs": {
        "text": TEXT,
        "entities": {"start": [0, 9], "end": [4, 17], "label": ["PER", "LOC"]},
    },
    "numbers as strings and floats": {"text": TEXT, "spans": [["0", "4.0", "PER"], [9.0, "17", "LOC"]]},
    "lists in strings": {"tokens": str(WORDS), "tags": '["B-PER", "O", "B-LOC", "I-LOC"]'},
    "spans in a string": {"text": TEXT, "entities": "[{'start': 0, 'end': 4, 'label': 'PER'}, (9, 17, 'LOC')]"},
    "tokens and characters": {"text": TEXT, "tokens": WORDS, "spans": [[0, 4, "PER"], [9, 17, "LOC"]]},
    "two kinds of labels": {"text": TEXT, "entities": [], "label": [[0, 4, "PER"], [9, 17, "LOC"]]},
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_gives_the_same_words_and_entities(name: str) -> None:
    (example,), findings = read(SHAPES[name], edges="error")
    assert (example.words, sorted(entities(example)), example.line) == (WORDS, sorted(FOUND), 3)
    assert len(findings.counts) == {
        "mentions with last positions": 1,
        "CMeEE with exclusive ends": 1,
        "lists in strings": 1,
        "spans in a string": 1,
    }.get(name, 0)


def test_sentences_of_a_document_count_through_it_or_each_for_itself() -> None:
    sentences = [["Anna", "left", "."], ["She", "met", "Bob", "."], ["Bye"]]
    dygie = {"doc_key": "d", "sentences": sentences, "ner": [[[0, 0, "PER"]], [[5, 5, "PER"]], []], "clusters": [[[0]]]}
    biaffine = {"doc_key": "d", "sentences": sentences, "ners": [[[0, 0, "PER"]], [[2, 2, "PER"]], []]}
    for record in (dygie, biaffine):
        examples, findings = read(record)
        assert [(one.guid, one.words) for one in examples] == list(zip(["d-0", "d-1", "d-2"], sentences, strict=True))
        assert [entities(one) for one in examples] == [[("PER", "Anna")], [("PER", "Bob")], []]
        assert len(findings.counts) == ("clusters" in record)
    with pytest.raises(DataError, match=r"d-1: PER \[-3, -2\) lies outside the 4 words"):
        read({**dygie, "ner": [[], [[0, 0, "PER"]], []]})
    with pytest.raises(DataError, match="an entry for each of the 3 sentences"):
        read({**dygie, "ner": [[]]})


def test_tokens_may_hold_spaces() -> None:
    mention = {"start": 1, "end": 3, "entity_type": "X", "text": "ER-  cells grow"}
    (example,), findings = read({"tokens": ["the", "ER- cells", "grow"], "entity_mentions": [mention]}, edges="error")
    assert (example.words[1], iob2(example), findings.counts) == ("ER- cells", ["O", "B-X", "I-X"], {})


@pytest.mark.parametrize(
    ("record", "kept", "counts"),
    [
        ({"text": TEXT, "spans": [[0, 4, "A"], [0, 8, "B"]]}, [("B", "Anna met"), ("A", "Anna")], {}),
        (
            {"sentence": WORDS, "ner": [{"index": [0, 2], "type": "A"}, {"index": [1], "type": "B"}]},
            [("B", "met")],
            {"discontinuous entities, left out": 1},
        ),
        (
            {"tokens": WORDS, "entity_mentions": [{**MENTIONS[0], "text": "Bob"}, MENTIONS[1]]},
            [("LOC", "New York")],
            {"entities that do not match their text, left out": 1},
        ),
        (
            {"text": TEXT, "label": {"PER": {"Bob": [[0, 3]], "Anna": [[0, 3]]}}},
            [("PER", "Anna")],
            {"entities that do not match their text, left out": 1},
        ),
        (
            {"text": TEXT, "spans": [[0, 0, "A"], [5, 4, "B"], {"start": 0, "end": 4, "label": None}, [9, 17, "C"]]},
            [("C", "New York")],
            {
                "empty entities (start = end), left out": 1,
                "entities that end before they start, left out": 1,
                "entities without a type, left out": 1,
            },
        ),
        (
            {"text": TEXT, "spans": [{"start": 0, "end": 4, "labels": ["x"], "label": ["A", "B"]}]},
            [("A", "Anna")],
            {"types after the first of their annotation, left out": 1},
        ),
        (
            {"text": TEXT, "label": [[0, 4, "A"]], "relations": [1], "Comments": ["?"], "meta": {}, "spans2": [[0, 1]]},
            [("A", "Anna")],
            {f"records with {key!r}, which is not used": 1 for key in ("relations", "Comments", "spans2")},
        ),
        (
            {"tokens": ["Anna"], "ner_tags": ["B-A"], "pos_tags": ["NN"], "entity_mentions": MENTIONS[:1]},
            [("A", "Anna")],
            {f"records with {key!r}, which is not used": 1 for key in ("pos_tags", "entity_mentions")},
        ),
    ],
)
def test_what_is_left_out_is_counted(record: dict[str, Any], kept: list[Any], counts: dict[str, int]) -> None:
    (example,), findings = read(record)
    assert (entities(example), findings.counts) == (kept, counts)


def test_spans_that_cut_prodigy_s_tokens_count_characters_all_the_same() -> None:
    record = {"text": TEXT, "tokens": tokens_of(TEXT, *WORDS), "spans": [{"start": 0, "end": 3, "label": "PER"}]}
    (example,), findings = read(record)
    assert (entities(example), len(findings.remarks)) == ([("PER", "Anna")], 1)
    assert read({"sentences": [], "clusters": [[0]]})[0] == []


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("answer", ["reject", "ignore"])
def test_texts_that_prodigy_s_annotator_did_not_accept_are_left_out(answer: str, labelled: bool) -> None:
    examples, findings = read({**SHAPES["Prodigy"], "answer": answer}, labelled=labelled)
    assert (examples, findings.counts) == ([], {f"texts with the answer {answer!r}, left out": 1})


@pytest.mark.parametrize(
    "record",
    [
        {"text": TEXT},
        {"tokens": WORDS},
        {"text": TEXT, "label": None, "meta": {"a": 1}, "relations": [1]},
        {"tokens": WORDS, "pos_tags": ["X"] * 4, "ner_tags": [None] * 4},
        {"sentences": [WORDS]},
        {"text": TEXT, "tokens": tokens_of(TEXT, *WORDS)},
    ],
)
def test_a_test_text_may_have_no_labels(record: dict[str, Any]) -> None:
    (example,), _ = read(record, labelled=False)
    assert (example.words, iob2(example)) == (WORDS, None)
    with pytest.raises(DataError, match=r"^train.jsonl:3: train-2: no labels \(keys: .*entity_mentions"):
        read(record)


@pytest.mark.parametrize(
    "record", [{"tokens": WORDS, "gold": [[0, 1, "PER"]]}, {"text": TEXT, "gold": {"PER": [[0, 4]]}}]
)
def test_labels_under_an_unknown_key_are_named_even_in_a_test_split(record: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"no labels under a known key, but gold could be labels; expected"):
        read(record, labelled=False)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": TEXT, "spans": [[0, 4, 7]]}, r"cannot read the annotation \[0, 4, 7\]; expected"),
        ({"text": TEXT, "spans": [[0, float("nan"), "A"]]}, "cannot read the annotation"),
        ({"text": TEXT, "spans": [[True, 4, "A"]]}, "cannot read the annotation"),
        ({"text": TEXT, "label": ["positive"]}, "cannot read the annotation 'positive'"),
        ({"text": TEXT, "label": "positive"}, "cannot read the annotation 'positive'"),
        ({"text": TEXT, "spans": [[-1, 4, "A"], [0, 99, "A"]]}, r"2 faults:\n.*\[-1, 4\).*\n.*\[0, 99\) lies outside"),
        ({"tokens": "['Anna' 'met']", "tags": "['B-A' 'O']"}, "tokens is not a list of strings"),
        ({"tokens": ["a", 1], "tags": ["O", "O"]}, "tokens is not a list of strings"),
        ({"tokens": ["a"], "tags": ["B-A", "O"]}, "1 tokens but 2 tags"),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, "None is among them"),
        ({"tokens": ["a"], "ner_tags": [1]}, "numbers of classes without their names; .*--labels FILE"),
        ({"tokens": WORDS, "text": TEXT, "spans": [[0, 1, "A"], [2, 4, "B"]]}, "name them entity_mentions if"),
        (
            {"text": TEXT, "tokens": [{"text": "Bob", "start": 0, "end": 3}], "spans": []},
            "does not match the text there",
        ),
        ({"text": TEXT, "tokens": [{"start": 3, "end": 1}], "spans": []}, "is empty, overlaps another, or lies"),
        ({"text": TEXT, "tokens": [{"text": "Anna"}], "spans": []}, "expected start and end in characters"),
    ],
)
def test_what_cannot_be_read_is_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"(?s)train-2: {said}|{said}"):
        read(record)


def test_class_numbers_have_the_names_of_the_label_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"tokens": ["Anna", "left"], "ner_tags": [1, 0]}\n')
    (tmp_path / "tags.txt").write_text("O\nB-PER\nI-PER\n")
    corpus = Corpus("", tmp_path, labels_file=tmp_path / "tags.txt")
    assert [iob2(one) for one in corpus.examples("train")] == [["B-PER", "O"]]
    digest = corpus.digest("train")
    (tmp_path / "tags.txt").write_text("O\nB-LOC\nI-LOC\n")
    assert corpus.digest("train") != digest
    with pytest.raises(DataError, match="class 3 of tags is not one of the 2 in --labels"):
        read({"tokens": ["a"], "tags": [3]}, class_names=("O", "B-A"))


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("file", "sentences", "words", "entities", "nested"),
    [
        ("train.jsonlines", 15038, 396659, 46203, 4398),
        ("dev.jsonlines", 1765, 45345, 4714, 447),
        ("test.jsonlines", 1732, 46718, 5119, 608),
        ("yhcc/dev.jsonlines", 1765, 45495, 4714, 447),
        ("yhcc/test.jsonlines", 1732, 46873, 5119, 608),
    ],
)
def test_genia_has_the_counts_of_its_readme(
    data_root: Path, file: str, sentences: int, words: int, entities: int, nested: int
) -> None:
    found = Corpus("", split_files={"train": data_root / "genia_nested" / file}, span_edges="error").inventory("train")
    assert (found.sentences, found.words, found.entities) == (sentences, words, entities)
    assert found.nested_entities == nested  # inside another, or of the same words as another
    assert found.findings.counts == {}
