"""The layer against enumeration of all paths."""

import math

import pytest
import torch
from hypothesis import given, settings

from models.crf.backend import use_backend
from tests.models.crf.enumeration import Problem
from tests.models.crf.problems import BACKENDS, layer, problems, tolerance

DTYPES = [torch.float32, torch.float64]
EXAMPLES = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems())
@EXAMPLES
def test_values(backend: str, dtype: torch.dtype, problem: Problem) -> None:
    crf, emissions = layer(problem, dtype), problem.emissions.to(dtype)
    atol = tolerance(problem, dtype)
    with use_backend(backend):
        partition = crf.log_partition(emissions, problem.mask).tolist()
        restricted = crf.log_partition(emissions, problem.mask, problem.allowed).tolist()
        llh = crf(emissions, problem.tags, problem.mask, reduction="none").tolist()
        partial = crf(emissions, mask=problem.mask, reduction="none", allowed=problem.allowed).tolist()
    for row in range(len(llh)):
        words = problem.words(row)
        gold = problem.score(row, tuple(problem.tags[row, words].tolist()))
        total, inside = problem.log_partition(row), problem.log_partition(row, problem.allowed)
        assert partition[row] == pytest.approx(total, rel=1e-6, abs=atol)
        assert restricted[row] == pytest.approx(inside, rel=1e-6, abs=atol)
        assert llh[row] == pytest.approx(gold - total, rel=1e-6, abs=atol)
        assert partial[row] == pytest.approx(inside - total, rel=1e-6, abs=2 * atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems())
@EXAMPLES
def test_gradients_are_marginals(backend: str, dtype: torch.dtype, problem: Problem) -> None:
    crf, emissions = layer(problem, dtype), problem.emissions.to(dtype, copy=True).requires_grad_()
    atol = 1e-6 + 10 * tolerance(problem, dtype)
    weights = torch.linspace(-1, 2, emissions.size(0), dtype=dtype)
    with use_backend(backend):
        torch.autograd.backward(crf.log_partition(emissions, problem.mask), weights)
        unary = crf.marginals(emissions, problem.mask, allowed=problem.allowed)
    assert emissions.grad is not None
    start, end, pairs = (
        torch.zeros_like(p, dtype=torch.float64) for p in (problem.start, problem.end, problem.transitions)
    )
    for row, weight in enumerate(weights.tolist()):
        expected = problem.marginals(row)
        torch.testing.assert_close(emissions.grad[row].double(), weight * expected, rtol=0, atol=atol)
        conditional = problem.marginals(row, problem.allowed)
        torch.testing.assert_close(unary[row].double(), conditional, rtol=0, atol=atol)
        pairs += weight * problem.pairs(row).sum(0)
        if words := problem.words(row):
            start += weight * expected[words[0]]
            end += weight * expected[words[-1]]
    for parameter, counts in ((crf.start_transitions, start), (crf.end_transitions, end), (crf.transitions, pairs)):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.double(), counts, rtol=0, atol=3 * atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems())
@EXAMPLES
def test_decode(backend: str, dtype: torch.dtype, problem: Problem) -> None:
    crf, emissions = layer(problem, dtype), problem.emissions.to(dtype)
    atol = tolerance(problem, dtype)
    with use_backend(backend):
        decoded = crf.decode(emissions, problem.mask)
        tags, scores = crf.best_paths(emissions, problem.mask)
    for row, path in enumerate(decoded):
        best = max(problem.paths(row).values())
        assert problem.score(row, tuple(path)) == pytest.approx(best, rel=1e-6, abs=atol)
        assert scores[row].item() == pytest.approx(best, rel=1e-6, abs=atol)
        assert tags[row][problem.mask[row]].tolist() == path
        assert (tags[row][~problem.mask[row]] == -100).all()


