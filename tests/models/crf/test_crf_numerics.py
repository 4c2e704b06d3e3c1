"""Precision, range, determinism."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from models.crf import CRF, cpu
from models.crf.backend import use_backend
from models.crf.chains import LOG_SPACE, SCALED, Chains
from models.crf.cpu import CppBackend
from models.crf.torch_backend import TorchBackend
from tests.models.crf.problems import BACKENDS


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: str) -> None:
    crf = CRF(3, batch_first=True).double()
    crf.set_legal(torch.rand(5, 5) < 0.8)
    crf.legal[3:, :], crf.legal[:, 4], crf.legal[0, :3] = True, True, True
    emissions = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]]).bool()
    allowed = torch.rand(2, 4, 3) < 0.7
    allowed[:, :, 0] = True

    def values(emissions: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tags = torch.zeros(2, 4, dtype=torch.long)
        return crf(emissions, tags, mask, "none"), crf(emissions, mask=mask, allowed=allowed, reduction="none")

    with use_backend(backend):
        assert torch.autograd.gradcheck(values, (emissions, *crf.parameters()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_document(backend: str) -> None:
    """Twenty thousand words: value and gradients of single precision agree with those of double precision."""
    W, C = 20_000, 5
    crf = CRF(C, batch_first=True)
    emissions, tags = 3 * torch.randn(1, W, C), torch.randint(0, C, (1, W))
    results = []
    for dtype in (torch.float32, torch.float64):
        crf = crf.to(dtype)
        crf.zero_grad()
        given = emissions.to(dtype, copy=True).requires_grad_()
        with use_backend(backend if dtype == torch.float32 else "cpp"):
            llh = crf(given, tags)
            llh.backward()
        results.append([llh.detach(), given.grad, *[parameter.grad for parameter in crf.parameters()]])
    # A transition is expected W / C^2 times; single precision rounds its weight.
    used = W / C**2 * torch.finfo(torch.float32).eps
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5 + used)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("B", "W"), [(32, 128), (1, 20_000)])
def test_partial_labels_of_a_trained_model(backend: str, B: int, W: int) -> None:
    """The log-partitions are in the thousands, their difference is next to nothing."""
    C = 9
    crf = CRF(C, batch_first=True)
    tags = torch.randint(0, C, (B, W))
    allowed = nn.functional.one_hot(tags, C).bool()
    emissions = torch.randn(B, W, C) + 14 * allowed
    results = []
    for dtype in (torch.float32, torch.float64):
        crf, given = crf.to(dtype), emissions.to(dtype).requires_grad_()
        with use_backend(backend):
            llh = crf(given, allowed=allowed, reduction="none")
            gradients = torch.autograd.grad(llh.sum(), [given, *crf.parameters()])
        assert llh.dtype == dtype
        assert (llh < 0).all()
        results.append([llh.detach().double(), *[gradient.double() for gradient in gradients]])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mass_that_vanishes_and_returns(backend: str, dtype: torch.dtype) -> None:
    """A path 100 nats behind, below what scaled single precision holds, that alone may go on to the best tags.

    Its rivals then lose 40 nats a word: no step looks alarming, and still the lost path is all there is in the end.
    """
    gap, loss = (100.0, 40.0) if dtype == torch.float32 else (800.0, 350.0)
    legal = torch.ones(4, 4, dtype=torch.bool)
    legal[0, 1] = legal[1, 0] = False
    crf = CRF(2, batch_first=True, legal=legal).to(dtype)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.zero_()
    emissions = torch.zeros(1, 5, 2, dtype=dtype)
    emissions[0, 0, 1] = -gap
    emissions[0, 1:, 0] = -loss
    with use_backend(backend):
        partition = crf.log_partition(emissions)
        unary = crf.marginals(emissions)
    assert partition.item() == pytest.approx(max(-gap, -4 * loss), abs=1e-4)
    assert unary[0, 0, 1].item() == pytest.approx(1.0)


def test_only_what_scaled_arithmetic_cannot_serve_goes_to_log_space() -> None:
    """A forbidden transition is ordinary, and a word whose tag is far above all others; a path through both is not."""
    crf, tags = CRF(9), 9
    crf.transitions.data.mul_(30)
    plain = torch.randn(4, 50, tags) * 5
    wide = plain.clone()
    wide[2, 10, 3] = 300.0
    forbidden = crf.transitions.data.clone()
    forbidden[2, 3] = forbidden[:, 7] = -1e4
    needed = plain.clone()
    needed[1, 10, 2] = needed[1, 11, 3] = 6e3
    needed[3, 20, 7] = 2e4
    for emissions, transitions, expected in (
        (plain, crf.transitions.data, [SCALED] * 4),
        (wide, crf.transitions.data, [SCALED] * 4),
        (wide, forbidden, [SCALED] * 4),
        (needed, forbidden, [SCALED, LOG_SPACE, SCALED, LOG_SPACE]),
    ):
        start, end = crf.start_transitions.data, crf.end_transitions.data
        results = []
        for dtype in (torch.float32, torch.float64):
            scores = [tensor.to(dtype) for tensor in (emissions, start, end, transitions)]
            chains = Chains._make([*scores, None, None, None])
            value, state = CppBackend().forward(chains, None)
            assert dtype == torch.float64 or state.mode.tolist() == expected
            results.append((value, *CppBackend().backward(torch.ones_like(value), chains, None, state)))
        exact = TorchBackend().forward(chains, None)[0]
        for single, double in zip(*results, strict=True):
            torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(results[1][0], exact, rtol=1e-10, atol=1e-10)


def test_thread_count_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "PARALLEL_NS", 0)
    B, W, C = 37, 60, 11
    crf = CRF(C, batch_first=True)
    emissions, tags = torch.randn(B, W, C), torch.randint(0, C, (B, W))
    emissions[5] *= 1e3
    mask = torch.arange(W) < torch.randint(1, W + 1, (B, 1))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8, 1):
            torch.set_num_threads(threads)
            crf.zero_grad()
            given = emissions.clone().requires_grad_()
            llh = crf(given, tags, mask)
            llh.backward()
            results.append([llh.detach(), given.grad, *[parameter.grad for parameter in crf.parameters()]])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    crf = CRF(7, batch_first=True)
    emissions = torch.randn(3, 20, 7).to(dtype).requires_grad_()
    tags = torch.randint(0, 7, (3, 20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        llh = crf(emissions, tags)
    llh.backward()
    assert llh.dtype == torch.float32
    torch.testing.assert_close(llh, crf(emissions.detach().float(), tags))
    assert emissions.grad is not None
    assert emissions.grad.dtype == dtype
    assert crf.decode(emissions) == crf.decode(emissions.detach().float())
    assert crf.to(dtype)(emissions, tags).dtype == torch.float32


@pytest.fixture
def coarse_products() -> Iterator[None]:
    """What halves the work of a model's products, on whatever this machine has for it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("C", [9, 300])
