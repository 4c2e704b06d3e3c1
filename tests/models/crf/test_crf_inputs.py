"""What the layer refuses by name, what it takes, and what it spares."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from models.crf import CRF, lattice
from models.crf.backend import backend_for, use_backend
from tests.models.crf.problems import BACKENDS

B, W, C = 2, 4, 3


@pytest.fixture
def crf() -> CRF:
    torch.manual_seed(0)
    return CRF(C, batch_first=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_tags_are_whole_numbers(crf: CRF, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"tags must be whole numbers, got {dtype}"):
        crf(torch.zeros(B, W, C), torch.zeros(B, W, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_tags_may_be_whole_numbers_of_any_size(crf: CRF, dtype: torch.dtype) -> None:
    emissions, tags = torch.randn(B, W, C), torch.randint(0, C, (B, W))
    torch.testing.assert_close(crf(emissions, tags.to(dtype)), crf(emissions, tags))


def test_emissions_are_real(crf: CRF) -> None:
    emissions = torch.zeros(B, W, C, dtype=torch.complex64)
    for call in (lambda: crf(emissions, torch.zeros(B, W, dtype=torch.long)), lambda: crf.decode(emissions)):
        with pytest.raises(ValueError, match=r"emissions must be real numbers, got torch\.complex64"):
            call()


def test_transforms_of_functions_are_refused(crf: CRF) -> None:
    emissions, tags = torch.zeros(B, W, C), torch.zeros(B, W, dtype=torch.long)
    calls: list[Callable[[], object]] = [
        lambda: torch.func.grad(lambda x: crf(x, tags))(emissions),
        lambda: torch.func.vmap(lambda x: crf(x[None], tags[:1]))(emissions),
        lambda: torch.func.vmap(lambda x: crf.best_paths(x[None]).tags)(emissions),
        lambda: torch.func.jacrev(crf.log_partition)(emissions),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"transforms of torch\.func \(grad, vmap, jvp, \.\.\.\) do not work"):
            call()
    parameters = dict(crf.named_parameters())
    torch.testing.assert_close(torch.func.functional_call(crf, parameters, (emissions, tags)), crf(emissions, tags))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_all_inputs_may_come_from_inference_mode(backend: str, reduction: str, crf: CRF) -> None:
    with torch.inference_mode():
        tags = torch.zeros(B, W, dtype=torch.long)
        mask, allowed = torch.ones(B, W, dtype=torch.bool), torch.ones(B, W, C, dtype=torch.bool)
        allowed[:, 0, 0] = False
    with use_backend(backend):
        for given in ({"tags": tags}, {"allowed": allowed}):
            emissions = torch.randn(B, W, C, requires_grad=True)
            crf(emissions, mask=mask, reduction=reduction, **given).sum().backward()
            assert emissions.grad is not None


@pytest.mark.parametrize("compiled", [False, True])
def test_a_layer_may_be_trained_on_what_inference_mode_made(compiled: bool, crf: CRF) -> None:
    with torch.inference_mode():
        crf.set_legal(torch.ones(C + 2, C + 2, dtype=torch.bool))
        emissions, tags, weight = torch.randn(B, W, C), torch.zeros(B, W, dtype=torch.long), torch.rand(C)
        mask, allowed = torch.ones(B, W, dtype=torch.bool), torch.ones(B, W, C, dtype=torch.bool)
        allowed[:, 0, 0] = False
    for call in (
        lambda: crf(emissions, tags, mask),
        lambda: crf(emissions, tags, mask, weight=weight),
        lambda: crf(emissions, mask=mask, allowed=allowed, reduction="none").sum(),
        lambda: crf.entropy(emissions, mask, allowed, differentiable=True).sum(),
    ):
        crf.zero_grad()
        torch._dynamo.reset()
        (torch.compile(call, backend="aot_eager") if compiled else call)().backward()
        assert crf.transitions.grad is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_entropy_is_compiled_without_graph_break(backend: str, crf: CRF) -> None:
    with use_backend(backend):
        compiled = torch.compile(crf.entropy, fullgraph=True, backend="aot_eager")
        for emissions in (torch.randn(B, W, C), torch.randn(B + 3, W + 2, C)):
            torch.testing.assert_close(compiled(emissions), crf.entropy(emissions))


class Values(nn.Module):
    def __init__(self, crf: CRF) -> None:
        super().__init__()
        self.crf = crf

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.crf(emissions, tags, mask, reduction="none"), self.crf.best_paths(emissions, mask).tags


@pytest.mark.parametrize("strict", [False, True])
def test_a_batch_of_any_size_is_exported(strict: bool, crf: CRF) -> None:
    torch._dynamo.reset()
    crf.set_legal(torch.ones(C + 2, C + 2, dtype=torch.bool))
    module, rows = Values(crf), {0: Dim("rows")}

    def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
        return torch.randn(size, W, C), torch.randint(0, C, (size, W)), torch.rand(size, W) < 0.7

    exported = torch.export.export(module, batch(2), dynamic_shapes=(rows, rows, rows), strict=strict).module()
    for size in (2, 7):
        given = batch(size)
        torch.testing.assert_close(exported(*given), module(*given))


def test_a_gradient_that_nothing_needs_is_not_computed(crf: CRF, monkeypatch: pytest.MonkeyPatch) -> None:
    emissions, tags = torch.randn(B, W, C), torch.zeros(B, W, dtype=torch.long)
    expected = crf(emissions, tags)
    backend = backend_for(torch.device("cpu"), C)

    def refuse(*_: object) -> None:
        raise AssertionError("computes gradients")

    monkeypatch.setattr(type(backend), "with_gradients", refuse)
    crf.requires_grad_(False)
    torch.testing.assert_close(crf(emissions, tags), expected.detach())
    with pytest.raises(AssertionError, match="computes gradients"):
        crf(emissions.requires_grad_(), tags)


def test_slots_without_a_path_hold_padding(crf: CRF) -> None:
    emissions = torch.randn(2, 2, C)
    mask = torch.tensor([[True, False], [True, True]])
    tags, scores = crf.best_paths(emissions, mask, nbest=5)
    assert scores.isneginf().tolist() == [[False] * 3 + [True] * 2, [False] * 5]
    assert tags[0, 1].eq(-100).all()
    assert tags[0, 0].tolist()[3:] == [-100, -100]
    assert sorted(tags[0, 0].tolist()[:3]) == [0, 1, 2]


def most_held(work: Callable[[], object]) -> int:
    """The most bytes that the tensors of a computation take at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes))


