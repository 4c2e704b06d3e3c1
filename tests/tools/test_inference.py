"""Whole documents through windows, against a slow and simple way."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import tools.decoding
from common.tag_schemes import tags_to_entities
from models.tagger import Tagger
from processors.features.dataset import FeatureDataset
from tests.tools.runs import replace, split_of
from tools.decoding import TaggedDocument, tag_documents
from tools.run import Run


@pytest.fixture(params=["crf", "softmax"])
def args(request: pytest.FixtureRequest, crf_args: Run, softmax_args: Run) -> Run:
    """Windows so short that most sentences take several."""
    chosen: Run = crf_args if request.param == "crf" else softmax_args
    return replace(chosen, eval_max_seq_length=7)


def disturbed(model: Tagger) -> Tagger:
    """A model whose tags differ from word to word."""
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.data.add_(0.3 * torch.randn_like(weight))
    return model


def tagged(args: Run, model: Tagger, dataset: FeatureDataset) -> list[TaggedDocument]:
    return list(tag_documents(args, model, dataset, "Testing"))


def tagged_slowly(model: Tagger, dataset: FeatureDataset, document: int) -> TaggedDocument:
    """One window at a time, put together by where their words lie."""
    gold = torch.tensor(dataset.gold_label_ids(document).astype(np.int64))
    logits = torch.full((len(gold), model.classifier.out_features), float("nan"))
    for window in dataset.windows_of(document, document + 1):
        features = dataset[window]
        batch = dataset.collate([features])
        with torch.no_grad():
            found = model(batch["input_ids"], batch["attention_mask"], None, batch["word_positions"]).logits[0]
        logits[features.first_word : features.first_word + len(found)] = found
    assert not logits.isnan().any()
    mask = torch.ones(1, len(gold), dtype=torch.bool)
    with torch.no_grad():
        loss = model.sequence_losses(logits[None], gold[None], mask)
        tags = [model.tag_names[tag] for tag in model.decode(logits[None], mask)[0]]
        return TaggedDocument(document, tags, tags_to_entities(tags), [], float(loss))


def assert_same(left: list[TaggedDocument], right: list[TaggedDocument]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.document == other.document
        assert (one.tags, one.entities) == (other.tags, other.entities)
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_documents_longer_than_a_window_are_tagged_whole(args: Run) -> None:
    args, model, dataset = split_of(args)
    disturbed(model)
    assert len(dataset) > 1.5 * dataset.num_documents
    found = tagged(args, model, dataset)
    assert [document.document for document in found] == list(range(dataset.num_documents))
    assert_same(found, [tagged_slowly(model, dataset, document) for document in range(dataset.num_documents)])
    assert len({label for document in found for label in document.tags}) > 3


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_tags_do_not_depend_on_the_batch_size(args: Run, batch_size: int) -> None:
    args, model, dataset = split_of(args)
    disturbed(model)
    assert_same(tagged(replace_batch(args, batch_size), model, dataset), tagged(args, model, dataset))


def replace_batch(args: Run, batch_size: int) -> Run:
    return replace(args, per_gpu_eval_batch_size=batch_size)


@pytest.mark.parametrize("name", ["_DOCUMENTS_AT_ONCE", "_WORDS_A_DECODING_BATCH"])
def test_tags_do_not_depend_on_how_much_is_held_at_once(args: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args, model, dataset = split_of(args)
    disturbed(model)
    expected = tagged(args, model, dataset)
    monkeypatch.setattr(tools.decoding, name, 3)
    assert_same(tagged(args, model, dataset), expected)


def test_tags_do_not_depend_on_the_order_of_documents(args: Run, corpus_dir: Path) -> None:
    args, model, dataset = split_of(args)
    disturbed(model)
    texts = [dataset.document(document).text for document in range(dataset.num_documents)]
    expected = [document.tags for document in tagged(args, model, dataset)]

    path = corpus_dir / "dev.txt"
    blocks = path.read_text("utf-8").strip().split("\n\n")
    order = list(range(len(blocks)))
    random.Random(1).shuffle(order)
    path.write_text("\n\n".join(blocks[number] for number in order) + "\n", "utf-8")
    *_, shuffled = split_of(args)
    assert [shuffled.document(place).text for place in range(len(order))] == [texts[number] for number in order]
    found = [document.tags for document in tagged(args, model, shuffled)]
    assert found == [expected[number] for number in order]


def test_empty_documents_keep_their_places(args: Run, corpus_dir: Path) -> None:
    (corpus_dir / "test.txt").unlink()
    documents = [[], ["anna", "met", "bob"], [], [], ["he", "left"], []]
    records = [{"tokens": words, "tags": ["O"] * len(words)} for words in documents]
    (corpus_dir / "test.jsonl").write_text("\n".join(map(json.dumps, records)), "utf-8")
    args, model, dataset = split_of(args, "test")
    found = tagged(args, model, dataset)
    assert [document.document for document in found] == [0, 1, 2, 3, 4, 5]
    assert [len(document.tags) for document in found] == [0, 3, 0, 0, 2, 0]
    assert [document.loss > 0 for document in found] == [False, True, False, False, True, False]


def test_a_split_of_empty_documents_only_is_no_error(args: Run, corpus_dir: Path) -> None:
    (corpus_dir / "test.txt").unlink()
    (corpus_dir / "test.jsonl").write_text('{"tokens": []}\n{"tokens": []}\n', "utf-8")
    args, model, dataset = split_of(args, "test")
    assert [len(document.tags) for document in tagged(args, model, dataset)] == [0, 0]


def test_unlabelled_documents_have_no_loss(args: Run, corpus_dir: Path) -> None:
    (corpus_dir / "test.txt").write_text("anna\nmet\nbob\n\nhe\nleft\n", "utf-8")
    args, model, dataset = split_of(args, "test")
    assert [document.loss for document in tagged(args, model, dataset)] == [0.0, 0.0]


def test_tagging_switches_dropout_off_and_leaves_gradients_on(args: Run) -> None:
    args, model, dataset = split_of(args)
    model.train()
    assert_same(tagged(args, model, dataset), tagged(args, model, dataset))
    assert torch.is_grad_enabled()
    assert all(weight.grad is None for weight in model.parameters())
