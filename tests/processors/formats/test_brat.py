"""Folders of brat's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from processors.corpus import Corpus
from processors.examples import DataError, Example, Findings
from processors.formats.brat import read_brat, write_brat
from processors.spans import Reading
from tests.tags import iob2, tagged

ANN = """\
T1\tPER 0 4\tAnna
T2\tPER 12 15\tBob
#1\tAnnotatorNotes T1\tis she?
A1\tConfidence T1 High
R1\tKnows Arg1:T1 Arg2:T2\t
*\tEquiv T1 T2
T3\tLOC 19 27\tNew York
E1\tMeet:T1 Who:T2
N1\tReference T3 Wikipedia:60\tNew York City
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[list[Example], Findings]]:
    """Writes files, named by their path in the folder, and reads the folder."""

    def write_and_read(
        files: dict[str, str], labelled: bool = True, edges: str = "snap"
    ) -> tuple[list[Example], Findings]:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content.encode())
        reader = Reading(edges=edges, labelled=labelled)
        return list(read_brat(tmp_path, reader)), reader.findings

    return write_and_read


Read = Callable[..., tuple[list[Example], Findings]]


def places(example: Example) -> list[tuple[str, str]]:
    text, offsets = example.text or "", example.offsets or []
    return [(kind, text[offsets[first][0] : offsets[last][1]]) for kind, first, last in example.entities or []]


def test_text_bound_annotations_are_entities_and_the_others_are_counted(read: Read) -> None:
    (example,), findings = read({"doc.txt": "Anna 😀\n\nmet Bob in New York.\n", "doc.ann": ANN})
    assert places(example) == [("PER", "Anna"), ("PER", "Bob"), ("LOC", "New York")]
    kinds = ("notes", "attributes", "relations", "equivalences", "events", "normalisations")
    assert findings.counts == {f"{kind}, not used": 1 for kind in kinds}


def test_sub_folders_are_read_in_the_order_of_names(read: Read) -> None:
    files = {"b/one.txt": "x", "b/one.ann": "", "a.txt": "Anna", "a.ann": "T1\tPER 0 4\tAnna\n", "b.conf": "[entities]"}
    examples, _ = read(files)
    assert [(example.guid, example.line) for example in examples] == [("a", 1), ("b/one", 2)]


@pytest.mark.parametrize(
    ("text", "start"), [("A\r\n\r\nAnna", 5), ("A\r\n\r\nAnna", 3)], ids=["as_it_is", "before_conversion"]
)
def test_windows_line_ends(read: Read, text: str, start: int) -> None:
    (example,), _ = read({"d.txt": text, "d.ann": f"T1\tPER {start} {start + 4}\tAnna\r\n"}, edges="error")
    assert places(example) == [("PER", "Anna")]
    assert example.text == text


def test_fragments_of_successive_lines_are_one_entity_and_others_are_left_out(read: Read, tmp_path: Path) -> None:
    annotations = "T1\tLOC 0 3;4 8\tNew York\nT2\tBODY 9 13;18 23\tleft heart\n"
    (example,), findings = read({"d.txt": "New\nYork left and heart", "d.ann": annotations})
    assert places(example) == [("LOC", "New\nYork")]
    assert findings.counts == {"discontinuous entities, left out": 1}
    assert findings.remarks == [f"{tmp_path / 'd.ann'}:2: d: T2 BODY 'left heart'"]


def test_an_annotation_of_another_text_is_listed_with_its_line(read: Read, tmp_path: Path) -> None:
    (example,), findings = read({"d.txt": "Anna met Bob", "d.ann": "T1\tPER 0 4\tAnna\nT2\tPER 8 11\tBob\n"})
    assert places(example) == [("PER", "Anna")]
    assert findings.remarks == [f"{tmp_path / 'd.ann'}:2: d: PER 'Bob' [8, 11) does not match the text there"]


@pytest.mark.parametrize(
    ("files", "name", "line", "said"),
    [
        ({"d.txt": "Anna"}, "d.txt", None, "there is no d.ann next to it"),
        ({"d.ann": ""}, "d.ann", None, "there is no text d.txt next to it"),
        ({"d.txt": "Anna", "d.ann": "\nT1 PER 0 4 Anna\n"}, "d.ann", 2, "cannot read 'T1 PER 0 4 Anna'"),
        ({"d.txt": "Anna", "d.ann": "T1\tPER 0 x\tAnna\n"}, "d.ann", 1, "expected T1<tab>TYPE START END<tab>TEXT"),
        ({"d.txt": "Anna", "d.ann": "PER\t0\t4\n"}, "d.ann", 1, "is it a line of a brat file?"),
        ({"d.txt": "Anna", "d.ann": "T1\tPER 0 9\t\n"}, "d.ann", 1, "d: PER [0, 9) lies outside the 4 characters"),
    ],
)
def test_bad_files_are_refused_with_their_line(
    read: Read, tmp_path: Path, at: Callable[..., str], files: dict[str, str], name: str, line: int | None, said: str
) -> None:
    with pytest.raises(DataError, match=at(tmp_path / name, line, said)):
        read(files)


