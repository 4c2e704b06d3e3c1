# mypy: allow-untyped-decorators, no-warn-return-any
"""The best path of one sentence (Viterbi 1967).

The forward sweep keeps scores and no back-pointers: it is then nothing but vector maxima, and the way back looks for
the maximum again in the one column that it passes, C additions a word.
"""

from typing import Any

import numpy as np
from numba import njit

from models.crf.cpu.job import Inputs, load_potentials
from models.crf.cpu.lanes import (
    LANES,
    ROWS,
    Array,
    Lanes,
    broadcast,
    larger,
    largest,
    load,
    load_rows,
    store,
    where_above,
    where_larger,
    widen,
)


@njit(forceinline=True)
def best_before(before: Array, scores: Array, column: int, height: int) -> Lanes:
    """The largest before[i] + scores[i, j] over the first `height` rows, an even number, for sixteen columns j."""
    width = scores.shape[1]
    even = broadcast(-np.inf, load(scores, column))
    odd = even
    for i in range(0, height, 2):
        even = larger(even, load(scores, i * width + column) + before[i])
        odd = larger(odd, load(scores, (i + 1) * width + column) + before[i + 1])
    return larger(even, odd)


@njit
def decode(
    job: Any, inputs: Inputs, into: Array, best: Array, row: int, words: Array, count: int, path: Array
) -> float:
    """Write the best path of a row to path[words[:count]] and return its score, -inf if no path is legal.

    `into` is the transposed transition scores; `best` (count, width) is room for the scores of the best paths to each
    tag of each word, each word's largest brought to zero.
    """
    width = job.width
    height = job.num_tags + job.num_tags % 2
    potentials = np.empty(width, best.dtype)
    score = 0.0
    for k in range(count):
        load_potentials(potentials, job, inputs, row, words, k, count)
        top = broadcast(-np.inf, load(potentials, 0))
        for j in range(0, width, LANES):
            scores = load(potentials, j)
            if k > 0:
                scores = scores + best_before(best[k - 1], inputs.scores, j, height)
            store(best, k * width + j, scores)
            top = larger(top, scores)
        offset = largest(top)
        if offset == -np.inf:
            return -np.inf
        score += offset
        for j in range(0, width, LANES):
            store(best, k * width + j, load(best, k * width + j) - offset)

    tag = np.argmax(best[count - 1])
    path[words[count - 1]] = tag
    for k in range(count - 2, -1, -1):
        for i in range(width):
            potentials[i] = best[k, i] + into[tag, i]
        tag = np.argmax(potentials)
        path[words[k]] = tag
    return score


@njit(forceinline=True)
def best_before_abreast(best: Array, came: Array, at: int, before: Array, scores: Array, C: int) -> None:
    """best[j] = the largest before[i] + scores[i, j] over i, and came[at:][j] its first i: (C, ROWS), for each lane."""
    for j in range(0, C - 3, 4):
        a = load_rows(before, 0) + scores[0, j]
        b = load_rows(before, 0) + scores[0, j + 1]
        c = load_rows(before, 0) + scores[0, j + 2]
        d = load_rows(before, 0) + scores[0, j + 3]
        from_a = broadcast(0.0, a)
        from_b, from_c, from_d = from_a, from_a, from_a
        for i in range(1, C):
            here, tag = load_rows(before, i * ROWS), broadcast(np.float32(i), a)
            via = here + scores[i, j]
            from_a, a = where_larger(via, a, tag, from_a), larger(a, via)
            via = here + scores[i, j + 1]
            from_b, b = where_larger(via, b, tag, from_b), larger(b, via)
            via = here + scores[i, j + 2]
            from_c, c = where_larger(via, c, tag, from_c), larger(c, via)
            via = here + scores[i, j + 3]
            from_d, d = where_larger(via, d, tag, from_d), larger(d, via)
        store(best, j * ROWS, a)
        store(best, (j + 1) * ROWS, b)
        store(best, (j + 2) * ROWS, c)
        store(best, (j + 3) * ROWS, d)
        store(came, at + j * ROWS, from_a)
        store(came, at + (j + 1) * ROWS, from_b)
        store(came, at + (j + 2) * ROWS, from_c)
        store(came, at + (j + 3) * ROWS, from_d)
    for j in range(C // 4 * 4, C):
        a = load_rows(before, 0) + scores[0, j]
        from_a = broadcast(0.0, a)
        for i in range(1, C):
            via = load_rows(before, i * ROWS) + scores[i, j]
            from_a, a = where_larger(via, a, broadcast(np.float32(i), a), from_a), larger(a, via)
        store(best, j * ROWS, a)
        store(came, at + j * ROWS, from_a)


@njit
def search_abreast(
    e: Array, came: Array, best: Array, step: Array, scores: Array, C: int, counts: Array, longest: int, totals: Array
) -> None:
    """The scores of the best paths of eight rows, whose words' are in e (longest, C, ROWS), flat.

    `best` (C, ROWS) becomes the scores of the best paths to each tag of a lane's last word, the largest 0; `totals`
    (ROWS,) what was taken away; `came` (longest, C, ROWS) the tag before each tag.
    """
    words = load_rows(counts, 0)
    zeros = broadcast(0.0, words)
    total = widen(zeros)
    size = C * ROWS
    for k in range(longest):
        base = k * size
        here = words - np.float32(k)
        if k == 0:
            for j in range(0, size, ROWS):
                store(step, j, zeros)
                store(best, j, zeros)
        else:
            best_before_abreast(step, came, base, best, scores, C)
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
def trace_abreast(paths: Array, job: Any, group: Any, came: Array, best: Array, longest: int) -> None:
    """Write the best paths of eight rows (B, W), which end in the tag of the best score."""
    C = job.num_tags
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
