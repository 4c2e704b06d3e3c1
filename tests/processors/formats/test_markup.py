"""Answers of language models: their forms, and their alignment to the text."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.formats.markup import CHANGED, CUT_OFF, NO_TYPE, NOT_FOUND, UNKNOWN_TYPE, UNREADABLE, align, read_answer

TEXT = "Anna met Bob Smith in New York. Bob’s “Big Co” is there."
ALL = ["PER Anna", "PER Bob Smith", "LOC New York", "PER Bob", "ORG Big Co"]
SOME = ["PER Anna", "LOC New York"]
PAIRS = [{"text": surface, "type": kind} for kind, _, surface in (one.partition(" ") for one in ALL)]


def found_in(answer: Any, types: tuple[str, ...] = (), text: str = TEXT) -> tuple[list[str], list[str], bool]:
    """Types and surfaces, reasons of failures, and whether the answer is usable."""
    read = read_answer(answer, types)
    spans = align(read, text, 0.8)
    return (
        [f"{span.type} {text[span.start : span.end]}" for span in spans],
        [failure.why.partition(":")[0] for failure in read.failures],
        read.usable,
    )


@pytest.mark.parametrize(
    ("answer", "types", "expected"),
    [
        (
            "<PER>Anna</PER> met <PER>Bob Smith</PER> in <LOC>New York</LOC>. "
            "<PER>Bob</PER>’s “<ORG>Big Co</ORG>” is there.",
            (),
            ALL,
        ),
        ('<per>Anna</per> met Bob Smith in <Loc>new york</Loc>. Bob\'s "Big Co" is  there', ("PER", "LOC"), SOME),
        ("Answer:\n<PER>Anna</PER> met Bob in <LOC>New York</LOC>. Bob’s “Big Co” is there.", (), SOME),
        ("[Anna](PER) met Bob Smith in [New York](LOC). Bob’s “Big Co” is there.", (), SOME),
        ("@@Anna## met Bob Smith in New York. Bob’s “Big Co” is there.", ("PER",), SOME[:1]),
        ("Anna met Bob Smith in New York. Bob’s “<ORG><X>Big</X> Co</ORG>” is there.", (), ["ORG Big Co", "X Big"]),
        (PAIRS, (), ALL),
        (json.dumps(PAIRS), (), ALL),
        (f"Sure!\n```json\n{json.dumps(PAIRS, indent=1)}\n```\nDone.", (), ALL),
        ({"entities": PAIRS}, (), ALL),
        ({"PER": ["Anna", "Bob Smith", "Bob"], "LOC": ["New York"], "ORG": ["big co"], "MISC": []}, (), ALL),
        ('{"Anna": "PER", "New York": "LOC"}', ("PER", "LOC"), SOME),
        ([["Anna", "PER"], ["LOC", "New Yorck"]], ("PER", "LOC"), SOME),
        ("- Anna: PER\n* New York: LOC", (), SOME),
        ("1. Anna: PER\n2. LOC: New York", ("PER", "LOC"), SOME),
        ("[]", (), []),
        ("No entities found.", (), []),
        (TEXT.upper(), (), []),
    ],
)
def test_forms_of_answers(answer: Any, types: tuple[str, ...], expected: list[str]) -> None:
    assert found_in(answer, types) == (expected, [], True)


@pytest.mark.parametrize(
    ("answer", "types", "found", "failures", "usable"),
    [
        ([{"text": "Paris", "type": "LOC"}, {"text": "Anna", "type": "PER"}], (), ["PER Anna"], [NOT_FOUND], True),
        ([["Anna", "PER"], ["Anna", "PER"]], (), ["PER Anna"], ["the text has these words less often"], True),
        ([["nn", "PER"], ["mi", "PER"]], (), [], [NOT_FOUND, NOT_FOUND], True),
        ([["Anna", "PERSON"], ["New York", "loc"]], ("PER", "LOC"), ["LOC New York"], [UNKNOWN_TYPE], True),
        ([["Anna"], ["New York", "LOC"]], (), ["LOC New York"], [UNREADABLE], True),
        ('[{"text": "Anna", "type": "PER"}, {"te', (), [], [CUT_OFF], False),
        ('```json\n[{"text": "Anna", "type": "PER"}]', (), [], [CUT_OFF], False),
        ("<PER>Anna</PER> met <PER>Bob", (), [], ["the mark is opened but not closed", CUT_OFF], False),
        ("I cannot help with this request, I am sorry.", (), [], [UNREADABLE], False),
        (7, (), [], [UNREADABLE], False),
        ("@@Anna## met Bob Smith in New York. Bob’s “Big Co” is there.", (), [], [NO_TYPE], True),
        ("Anna</PER> met Bob Smith in New York. Bob’s “Big Co” is @@there.", ("PER",), [], None, True),
        ("<PER>Maria</PER> met Bob Smith in New York. Bob’s “Big Co” is there.", (), [], [CHANGED], True),
    ],
)
def test_what_is_left_out_is_told(
    answer: Any, types: tuple[str, ...], found: list[str], failures: list[str] | None, usable: bool
) -> None:
    there, reasons, told = found_in(answer, types)
    assert (there, told) == (found, usable)
    assert reasons == failures or (failures is None and len(reasons) == 2)


def test_a_mention_is_the_next_one_of_its_surface() -> None:
    text = "Washington met Obama in Washington."
    answer = [["Obama", "PER"], ["Washington", "LOC"]]
    assert [span[1:3] for span in align(read_answer(answer), text, 0.8)] == [(15, 20), (24, 34)]
    answer = [["Washington", "PER"], ["Obama", "PER"], ["Washington", "LOC"]]
    assert [(span.type, span.start) for span in align(read_answer(answer), text, 0.8)] == [
        ("PER", 0),
        ("PER", 15),
        ("LOC", 24),
    ]
    assert found_in([["京大", "ORG"]], text="在北京大学")[0] == ["ORG 京大"]  # no spaces between words


SIGNS = st.text("abcXY ,.-'“é北", min_size=1, max_size=30)


@given(SIGNS, st.lists(st.integers(0, 30), max_size=6, unique=True))
@settings(max_examples=300, deadline=None)
def test_marks_in_an_unchanged_text_are_found_where_they_are(text: str, cuts: list[int]) -> None:
    edges = sorted(cut for cut in cuts if cut <= len(text))
    pairs = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False) if text[start:end].strip()]
    marked, place = "", 0
    for start, end in pairs:
        marked += f"{text[place:start]}<PER>{text[start:end]}</PER>"
        place = end
    read = read_answer(marked + text[place:], ["PER"])
    found = align(read, text, 0.5)
    for span in found:  # widened to whole words
        assert any(span.start <= start + len(text[start:end]) and end >= span.start for start, end in pairs)
    if all(not text[place - 1 : place + 1].isalnum() for pair in pairs for place in pair if 0 < place < len(text)):
        stripped = [(s + len(text[s:e]) - len(text[s:e].lstrip()), s + len(text[s:e].rstrip())) for s, e in pairs]
        assert [(span.start, span.end) for span in found] == stripped
