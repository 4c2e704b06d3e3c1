"""Tests between variants."""

from itertools import product

import numpy as np
import pytest

from analysis.compare_runs import Variant, compare, holm, permutation_test
from analysis.documents import precision_recall_f1

F1 = 2


def variant(name: str, accuracy: float, seed: int, runs: int = 1, documents: int = 150) -> Variant:
    gold = np.random.default_rng(0).integers(0, 6, documents)
    right = np.random.default_rng(seed).binomial(gold, accuracy, (runs, documents))
    every_run = np.broadcast_to(gold, right.shape)
    return Variant(name, np.stack([right, every_run, every_run], axis=2))


def test_p_is_that_of_all_swaps_there_are() -> None:
    first, second = (variant("", 0.7, seed, documents=10).mean_counts for seed in (1, 4))
    observed = abs(np.subtract(*(precision_recall_f1(one.sum(0))[F1] for one in (first, second))))
    as_far = 0
    for swap in product([False, True], repeat=10):
        where = np.array(swap)[:, None]
        scores = [precision_recall_f1(np.where(where, *pair).sum(0))[F1] for pair in ((second, first), (first, second))]
        as_far += abs(scores[0] - scores[1]) >= observed - 1e-12
    assert 0.05 < as_far / 2**10 < 0.95
    assert permutation_test(first, second, F1, 40_000, seed=0) == pytest.approx(as_far / 2**10, abs=0.01)


def test_without_a_difference_p_is_even() -> None:
    ps = np.array(
        [
            permutation_test(
                variant("", 0.8, seed).mean_counts, variant("", 0.8, seed + 500).mean_counts, F1, 500, seed
            )
            for seed in range(300)
        ]
    )
    assert 0.02 <= (ps < 0.05).mean() <= 0.09
    assert 0.42 <= (ps < 0.5).mean() <= 0.58


def test_a_clear_difference_is_found_and_has_its_sign() -> None:
    low, high = variant("low", 0.6, 1), variant("high", 0.9, 2)
    (difference,) = compare([low, high], "f1", 2000, seed=0)
    assert (difference.first, difference.second) == ("high", "low")
    expected = high.scores("f1")[0] - low.scores("f1")[0]
    assert difference.value == pytest.approx(expected)
    assert 0 < difference.low < expected < difference.high
    assert difference.p == difference.adjusted_p == pytest.approx(1 / 2001)


def test_a_variant_differs_from_itself_by_nothing() -> None:
    one = variant("one", 0.8, 1)
    (difference,) = compare([one, Variant("same", one.counts)], "f1", 500, seed=0)
    assert (difference.value, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_pairing_makes_the_interval_narrow() -> None:
    """Two variants that fail on the same documents differ reliably though each alone is uncertain."""
    base = variant("base", 0.5, 1, documents=80)
    better = base.counts.copy()
    better[0, :, 0] = np.minimum(better[0, :, 0] + (np.arange(80) % 4 == 0), better[0, :, 2])
    (difference,) = compare([base, Variant("better", better)], "f1", 4000, seed=0)
    assert difference.low > 0
    assert difference.p < 0.01


def test_variants_with_unlike_numbers_of_runs_are_compared() -> None:
    (difference,) = compare([variant("a", 0.8, 1, runs=3), variant("b", 0.8, 2, runs=5)], "recall", 500, seed=0)
    assert abs(difference.value) < 0.1
    assert difference.p > 0.01


def test_all_pairs_or_those_with_the_baseline() -> None:
    variants = [variant(name, 0.8, seed) for seed, name in enumerate("abc")]
    pairs = [(one.first, one.second) for one in compare(variants, "f1", 100, seed=0)]
    assert pairs == [("b", "a"), ("c", "a"), ("c", "b")]
    pairs = [(one.first, one.second) for one in compare(variants, "f1", 100, seed=0, baseline="b")]
    assert pairs == [("a", "b"), ("c", "b")]


def test_holm_by_its_own_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_any_number_of_kinds_of_documents_fits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = variant("a", 0.7, 1), variant("b", 0.75, 2)
    whole = compare([one, other], "f1", 3000, seed=0)[0]
    monkeypatch.setattr("analysis.documents._DRAWS_AT_ONCE", 1000)
    parts = compare([one, other], "f1", 3000, seed=0)[0]
    assert parts.p == pytest.approx(whole.p, abs=0.05)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.01)
