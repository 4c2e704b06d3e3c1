"""Which columns hold the words and tags, which lines hold neither, and how the tags are written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processors.examples import DataError
from processors.formats.columns import read_columns
from processors.spans import Reading
from tests.tags import iob2

Sentences = list[tuple[list[str], list[str] | None]]
LENA: Sentences = [(["Lena", "met", "Bo"], ["B-PER", "O", "B-PER"]), (["Paris"], ["B-LOC"])]
INDEXED = "1 Lena NNP I-NP B-PER\n2 met VBD I-VP O\n3 Bo NNP I-NP B-PER\n\n1 Paris NNP I-NP B-LOC\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.txt"


def read(path: Path, content: str, **options: Any) -> tuple[Sentences, dict[str, int]]:
    path.write_text(content, "utf-8")
    reading = Reading(**options)
    return [(example.words, iob2(example)) for example in read_columns(path, reading)], reading.findings.counts


def plain(sentences: Sentences, gap: str = " ") -> str:
    return "\n".join(
        "".join(f"{word}{gap}{tag}\n" for word, tag in zip(words, tags or (), strict=True)) for words, tags in sentences
    )


@pytest.mark.parametrize(
    "content",
    [
        INDEXED,
        INDEXED.replace(" ", "\t"),
        INDEXED.replace("3 Bo", "2 Bo").replace("2 met", "1 met").replace("1 Lena", "0 Lena").replace("1 Par", "0 Par"),
        "1 -DOCSTART- -X- -X- O\n\n" + INDEXED,
        "#\thttp://de.wikipedia.org/wiki/X [2009-10-17]\n" + INDEXED,
    ],
)
def test_a_column_that_counts_the_words_is_no_word(path: Path, content: str) -> None:
    sentences, counts = read(path, content)
    assert sentences == LENA
    assert counts["words read from column 1: column 0 numbers them (set --word_column for another)"] == 4


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (INDEXED, {"word_column": "0"}, ["1", "2", "3"]),
        (INDEXED, {"word_column": "pos"}, ["NNP", "VBD", "NNP"]),
        (INDEXED, {"word_column": "word", "tag_column": "chunk"}, ["Lena", "met", "Bo"]),
        ("B-PER\tLena\nO\tmet\n", {"word_column": "1", "tag_column": "0"}, ["Lena", "met"]),
        ("1 O\n2 O\n3 B-X\n", {}, ["1", "2", "3"]),
        ("1 CD O\n2 CD O\n\n5 CD B-X\n", {}, ["1", "2"]),
        ("1\tLena\n2\tmet\n", {"labelled": False}, ["Lena", "met"]),
        ("Lena\t_\nmet\t_\n", {"labelled": False}, ["Lena", "met"]),
    ],
)
def test_the_word_column_is_named_or_numbered_or_found(
    path: Path, content: str, options: dict[str, object], words: list[str]
) -> None:
    sentences, counts = read(path, content, **options)
    assert sentences[0][0] == words
    assert any("column 0 numbers them" in kind for kind in counts) == (content == "1\tLena\n2\tmet\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"word_column": "9"}, "--word_column 9 does not fit lines of 5 columns; use one of 0 to 4, index, word"),
        ({"tag_column": "1"}, "--tag_column 1 is the column of the words"),
        ({"tag_column": "index"}, "--tag_column index is the column of the numbers"),
    ],
)
def test_columns_that_are_not_there_are_refused(path: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(path, INDEXED, **options)


def test_ranges_and_empty_nodes_of_conllu_are_no_words_and_lines_stay_right(path: Path) -> None:
    rows = ["1-2 vom _", "1 von O", "2 dem O", "2.1 x _", "3 Berlin B-LOC"]
    path.write_text("# sent_id = 1\n# text = vom Berlin\n" + "\n".join(rows).replace(" ", "\t") + "\n", "utf-8")
    reading = Reading()
    findings = reading.findings
    (example,) = read_columns(path, reading)
    assert (example.words, iob2(example)) == (["von", "dem", "Berlin"], ["O", "O", "B-LOC"])
    assert (example.line, example.line_of(2)) == (4, 7)
    assert {kind: count for kind, count in findings.counts.items() if "left out" in kind} == {
        "comment lines, left out": 2,
        "ranges of words such as 1-2, left out": 1,
        "empty nodes such as 8.1, left out": 1,
    }
    assert f"{path}:1: '# sent_id = 1' is the first of the comment lines" in findings.remarks


@pytest.mark.parametrize(
    "comments",
    [
        ["# id 1  domain=en", "# id 2  domain=en"],
        ["# id 5c7f\tdomain=en", "# id 293a\tdomain=en"],
        ["# text = Lena met Bo", "# text = O"],
        ["# sent_enum = 1", "#"],
        ["# id 1\n# text = x B-PER", "# id 2"],
    ],
)
@pytest.mark.parametrize("filler", [" ", " _ ", " _ _ ", "\t"])
def test_comment_lines_are_left_out_and_counted(path: Path, comments: list[str], filler: str) -> None:
    first, second = (block for block in plain(LENA, filler).split("\n\n"))
    sentences, counts = read(path, f"{comments[0]}\n{first}\n\n{comments[1]}\n{second}")
    assert sentences == LENA
    assert counts == {"comment lines, left out": len("\n".join(comments).splitlines())}


@pytest.mark.parametrize("comment", ["", "# id 1  domain=en\n"])
def test_a_word_that_begins_with_a_hash_stays_a_word(path: Path, comment: str) -> None:
    sentences: Sentences = [
        (["#", "1", "#"], ["O", "B-NUM", "B-X"]),
        (["#tag", "#"], ["O", "O"]),
        (["a", "#b"], ["O", "O"]),
    ]
    assert read(path, comment + plain(sentences)) == (sentences, {"comment lines, left out": 1} if comment else {})


def test_another_column_of_tags_is_named_with_its_entities(path: Path) -> None:
    content = "Uni\tB-ORG\tO\nKiel\tI-ORG\tB-LOC\nLena\tB-PER\tO\n"
    message = "entities in column 1 are not read: the last column is used, with 1; use --tag_column 1 to read them"
    assert read(path, content) == ([(["Uni", "Kiel", "Lena"], ["O", "B-LOC", "O"])], {message: 2})
    three = content.replace("Uni\t", "Uni\tB-ORG\t").replace("Kiel\t", "Kiel\tO\t").replace("Lena\t", "Lena\tO\t")
    assert read(path, three)[1] == {message: 1, message.replace("column 1", "column 2"): 2}
    assert read(path, content, tag_column="1") == ([(["Uni", "Kiel", "Lena"], ["B-ORG", "I-ORG", "B-PER"])], {})


@pytest.mark.parametrize("column", ["NNP", "I-NP", "O", "x"])
def test_parts_of_speech_and_chunks_are_no_other_tags(path: Path, column: str) -> None:
    assert read(path, f"Lena {column} B-PER\nBo {column} B-PER\n")[1] == {}


@pytest.mark.parametrize("content", ["he\tO\n\tO\nBo\tB-X\n", "he\tNN\tO\n\tNN\tO\nBo\tNN\tB-X\n"])
def test_an_empty_word_keeps_its_place(path: Path, content: str) -> None:
    path.write_text(content)
    reading = Reading()
    findings = reading.findings
    (example,) = read_columns(path, reading)
    assert (example.words, example.text) == (["he", "", "Bo"], "he Bo")
    assert (example.offsets, example.line_of(2)) == ([(0, 2), (2, 2), (3, 5)], 3)
    assert findings.counts == {"empty words, kept": 1}


@pytest.mark.parametrize(
    ("tags", "read_as", "said"),
    [
        ("B_PER I_PER O", "B-PER I-PER O", {"tags written PREFIX_TYPE, 'B_PER' for 'B-PER'": 2}),
        ("PER-B PER-I O", "B-PER I-PER O", {"tags written TYPE-PREFIX, 'PER-B' for 'B-PER'": 2}),
        ("b-per i-per O", "B-per I-per O", {"tags written PREFIX-TYPE, 'b-per' for 'B-per'": 2}),
        ("PER PER O", "B-PER I-PER O", {"tags without prefixes (IO), 'PER' for 'I-PER'": 2}),
        ("B-PER I-PER 0", "B-PER I-PER O", {"'0' for 'O'": 1}),
        ("B-PER I-PER O", "B-PER I-PER O", {}),
    ],
)
@pytest.mark.parametrize("header", ["", "word tag\n", "Token\tLabel\n"])
def test_other_ways_to_write_tags_are_understood(
    path: Path, tags: str, read_as: str, said: dict[str, int], header: str
) -> None:
    words = ["Lena", "Lee", "met"]
    gap = "\t" if "\t" in header else " "
    sentences, counts = read(path, header + plain([(words, tags.split())], gap))
    assert sentences == [(words, read_as.split())]
    assert counts == {**said, **({"header rows, left out": 1} if header else {})}


def test_a_header_names_the_columns(path: Path) -> None:
    content = "lemma\ttoken\tner\tdoc\nlena\tLena\tB-PER\t7\n"
    assert read(path, content, tag_column="ner")[0] == [(["Lena"], ["B-PER"])]
    assert read(path, content, tag_column="NER", word_column="lemma")[0] == [(["lena"], ["B-PER"])]


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("a B-PER\nb b-PER\n", 1, ("'B-PER', 'b-PER' are several ways", "first on lines 1, 2")),
        ("a O\nb X-1\nc Y\nd B-X\n", 2, ("'X-1', 'Y' are not tags", "first on lines 2, 3", "--tag_column")),
        ("a\tB-PER\tNNP\nb\tO\tVBD\n", 1, ("'NNP', 'VBD' are not tags", "column 1: --tag_column 1 reads them")),
        ("o x O\n" + "".join(f"a x lemma{i}\n" for i in range(300)), 2, ("300 values are too many",)),
    ],
)
def test_what_cannot_be_understood_is_refused(
    path: Path, at: Callable[..., str], content: str, line: int, said: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match=at(path, line, *said)):
        read(path, content)


def test_all_lines_with_other_numbers_of_columns_are_named_at_once(path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)\A12 faults:.*:2: 3 columns in 'b O O'.*:3: 1 columns .* and 2 more\Z"):
        read(path, "a O\nb O O\n" + "c\nd B-X\n" * 11)


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        ("发热的病人|||0    1    sym|||\n发热|||0    1    sym|||\n", "CMeEE"),
        ("a fever of b|||2    6    sym|||\nx y|||0    0    dis|||2    2    sym|||\n", "CMeEE"),
        ("当/o 希望/o 中国/ns 人/o\n李明/nr 说/o\n", "word/nt word/o"),
        ("Sentence #,Word,POS,Tag\nSentence: 1,Lena,NNP,B-per\n,met,VB,O\n", "CSV"),
        ("word,tag\nLena,B-per\nmet,O\n", "CSV"),
        ("<?xml version='1'?>\n<doc>\n<s>Lena met Bo</s>\n", "XML"),
        ("Lena met Bo in Paris and then they went home again .\n" * 2, "running text"),
        ("我爱北京天安门，天安门上太阳升，伟大领袖某某某，指引我们向前进。\n" * 2, "running text"),
    ],
)
def test_a_file_that_is_not_in_columns_is_named(path: Path, content: str, looks_like: str) -> None:
    with pytest.raises(DataError, match=f"this file is not in columns, it looks like .*{looks_like}"):
        read(path, content)


@pytest.mark.parametrize(("words", "warned"), [(1999, False), (2001, True)])
def test_a_file_without_blank_lines_is_noticed(path: Path, words: int, warned: bool) -> None:
    expected = {"words in a single sentence: are the blank lines between sentences missing?": words} if warned else {}
    assert read(path, "a O\n" * words)[1] == expected
    assert read(path, "a O\n" * words + "\nb O\n")[1] == {}
