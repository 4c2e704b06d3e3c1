"""Losses of texts that are annotated in part: the probability of all that is left open, by enumeration."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from common.entities import Annotation, Entity
from common.tag_schemes import MARKUPS, entities_to_tags, tags_to_entities
from models import BertCrfForNer, BertCrfPerTypeForNer, BertSoftmaxForNer, BertSpanForNer
from models.heads.biaffine import BiaffineForNer
from models.heads.global_pointer import GlobalPointerForNer
from models.tagger import LabelSpace, Tagger
from tests.models.families import tiny_config

W = 4
TYPES = ["A", "B"]
ANNOTATIONS = {
    "a word": Annotation(W, [Entity("A", 0, 1)], [(2, 2)]),
    "a type": Annotation(W, [Entity("A", 1, 2)], complete=frozenset({"A"})),
    "an entity of an open type": Annotation(W, [Entity("B", 1, 2)], complete=frozenset({"A"})),
    "both": Annotation(W, [Entity("B", 0, 0)], [(2, 3)], frozenset({"A"})),
    "no type": Annotation(W, [Entity("A", 3, 3)], complete=frozenset()),
    "nothing": Annotation(W, [], [(0, W - 1)]),
    "everything": Annotation(W, [Entity("A", 1, 2), Entity("B", 3, 3)], complete=frozenset(TYPES)),
}
each_annotation = pytest.mark.parametrize("name", ANNOTATIONS)


def tagger(head: type[Tagger], markup: str = "bio", **options: object) -> Any:
    torch.manual_seed(1)
    config = tiny_config("bert")
    head.configure(config, LabelSpace(TYPES, markup), head.Options(**options))
    model = head(config).eval()
    for name, weight in model.named_parameters():
        if name.startswith("crf."):
            weight.data.uniform_(-1, 1)
    return model


def loss_of(model: Any, annotations: Sequence[Annotation]) -> tuple[Tensor, Tensor]:
    """Emissions of a batch, and the loss of each row."""
    generator = torch.Generator().manual_seed(2)
    emissions = torch.randn(len(annotations), W, model.num_scores(model.config), generator=generator)
    mask = torch.ones(len(annotations), W, dtype=torch.bool)
    return emissions, model.losses(emissions, model.encode(annotations), mask)


def agrees(path: Sequence[str], annotation: Annotation, markup: str) -> bool:
    """Whether tags have the entities of an annotation, written as usual, and others only where they may be."""
    gold = annotation.entities or []
    written = entities_to_tags(gold, W, MARKUPS[markup])
    if any(path[word] != written[word] for one in gold for word in range(one.first_word, one.last_word + 1)):
        return False
    found = tags_to_entities(path)
    free = {word for first, last in annotation.unannotated for word in range(first, last + 1)}
    open_types = annotation.open_types(TYPES)
    others = [one for one in found if one not in gold]
    may_be = (one.type in open_types or free.issuperset(range(one.first_word, one.last_word + 1)) for one in others)
    return set(gold) <= set(found) and all(may_be)


def share(model: Any, emissions: Tensor, annotation: Annotation, legal: bool) -> float:
    """Probability of the tag sequences that agree with an annotation."""
    inside, everything = [], []
    for path in itertools.product(range(len(model.tag_names)), repeat=W):
        score = sum(emissions[word, tag].item() for word, tag in enumerate(path))
        tags = [model.tag_names[tag] for tag in path]
        if legal:
            scheme, framed = MARKUPS[model.markup], ["O", *tags, "O"]
            if not all(itertools.starmap(scheme.allows, itertools.pairwise(framed))):
                continue
            crf = model.crf
            score += (crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]).item()
            score += sum(crf.transitions[pair].item() for pair in itertools.pairwise(path))
        everything.append(score)
        if agrees(tags, annotation, model.markup):
            inside.append(score)
    return float(torch.tensor(inside).logsumexp(0) - torch.tensor(everything).logsumexp(0))


@each_annotation
@pytest.mark.parametrize("markup", ["bio", "bioes"])
def test_the_crf_sums_over_all_that_agrees(name: str, markup: str) -> None:
    model = tagger(BertCrfForNer, markup)
    emissions, losses = loss_of(model, [ANNOTATIONS[name], Annotation(W, [Entity("A", 0, 0)])])
    assert losses[0].item() == pytest.approx(-share(model, emissions[0], ANNOTATIONS[name], True), abs=1e-4)
    assert losses[1].item() == pytest.approx(-share(model, emissions[1], Annotation(W, [Entity("A", 0, 0)]), True))


@pytest.mark.parametrize("name", [name for name, one in ANNOTATIONS.items() if one.complete is not None])
def test_softmax_sums_over_all_that_agrees(name: str) -> None:
    model = tagger(BertSoftmaxForNer)
    emissions, losses = loss_of(model, [ANNOTATIONS[name]])
    assert losses[0].item() == pytest.approx(-share(model, emissions[0], ANNOTATIONS[name], False), abs=1e-4)


@each_annotation
def test_a_crf_of_each_type_knows_nothing_of_types_that_are_not_complete(name: str) -> None:
    model, whole = tagger(BertCrfPerTypeForNer), ANNOTATIONS[name]
    emissions, losses = loss_of(model, [whole])
    expected = 0.0
    for index, kind in enumerate(TYPES):
        own = [one._replace(type="") for one in whole.entities or () if one.type == kind]
        complete = frozenset[str]() if whole.open_types([kind]) else None
        scores = emissions[0].unflatten(-1, (len(TYPES), -1))[:, index]
        one_type = Annotation(W, own, whole.unannotated, complete)
        expected -= share_of_one_type(model, scores, one_type)
    assert losses[0].item() == pytest.approx(expected, abs=1e-4)


def share_of_one_type(model: Any, scores: Tensor, annotation: Annotation) -> float:
    """As `share`, for the chain of a type, whose name is empty."""
    named = [one._replace(type="A") for one in annotation.entities or ()]
    complete = None if annotation.complete is None else frozenset({"B"})
    chain = tagger(BertCrfForNer)
    tags = ["O", "B-A", "I-A"]
    chain.config.id2label = dict(enumerate(tags))
    chain.crf = model.crf
    return share(chain, scores, Annotation(W, named, annotation.unannotated, complete), True)


def test_focal_loss_of_a_set_is_that_of_its_probability() -> None:
    annotation = ANNOTATIONS["a type"]
    model, focal = tagger(BertSoftmaxForNer), tagger(BertSoftmaxForNer, loss="focal")
    emissions, losses = loss_of(focal, [annotation])
    allowed = model.encode([annotation])[0] != 0
    shares = [emissions[0].softmax(-1)[word][allowed[word]].sum().item() for word in range(W)]
    assert losses[0].item() == pytest.approx(sum(-((1 - one) ** 2) * math.log(one) for one in shares), abs=1e-5)


def test_starts_and_ends_of_open_types_are_sets_of_labels() -> None:
    model, annotation = tagger(BertSpanForNer), Annotation(W, [Entity("A", 1, 2)], [(3, 3)], frozenset({"A"}))
    emissions, losses = loss_of(model, [annotation])
    shares = emissions[0].unflatten(-1, (2, 3)).softmax(-1)  # labels O, A, B
    gold = {(1, 0), (2, 1)}
    expected = 0.0
    for word, side in itertools.product(range(3), range(2)):
        own = shares[word, side]
        expected -= math.log(own[1] if (word, side) in gold else own[0] + own[2])
    assert losses[0].item() == pytest.approx(expected / 2, rel=1e-5)
    states, mask = torch.randn(1, W, 32), torch.ones(1, W, dtype=torch.bool)
    shown = model.training_emissions(states, mask, model.encode([annotation]))
    own = model.emissions(states, mask)
    changed = (shown - own)[0, :, 3:].abs().amax(-1) > 1e-6
    assert changed.tolist() == [False, True, False, False]  # only of the start that is annotated


@pytest.mark.parametrize("head", [BiaffineForNer, GlobalPointerForNer])
def test_spans_of_open_types_are_no_negatives(head: type[Tagger]) -> None:
    model = tagger(head, span_size=4)
    gold, complete = [Entity("A", 1, 2)], frozenset({"A"})
    emissions, losses = loss_of(model, [Annotation(W, gold, [(3, 3)], complete)])
    known = torch.tensor([[True, True, True, False]])
    block = model._block(emissions, known, 0, W)
    expected = 0.0
    if head is BiaffineForNer:
        for first, last in itertools.combinations_with_replacement(range(3), 2):
            own = block.scores[0, first, last].softmax(-1)  # none, A, B
            expected -= math.log(own[1] if (first, last) == (1, 2) else own[0] + own[2])
    else:
        own = block.scores[0, ..., 0]
        spans = set(itertools.combinations_with_replacement(range(3), 2)) - {(1, 2)}
        expected = math.log1p(sum(math.exp(own[span]) for span in spans)) + math.log1p(math.exp(-own[1, 2]))
    assert losses[0].item() == pytest.approx(expected, rel=1e-5)
    _, with_other = loss_of(model, [Annotation(W, [*gold, Entity("B", 0, 0)], [(3, 3)], complete)])
    assert with_other[0] > losses[0]  # an annotated entity of an open type is learnt


@pytest.mark.parametrize("head", [BertSoftmaxForNer, BertCrfForNer, BertCrfPerTypeForNer, BertSpanForNer])
def test_complete_annotations_have_no_sets(head: type[Tagger]) -> None:
    whole = [Annotation(W, [Entity("A", 0, 1)]), Annotation(W, None)]
    partial = [*whole, ANNOTATIONS["a type"]]
    model = tagger(head)
    assert model.encode(partial).dim() == model.encode(whole).dim() + 1


def test_what_is_not_defined_for_sets_is_refused_before_training() -> None:
    config = tiny_config("bert")
    words = LabelSpace(TYPES, "bio", unknown_words=True)
    types = LabelSpace(TYPES, "bio", unknown_types=True)
    weights = {"class_weights": "A=2"}
    for labels in (words, types):
        with pytest.raises(ValueError, match="--class_weights: the CRF weights the words of known tags"):
            BertCrfForNer.configure(config, labels, BertCrfForNer.Options(**weights))
    BertSoftmaxForNer.configure(config, words, BertSoftmaxForNer.Options(loss="lsr", **weights))
    for head in (BertSoftmaxForNer, BertSpanForNer):
        with pytest.raises(ValueError, match="--loss lsr: some texts are annotated for some types only"):
            head.configure(config, types, head.Options(loss="lsr"))
        with pytest.raises(ValueError, match="--class_weights: some texts are annotated for some types only"):
            head.configure(config, types, head.Options(**weights))
    for weighted in (BertSoftmaxForNer, BertCrfForNer):
        model = tagger(weighted, **weights)
        with pytest.raises(ValueError, match="--class_weights"):
            loss_of(model, [ANNOTATIONS["a type"]])
