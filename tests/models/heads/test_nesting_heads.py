"""Heads that find overlapping entities: what each can express comes back, and confidences are those of all outcomes."""

import itertools
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.entities import Annotation, Entity, in_text_order
from common.tag_schemes import tags_to_entities
from models import HEADS
from models.heads.crf_per_type import BertCrfPerTypeForNer
from models.heads.span_pairs import SpanPairTagger
from models.tagger import LabelSpace, Tagger
from tests.models.families import batch_of, random_rows, tiny_config, tiny_tagger

WORDS, TYPES = 9, ["PER", "LOC"]
NESTING = {name: head for name, head in HEADS.items() if head.nests}
every_head = pytest.mark.parametrize("name", NESTING)


@st.composite
def annotations(draw: st.DrawFn) -> Annotation:
    """Any entities over some words, of which none are known in some ranges."""
    words = draw(st.integers(1, WORDS))
    places = st.tuples(st.integers(0, words - 1), st.integers(0, words - 1)).map(sorted)
    entities = draw(st.lists(st.tuples(st.sampled_from(TYPES), places), max_size=7))
    return Annotation(words, in_text_order(Entity(name, first, last) for name, (first, last) in entities))


def of_tags(model: Tagger, targets: Tensor) -> Tensor:
    """Emissions of a CRF per type whose best paths are these."""
    assert isinstance(model, BertCrfPerTypeForNer)
    T = len(model.tag_names)
    return 20 * torch.nn.functional.one_hot(targets.clamp(min=0), T).flatten(2).float()


def of_starts_and_ends(model: Tagger, targets: Tensor) -> Tensor:
    L = len(model.label_names)
    return 20 * torch.nn.functional.one_hot(targets.clamp(min=0), L).flatten(2).float()


def of_pairs(model: Tagger, targets: Tensor) -> Tensor:
    """Emissions that are the places of words, and a model that looks the scores of their pairs up."""
    assert isinstance(model, SpanPairTagger)
    B, W, _ = targets.shape
    K, none = len(model.types), model.scores_a_type
    scores = torch.full((B, W, W, none + K), -20.0)
    scores[..., :none] = 0
    for row, first, entry in (targets >= 0).nonzero().tolist():
        words, kind = divmod(int(targets[row, first, entry]), K)
        scores[row, first, first + words, none + kind] = 20

    def pair_scores(firsts: Tensor, lasts: Tensor) -> Tensor:
        rows = firsts[:, :, None, 0].long()
        return scores[rows, firsts[:, :, None, 1].long(), lasts[:, None, :, 1].long()]

    model.pair_scores = pair_scores  # type: ignore[method-assign]
    places = torch.zeros(B, W, model.num_scores(model.config))
    places[..., 0], places[..., 1] = torch.arange(B)[:, None], torch.arange(W)
    return places


PERFECT: dict[str, Callable[[Tagger, Tensor], Tensor]] = {
    "crf_per_type": of_tags,
    "span": of_starts_and_ends,
    "global_pointer": of_pairs,
    "biaffine": of_pairs,
}


def mask_of(texts: list[Annotation]) -> Tensor:
    lengths = torch.tensor([one.words for one in texts])
    return torch.arange(max(1, int(lengths.max()))) < lengths[:, None]


@every_head
@given(texts=st.lists(annotations(), min_size=1, max_size=3))
def test_what_a_head_can_express_comes_back(name: str, texts: list[Annotation]) -> None:
    model = tagger(name, "perfect")
    targets, mask = model.encode(texts), mask_of(texts)
    predictions = model.predict(PERFECT[name](model, targets), mask, with_confidence=True)
    for text, prediction in zip(texts, predictions, strict=True):
        assert text.entities is not None
        kept = model.expressible(text.entities)
        assert set(kept) <= set(text.entities)
        assert in_text_order(prediction.entities) == in_text_order(kept)
        assert [one.first_word for one in prediction.entities] == sorted(one.first_word for one in kept)
        assert all(confidence > 0.9 for confidence in prediction.confidences)


@cache
def tagger(name: str, what: str = "random") -> Tagger:
    """A head with random weights, the same one for each purpose."""
    return tiny_tagger(NESTING[name])


