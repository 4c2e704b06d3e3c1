# mypy: allow-untyped-decorators, no-warn-return-any
"""Vectors of sixteen numbers for numba: values that live in vector registers, with arithmetic.

LLVM vectorises plain loops by itself, but neither the pattern that a CRF lives on, a sum over rows whose running total
stays in registers, nor loops as short as one over nine tags. Written with these vectors a step over a word is three to
eight times faster. LLVM splits a vector of sixteen into what the machine has.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_model

LANES = 16

Array = Any  # a numba array, and
Lanes = Any  # a vector, and
Real = Any  # a float32 or float64: annotations in compiled code are for the reader

_FLAGS = ("contract", "nsz")  # a product and a sum may be rounded once


class LanesType(types.Type):  # type: ignore[misc]
    """The numba type of a vector of float32 or float64 numbers."""

    def __init__(self, real: Any) -> None:
        self.real = real
        super().__init__(name=f"Lanes({real})")


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    """How LLVM sees such a vector."""

    def __init__(self, manager: Any, lanes: LanesType) -> None:
        super().__init__(manager, lanes, ir.VectorType(_llvm_real(lanes), LANES))


def _llvm_real(lanes: LanesType) -> Any:
    return ir.FloatType() if lanes.real == types.float32 else ir.DoubleType()


def padded(num_tags: int) -> int:
    """Entries of a row that holds `num_tags` tags in whole vectors."""
    return -(-num_tags // LANES) * LANES


# Memory. Offsets count entries of a C-contiguous array in memory, whatever its shape.


def _vector_of(array: Any) -> LanesType:
    if array.layout != "C":
        raise TypingError(f"vectors are read from and written to C-contiguous arrays, not {array}")
    return LanesType(array.dtype)


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    vector = context.get_value_type(LanesType(array_type.dtype))
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """The sixteen numbers of an array from `offset` on."""

    lanes = _vector_of(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_address(context, builder, array, *arguments))
        value.align = array.dtype.bitwidth // 8
        return value

    return lanes(array, types.int64), generate


@intrinsic
def load_first(typing_context: Any, array: Any, offset: Any, count: Any, rest: Any) -> Any:
    """The first `count` of the numbers from `offset` on, or all sixteen; `rest` in the other lanes."""
    lanes = _vector_of(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, offset, count, rest = arguments
        vector, index = context.get_value_type(lanes), ir.VectorType(ir.IntType(64), LANES)
        pointer = _address(context, builder, array, data, offset)
        present = builder.icmp_signed("<", index(list(range(LANES))), _splat(builder, count))
        name = f"llvm.masked.load.v{LANES}f{array.dtype.bitwidth}.p0"
        signature_ir = ir.FunctionType(vector, [pointer.type, ir.IntType(32), present.type, vector])
        function = builder.module.globals.get(name) or ir.Function(builder.module, signature_ir, name)
        alignment = ir.IntType(32)(array.dtype.bitwidth // 8)
        return builder.call(function, [pointer, alignment, present, _splat(builder, rest)])

    return lanes(array, types.int64, types.int64, array.dtype), generate


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Write sixteen numbers from `offset` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        written = builder.store(arguments[2], _address(context, builder, array, *arguments[:2]))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, _vector_of(array)), generate


@intrinsic
def store_first(typing_context: Any, array: Any, offset: Any, count: Any, lanes: Any) -> Any:
    """Write the first `count` of the numbers from `offset` on, or all sixteen."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, offset, count, value = arguments
        index = ir.VectorType(ir.IntType(64), LANES)
        pointer = _address(context, builder, array, data, offset)
        present = builder.icmp_signed("<", index(list(range(LANES))), _splat(builder, count))
        name = f"llvm.masked.store.v{LANES}f{array.dtype.bitwidth}.p0"
        signature_ir = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, ir.IntType(32), present.type])
        function = builder.module.globals.get(name) or ir.Function(builder.module, signature_ir, name)
        builder.call(function, [value, pointer, ir.IntType(32)(array.dtype.bitwidth // 8), present])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, _vector_of(array)), generate


def _splat(builder: Any, number: Any) -> Any:
    vector, index = ir.VectorType(number.type, LANES), ir.IntType(32)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, index(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(index, LANES), None))


@intrinsic
def broadcast(typing_context: Any, number: Any, lanes: Any) -> Any:
    """Sixteen times the same number, as a vector like `lanes`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0])

    return lanes(lanes.real, lanes), generate


# Arithmetic: lane by lane, or with one number for all lanes.


def _define(function: Any, emit: Callable[[Any, Any, Any], Any]) -> None:
    @intrinsic
    def compute(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return emit(builder, *arguments)

        return a(a, a), generate

    @overload(function, inline="always")
    def choose(a: Any, b: Any) -> Any:
        def with_lanes(a: Any, b: Any) -> Any:
            return compute(a, b)

        def with_number(a: Any, b: Any) -> Any:
            return compute(a, broadcast(b, a))

        if not isinstance(a, LanesType):
            return None
        return with_lanes if isinstance(b, LanesType) else with_number


def larger(a: Lanes, b: Any) -> Lanes:
    """The larger of each two numbers; a where it is not a number."""


def smaller(a: Lanes, b: Any) -> Lanes:
    """The smaller of each two numbers; a where it is not a number."""


_define(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS))
_define(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS))
_define(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS))
_define(larger, lambda builder, a, b: builder.select(builder.fcmp_ordered(">", b, a), b, a))
_define(smaller, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", b, a), b, a))


@intrinsic
def where_above(typing_context: Any, x: Any, bound: Any, yes: Any, no: Any) -> Any:
    """`yes` where x > bound, a number, or where x is not a number; else `no`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, number, first, second = arguments
        return builder.select(builder.fcmp_unordered(">", vector, _splat(builder, number)), first, second)

    return x(x, x.real, x, x), generate


def _define_reduction(emit: Callable[[Any, Any, Any], Any]) -> Any:
    """A function that folds the lanes in halves: sixteen, eight, four, two, one."""

    @intrinsic
    def reduce(typing_context: Any, lanes: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, half = arguments[0], LANES // 2
            while half:
                index = ir.VectorType(ir.IntType(32), half)
                low, high = index(list(range(half))), index(list(range(half, 2 * half)))
                value = emit(
                    builder, builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high)
                )
                half //= 2
            return builder.extract_element(value, ir.IntType(32)(0))

        return lanes.real(lanes), generate

    return reduce


total = _define_reduction(lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS))
largest = _define_reduction(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", b, a), b, a))
smallest = _define_reduction(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", b, a), b, a))


# exp(x) = 2**n exp(r) with x = n ln 2 + r and |r| <= ln 2 / 2 (Cody and Waite 1980). ln 2 is split so that
# n * LN_2_HIGH is exact; the Taylor series of exp(r) ends where its rest is below half a unit in the last place.
LOG2_E = 1.4426950408889634
LN_2_HIGH = 0.693359375
LN_2_LOW = -2.1219444005469058e-4


@intrinsic
def _whole(typing_context: Any, lanes: Any) -> Any:
    """The largest whole numbers not above."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = arguments[0].type
        name = f"llvm.floor.v{LANES}f{lanes.real.bitwidth}"
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(vector, [vector]), name
        )
        return builder.call(function, arguments)

    return lanes(lanes), generate


@intrinsic
def _power_of_two(typing_context: Any, lanes: Any) -> Any:
    """Two to whole numbers: a number (IEEE 754) with nothing but an exponent."""
    mantissa, bias = (23, 127) if lanes.real == types.float32 else (52, 1023)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = ir.VectorType(ir.IntType(lanes.real.bitwidth), LANES)
        exponent = builder.add(builder.fptosi(arguments[0], bits), bits([bias] * LANES))
        return builder.bitcast(builder.shl(exponent, bits([mantissa] * LANES)), arguments[0].type)

    return lanes(lanes), generate


def exp(x: Lanes) -> Lanes:
    """The exponential of numbers that are not above zero: 0 for -inf, never below the smallest normal number else."""


@njit(forceinline=True)
def _reduce_argument(x: Lanes, lowest: Real) -> tuple[Lanes, Lanes]:
    bounded = larger(x, lowest)
    n = _whole(bounded * LOG2_E + broadcast(0.5, x))
    return n, (bounded - n * LN_2_HIGH) - n * LN_2_LOW


def _exp_32(x: Lanes) -> Lanes:
    n, r = _reduce_argument(x, -87.0)
    p = r * (1 / 5040) + broadcast(1 / 720, x)
    p = r * p + broadcast(1 / 120, x)
    p = r * p + broadcast(1 / 24, x)
    p = r * p + broadcast(1 / 6, x)
    p = r * p + broadcast(1 / 2, x)
    p = r * p + broadcast(1.0, x)
    p = r * p + broadcast(1.0, x)
    return where_above(x, -np.inf, p * _power_of_two(n), broadcast(0.0, x))


def _exp_64(x: Lanes) -> Lanes:
    n, r = _reduce_argument(x, -708.0)
    p = r * (1 / 6227020800) + broadcast(1 / 479001600, x)
    p = r * p + broadcast(1 / 39916800, x)
    p = r * p + broadcast(1 / 3628800, x)
    p = r * p + broadcast(1 / 362880, x)
    p = r * p + broadcast(1 / 40320, x)
    p = r * p + broadcast(1 / 5040, x)
    p = r * p + broadcast(1 / 720, x)
    p = r * p + broadcast(1 / 120, x)
    p = r * p + broadcast(1 / 24, x)
    p = r * p + broadcast(1 / 6, x)
    p = r * p + broadcast(1 / 2, x)
    p = r * p + broadcast(1.0, x)
    p = r * p + broadcast(1.0, x)
    return where_above(x, -np.inf, p * _power_of_two(n), broadcast(0.0, x))


@overload(exp, jit_options={"forceinline": True})
def _exp(x: Lanes) -> Any:
    return _exp_32 if x.real == types.float32 else _exp_64
