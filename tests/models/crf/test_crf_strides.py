"""Emissions and parameters come as they lie in memory: transposed, expanded, cut out of something larger."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.crf import CRF
from models.crf.backend import use_backend
from tests.models.crf.problems import BACKENDS

B, W, C = 3, 6, 4
LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "channels first": lambda: torch.randn(B, C, W).transpose(1, 2),
    "rows last": lambda: torch.randn(W, C, B).permute(2, 0, 1),
    "expanded over tags": lambda: torch.randn(B, W, 1).expand(B, W, C),
    "expanded over rows": lambda: torch.randn(1, W, C).expand(B, W, C),
    "every second tag": lambda: torch.randn(B, W, 2 * C)[..., ::2],
}


def results(crf: CRF, emissions: Tensor, tags: Tensor) -> list[Tensor]:
    emissions = emissions.detach().requires_grad_()
    llh = crf(emissions, tags, reduction="none")
    gradient, of_transitions = torch.autograd.grad(llh.sum(), [emissions, crf.transitions])
    best = crf.best_paths(emissions)
    return [llh.detach(), gradient, of_transitions, best.tags, best.scores, crf.marginals(emissions)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_how_emissions_lie_in_memory_changes_nothing(backend: str, layout: str) -> None:
    torch.manual_seed(0)
    crf, emissions, tags = CRF(C, batch_first=True), LAYOUTS[layout](), torch.randint(0, C, (B, W))
    with use_backend(backend):
        for found, expected in zip(
            results(crf, emissions, tags), results(crf, emissions.contiguous(), tags), strict=True
        ):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_how_transitions_lie_in_memory_changes_nothing(backend: str) -> None:
    torch.manual_seed(0)
    crf, emissions, tags = CRF(C, batch_first=True), torch.randn(B, W, C), torch.randint(0, C, (B, W))
    with use_backend(backend):
        expected = results(crf, emissions, tags)
        crf.transitions.data = crf.transitions.data.T.contiguous().T
        assert not crf.transitions.is_contiguous()
        for found, same in zip(results(crf, emissions, tags), expected, strict=True):
            torch.testing.assert_close(found, same)
