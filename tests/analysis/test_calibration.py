"""Calibration, compared with hand counts and with simulated entities."""

import numpy as np
import pytest

from analysis.calibration import Judged, counts_at, judge, reliability
from common.entities import Entity
from tests.analysis.report.scored import LOC, PER, document


def drawn(size: int, seed: int = 0) -> Judged:
    """Perfectly calibrated entities: one of confidence p is correct with probability p."""
    generator = np.random.default_rng(seed)
    confidences = generator.random(size)
    return Judged(confidences, generator.random(size) < confidences, size)


def test_an_entity_is_right_if_type_and_borders_are() -> None:
    gold = [Entity(PER, 0, 0), Entity(LOC, 2, 2)]
    judged = judge([document("a", "x y z", gold, [Entity(PER, 0, 0), Entity(PER, 2, 2)], 0.5)])
    assert judged.right.tolist() == [True, False]
    assert judged.confidences.tolist() == [0.5, 0.5]
    assert judged.gold == 2


def test_a_document_without_its_confidences_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        judge([document("a", "x", [], [Entity(PER, 0, 0)])._replace(confidences=())])


def test_bins_and_errors_are_those_counted_by_hand() -> None:
    judged = Judged(np.array([0.05, 0.92, 0.94, 1.0]), np.array([False, True, False, True]), 4)
    low, high = (found := reliability(judged)).bins
    assert (low.confidence, low.precision, low.size) == (0.05, 0.0, 1)
    assert (high.confidence, high.precision, high.size) == pytest.approx((2.86 / 3, 2 / 3, 3))
    assert found.error == pytest.approx((0.05 + abs(2.86 - 2)) / 4)
    assert found.brier == pytest.approx((0.05**2 + 0.08**2 + 0.94**2) / 4)


def test_true_confidences_have_almost_no_error_and_boasts_have_much() -> None:
    judged = drawn(100_000)
    assert reliability(judged).error < 0.01
    assert reliability(judged).brier == pytest.approx(1 / 6, abs=0.005)
    boasting = judged._replace(confidences=np.sqrt(judged.confidences))
    assert reliability(boasting).error == pytest.approx(2 / 3 - 1 / 2, abs=0.01)


def test_without_entities_there_is_no_error() -> None:
    found = reliability(judge([document("a", "x", [Entity(PER, 0, 0)], [])]))
    assert (found.bins, found.error, found.brier) == ([], 0.0, 0.0)


@pytest.mark.parametrize(("correct", "size"), [(0, 5), (1, 5), (12, 40), (990, 1000), (5, 5)])
def test_each_bound_of_an_interval_is_1_96_of_its_own_standard_deviations_from_the_share(
    correct: int, size: int
) -> None:
    (one,) = reliability(Judged(np.full(size, 0.5), np.arange(size) < correct, size)).bins
    assert one.low <= one.precision <= one.high
    for bound in (one.low, one.high):
        deviation = (max(bound * (1 - bound), 0) / size) ** 0.5
        assert abs(one.precision - bound) == pytest.approx(1.959964 * deviation, abs=1e-7)


def test_counts_at_thresholds_are_those_of_a_direct_count() -> None:
    judged = drawn(500)
    judged.confidences[:50] = 0.5  # ties at a threshold
    thresholds = np.linspace(0, 1, 21)
    for threshold, counts in zip(thresholds, counts_at(judged, thresholds), strict=True):
        kept = judged.confidences >= threshold
        assert counts.tolist() == [judged.right[kept].sum(), kept.sum(), 500]
