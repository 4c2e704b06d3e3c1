"""Texts longer than the encoder's limit, as overlapping windows that each own some of the words."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Window(NamedTuple):
    """Words ``start`` to ``end`` are shown to the encoder, ``own_start`` to ``own_end`` labelled; ends exclusive."""

    start: int
    end: int
    own_start: int
    own_end: int


def plan_windows(piece_counts: NDArray[np.int32], capacity: int, overlap: int) -> list[Window]:
    """Covers a text by windows of at most ``capacity`` word pieces, each word owned by exactly one of them.

    A word shown in two windows is owned by the one in which its first piece has more context on its poorer side, so the
    border of ownership is the middle of the overlap. A text without words has no window.

    Args:
        piece_counts: word pieces of each word, ``(W,)``, each between 1 and ``capacity``.
        capacity: word pieces that fit into a window.
        overlap: word pieces that neighbouring windows share at most; at most half the capacity.

    Raises:
        ValueError: a word is longer than a window, or the overlap leaves no room to move on.
    """
    if not len(piece_counts):
        return []
    if not 0 <= overlap <= capacity // 2:
        raise ValueError(f"an overlap of {overlap} word pieces does not fit windows of {capacity}; use at most half")
    if piece_counts.max() > capacity:
        raise ValueError(f"a word of {piece_counts.max()} word pieces does not fit a window of {capacity}")
    borders = np.concatenate(([0], np.cumsum(piece_counts)))  # (W + 1,) word pieces before each word
    words = len(piece_counts)
    shown: list[tuple[int, int]] = []
    start = end = 0
    while end < words:
        if shown:
            start = int(np.searchsorted(borders, borders[end] - overlap))
            start = _first_start_that_moves_on(borders, start, end, capacity)
        end = int(np.searchsorted(borders, borders[start] + capacity, side="right")) - 1
        shown.append((start, end))
    return _with_owners(shown, borders)


def _first_start_that_moves_on(borders: NDArray[np.int64], start: int, end: int, capacity: int) -> int:
    """The earliest start, not before ``start``, whose window also holds the word at ``end``."""
    earliest = int(np.searchsorted(borders, borders[end + 1] - capacity))
    return max(start, earliest)


def _with_owners(shown: list[tuple[int, int]], borders: NDArray[np.int64]) -> list[Window]:
    windows: list[Window] = []
    own_start = 0
    for (start, end), following in zip(shown, [*shown[1:], None], strict=True):
        own_end = end
        if following is not None:
            middle = (borders[following[0]] + borders[end]) / 2
            own_end = int(np.searchsorted(borders, middle))
        if own_end > own_start:
            windows.append(Window(start, end, own_start, own_end))
        own_start = own_end
    return windows