def test_nothing_rounds_the_factors_of_products(backend: str, C: int, coarse_products: None) -> None:
    crf = CRF(C, batch_first=True)
    emissions, tags = torch.randn(3, 20, C, requires_grad=True), torch.randint(0, C, (3, 20))
    results = []
    for dtype in (torch.float32, torch.float64):
        crf, given = crf.to(dtype), emissions.to(dtype)
        inputs = [given, *crf.parameters()]
        with use_backend(backend):
            llh = crf(given, tags, reduction="none")
            gradients = torch.autograd.grad(llh, inputs, torch.tensor([1.0, 0.3, -0.7], dtype=dtype))
            results.append([llh.detach(), *gradients, crf.marginals(given)])
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("C", [1, 9, 20])
@pytest.mark.parametrize("score", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["emissions", "start_transitions", "end_transitions", "transitions"])
def test_scores_that_are_no_numbers(backend: str, C: int, score: float, place: str) -> None:
    """Values and gradients are NaN, so that a training loop can skip the step; searches have no result and raise."""
    crf = CRF(C, batch_first=True)
    emissions, tags = torch.randn(3, 4, C), torch.zeros(3, 4, dtype=torch.long)
    if place == "emissions":
        emissions[1, 1, C - 1] = score
        wrong, rows = [False, True, False], "row 1"
    else:
        getattr(crf, place).data.flatten()[-1] = score
        wrong, rows = [True] * 3, "rows 0, 1, 2"
    emissions.requires_grad_()
    everything = torch.ones(3, 4, C, dtype=torch.bool)
    with use_backend(backend):
        for values in (
            crf(emissions, tags, reduction="none"),
            crf(emissions, allowed=everything, reduction="none"),
            crf.log_partition(emissions),
        ):
            assert values.isnan().tolist() == wrong
        for loss in (crf(emissions, tags), crf(emissions, tags, reduction="none").sum()):
            (gradient,) = torch.autograd.grad(loss, emissions)
            assert loss.isnan()
            assert gradient.isnan().flatten(1).any(1).tolist() == wrong
        for call in (
            lambda: crf.decode(emissions),
            lambda: crf.best_paths(emissions),
            lambda: crf.decode(emissions, nbest=2),
            lambda: crf.marginals(emissions, pairwise=True),
            lambda: crf.entropy(emissions),
            lambda: crf.sample(emissions),
        ):
            with pytest.raises(ValueError, match=f"no legal path of finite score in {rows} of the batch"):
                call()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("C", [9, 20])
