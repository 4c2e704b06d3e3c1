"""How unsure a head is of a text: as its distribution over all label sequences says."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from models.heads.biaffine import BiaffineForNer
from models.heads.crf import BertCrfForNer
from models.heads.crf_per_type import BertCrfPerTypeForNer
from models.heads.softmax import BertSoftmaxForNer
from models.heads.span import BertSpanForNer
from models.tagger import LabelSpace, Tagger
from tests.models.families import tiny_config

W = 3
MASK = torch.tensor([[True] * W, [True] * (W - 1) + [False]])


def tagger(head: type[Tagger], markup: str = "bio") -> Tagger:
    config = tiny_config("bert")
    head.configure(config, LabelSpace(["PER", "LOC"], markup), head.Options())
    torch.manual_seed(3)
    return head(config).eval().requires_grad_(False)


def entropy_and_best(scores: Tensor) -> tuple[float, float]:
    """Of a distribution, given the scores of all its outcomes."""
    logs = scores.flatten().log_softmax(0)
    return float(-(logs.exp() * logs).sum()), float(logs.max())


def of_independent(scores: Tensor) -> tuple[float, float]:
    """Of independent choices, ``(N, L)``."""
    both = [entropy_and_best(row) for row in scores]
    return sum(one for one, _ in both), sum(one for _, one in both)


def path_scores(model: Any, emissions: Tensor) -> Tensor:
    crf, scores, C = model.crf, [], emissions.size(1)
    for path in itertools.product(range(C), repeat=len(emissions)):
        steps = list(itertools.pairwise([C, *path, C + 1]))
        if all(crf.legal[step] for step in steps):
            score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
            score = score + sum(crf.transitions[step] for step in steps[1:-1])
            scores.append(score + emissions[range(len(path)), path].sum())
    return torch.stack(scores)


def check(model: Tagger, emissions: Tensor, expected: list[tuple[float, float]]) -> None:
    found = model.uncertainty(emissions, MASK)
    assert found.entropy.tolist() == pytest.approx([entropy for entropy, _ in expected], abs=1e-4)
    assert found.best.tolist() == pytest.approx([best for _, best in expected], abs=1e-4)


def test_of_a_crf() -> None:
    model = tagger(BertCrfForNer)
    emissions = 2 * torch.randn(2, W, 5)
    check(model, emissions, [entropy_and_best(path_scores(model, emissions[row, : W - row])) for row in (0, 1)])


def test_of_a_softmax_words_are_independent_and_calibrated() -> None:
    model = tagger(BertSoftmaxForNer)
    emissions = 2 * torch.randn(2, W, 5)
    check(model, emissions, [of_independent(emissions[row, : W - row]) for row in (0, 1)])
    model.config.confidence_temperatures = [2.0, 1.0]
    check(model, emissions, [of_independent(emissions[row, : W - row] / 2) for row in (0, 1)])


def test_of_a_crf_per_type_the_types_add_up() -> None:
    model = tagger(BertCrfPerTypeForNer)
    emissions = 2 * torch.randn(2, W, model.num_scores(model.config))
    expected = []
    for row in (0, 1):
        types = emissions[row, : W - row].unflatten(-1, (2, -1)).unbind(1)
        both = [entropy_and_best(path_scores(model, of_type)) for of_type in types]
        expected.append((sum(one for one, _ in both), sum(one for _, one in both)))
    check(model, emissions, expected)


def test_of_spans_starts_and_ends_are_independent() -> None:
    model = tagger(BertSpanForNer)
    emissions = 2 * torch.randn(2, W, 2 * len(model.label_names))
    expected = [of_independent(emissions[row, : W - row].unflatten(-1, (2, -1)).flatten(0, 1)) for row in (0, 1)]
    check(model, emissions, expected)


def test_others_say_that_they_cannot() -> None:
    with pytest.raises(ValueError, match="BiaffineForNer has no distribution over the labels of a text"):
        tagger(BiaffineForNer).uncertainty(torch.randn(2, W, 4), MASK)
