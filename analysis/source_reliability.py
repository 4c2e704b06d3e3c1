"""How reliable sources of annotations are, estimated from agreement (Dawid and Skene 1979), and what is then true.

The items are spans of words that any source annotates. Each has a true class, an entity type or none, and each source
that looked has a distribution over what it says for each true class. Places where nobody annotates anything are items
too: without them, the few spans that are no entities would all be errors of somebody, and sources would seem to make
many. Spans instead of words, because then an entity that comes out has boundaries that a source gave. A source that has
another, overlapping entity says something too, mostly that there is one: this is a class of what it says of its own.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log1p
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

_ITERATIONS, _TOLERANCE = 200, 1e-4
_IMPOSSIBLE = -1e4  # log-probability; finite, so that what is certain can be compared
# What is expected of a source before anything is known of it, in observations.
_WAYS = 4  # in which a source usually errs in the words of an entity: one more or less at an end
_RIGHT, _MISSED, _OTHER_TYPE, _OTHER_WORDS, _SPURIOUS = 3.2, 0.4, 0.2, 0.2, 0.5


class Rates(NamedTuple):
    """Known shares of the entities of a source that are right, and of the true entities that it has."""

    precision: float
    recall: float


@dataclass(frozen=True)
class Items:
    """Spans and empty places, and what sources say of them. Class 0 is no entity, the others are types.

    Args:
        votes: (N, S, C + 1) bool: the classes one of which the source says; the last is an entity of other words that
            overlap these. All: it did not look.
        possible: (N, C) bool: the classes that the gold annotation permits.
        weights: (N,): number of items like this one.
        spans: ``(text, first_word, last_word)`` of the first items, sorted by text, then last word; others are places.
        nested: whether entities may overlap.
    """

    votes: NDArray[np.bool_]
    possible: NDArray[np.bool_]
    weights: NDArray[np.float64]
    spans: Sequence[tuple[int, int, int]]
    nested: bool = False


@dataclass(frozen=True)
class Estimate:
    """What was estimated.

    Args:
        posteriors: (N, C): probability of each class of each item.
        confusion: (S, C, C + 1): probability of what a source says, for each true class.
        prior: (C,): probability of each class.
    """

    posteriors: NDArray[np.float64]
    confusion: NDArray[np.float64]
    prior: NDArray[np.float64]


def estimate(items: Items, known: Mapping[int, Rates] | None = None) -> Estimate:
    """Estimate reliabilities and true classes together, by expectation maximisation.

    Starts from the share of votes. A weak prior says that a source has most entities and seldom others, so that rare
    types decide nothing.

    Args:
        known: by source, rates that are not estimated, for all types.
    """
    said = items.votes.astype(np.float64)  # N S C+1
    looked = np.logical_not(items.votes.all(-1))  # N S
    posteriors = _shares(items, said, looked)
    clusters = [] if items.nested else list(_overlapping(items.spans))
    overlaps = _pairs(items.spans, clusters)
    prior = np.empty(0)
    start = _with_other_words(_normalised(_expected(items.possible.shape[1])))
    confusion = np.tile(start, (said.shape[1], 1, 1))
    for _ in tqdm(range(_ITERATIONS), desc="Reliability of sources", leave=False, disable=None):
        prior = _normalised(items.weights @ posteriors + 1e-3)
        weighted = posteriors * items.weights[:, None]
        # A span that overlaps a true entity is an error in its words, not one that is made anywhere.
        weighted[:, 0] -= np.minimum(weighted[:, 0], _sum_over(overlaps, 1 - posteriors[:, 0]))
        for source, votes in enumerate(np.moveaxis(said, 1, 0)):
            if known and source in known:
                confusion[source] = _confusion_of(known[source], prior)
            else:
                seen = looked[:, source]
                confusion[source] = _counted(weighted[seen], votes[seen], confusion[source])
        logs = np.log(prior) + np.where(items.possible, 0.0, _IMPOSSIBLE)
        for source, votes in enumerate(np.moveaxis(said, 1, 0)):
            logs = logs + np.where(looked[:, source, None], np.log(votes @ confusion[source].T), 0.0)
        new = _posteriors(logs, clusters)
        change = np.abs(new - posteriors).max(initial=0.0)
        posteriors = new
        if change < _TOLERANCE:
            break
    return Estimate(posteriors, confusion, prior)


def _shares(items: Items, said: NDArray[np.float64], looked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of the votes of each class; a source that only excludes some types says that there is no entity."""
    classes, none = items.possible.shape[1], items.votes[..., :1] | items.votes[..., -1:]
    said = np.where(none, np.eye(classes)[0], said[..., :-1] / np.maximum(said[..., :-1].sum(-1, keepdims=True), 1))
    shares = (said * looked[..., None]).sum(1) + 1e-9
    return _normalised(np.where(items.possible, shares, 0.0))


def _expected(classes: int) -> NDArray[np.float64]:
    """Observations that stand for what is expected of any source, by true class and what it says."""
    matrix = np.full((classes, classes + 1), _OTHER_TYPE / max(classes - 2, 1))
    matrix[:, 0], matrix[:, -1], matrix[0] = _MISSED, _OTHER_WORDS, _SPURIOUS / classes
    np.fill_diagonal(matrix, _RIGHT)
    matrix[0, -1] = 0
    return matrix


