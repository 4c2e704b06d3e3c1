# mypy: allow-untyped-decorators, no-warn-return-any
"""The sweeps of `models.crf.lattice` over one row: log forward and log backward variables, in double precision."""

from typing import Any

import numpy as np
from numba import njit

from .job import Inputs
from .lanes import Array
from .logspace import log_sum_exp


@njit
def log_forward(job: Any, inputs: Inputs, into: Array, row: int, count: int, alpha: Array) -> None:
    """Write the forward variables of a row's `count` words to alpha (W, C); the last ones again behind them.

    `into` (width, width) is the transposed transition scores.
    """
    before = np.full(job.width, -np.inf)
    for k in range(job.words):
        if k >= max(count, 1):
            alpha[k] = alpha[k - 1]
            continue
        base = row * job.emissions_row + k * job.emissions_word
        for j in range(job.num_tags):
            alpha[k, j] = inputs.emissions[base + j]
            if k > 0:
                alpha[k, j] += log_sum_exp(before, into[j])
        before[: job.num_tags] = alpha[k]


@njit
def log_backward(job: Any, inputs: Inputs, row: int, count: int, beta: Array) -> None:
    """Write the backward variables of a row's `count` words to beta (W, C), 0 from the last one on."""
    arriving = np.full(job.width, -np.inf)
    for k in range(job.words - 1, -1, -1):
        if k >= count - 1:
            beta[k] = 0
            continue
        base = row * job.emissions_row + (k + 1) * job.emissions_word
        for j in range(job.num_tags):
            arriving[j] = inputs.emissions[base + j] + beta[k + 1, j]
        for i in range(job.num_tags):
            beta[k, i] = log_sum_exp(arriving, inputs.scores[i])