def test_the_faults_of_all_files_are_told_together(read: Read, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"a\nb\xff")
    files = {"a.txt": "Anna", "a.ann": "T1 PER 0 4\nT2\tPER 0 9\t\nX\n", "b.txt": "Anna", "d.ann": ""}
    with pytest.raises(DataError) as refused:
        read(files)
    count, *faults = str(refused.value).splitlines()
    assert count == "6 faults:"
    places = ["a.ann:1", "a.ann:1", "a.ann:2", "a.ann:3", "b.txt", "c.txt:2", "d.ann"]
    found = sorted(fault.strip().removeprefix(f"{tmp_path}/").partition(": ")[0] for fault in faults)
    assert found == places[1:]


def test_broken_utf8_is_refused_with_its_line(tmp_path: Path, at: Callable[..., str]) -> None:
    (tmp_path / "d.txt").write_bytes(b"a\nb\xff")
    with pytest.raises(DataError, match=at(tmp_path / "d.txt", 2, "not UTF-8", "iconv -f")):
        list(read_brat(tmp_path, Reading(labelled=False)))


def test_texts_without_annotations_are_unlabelled(read: Read) -> None:
    (example,), _ = read({"d.txt": "Anna"}, labelled=False)
    assert (example.words, iob2(example)) == (["Anna"], None)


def test_files_are_written_as_brat_reads_them(tmp_path: Path) -> None:
    text = "Anna\nin New\nYork"
    words, offsets = ["Anna", "in", "New", "York"], [(0, 4), (5, 7), (8, 11), (12, 16)]
    examples = [
        tagged("news/7: a", words, ["B-PER", "O", "B-LOC", "I-LOC"], text=text, offsets=offsets),
        Example("empty", [], []),
        Example("raw", ["x"]),
    ]
    assert write_brat(examples, tmp_path / "out").counts == {}
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    assert written == {
        "000000-news_7_a.txt": text,
        "000000-news_7_a.ann": "T1\tPER 0 4\tAnna\nT2\tLOC 8 11;12 16\tNew York\n",
        "000001-empty.txt": "",
        "000001-empty.ann": "",
        "000002-raw.txt": "x",
        "annotation.conf": "[entities]\nLOC\nPER\n[relations]\n[events]\n[attributes]\n",
    }


def test_nothing_is_written_of_types_that_brat_cannot_write(tmp_path: Path) -> None:
    examples = [tagged("a", ["x"], ["B-big city"]), tagged("b", ["x"], ["B-PER"]), tagged("c", ["x"], ["B"])]
    with pytest.raises(DataError, match=r"brat cannot write types .* '', 'big city'; rename"):
        write_brat(examples, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_line_break_at_the_edge_of_an_entity_is_told(tmp_path: Path) -> None:
    example = tagged("a", "x\n中\n", ["O", "B-A", "I-A", "B-A"], text="x\n中\n", offsets=[(i, i + 1) for i in range(4)])
    lost = write_brat([example], tmp_path / "out")
    assert lost.counts == {"line breaks at the edge of an entity, which brat cannot mark": 2}
    assert (tmp_path / "out" / "000000-a.ann").read_text("utf-8") == "T1\tA 2 3\t中\n"


def test_a_corpus_may_be_folders_of_brats(tmp_path: Path, at: Callable[..., str]) -> None:
    for split in ("train", "test"):
        write_brat([tagged("a", ["Anna"], ["B-PER"]), tagged("b", ["x"], ["B-ODD"])], tmp_path / split)
    corpus = Corpus("mine", tmp_path)
    inventory = corpus.inventory("train")
    assert (inventory.sentences, inventory.types) == (2, {"PER": 1, "ODD": 1})
    digest = corpus.digest("train")
    (tmp_path / "train" / "000000-a.ann").write_text("T1\tLOC 0 4\tAnna\n")
    assert Corpus("mine", tmp_path).digest("train") != digest
    with pytest.raises(DataError, match=at(tmp_path / "train" / "000001-b.ann", None, "entity type 'ODD'")):
        corpus.check_types("train", ["PER"])
