"""What is written is read back as it was."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.entities import Entity
from processors.corpus import Corpus
from processors.examples import DataError, Example
from processors.formats.columns import read_columns
from processors.formats.writers import FORMATS
from processors.spans import Reading, Source, Span
from tests.tags import iob2, tagged

ALPHABET = "ab1 .,-\t\n\r😀👩\u200d中文漢\u3000עבשלום\u202e٣é\u0301\x00\u2028{[\"'\\"


@st.composite
def annotated_texts(draw: st.DrawFn, unit: str, alphabet: str = ALPHABET, flat: bool = False) -> Example:
    """A text in some script with entities over whole words, which may overlap, or without annotation."""
    text = draw(st.text(alphabet, max_size=20))
    unlabelled = Reading(unit, "error").example(text, None, Source(Path("x"), 1, "x"))
    offsets = unlabelled.offsets or []
    edges = draw(st.lists(st.integers(0, len(offsets)), max_size=6, unique=flat))
    if flat:
        edges.sort()
    spans = [
        Span(draw(st.sampled_from(["PER", "a-b", "地点"])), offsets[min(pair)][0], offsets[max(pair) - 1][1])
        for pair in zip(edges[::2], edges[1::2], strict=False)
        if pair[0] != pair[1]
    ]
    return Reading(unit, "error").example(text, draw(st.sampled_from([spans, None])), Source(Path("x"), 1, "x"))


def there_and_back(name: str, examples: list[Example], unit: str) -> list[Example]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"written{FORMATS[name].suffix}")
        lost = FORMATS[name].write(examples, path)
        assert lost.counts == {}
        offset_unit = "utf16" if name.endswith("utf16") else "code_point"
        corpus = Corpus("", split_files={"test": path}, word_unit=unit, span_edges="error", offset_unit=offset_unit)
        return list(corpus.examples("test"))


def comparable(example: Example) -> tuple[object, ...]:
    return example.text, example.words, example.entities, example.offsets


@pytest.mark.parametrize("name", ["doccano", "doccano_utf16", "label_studio", "jsonl"])
@pytest.mark.parametrize("unit", ["char", "word"])
@given(data=st.data())
def test_json_formats_bring_back_every_text_and_entity(name: str, unit: str, data: st.DataObject) -> None:
    examples = data.draw(st.lists(annotated_texts(unit), min_size=1, max_size=4))
    back = there_and_back(name, examples, unit)
    assert [comparable(example) for example in back] == [comparable(example) for example in examples]
    assert {example.guid for example in back} == {"x"}


@pytest.mark.parametrize("unit", ["char", "word"])
@given(data=st.data())
def test_brat_brings_back_every_text_and_entity(unit: str, data: st.DataObject) -> None:
    # Where characters are words, a line break may be the edge of an entity, which brat cannot mark.
    alphabet = ALPHABET.replace("\n", "") if unit == "char" else ALPHABET
    examples = data.draw(st.lists(annotated_texts(unit, alphabet), min_size=1, max_size=4))
    back = there_and_back("brat", examples, unit)
    assert [comparable(example) for example in back] == [comparable(example) for example in examples]


@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize("labelled", [True, False])
@given(data=st.data())
def test_columns_bring_back_every_word_and_tag(unit: str, labelled: bool, data: st.DataObject) -> None:
    alphabet = "".join(set(ALPHABET) - set("\t\n\r" if labelled else " \t\n\r\u3000\u2028{["))
    drawn = data.draw(st.lists(annotated_texts(unit, alphabet, flat=True), min_size=1, max_size=4))
    examples = [example for example in drawn if example.words and (example.entities is not None) == labelled]
    if examples:
        back = there_and_back("conll", examples, unit)
        assert [(one.words, one.entities) for one in back] == [(one.words, one.entities) for one in examples]


@pytest.mark.parametrize("labelled", [True, False])
@given(words=st.lists(st.text("ab \ufeff", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=4))
def test_columns_hold_spaces_and_a_byte_order_mark_inside_words(labelled: bool, words: list[str]) -> None:
    example = Example("a", words, [] if labelled else None)
    empty = Example("e", [], [])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.txt")
        FORMATS["conll"].write([empty, example, example], path)
        back = read_columns(path, Reading(labelled=labelled))
        assert [(one.words, one.entities) for one in back] == [(example.words, example.entities)] * 2


def test_columns_hold_the_longest_of_overlapping_entities_and_count_the_others(tmp_path: Path) -> None:
    nested = [Entity("A", 0, 1), Entity("B", 1, 1), Entity("C", 1, 3)]
    lost = FORMATS["conll"].write([Example("a", ["u", "v", "x", "y"], nested)], tmp_path / "out.txt")
    assert lost.counts == {"entities that overlap longer ones, which columns cannot hold, left out": 2}
    assert (tmp_path / "out.txt").read_text("utf-8") == "u\tO\nv\tB-C\nx\tI-C\ny\tI-C\n\n"


def test_columns_tell_what_they_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    examples = [Example("a", ["x\ty", "\n", "\r", "b\r"], []), Example("b", [], [])]
    lost = FORMATS["conll"].write(examples, path)
    assert lost.counts == {
        "words with a line break or a tab, written as a space": 4,
        "texts without a word, left out": 1,
    }
    (back,) = read_columns(path, Reading())
    assert back.words == ["x y", " ", " ", "b "]


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([Example("a", ["-DOCSTART-"], []), Example("b", ["DOCSTART"], [])], ["a: the word", "b: the word"]),
        ([Example("a", ["x", " "])], ["a: the word ' ' has another meaning in columns"]),
        ([tagged("a", ["x"], ["B-a\tb"]), tagged("b", ["x"], ["B-a "])], ["a: the tag 'B-a\\tb'", "b: the tag"]),
        ([Example("a", ["x"], []), Example("b", ["x"])], ["a has labels and b has none"]),
    ],
)
def test_nothing_is_written_of_what_columns_cannot_hold(
    tmp_path: Path, examples: list[Example], said: list[str]
) -> None:
    with pytest.raises(DataError) as refused:
        FORMATS["conll"].write(examples, tmp_path / "out.txt")
    assert all(part in str(refused.value) for part in said)
    assert list(tmp_path.iterdir()) == []


def broken_examples() -> Iterator[Example]:
    yield Example("a", ["x"], [])
    raise DataError("the rest cannot be read")


@pytest.mark.parametrize("name", FORMATS)
def test_an_error_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="the rest"):
        FORMATS[name].write(broken_examples(), tmp_path / f"out{FORMATS[name].suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_lone_surrogates_are_replaced_and_counted(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"out{FORMATS[name].suffix}"
    lost = FORMATS[name].write([tagged("x", ["\ud83d"], ["B-A"])], path)
    assert set(lost.counts) == {"lone surrogates, replaced by U+FFFD"}
    (back,) = Corpus("", split_files={"test": path}).examples("test")
    assert (back.text, iob2(back)) == ("\ufffd", ["B-A"])


@pytest.mark.parametrize("name", ["doccano", "doccano_utf16"])
def test_doccano_counts_in_either_unit(tmp_path: Path, name: str) -> None:
    labelled = tagged("a", ["👩", "Anna"], ["O", "B-PER"], text="👩 Anna", offsets=[(0, 1), (2, 6)])
    FORMATS[name].write([labelled, Example("b", ["x"])], tmp_path / "out.jsonl")
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert first == {"id": "a", "text": "👩 Anna", "label": [[3, 7, "PER"] if "utf16" in name else [2, 6, "PER"]]}
    assert second == {"id": "b", "text": "x"}
