"""The Triton kernels against the torch backend and enumeration: on a GPU, or with TRITON_INTERPRET=1 on a CPU.

Not collected by itself: `test_crf_triton.py` runs it, as triton must know before it is imported whether to interpret.
"""

import os

import pytest
import torch
from hypothesis import given, settings

from models.crf import CRF
from models.crf.backend import Chains, Gradients, use_backend
from models.crf.gpu import TritonBackend
from models.crf.torch_backend import TorchBackend
from tests.models.crf.enumeration import Problem
from tests.models.crf.problems import layer, problems, tolerance

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
EXAMPLES = settings(max_examples=15 if INTERPRETED else 200, deadline=None)
DTYPES = [torch.float32, torch.float64]


def on_device(problem: Problem, dtype: torch.dtype) -> tuple[CRF, torch.Tensor, torch.Tensor]:
    crf = layer(problem, dtype).to(DEVICE)
    return crf, problem.emissions.to(DEVICE, dtype, copy=True), problem.mask.to(DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@given(problem=problems(max_rows=2, max_words=4, max_tags=3))
@EXAMPLES
def test_values_and_gradients(dtype: torch.dtype, problem: Problem) -> None:
    crf, emissions, mask = on_device(problem, dtype)
    emissions.requires_grad_()
    atol = tolerance(problem, dtype)
    with use_backend("triton"):
        partition = crf.log_partition(emissions, mask)
        torch.autograd.backward(partition.sum())
        restricted = crf.marginals(emissions, mask, allowed=problem.allowed.to(DEVICE))
        llh = crf(emissions, problem.tags.to(DEVICE), mask, reduction="none").tolist()
    pairs = torch.zeros_like(problem.transitions)
    assert emissions.grad is not None
    for row, value in enumerate(partition.tolist()):
        total = problem.log_partition(row)
        gold = problem.score(row, tuple(problem.tags[row, problem.words(row)].tolist()))
        assert value == pytest.approx(total, rel=1e-6, abs=atol)
        assert llh[row] == pytest.approx(gold - total, rel=1e-6, abs=atol)
        expected = problem.marginals(row)
        torch.testing.assert_close(emissions.grad[row].cpu().double(), expected, rtol=0, atol=1e-6 + 10 * atol)
        expected = problem.marginals(row, problem.allowed)
        torch.testing.assert_close(restricted[row].cpu().double(), expected, rtol=0, atol=1e-6 + 10 * atol)
        pairs += problem.pairs(row).sum(0)
    assert crf.transitions.grad is not None
    torch.testing.assert_close(crf.transitions.grad.cpu().double(), pairs, rtol=0, atol=1e-6 + 30 * atol)


@pytest.mark.parametrize("dtype", DTYPES)
@given(problem=problems(max_rows=2, max_words=4, max_tags=3))
@EXAMPLES
def test_decode(dtype: torch.dtype, problem: Problem) -> None:
    crf, emissions, mask = on_device(problem, dtype)
    with use_backend("triton"):
        paths = crf.decode(emissions, mask)
    for row, path in enumerate(paths):
        best = max(problem.paths(row).values())
        assert problem.score(row, tuple(path)) == pytest.approx(best, rel=1e-6, abs=tolerance(problem, dtype))


@pytest.mark.parametrize("shape", [(2, 5, 1), (1, 130, 2), (3, 6, 17), (2, 3, 40)])
def test_agrees_with_the_torch_backend(shape: tuple[int, int, int]) -> None:
    """Shapes beyond enumeration; batches that are strided, gradients that differ by row."""
    B, W, C = shape
    torch.manual_seed(B * W * C)
    emissions = torch.randn(W, B, C, device=DEVICE).transpose(0, 1)
    start, end = torch.randn(2, C, device=DEVICE)
    transitions = torch.randn(C, C, device=DEVICE)
    mask = torch.rand(W, B, device=DEVICE).lt(0.8).T
    legal = torch.rand(C + 2, C + 2, device=DEVICE) < 0.9
    legal[:, 0] = legal[0] = True
    tags = torch.zeros(W, B, dtype=torch.long, device=DEVICE).T
    chains = Chains(emissions, start, end, transitions, mask, legal, None)
    grad = torch.linspace(-1, 1, B, device=DEVICE)
    results: list[tuple[torch.Tensor, Gradients, tuple[torch.Tensor, torch.Tensor]]] = []
    for backend in (TritonBackend(), TorchBackend()):
        value, state = backend.forward(chains, tags)
        results.append((value, backend.backward(grad, chains, tags, state), backend.decode(chains, -100)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_faults_surface_at_a_later_call() -> None:
    crf = CRF(3, batch_first=True).to(DEVICE)
    emissions = torch.zeros(4, 2, 3, device=DEVICE)
    tags = torch.zeros(4, 2, dtype=torch.long, device=DEVICE)
    wrong = tags.clone()
    wrong[2, 1] = 3
    blocked = emissions.clone()
    blocked[3, 0] = -torch.inf
    with use_backend("triton"):
        for faulty, message in (
            ((emissions, wrong), "a tag that does not exist in row 2 of an earlier batch"),
            ((blocked, tags), "no legal path in row 3 of an earlier batch"),
        ):
            crf(*faulty)
            if not INTERPRETED:
                torch.cuda.synchronize()
            with pytest.raises(ValueError, match=message):
                crf(emissions, tags)
            crf(emissions, tags)
