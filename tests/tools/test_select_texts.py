"""Texts to annotate next: the scores, near-duplicates, the files, and agreement with the predictor."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from transformers import PreTrainedConfig

from common.entities import Entity
from inference.predictor import NerPredictor
from models.tagger import Prediction
from processors.corpus import Corpus
from processors.examples import Example
from processors.text.near_duplicates import NearDuplicates
from tests.tools.runs import FinishedRun, read_json
from tools import select_texts
from tools.script import run_script
from tools.select_texts import SCORES, Scored, choose

KNOWN = ["the man met anna near paris", "he saw big co when we left"]
STRANGE = ["quz fex zorb anna wum", "xyzzy left paris blorp , bob qux"]


def select(*words: object) -> None:
    with patch.object(sys, "argv", ["select_texts", *map(str, words)]):
        run_script(select_texts.main)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*KNOWN, "", STRANGE[0], STRANGE[0].upper(), STRANGE[1], " "]) + "\n", "utf-8")
    return path


def test_near_duplicates_share_words_and_pairs_of_words() -> None:
    there = NearDuplicates(0.5)
    there.add(["The", "man", "met", "Anna"])  # four words and three pairs
    assert there.has_similar(["the", "MAN", "met", "anna"])
    assert there.has_similar(["the", "man", "met", "bob"])  # 5 of 9
    assert not there.has_similar(["man", "anna", "the", "met"])  # 4 of 10
    assert not there.has_similar(["rome"])
    assert not NearDuplicates(0.5).has_similar(["rome"])


def scored(text: str, **lessons: float) -> Scored:
    return Scored(Example(text, text.split(), []), {(name,): worth for name, worth in lessons.items()})


def test_the_highest_scores_are_chosen_without_near_duplicates() -> None:
    texts = [
        scored("a b c", first=1.0),
        scored("d e f", second=3.0),
        scored("d e f", third=2.5),
        scored("g h", fourth=2.0),
        scored("i", fifth=0.5),
    ]
    chosen, passed_over = choose(texts, lambda found: len(found) >= 2, 0.5, [])
    assert ([one.example.guid for one in chosen], passed_over) == (["d e f", "g h"], 1)
    chosen, passed_over = choose(texts, lambda found: len(found) >= 9, 0.5, [Example("", ["G", "H"])])
    assert ([one.example.guid for one in chosen], passed_over) == (["d e f", "a b c", "i"], 2)


def test_a_name_is_worth_half_each_time_it_was_chosen() -> None:
    texts = [
        scored("anna left", anna=1.0),
        scored("anna came", anna=0.9),
        scored("anna met bob", anna=0.8, bob=0.3),
        scored("bob slept", bob=0.4),
    ]
    chosen, _ = choose(texts, lambda found: len(found) >= 4, 0.99, [])
    # 0.8 + 0.3; then 0.5 of 1.0; then 0.25 of 0.9 against 0.5 of 0.4
    assert [one.example.guid for one in chosen] == ["anna met bob", "anna left", "anna came", "bob slept"]
    assert [one.score for one in chosen] == pytest.approx([1.1, 1.0, 0.9, 0.4])


@pytest.mark.parametrize("by", SCORES)
def test_texts_with_unknown_words_come_first(crf_run: FinishedRun, texts: Path, by: str, tmp_path: Path) -> None:
    select(crf_run.folder, texts, "--number", 1, "--by", by, "--to", "plain", "--output", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text("utf-8").strip().lower() in STRANGE


def test_the_suggestions_are_those_of_the_predictor(crf_run: FinishedRun, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "tasks.json"
    select(crf_run.folder, texts, "--to", "label_studio", "--output", output, "--number", 100, "--no_cuda")
    tasks = read_json(output)
    assert [task["data"]["id"].rpartition(":")[2] for task in tasks[-2:]] != ["1", "2"]
    assert len(tasks) == 4  # one of two spellings, none without words
    expected = NerPredictor.load(crf_run.folder, "cpu")([task["data"]["text"] for task in tasks])
    for task, entities in zip(tasks, expected, strict=True):
        found = [
            (region["value"]["labels"][0], region["value"]["start"], region["value"]["end"], region["score"])
            for region in task["predictions"][0]["result"]
        ]
        assert [one[:3] for one in found] == [(one.type, one.start, one.end) for one in entities]
        assert [one[3] for one in found] == pytest.approx([one.confidence for one in entities], abs=1e-5)


@pytest.mark.parametrize("to", ["doccano", "brat", "jsonl"])
def test_what_is_written_can_be_read(softmax_run: FinishedRun, texts: Path, to: str, tmp_path: Path) -> None:
    output = tmp_path / ("out" if to == "brat" else "out.jsonl")
    select(softmax_run.folder, texts, "--to", to, "--output", output, "--by", "path")
    read = list(Corpus("", split_files={"test": output}).examples("test"))
    assert sorted((one.text or "").lower() for one in read) == sorted([*KNOWN, *STRANGE])
    assert any(one.entities for one in read)
    if to == "brat":
        assert "LOC\nORG\nPER\n" in (output / "annotation.conf").read_text("utf-8")


def test_annotated_texts_are_left_out(crf_run: FinishedRun, texts: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text(f"{STRANGE[1]} here\n", "utf-8")
    select(crf_run.folder, texts, "--output", tmp_path / "out.jsonl", "--leave_out", known)
    lines = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert STRANGE[1] not in {json.loads(line)["text"] for line in lines}


def test_scores_are_those_of_their_definitions() -> None:
    class Model:
        config = PreTrainedConfig()

        def candidates(self, rows: Any, mask: Any, threshold: float) -> Any:
            return [[(Entity("PER", 0, 0), 0.75), (Entity("LOC", 0, 0), 0.25), (Entity("LOC", 2, 2), 0.125)]]

    prediction = Prediction([Entity("PER", 0, 0)], [0.75])
    model: Any = Model()
    score: Any = SCORES["expected_errors"]
    (lessons,) = score(model, None, None, [prediction], [["Anna", "in", "Rome", "."]])
    assert lessons == {("anna",): (0.25 + 0.25) / 4, ("rome",): 0.125 / 4}


def test_faults_are_told(crf_run: FinishedRun, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="already exists"):
        select(crf_run.folder, texts, "--output", texts)
    with pytest.raises(SystemExit, match="there is no such file"):
        select(crf_run.folder, tmp_path / "none.txt", "--output", tmp_path / "out")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({"text": "two\nlines"}) + "\n", "utf-8")
    with pytest.raises(SystemExit, match="a line break inside the text"):
        select(crf_run.folder, broken, "--to", "plain", "--output", tmp_path / "out")