@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf])
def test_what_is_masked_may_be_anything(backend: str, C: int, nothing: float) -> None:
    crf = CRF(C, batch_first=True)
    tags, mask = torch.randint(0, C, (2, 5)), torch.tensor([[1, 0, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    plain = torch.randn(2, 5, C).masked_fill(~mask[:, :, None], 0)
    results = []
    for masked in (0.0, nothing):
        emissions = plain.masked_fill(~mask[:, :, None], masked).requires_grad_()
        with use_backend(backend):
            llh = crf(emissions, tags, mask)
            gradients = torch.autograd.grad(llh, [emissions, *crf.parameters()])
            marginals = crf.marginals(emissions, mask, pairwise=True)
            best = crf.best_paths(emissions, mask), crf.best_paths(emissions, mask, nbest=2)
            results.append([llh.detach(), *gradients, *marginals, *best[0], *best[1], crf.entropy(emissions, mask)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_words(backend: str) -> None:
    crf = CRF(3, batch_first=True)
    emissions = torch.randn(2, 4, 3, requires_grad=True)
    mask = torch.tensor([[False] * 4, [True] * 4])
    tags = torch.zeros(2, 4, dtype=torch.long)
    with use_backend(backend):
        llh = crf(emissions, tags, mask, "none")
        llh.sum().backward()
        assert llh[0] == 0
        assert emissions.grad is not None
        assert not emissions.grad[0].any()
        assert crf.decode(emissions, mask)[0] == []
        assert crf.decode(emissions, mask, nbest=2)[0] == [([], 0.0)]
        for shape in ((0, 4, 3), (2, 0, 3)):
            nothing = torch.zeros(shape, requires_grad=True)
            crf(nothing, torch.zeros(shape[:2], dtype=torch.long)).backward()
            assert crf.decode(nothing) == [[]] * shape[0]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("B", "W"), [(0, 4), (2, 0)])
def test_no_words_have_one_empty_path(backend: str, masked: bool, B: int, W: int) -> None:
    crf = CRF(3, batch_first=True)
    emissions, mask = torch.zeros(B, W, 3), torch.ones(B, W, dtype=torch.bool) if masked else None
    with use_backend(backend):
        assert crf.decode(emissions, mask, nbest=2) == [[([], 0.0)]] * B
        assert crf.best_paths(emissions, mask, nbest=2).tags.shape == (B, W, 2)
        unary, pairs = crf.marginals(emissions, mask, pairwise=True)
        assert (unary.shape, pairs.shape) == ((B, W, 3), (B, W, 3, 3))
        assert torch.equal(crf.entropy(emissions, mask), torch.zeros(B))
        assert crf.sample(emissions, mask, n=5).shape == (5, B, W)


@pytest.mark.parametrize("batch_first", [False, True])
def test_no_samples(batch_first: bool) -> None:
    assert CRF(3, batch_first).sample(torch.zeros(2, 4, 3), n=0).shape == (0, 2, 4)
