"""Evaluation and prediction agree: tags and scores of the scripts, and of a predictor of the folder."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import set_seed

from inference.predictor import NerPredictor
from models import BertCrfForNer
from processors.corpus import Corpus
from processors.examples import has_wide
from tests.helpers import ROOT
from tests.tags import scores_of_tags
from tests.tools.runs import crf, read_json, read_predictions, replace, softmax, tagger_of
from tools.evaluate import evaluate, predict
from tools.loading import load_model_and_tokenizer
from tools.run import Run
from tools.run_folder import save_model_folder

_SAMPLE = ROOT / "datasets" / "sample"
_DOCUMENTS = 30


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long texts of the sample, Chinese ones in characters and English ones in words, and an encoder for them.

    Its weights are random, but so large that every tag depends on the whole window.
    """
    home = tmp_path_factory.mktemp("equality")
    shutil.copytree(_SAMPLE / "encoder", home / "encoder")
    config = read_json(home / "encoder" / "config.json") | {"initializer_range": 0.3}
    (home / "encoder" / "config.json").write_text(json.dumps(config))
    for split in ("train", "dev"):
        sentences = (_SAMPLE / f"{split}.txt").read_text("utf-8").strip().split("\n\n")
        kinds = [[one for one in sentences if has_wide(one) == wide] for wide in (False, True)]
        texts = ["\n".join(kind[start : start + 3]) for start in range(0, 3 * _DOCUMENTS // 2, 3) for kind in kinds]
        (home / f"{split}.txt").write_text("\n\n".join(texts) + "\n", "utf-8")
    shutil.copy(home / "dev.txt", home / "test.txt")
    return home


def arguments(make: Callable[..., Run], home: Path, output_dir: Path, **options: Any) -> Run:
    return make(
        task_name="sample",
        data_dir=str(home),
        output_dir=str(output_dir),
        feature_cache_dir=str(home / "cache"),
        **options,
    )


def untrained(make: Callable[..., Run], home: Path, output_dir: Path, **options: Any) -> Run:
    """Write a model folder as training does, and return the arguments of the training."""
    scratch: dict[str, Any] = {"model_name_or_path": str(home / "encoder"), "do_train": True, "from_scratch": True}
    args = arguments(make, home, output_dir, **scratch, **options)
    set_seed(args.settings.optimisation.seed)
    args, model, tokenizer = load_model_and_tokenizer(args, tagger_of(args))
    output_dir.mkdir()
    save_model_folder(output_dir, args.settings, model, tokenizer)
    return args


@pytest.mark.parametrize(("make", "overlap"), [(crf, 7), (softmax, -1)])
def test_prediction_is_what_was_evaluated(home: Path, tmp_path: Path, make: Callable[..., Run], overlap: int) -> None:
    folder = tmp_path / "run"
    args = untrained(make, home, folder, eval_max_seq_length=20, window_overlap=overlap)
    predictor = NerPredictor.load(folder, "cpu")
    markup = predictor.model.config.tag_markup
    words = [example.words for example in Corpus("", home).examples("test")]
    whole = NerPredictor(predictor.model, predictor.tokenizer, markup, predictor.cutter, 128).tag_words(words)
    gold = str(tmp_path / "gold.txt")  # tags that windows of 128 tokens would find
    lines = (zip(*text, strict=True) for text in zip(words, whole, strict=True))
    blocks = ("".join(f"{word} {tag}\n" for word, tag in text) for text in lines)
    (tmp_path / "gold.txt").write_text("\n".join(blocks), "utf-8")

    args = replace(args, do_train=False, dev_file=gold, test_file=gold)
    args, model, tokenizer = load_model_and_tokenizer(args, tagger_of(args))
    scores = evaluate(args, model, tokenizer)
    predict(args, model, tokenizer)
    records = read_predictions(folder)
    tags = [record["tags"] for record in records]

    assert predictor.tag_words([record["tokens"] for record in records]) == tags
    found = predictor([record["text"] for record in records])
    keys = ("type", "start", "end", "text")
    assert [[entity[:4] for entity in entities] for entities in found] == [
        [tuple(entity[key] for key in keys) for entity in record["entities"]] for record in records
    ]
    assert scores_of_tags(whole, tags, markup).micro.f1 == scores["f1"]
    assert 0.01 < scores["f1"] < 0.9

    later = arguments(make, home, folder, do_eval=True, dev_file=gold, test_file=gold)
    later, model, tokenizer = load_model_and_tokenizer(later, tagger_of(later))
    assert evaluate(later, model, tokenizer) == scores
    predict(later, model, tokenizer)
    assert read_predictions(folder) == records

    for name in ("eval_max_seq_length", "window_overlap"):  # a folder of an earlier version
        config = read_json(folder / "config.json")
        del config[name]
        (folder / "config.json").write_text(json.dumps(config))
    old = NerPredictor.load(folder, "cpu")
    assert old.max_seq_length == 128  # as the encoder has positions
    assert old.tag_words(words) == whole


def test_flags_count_for_their_run_only(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    cased = str(home / "encoder" / "vocab.txt")
    untrained(crf, home, folder, eval_max_seq_length=20, window_overlap=7, tokenizer_name=cased)
    before = read_json(folder / "config.json")
    assert (before["eval_max_seq_length"], before["window_overlap"], before["word_unit"]) == (20, 7, "auto_token")
    with caplog.at_level(logging.WARNING):
        flags = {"eval_max_seq_length": 40, "word_unit": "char", "crf_constraints": False, "do_lower_case": True}
        args = arguments(crf, home, folder, do_eval=True, **flags)
        args, *_ = load_model_and_tokenizer(args, BertCrfForNer)
    assert (args.eval_max_seq_length, args.window_overlap) == (40, 7)
    assert (args.corpus.word_unit, args.corpus.kept_words) == ("char", ())
    assert "--eval_max_seq_length 40 applies to this run only: the model was evaluated with 20" in caplog.text
    assert "--no_crf_constraints applies to this run only: the model" in caplog.text
    assert "--do_lower_case differs from the setting in training" in caplog.text
    assert "--word_unit char applies to this run only: the model was evaluated with auto_token" in caplog.text
    assert read_json(folder / "config.json") == before


def test_raw_text_in_data_is_cut_as_the_model_was_trained(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    args = untrained(crf, home, folder)
    texts = ["J. Lee left Acme Inc. today.", "李明去了常港市。", "well-known J. Fox"]
    lines = [json.dumps({"text": text, "label": []}) for text in texts]
    (tmp_path / "test.jsonl").write_text("\n".join(lines), "utf-8")
    for again in (args, arguments(crf, home, folder, do_predict=True)):
        applied = replace(again, do_train=False, test_file=str(tmp_path / "test.jsonl"))
        applied, model, tokenizer = load_model_and_tokenizer(applied, BertCrfForNer)
        predict(applied, model, tokenizer)
        words = [record["tokens"] for record in read_predictions(folder)]
        assert words == [list(NerPredictor.load(folder, "cpu").cutter.split(text)[0]) for text in texts]
        assert words[0] == ["J.", "Lee", "left", "Acme", "Inc.", "today", "."]


def test_words_must_be_in_lists(home: Path, tmp_path: Path) -> None:
    untrained(crf, home, tmp_path / "run")
    predictor = NerPredictor.load(tmp_path / "run", "cpu")
    assert [len(tags) for tags in predictor.tag_words([["Anna", "left"], [], ["x" * 3000]])] == [2, 0, 1]
    with pytest.raises(TypeError, match="list of words for each text"):
        predictor.tag_words(["Anna left"])
