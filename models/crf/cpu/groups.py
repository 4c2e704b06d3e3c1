# mypy: allow-untyped-decorators, no-warn-return-any
"""Eight rows of a batch, of about the same length, brought side by side: tag j of word k of all of them is one vector.

Rows are ranked by length within windows of the batch, so where a row goes depends on the batch alone. A row that this
arithmetic cannot serve leaves its lane: the lane's count is then zero.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit

from .job import Inputs, find_words
from .lanes import ROWS, Array, Real, load_first_rows, load_rows, store, store_first, transpose

WINDOW = 64  # rows among which those of like length are found

# The rows of a group (ROWS,), -1 where there is none, how many words each has (ROWS,), and their columns (ROWS, W);
# and the first row of the window that it is of, with the window's rows by length (WINDOW,).
Group = namedtuple("Group", "rows counts words window order")


@njit
def make_group(job: Any) -> Group:
    """Room for a group, of no window yet."""
    rows, counts, words = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64), np.empty((ROWS, job.words), np.int64)
    return Group(rows, counts, words, np.full(1, -1, np.int64), np.empty(WINDOW, np.int64))


@njit
def count_words(job: Any, inputs: Inputs, row: int) -> int:
    """How many words of a row are not masked."""
    if job.mask == 0:
        return job.words
    count = 0
    base = row * job.mask_row
    if job.mask_word == 1:  # a loop that LLVM makes vectors of
        for column in range(job.words):
            count += inputs.mask[np.uint64(base + column)]
    else:
        for column in range(job.words):
            count += inputs.mask[base + column * job.mask_word]
    return count


@njit
def rank_rows(order: Array, job: Any, inputs: Inputs, begin: int, size: int) -> None:
    """Write the `size` rows from `begin` on to `order`, the longest first, those of equal length as they stand."""
    counts = np.empty(WINDOW, np.int64)
    for i in range(size):
        counts[i] = count_words(job, inputs, begin + i)
    for i in range(size):
        rank = 0
        for j in range(size):
            rank += (counts[j] > counts[i]) | ((counts[j] == counts[i]) & (j < i))
        order[rank] = begin + i


@njit
def choose_rows(group: Group, job: Any, inputs: Inputs, index: int) -> int:
    """Fill group number `index` with its rows. Returns the words of the longest, the first."""
    begin = index * ROWS // WINDOW * WINDOW
    size = min(WINDOW, job.rows - begin)
    if group.window[0] != begin:
        rank_rows(group.order, job, inputs, begin, size)
        group.window[0] = begin
    for lane in range(ROWS):
        place = index * ROWS - begin + lane
        group.rows[lane], group.counts[lane] = -1, 0
        if place < size:
            group.rows[lane] = group.order[place]
            group.counts[lane] = find_words(group.words[lane], job, inputs, group.rows[lane])
    return group.counts[0]


@njit
def room_for_scores(words: int, C: int, like: Real) -> Array:
    """Room for what `lay_in` writes, (words, C, ROWS) and a rest that means nothing, flat; `like` is of its type."""
    return np.zeros((words * C + ROWS) * ROWS, np.asarray(like).dtype)


@njit
def lay_in(out: Array, job: Any, inputs: Inputs, group: Group, longest: int) -> None:
    """The scores of words alone, as those that `load_potentials` gives: out (longest, C, ROWS), flat.

    Those of starting and ending are in the first and the last word's. Behind the last word of a row comes something.
    """
    C = job.num_tags
    source = np.zeros(ROWS, np.int64)
    for k in range(longest):
        for lane in range(ROWS):
            if k < group.counts[lane]:
                source[lane] = group.rows[lane] * job.emissions_row + group.words[lane, k] * job.emissions_word
        for j in range(0, C, ROWS):  # vectors behind the last tag are written over, or lie behind the end
            columns = transpose(
                load_first_rows(inputs.emissions, source[0] + j, C - j, 0.0),
                load_first_rows(inputs.emissions, source[1] + j, C - j, 0.0),
                load_first_rows(inputs.emissions, source[2] + j, C - j, 0.0),
                load_first_rows(inputs.emissions, source[3] + j, C - j, 0.0),
                load_first_rows(inputs.emissions, source[4] + j, C - j, 0.0),
                load_first_rows(inputs.emissions, source[5] + j, C - j, 0.0),
                load_first_rows(inputs.emissions, source[6] + j, C - j, 0.0),
                load_first_rows(inputs.emissions, source[7] + j, C - j, 0.0),
            )
            base = (k * C + j) * ROWS
            for i in range(ROWS):
                store(out, base + i * ROWS, columns[i])
    for lane in range(ROWS):
        count = group.counts[lane]
        if count > 0:
            for j in range(C):
                out[j * ROWS + lane] += inputs.start[j]
                out[((count - 1) * C + j) * ROWS + lane] += inputs.end[j]
            if job.allowed != 0:
                forbid(out, job, inputs, group, lane)


@njit
def forbid(out: Array, job: Any, inputs: Inputs, group: Group, lane: int) -> None:
    """Write -inf as the score of tags that the words of a row may not have."""
    C = job.num_tags
    for k in range(group.counts[lane]):
        source = (group.rows[lane] * job.words + group.words[lane, k]) * C
        for j in range(C):
            if not inputs.allowed[source + j]:
                out[(k * C + j) * ROWS + lane] = -np.inf


@njit
def lay_out(grad_emissions: Array, job: Any, group: Group, counts: Array, longest: int, gradients: Array) -> None:
    """Write gradients (longest, C, ROWS), flat, of rows with `counts` words to where they belong; 0 where masked."""
    C = job.num_tags
    for k in range(longest):
        for j in range(0, C, ROWS):
            base = (k * C + j) * ROWS
            rows = transpose(
                load_rows(gradients, base),
                load_rows(gradients, base + ROWS),
                load_rows(gradients, base + 2 * ROWS),
                load_rows(gradients, base + 3 * ROWS),
                load_rows(gradients, base + 4 * ROWS),
                load_rows(gradients, base + 5 * ROWS),
                load_rows(gradients, base + 6 * ROWS),
                load_rows(gradients, base + 7 * ROWS),
            )
            for lane in range(ROWS):
                if k < counts[lane]:
                    row, column = group.rows[lane], group.words[lane, k]
                    target = row * job.grad_emissions_row + column * job.grad_emissions_word + j
                    store_first(grad_emissions, target, C - j, rows[lane])
    for lane in range(ROWS):
        if 0 < counts[lane] < job.words:
            clear_masked(grad_emissions, job, group.rows[lane], group.words[lane], group.counts[lane])


@njit
def clear_masked(grad_emissions: Array, job: Any, row: int, words: Array, count: int) -> None:
    """Write zeros as the gradient of the masked words of a row."""
    C = np.uint64(job.num_tags)
    k = 0
    for column in range(job.words):
        if k < count and words[np.uint64(k)] == column:
            k += 1
            continue
        base = np.uint64(row * job.grad_emissions_row + column * job.grad_emissions_word)
        for j in range(C):
            grad_emissions[base + j] = 0
