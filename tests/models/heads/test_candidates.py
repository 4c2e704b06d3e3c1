"""Candidates: all entities that are probable enough, with the probabilities that enumeration of tag sequences gives."""

import itertools
import math
from collections import defaultdict

import pytest
import torch

from common.entities import Entity
from common.tag_schemes import MARKUPS, tag_set, tags_to_entities
from models import HEADS
from models.heads.crf import BertCrfForNer
from models.heads.crf_per_type import BertCrfPerTypeForNer
from models.heads.flat import FlatTagger
from models.heads.softmax import BertSoftmaxForNer
from models.tagger import LabelSpace, Tagger, set_label_names
from tests.models.families import tiny_config, tiny_tagger

TYPES, W = ["PER", "LOC"], 4
TEMPERATURES = 1.7, 0.6


def flat_tagger(head: type[FlatTagger], markup: str, temperatures: tuple[float, float] = (1.0, 1.0)) -> FlatTagger:
    config = tiny_config("bert")
    if markup in MARKUPS:
        head.configure(config, LabelSpace(TYPES, markup), head.Options())
    else:  # tags of another project's model
        set_label_names(config, ["O", *(f"I-{name}" for name in TYPES)])
        config.crf_legal = None
    config.confidence_temperatures = list(temperatures)
    torch.manual_seed(3)
    return head(config).eval().requires_grad_(False)


def enumerated(model: Tagger, emissions: torch.Tensor) -> dict[Entity, float]:
    """The probability of each entity, from all tag sequences of one text ``(W, C)``."""
    tags, probabilities = model.label_names, defaultdict[Entity, float](float)
    of_words, of_transitions = model.confidence_temperatures
    emissions = emissions / of_words
    start, end, transitions, legal = (
        torch.zeros(len(tags)),
        torch.zeros(len(tags)),
        torch.zeros(len(tags), len(tags)),
        None,
    )
    if isinstance(model, BertCrfForNer):
        crf, legal = model.crf, model.crf.legal
        start, end, transitions = (
            scores / of_transitions for scores in (crf.start_transitions, crf.end_transitions, crf.transitions)
        )
    total = 0.0
    for path in itertools.product(range(len(tags)), repeat=len(emissions)):
        steps = list(itertools.pairwise([len(tags), *path, len(tags) + 1]))
        if legal is not None and not all(legal[step] for step in steps):
            continue
        score = start[path[0]] + end[path[-1]] + sum(transitions[step] for step in steps[1:-1])
        weight = float((score + emissions[range(len(path)), path].sum()).exp())
        total += weight
        for entity in tags_to_entities([tags[tag] for tag in path]):
            probabilities[entity] += weight
    return {entity: weight / total for entity, weight in probabilities.items()}


@pytest.mark.parametrize("temperatures", [(1.0, 1.0), TEMPERATURES])
@pytest.mark.parametrize("markup", ["bio", "bioes", "io"])
def test_of_a_crf_are_those_of_all_tag_sequences(markup: str, temperatures: tuple[float, float]) -> None:
    model = flat_tagger(BertCrfForNer, markup, temperatures)
    emissions = torch.randn(2, W, len(model.label_names)) * 2
    mask = torch.tensor([[True] * W, [True] * (W - 1) + [False]])
    found = model.candidates(emissions, mask, 1e-9)
    for row, words in enumerate([W, W - 1]):
        expected = enumerated(model, emissions[row, :words])
        assert dict(found[row]) == pytest.approx(expected, abs=1e-6)
        entities = [entity for entity, _ in found[row]]
        assert entities == sorted(entities, key=lambda one: (one.first_word, -one.last_word, one.type))
        likely = {entity for entity, probability in expected.items() if probability >= 0.1}
        assert {entity for entity, _ in model.candidates(emissions, mask, 0.1)[row]} == likely
        assert likely


def test_of_a_softmax_are_products_of_words() -> None:
    """Enumeration would also count sequences that are not well-formed."""
    model = flat_tagger(BertSoftmaxForNer, "bio", TEMPERATURES)
    emissions = torch.randn(1, W, len(model.label_names)) * 2
    words = (emissions[0] / TEMPERATURES[0]).softmax(-1)  # (W, C)
    tags = model.label_names
    for entity, probability in model.candidates(emissions, torch.ones(1, W, dtype=torch.bool), 1e-9)[0]:
        name, first, last = entity
        expected = words[first, tags.index(f"B-{name}")]
        for word in range(first + 1, last + 1):
            expected = expected * words[word, tags.index(f"I-{name}")]
        if last + 1 < W:
            expected = expected * (1 - words[last + 1, tags.index(f"I-{name}")])
        assert probability == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("temperatures", [(1.0, 1.0), TEMPERATURES])
