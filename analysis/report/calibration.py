"""Whether confidences can be believed: of the entities that the model is 80 % sure of, 80 % should be right."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.documents import ScoredDocument

BINS = 10


class Judged(NamedTuple):
    """Predicted entities with confidences.

    Args:
        confidences, right: ``(N,)``, of each predicted entity.
        gold: how many entities there were to find.
    """

    confidences: NDArray[np.float64]
    right: NDArray[np.bool_]
    gold: int


class Bin(NamedTuple):
    """Entities of like confidence: their mean confidence, and the share that is right with its 95 % interval."""

    confidence: float
    precision: float
    low: float
    high: float
    size: int


@dataclass
class Reliability:
    """How far confidences are from the truth.

    Args:
        bins: those that hold entities.
        error: the expected calibration error (Naeini et al. 2015), the mean distance of confidence and precision.
        brier: the mean squared distance of an entity's confidence from 1 where it is right, from 0 where it is not.
    """

    bins: list[Bin]
    error: float
    brier: float


def judge(documents: Iterable[ScoredDocument]) -> Judged:
    """Raises a ValueError where a document has no confidence for each predicted entity."""
    confidences, right, gold = list[float](), list[bool](), 0
    for document in documents:
        wanted = set(document.gold)
        confidences += [value for _, value in zip(document.predicted, document.confidences, strict=True)]
        right += [entity in wanted for entity in document.predicted]
        gold += len(wanted)
    return Judged(np.array(confidences, np.float64), np.array(right, bool), gold)


def reliability(judged: Judged) -> Reliability:
    """In bins of equal width."""
    confidences, right, _ = judged
    if not len(confidences):
        return Reliability([], 0.0, 0.0)
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = []
    for place in np.unique(places):
        chosen = places == place
        size, precision = int(chosen.sum()), float(right[chosen].mean())
        bins.append(Bin(float(confidences[chosen].mean()), precision, *wilson_interval(precision, size), size))
    error = sum(one.size * abs(one.confidence - one.precision) for one in bins) / len(confidences)
    return Reliability(bins, error, float(np.mean((confidences - right) ** 2)))


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Of a share of so many (Wilson 1927)."""
    centre = share + z * z / (2 * count)
    reach = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return (centre - reach) / whole, (centre + reach) / whole


def counts_at(judged: Judged, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Right, predicted and gold entities if only those of at least a confidence are kept: ``(K,)`` -> ``(K, 3)``."""
    order = np.argsort(judged.confidences)
    right_from = np.concatenate((np.cumsum(judged.right[order][::-1])[::-1], [0]))
    first = np.searchsorted(judged.confidences[order], thresholds, side="left")
    gold = np.full(len(thresholds), judged.gold)
    return np.stack((right_from[first], len(order) - first, gold), axis=-1)
