# mypy: allow-untyped-decorators
"""The best path of one sentence (Viterbi 1967).

The forward sweep keeps scores and no back-pointers: it is then nothing but vector maxima, and the way back looks for
the maximum again in the one column that it passes, C additions a word.
"""

from typing import Any

import numpy as np
from numba import njit

from models.crf.cpu.job import Inputs, load_potentials
from models.crf.cpu.primitives import EXTREMA, Array, Real, row_max


@njit(fastmath=EXTREMA)
def raise_to_rows(out: Array, a: Real, b: Real, c: Real, d: Real, rows: Array, first: int) -> None:
    """out = max(out, a + row, b + row, c + row, d + row) for four rows from `first` on."""
    for j in range(out.shape[0]):
        left = max(a + rows[first, j], b + rows[first + 1, j])
        right = max(c + rows[first + 2, j], d + rows[first + 3, j])
        out[j] = max(out[j], max(left, right))


@njit
def decode(
    job: Any, inputs: Inputs, into: Array, best: Array, row: int, words: Array, count: int, path: Array
) -> float:
    """Write the best path of a row to path[words[:count]] and return its score, -inf if no path is legal.

    `into` is the transposed transition scores; `best` (count, width) is room for the scores of the best paths to each
    tag of each word, each word's largest brought to zero.
    """
    width = job.width
    potentials = np.empty(width, best.dtype)
    total = 0.0
    for k in range(count):
        load_potentials(potentials, job, inputs, row, words, k, count)
        scores = best[k]
        if k == 0:
            scores[:] = 0
        else:
            before = best[k - 1]
            scores[:] = -np.inf
            for i in range(0, width, 4):
                raise_to_rows(scores, before[i], before[i + 1], before[i + 2], before[i + 3], inputs.scores, i)
        for j in range(width):
            scores[j] += potentials[j]
        top = row_max(scores)
        if top == -np.inf:
            return -np.inf
        total += top
        for j in range(width):
            scores[j] -= top

    tag = np.argmax(best[count - 1])
    path[words[count - 1]] = tag
    for k in range(count - 2, -1, -1):
        for i in range(width):
            potentials[i] = best[k, i] + into[tag, i]
        tag = np.argmax(potentials)
        path[words[k]] = tag
    return total