@pytest.mark.parametrize("name", HEADS)
def test_agree_with_the_confidences_of_predictions(name: str, temperatures: tuple[float, float]) -> None:
    model = tiny_tagger(HEADS[name])
    lengths = torch.tensor([9, 1, 0, 5])
    mask = torch.arange(9) < lengths[:, None]
    torch.manual_seed(1)
    emissions = torch.randn(4, 9, model.num_scores(model.config)) * 3
    predicted = model.predict(emissions, mask)
    model.config.confidence_temperatures = list(temperatures)
    predictions = model.predict(emissions, mask, with_confidence=True)
    assert [one.entities for one in predictions] == [one.entities for one in predicted]
    assert sum(len(one.entities) for one in predictions) > 3
    every = model.candidates(emissions, mask, 1e-9)
    for candidates, prediction, words in zip(every, predictions, lengths.tolist(), strict=True):
        found = dict(candidates)
        assert len(found) == len(candidates)
        assert all(0 <= one.first_word <= one.last_word < words for one in found)
        for entity, confidence in zip(prediction.entities, prediction.confidences, strict=True):
            assert found.get(entity, 0.0) == pytest.approx(confidence, abs=1e-5)
    some = model.candidates(emissions, mask, 0.2)
    assert some == [[one for one in candidates if one[1] >= 0.2] for candidates in every]
    assert any(some)


def test_tag_sets_of_single_words_have_no_longer_entities() -> None:
    config = tiny_config("bert")
    BertCrfForNer.configure(config, LabelSpace(["NOUN", "VERB"], "bio", single_words=True), BertCrfForNer.Options())
    ids = config.label2id or {}
    assert set(ids) == set(tag_set(["NOUN", "VERB"], MARKUPS["bio"], single_words=True))
    model = BertCrfForNer(config).eval()
    emissions = torch.randn(1, 3, 3)
    found = model.candidates(emissions, torch.ones(1, 3, dtype=torch.bool), 1e-9)[0]
    marginals = model.crf.marginals(emissions)
    expected = {
        (name, word): float(marginals[0, word, ids[f"B-{name}"]]) for name in ("NOUN", "VERB") for word in range(3)
    }
    assert {(one.type, one.first_word): value for one, value in found} == pytest.approx(expected, abs=1e-6)


def test_thresholds_out_of_range_are_refused() -> None:
    model = flat_tagger(BertCrfForNer, "bio")
    for threshold in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="threshold"):
            model.candidates(torch.zeros(1, 2, len(model.label_names)), torch.ones(1, 2, dtype=torch.bool), threshold)


def test_words_outside_of_entities_are_those_of_all_tag_sequences() -> None:
    model = flat_tagger(BertCrfForNer, "bio", TEMPERATURES)
    emissions = torch.randn(1, W, len(model.label_names)) * 2
    spans = [(first, last) for first in range(W) for last in range(first, W)]
    (found,) = model.outside_confidences(emissions, torch.ones(1, W, dtype=torch.bool), [spans])
    whole = model.candidates(emissions, torch.ones(1, W, dtype=torch.bool), 1e-9)[0]
    for (first, last), probability in zip(spans, found, strict=True):
        if first == last:  # one word: exactly one entity covers it, or none
            covering = sum(value for entity, value in whole if entity.first_word <= first <= entity.last_word)
            assert probability == pytest.approx(1 - covering, abs=1e-5)
        else:
            assert probability <= min(found[spans.index((word, word))] for word in range(first, last + 1)) + 1e-6


def test_words_outside_of_entities_of_all_types() -> None:
    model = flat_tagger(BertCrfPerTypeForNer, "bio")
    emissions = torch.randn(2, W, model.num_scores(model.config)) * 2
    mask = torch.ones(2, W, dtype=torch.bool)
    found = model.outside_confidences(emissions, mask, [[(1, 1)], [(0, 0), (2, 2)]])
    for row, word, probability in ((0, 1, found[0][0]), (1, 0, found[1][0]), (1, 2, found[1][1])):
        of_types = dict.fromkeys(TYPES, 1.0)
        for entity, value in model.candidates(emissions, mask, 1e-9)[row]:
            of_types[entity.type] -= value if entity.first_word <= word <= entity.last_word else 0
        assert probability == pytest.approx(math.prod(of_types.values()), abs=1e-5)