def _counted(
    weighted: NDArray[np.float64], votes: NDArray[np.float64], before: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Estimate the confusion matrix of a source from the expected number of times that it says each class.

    Args:
        weighted: (N, C): expected number of items of each true class.
        votes: (N, C + 1): classes one of which it says; which one is expected as ``before``.
    """
    likely = np.maximum(votes @ before.T, 1e-300)  # N C
    counts = before * ((weighted / likely).T @ votes)
    counts[0, -1] = 0
    return _with_other_words(_normalised(counts + _expected(len(before))))


def _with_other_words(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set how likely other words are where there is no entity: as any spurious entity, in each of the ways to err."""
    confusion[0, -1] = _WAYS * confusion[0, 1:-1].sum() / max(len(confusion) - 1, 1)
    return confusion


def _confusion_of(rates: Rates, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """The confusion matrix of a source with these rates, which confuses no types.

    It is taken to have other words for half of the entities that it misses.
    """
    matrix = np.zeros((len(prior), len(prior) + 1))
    np.fill_diagonal(matrix, rates.recall)
    matrix[1:, 0] = matrix[1:, -1] = 0.5 * (1 - rates.recall)
    spurious = prior[1:] / prior[0] * rates.recall * (1 - rates.precision) / rates.precision
    matrix[0, 1:-1] = spurious * min(1.0, 0.5 / max(spurious.sum(), 0.5))  # at most half of the places
    matrix[0, 0] = 1 - matrix[0, 1:-1].sum()
    return _with_other_words(np.maximum(matrix, 1e-9))


def _posteriors(logs: NDArray[np.float64], clusters: Iterable[list[tuple[int, int]]]) -> NDArray[np.float64]:
    """Normalise log-probabilities (N, C) of classes; of overlapping items at most one is an entity."""
    posteriors = _normalised(np.exp(logs - logs.max(-1, keepdims=True)))
    if not clusters:
        return posteriors
    of_types = logs[:, 1:]
    highest = of_types.max(-1, keepdims=True)
    types = np.exp(of_types - highest)
    odds = (highest[:, 0] + np.log(types.sum(-1)) - logs[:, 0]).tolist()
    types = _normalised(types)
    for cluster in clusters:
        entity = _exclusive([odds[item] for item, _ in cluster], [before for _, before in cluster])
        for (item, _), probability in zip(cluster, entity, strict=True):
            posteriors[item, 0] = 1 - probability
            posteriors[item, 1:] = probability * types[item]
    return posteriors


def _exclusive(log_odds: Sequence[float], before: Sequence[int]) -> list[float]:
    """Probabilities of spans that are entities independently of each other, given that no two of them overlap.

    Args:
        log_odds: of each span, in the order of their ends.
        before: how many of the first spans end before this one begins.
    """
    totals = [0.0]  # logarithm of the sum over all sets of the first spans
    for odds, previous in zip(log_odds, before, strict=True):
        low, high = sorted((totals[-1], odds + totals[previous]))
        totals.append(high + log1p(exp(low - high)))
    reached = [*([0.0] * len(log_odds)), 1.0]  # backwards: probability that a set is decided from this place on
    found = [0.0] * len(log_odds)
    for place in range(len(log_odds) - 1, -1, -1):
        taken = reached[place + 1] * exp(log_odds[place] + totals[before[place]] - totals[place + 1])
        found[place] = min(taken, 1.0)
        reached[place] += reached[place + 1] - taken
        reached[before[place]] += taken
    return found


def _overlapping(spans: Sequence[tuple[int, int, int]]) -> Iterable[list[tuple[int, int]]]:
    """Groups of spans that overlap, each with its item and how many spans of its group end before it begins."""
    groups: list[list[int]] = []
    text, end = -1, -1
    for item in sorted(range(len(spans)), key=lambda item: spans[item][:2]):
        if spans[item][0] != text or spans[item][1] > end:
            groups.append([])
            text, end = spans[item][0], -1
        groups[-1].append(item)
        end = max(end, spans[item][2])
    for group in groups:
        if len(group) > 1:
            by_end = sorted(group)  # as the items are
            ends = [spans[item][2] for item in by_end]
            yield [(item, bisect_left(ends, spans[item][1])) for item in by_end]


def _pairs(spans: Sequence[tuple[int, int, int]], clusters: Iterable[list[tuple[int, int]]]) -> NDArray[np.int64]:
    """(P, 2): all pairs of items that overlap, in both orders."""
    found = [
        (one, other)
        for cluster in clusters
        for one, _ in cluster
        for other, _ in cluster
        if one != other and spans[one][1] <= spans[other][2] and spans[other][1] <= spans[one][2]
    ]
    return np.array(found, np.int64).reshape(-1, 2)


def _sum_over(pairs: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum for each item the values of those that overlap it."""
    sums = np.zeros(len(values))
    np.add.at(sums, pairs[:, 0], values[pairs[:, 1]])
    return sums


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / values.sum(-1, keepdims=True)
