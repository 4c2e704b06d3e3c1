"""Problems that hypothesis draws, small enough to write down all paths, and how they are put to the layer."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from models.crf import CRF
from tests.models.crf.enumeration import Problem

BACKENDS = ["torch", "cpp"]


@st.composite
def problems(draw: st.DrawFn, max_rows: int = 3, max_words: int = 5, max_tags: int = 4) -> Problem:
    """Masks with holes and empty rows, forbidden transitions, emissions of -inf and far apart; each row has a path."""
    B = draw(st.integers(1, max_rows))
    W = draw(st.integers(1, max_words))
    C = draw(st.integers(1, max_tags))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def chance(probability: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) < probability

    emissions = normal(B, W, C) * draw(st.sampled_from([0.0, 1.0, 10.0, 60.0, 1e4]))
    emissions[chance(draw(st.sampled_from([0.0, 0.1])), B, W, C)] = -torch.inf
    transitions = normal(C, C) * draw(st.sampled_from([0.1, 3.0, 60.0]))
    transitions[chance(draw(st.sampled_from([0.0, 0.2])), C, C)] = -1e4  # how others forbid
    mask = ~chance(draw(st.sampled_from([0.0, 0.4])), B, W)
    legal = ~chance(draw(st.sampled_from([0.0, 0.3])), C + 2, C + 2)
    allowed = ~chance(draw(st.sampled_from([0.0, 0.5])), B, W, C)
    tags = torch.randint(0, C, (B, W), generator=generator)

    # What float32 can hold, so that all types see the same problem; and a legal path for each row.
    problem = Problem(emissions, normal(C), normal(C), transitions, mask, legal, allowed, tags)
    for name in ("emissions", "start", "end", "transitions"):
        setattr(problem, name, getattr(problem, name).float().double())
    for row in range(B):
        path = tags[row][mask[row]].tolist()
        for i, j in zip([C, *path], [*path, C + 1], strict=True):
            legal[i, j] |= bool(path)
        allowed[row, torch.arange(W), tags[row]] = True
        chosen = problem.emissions[row, torch.arange(W), tags[row]]
        problem.emissions[row, torch.arange(W), tags[row]] = chosen.nan_to_num(neginf=0.0)
    problem.tags = tags.masked_fill(~mask, -100)
    return problem


def layer(problem: Problem, dtype: torch.dtype, batch_first: bool = True) -> CRF:
    """The layer with the parameters and legal transitions of a problem."""
    crf = CRF(problem.start.numel(), batch_first, problem.legal)
    crf.to(dtype)
    with torch.no_grad():
        crf.start_transitions.copy_(problem.start)
        crf.end_transitions.copy_(problem.end)
        crf.transitions.copy_(problem.transitions)
    return crf


def tolerance(problem: Problem, dtype: torch.dtype) -> float:
    """What rounding may cost a path score: a few units in the last place of the largest score, for each word."""
    scores = [problem.emissions, problem.transitions, problem.start, problem.end]
    largest = max(score[score > -torch.inf].abs().max().item() for score in scores if (score > -torch.inf).any())
    return 8 * torch.finfo(dtype).eps * (1 + largest) * problem.emissions.size(1)
