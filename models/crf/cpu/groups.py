# mypy: allow-untyped-decorators, no-warn-return-any
"""Eight rows of a batch, of about the same length, brought side by side: tag j of word k of all of them is one vector.

Rows are ranked by length within windows of the batch, so where a row goes depends on the batch alone. A row that this
arithmetic cannot serve leaves its lane: the lane's count is then zero.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit

from models.crf.cpu.job import Inputs, find_words
from models.crf.cpu.lanes import ROWS, Array, load_first_rows, load_rows, store, store_first, transpose

WINDOW = 64  # rows among which those of like length are found

Group = namedtuple("Group", "rows counts words")


@njit
def make_group(job: Any) -> Group:
    """Room for a group: rows (ROWS,), -1 where there is none, words in each (ROWS,), and their columns (ROWS, W)."""
    return Group(np.empty(ROWS, np.int64), np.empty(ROWS, np.int64), np.empty((ROWS, job.words), np.int64))


@njit
def count_words(job: Any, inputs: Inputs, row: int) -> int:
    """How many words of a row are not masked."""
    if job.mask == 0:
        return job.words
    count = 0
    base = row * job.mask_row
    if job.mask_word == 1:  # a loop that LLVM makes vectors of
        for column in range(job.words):
            count += inputs.mask[base + column]
    else:
        for column in range(job.words):
            count += inputs.mask[base + column * job.mask_word]
    return count


@njit
def choose_rows(group: Group, job: Any, inputs: Inputs, index: int) -> int:
    """Fill group number `index`: of each window the longest rows come first. Returns the words of the longest."""
    begin = index * ROWS // WINDOW * WINDOW
    size = min(WINDOW, job.rows - begin)
    first = index * ROWS - begin
    counts = np.empty(WINDOW, np.int64)
    for i in range(size):
        counts[i] = count_words(job, inputs, begin + i)
    group.rows[:] = -1
    group.counts[:] = 0
    for i in range(size):
        rank = 0
        for j in range(size):
            rank += (counts[j] > counts[i]) | ((counts[j] == counts[i]) & (j < i))
        lane = rank - first
        if lane >= 0 and lane < ROWS:
            group.rows[lane] = begin + i
            group.counts[lane] = find_words(group.words[lane], job, inputs, begin + i)
    return group.counts[0]


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
    """Write the gradients (longest, C, ROWS), flat, of rows with `counts` words to where they belong; 0 where masked."""
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
    k = 0
    for column in range(job.words):
        if k < count and words[k] == column:
            k += 1
            continue
        base = row * job.grad_emissions_row + column * job.grad_emissions_word
        for j in range(job.num_tags):
            grad_emissions[base + j] = 0
