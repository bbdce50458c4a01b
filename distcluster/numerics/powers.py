"""Powers in float32, the same bits on every machine, in loops that have vectors."""

import numba
import numpy as np

# Chebyshev fits on [0, 1]: log2(1 + t) / t to 9e-6, 2^t to 4e-6. The C library's differ between machines, and no
# loop that calls them is vectorised.
_LOG2 = (1.4426832519511752, -0.7204423704694057, 0.46930168732746513, -0.30338966759951086, 0.1464336146840215,
         -0.03459521115571998)  # fmt: skip
_EXP2 = (1.0000035971445642, 0.6929695509318968, 0.24162132266300193, 0.05171773546009008, 0.013683982893886717)

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def log2(x: np.float32) -> np.float32:
    """The logarithm to base 2 of a normal positive float32, to 9e-6."""
    bits = np.float32(x).view(np.int32)
    exponent = np.float32((bits >> np.int32(23)) - np.int32(127))
    t = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F800000)).view(np.float32) - np.float32(1.0)
    value = np.float32(_LOG2[5])
    value = value * t + np.float32(_LOG2[4])
    value = value * t + np.float32(_LOG2[3])
    value = value * t + np.float32(_LOG2[2])
    value = value * t + np.float32(_LOG2[1])
    value = value * t + np.float32(_LOG2[0])
    return exponent + value * t


@_compiled
def exp2(x: np.float32) -> np.float32:
    """2 to the power of x, to a relative 4e-6; below 2^-126 it stays there."""
    x = max(x, np.float32(-126.0))
    whole = np.floor(x)
    t = x - whole
    value = np.float32(_EXP2[4])
    value = value * t + np.float32(_EXP2[3])
    value = value * t + np.float32(_EXP2[2])
    value = value * t + np.float32(_EXP2[1])
    value = value * t + np.float32(_EXP2[0])
    return np.float32(value * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32))
