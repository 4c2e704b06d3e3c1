"""GlobalPointer and biaffine: losses and scores against formulas written out, and blocks against the whole."""

import math

import pytest
import torch
from torch import Tensor

import models.heads.span_pairs
from common.entities import Annotation, Entity
from models.heads.biaffine import BiaffineForNer
from models.heads.global_pointer import GlobalPointerForNer
from models.heads.span_pairs import SpanPairTagger
from models.tagger import LabelSpace, Prediction
from tests.models.families import batch_of, random_rows, tiny_config, tiny_tagger

W, K, D = 5, 2, 4
HEADS: list[type[SpanPairTagger]] = [GlobalPointerForNer, BiaffineForNer]
every_head = pytest.mark.parametrize("head", HEADS)
GOLD = [Entity("A", 0, 2), Entity("A", 1, 2), Entity("B", 3, 3), Entity("B", 1, 1)]


def tagger(head: type[SpanPairTagger], longest: int = 64) -> SpanPairTagger:
    config = tiny_config("bert")
    head.configure(config, LabelSpace(["A", "B"], "bio"), head.Options(span_size=D, longest_span=longest))
    torch.manual_seed(0)
    return head(config).eval()


def random_emissions(model: SpanPairTagger, rows: int = 1) -> Tensor:
    C = model.num_scores(model.config)
    return torch.randn(rows, W, C, generator=torch.Generator().manual_seed(1))


def spans(longest: int = W) -> list[tuple[int, int]]:
    return [(first, last) for first in range(W) for last in range(first, W) if last - first < longest]


