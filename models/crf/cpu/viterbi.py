# mypy: allow-untyped-decorators, no-warn-return-any
"""The best path of one sentence (Viterbi 1967).

The forward sweep keeps scores and no back-pointers: it is then nothing but vector maxima, and the way back looks for
the maximum again in the one column that it passes, C additions a word.
"""

from typing import Any

import numpy as np
from numba import njit

from .job import Inputs, load_potentials
from .lanes import LANES, Array, Lanes, broadcast, larger, largest, load, store


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
