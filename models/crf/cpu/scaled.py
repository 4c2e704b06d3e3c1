# mypy: allow-untyped-decorators
"""Forward-backward over one sentence in scaled probability space (Rabiner 1989, section V.A).

Each step multiplies by exp(score - largest score) and divides by a power of two, which rounds nothing. It is as exact
as log space as long as no number vanishes, and that is checked, not hoped for: a path that contributes must keep
every forward variable that it passes at 2**-63 of its step's sum or more (2**-511 in double precision), else the
sentence goes to log space (`logspace.py`). `docs/crf.md` shows why no check is needed on the way back.
"""

from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from models.crf.cpu.job import Inputs, load_potentials, tag_at
from models.crf.cpu.primitives import (
    EXTREMA,
    SUMS,
    Array,
    Real,
    add_weighted_rows,
    dot,
    exp_row,
    exponent_of,
    power_of_two,
    row_max,
    vector_matrix,
)

LN_2 = 0.6931471805599453
FLUSH = 32  # blocks of four words between two moves of the pairwise sums to double precision

Tables = namedtuple("Tables", "weights transposed top_score usable e u beta block pairs")


def smallest_weight(like: Real) -> Real:
    """The square root of the smallest normal number: two such factors never vanish."""
    raise NotImplementedError("exists in compiled code only")


@overload(smallest_weight, inline="always")
def _smallest_weight(like: Real) -> Any:
    def single(like: Real) -> Any:
        return np.float32(2.0**-63)

    def double(like: Real) -> Any:
        return np.float64(2.0**-511)

    return single if like == types.float32 else double


@njit
def make_tables(inputs: Inputs) -> Tables:
    """The weights exp(score - top_score) of the transitions, and rows to work in, for one thread."""
    scores = inputs.scores
    width = scores.shape[0]
    top_score = row_max(scores.reshape(width * width))
    if top_score == -np.inf:
        top_score = scores.dtype.type(0)
    weights = np.empty_like(scores)
    usable = True
    for i in range(width):
        exp_row(weights[i], scores[i], top_score)
        for j in range(width):
            usable &= scores[i, j] == -np.inf or weights[i, j] >= smallest_weight(top_score)
    row = np.empty((3, width), scores.dtype)
    return Tables(
        weights,
        np.ascontiguousarray(weights.T),
        top_score,
        usable,
        row[0],
        row[1],
        row[2],
        np.zeros((4, width), scores.dtype),
        np.zeros((width, width), scores.dtype),
    )


@njit(fastmath=SUMS)
def multiply_rows(out: Array, a: Array, b: Array) -> Real:
    """out = a * b, returning the sum."""
    total = a[0] * b[0]
    out[0] = total
    for j in range(1, a.shape[0]):
        product = a[j] * b[j]
        out[j] = product
        total += product
    return total


@njit(fastmath=EXTREMA)
def scale_row(row: Array, scale: Real, before: Array, e: Array) -> Real:
    """row *= scale, returning the smallest entry of the products before * e that are not zero by their factors."""
    smallest = scale * 0 + 1
    for j in range(row.shape[0]):
        row[j] *= scale
        smallest = min(smallest, row[j] if before[j] > 0 and e[j] > 0 else smallest)
    return smallest


@njit
def forward(job: Any, inputs: Inputs, tables: Tables, alpha: Array, row: int, words: Array, count: int) -> float:
    """The log-partition of a row; its forward variables (count, width) in `alpha`. NaN where log space is needed."""
    e, u = tables.e, tables.u
    if not tables.usable:
        return np.nan
    shift = (count - 1) * np.float64(tables.top_score)
    exponent = 0
    total = e[0]
    for k in range(count):
        load_potentials(e, job, inputs, row, words, k, count)
        top = row_max(e)
        if top == -np.inf:
            return -np.inf
        exp_row(e, e, top)
        if k == 0:
            u[:] = 1
        else:
            vector_matrix(u, alpha[k - 1], tables.weights)
        total = multiply_rows(alpha[k], u, e)
        if not total >= smallest_weight(total) ** 2:
            return np.nan
        power = exponent_of(total)
        scale = power_of_two(-power, total)
        total *= scale
        if scale_row(alpha[k], scale, u, e) < smallest_weight(total):
            return np.nan
        shift += top
        exponent += power
    return shift + exponent * LN_2 + np.log(np.float64(total))


@njit(fastmath=EXTREMA)
def reachable(beta: Array, alpha: Array, scale: Real) -> None:
    """beta *= scale where the forward variable is not zero, else 0: what no path reaches must not set the scale."""
    for j in range(beta.shape[0]):
        beta[j] = beta[j] * scale if alpha[j] > 0 else 0


@njit
def move_pairs(counts: Array, tables: Tables, factor: float) -> None:
    """Add the pairwise sums, which lack the weight of their transition, to the counts (C, C), and clear them."""
    C = counts.shape[0]
    for i in range(C):
        for j in range(C):
            counts[i, j] += factor * np.float64(tables.pairs[i, j] * tables.weights[i, j])
    tables.pairs[:] = 0


@njit
def add_pairs(tables: Tables, alpha: Array, k: int) -> None:
    """pairs += the outer products of the forward variables of words k to k + 3 with the block's four rows."""
    last = alpha.shape[0] - 1
    a, b, c, d = alpha[k], alpha[min(k + 1, last)], alpha[min(k + 2, last)], alpha[min(k + 3, last)]
    for i in range(alpha.shape[1]):
        add_weighted_rows(tables.pairs[i], a[i], b[i], c[i], d[i], tables.block, 0)


@njit
def backward(
    job: Any,
    inputs: Inputs,
    tables: Tables,
    alpha: Array,
    row: int,
    words: Array,
    count: int,
    factor: Real,
    grad_emissions: Array,
    sums: Array,
) -> None:
    """Write factor * the marginals of a row to its gradient; add those of transitions, start and end to sums (C + 2, C).

    The backward variables are scaled so that alpha . beta = 1 at each word; alpha * beta is then the marginal.
    """
    C = job.num_tags
    e, beta, block = tables.e, tables.beta, tables.block
    beta[:] = 1
    reachable(beta, alpha[count - 1], 1 / dot(beta, alpha[count - 1]))
    for k in range(count - 1, -1, -1):
        base = row * job.grad_emissions_row + words[k] * job.grad_emissions_word
        for j in range(C):
            grad_emissions[base + j] = factor * alpha[k, j] * beta[j]
        if k == count - 1:
            for j in range(C):
                sums[C + 1, j] += factor * alpha[k, j] * beta[j]
        if k == 0:
            for j in range(C):
                sums[C, j] += factor * alpha[k, j] * beta[j]
            break
        load_potentials(e, job, inputs, row, words, k, count)
        exp_row(e, e, row_max(e))
        multiply_rows(e, e, beta)
        vector_matrix(beta, e, tables.transposed)
        scale = 1 / dot(beta, alpha[k - 1])
        reachable(beta, alpha[k - 1], scale)
        slot = (k - 1) % 4
        for j in range(e.shape[0]):
            block[slot, j] = e[j] * scale
        if slot == 0:
            add_pairs(tables, alpha[:count], k - 1)
            block[:] = 0
            if (k - 1) % (4 * FLUSH) == 0:
                move_pairs(sums[:C], tables, factor)
