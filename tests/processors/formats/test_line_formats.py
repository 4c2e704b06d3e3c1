"""Formats told apart by their content, and those with a sentence a line."""

import gzip
import json
from pathlib import Path

import pytest

from processors.corpus import READERS, Corpus
from processors.examples import DataError, Example
from processors.formats.line_formats import detect_format
from processors.spans import Reading
from tests.tags import iob2

CMEEE = "呼吸机治疗肺炎。|||0    2    equ|||5    6    dis|||\n无。|||\n"
MSRA = "中共中央/nt 致/o 中国/ns 3/o 1997/o\n\n江泽民/nr 和/o km/h/o\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train.txt", CMEEE, "cmeee"),
        ("train.txt", "无。|||\n" + CMEEE, "cmeee"),
        ("train.txt", MSRA, "msra"),
        ("train.txt", "a/o O\nb/o O\n", "columns"),
        ("train.txt", "中/o\n国/o\n", "msra"),
        ("train.txt", "||| O\na O\n", "columns"),
        ("train.txt", "[ O\n[ O\n", "columns"),
        ("train.txt", '[" O\n', "columns"),
        ("train.txt", "{ O\n", "columns"),
        ("train.txt", '{"text": "a"}\n', "json"),
        ("train.txt", '{\n"text": "a"}\n', "json"),
        ("train.txt", '[\n  {"text": "a"}\n]\n', "json"),
        ("train.txt", '["a", {"entities": []}]\n', "json"),
        ("train.txt", '[["a", {"entities": []}]]\n', "json"),
        ("train.jsonlines", "broken", "json"),
        ("train.txt", "", "columns"),
    ],
)
def test_formats_are_told_apart(tmp_path: Path, name: str, content: str, expected: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert detect_format(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.txt", gzip.compress(b"a O\n", mtime=0), "packed with gzip; unpack it"),
        ("train", b"PK\x03\x04....", "zip archive, as doccano exports"),
        ("train", b"PAR1....", "--dataset_name"),
        ("train.csv", b"text,label\n", "CSV is not read as a split; export JSON"),
    ],
)
def test_packed_and_binary_files_and_csv_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        Corpus("", split_files={"train": tmp_path / name}).inventory("train")


def examples_of(path: Path, content: str, split: str = "train") -> list[Example]:
    path.write_text(content, "utf-8")
    reading = Reading(edges="error", split=split, labelled=split != "test")
    return list(READERS[detect_format(path)](path, reading))


def test_cmeee_includes_the_last_position(tmp_path: Path) -> None:
    first, second = examples_of(tmp_path / "a.txt", CMEEE)
    assert first.words == list("呼吸机治疗肺炎。")
    assert first.entities == [("equ", 0, 2), ("dis", 5, 6)]
    assert (second.words, iob2(second), second.line) == (["无", "。"], ["O", "O"], 2)


def test_msra_s_words_are_characters_and_their_tags_entities(tmp_path: Path) -> None:
    first, second = examples_of(tmp_path / "a.txt", MSRA)
    assert first.words == list("中共中央致中国31997")
    assert first.entities == [("nt", 0, 3), ("ns", 5, 6)]
    assert (second.text, second.line) == ("江泽民和km/h", 3)
    assert second.entities == [("nr", 0, 2)]


def test_broken_lines_are_refused_together(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(DataError, match="2 faults:") as refused:
        examples_of(path, CMEEE + "肺炎|||0 x dis|||\n好\n肺炎|||0    9    dis|||\n")
    assert all(f"{path}:{line}: " in str(refused.value) for line in (3, 5))


def test_a_broken_word_of_msra_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = ["中国/ns"] * 20 + ["中国/xx 好/o", "/o 好/o"]
    with pytest.raises(DataError, match=r"(?s)2 faults:.*a.txt:21: .*cannot read '中国/xx'.*a.txt:22: .*'/o'"):
        examples_of(tmp_path / "a.txt", "\n".join(lines))


PAIR = ["Anna left", {"entities": [[0, 4, "PER"]]}]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(PAIR),
        json.dumps([PAIR]),
        json.dumps([PAIR], indent=2),
        json.dumps({"classes": ["PER"], "annotations": [None, PAIR]}),
        json.dumps({"classes": ["PER"], "annotations": [PAIR]}, indent=2),
        json.dumps({"text": PAIR[0], "entities": [[0, 4, "PER"]]}, indent=2),
    ],
)
def test_pairs_of_spacy_and_single_records_are_json(tmp_path: Path, content: str) -> None:
    (example,) = examples_of(tmp_path / "train.txt", content)
    assert (example.words, iob2(example)) == (["Anna", "left"], ["B-PER", "O"])


def test_records_with_the_id_of_an_earlier_one_are_kept_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": 1, "text": "a", "label": []}\n' * 2 + '{"id": null, "text": "a", "label": []}\n' * 2)
    findings = Corpus("", split_files={"train": path}).inventory("train").findings
    assert findings.counts == {"records with the id of an earlier one": 1}


def test_all_broken_lines_of_a_file_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"text": "a", "label": []}\n{"text": \n[1]\n{"tokens": [1]}\n{"text": "a", "label": [[0, 9, "X"]]}\n'
    )
    with pytest.raises(DataError, match="4 faults:") as refused:
        list(Corpus("", split_files={"train": path}).examples("train"))
    assert [f"{path}:{line}: " in str(refused.value) for line in range(1, 6)] == [False, True, True, True, True]
