# mypy: allow-untyped-decorators, no-warn-return-any
"""Forward-backward over one sentence in log space and double precision: for what scaled arithmetic cannot hold."""

from typing import Any

import numpy as np
from numba import njit

from .exponential import exp
from .job import Inputs
from .lanes import LANES, Array, broadcast, larger, largest, load, store, total


@njit
def log_sum_exp(a: Array, b: Array) -> float:
    """log sum exp(a + b), -inf where every term is."""
    tops = broadcast(-np.inf, load(a, 0))
    for j in range(0, a.shape[0], LANES):
        tops = larger(tops, load(a, j) + load(b, j))
    top = largest(tops)
    if top == -np.inf:
        return top
    sums = broadcast(0.0, tops)
    for j in range(0, a.shape[0], LANES):
        sums = sums + exp(load(a, j) + load(b, j) - top)
    return top + np.log(total(sums))


@njit
def exp_of_sum(out: Array, a: Array, b: Array, shift: float) -> None:
    """out = exp(a + b - shift), for a shift that no sum exceeds."""
    for j in range(0, out.shape[0], LANES):
        store(out, j, exp(load(a, j) + load(b, j) - shift))


@njit
def double_potentials(out: Array, job: Any, inputs: Inputs, row: int, words: Array, k: int, count: int) -> None:
    """`load_potentials` in double precision."""
    C = job.num_tags
    base = row * job.emissions_row + words[k] * job.emissions_word
    out[C:] = -np.inf
    for j in range(C):
        out[j] = inputs.emissions[base + j]
        if k == 0:
            out[j] += inputs.start[j]
        if k == count - 1:
            out[j] += inputs.end[j]
        if job.allowed != 0 and not inputs.allowed[(row * job.words + words[k]) * C + j]:
            out[j] = -np.inf


@njit
def forward(job: Any, inputs: Inputs, row: int, words: Array, count: int) -> tuple[float, Array]:
    """The log-partition of a row and its log forward variables (count, width), each word's largest brought to zero."""
    into = np.ascontiguousarray(inputs.scores.T).astype(np.float64)  # row j: the scores of the transitions into tag j
    width = into.shape[0]
    alpha = np.empty((count, width))
    potentials = np.empty(width)
    log_partition = 0.0
    for k in range(count):
        double_potentials(potentials, job, inputs, row, words, k, count)
        for j in range(width):
            alpha[k, j] = potentials[j]
            if k > 0:
                alpha[k, j] += log_sum_exp(alpha[k - 1], into[j])
        top = alpha[k].max()
        if not top > -np.inf:  # no path, or not a number
            return top, alpha
        alpha[k] -= top
        log_partition += top
    return log_partition + log_sum_exp(alpha[count - 1], np.zeros(width)), alpha


@njit
def backward(
    job: Any,
    inputs: Inputs,
    row: int,
    words: Array,
    count: int,
    factor: float,
    grad_emissions: Array,
    sums: Array,
) -> None:
    """As `scaled.backward`; the forward variables are computed again."""
    C = job.num_tags
    alpha = forward(job, inputs, row, words, count)[1]
    out_of = inputs.scores.astype(np.float64)  # row i: the scores of the transitions out of tag i
    width = out_of.shape[0]
    beta = np.zeros(width)
    potentials = np.empty(width)
    marginals = np.empty(width)
    work = np.empty(width)
    for k in range(count - 1, -1, -1):
        exp_of_sum(marginals, alpha[k], beta, log_sum_exp(alpha[k], beta))
        base = row * job.grad_emissions_row + words[k] * job.grad_emissions_word
        for j in range(C):
            grad_emissions[base + j] = factor * marginals[j]
            if k == count - 1:
                sums[C + 1, j] += factor * marginals[j]
            if k == 0:
                sums[C, j] += factor * marginals[j]
        if k == 0:
            break
        double_potentials(potentials, job, inputs, row, words, k, count)
        potentials += beta
        for i in range(width):
            beta[i] = log_sum_exp(potentials, out_of[i])
        total = log_sum_exp(alpha[k - 1], beta)
        for i in range(C):
            if alpha[k - 1, i] > -np.inf:
                exp_of_sum(work, potentials, out_of[i], total - alpha[k - 1, i])
                for j in range(C):
                    sums[i, j] += factor * work[j]
        beta -= beta.max()
