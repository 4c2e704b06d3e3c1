# mypy: allow-untyped-decorators, no-warn-return-any
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

from .exponential import exp
from .job import Inputs, load_potentials
from .lanes import (
    LANES,
    Array,
    Real,
    broadcast,
    load,
    smaller,
    smallest,
    store,
    store_first,
    total,
    where_above,
)
from .primitives import exponent_of, power_of_two, vector_matrix

LN_2 = 0.6931471805599453
FLUSH = 32  # blocks of four words between two moves of the pairwise sums to double precision

Tables = namedtuple("Tables", "weights transposed height top_score usable e u beta block pairs")


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
def make_tables(job: Any, inputs: Inputs) -> Tables:
    """The weights exp(score - top_score) of the transitions, and rows to work in, for one thread."""
    scores = inputs.scores
    width = scores.shape[0]
    height = job.num_tags + job.num_tags % 2
    top_score = scores.max()
    if top_score == -np.inf:
        top_score = scores.dtype.type(0)
    weights = np.empty_like(scores)
    usable = True
    for i in range(0, width * width, LANES):
        store(weights, i, exp(load(scores, i) - top_score))
    for i in range(width):
        for j in range(width):
            usable &= scores[i, j] == -np.inf or weights[i, j] >= smallest_weight(top_score)
    row = np.empty((3, width), scores.dtype)
    return Tables(
        weights,
        np.ascontiguousarray(weights.T),
        height,
        top_score,
        usable,
        row[0],
        row[1],
        row[2],
        np.zeros((4, width), scores.dtype),
        np.zeros((width, width), scores.dtype),
    )


@njit
def forward(job: Any, inputs: Inputs, tables: Tables, alpha: Array, row: int, words: Array, count: int) -> float:
    """The log-partition of a row; its forward variables (count, width) in `alpha`. NaN where log space is needed."""
    width, height = job.width, tables.height
    weights, e, u = tables.weights, tables.e, tables.u
    if not tables.usable:
        return np.nan
    zeros, ones = broadcast(0.0, load(e, 0)), broadcast(1.0, load(e, 0))
    shift = (count - 1) * np.float64(tables.top_score)
    exponent = 0
    mass = e[0]
    for k in range(count):
        top = load_potentials(e, job, inputs, row, words, k, count)
        if top == -np.inf:
            return np.nan
        sums = zeros
        for j in range(0, width, LANES):
            factor = exp(load(e, j) - top)
            before = ones if k == 0 else vector_matrix(alpha[k - 1], weights, j, height)
            after = before * factor
            sums = sums + after
            store(e, j, after)
            store(u, j, where_above(factor, 0.0, before, zeros))  # zero where no path leads
        mass = total(sums)
        if not mass >= 8 * smallest_weight(mass):  # else what `exp` holds above zero would pass for more than it is
            return np.nan
        power = exponent_of(mass)
        scale = power_of_two(-power, mass)
        mass *= scale
        least = ones
        for j in range(0, width, LANES):
            after = load(e, j) * scale
            store(alpha, k * width + j, after)
            least = smaller(least, where_above(load(u, j), 0.0, after, ones))
        if smallest(least) < smallest_weight(mass):
            return np.nan
        shift += top
        exponent += power
    return shift + exponent * LN_2 + np.log(np.float64(mass))


@njit
def add_row(sums: Array, i: int, factor: Real, row: Array) -> None:
    """sums[i] += factor * row, without the row's padding."""
    for j in range(sums.shape[1]):
        sums[i, j] += np.float64(factor * row[j])


@njit
def move_pairs(counts: Array, tables: Tables, factor: float) -> None:
    """Add the pairwise sums, which lack the weight of their transition, to the counts (C, C), and clear them."""
    C = counts.shape[0]
    for i in range(C):
        for j in range(C):
            counts[i, j] += factor * np.float64(tables.pairs[i, j] * tables.weights[i, j])
    tables.pairs[:] = 0


@njit(forceinline=True)
def add_pairs(tables: Tables, alpha: Array, k: int) -> None:
    """pairs += the outer products of the forward variables of words k to k + 3 with the block's four rows."""
    pairs, block = tables.pairs, tables.block
    last, width = alpha.shape[0] - 1, alpha.shape[1]
    a, b, c, d = alpha[k], alpha[min(k + 1, last)], alpha[min(k + 2, last)], alpha[min(k + 3, last)]
    for j in range(0, width, LANES):
        block_a, block_b = load(block, j), load(block, width + j)
        block_c, block_d = load(block, 2 * width + j), load(block, 3 * width + j)
        for i in range(tables.height):
            left = load(pairs, i * width + j) + block_a * a[i] + block_b * b[i]
            right = block_c * c[i] + block_d * d[i]
            store(pairs, i * width + j, left + right)


@njit(forceinline=True)
def marginalise(out: Array, alpha: Array, k: int, beta: Array) -> Real:
    """Scale beta so that alpha[k] . beta = 1, clear it where no path leads, and write the marginals alpha[k] * beta.

    Returns the scale. What no path reaches must not count: its beta may be larger than all others by any factor.
    """
    width = beta.shape[0]
    zeros = broadcast(0.0, load(beta, 0))
    sums = zeros
    for j in range(0, width, LANES):
        sums = sums + load(alpha, k * width + j) * load(beta, j)
    scale = 1 / total(sums)
    for j in range(0, width, LANES):
        forward = load(alpha, k * width + j)
        scaled = where_above(forward, 0.0, load(beta, j) * scale, zeros)
        store(beta, j, scaled)
        store(out, j, forward * scaled)
    return scale


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
    """Write factor * the marginals of a row as its gradient; add those of the parameters to sums (C + 2, C).

    The backward variables are scaled so that alpha . beta = 1 at each word; alpha * beta is then the marginal.
    """
    C, width = job.num_tags, job.width
    e, marginals, beta, block = tables.e, tables.u, tables.beta, tables.block
    beta[:] = 1
    marginalise(marginals, alpha, count - 1, beta)
    add_row(sums, C + 1, factor, marginals)
    for k in range(count - 1, -1, -1):
        base = row * job.grad_emissions_row + words[k] * job.grad_emissions_word
        for j in range(0, width, LANES):
            store_first(grad_emissions, base + j, C - j, load(marginals, j) * factor)
        if k == 0:
            break
        top = load_potentials(e, job, inputs, row, words, k, count)
        for j in range(0, width, LANES):
            store(e, j, exp(load(e, j) - top) * load(beta, j))
        for j in range(0, width, LANES):
            store(beta, j, vector_matrix(e, tables.transposed, j, tables.height))
        scale = marginalise(marginals, alpha, k - 1, beta)
        slot = (k - 1) % 4
        for j in range(0, width, LANES):
            store(block, slot * width + j, load(e, j) * scale)
        if slot == 0:
            add_pairs(tables, alpha[:count], k - 1)
            block[:] = 0
            if (k - 1) % (4 * FLUSH) == 0:
                move_pairs(sums[:C], tables, factor)
    add_row(sums, C, factor, marginals)