def pointer_score(emissions: Tensor, first: int, last: int, kind: int) -> float:
    """With complex numbers, whose product turns by the distance of both words."""
    query, key = emissions[first, :D], emissions[last, D : 2 * D]
    score = 0.0
    for pair in range(D // 2):
        angle = 10_000 ** (-2 * pair / D)
        left = complex(query[pair], query[pair + D // 2]) * complex(math.cos(angle * first), math.sin(angle * first))
        right = complex(key[pair], key[pair + D // 2]) * complex(math.cos(angle * last), math.sin(angle * last))
        score += (left.conjugate() * right).real
    return score / math.sqrt(D) + float(emissions[first, 2 * D + kind] + emissions[last, 2 * D + K + kind])


def test_the_loss_of_global_pointer_compares_entities_with_all_other_spans() -> None:
    model = tagger(GlobalPointerForNer)
    emissions = random_emissions(model)
    expected = 0.0
    for kind, name in enumerate(["A", "B"]):
        scores = {span: pointer_score(emissions[0], *span, kind) for span in spans()}
        gold = {(first, last) for own, first, last in GOLD if own == name}
        expected += math.log(1 + sum(math.exp(score) for span, score in scores.items() if span not in gold))
        expected += math.log(1 + sum(math.exp(-score) for span, score in scores.items() if span in gold))
    loss = model.losses(emissions, model.encode([Annotation(W, GOLD)]), torch.ones(1, W, dtype=torch.bool))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_global_pointer_finds_all_spans_with_a_positive_score() -> None:
    model = tagger(GlobalPointerForNer)
    emissions = random_emissions(model)
    found = model.predict(emissions, torch.ones(1, W, dtype=torch.bool), with_confidence=True)[0]
    scores = {
        Entity(name, *span): pointer_score(emissions[0], *span, kind)
        for kind, name in enumerate(["A", "B"])
        for span in spans()
    }
    assert set(found.entities) == {entity for entity, score in scores.items() if score > 0}
    expected = [1 / (1 + math.exp(-scores[entity])) for entity in found.entities]
    assert found.confidences == pytest.approx(expected, abs=1e-5)


def biaffine_probabilities(model: SpanPairTagger, emissions: Tensor) -> dict[tuple[int, int], Tensor]:
    assert isinstance(model, BiaffineForNer)
    found = {}
    one = torch.ones(1)
    for first, last in spans():
        left, right = torch.cat([emissions[first, :D], one]), torch.cat([emissions[last, D:], one])
        found[first, last] = torch.stack([left @ matrix @ right for matrix in model.biaffine.weight]).detach()
    return found


def test_the_loss_of_a_biaffine_is_the_cross_entropy_of_all_spans() -> None:
    model = tagger(BiaffineForNer)
    emissions = random_emissions(model)
    gold = {(first, last): 1 + ["A", "B"].index(name) for name, first, last in GOLD}
    scores = biaffine_probabilities(model, emissions[0])
    expected = -sum(float(one.log_softmax(0)[gold.get(span, 0)]) for span, one in scores.items())
    loss = model.losses(emissions, model.encode([Annotation(W, GOLD)]), torch.ones(1, W, dtype=torch.bool))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_a_biaffine_accepts_spans_by_score_unless_they_cross() -> None:
    model = tagger(BiaffineForNer)
    emissions = 3 * random_emissions(model)
    scores = biaffine_probabilities(model, emissions[0])
    expected: dict[tuple[str, int, int], float] = {}
    for first, last in sorted(scores, key=lambda span: -float(scores[span].max())):
        best = int(scores[first, last].argmax())
        crossed = any(a < first <= b < last or first < a <= last < b for _, a, b in expected)
        if best and not crossed:
            expected["AB"[best - 1], first, last] = float(scores[first, last].softmax(0)[best])
    assert 1 < len(expected) < sum(int(one.argmax() > 0) for one in scores.values())
    found = model.predict(emissions, torch.ones(1, W, dtype=torch.bool), with_confidence=True)[0]
    assert {tuple(one): pytest.approx(confidence, abs=1e-5) for one, confidence in zip(*found[:2], strict=True)} == (
        expected
    )


def test_a_biaffine_cannot_express_crossing_entities_nor_two_types_of_one_span() -> None:
    model = tagger(BiaffineForNer, longest=4)
    outer = Entity("A", 1, 4)
    for other in (Entity("B", 1, 4), Entity("A", 3, 5), Entity("B", 0, 1)):
        kept = outer if other.words <= outer.words else other
        assert model.expressible([outer, other]) == [kept]
    assert model.expressible([Entity("A", 0, 4)]) == []
    nested = [Entity("A", 1, 4), Entity("A", 1, 3), Entity("B", 2, 3), Entity("A", 4, 4)]
    assert model.expressible(nested) == nested
    every = [Entity(name, *span) for name in "AB" for span in spans(4)]
    assert set(tagger(GlobalPointerForNer, longest=4).expressible(every)) == set(every)


@every_head
@pytest.mark.parametrize("longest", [2, 64])
def test_blocks_change_neither_losses_nor_gradients_nor_entities(
    head: type[SpanPairTagger], longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tagger(head, longest)
    emissions = random_emissions(model, rows=2).requires_grad_()
    targets = model.encode([Annotation(W, GOLD, unannotated=[(3, 3)]), Annotation(3, [Entity("B", 0, 1)])])
    mask = torch.tensor([[True] * W, [True] * 3 + [False] * 2])

    def computed() -> tuple[Tensor, Tensor, list[Prediction]]:
        losses = model.losses(emissions, targets, mask)
        (gradient,) = torch.autograd.grad(losses.sum(), emissions)
        return losses.detach(), gradient, model.predict(emissions, mask, with_confidence=True)

    losses, gradient, found = computed()
    assert len(model._block_starts(emissions)) == (1 if longest == 64 else 3)
    monkeypatch.setattr(models.heads.span_pairs, "_SCORES_AT_ONCE", 1)
    assert len(model._block_starts(emissions)) == W
    other_losses, other_gradient, other_found = computed()
    torch.testing.assert_close(other_losses, losses)
    torch.testing.assert_close(other_gradient, gradient)
    for one, other in zip(found, other_found, strict=True):
        assert one.entities == other.entities
        assert one.confidences == pytest.approx(other.confidences)


@every_head
def test_spans_longer_than_the_longest_do_not_count(head: type[SpanPairTagger]) -> None:
    model, short = tagger(head), tagger(head, longest=2)
    emissions, mask = random_emissions(model), torch.ones(1, W, dtype=torch.bool)
    found = short.predict(emissions, mask)[0].entities
    assert all(one.words <= 2 for one in found)
    long = [Entity("A", 0, 2), Entity("B", 3, 3)]
    targets = short.encode([Annotation(W, long)])
    assert torch.equal(targets, short.encode([Annotation(W, long[1:])]))
    assert bool(short.losses(emissions, targets, mask) < model.losses(emissions, targets, mask))


def test_what_cannot_be_done_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="--span_size 3: must be even"):
        GlobalPointerForNer.configure(tiny_config("bert"), LabelSpace(["A"], "bio"), GlobalPointerForNer.Options(3))
    for head in HEADS:
        with pytest.raises(ValueError, match="remove --rdrop_alpha"):
            tagger(head).log_probabilities(torch.zeros(1, 1, 1))


def test_an_untrained_global_pointer_finds_next_to_nothing() -> None:
    """Otherwise it would find half of all spans, and scoring it would take long."""
    model = tiny_tagger(GlobalPointerForNer)
    batch = batch_of(model, random_rows([40, 30]))
    for _ in range(2):
        with torch.no_grad():
            found = model.candidates(model(**batch).logits, batch["word_mask"], 0.01)
        assert sum(map(len, found)) < 10
        model.reset_head()
