"""Parts between encoder and head, and class weights, in a run: trained, scored, trained on, applied to raw text."""

from pathlib import Path
from typing import Any

import pytest

from inference.predictor import NerPredictor
from tests.helpers import write_corpus
from tests.tools.runs import call_script, options_of_run, read_json, read_predictions

PARTS = {"word_pooling": "mean", "last_layers": 2, "bilstm_size": 24}


@pytest.fixture(scope="module")
def options(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("parts")
    corpus = write_corpus(home / "corpus", {"train": 60, "dev": 20, "test": 20})
    return options_of_run(encoder, corpus, home) | {"bilstm_learning_rate": 2e-2, "num_train_epochs": 6.0}


@pytest.fixture(scope="module")
def run(options: dict[str, Any]) -> Path:
    training = {"word_dropout": 0.05, "class_weights": "balanced", "do_train": True, "from_scratch": True}
    call_script("run_ner_softmax", **options, **PARTS, **training, do_eval=True, do_predict=True)
    return Path(options["output_dir"])


def test_the_run_and_its_predictor_have_them(run: Path) -> None:
    assert read_json(run / "config.json")["word_states"] == {**PARTS, "word_dropout": 0.05}
    assert set(read_json(run / "config.json")["class_weights"]) >= {"O", "PER"}
    assert read_json(run / "eval_results.json")["f1"] > 0.9
    records = read_predictions(run)
    found = NerPredictor.load(run, "cpu")([record["text"] for record in records])
    assert [[(one.type, one.start, one.end) for one in entities] for entities in found] == [
        [(one["type"], one["start"], one["end"]) for one in record["entities"]] for record in records
    ]


def test_a_trained_model_brings_its_own(run: Path, options: dict[str, Any], tmp_path: Path) -> None:
    plain = {name: value for name, value in options.items() if name != "bilstm_learning_rate"}
    scores = read_json(run / "eval_results.json")["f1"]
    call_script("run_ner_softmax", **plain, do_eval=True)
    assert read_json(run / "eval_results.json")["f1"] == scores
    with pytest.raises(SystemExit, match=r"--last_layers 3: the model in .* was trained with 2; --bilstm_size 8: the"):
        call_script("run_ner_softmax", **plain, do_eval=True, last_layers=3, bilstm_size=8)
    further = plain | {"model_name_or_path": run, "output_dir": tmp_path / "further", "max_steps": 1, "do_train": True}
    with pytest.raises(SystemExit, match=r"--bilstm_size 8: the model in .* was trained with 24; leave the flags out"):
        call_script("run_ner_softmax", **further, bilstm_size=8)
    call_script("run_ner_softmax", **further)
    config = read_json(tmp_path / "further" / "config.json")
    assert config["word_states"] == PARTS
    assert "class_weights" not in config
    call_script("run_ner_crf", **further | {"output_dir": tmp_path / "other_head"})
    assert "word_states" not in read_json(tmp_path / "other_head" / "config.json")
