# mypy: allow-untyped-decorators, no-warn-return-any
"""The exponential of vectors, and the binary exponents of their numbers (IEEE 754)."""

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic, overload

from .lanes import Lanes, Real, broadcast, larger, where_above

# exp(x) = 2**n exp(r) with x = n ln 2 + r and |r| <= ln 2 / 2 (Cody and Waite 1980). ln 2 is split so that
# n * LN_2_HIGH is exact; the Taylor series of exp(r) ends where its rest is below half a unit in the last place.
LOG2_E = 1.4426950408889634
LN_2_HIGH = 0.693359375
LN_2_LOW = -2.1219444005469058e-4
SERIES_32 = tuple(1 / math.factorial(k) for k in range(7, -1, -1))  # from the highest power down
SERIES_64 = tuple(1 / math.factorial(k) for k in range(13, -1, -1))


@intrinsic
def _whole(typing_context: Any, lanes: Any) -> Any:
    """The largest whole numbers not above."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = arguments[0].type
        name = f"llvm.floor.v{lanes.count}f{lanes.real.bitwidth}"
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(vector, [vector]), name
        )
        return builder.call(function, arguments)

    return lanes(lanes), generate


@intrinsic
def power_of_two(typing_context: Any, lanes: Any) -> Any:
    """Two to whole numbers: a number (IEEE 754) with nothing but an exponent."""
    mantissa, bias = (23, 127) if lanes.real == types.float32 else (52, 1023)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = ir.VectorType(ir.IntType(lanes.real.bitwidth), lanes.count)
        exponent = builder.add(builder.fptosi(arguments[0], bits), bits([bias] * lanes.count))
        return builder.bitcast(builder.shl(exponent, bits([mantissa] * lanes.count)), arguments[0].type)

    return lanes(lanes), generate


def exp(x: Lanes) -> Lanes:
    """The exponential of numbers that are not above zero: 0 for -inf, never below the smallest normal number else."""


@njit(forceinline=True)
def _exp_by(series: tuple[float, ...], lowest: Real, x: Lanes) -> Lanes:
    bounded = larger(x, lowest)
    n = _whole(bounded * LOG2_E + broadcast(0.5, x))
    r = (bounded - n * LN_2_HIGH) - n * LN_2_LOW
    p = broadcast(series[0], x)
    for k in range(1, len(series)):
        p = r * p + broadcast(series[k], x)
    return where_above(x, -np.inf, p * power_of_two(n), broadcast(0.0, x))


def _exp_32(x: Lanes) -> Lanes:
    return _exp_by(SERIES_32, -87.0, x)


def _exp_64(x: Lanes) -> Lanes:
    return _exp_by(SERIES_64, -708.0, x)


@overload(exp, jit_options={"forceinline": True})
def _exp(x: Lanes) -> Any:
    return _exp_32 if x.real == types.float32 else _exp_64


@intrinsic
def exponents(typing_context: Any, lanes: Any) -> Any:
    """The whole numbers k with 2**k <= x < 2**(k + 1), for positive normal numbers x."""
    mantissa, bias = (23, 127) if lanes.real == types.float32 else (52, 1023)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = ir.VectorType(ir.IntType(lanes.real.bitwidth), lanes.count)
        field = builder.lshr(builder.bitcast(arguments[0], bits), bits([mantissa] * lanes.count))
        return builder.sitofp(builder.sub(field, bits([bias] * lanes.count)), arguments[0].type)

    return lanes(lanes), generate
