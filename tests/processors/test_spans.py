"""Spans over characters, words, and what becomes of those that do not agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.entities import Entity
from processors.examples import DataError
from processors.spans import SPAN_EDGES, Reading, Source, Span

TEXT = "Anna Smith met  Bob."
SOURCE = Source(Path("train.jsonl"), 7, "text-3")
PLACE = "train.jsonl:7: text-3: "


def entities(reader: Reading, *spans: Span, text: str = TEXT) -> list[Entity]:
    example = reader.example(text, spans, SOURCE)
    reader.findings.raise_faults()
    assert example.entities is not None
    return example.entities


@pytest.mark.parametrize("edges", SPAN_EDGES)
def test_spans_of_whole_words_are_taken_as_they_are(edges: str) -> None:
    reader = Reading(edges=edges)
    assert entities(reader, Span("PER", 0, 10), Span("PER", 16, 19)) == [("PER", 0, 1), ("PER", 3, 3)]
    assert (reader.findings.counts, reader.findings.remarks) == ({}, [])


@pytest.mark.parametrize(
    ("start", "end", "words", "remark"),
    [
        (0, 3, (0, 0), "PER 'Ann' [0, 3) cuts 'Anna', taken as 'Anna' [0, 4)"),
        (1, 3, (0, 0), "PER 'nn' [1, 3) cuts 'Anna', taken as 'Anna' [0, 4)"),
        (1, 10, (0, 1), "PER 'nna Smith' [1, 10) cuts 'Anna', taken as 'Anna Smith' [0, 10)"),
        (2, 7, (0, 1), "PER 'na Sm' [2, 7) cuts 'Anna' and 'Smith', taken as 'Anna Smith' [0, 10)"),
        (4, 7, (1, 1), "PER ' Sm' [4, 7) cuts 'Smith', taken as 'Smith' [5, 10)"),
    ],
)
def test_a_span_that_cuts_words_is_widened_dropped_or_refused(
    start: int, end: int, words: tuple[int, int], remark: str
) -> None:
    span = Span("PER", start, end)
    snapping, dropping, strict = (Reading(edges=edges) for edges in SPAN_EDGES)
    assert entities(snapping, span) == [("PER", *words)]
    assert snapping.findings.remarks == [PLACE + remark]
    assert list(snapping.findings.counts.items()) == [
        ("entities whose edges cut words, widened to whole words (--span_edges snap)", 1)
    ]
    assert entities(dropping, span) == []
    assert dropping.findings.remarks == [PLACE + remark.partition(", taken")[0]]
    assert list(dropping.findings.counts.values()) == [1]
    with pytest.raises(DataError) as refused:
        entities(strict, span)
    assert str(refused.value).startswith(PLACE + remark.partition(", taken")[0])
    assert "--span_edges" in str(refused.value)


@pytest.mark.parametrize("edges", ["snap", "drop"])
def test_white_space_at_the_edges_is_trimmed_and_told(edges: str) -> None:
    reader = Reading(edges=edges)
    assert entities(reader, Span("PER", 15, 19), Span("O", 14, 16)) == [("PER", 3, 3)]
    assert reader.findings.counts == {
        "entities with white space at their edges, trimmed": 1,
        "entities of white space only, left out": 1,
    }
    assert reader.findings.remarks == [
        PLACE + "PER ' Bob' [15, 19) begins or ends in white space, taken as 'Bob' [16, 19)",
        PLACE + "O '  ' [14, 16) contains no word",
    ]


def test_nested_and_overlapping_spans_are_kept_each_once() -> None:
    spans = [Span("A", 5, 10), Span("C", 5, 14), Span("A", 0, 2), Span("B", 2, 4), Span("C", 5, 14), Span("A", 0, 10)]
    example = Reading().example(TEXT, spans, SOURCE)
    assert example.entities == [("A", 0, 1), ("A", 0, 0), ("B", 0, 0), ("C", 1, 2), ("A", 1, 1)]


def test_characters_are_never_cut() -> None:
    reader = Reading("char", "error")
    assert entities(reader, Span("PER", 1, 3), Span("GAP", 14, 16)) == [("PER", 1, 2), ("GAP", 14, 15)]


MISTAKES = [
    (Span("PER", 3, 3), "empty entities (start = end), left out", "PER [3, 3) is empty"),
    (Span("PER", 5, 2), "entities that end before they start, left out", "PER [5, 2) ends before it starts"),
    (Span(" ", 0, 4), "entities without a type, left out", "the entity [0, 4) has no type"),
    (Span("PER", 14, 16), "entities of white space only, left out", "PER '  ' [14, 16) contains no word"),
]


@pytest.mark.parametrize("edges", ["snap", "drop"])
def test_a_mistake_costs_its_entity_and_is_counted_and_listed(edges: str) -> None:
    reader = Reading("word", edges)
    assert entities(reader, *(span for span, _, _ in MISTAKES), Span("PER", 16, 19)) == [("PER", 3, 3)]
    assert reader.findings.counts == {kind: 1 for _, kind, _ in MISTAKES}
    assert sorted(reader.findings.remarks) == sorted(PLACE + remark for _, _, remark in MISTAKES)


def test_all_mistakes_of_a_text_are_refused_together() -> None:
    with pytest.raises(DataError, match="4 faults:") as refused:
        entities(Reading("word", "error"), *(span for span, _, _ in MISTAKES))
    assert all(PLACE + remark in str(refused.value) for _, _, remark in MISTAKES)


def test_spans_outside_the_text_are_refused_together(at: Callable[..., str]) -> None:
    said = [f"{PLACE}PER [{start}, {end}) lies outside the 20 characters" for start, end in ((0, 21), (-1, 3))]
    with pytest.raises(DataError) as refused:
        entities(Reading(), Span("PER", 0, 21), Span("PER", -1, 3), Span("PER", 0, 4))
    assert str(refused.value) == "2 faults:" + "".join(f"\n  {one}" for one in said)


def test_spans_of_words_follow_the_same_rules() -> None:
    words = ["New", "York", "'s", "mayor"]
    spans = [Span("LOC", 0, 2, "New  York"), Span("PER", 0, 4), Span("X", 1, 1), Span("X", 3, 4, "York")]
    reader = Reading()
    example = reader.example_of_words(words, spans, SOURCE, "New York's mayor")
    assert example.entities == [("PER", 0, 3), ("LOC", 0, 1)]
    assert example.offsets == [(0, 3), (4, 8), (8, 10), (11, 16)]
    assert reader.findings.counts == {
        "empty entities (start = end), left out": 1,
        "entities that do not match their text, left out": 1,
    }
    reader.example_of_words(words, [Span("X", 3, 5), Span("X", -1, 2)], SOURCE)
    with pytest.raises(DataError, match=r"2 faults:\n.*X \[3, 5\) lies outside the 4 words"):
        reader.findings.raise_faults()


def test_emoji_count_as_the_file_counts() -> None:
    text = "😀 Anna 😀 Bob"
    assert entities(Reading(edges="error"), Span("PER", 9, 12), text=text) == [("PER", 3, 3)]
    assert entities(Reading(edges="error", offset_unit="utf16"), Span("PER", 11, 14), text=text) == [("PER", 3, 3)]
    with pytest.raises(DataError, match=r"outside the 12 characters; .*--offset_unit utf16"):
        entities(Reading(), Span("PER", 11, 14), text=text)
    with pytest.raises(DataError, match="outside"):
        entities(Reading(offset_unit="utf16"), Span("HALF", 1, 2), text=text)


def test_a_count_that_may_be_wrong_is_told() -> None:
    text = "Anna 😀 Bob"
    unsure, told, safe = Reading(), Reading(offset_unit="code_point"), Reading()
    entities(unsure, Span("PER", 7, 10), text=text)
    entities(told, Span("PER", 7, 10), text=text)
    entities(safe, Span("PER", 0, 4), text=text)
    assert ["--offset_unit utf16" in kind for kind in unsure.findings.counts] == [True]
    assert (told.findings.counts, safe.findings.counts) == ({}, {})


@pytest.mark.parametrize(
    ("text", "start", "end", "unit"),
    [("😀 Anna", 2, 6, None), ("😀 Anna", 3, 7, "utf16"), ("a\r\nAnna", 2, 6, "line_feed")],
)
def test_what_a_span_reads_decides_how_it_is_counted(text: str, start: int, end: int, unit: str | None) -> None:
    for given_unit in ("auto", "code_point"):
        reader = Reading(edges="error", offset_unit=given_unit)
        assert entities(reader, Span("PER", start, end, "Anna"), text=text) == [("PER", 1, 1)]
        assert [unit is not None and f"({unit})" in kind for kind in reader.findings.counts] == [True] * bool(unit)


def test_spans_that_read_something_else_are_left_out_or_refused() -> None:
    wrong, right = Span("PER", 0, 4, "Bob", line=12), Span("PER", 16, 19, "Bob")
    reader = Reading()
    assert entities(reader, wrong, right) == [("PER", 3, 3)]
    assert reader.findings.counts == {"entities that do not match their text, left out": 1}
    assert reader.findings.remarks == ["train.jsonl:12: text-3: PER 'Bob' [0, 4) does not match the text there"]
    with pytest.raises(DataError, match=r"train\.jsonl:12: text-3: PER 'Bob'"):
        entities(Reading(edges="error"), wrong, right)


@given(st.text("ab .😀中", max_size=12), st.data())
def test_every_span_is_an_entity_of_whole_words_or_is_listed(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, max(0, len(text) - 1)))
    end = data.draw(st.integers(start + 1, max(start + 1, len(text))))
    if end > len(text):
        return
    reader = Reading(data.draw(st.sampled_from(["char", "word"])), data.draw(st.sampled_from(["snap", "drop"])))
    example = reader.example(text, [Span("X", start, end)], SOURCE)
    offsets = example.offsets or []
    found = [(offsets[first][0], offsets[last][1]) for _, first, last in example.entities or []]
    assert found == [(start, end)] or len(reader.findings.remarks) == 1
    if reader.edges == "snap" and text[start:end].strip():
        assert found[0][0] <= start + len(text[start:end]) - len(text[start:end].lstrip())
        assert found[0][1] >= end - len(text[start:end]) + len(text[start:end].rstrip())
