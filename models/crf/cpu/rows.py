# mypy: allow-untyped-decorators, no-warn-return-any
"""One row: its value and its gradient, in scaled arithmetic where that holds and in log space where it does not."""

from typing import Any

import numpy as np
from numba import njit

from ..chains import LOG_SPACE, NO_GRADIENT, NO_PATH, NO_SUCH_TAG, SCALED
from . import logspace, scaled
from .job import FAULT, Inputs, path_score, tag_at
from .lanes import Array, Real
from .scaled import Tables


@njit
def forward_row(
    job: Any, counters: Array, inputs: Inputs, tables: Tables, alpha: Array, row: int, words: Array, count: int
) -> tuple[float, int]:
    """The log-partition of a row, or the log-likelihood of its tags, and its mode; forward variables in `alpha`."""
    if count == 0:
        return 0.0, NO_GRADIENT
    score, exists = path_score(job, inputs, row, words, count) if job.tags != 0 else (0.0, True)
    if not exists:
        counters[FAULT] = 1
        return 0.0, NO_SUCH_TAG
    mode = SCALED
    value = scaled.forward(job, inputs, tables, alpha, row, words, count)
    if np.isnan(value):
        mode = LOG_SPACE
        value = logspace.forward(job, inputs, row, words, count)[0]
    if value == -np.inf:
        counters[FAULT] = 1
        return value, NO_PATH
    if job.tags != 0:
        value = score - value
    return value, NO_GRADIENT if value == -np.inf else mode


@njit
def backward_row(
    job: Any,
    inputs: Inputs,
    tables: Tables,
    alpha: Array,
    row: int,
    words: Array,
    count: int,
    mode: int,
    grad: Real,
    grad_emissions: Array,
    sums: Array,
) -> None:
    """Write grad * the gradient of a row by its emissions, and add that by the parameters to `sums` (C + 2, C)."""
    if count < job.words or mode >= NO_GRADIENT:
        clear_row(job, row, grad_emissions)
    if mode >= NO_GRADIENT:
        return
    factor = -grad if job.tags != 0 else grad
    if mode == SCALED:
        scaled.backward(job, inputs, tables, alpha, row, words, count, factor, grad_emissions, sums)
    else:
        logspace.backward(job, inputs, row, words, count, factor, grad_emissions, sums)
    if job.tags != 0:
        add_path(job, inputs, row, words, count, grad, grad_emissions, sums)


@njit
def add_path(
    job: Any, inputs: Inputs, row: int, words: Array, count: int, grad: float, grad_emissions: Array, sums: Array
) -> None:
    """Add the gradient of grad * the score of the given tags, which exist."""
    C = np.uint64(job.num_tags)
    base = row * job.grad_emissions_row
    before = C
    for k in range(count):
        column = words[np.uint64(k)]
        tag = np.uint64(tag_at(job, inputs, row, column))
        grad_emissions[np.uint64(base + column * job.grad_emissions_word) + tag] += grad
        sums[before, tag] += grad
        before = tag
    sums[C + np.uint64(1), before] += grad


@njit
def clear_row(job: Any, row: int, grad_emissions: Array) -> None:
    """Write zeros as the gradient of all words of a row."""
    for column in range(job.words):
        base = row * job.grad_emissions_row + column * job.grad_emissions_word
        gradient = grad_emissions[base : base + job.num_tags]
        gradient[:] = 0
