# mypy: allow-untyped-decorators, no-warn-return-any
"""The forward-backward sweep of `scaled.py` over eight sentences side by side, a lane each.

With few tags a vector of tags is half empty, and each word costs sums over its lanes, which wait for one another. Side
by side all sums are of whole vectors and the lanes never meet: with nine tags a word takes a fifth of the time.

All arrays of a group are flat: (longest, C, ROWS). Lanes whose sentence has ended go on computing; whatever is
taken from a lane is taken where it has words.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from .exponential import exp, exponents, power_of_two
from .groups import room_for_scores
from .lanes import (
    ROWS,
    Array,
    Lanes,
    Real,
    broadcast,
    larger,
    load_rows,
    smaller,
    store,
    where_above,
    widen,
)
from .scaled import FLUSH, LN_2, Tables, smallest_weight

Room = namedtuple("Room", "e alpha beta g block pairs")


@njit
def make_room(words: int, C: int, like: Real) -> Room:
    """Room for one thread to work in; `like` is a number of the type to compute in."""
    dtype = np.asarray(like).dtype
    size = C * ROWS
    return Room(
        room_for_scores(words, C, like),
        np.empty(words * size, dtype),
        np.empty(size, dtype),
        np.empty(size, dtype),
        np.zeros(4 * size, dtype),
        np.zeros(C * size, dtype),
    )


@njit(forceinline=True)
def four_columns(vectors: Array, matrix: Array, j: int, C: int) -> tuple[Lanes, Lanes, Lanes, Lanes]:
    """Columns j to j + 3 of vectors (C, ROWS) times a matrix, for each lane."""
    a = broadcast(0.0, load_rows(vectors, 0))
    b, c, d = a, a, a
    for i in range(C):
        x = load_rows(vectors, i * ROWS)
        a = a + x * matrix[i, j]
        b = b + x * matrix[i, j + 1]
        c = c + x * matrix[i, j + 2]
        d = d + x * matrix[i, j + 3]
    return a, b, c, d


@njit(forceinline=True)
def one_column(vectors: Array, matrix: Array, j: int, C: int) -> Lanes:
    """Column j likewise."""
    a = broadcast(0.0, load_rows(vectors, 0))
    b = a
    for i in range(C):
        a, b = b, a + load_rows(vectors, i * ROWS) * matrix[i, j]
    return a + b


@njit(forceinline=True)
def multiply(out: Array, vectors: Array, matrix: Array, C: int) -> None:
    """out (C, ROWS) = vectors (C, ROWS) times a matrix, for each lane."""
    for j in range(0, C - 3, 4):
        a, b, c, d = four_columns(vectors, matrix, j, C)
        store(out, j * ROWS, a)
        store(out, (j + 1) * ROWS, b)
        store(out, (j + 2) * ROWS, c)
        store(out, (j + 3) * ROWS, d)
    for j in range(C // 4 * 4, C):
        store(out, j * ROWS, one_column(vectors, matrix, j, C))


@njit
def make_factors(room: Room, C: int, counts: Array, longest: int, logs: Array) -> None:
    """Turn the scores in room.e into factors exp(score - largest); write the sums of the largest to logs (ROWS,)."""
    e = room.e
    zeros = broadcast(0.0, load_rows(e, 0))
    words = load_rows(counts, 0)
    shift = widen(zeros)
    size = C * ROWS
    for k in range(longest):
        base = k * size
        top = load_rows(e, base)
        for j in range(ROWS, size, ROWS):
            top = larger(top, load_rows(e, base + j))
        for j in range(0, size, ROWS):
            store(e, base + j, exp(load_rows(e, base + j) - top))
        shift = shift + widen(where_above(words - np.float32(k), 0.0, top, zeros))
    store(logs, 0, shift)


@njit
def forward(room: Room, tables: Tables, C: int, counts: Array, longest: int, logs: Array, masses: Array) -> None:
    """Write the forward variables of the factors in room.e to room.alpha, each word's brought to a sum of 1 to 2.

    A lane's log-partition is logs + log(masses) + (count - 1) * top_score, with what is added to `logs` (ROWS,) here;
    it needs log space where its mass is 0.
    """
    e, alpha, before, after = room.e, room.alpha, room.beta, room.g
    zeros = broadcast(0.0, load_rows(e, 0))
    ones = broadcast(1.0, zeros)
    smallest, limit = broadcast(smallest_weight(e[0]), zeros), broadcast(8 * smallest_weight(e[0]), zeros)
    words = load_rows(counts, 0)
    sound, mass = ones, ones
    power = widen(zeros)
    size = C * ROWS
    for j in range(0, size, ROWS):
        store(before, j, ones)
    for k in range(longest):
        base = k * size
        if k > 0:
            multiply(before, after, tables.weights, C)
        even, odd = zeros, zeros  # two sums, so that not every addition waits for the one before
        for j in range(0, size, ROWS):
            after_j = load_rows(before, j) * load_rows(e, base + j)
            store(after, j, after_j)
            even, odd = odd, even + after_j
        total = even + odd
        exponent = exponents(total)
        scale = power_of_two(zeros - exponent)
        least = ones
        for j in range(0, size, ROWS):
            after_j = load_rows(after, j) * scale
            store(after, j, after_j)
            store(alpha, base + j, after_j)
            reached = where_above(load_rows(e, base + j), 0.0, load_rows(before, j), zeros)
            least = smaller(least, where_above(reached, 0.0, after_j, ones))
        here = words - np.float32(k)
        held = where_above(smallest - least, 0.0, zeros, where_above(limit - total, 0.0, zeros, sound))
        sound = where_above(here, 0.0, held, sound)
        mass = where_above(here, 0.0, total * scale, mass)
        power = power + widen(where_above(here, 0.0, exponent, zeros))
    store(logs, 0, load_rows(logs, 0) + power * LN_2)
    store(masses, 0, where_above(sound, 0.0, mass, zeros))


@njit(forceinline=True)
def add_pairs(room: Room, k: int, longest: int, C: int) -> None:
    """pairs += the outer products of the forward variables of words k to k + 3 with the block's four rows."""
    pairs, block, alpha = room.pairs, room.block, room.alpha
    size = C * ROWS
    last = longest - 1
    a, b, c, d = k * size, min(k + 1, last) * size, min(k + 2, last) * size, min(k + 3, last) * size
    for i in range(C):
        at = i * ROWS
        alpha_a, alpha_b = load_rows(alpha, a + at), load_rows(alpha, b + at)
        alpha_c, alpha_d = load_rows(alpha, c + at), load_rows(alpha, d + at)
        for j in range(0, size, ROWS):
            left = load_rows(pairs, i * size + j) + alpha_a * load_rows(block, j) + alpha_b * load_rows(block, size + j)
            right = alpha_c * load_rows(block, 2 * size + j) + alpha_d * load_rows(block, 3 * size + j)
            store(pairs, i * size + j, left + right)


