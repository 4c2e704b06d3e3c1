"""Calibration of confidences: of the entities with a confidence of 0.8, 80 % should be correct."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.documents import ScoredDocument

BINS = 10


class Judged(NamedTuple):
    """Predicted entities with confidences.

    Args:
        confidences, right: of each predicted entity ``(N,)``.
        gold: number of gold entities.
    """

    confidences: NDArray[np.float64]
    right: NDArray[np.bool_]
    gold: int


@dataclass(frozen=True)
class Bin:
    """Entities of similar confidence: their mean confidence, and their precision with its 95 % Wilson interval."""

    confidence: float
    precision: float
    low: float
    high: float
    size: int


@dataclass
class Reliability:
    """How well confidences match precision.

    Args:
        bins: those that are not empty.
        error: expected calibration error (Naeini et al. 2015), the mean distance between confidence and precision.
        brier: mean squared difference between the confidence of an entity and 1 if it is correct, 0 if not.
    """

    bins: list[Bin]
    error: float
    brier: float


def judge(documents: Iterable[ScoredDocument]) -> Judged:
    """Collect the confidences of documents; ValueError if a predicted entity has none."""
    confidences, right, gold = list[float](), list[bool](), 0
    for document in documents:
        wanted = set(document.gold)
        confidences += [value for _, value in zip(document.predicted, document.confidences, strict=True)]
        right += [entity in wanted for entity in document.predicted]
        gold += len(wanted)
    return Judged(np.array(confidences, np.float64), np.array(right, bool), gold)


def reliability(judged: Judged) -> Reliability:
    """Calibration in bins of equal width."""
    from scipy.stats import binomtest  # slow import

    confidences, right, _ = judged
    if not len(confidences):
        return Reliability([], 0.0, 0.0)
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = []
    for place in np.unique(places):
        chosen = places == place
        correct, size = int(right[chosen].sum()), int(chosen.sum())
        interval = binomtest(correct, size).proportion_ci(method="wilson")
        bins.append(Bin(float(confidences[chosen].mean()), correct / size, interval.low, interval.high, size))
    error = sum(one.size * abs(one.confidence - one.precision) for one in bins) / len(confidences)
    return Reliability(bins, error, float(np.mean((confidences - right) ** 2)))


def counts_at(judged: Judged, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Correct, predicted and gold entities if only confidences >= a threshold are kept: ``(K,)`` -> ``(K, 3)``."""
    order = np.argsort(judged.confidences)
    right_from = np.concatenate((np.cumsum(judged.right[order][::-1])[::-1], [0]))
    first = np.searchsorted(judged.confidences[order], thresholds, side="left")
    gold = np.full(len(thresholds), judged.gold)
    return np.stack((right_from[first], len(order) - first, gold), axis=-1)
