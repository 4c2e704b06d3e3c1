"""Windows over long texts: coverage, ownership and size, for any lengths of words."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from processors.features.windows import Window, plan_windows


@st.composite
def plans(draw: st.DrawFn) -> tuple[NDArray[np.int32], int, int]:
    """Piece counts, a capacity that holds each, and an overlap."""
    capacity = draw(st.integers(1, 30))
    counts = draw(st.lists(st.integers(1, capacity) | st.integers(1, min(2, capacity)), max_size=80))
    return np.array(counts, np.int32), capacity, draw(st.integers(0, capacity // 2))


def context(window: Window, word: int, borders: NDArray[np.int64]) -> int:
    """Pieces on the poorer side of a word's first piece; the text's own edges lack nothing."""
    left = borders[word] - borders[window.start] if window.start else borders[-1]
    right = borders[window.end] - borders[word] - 1 if window.end < len(borders) - 1 else borders[-1]
    return int(min(left, right))


@given(plans())
def test_every_word_is_owned_exactly_once_in_order(plan: tuple[NDArray[np.int32], int, int]) -> None:
    owned = [word for window in plan_windows(*plan) for word in range(window.own_start, window.own_end)]
    assert owned == list(range(len(plan[0])))


@given(plans())
def test_windows_fit_and_show_what_they_own(plan: tuple[NDArray[np.int32], int, int]) -> None:
    counts, capacity, _ = plan
    for window in plan_windows(*plan):
        assert window.start <= window.own_start < window.own_end <= window.end
        assert counts[window.start : window.end].sum() <= capacity


@given(plans())
def test_neighbours_share_no_more_than_the_overlap(plan: tuple[NDArray[np.int32], int, int]) -> None:
    windows = plan_windows(*plan)
    for left, right in pairwise(windows):
        assert plan[0][right.start : left.end].sum() <= plan[2]


@given(plans())
def test_the_owner_is_the_window_with_most_context(plan: tuple[NDArray[np.int32], int, int]) -> None:
    windows = plan_windows(*plan)
    borders = np.concatenate(([0], np.cumsum(plan[0], dtype=np.int64)))
    for owner in windows:
        for word in range(owner.own_start, owner.own_end):
            best = max(context(window, word, borders) for window in windows if window.start <= word < window.end)
            assert context(owner, word, borders) == best


@given(plans())
def test_a_text_that_fits_is_one_window(plan: tuple[NDArray[np.int32], int, int]) -> None:
    counts, capacity, overlap = plan
    assume(len(counts) and counts.sum() <= capacity)
    assert plan_windows(counts, capacity, overlap) == [Window(0, len(counts), 0, len(counts))]


def test_a_text_without_words_has_no_window() -> None:
    assert plan_windows(np.empty(0, np.int32), 10, 2) == []


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1] * 12, [(0, 8, 0, 6), (4, 12, 6, 12)]),
        ([1] * 20, [(0, 8, 0, 6), (4, 12, 6, 10), (8, 16, 10, 14), (12, 20, 14, 20)]),
        ([8, 8], [(0, 1, 0, 1), (1, 2, 1, 2)]),
        ([5, 5, 3], [(0, 1, 0, 1), (1, 3, 1, 3)]),
    ],
)
def test_windows_of_eight_pieces_that_share_four(counts: list[int], expected: list[tuple[int, ...]]) -> None:
    assert plan_windows(np.array(counts, np.int32), 8, 4) == expected


def test_a_long_text_needs_few_windows() -> None:
    windows = plan_windows(np.ones(20_000, np.int32), 510, 127)
    assert len(windows) == 1 + -(-(20_000 - 510) // (510 - 127))


@pytest.mark.parametrize("overlap", [-1, 5, 8])
def test_an_overlap_of_more_than_half_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match=f"overlap of {overlap} word pieces does not fit windows of 8"):
        plan_windows(np.ones(20, np.int32), 8, overlap)


def test_a_word_longer_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="a word of 9 word pieces does not fit a window of 8"):
        plan_windows(np.array([1, 9], np.int32), 8, 2)