@given(problem=problems())
@EXAMPLES
def test_nbest(problem: Problem) -> None:
    crf, k = layer(problem, torch.float64), 6
    ranked = crf.decode(problem.emissions, problem.mask, nbest=k)
    for row, paths in enumerate(ranked):
        expected = sorted(problem.paths(row).values(), reverse=True)[:k]
        assert [score for _, score in paths] == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert [problem.score(row, tuple(path)) for path, _ in paths] == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert len({tuple(path) for path, _ in paths}) == len(paths)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@given(problem=problems())
@EXAMPLES
def test_pairwise_marginals_and_entropy(backend: str, problem: Problem) -> None:
    crf = layer(problem, torch.float64)
    with use_backend(backend):
        _, pairs = crf.marginals(problem.emissions, problem.mask, pairwise=True)
        entropy = crf.entropy(problem.emissions, problem.mask).tolist()
    for row in range(len(entropy)):
        torch.testing.assert_close(pairs[row], problem.pairs(row), rtol=0, atol=1e-8)
        probabilities = problem.probabilities(row).values()
        expected = -sum(p * math.log(p) for p in probabilities if p > 0)
        assert entropy[row] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@given(problem=problems())
@EXAMPLES
def test_span_confidence(backend: str, problem: Problem) -> None:
    """All spans of a row at once, each with tag sets drawn for its words and neighbours."""
    crf = layer(problem, torch.float64)
    B, W, C = problem.emissions.shape
    spans = [
        (row, words[first], words[last])
        for row in range(B)
        for words in [problem.words(row)]
        for first in range(len(words))
        for last in range(first, len(words))
    ]
    N = len(spans)
    generator = torch.Generator().manual_seed(N)
    inside = torch.rand(N, W, C, generator=generator) < 0.6
    before, after = torch.rand(2, N, C, generator=generator) < 0.6
    with use_backend(backend):
        confidence = crf.span_confidence(
            problem.emissions, problem.mask, torch.tensor(spans).reshape(N, 3), inside, before, after
        )
    probabilities = [problem.probabilities(row) for row in range(B)]
    for n, (row, first, last) in enumerate(spans):
        words = problem.words(row)
        begin, stop = words.index(first), words.index(last) + 1
        expected = sum(
            probability
            for path, probability in probabilities[row].items()
            if all(inside[n, k, tag] for k, tag in enumerate(path[begin:stop]))
            and (begin == 0 or before[n, path[begin - 1]])
            and (stop == len(words) or after[n, path[stop]])
        )
        assert confidence[n].item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_samples_follow_the_distribution(backend: str) -> None:
    torch.manual_seed(7)
    C, W, n = 3, 4, 40_000
    emissions, transitions = torch.randn(2, W, C).double(), torch.randn(C, C).double()
    mask = torch.tensor([[True, True, False, True], [False, True, True, False]])
    legal = torch.ones(C + 2, C + 2, dtype=torch.bool)
    legal[0, 1] = legal[C, 2] = False
    tags, everything = torch.zeros(2, W, dtype=torch.long), torch.ones(2, W, C, dtype=torch.bool)
    start, end = torch.randn(C).double(), torch.randn(C).double()
    fixed = Problem(emissions, start, end, transitions, mask, legal, everything, tags)
    with use_backend(backend):
        drawn = layer(fixed, torch.float64).sample(emissions, mask, n)
    assert drawn.shape == (n, 2, W)
    for row in range(2):
        words = fixed.words(row)
        assert (drawn[:, row, [w for w in range(W) if w not in words]] == -100).all()
        paths, counts = torch.unique(drawn[:, row, words], dim=0, return_counts=True)
        seen = {tuple(path): count / n for path, count in zip(paths.tolist(), counts.tolist(), strict=True)}
        expected = fixed.probabilities(row)
        assert seen.keys() <= expected.keys()
        for path, probability in expected.items():
            deviation = math.sqrt(probability * (1 - probability) / n)
            assert abs(seen.get(path, 0) - probability) < 5 * deviation + 1e-9
