"""Column files, well-formed and not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.entities import Entity
from processors.examples import DataError
from processors.formats.columns import read_columns
from processors.spans import Reading, TagReader
from tests.tags import iob2

Sentences = list[tuple[list[str], list[str] | None]]
TWO_SENTENCES: Sentences = [(["Anna", "left"], ["B-PER", "O"]), (["Paris"], ["B-LOC"])]
PLAIN = "Anna B-PER\nleft O\n\nParis B-LOC\n"


def read(path: Path, content: str | bytes, tag_column: str = "last", labelled: bool = True) -> Sentences:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reading = Reading(tag_column=tag_column, labelled=labelled)
    return [(example.words, iob2(example)) for example in read_columns(path, reading)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.txt"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.rstrip("\n"),
        "\n\n" + PLAIN.replace("\n\n", "\n\n\n\n") + "\n\n",
        PLAIN.replace("\n\n", "\n \t \n"),
        PLAIN.replace(" ", "\t"),
        PLAIN.replace(" ", "   "),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("left O", "left O "),
        PLAIN.replace(" ", "\t").replace("O\n", "O\t\n"),
        PLAIN.replace(" ", "\t").replace("\n", " \n"),
        PLAIN.replace(" ", " NNP \t ").replace(" NNP", "\tNNP"),
        "\ufeff" + PLAIN,
        "\ufeff" + PLAIN.replace("\n", "\r\n"),
        "Anna NNP I-NP B-PER\nleft VBD I-VP O\n\nParis NNP I-NP B-LOC\n",
        "Anna\tNNP\tB-PER\nleft\tVBD\tO\n\nParis\tNNP\tB-LOC\n",
    ],
    ids=[
        *("plain", "no last newline", "many blank lines", "blank lines of spaces", "tabs", "wide gaps", "windows"),
        *(
            "space at the end",
            "tab at the end",
            "space after tabs",
            "spaces about tabs",
            "bom",
            "bom and windows",
            "four columns",
            "three columns",
        ),
    ],
)
def test_every_form_reads_the_same(path: Path, content: str) -> None:
    assert read(path, content) == TWO_SENTENCES


@pytest.mark.parametrize(
    "mark",
    [
        *("-DOCSTART- -X- O O", "-DOCSTART- -X- -X- O", "-DOCSTART- -X- -1- O", "-DOCSTART-\tO", "-DOCSTART-"),
        *("-DOCSTART- O", "-DOCSTART- -DOCSTART- O", "-DOCSTART- (doc 7)", "-docstart- O", "DOCSTART -X- O"),
        *("--DOCSTART-- O", "#begin document (bc/cctv/00); part 000", "#end document"),
    ],
)
def test_a_document_mark_is_no_sentence(path: Path, mark: str) -> None:
    assert read(path, f"{mark}\n\n{PLAIN}\n{mark}\n\n{PLAIN}") == TWO_SENTENCES * 2


def test_a_document_mark_ends_a_sentence(path: Path) -> None:
    assert read(path, "Anna B-PER\nleft O\n-DOCSTART- O\nParis B-LOC\n") == TWO_SENTENCES


@pytest.mark.parametrize("word", ["DOCSTART", "-DOCSTART-"])
@pytest.mark.parametrize("before", ["", "see NNP O\n"])
def test_a_document_mark_with_a_tag_is_a_word(path: Path, word: str, before: str) -> None:
    ((words, labels),) = read(path, f"{before}{word} NNP B-X\nnow RB O\n")
    assert words[-2:] == [word, "now"]
    assert labels is not None
    assert labels[-2:] == ["B-X", "O"]


@pytest.mark.parametrize("word", ["DOCSTARTER", "DOCSTART-UP", "-DOCSTART-s"])
def test_a_word_that_begins_like_a_document_mark_is_a_word(path: Path, word: str) -> None:
    assert read(path, f"a O\n{word} O\nb O\n") == [(["a", word, "b"], ["O"] * 3)]


@pytest.mark.parametrize("word", [" ", "\u3000", "\u00a0", "\u200b", "\u2028", "\x85", "\x0b", "\x1c", "#", "{", "😀"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_odd_word_is_a_word(path: Path, word: str, place: int) -> None:
    lines = ["我 O", "爱 B-LOC"]
    lines.insert(place, f"{word} I-LOC")
    words, labels = ["我", "爱"], ["O", "B-LOC"]
    words.insert(place, word)
    labels.insert(place, "B-LOC")
    assert read(path, "\n".join(lines)) == [(words, labels)]


def test_a_space_between_tabs_is_a_word(path: Path) -> None:
    assert read(path, "我\tO\n \tO\n") == [(["我", " "], ["O", "O"])]


def test_words_of_a_tab_separated_file_may_hold_spaces(path: Path) -> None:
    assert read(path, "New York\tB-LOC\nis\tO\n") == [(["New York", "is"], ["B-LOC", "O"])]


characters = st.characters(codec="utf-8", exclude_characters=" \t\n\r\ufeff")


@given(
    st.lists(
        st.lists(
            st.tuples(st.text(characters, min_size=1, max_size=5), st.sampled_from(["O", "B-x-y", "S"])), min_size=1
        ),
        max_size=4,
    ),
    st.sampled_from(" \t"),
)
def test_what_is_written_is_read(path: Path, sentences: list[list[tuple[str, str]]], gap: str) -> None:
    content = "\n\n".join("\n".join(word + gap + tag for word, tag in sentence) for sentence in sentences)
    expected = [
        ([word for word, _ in sentence], ["B" if tag == "S" else tag for _, tag in sentence]) for sentence in sentences
    ]
    assert read(path, content) == expected


@pytest.mark.parametrize(
    ("tag_column", "labels"),
    [
        ("last", ["B-PER"]),
        ("ner", ["B-PER"]),
        ("-1", ["B-PER"]),
        ("3", ["B-PER"]),
        ("chunk", ["B-NP"]),
        ("2", ["B-NP"]),
    ],
)
def test_the_tag_column_is_named_or_numbered(path: Path, tag_column: str, labels: list[str]) -> None:
    assert read(path, "Anna NNP I-NP B-PER\n", tag_column) == [(["Anna"], labels)]


@pytest.mark.parametrize("tag_column", ["4", "-4", "9", "lemma", "", "-", "²"])
def test_a_tag_column_that_is_not_there_is_refused(path: Path, at: Callable[..., str], tag_column: str) -> None:
    with pytest.raises(DataError, match=at(path, 2, f"--tag_column {tag_column} ", "4 columns", "use one of last")):
        read(path, "\nAnna NNP I-NP B-PER\n", tag_column)


def test_a_test_file_may_hold_words_only(path: Path) -> None:
    assert read(path, "我\n \n爱\n\u3000\n", labelled=False) == [(["我"], None), (["爱", "\u3000"], None)]


def test_a_test_file_of_words_may_begin_with_a_space(path: Path) -> None:
    assert read(path, " foo\nbar\n baz\n", labelled=False) == [(["foo", "bar", "baz"], None)]


def test_a_labelled_test_file_may_begin_with_a_space_as_a_word(path: Path) -> None:
    assert read(path, "  O\n我 O\n", labelled=False) == [([" ", "我"], ["O", "O"])]


def test_a_word_with_a_space_may_stand_alone_before_a_tab(path: Path) -> None:
    assert read(path, "New York\t\nis\t \n", labelled=False) == [(["New York", "is"], None)]


def test_a_test_file_may_be_labelled(path: Path) -> None:
    assert read(path, PLAIN, labelled=False) == TWO_SENTENCES


def test_a_training_file_of_words_only_is_refused(path: Path, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at(path, 2, "'Anna' has one column", "a word and its tag")):
        read(path, "\nAnna\nleft\n")


@pytest.mark.parametrize(
    ("line", "found"), [("left", "1 columns in 'left'"), ("left VBD O", "3 columns in 'left VBD O'")]
)
def test_another_number_of_columns_is_refused(path: Path, at: Callable[..., str], line: str, found: str) -> None:
    with pytest.raises(DataError, match=at(path, 5, found, "lines before have 2", "one space or tab")):
        read(path, f"Anna B-PER\n\nshe O\n\n{line}\n")


@pytest.mark.parametrize("tag", ["PER", "X", "B-"])
def test_a_tag_that_is_none_is_refused(path: Path, at: Callable[..., str], tag: str) -> None:
    with pytest.raises(DataError, match=at(path, 2, f"'{tag}' is not a tag", "--tag_column")):
        read(path, f"Anna B-PER\nleft {tag}\n")


def test_a_missing_file_is_refused(path: Path, at: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=at(path, None, "no such file")):
        list(read_columns(path, Reading()))


def test_an_empty_file_has_no_examples(path: Path) -> None:
    assert read(path, "") == []
    assert read(path, "\ufeff\r\n\n") == []


def test_examples_are_numbered_and_know_their_lines(path: Path) -> None:
    path.write_text("-DOCSTART- O\n\n" + PLAIN)
    first, second = read_columns(path, Reading(split="dev"))
    assert (first.guid, first.line, first.line_of(1)) == ("dev-0", 3, 4)
    assert (second.guid, second.line, second.line_of(0)) == ("dev-1", 6, 6)


def test_line_ends_of_old_macs_are_refused(path: Path, at: Callable[..., str]) -> None:
    path.write_bytes(PLAIN.replace("\n", "\r").encode())
    with pytest.raises(DataError, match=at(path, 1, "lines end in a carriage return alone")):
        list(read_columns(path, Reading()))


LEVELS = """Schloss	B-LOC	O
von	I-LOC	O
Bad	I-LOC	B-LOC
Ems	I-LOC	I-LOC
ist	O	O
rot	O	B-OTH

