# mypy: allow-untyped-decorators, no-warn-return-any
"""The best paths of eight sentences side by side (Viterbi 1967), in the layout of `abreast.py`.

Beside the scores the sweep keeps where they came from, as numbers of the same type, which lie in the same lanes.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from .groups import Group, room_for_scores
from .lanes import (
    ROWS,
    Array,
    Lanes,
    Real,
    broadcast,
    larger,
    load_rows,
    store,
    where_above,
    where_larger,
    widen,
)

# The words' scores and the best tags before each tag (longest, C, ROWS), flat; the scores of the best paths to each tag
# of a lane's last word, the largest 0, and to the words behind it (C, ROWS).
Room = namedtuple("Room", "e came best step")


@njit
def make_room(words: int, C: int, like: Real) -> Room:
    """Room for one thread to work in; `like` is a number of the type to compute in."""
    dtype = np.asarray(like).dtype
    size = C * ROWS
    return Room(
        room_for_scores(words, C, like), np.empty(words * size, dtype), np.empty(size, dtype), np.empty(size, dtype)
    )


@njit(forceinline=True)
def better(via: Lanes, tag: Lanes, best: Lanes, came: Lanes) -> tuple[Lanes, Lanes]:
    """The better of two scores in each lane and the tag that it came from; the one found first where they are equal."""
    return larger(best, via), where_larger(via, best, tag, came)


@njit(forceinline=True)
def best_before(out: Array, came: Array, at: int, before: Array, scores: Array, C: int) -> None:
    """out[j] = the largest before[i] + scores[i, j] over i, and came[at:][j] the first such i: (C, ROWS)."""
    zero = broadcast(0.0, load_rows(before, 0))
    lowest = broadcast(-np.inf, zero)
    for j in range(0, C - 3, 4):
        a, b, c, d = lowest, lowest, lowest, lowest
        from_a, from_b, from_c, from_d = zero, zero, zero, zero
        for i in range(C):
            here, tag = load_rows(before, i * ROWS), broadcast(np.float32(i), zero)
            a, from_a = better(here + scores[i, j], tag, a, from_a)
            b, from_b = better(here + scores[i, j + 1], tag, b, from_b)
            c, from_c = better(here + scores[i, j + 2], tag, c, from_c)
            d, from_d = better(here + scores[i, j + 3], tag, d, from_d)
        for place, score, tag in ((j, a, from_a), (j + 1, b, from_b), (j + 2, c, from_c), (j + 3, d, from_d)):
            store(out, place * ROWS, score)
            store(came, at + place * ROWS, tag)
    for j in range(C // 4 * 4, C):
        a, from_a = lowest, zero
        for i in range(C):
            tag = broadcast(np.float32(i), zero)
            a, from_a = better(load_rows(before, i * ROWS) + scores[i, j], tag, a, from_a)
        store(out, j * ROWS, a)
        store(came, at + j * ROWS, from_a)


@njit
def search(room: Room, scores: Array, C: int, counts: Array, longest: int, totals: Array) -> None:
    """Find the best paths of rows with `counts` (ROWS,) words, whose scores are in room.e.

    Each word's scores are brought to a largest of 0; `totals` (ROWS,), of double precision, gets what that took away:
    the score of the best path. It is not finite where no path is legal.
    """
    e, came, best, step = room.e, room.came, room.best, room.step
    words = load_rows(counts, 0)
    zeros = broadcast(0.0, words)
    total = widen(zeros)
    size = C * ROWS
    for j in range(0, size, ROWS):
        store(step, j, zeros)
        store(best, j, zeros)
    for k in range(longest):
        base = k * size
        here = words - np.float32(k)
        if k > 0:
            best_before(step, came, base, best, scores, C)
        top = broadcast(-np.inf, zeros)
        for j in range(0, size, ROWS):
            step_j = load_rows(step, j) + load_rows(e, base + j)
            store(step, j, step_j)
            top = larger(top, step_j)
        for j in range(0, size, ROWS):
            store(best, j, where_above(here, 0.0, load_rows(step, j) - top, load_rows(best, j)))
        total = total + widen(where_above(here, 0.0, top, zeros))
    store(totals, 0, total)


@njit
def trace(paths: Array, room: Room, C: int, group: Group, longest: int) -> None:
    """Write the best path of each row of a group to its words in paths (B, W)."""
    came, best = room.came, room.best
    tags = np.zeros(ROWS, np.int64)
    for lane in range(ROWS):
        for j in range(1, C):
            if best[j * ROWS + lane] > best[tags[lane] * ROWS + lane]:
                tags[lane] = j
    for k in range(longest - 1, -1, -1):
        for lane in range(ROWS):
            if k < group.counts[lane]:
                paths[group.rows[lane], group.words[lane, k]] = tags[lane]
                tags[lane] = np.int64(came[(k * C + tags[lane]) * ROWS + lane])
