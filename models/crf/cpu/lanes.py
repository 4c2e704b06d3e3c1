# mypy: allow-untyped-decorators, no-warn-return-any
"""Vectors of sixteen numbers, or of eight, for numba: values that live in vector registers, with arithmetic.

LLVM vectorises plain loops by itself, but neither the pattern that a CRF lives on, a sum over rows whose running total
stays in registers, nor loops as short as one over nine tags. Written with these vectors a step over a word is three to
eight times faster. LLVM splits a vector into what the machine has.

A vector of sixteen holds tags of one sentence; one of eight holds one tag of as many sentences (`abreast.py`).
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload, register_model

LANES = 16
ROWS = 8

Array = Any  # a numba array, and
Lanes = Any  # a vector, and
Real = Any  # a float32 or float64: annotations in compiled code are for the reader

_FLAGS = ("contract", "nsz")  # a product and a sum may be rounded once


class LanesType(types.Type):  # type: ignore[misc]
    """The numba type of a vector of float32 or float64 numbers."""

    def __init__(self, real: Any, count: int) -> None:
        self.real, self.count = real, count
        super().__init__(name=f"Lanes({real}, {count})")


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    """How LLVM sees such a vector."""

    def __init__(self, manager: Any, lanes: LanesType) -> None:
        super().__init__(manager, lanes, ir.VectorType(_llvm_real(lanes), lanes.count))


def _llvm_real(lanes: LanesType) -> Any:
    return ir.FloatType() if lanes.real == types.float32 else ir.DoubleType()


def padded(num_tags: int) -> int:
    """Entries of a row that holds `num_tags` tags in whole vectors."""
    return -(-num_tags // LANES) * LANES


# Memory. Offsets count entries of a C-contiguous array in memory, whatever its shape.


def _vector_of(array: Any, count: int) -> LanesType:
    if array.layout != "C":
        raise TypingError(f"vectors are read from and written to C-contiguous arrays, not {array}")
    return LanesType(array.dtype, count)


def _address(context: Any, builder: Any, lanes: LanesType, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), context.get_value_type(lanes).as_pointer())


def _loader(count: int) -> Any:
    @intrinsic
    def load(typing_context: Any, array: Any, offset: Any) -> Any:
        lanes = _vector_of(array, count)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = builder.load(_address(context, builder, lanes, array, *arguments))
            value.align = array.dtype.bitwidth // 8
            return value

        return lanes(array, types.int64), generate

    return load


load = _loader(LANES)  # the sixteen numbers of an array from an offset on
load_rows = _loader(ROWS)  # the eight


def _first_loader(size: int) -> Any:
    @intrinsic
    def load_first(typing_context: Any, array: Any, offset: Any, count: Any, rest: Any) -> Any:
        lanes = _vector_of(array, size)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data, offset, count, rest = arguments
            vector = context.get_value_type(lanes)
            pointer = _address(context, builder, lanes, array, data, offset)
            present = _first_lanes(builder, count, size)
            name = f"llvm.masked.load.v{size}f{array.dtype.bitwidth}.p0"
            signature_ir = ir.FunctionType(vector, [pointer.type, ir.IntType(32), present.type, vector])
            function = builder.module.globals.get(name) or ir.Function(builder.module, signature_ir, name)
            alignment = ir.IntType(32)(array.dtype.bitwidth // 8)
            return builder.call(function, [pointer, alignment, present, _splat(builder, rest, size)])

        return lanes(array, types.int64, types.int64, array.dtype), generate

    return load_first


load_first = _first_loader(LANES)  # the first `count` of the sixteen numbers from an offset on; `rest` in other lanes
load_first_rows = _first_loader(ROWS)  # of the eight


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Write all numbers of a vector from `offset` on."""
    vector = _vector_of(array, lanes.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        written = builder.store(arguments[2], _address(context, builder, vector, array, *arguments[:2]))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic
def store_first(typing_context: Any, array: Any, offset: Any, count: Any, lanes: Any) -> Any:
    """Write the first `count` of a vector's numbers from `offset` on, or all."""
    vector = _vector_of(array, lanes.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, offset, count, value = arguments
        pointer = _address(context, builder, vector, array, data, offset)
        present = _first_lanes(builder, count, vector.count)
        name = f"llvm.masked.store.v{vector.count}f{array.dtype.bitwidth}.p0"
        signature_ir = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, ir.IntType(32), present.type])
        function = builder.module.globals.get(name) or ir.Function(builder.module, signature_ir, name)
        builder.call(function, [value, pointer, ir.IntType(32)(array.dtype.bitwidth // 8), present])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, vector), generate


def _first_lanes(builder: Any, count: Any, size: int) -> Any:
    index = ir.VectorType(ir.IntType(64), size)
    return builder.icmp_signed("<", index(list(range(size))), _splat(builder, count, size))


def _splat(builder: Any, number: Any, count: int) -> Any:
    vector, index = ir.VectorType(number.type, count), ir.IntType(32)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, index(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(index, count), None))


@intrinsic
def broadcast(typing_context: Any, number: Any, lanes: Any) -> Any:
    """The same number in every lane, as a vector like `lanes`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0], lanes.count)

    return lanes(lanes.real, lanes), generate


@intrinsic
def widen(typing_context: Any, lanes: Any) -> Any:
    """The same numbers in double precision."""
    double = LanesType(types.float64, lanes.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if lanes == double:
            return arguments[0]
        return builder.fpext(arguments[0], context.get_value_type(double))

    return double(lanes), generate


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
_define(operator.truediv, lambda builder, a, b: builder.fdiv(a, b))
_define(larger, lambda builder, a, b: builder.select(builder.fcmp_ordered(">", b, a), b, a))
_define(smaller, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", b, a), b, a))


@intrinsic
def where_above(typing_context: Any, x: Any, bound: Any, yes: Any, no: Any) -> Any:
    """`yes` where x > bound, a number, or where x is not a number; else `no`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, number, first, second = arguments
        return builder.select(builder.fcmp_unordered(">", vector, _splat(builder, number, x.count)), first, second)

    return x(x, x.real, x, x), generate


@intrinsic
def where_larger(typing_context: Any, x: Any, y: Any, yes: Any, no: Any) -> Any:
    """`yes` where x > y, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second, larger_value, other_value = arguments
        return builder.select(builder.fcmp_ordered(">", first, second), larger_value, other_value)

    return x(x, x, x, x), generate


def _define_reduction(emit: Callable[[Any, Any, Any], Any]) -> Any:
    """A function that folds the lanes in halves: sixteen, eight, four, two, one."""

    @intrinsic
    def reduce(typing_context: Any, lanes: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, half = arguments[0], lanes.count // 2
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


@intrinsic
def transpose(typing_context: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Eight vectors of eight, rows of a matrix, as its columns."""
    # Single numbers change places within pairs of rows, then pairs of numbers, then halves.
    singles = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    pairs = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    halves = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def mix(x: Any, y: Any, places: list[int]) -> Any:
            index = ir.VectorType(ir.IntType(32), ROWS)
            return builder.shuffle_vector(x, y, index(places))

        rows = [mix(arguments[i], arguments[i + 1], places) for i in (0, 2, 4, 6) for places in singles]
        rows = [mix(rows[i], rows[i + 2], places) for i in (0, 1, 4, 5) for places in pairs]
        columns = [mix(rows[i], rows[i + 4], places) for places in halves for i in range(4)]
        return context.make_tuple(builder, signature.return_type, columns)

    return types.UniTuple(a, ROWS)(a, a, a, a, a, a, a, a), generate
