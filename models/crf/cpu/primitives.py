# mypy: allow-untyped-decorators, no-warn-return-any
"""What numba does not bring, beside vectors: raw pointers, an atomic counter, and the bits of a number."""

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic, overload

from .lanes import Array, Lanes, Real, broadcast, load


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


# The bits of numbers (IEEE 754), for both precisions: a power of two is an exponent field alone.


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


@njit(forceinline=True)
def vector_matrix(vector: Array, matrix: Array, column: int, height: int) -> Lanes:
    """Columns `column` to `column` + 15 of vector @ matrix, over its first `height` rows, an even number."""
    width = matrix.shape[1]
    even = broadcast(0.0, load(matrix, column))
    odd = even
    for i in range(0, height, 2):
        even = even + load(matrix, i * width + column) * vector[i]
        odd = odd + load(matrix, (i + 1) * width + column) * vector[i + 1]
    return even + odd
