"""Training on several corpora with different types, and adding types to a trained model."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from models import BertCrfForNer, BertCrfPerTypeForNer, BertSoftmaxForNer, BertSpanForNer
from models.tagger import Tagger
from processors.corpus import Corpus
from processors.features.batching import BucketBatchSampler, draw_by_weight
from processors.formats.writers import FORMATS
from tests.helpers import write_corpus
from tests.tools.interrupted import fit_with_interruption
from tests.tools.runs import (
    call_script,
    crf,
    encoder_without_dropout,
    fit,
    options_of_run,
    read_json,
    read_predictions,
    replace,
)
from tests.tools.test_partial_runs import only
from tools.data import load_training_data
from tools.loading import load_model_and_tokenizer
from tools.run import Run
from tools.settings import Settings


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Two corpora, one of persons, named humans there, and one of the other types."""
    whole = Corpus("tiny", write_corpus(tmp_path / "whole", {"train": 120, "dev": 20, "test": 20}))
    for number, (name, types) in enumerate({"people": {"PER"}, "others": {"LOC", "ORG"}}.items()):
        (tmp_path / name).mkdir()
        for split in ("train", "dev", "test"):
            texts = [only(one, types, False) for one in whole.examples(split)]
            FORMATS["jsonl"].write(texts[number::2], tmp_path / name / f"{split}.jsonl")
    path = tmp_path / "corpora.yaml"
    entries = {
        "people": {"data_dir": "people", "rename": {"PER": "HUMAN"}, "weight": 1.5},
        "others": {"data_dir": "others"},
    }
    path.write_text(yaml.safe_dump(entries))
    return path


def test_one_model_finds_the_types_of_all(encoder: Path, corpora: Path, tmp_path: Path) -> None:
    options = options_of_run(encoder, corpora, tmp_path) | {"corpora": str(corpora), "data_dir": ""}
    actions = {"do_train": True, "do_eval": True, "do_predict": True, "from_scratch": True}
    call_script("run_ner_crf", **options, **actions, num_train_epochs=6)
    results = read_json(tmp_path / "run" / "eval_results.json")
    assert results["f1"] > 0.95
    assert results["corpora"].keys() == {"people", "others"}
    assert {name: set(one["types"]) for name, one in results["corpora"].items()} == {
        "people": {"HUMAN"},
        "others": {"LOC", "ORG"},
    }
    assert sum(one["support"] for one in results["corpora"].values()) == results["support"]
    assert set(results["annotated"]) == {"HUMAN", "LOC", "ORG"}
    predictions = read_predictions(tmp_path / "run")
    assert {one["id"].partition("/")[0] for one in predictions} == {"people", "others"}
    of_people = [one["type"] for row in predictions if row["id"].startswith("people") for one in row["entities"]]
    assert set(of_people) == {"HUMAN", "LOC", "ORG"}  # found though nobody has annotated them


def test_weights_are_those_of_the_corpora(encoder: Path, corpora: Path, tmp_path: Path) -> None:
    options = options_of_run(encoder, corpora, tmp_path) | {"corpora": str(corpora), "data_dir": ""}
    settings = Settings.of(BertCrfForNer.Options, **options, do_train=True, from_scratch=True)
    run, _, tokenizer = load_model_and_tokenizer(Run.of(settings), BertCrfForNer)
    dataset = load_training_data(run, tokenizer)
    assert dataset.weights is not None
    guids = [dataset.document(n).guid for n in range(dataset.num_documents)]
    assert dataset.weights.tolist() == [1.5 if guid.startswith("people") else 1.0 for guid in guids]


WEIGHTS = np.array([0.5] * 10 + [1.0] * 4 + [2.5] * 6)


def test_a_weighted_training_resumes_where_it_stopped(encoder: Path, corpora: Path, tmp_path: Path) -> None:
    options = options_of_run(encoder, corpora, tmp_path) | {"corpora": str(corpora), "data_dir": ""}
    run = crf(**options, do_train=True, from_scratch=True, max_steps=20)
    steps, loss, weights = fit(replace(run, output_dir=str(tmp_path / "undisturbed")))
    again, loss_again, weights_again = fit_with_interruption(run, 15)  # in the second epoch
    assert again == steps
    assert loss_again == pytest.approx(loss, rel=1e-6)
    assert all(torch.equal(weight, weights[name]) for name, weight in weights_again.items())