Ems	B-LOC	B-LOC
"""


@pytest.mark.parametrize("tag_column", ["1,2", "2,1", "1,last", "-2,-1", "pos,ner"])
def test_the_entities_of_several_columns_are_put_together(path: Path, tag_column: str) -> None:
    path.write_text(LEVELS, "utf-8")
    nested, single = read_columns(path, Reading(tag_column=tag_column))
    outer, inner, alone = Entity("LOC", 0, 3), Entity("LOC", 2, 3), Entity("OTH", 5, 5)
    assert nested.entities == [outer, inner, alone]
    assert single.entities == [Entity("LOC", 0, 0)]


def test_each_of_several_columns_is_checked(path: Path) -> None:
    path.write_text(LEVELS.replace("B-OTH", "X?"), "utf-8")
    with pytest.raises(DataError, match=r"train.txt:6: .*X\?"):
        list(read_columns(path, Reading(tag_column="1,2")))
    for columns, said in (("1,3", "--tag_column 3 does not fit"), ("0,1", "--tag_column 0 is the column of the words")):
        with pytest.raises(DataError, match=said):
            list(read_columns(path, Reading(tag_column=columns)))
    with pytest.raises(DataError, match="classes of words are read from one column"):
        list(read_columns(path, Reading(tag_column="1,2", tags=TagReader(plain=True))))
