"""Sentences in their documents: training, scoring, resuming, raw text and the folder of the run."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from inference.predictor import NerPredictor
from tests.lightning_runs.lightning_runs import call_lightning, ner_options
from tests.tools.runs import call_script, options_of_run, read_json, read_predictions

CONTEXT = {"document_context": True, "context_size": 12, "context_dropout": 0.2, "train_max_seq_length": 32}
TRAINING = {"do_train": True, "from_scratch": True, "max_steps": 250, "save_steps": 200, "logging_steps": 250}


def document(generator: random.Random) -> list[list[tuple[str, str]]]:
    """Sentences whose names are of a type that only the first sentence tells."""
    marker, kind = generator.choice([("paris", "LOC"), ("acme", "ORG")])
    sentences = [[(marker, "O")]]
    for _ in range(generator.randrange(1, 3)):
        sentences.append([("the", "O"), (generator.choice(["anna", "bob"]), f"B-{kind}"), ("left", "O")])
    return sentences


@pytest.fixture(scope="module")
def options(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home, generator = tmp_path_factory.mktemp("context"), random.Random(0)
    corpus = home / "corpus"
    corpus.mkdir()
    for split, count in {"train": 80, "dev": 20, "test": 20}.items():
        blocks = []
        for _ in range(count):
            sentences = document(generator)
            blocks += ["-DOCSTART- O", *("\n".join(f"{word} {tag}" for word, tag in words) for words in sentences)]
        (corpus / f"{split}.txt").write_text("\n\n".join(blocks) + "\n", "utf-8")
    return options_of_run(encoder, corpus, home)


@pytest.fixture(scope="module")
def run(options: dict[str, Any]) -> Path:
    call_script("run_ner_softmax", **options, **CONTEXT, **TRAINING, do_eval=True, do_predict=True)
    return Path(options["output_dir"])


def test_types_that_only_the_document_tells_are_learnt(run: Path) -> None:
    assert read_json(run / "config.json")["context_size"] == 12
    assert read_json(run / "test_results.json")["f1"] > 0.95


def test_raw_text_is_read_line_by_line_in_its_document(run: Path, tmp_path: Path) -> None:
    predictor = NerPredictor.load(run, "cpu")
    text = "paris\n\nthe anna left\n the bob left"
    (found,) = predictor([text])
    assert [(one.type, one.surface, text[one.start : one.end]) for one in found] == [
        ("LOC", "anna", "anna"),
        ("LOC", "bob", "bob"),
    ]
    texts = [text.replace("paris", "acme"), "", "acme\nthe anna left"] * 3
    at_once, streamed = predictor(texts), list(predictor.stream(texts, look_ahead=1))
    assert at_once == streamed
    assert [[one.type for one in entities] for entities in at_once] == [["ORG", "ORG"], [], ["ORG"]] * 3
    records = read_predictions(run)
    words = [record["tokens"] for record in records]
    documents = list[int]()
    for sentence in words:
        documents.append(len(documents) if len(sentence) == 1 else documents[-1])
    assert predictor.tag_words(words, [str(number) for number in documents]) == [one["tags"] for one in records]
    assert predictor.tag_words(words) != [one["tags"] for one in records]


def test_the_folder_decides(run: Path, options: dict[str, Any], tmp_path: Path) -> None:
    scores = read_json(run / "eval_results.json")["f1"]
    call_script("run_ner_softmax", **options, do_eval=True)
    assert read_json(run / "eval_results.json")["f1"] == scores
    plain = tmp_path / "plain"
    call_script("run_ner_softmax", **options | {"output_dir": plain}, do_train=True, from_scratch=True, max_steps=1)
    assert "context_size" not in read_json(plain / "config.json")
    with pytest.raises(SystemExit, match=r"--document_context: the model in .*plain was trained without it"):
        call_script("run_ner_softmax", **options | {"output_dir": plain}, do_eval=True, document_context=True)


def test_it_resumes_to_the_same_bits(run: Path, options: dict[str, Any], tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    for later in sorted(folder.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)[1:]:
        if later.name != "checkpoint-best":
            shutil.rmtree(later)
    (folder / "model.safetensors").unlink()
    again = {**options, "output_dir": folder, "resume_from_checkpoint": "auto", **TRAINING, **CONTEXT}
    with pytest.raises(SystemExit, match=r"--context_dropout 0\.5 \(before 0\.2\) cannot change: the model of"):
        call_script("run_ner_softmax", **again | {"context_dropout": 0.5})
    call_script("run_ner_softmax", **again)
    before, now = (load_file(sorted(one.glob("checkpoint-[0-9]*"))[-1] / "model.safetensors") for one in (run, folder))
    assert all(now[name].equal(weight) for name, weight in before.items())


def test_the_lightning_script_has_it(encoder: Path, options: dict[str, Any], tmp_path: Path) -> None:
    flags = {"document_context": True, "context_size": 12, "context_dropout": 0.2}
    call_lightning("run_pl_ner", **ner_options(encoder, Path(options["data_dir"]), tmp_path, **flags, max_epochs=2))
    assert read_json(tmp_path / "run" / "config.json")["context_size"] == 12
    assert 0 <= read_json(tmp_path / "run" / "train_results.json")["padding_share"] < 0.5


def test_a_corpus_without_documents_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    record = {"tokens": ["anna"], "tags": ["B-PER"]}
    for split in ("train", "dev"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
    other = {**options, "data_dir": tmp_path, "output_dir": tmp_path / "run", "document_context": True}
    with pytest.raises(SystemExit, match=r"train\.jsonl: --document_context: no sentence has a neighbour .*-DOCSTART-"):
        call_script("run_ner_softmax", **other, do_train=True, from_scratch=True, max_steps=1)
