# mypy: allow-untyped-decorators
"""What numba does not bring: raw pointers, an atomic counter, and an exponential that LLVM turns into vector code.

Rows over tags are padded to a multiple of 8 entries, so that loops over them become whole vector instructions. Each
function carries just the fast-math flags that its purpose allows: none that meets a NaN or an infinity on purpose has
a flag that denies them.
"""

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic, overload

LANES = 8  # a padded row is a multiple of so many entries
FUSED = {"contract", "nsz"}  # fast-math flags: fused multiply-add
SUMS = {"contract", "reassoc", "nsz"}  # fast-math flags: also sums in any order
EXTREMA = {"nnan", "nsz"}  # fast-math flags: maxima and minima of numbers

Array = Any  # a numba array: annotations in compiled code are for the reader
Real = Any  # a float32 or a float64


def padded(num_tags: int) -> int:
    """Entries of a padded row of `num_tags` tags."""
    return -(-num_tags // LANES) * LANES


@intrinsic
def fetch_add(typing_context: Any, counters: Array, index: int, amount: int) -> Any:
    """Atomically `counters[index] += amount` on 64-bit integers, returning the value before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, value = arguments
        base = context.make_array(signature.args[0])(context, builder, array).data
        return builder.atomic_rmw("add", builder.gep(base, [offset]), value, "acq_rel")

    return types.int64(counters, types.int64, types.int64), generate


@intrinsic
def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    target = types.CPointer(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(target))

    return target(types.int64, like), generate


@njit
def array_at(address: int, shape: Any, like: Any) -> Array:
    """The C-contiguous array of `shape` at an integer address; its entries have the type of the scalar `like`."""
    return carray(_pointer(address, like), shape)


# Floating-point numbers and their bits, for both precisions (IEEE 754): a power of two is an exponent field alone.


def power_of_two(exponent: int, like: Real) -> Real:
    """Two to an integer power within the range of normal numbers, as a number like `like`."""


@overload(power_of_two, inline="always")
def _power_of_two(exponent: int, like: Real) -> Any:
    def single(exponent: int, like: Real) -> Any:
        return np.int32((np.int32(exponent) + np.int32(127)) << np.int32(23)).view(np.float32)

    def double(exponent: int, like: Real) -> Any:
        return np.int64((np.int64(exponent) + np.int64(1023)) << np.int64(52)).view(np.float64)

    return single if like == types.float32 else double


def exponent_of(x: Real) -> int:
    """The integer k with 2**k <= x < 2**(k + 1), for a positive normal number x."""
    raise NotImplementedError("exists in compiled code only")


@overload(exponent_of, inline="always")
def _exponent_of(x: Real) -> Any:
    def single(x: Real) -> Any:
        return np.int64(np.float32(x).view(np.int32) >> np.int32(23)) - 127

    def double(x: Real) -> Any:
        return np.int64(np.float64(x).view(np.int64) >> np.int64(52)) - 1023

    return single if x == types.float32 else double


# exp(x) = 2**n exp(r) with x = n ln 2 + r and |r| <= ln 2 / 2 (Cody and Waite 1980). ln 2 is split so that
# n * LN2_HIGH is exact; the Taylor series of exp(r) ends where its rest is below half a unit in the last place.
LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693359375
LN2_LOW = -2.1219444005469058e-4
EXP_LOWEST_32 = np.float32(-87.0)  # the last whole number whose exponential is a normal number
EXP_LOWEST_64 = -708.0


def exp(x: Real) -> Real:
    """The exponential of a number that is not above zero: 0 for -inf, exp(lowest) below the lowest normal result."""


@overload(exp, inline="always")
def _exp(x: Real) -> Any:
    return _exp_32 if x == types.float32 else _exp_64


def _exp_32(x: Real) -> Any:
    one = np.float32(1)
    bounded = max(x, EXP_LOWEST_32)
    n = np.floor(bounded * np.float32(LOG2_E) + np.float32(0.5))
    r = (bounded - n * np.float32(LN2_HIGH)) - n * np.float32(LN2_LOW)
    p = r * np.float32(1 / 5040) + np.float32(1 / 720)
    p = r * p + np.float32(1 / 120)
    p = r * p + np.float32(1 / 24)
    p = r * p + np.float32(1 / 6)
    p = r * p + np.float32(1 / 2)
    p = r * p + one
    p = (r * p + one) * power_of_two(n, one)
    return p if x != -np.inf else np.float32(0)


def _exp_64(x: Real) -> Any:
    bounded = max(x, EXP_LOWEST_64)
    n = np.floor(bounded * LOG2_E + 0.5)
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    p = r * (1 / 6227020800) + 1 / 479001600
    p = r * p + 1 / 39916800
    p = r * p + 1 / 3628800
    p = r * p + 1 / 362880
    p = r * p + 1 / 40320
    p = r * p + 1 / 5040
    p = r * p + 1 / 720
    p = r * p + 1 / 120
    p = r * p + 1 / 24
    p = r * p + 1 / 6
    p = r * p + 1 / 2
    p = r * p + 1.0
    p = (r * p + 1.0) * power_of_two(n, 1.0)
    return p if x != -np.inf else 0.0


# Rows of a lattice.


@njit(fastmath=FUSED)
def exp_row(out: Array, scores: Array, shift: Real) -> None:
    """out = exp(scores - shift), for a shift that no score exceeds."""
    for j in range(out.shape[0]):
        out[j] = exp(scores[j] - shift)


@njit(fastmath=EXTREMA)
def row_max(row: Array) -> Real:
    """The largest entry."""
    top = row[0]
    for j in range(row.shape[0]):
        top = max(top, row[j])
    return top


@njit(fastmath=SUMS)
def add_weighted_rows(out: Array, a: Real, b: Real, c: Real, d: Real, rows: Array, first: int) -> None:
    """out += a, b, c, d times four rows from `first` on: out is read and written once for four rows."""
    for j in range(out.shape[0]):
        out[j] += a * rows[first, j] + b * rows[first + 1, j] + c * rows[first + 2, j] + d * rows[first + 3, j]


@njit(fastmath=SUMS)
def vector_matrix(out: Array, vector: Array, matrix: Array) -> None:
    """out = vector @ matrix; both are padded with zeros."""
    out[:] = 0
    for i in range(0, vector.shape[0], 4):
        add_weighted_rows(out, vector[i], vector[i + 1], vector[i + 2], vector[i + 3], matrix, i)


@njit(fastmath=SUMS)
def dot(a: Array, b: Array) -> Real:
    """The inner product."""
    total = a[0] * b[0]
    for j in range(1, a.shape[0]):
        total += a[j] * b[j]
    return total
