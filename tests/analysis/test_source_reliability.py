"""Reliabilities of simulated sources, and posteriors against enumeration."""

from itertools import combinations
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.source_reliability import Items, Rates, _exclusive, _overlapping, estimate

Spans = list[tuple[int, int, int]]


def one_hot(said: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
    return np.eye(classes, dtype=bool)[said]


def votes_of(said: NDArray[np.int64], classes: int) -> NDArray[np.bool_]:
    """(N, S, C + 1), never other words."""
    return one_hot(said, classes + 1)


def items_of(said: NDArray[np.int64], classes: int) -> Items:
    """Items apart from each other: (N, S) what sources say of each, those of which nobody says anything as one."""
    empty = (said == 0).all(1)
    rows = np.concatenate([said[~empty], np.zeros((1, said.shape[1]), said.dtype)])
    weights = np.concatenate([np.ones(len(rows) - 1), [empty.sum()]])
    spans = [(0, 2 * place, 2 * place) for place in range(len(rows) - 1)]
    return Items(votes_of(rows, classes), np.ones((len(rows), classes), bool), weights, spans)


def simulated(rates: list[tuple[float, float]], seed: int, size: int = 20_000) -> tuple[NDArray[np.int64], ...]:
    """True classes of places, of which one in ten is an entity, and what sources with (recall, false rate) say."""
    random = np.random.default_rng(seed)
    true = np.where(random.random(size) < 0.1, random.integers(1, 4, size), 0)
    said = []
    for recall, false in rates:
        right, drawn = random.random(size) < recall, random.random(size)
        wrong = np.where(drawn < 0.3, random.integers(1, 4, size), 0)  # another type, or none
        spurious = np.where(drawn < false, random.integers(1, 4, size), 0)
        said.append(np.where(true > 0, np.where(right, true, wrong), spurious))
    return true, np.stack(said, 1)


RATES = [(0.95, 0.002), (0.8, 0.01), (0.6, 0.03)]


@pytest.mark.parametrize("seed", range(3))
def test_reliabilities_are_recovered_and_labels_are_better_than_those_of_the_majority(seed: int) -> None:
    true, said = simulated(RATES, seed)
    found = estimate(items_of(said, 4))
    recall = np.diagonal(found.confusion, axis1=1, axis2=2)[:, 1:4]
    actual = [[(said[true == kind, source] == kind).mean() for kind in range(1, 4)] for source in range(3)]
    np.testing.assert_allclose(recall, actual, atol=0.06)
    np.testing.assert_allclose(
        1 - found.confusion[:, 0, 0], [(said[true == 0, s] > 0).mean() for s in range(3)], atol=0.005
    )
    assert (np.diff(recall.mean(1)) < 0).all()
    assert found.prior[0] == pytest.approx((true == 0).mean(), abs=0.005)
    some = (said > 0).any(1)
    counts = one_hot(said, 4).sum(1)[some]
    majority = np.where(counts.max(1) > 1, counts.argmax(1), 0)
    best = found.posteriors[:-1].argmax(1)
    assert (best == true[some]).mean() > (majority == true[some]).mean() + 0.02
    certain = found.posteriors[:-1].max(1) > 0.9
    assert (best == true[some])[certain].mean() > 0.95


def test_what_is_known_of_a_source_is_kept() -> None:
    said = np.zeros((1000, 1), np.int64)
    said[:100, 0] = 1
    found = estimate(items_of(said, 2), {0: Rates(precision=0.8, recall=0.4)})
    np.testing.assert_allclose(found.posteriors[:-1, 1], 0.8, atol=0.01)
    assert found.confusion[0, 1, 1] == pytest.approx(0.4)
    expected = 100 * 0.8 / (0.4 + 0.3)  # with those that it misses, other than by other words, which would be here
    assert found.prior[1] * 1000 == pytest.approx(expected, rel=0.03)


def test_gold_decides_who_of_two_is_right() -> None:
    true, said = simulated([(0.9, 0.001), (0.4, 0.05)], 7, 4000)
    items = items_of(said, 4)
    free = estimate(items)
    possible, shown = items.possible.copy(), true[(said > 0).any(1)]
    possible[: len(shown) // 3] = one_hot(shown[: len(shown) // 3], 4)
    anchored = estimate(Items(items.votes, possible, items.weights, items.spans))
    rest = slice(len(shown) // 3, -1)
    right = [(one.posteriors[rest].argmax(1) == shown[len(shown) // 3 :]).mean() for one in (free, anchored)]
    assert right[1] > max(right[0], 0.85)
    np.testing.assert_array_equal(anchored.posteriors[: len(shown) // 3].argmax(1), shown[: len(shown) // 3])


def test_sets_of_classes_and_sources_that_did_not_look_say_as_much_as_they_exclude() -> None:
    _, said = simulated(RATES, 3)
    items = items_of(said, 4)
    found = estimate(items)
    votes = np.concatenate([items.votes, np.ones_like(items.votes[:, :1])], 1)  # never looks
    votes[:, 2, 3] |= votes[:, 2, 0]  # does not know the last type
    more = estimate(Items(votes, items.possible, items.weights, items.spans))
    np.testing.assert_allclose(more.confusion[:2, :3], found.confusion[:2, :3], atol=0.03)
    assert more.confusion[2, 1, 1] == pytest.approx(found.confusion[2, 1, 1], abs=0.03)


@st.composite
def spans_in_texts(draw: st.DrawFn) -> Spans:
    places = st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 2))
    spans = {(text, first, first + more) for text, first, more in draw(st.lists(places, max_size=7))}
    return sorted(spans, key=lambda span: (span[0], span[2], span[1]))


def overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return one[0] == other[0] and one[1] <= other[2] and other[1] <= one[2]


@given(spans_in_texts(), st.data())
@settings(max_examples=200, deadline=None)
def test_of_overlapping_spans_at_most_one_is_an_entity(spans: Spans, data: st.DataObject) -> None:
    odds = [exp(data.draw(st.floats(-3, 3))) for _ in spans]
    groups = list(_overlapping(spans))
    grouped = {item for group in groups for item, _ in group}
    assert grouped == {
        item for pair in combinations(range(len(spans)), 2) if overlap(*(spans[one] for one in pair)) for item in pair
    }
    for group in groups:
        members = [item for item, _ in group]
        total, of_item = 0.0, dict.fromkeys(members, 0.0)
        for size in range(len(members) + 1):
            for chosen in combinations(members, size):
                if not any(overlap(spans[one], spans[other]) for one, other in combinations(chosen, 2)):
                    weight = float(np.prod([odds[item] for item in chosen]))
                    total += weight
                    for item in chosen:
                        of_item[item] += weight
        found = _exclusive([log(odds[item]) for item in members], [before for _, before in group])
        np.testing.assert_allclose(found, [of_item[item] / total for item in members], atol=1e-9)
