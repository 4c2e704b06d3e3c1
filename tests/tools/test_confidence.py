"""Confidence of entities, against sums over all tag sequences."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from common.entities import Entity
from common.tag_schemes import (
    MARKUPS,
    SCHEMES,
    illegal_positions,
    legal_transitions,
    tag_set,
    tags_to_entities,
)
from models import BertCrfForNer, BertSoftmaxForNer
from models.tagger import Tagger
from tests.models.families import tiny_config
from tools.decoding import entity_confidences

WORDS = 4


@pytest.fixture(params=["bio", "bios", "bioes"])
def markup(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def softmax_tagger(tags: list[str]) -> BertSoftmaxForNer:
    config = tiny_config("bert")
    config.id2label = dict(enumerate(tags))
    torch.manual_seed(0)
    return BertSoftmaxForNer(config).eval()


def tagger(kind: type[Tagger], markup: str) -> Tagger:
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


def confidences(model: Tagger, logits: Tensor, markup: str) -> list[float]:
    mask = torch.ones(1, WORDS, dtype=torch.bool)
    with torch.no_grad():
        return entity_confidences(model, logits, mask, [all_entities()], markup)[0]


def test_of_a_crf_is_the_share_of_all_legal_sequences_that_hold_the_entity(markup: str) -> None:
    model = tagger(BertCrfForNer, markup)
    assert isinstance(model, BertCrfForNer)
    logits = torch.randn(1, WORDS, len(model.tag_names))
    expected, total = dict.fromkeys(all_entities(), 0.0), 0.0
    crf = model.crf.requires_grad_(False)
    for path, tags in sequences(model.tag_names):
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


def test_of_a_softmax_is_the_share_of_sequences_that_write_it_well(markup: str) -> None:
    model = tagger(BertSoftmaxForNer, markup)
    logits = torch.randn(1, WORDS, len(model.tag_names))
    probabilities = logits.softmax(-1)[0]
    expected = dict.fromkeys(all_entities(), 0.0)
    for path, tags in sequences(model.tag_names):
        weight = float(torch.stack([probabilities[word, tag] for word, tag in enumerate(path)]).prod())
        for entity in tags_to_entities(tags):
            own = tags[entity.first_word : entity.last_word + 1]
            begins_well = own[0][0] in "BS"
            if begins_well and not illegal_positions(own, MARKUPS[markup]):
                expected[entity] += weight
    assert confidences(model, logits, markup) == pytest.approx(list(expected.values()), abs=1e-5)


@pytest.mark.parametrize("scheme", ["BMES", "BILOU"])
def test_of_a_model_of_another_scheme_it_is_that_of_its_own_tags(scheme: str) -> None:
    foreign = softmax_tagger(tag_set(["A", "B"], SCHEMES[scheme]))
    ours = softmax_tagger(tag_set(["A", "B"], SCHEMES["BIOES"]))
    logits = torch.randn(1, WORDS, len(ours.tag_names))
    assert confidences(foreign, logits, "bios") == confidences(ours, logits, "bioes")


@pytest.mark.parametrize(
    "tags",
    [["O", "I-A", "I-B"], ["O", "B-A", "I-A", "I-B"], ["O", "B-A", "B-B", "I-B"]],
    ids=["without_borders", "borders_of_one_type", "single_words_of_one_type"],
)
def test_of_tags_of_no_whole_scheme_it_is_the_share_that_reads_as_the_entity(tags: list[str]) -> None:
    model = softmax_tagger(tags)
    logits = torch.randn(1, WORDS, len(tags))
    probabilities = logits.softmax(-1)[0]
    expected = dict.fromkeys(all_entities(), 0.0)
    for path, names in sequences(tags):
        weight = float(torch.stack([probabilities[word, tag] for word, tag in enumerate(path)]).prod())
        for start in range(WORDS):  # as if nothing stood before it
            for entity in tags_to_entities(names[start:]):
                if entity.first_word == 0:
                    expected[Entity(entity.type, start, start + entity.last_word)] += weight
    assert confidences(model, logits, "bio") == pytest.approx(list(expected.values()), abs=1e-5)


def test_a_scheme_that_lacks_a_tag_still_gives_a_confidence() -> None:
    tags = [tag for tag in tag_set(["A", "B"], MARKUPS["bioes"]) if tag != "S-A"]
    found = confidences(softmax_tagger(tags), torch.zeros(1, WORDS, len(tags)), "bioes")
    assert all(0 < confidence < 1 for confidence in found)


def test_rows_and_batches_are_kept_apart(markup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tagger(BertCrfForNer, markup)
    logits = torch.randn(2, WORDS, len(model.tag_names))
    mask = torch.tensor([[True] * WORDS, [True, True, False, False]])
    entities = [[Entity("A", 0, 1), Entity("B", 3, 3)], [Entity("A", 1, 1)]]
    with torch.no_grad():
        together = entity_confidences(model, logits, mask, entities, markup)
        monkeypatch.setattr("tools.decoding._SPANS_AT_ONCE", 1)
        apart = entity_confidences(model, logits, mask, entities, markup)
        alone = entity_confidences(model, logits[1:, :2], mask[1:, :2], entities[1:], markup)
    assert [len(row) for row in together] == [2, 1]
    assert apart == [pytest.approx(row, abs=1e-6) for row in together]
    assert alone[0] == pytest.approx(together[1], abs=1e-6)
