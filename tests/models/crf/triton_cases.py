"""The Triton kernels against the torch backend and enumeration: on a GPU, or with TRITON_INTERPRET=1 on a CPU.

Not collected by itself: `test_crf_triton.py` runs it, as triton must know before it is imported whether to interpret.
"""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from models.crf import CRF
from models.crf.backend import use_backend
from models.crf.chains import LOG_SPACE, SCALED, Chains, Gradients
from models.crf.gpu import TritonBackend, _fault
from models.crf.torch_backend import TorchBackend
from tests.models.crf.enumeration import Problem
from tests.models.crf.operators import check_operators
from tests.models.crf.problems import layer, problems, tolerance

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
EXAMPLES = settings(max_examples=10 if INTERPRETED else 60, deadline=None)
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


FORBIDDEN = -10_000.0  # what users without legal transitions give to those that they forbid


@pytest.mark.parametrize("forbidden", ["transitions", "start and end", "emissions", "transitions that are needed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_of_minus_10000(forbidden: str, dtype: torch.dtype) -> None:
    """They need log space only where the best path has to go through one."""
    B, W, C = 3, 20, 5
    torch.manual_seed(0)
    emissions, tags = 4 * torch.randn(B, W, C), torch.randint(0, C, (B, W))
    start, end = torch.randn(2, C)
    transitions = torch.randn(C, C)
    if forbidden == "start and end":
        start[[1, 3]] = end[2] = FORBIDDEN
    elif forbidden == "emissions":
        emissions[torch.rand(B, W, C) < 0.3] = FORBIDDEN
    else:
        transitions[0, 2] = transitions[4, 4] = transitions[3, 1] = FORBIDDEN
    if forbidden == "transitions that are needed":
        transitions[:, 2] = FORBIDDEN
        emissions[1, 7] = torch.tensor([-2e4, -2e4, 0, -2e4, -2e4])
    tensors = [tensor.to(dtype) for tensor in (emissions, start, end, transitions)]
    on_device = Chains._make([*(tensor.to(DEVICE) for tensor in tensors), None, None, None])
    value, state = TritonBackend().forward(on_device, tags.to(DEVICE))
    found = TritonBackend().backward(torch.ones_like(value), on_device, tags.to(DEVICE), state)
    assert state.mode.tolist() == [SCALED, LOG_SPACE if "needed" in forbidden else SCALED, SCALED]
    exact = Chains._make([*(tensor.double() for tensor in tensors), None, None, None])
    expected, state = TorchBackend().forward(exact, tags)
    eps = torch.finfo(dtype).eps
    atol = (1e5 if dtype == torch.float64 else 1e3) * eps  # both are computed in float64, from scores of 1e4
    torch.testing.assert_close(value.cpu().double(), expected, rtol=4 * eps, atol=atol)
    for one, other in zip(found, TorchBackend().backward(torch.ones_like(expected), exact, tags, state), strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=0, atol=atol)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["emissions", "masked emissions", "start", "transitions"])
def test_a_score_that_is_not_a_number(value: float, place: str) -> None:
    emissions, start, transitions = torch.zeros(2, 4, 3), torch.zeros(3), torch.zeros(3, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1]]).bool()
    if "emissions" in place:
        emissions[1, 2 if "masked" in place else 1, 0] = value
    else:
        {"start": start, "transitions": transitions}[place].view(-1)[1] = value
    tensors = (emissions, start, torch.zeros(3), transitions, mask)
    chains = Chains._make([*(tensor.to(DEVICE) for tensor in tensors), None, None])
    wrong = [place != "masked emissions" and (place != "emissions" or row == 1) for row in range(2)]
    partition, _ = TritonBackend().forward(chains, None)
    paths, scores = TritonBackend().decode(chains, -100)
    assert partition.isnan().tolist() == wrong
    assert scores.isnan().tolist() == wrong
    assert paths.eq(-100).all(1).tolist() == wrong


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
            ((blocked, tags), "no legal path of finite score in row 3 of an earlier batch"),
        ):
            crf(*faulty)
            if not INTERPRETED:
                torch.cuda.synchronize()
            with pytest.raises(ValueError, match=message):
                crf(emissions, tags)
            crf(emissions, tags)


