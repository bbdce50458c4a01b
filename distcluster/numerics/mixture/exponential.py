"""The exponential of the E-step."""

import math

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

# A large part of an E-step is exponentials. A polynomial that the compiler turns into vector instructions, inside the
# loop that subtracts the maximum and sums, costs about what np.exp alone costs (benchmarks/mixture.py measures both).
# The error is below two units in the last place.


@intrinsic
def _as_bits(_context, value):  # type: ignore[no-untyped-def]
    def generate(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(value), generate


@intrinsic
def _from_bits(_context, value):  # type: ignore[no-untyped-def]
    def generate(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(value), generate


_LOWEST = -230.0  # exp of less, 1e-100, is 0: beside exp(0) in a sum it is nothing, and no product becomes subnormal
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # Cody & Waite 1980, in fdlibm's split
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest integer in the last bits
_ROUND_BITS = int(np.float64(_ROUND).view(np.int64))
_C2, _C3, _C4, _C5, _C6, _C7 = (1.0 / math.factorial(n) for n in range(2, 8))
_C8, _C9, _C10, _C11, _C12, _C13 = (1.0 / math.factorial(n) for n in range(8, 14))


@numba.njit(inline="always")
def exp(x: float) -> float:
    """exp(x) for x <= 0: exp(r) by its Taylor series on |r| <= ln(2) / 2, times 2^n by the exponent's bits."""
    bounded = max(x, _LOWEST)
    shifted = bounded * _LOG2_E + _ROUND
    power = _as_bits(shifted) - _ROUND_BITS
    n = shifted - _ROUND
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    p = _C13 * r + _C12
    p = p * r + _C11
    p = p * r + _C10
    p = p * r + _C9
    p = p * r + _C8
    p = p * r + _C7
    p = p * r + _C6
    p = p * r + _C5
    p = p * r + _C4
    p = p * r + _C3
    p = p * r + _C2
    p = p * r + 1.0
    p = p * r + 1.0
    return _from_bits(_as_bits(p) + (power << 52)) if x > _LOWEST else 0.0
