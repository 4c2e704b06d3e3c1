"""Bootstrap over documents: confidence intervals of scores.

Documents with equal counts are interchangeable, so a resample only draws how many there are of each kind: one
multinomial draw over a few hundred kinds instead of one draw per document.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_DRAWS_AT_ONCE = 2**22  # bounds memory

Counts = NDArray[np.float64] | NDArray[np.int64]


def precision_recall_f1(counts: Counts) -> NDArray[np.float64]:
    """Scores from correct, predicted and gold counts: ``(..., 3) -> (..., 3)``, 0 where the denominator is 0."""
    right, predicted, gold = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    pairs = ((right, predicted), (right, gold), (2 * right, predicted + gold))
    return np.stack([np.divide(part, whole, np.zeros_like(whole), where=whole > 0) for part, whole in pairs], axis=-1)


def resampled_sums(counts: Counts, resamples: int, seed: int) -> NDArray[np.float64]:
    """Sum ``counts`` over documents drawn with replacement: ``(D, N) -> (resamples, N)``."""
    if not len(counts):
        return np.zeros((resamples, counts.shape[1]))
    kinds, sizes = np.unique(counts, axis=0, return_counts=True)  # (K, N), (K,)
    generator = np.random.default_rng(seed)
    shares = sizes / sizes.sum()
    parts = [generator.multinomial(sizes.sum(), shares, some) @ kinds for some in batches(resamples, len(kinds))]
    return np.concatenate(parts).astype(np.float64)


def batches(resamples: int, kinds: int) -> Iterator[int]:
    """Yield the batch sizes for drawing resamples."""
    size = max(1, _DRAWS_AT_ONCE // kinds)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def central_interval(values: NDArray[np.float64], level: float = 0.95) -> NDArray[np.float64]:
    """Bounds of the central ``level`` of the values along the first axis: ``(2, ...)``."""
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def score_intervals(counts: Counts, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, list[float]]:
    """Compute 95 % percentile intervals (Efron and Tibshirani 1993, ch. 13) of precision, recall and F1.

    Args:
        counts: ``(D, 3)`` from `analysis.documents.count_entities`.

    Returns:
        Lower and upper bound by score; empty for fewer than two documents.
    """
    if len(counts) < 2:
        return {}
    bounds = central_interval(precision_recall_f1(resampled_sums(counts, resamples, seed)))  # (2, 3)
    return dict(zip(("precision", "recall", "f1"), bounds.T.tolist(), strict=True))
