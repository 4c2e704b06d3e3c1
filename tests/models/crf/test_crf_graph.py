"""The best paths of an exported graph against all paths."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.export import Dim

from models.crf import CRF
from models.crf.chains import Chains
from models.crf.graph import decode_in_graph
from tests.models.crf.enumeration import Problem
from tests.models.crf.problems import problems, tolerance

C = 3


class Decoding(nn.Module):
    def forward(
        self,
        emissions: Tensor,
        start: Tensor,
        end: Tensor,
        transitions: Tensor,
        mask: Tensor,
        legal: Tensor,
        allowed: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return decode_in_graph(Chains(emissions, start, end, transitions, mask, legal, allowed), -100)


def inputs_of(problem: Problem) -> tuple[Tensor, ...]:
    return (
        problem.emissions,
        problem.start,
        problem.end,
        problem.transitions,
        problem.mask,
        problem.legal,
        problem.allowed,
    )


@pytest.fixture(scope="module")
def graph() -> nn.Module:
    """Exported once, for rows and words of any number."""
    B, W = 2, 4
    rows, words = Dim("rows"), Dim("words")
    example = (
        torch.randn(B, W, C, dtype=torch.float64),
        *(torch.randn(*shape, dtype=torch.float64) for shape in [(C,), (C,), (C, C)]),
        *(torch.ones(*shape, dtype=torch.bool) for shape in [(B, W), (C + 2, C + 2), (B, W, C)]),
    )
    free = {0: rows, 1: words}
    with torch.no_grad():
        exported = torch.export.export(
            Decoding(), example, dynamic_shapes=(free, None, None, None, free, None, free), strict=False
        )
    return exported.module()


@given(problem=problems(max_tags=C).filter(lambda problem: problem.start.numel() == C))
@settings(max_examples=60, deadline=None)
def test_paths_are_the_best_of_all(graph: nn.Module, problem: Problem) -> None:
    tags, scores = graph(*inputs_of(problem))
    for row in range(len(tags)):
        words = problem.words(row)
        assert (tags[row][~problem.mask[row]] == -100).all()
        best = max(problem.paths(row, problem.allowed).values())
        atol = tolerance(problem, torch.float64)
        assert float(scores[row]) == pytest.approx(best, abs=atol)
        assert problem.score(row, tuple(tags[row, words].tolist())) == pytest.approx(best, abs=atol)


def test_a_row_without_a_legal_path_is_padding(graph: nn.Module) -> None:
    B, W = 2, 3
    problem = Problem(
        emissions=torch.zeros(B, W, C, dtype=torch.float64),
        start=torch.zeros(C, dtype=torch.float64),
        end=torch.zeros(C, dtype=torch.float64),
        transitions=torch.zeros(C, C, dtype=torch.float64),
        mask=torch.tensor([[True, True, False], [False] * W]),
        legal=torch.zeros(C + 2, C + 2, dtype=torch.bool),
        allowed=torch.ones(B, W, C, dtype=torch.bool),
        tags=torch.zeros(B, W, dtype=torch.long),
    )
    tags, scores = graph(*inputs_of(problem))
    assert (tags == -100).all()
    assert scores.tolist() == [-torch.inf, 0.0]


class BestPaths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.crf = CRF(C, batch_first=True)

    def forward(self, emissions: Tensor, mask: Tensor) -> Tensor:
        return self.crf.best_paths(emissions, mask).tags


def test_the_layer_is_exported_where_gradients_are_on() -> None:
    layer, emissions, mask = BestPaths(), torch.randn(2, 4, C), torch.tensor([[True] * 4, [True, False, True, False]])
    exported = torch.export.export(layer, (emissions, mask), strict=False).module()
    assert torch.equal(exported(emissions, mask), layer(emissions, mask))