def test_lightning_draws_the_same_windows(encoder: Path, corpora: Path, tmp_path: Path) -> None:
    options = options_of_run(encoder, corpora, tmp_path) | {"corpora": str(corpora), "data_dir": ""}
    options |= {"do_train": True, "from_scratch": True, "max_steps": 12, "per_gpu_train_batch_size": 8, "markup": "bio"}
    options["model_name_or_path"] = str(encoder_without_dropout(encoder, tmp_path / "steady"))
    losses = []
    for script in ("run_ner_softmax", "run_pl_ner"):
        call_script(script, **options, overwrite_output_dir=True)
        losses.append(read_json(tmp_path / "run" / "train_results.json")["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_window_is_drawn_as_often_as_its_weight_says() -> None:
    epochs = [np.bincount(draw_by_weight(WEIGHTS, epoch, seed=1), minlength=20) for epoch in range(40)]
    assert all(counts.sum() == 5 + 4 + 15 for counts in epochs)
    assert all((counts[10:14] == 1).all() and set(counts[14:]) == {2, 3} for counts in epochs)
    mean = np.mean(epochs, 0)
    assert np.abs(mean - WEIGHTS).max() < 0.3
    assert np.array_equal(draw_by_weight(WEIGHTS, 3, 1), draw_by_weight(WEIGHTS, 3, 1))
    assert not np.array_equal(draw_by_weight(WEIGHTS, 3, 1), draw_by_weight(WEIGHTS, 4, 1))
    assert len(draw_by_weight(np.array([0.01] * 3), 0, 0)) == 1


def test_drawn_windows_are_the_same_on_any_number_of_ranks() -> None:
    def steps(world_size: int, rounds: int) -> list[list[int]]:
        def drawn(epoch: int) -> Any:
            return draw_by_weight(WEIGHTS, epoch, seed=1)

        sampler = BucketBatchSampler([5] * 20, 4 // (world_size * rounds), rounds, 0, world_size, 3, drawn=drawn)
        sampler.set_epoch(2)
        return [sorted(sampler.step_windows(step).tolist()) for step in range(sampler.steps)]

    assert steps(1, 1) == steps(2, 1) == steps(1, 2) == steps(2, 2)
    assert sum(map(len, steps(1, 1))) == 24


HEADS: list[type[Tagger]] = [BertSoftmaxForNer, BertCrfForNer, BertCrfPerTypeForNer]


def trained(head: type[Tagger], encoder: Path, tmp_path: Path, **options: Any) -> Any:
    flags = options_of_run(encoder, tmp_path / "new", tmp_path) | options
    settings = Settings.of(head.Options, **flags, do_train=True)
    return load_model_and_tokenizer(Run.of(settings), head)[1].eval()


def save_with(head: type[Tagger], encoder: Path, tmp_path: Path) -> Any:
    """A saved model of the types LOC and PER, and a corpus that knows drugs."""
    for name, tag in {"old": "LOC", "new": "DRUG"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.txt").write_text(f"anna B-PER\nsaw O\nparis B-{tag}\n")
    model = trained(head, encoder, tmp_path, data_dir=str(tmp_path / "old"), from_scratch=True, markup="bioes")
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight))
    model.save_pretrained(tmp_path / "model")
    for file in encoder.iterdir():
        if file.name != "config.json":
            (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    return model


@pytest.mark.parametrize("head", HEADS)
def test_a_model_with_more_types_scores_the_former_ones_as_before(
    head: type[Tagger], encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    former = save_with(head, encoder, tmp_path)
    model = trained(head, encoder, tmp_path, model_name_or_path=str(tmp_path / "model"), add_types=True)
    assert (former.types, model.types) == (["LOC", "PER"], ["LOC", "PER", "DRUG"])
    assert model.markup == "bioes"
    assert "--add_types: kept the head of the types LOC, PER; new types, not learnt yet: DRUG" in caplog.text
    tokens = torch.tensor([[1, 7, 8, 9, 2]])
    with torch.no_grad():
        before, after = former(tokens).logits, model(tokens).logits
    if head is BertCrfPerTypeForNer:
        kept = list(range(before.size(-1)))
        assert torch.equal(former.crf.transitions, model.crf.transitions)
    else:
        kept = [model.label_names.index(name) for name in former.label_names]
    torch.testing.assert_close(after[..., kept], before)
    if head is BertCrfForNer:
        assert torch.equal(model.crf.transitions[kept][:, kept], former.crf.transitions)
        assert torch.equal(model.crf.start_transitions[kept], former.crf.start_transitions)
        assert torch.equal(model.crf.end_transitions[kept], former.crf.end_transitions)


def test_types_cannot_be_added_to_nothing_nor_to_every_head(encoder: Path, tmp_path: Path) -> None:
    save_with(BertSpanForNer, encoder, tmp_path)
    source = {"model_name_or_path": str(tmp_path / "model"), "add_types": True}
    with pytest.raises(ValueError, match="--add_types: BertSpanForNer cannot keep its types"):
        trained(BertSpanForNer, encoder, tmp_path, **source)
    with pytest.raises(ValueError, match=r"--add_types: .* has no trained BertCrfForNer whose types could be kept"):
        trained(BertCrfForNer, encoder, tmp_path, **source)