def test_memory_of_paths_and_pairs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the result, whatever the number of rows; all of them at once would take several times as much."""
    crf, B, W, C = CRF(32, batch_first=True), 24, 64, 32
    emissions = torch.randn(B, W, C)
    at_once = crf.marginals(emissions, pairwise=True), crf.best_paths(emissions, nbest=64)
    monkeypatch.setattr(lattice, "MOST_NUMBERS", 2**17)  # a mebibyte
    pairs, paths = B * W * C * C * 4, B * W * 64 * 8
    assert most_held(lambda: crf.marginals(emissions, pairwise=True)) < pairs + 4 * 2**20
    assert most_held(lambda: crf.decode(emissions, nbest=64)) < 2 * paths + 4 * 2**20
    in_parts = crf.marginals(emissions, pairwise=True), crf.best_paths(emissions, nbest=64)
    torch.testing.assert_close(in_parts, at_once)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_long_text_is_decoded_as_in_double_precision(backend: str) -> None:
    torch.manual_seed(0)
    B, W, C = 64, 512, 9
    crf = CRF(C, batch_first=True)
    emissions = 2 * torch.randn(B, W, C)
    crf.double()
    with use_backend("torch"):
        exact = crf.best_paths(emissions.double())
    crf.float()
    with use_backend(backend):
        found = crf.best_paths(emissions)
    assert torch.equal(found.tags, exact.tags)
    torch.testing.assert_close(found.scores.double(), exact.scores, rtol=1e-6, atol=0)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_an_exported_search_marks_scores_that_are_no_numbers(crf: CRF, score: float) -> None:
    emissions, mask = torch.randn(2, W, C), torch.ones(2, W, dtype=torch.bool)
    search = torch.export.export(Search(crf), (emissions, mask), strict=False).module()
    emissions[1, 2, 1] = score
    found = search(emissions, mask)
    assert found[1].eq(-100).all()
    assert found[0].tolist() == crf.decode(emissions[:1])[0]


class Search(nn.Module):
    def __init__(self, crf: CRF) -> None:
        super().__init__()
        self.crf = crf

    def forward(self, emissions: Tensor, mask: Tensor) -> Tensor:
        return self.crf.best_paths(emissions, mask).tags
