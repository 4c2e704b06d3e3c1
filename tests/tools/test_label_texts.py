"""Self-training: labels where a model is certain, and what another model learns from them."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from common.entities import Entity
from inference.predictor import NerPredictor
from tests.helpers import write_corpus
from tests.tools.runs import FinishedRun, call_script, options_of_run, read_json
from tools import label_texts
from tools.label_texts import certain_labels
from tools.script import run_script


def label(*words: object) -> list[dict[str, Any]]:
    """Run the tool, and read what it writes."""
    with patch.object(sys, "argv", ["label_texts", *map(str, words)]):
        run_script(label_texts.main)
    output = Path(str(words[words.index("--output") + 1]))
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def sure_run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A model that is certain of what it has learnt."""
    home = tmp_path_factory.mktemp("sure")
    options = options_of_run(encoder, write_corpus(home / "corpus", {"train": 100, "dev": 20}), home)
    call_script(
        "run_ner_crf", **options, from_scratch=True, do_train=True, num_train_epochs=15, evaluate_during_training=False
    )
    return FinishedRun("run_ner_crf", home / "run", options)


def test_words_are_unknown_where_an_entity_is_possible_but_not_certain() -> None:
    candidates = [
        (Entity("PER", 0, 1), 0.97),
        (Entity("ORG", 1, 2), 0.02),
        (Entity("LOC", 3, 3), 0.9),
        (Entity("LOC", 4, 5), 0.03),
        (Entity("ORG", 5, 5), 0.03),
    ]
    assert certain_labels(7, candidates, 0.95) == ([Entity("PER", 0, 1)], [3, 5])
    assert certain_labels(7, candidates, 0.99) == ([], [0, 1, 2, 3, 4, 5])
    assert certain_labels(7, candidates, 0.6) == ([Entity("PER", 0, 1), Entity("LOC", 3, 3)], [])


def test_labels_agree_with_the_predictor(sure_run: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the man met anna near paris\n\nxyzzy left zorb blorp\n", "utf-8")
    arguments = [sure_run.folder, tmp_path / "texts.txt", "--no_cuda", "--output", tmp_path / "out.jsonl"]
    known, strange = label(*arguments, "--certainty", 0.8, "--head", "models:BertCrfForNer")
    assert [known["text"], strange["text"]] == ["the man met anna near paris", "xyzzy left zorb blorp"]
    (expected,) = NerPredictor.load(sure_run.folder, "cpu")([known["text"]])
    assert [one.type for one in expected if one.confidence >= 0.8] == ["PER", "LOC"]
    names = {known["text"][one.start : one.end]: one.type for one in expected}
    tags = dict(zip(known["tokens"], known["tags"], strict=True))
    assert {word: tag.removeprefix("B-") for word, tag in tags.items() if tag != "O"} == names
    assert "annotated" not in known
    assert sum(end - start for start, end in strange["annotated"]) < len(strange["tokens"])


def test_a_model_learns_from_the_labels_of_another(sure_run: FinishedRun, encoder: Path, tmp_path: Path) -> None:
    few, own = tmp_path / "few", tmp_path / "own"
    write_corpus(few, {"train": 2, "dev": 20}, seed=1)
    write_corpus(own, {"texts": 100}, seed=2)
    sentences = (own / "texts.txt").read_text("utf-8").split("\n\n")
    texts = [" ".join(line.split()[0] for line in one.splitlines() if line) for one in sentences]
    (own / "texts.txt").write_text("\n".join(texts), "utf-8")
    label(sure_run.folder, own / "texts.txt", "--certainty", 0.8, "--output", own / "train.jsonl")
    (tmp_path / "corpora.yaml").write_text("few: {data_dir: few, labels: types.txt}\nown: {data_dir: own}\n")
    (tmp_path / "types.txt").write_text("LOC\nORG\nPER\n")
    options = {**sure_run.options, "output_dir": str(tmp_path / "run"), "data_dir": "", "num_train_epochs": 8}
    options |= {"from_scratch": True, "do_train": True, "do_eval": True, "corpora": str(tmp_path / "corpora.yaml")}
    call_script("run_ner_crf", **options)
    assert read_json(tmp_path / "run" / "eval_results.json")["f1"] > 0.9


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--certainty", "0.5"], "--certainty 0.5: must be a number, greater than 0.5 and less than 1"),
        (["--output", "{there}"], "already exists; name a new file"),
    ],
)
def test_what_cannot_work_is_refused(
    sure_run: FinishedRun, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.txt"
    there.write_text("anna\n")
    flags = [one.format(there=there) for one in flags]
    with pytest.raises(SystemExit) as end:
        label(sure_run.folder, there, "--output", tmp_path / "new.jsonl", *flags)
    assert message in f"{end.value}{capsys.readouterr().err}"
