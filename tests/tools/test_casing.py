"""Capitals that only `--casing` lets the encoder see: in training, evaluation, prediction, and from a saved folder."""

import json
import logging
import random
import shutil
from pathlib import Path

import onnx
import pytest
from transformers import AutoConfig, AutoModel

from inference.export_onnx import write_onnx
from inference.predictor import NerPredictor
from models import BertCrfForNer
from tests.helpers import FILLERS
from tests.lightning_runs.lightning_runs import call_lightning, ner_options, read_scores
from tests.tools.runs import call_script, crf, options_of_run, prepared, read_json, replace, split_of
from tools.evaluate import evaluate
from tools.run import Run

NAMES = ["rome", "paris", "acme"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One in which a word is a name exactly where it is written with a capital."""
    folder = tmp_path_factory.mktemp("casing")
    generator = random.Random(0)
    for split, count in {"train": 80, "dev": 30, "test": 30}.items():
        blocks = []
        for _ in range(count):
            words = generator.choices(FILLERS[:5] + NAMES, k=generator.randrange(3, 9))
            words = [word.title() if word in NAMES and generator.random() < 0.5 else word for word in words]
            blocks.append("\n".join(f"{word} {'B-PLACE' if word[0].isupper() else 'O'}" for word in words))
        (folder / f"{split}.txt").write_text("\n\n".join(blocks) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def run(encoder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("casing_run")
    options = options_of_run(encoder, corpus, home) | {"num_train_epochs": 8.0, "from_scratch": True}
    call_script("run_ner_crf", **options, casing=True, do_train=True, do_eval=True, do_predict=True)
    return home / "run"


def arguments(encoder: Path, corpus: Path, home: Path, **changes: object) -> Run:
    options = options_of_run(encoder, corpus, home) | {"from_scratch": True, "do_train": True}
    return crf(**options | changes)


def test_capitals_are_learnt_with_it_only(run: Path, encoder: Path, corpus: Path, tmp_path: Path) -> None:
    assert read_json(run / "eval_results.json")["f1"] > 0.95
    assert read_json(run / "test_results.json")["f1"] > 0.95
    options = options_of_run(encoder, corpus, tmp_path) | {"num_train_epochs": 8.0, "from_scratch": True}
    call_script("run_ner_crf", **options, do_train=True, do_eval=True)
    assert read_json(tmp_path / "run" / "eval_results.json")["f1"] < 0.8


def test_the_folder_of_the_run_remembers_it(run: Path, encoder: Path, corpus: Path) -> None:
    assert read_json(run / "config.json")["casing_types"] == [0, 2, 3, 4]
    trained = read_json(run / "eval_results.json")["f1"]
    args = arguments(encoder, corpus, run.parent, do_train=False, do_eval=True)
    args, model, tokenizer = prepared(args)
    assert args.casing_types == (0, 2, 3, 4)
    assert evaluate(args, model, tokenizer)["f1"] == pytest.approx(trained)


def test_raw_text_is_read_with_it(run: Path) -> None:
    predictor = NerPredictor.load(run, "cpu")
    (found,) = predictor(["the man Rome said rome that Paris"])
    assert [entity.surface for entity in found] == ["Rome", "Paris"]


def test_a_model_that_has_it_is_trained_on_with_it(run: Path, encoder: Path, corpus: Path, tmp_path: Path) -> None:
    for casing in (False, True):
        args = arguments(run, corpus, tmp_path, from_scratch=False, casing=casing)
        args, model, _ = prepared(args)
        assert model.config.type_vocab_size == 5
        assert args.casing_types == (0, 2, 3, 4)


def test_nothing_changes_before_the_first_step(encoder: Path, corpus: Path, tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained"
    shutil.copytree(encoder, pretrained)
    AutoModel.from_config(AutoConfig.from_pretrained(encoder)).save_pretrained(pretrained)
    scores = []
    for casing in (False, True):
        args = arguments(pretrained, corpus, tmp_path, from_scratch=False, casing=casing)
        args, model, dataset = split_of(args)
        batch = dataset.collate([dataset[index] for index in range(4)])
        assert (batch["token_type_ids"].max() > 1) == casing
        scores.append(model(**batch).loss.item())
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_it_is_refused_where_it_could_do_nothing(run: Path, encoder: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--casing adds embeddings .* --freeze_embeddings"):
        arguments(encoder, corpus, tmp_path, casing=True, freeze_embeddings=True)
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    config = read_json(folder / "config.json")
    del config["casing_types"]
    (folder / "config.json").write_text(json.dumps(config))
    args = arguments(encoder, corpus, tmp_path, do_train=False, do_eval=True)
    prepared(args)
    with pytest.raises(ValueError, match=r"--casing: the model in .* was trained without it"):
        prepared(replace(args, casing=True))
    distilbert = tmp_path / "distilbert"
    shutil.copytree(encoder, distilbert)
    sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64}
    vocab_size = read_json(encoder / "config.json")["vocab_size"]
    AutoConfig.for_model("distilbert", vocab_size=vocab_size, **sizes).save_pretrained(distilbert)
    with pytest.raises(ValueError, match=r"--casing: distilbert encoders have no token type embeddings"):
        prepared(arguments(distilbert, corpus, tmp_path, casing=True))


def test_a_tokenizer_that_keeps_capitals_is_remarked(
    encoder: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cased = tmp_path / "cased"
    shutil.copytree(encoder, cased)
    content = read_json(cased / "tokenizer.json")
    content["normalizer"]["lowercase"] = False
    (cased / "tokenizer.json").write_text(json.dumps(content))
    settings = read_json(cased / "tokenizer_config.json") | {"do_lower_case": False}
    (cased / "tokenizer_config.json").write_text(json.dumps(settings))
    with caplog.at_level(logging.WARNING):
        prepared(arguments(encoder, corpus, tmp_path, casing=True))
        assert not caplog.records
        prepared(arguments(cased, corpus, tmp_path, casing=True))
    assert "already distinguishes upper and lower case" in caplog.text


def test_the_lightning_script_has_it(encoder: Path, corpus: Path, tmp_path: Path) -> None:
    options = ner_options(encoder, corpus, tmp_path, max_epochs=8, casing=True)
    (tmp_path / "labels.txt").write_text("PLACE\n", "utf-8")
    call_lightning("run_pl_ner", **options)
    assert read_scores(tmp_path / "run")["f1"] > 0.95
    assert read_json(tmp_path / "run" / "config.json")["casing_types"] == [0, 2, 3, 4]


def test_an_exported_graph_says_which_types_it_wants(run: Path, tmp_path: Path) -> None:
    write_onnx(BertCrfForNer.from_pretrained(run).eval(), tmp_path / "model.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(metadata["casing_types"]) == [0, 2, 3, 4]