@njit
def move_pairs(counts: Array, room: Room, tables: Tables, C: int) -> None:
    """Add the pairwise sums of all lanes, times the weight of their transition, to the counts (C, C); clear them."""
    pairs = room.pairs
    for i in range(C):
        for j in range(C):
            weight = np.float64(tables.weights[i, j])
            at = (i * C + j) * ROWS
            for lane in range(ROWS):
                counts[i, j] += weight * np.float64(pairs[at + lane])
    pairs[:] = 0


@njit
def backward(room: Room, tables: Tables, C: int, counts: Array, longest: int, factors: Array, sums: Array) -> None:
    """Turn the factors in room.e into gradients, factors (ROWS,) * marginals; add the parameters' to sums (C + 2, C).

    Nothing is added for lanes without words. The backward variables are scaled so that alpha . beta = 1 at each word.
    """
    e, alpha, beta, g, block = room.e, room.alpha, room.beta, room.g, room.block
    zeros = broadcast(0.0, load_rows(e, 0))
    ones = broadcast(1.0, zeros)
    words, factor = load_rows(counts, 0), load_rows(factors, 0)
    size = C * ROWS
    block[:] = 0
    for k in range(longest - 1, -1, -1):
        base = k * size
        left = words - np.float32(k)  # how many words of a lane come from this one on
        if k < longest - 1:
            multiply(beta, g, tables.transposed, C)
        even, odd = zeros, zeros
        for j in range(0, size, ROWS):
            alpha_j = load_rows(alpha, base + j)
            beta_j = where_above(alpha_j, 0.0, where_above(left, 1.5, load_rows(beta, j), ones), zeros)
            store(beta, j, beta_j)
            even, odd = odd, even + alpha_j * beta_j
        scale = ones / (even + odd)
        share = scale * factor
        if k < longest - 1:
            slot = k % 4 * size
            for j in range(0, size, ROWS):
                store(block, slot + j, where_above(left, 1.5, load_rows(g, j) * share, zeros))
            if k % 4 == 0:
                add_pairs(room, k, longest, C)
                if k % (4 * FLUSH) == 0:  # as at the first word
                    move_pairs(sums[:C], room, tables, C)
        for j in range(0, size, ROWS):
            beta_j = load_rows(beta, j) * scale
            store(g, j, load_rows(e, base + j) * beta_j)
            store(e, base + j, where_above(left, 0.5, load_rows(alpha, base + j) * beta_j * factor, zeros))
    for lane in range(ROWS):
        count = np.int64(counts[lane])
        if count > 0:
            for j in range(C):
                sums[C, j] += e[j * ROWS + lane]
                sums[C + 1, j] += e[((count - 1) * C + j) * ROWS + lane]