@every_head
def test_what_is_not_known_changes_no_loss(name: str) -> None:
    model = tagger(name)
    emissions = torch.randn(1, 5, model.num_scores(model.config), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 5, dtype=torch.bool)

    def loss(entities: list[Entity], unannotated: list[tuple[int, int]]) -> Tensor:
        return model.losses(emissions, model.encode([Annotation(5, entities, unannotated)]), mask)

    known = [Entity("PER", 0, 1)]
    expected = loss(known, [(3, 4)])
    assert expected > 0
    assert torch.equal(loss([*known, Entity("LOC", 3, 3)], [(3, 4)]), expected)
    assert torch.equal(loss([*known, Entity("OTHER", 3, 4)], []), expected)
    assert not torch.equal(loss(known, []), expected)
    nothing = model.losses(emissions, model.encode([Annotation(5, None)]), mask)
    assert torch.equal(nothing, torch.zeros(1))


@every_head
def test_texts_without_words_or_entities_have_a_loss_and_no_entities(name: str) -> None:
    model = tagger(name)
    texts = [Annotation(0, []), Annotation(1, []), Annotation(3, [])]
    emissions = torch.randn(3, 3, model.num_scores(model.config), requires_grad=True)
    losses = model.losses(emissions, model.encode(texts), mask_of(texts))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert losses[0] == 0
    assert emissions.grad is not None
    assert emissions.grad.isfinite().all()
    perfect = tagger(name, "perfect")
    predictions = perfect.predict(PERFECT[name](perfect, perfect.encode(texts)), mask_of(texts), with_confidence=True)
    assert [found.entities for found in predictions] == [[], [], []]


@every_head
def test_under_bfloat16_autocast_losses_stay_in_float32(name: str) -> None:
    model = tagger(name)
    batch = batch_of(model, random_rows([20, 5, 13]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
        found = model.predict(output.logits, batch["word_mask"], with_confidence=True)
    assert output.loss.dtype == torch.float32
    exact = model.losses(output.logits.float(), batch["labels"], batch["word_mask"]).sum()
    torch.testing.assert_close(output.loss, exact / batch["word_mask"].sum())
    assert found == model.predict(output.logits.float(), batch["word_mask"], with_confidence=True)


@every_head
def test_types_are_reordered(name: str) -> None:
    model = tiny_tagger(NESTING[name])
    batch = batch_of(model, random_rows([12, 7]))
    emissions = model(**batch).logits
    expected = model.predict(emissions, batch["word_mask"], with_confidence=True)
    before = model.label_names
    names = [*before[:-2], *reversed(before[-2:])]
    model.select_labels([before.index(label) for label in names], names)
    found = model.predict(model(**batch).logits, batch["word_mask"], with_confidence=True)
    assert [one.entities for one in found] == [one.entities for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.confidences == pytest.approx(other.confidences, abs=1e-5)


@pytest.mark.parametrize("markup", ["bio", "bios", "bioes"])
def test_a_crf_per_type_is_a_crf_for_each_type(markup: str) -> None:
    """Its loss and its confidences are those of all paths of each type."""
    config = tiny_config("bert")
    BertCrfPerTypeForNer.configure(config, LabelSpace(TYPES, markup), BertCrfPerTypeForNer.Options())
    torch.manual_seed(0)
    model = BertCrfPerTypeForNer(config).eval().requires_grad_(False)
    W, K, T, crf = 4, len(TYPES), len(config.type_tags), model.crf
    emissions = torch.randn(1, W, K * T)
    entities = [Entity(name, *span) for name in TYPES for span in itertools.combinations_with_replacement(range(W), 2)]
    gold = [Entity("PER", 0, 2), Entity("LOC", 1, 1), Entity("LOC", 3, 3)]
    targets = model.encode([Annotation(W, gold)])
    assert targets.shape == (1, W, K)
    expected, loss = dict.fromkeys(entities, 0.0), 0.0
    for place, name in enumerate(TYPES):
        scores = {}
        for path in itertools.product(range(T), repeat=W):
            chain = torch.tensor([path])
            scores[path] = float(crf(emissions[..., place * T : (place + 1) * T], chain, reduction="none"))
        for path, score in scores.items():
            for _, first, last in tags_to_entities([config.type_tags[tag] for tag in path]):
                expected[Entity(name, first, last)] += math.exp(score)
        loss -= scores[tuple(targets[0, :, place].tolist())]
    mask = torch.ones(1, W, dtype=torch.bool)
    assert float(model.losses(emissions, targets, mask)) == pytest.approx(loss, rel=1e-5)
    found = model.entity_confidences(emissions, mask, [entities])[0]
    assert found == pytest.approx([expected[entity] for entity in entities], abs=1e-5)