def test_custom_operators_are_registered_correctly() -> None:
    torch.manual_seed(0)
    check_operators("triton", DEVICE)


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 2, 3)])
def test_a_batch_without_words_gives_gradients_of_zero(shape: tuple[int, int, int]) -> None:
    start, transitions = torch.zeros(3, device=DEVICE), torch.zeros(3, 3, device=DEVICE)
    chains = Chains(torch.zeros(shape, device=DEVICE), start, start, transitions, None, None, None)
    torch.use_deterministic_algorithms(True)  # fills with NaN what is not written
    try:
        value, state = TritonBackend().forward(chains, None)
        gradients = TritonBackend().backward(torch.ones_like(value), chains, None, state)
    finally:
        torch.use_deterministic_algorithms(False)
    assert not any(gradient.any() for gradient in (value, *gradients))


def test_a_row_without_a_path_has_no_marginals_and_no_best_path() -> None:
    emissions = torch.zeros(2, 4, 3, device=DEVICE)
    emissions[1, 2] = -torch.inf
    start, transitions = torch.zeros(3, device=DEVICE), torch.zeros(3, 3, device=DEVICE)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], device=DEVICE).bool()
    chains = Chains(emissions, start, start, transitions, mask, None, None)
    backend = TritonBackend()
    value, state = backend.forward(chains, None)
    if not INTERPRETED:
        torch.cuda.synchronize()
    with pytest.raises(ValueError, match="no legal path of finite score in row 1 of an earlier batch"):
        backend.decode(chains, -100)
    found = backend.backward(torch.ones_like(value), chains, None, state).emissions
    assert found.isnan().all(2).tolist() == [[False] * 4, [True, True, True, False]]
    assert not found[1, 3].any()
    for _ in range(2):  # its score says so: nothing is left for a later call to raise
        paths, scores = backend.decode(chains, -100)
        if not INTERPRETED:
            torch.cuda.synchronize()
        assert scores.isneginf().tolist() == [False, True]
        assert paths[1].eq(-100).all()


def test_faults_are_kept_on_the_host_whatever_the_default_device() -> None:
    with torch.device("meta"):
        assert _fault.__wrapped__(DEVICE).device.type == "cpu"


@pytest.mark.skipif(not INTERPRETED, reason="a file stands in for 8 GiB of memory")
@pytest.mark.parametrize("far_apart", ["rows", "words"])
def test_offsets_beyond_32_bits(far_apart: str, tmp_path: Path) -> None:
    """The last of three that lie 2^30 numbers apart."""
    C, steps = 3, (2**30, 3, 1) if far_apart == "rows" else (3, 2**30, 1)
    sparse = torch.from_file(str(tmp_path / "emissions"), shared=True, size=2**31 + 3 * C, dtype=torch.float32)
    emissions = sparse.as_strided((3, 3, C), steps)
    emissions.copy_(torch.randn(3, 3, C))
    start, transitions = torch.randn(C), torch.randn(C, C)
    tags = torch.randint(0, C, (3, 3))
    results = []
    for scores in (emissions, emissions.contiguous()):
        chains = Chains(scores, start, start, transitions, None, None, None)
        results.append((TritonBackend().forward(chains, tags)[0], *TritonBackend().decode(chains, -100)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("behind", [0.0, 60.0], ids=["scaled", "log space"])
def test_a_long_row_keeps_its_digits(behind: float) -> None:
    """The gradient of transitions is a difference of large sums; equal terms are rounded the same way each time."""
    torch.manual_seed(0)
    W, C = 200 if INTERPRETED else 4_000, 3
    emissions, tags = torch.zeros(1, W, C), torch.randint(0, C, (1, W))
    emissions[0, 0, 0] = -behind
    results = []
    for backend, device, dtype in (
        (TritonBackend(), DEVICE, torch.float32),
        (TorchBackend(), torch.device("cpu"), torch.float64),
    ):
        transitions = torch.zeros(C, C, device=device, dtype=dtype)
        chains = Chains(emissions.to(device, dtype), transitions[0], transitions[0], transitions, None, None, None)
        value, state = backend.forward(chains, tags.to(device))
        results.append(backend.backward(torch.ones_like(value), chains, tags.to(device), state))
    found, expected = (gradients.transitions.cpu().double() for gradients in results)
    torch.testing.assert_close(found, expected, rtol=0, atol=W * torch.finfo(torch.float32).eps / 2)
