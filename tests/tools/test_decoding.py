"""Windows to tags, entities and confidences, on one process and on several."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tools.decoding
from common.entities import Entity
from common.tag_schemes import MARKUPS, SCHEMES, begins_entity, legal_transitions, tag_set, tags_to_entities
from models import BertCrfForNer, BertSoftmaxForNer
from models.heads.flat import FlatTagger
from processors.features.dataset import FeatureDataset
from tests.models.families import tiny_config
from tests.tags import illegal_positions
from tests.tools.runs import replace, split_of
from tools.decoding import TaggedDocument, shared_batches, stitched_emissions, tag_documents
from tools.run import Run


@pytest.fixture(params=["crf", "softmax"])
def args(request: pytest.FixtureRequest, crf_args: Run, softmax_args: Run) -> Run:
    """Windows so short that most sentences take several."""
    chosen: Run = crf_args if request.param == "crf" else softmax_args
    return replace(chosen, eval_max_seq_length=7)


def disturbed(model: FlatTagger) -> FlatTagger:
    """A model whose tags differ from word to word."""
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.data.add_(0.3 * torch.randn_like(weight))
    return model


def tagged(args: Run, model: FlatTagger, dataset: FeatureDataset) -> list[TaggedDocument]:
    return list(tag_documents(args, model, dataset, "Testing"))


def tagged_slowly(model: FlatTagger, dataset: FeatureDataset, document: int) -> TaggedDocument:
    """One window at a time, put together by where their words lie."""
    assert dataset.encode is not None
    gold = dataset.encode([dataset.annotation(document)])[0]
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
        loss = model.losses(logits[None], gold[None], mask)
        tags = [model.label_names[tag] for tag in model.decode(logits[None], mask)[0]]
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
    *_, shuffled = split_of(Run.of(args.settings))  # a run reads each file once
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


WORDS = 4


@pytest.fixture(params=["bio", "bios", "bioes"])
def markup(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def softmax_tagger(tags: list[str]) -> BertSoftmaxForNer:
    config = tiny_config("bert")
    config.id2label = dict(enumerate(tags))
    torch.manual_seed(0)
    return BertSoftmaxForNer(config).eval()


def tagger(kind: type[FlatTagger], markup: str) -> FlatTagger:
    tags = tag_set(["A", "B"], MARKUPS[markup])
    config = tiny_config("bert")
    config.id2label = dict(enumerate(tags))
    config.label2id = {tag: index for index, tag in enumerate(tags)}
    config.crf_legal = [row.nonzero()[0].tolist() for row in legal_transitions(tags, MARKUPS[markup])[:-1]]
    torch.manual_seed(0)
    return kind(config).eval()


def sequences(names: list[str]) -> Iterator[tuple[tuple[int, ...], list[str]]]:
    for path in itertools.product(range(len(names)), repeat=WORDS):
        yield path, [names[tag] for tag in path]


def all_entities() -> list[Entity]:
    spans = itertools.combinations_with_replacement(range(WORDS), 2)
    return [Entity(entity_type, first, last) for first, last in spans for entity_type in ("A", "B")]


def confidences(model: FlatTagger, logits: Tensor, markup: str) -> list[float]:
    mask = torch.ones(1, WORDS, dtype=torch.bool)
    with torch.no_grad():
        return model.entity_confidences(logits, mask, [all_entities()])[0]


def test_the_confidence_of_a_crf_is_the_share_of_all_legal_sequences_that_hold_the_entity(markup: str) -> None:
    model = tagger(BertCrfForNer, markup)
    assert isinstance(model, BertCrfForNer)
    logits = torch.randn(1, WORDS, len(model.label_names))
    expected, total = dict.fromkeys(all_entities(), 0.0), 0.0
    crf = model.crf.requires_grad_(False)
    for path, tags in sequences(model.label_names):
        if not illegal_positions(tags, MARKUPS[markup]):
            score = float(crf.start_transitions[path[0]] + crf.end_transitions[path[-1]])
            score += sum(float(logits[0, word, tag]) for word, tag in enumerate(path))
            score += sum(float(crf.transitions[pair]) for pair in itertools.pairwise(path))
            weight = float(torch.tensor(score, dtype=torch.float64).exp())
            total += weight
            for entity in tags_to_entities(tags):
                expected[entity] += weight
    found = confidences(model, logits, markup)
    assert found == pytest.approx([expected[entity] / total for entity in all_entities()], abs=1e-5)


def test_the_confidence_of_a_softmax_is_the_share_of_sequences_that_write_it_well(markup: str) -> None:
    model = tagger(BertSoftmaxForNer, markup)
    logits = torch.randn(1, WORDS, len(model.label_names))
    probabilities = logits.softmax(-1)[0]
    expected = dict.fromkeys(all_entities(), 0.0)
    for path, tags in sequences(model.label_names):
        weight = float(torch.stack([probabilities[word, tag] for word, tag in enumerate(path)]).prod())
        for entity in tags_to_entities(tags):
            own = tags[entity.first_word : entity.last_word + 1]
            begins_well = own[0][0] in "BS"
            if begins_well and not illegal_positions(own, MARKUPS[markup]):
                expected[entity] += weight
    assert confidences(model, logits, markup) == pytest.approx(list(expected.values()), abs=1e-5)


@pytest.mark.parametrize("scheme", ["BMES", "BILOU"])
def test_the_confidence_of_a_model_of_another_scheme_is_that_of_its_own_tags(scheme: str) -> None:
    foreign = softmax_tagger(tag_set(["A", "B"], SCHEMES[scheme]))
    ours = softmax_tagger(tag_set(["A", "B"], SCHEMES["BIOES"]))
    logits = torch.randn(1, WORDS, len(ours.label_names))
    assert confidences(foreign, logits, "bios") == confidences(ours, logits, "bioes")


@pytest.mark.parametrize(
    "tags",
    [["O", "I-A", "I-B"], ["O", "B-A", "I-A", "I-B"], ["O", "B-A", "B-B", "I-B"]],
    ids=["without_borders", "borders_of_one_type", "single_words_of_one_type"],
)
def test_the_confidence_of_tags_of_no_whole_scheme_is_the_share_that_reads_as_the_entity(tags: list[str]) -> None:
    model = softmax_tagger(tags)
    logits = torch.randn(1, WORDS, len(tags))
    probabilities = logits.softmax(-1)[0]
    expected = dict.fromkeys(all_entities(), 0.0)
    for path, names in sequences(tags):
        weight = float(torch.stack([probabilities[word, tag] for word, tag in enumerate(path)]).prod())
        for start in range(WORDS):
            for entity in tags_to_entities(names[start:]):
                # With several tags to begin with, as if nothing stood before the entity.
                begins = len([tag for tag in tags if tag.endswith(entity.type)]) > 1 or start == 0
                if entity.first_word == 0 and (begins or begins_entity(names[start - 1], names[start])):
                    expected[Entity(entity.type, start, start + entity.last_word)] += weight
    assert confidences(model, logits, "bio") == pytest.approx(list(expected.values()), abs=1e-5)


def test_a_scheme_that_lacks_a_tag_still_gives_a_confidence() -> None:
    tags = [tag for tag in tag_set(["A", "B"], MARKUPS["bioes"]) if tag != "S-A"]
    found = confidences(softmax_tagger(tags), torch.zeros(1, WORDS, len(tags)), "bioes")
    assert all(0 < confidence < 1 for confidence in found)


def test_confidences_of_rows_and_batches_are_kept_apart(markup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tagger(BertCrfForNer, markup)
    logits = torch.randn(2, WORDS, len(model.label_names))
    mask = torch.tensor([[True] * WORDS, [True, True, False, False]])
    entities = [[Entity("A", 0, 1), Entity("B", 3, 3)], [Entity("A", 1, 1)]]
    with torch.no_grad():
        together = model.entity_confidences(logits, mask, entities)
        monkeypatch.setattr("models.heads.flat._SPANS_AT_ONCE", 1)
        apart = model.entity_confidences(logits, mask, entities)
        alone = model.entity_confidences(logits[1:, :2], mask[1:, :2], entities[1:])
    assert [len(row) for row in together] == [2, 1]
    assert apart == [pytest.approx(row, abs=1e-6) for row in together]
    assert alone[0] == pytest.approx(together[1], abs=1e-6)


LENGTHS = np.array([5, 1, 4, 2, 3, 9, 8], np.int32)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_the_ranks_share_out_the_same_batches_however_many_they_are(
    ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.decoding, "world_size", lambda: ranks)
    shares = []
    for rank in range(ranks):
        monkeypatch.setattr(tools.decoding, "rank", lambda rank=rank: rank)
        shares += shared_batches(LENGTHS, 3)
    assert sorted(batch.tolist() for batch in shares) == [[1, 3, 4], [2, 0, 6], [5]]


def test_batches_hold_items_of_like_length() -> None:
    assert [LENGTHS[batch].tolist() for batch in shared_batches(LENGTHS, 3)] == [[1, 2, 3], [4, 5, 8], [9]]


class Counted:
    """Windows that own 2, 0, 3 and 1 words, and a model whose scores say which word of which window it is."""

    word_counts = np.array([2, 0, 3, 1], np.int32)
    config = None

    def num_scores(self, config: None) -> int:
        return 2

    def __getitem__(self, window: int) -> int:
        return window

    def inputs(self, windows: list[int]) -> dict[str, torch.Tensor]:
        mask = torch.arange(3) < torch.from_numpy(self.word_counts[windows])[:, None]
        return {"windows": torch.tensor(windows), "word_mask": mask, "attention_mask": mask}

    def __call__(self, windows: torch.Tensor, **_: torch.Tensor) -> SimpleNamespace:
        rows = windows[:, None] + torch.arange(3) / 8  # (B, W)
        return SimpleNamespace(logits=rows[..., None].expand(-1, -1, 2).bfloat16())


def test_scores_come_back_in_order_without_padding() -> None:
    counted: Any = Counted()
    batches = [np.array([3, 0]), np.array([1, 2])]
    scores = stitched_emissions(counted, counted, range(4), batches, torch.device("cpu"))
    assert scores.dtype == torch.float32
    assert scores.tolist() == [[one, one] for one in (0.0, 0.125, 2.0, 2.125, 2.25, 3.0)]
