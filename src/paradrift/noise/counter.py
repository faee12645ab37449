r"""Philox4x32-10, and normals from its words: the same bits from numpy on the host and from torch on a device.

Philox4x32-10 (Salmon et al. 2011) is ten rounds of multiply, split and xor that turn a counter of four 32-bit words and
a key of two into four random words. Two words make two normals. With :math:`u = (w_0 + 1/2) 2^{-32}`, an angle
:math:`\phi` uniform in :math:`[-\pi/4, \pi/4)` from 30 bits of :math:`w_1`, and two signs from the other two bits, Box
and Muller's pair is

.. math:: \pm\sqrt{-\log u}\,(\cos\phi - \sin\phi), \qquad \pm\sqrt{-\log u}\,(\cos\phi + \sin\phi),

the usual :math:`\sqrt{-2\log u}` times the cosine and sine of :math:`\phi + \pi/4`. The logarithm, cosine and sine are
polynomials written in float64 additions and multiplications, which IEEE 754 fixes to the last bit as it does the root;
library functions differ between devices and even between the vectors and the tail of one array.

All of it is written in operations that numpy arrays and tensors share. On the host numpy does them in a third of the
time for small arrays, and takes the correctly rounded root, where torch's may be an ulp off.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller 1958.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = TypeVar("Numbers", Tensor, NDArray[Any])

MASK = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)

# log m = 2 s (1 + s^2/3 + s^4/5 + ...), s = (m - 1)/(m + 1), |s| < 0.172, and Taylor series on [-pi/4, pi/4]. What is
# left out is below 1e-12: more would only cost time, since the polynomials are the definition.
_LOG = tuple(2.0 / (2 * k + 1) for k in range(8))
_COS = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(7))
_SIN = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(7))


def philox(
    counter: tuple[Numbers, Numbers, Numbers, Numbers], key: tuple[int | Numbers, int | Numbers]
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Philox4x32-10 on 32-bit words held in int64, which wraps modulo 2^64 as the algorithm wants.

    Args:
        counter: Four words, int64 in [0, 2^32), of shapes that broadcast.
        key: Two words in [0, 2^32), whole numbers or int64 arrays that broadcast.

    Returns:
        Four random words, int64 in [0, 2^32), of the broadcast shape: a few rounds mix every word into every other.
    """
    first, second, third, fourth = counter
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first = ((product_1 >> 32) & MASK) ^ second ^ key_0
        third = ((product_0 >> 32) & MASK) ^ fourth ^ key_1
        second, fourth = product_1 & MASK, product_0 & MASK
        key_0, key_1 = (key_0 + _WEYL[0]) & MASK, (key_1 + _WEYL[1]) & MASK
    return first, second, third, fourth


def normals(words: tuple[Numbers, Numbers, Numbers, Numbers]) -> Numbers:
    """Four independent standard normals from four random words.

    Args:
        words: Four int64 arrays of one shape, entries in [0, 2^32): of numpy, or tensors on a device.

    Returns:
        Shape (*shape, 4), float64.
    """
    module: Any = torch if isinstance(words[0], Tensor) else np
    radial, angular = module.stack((words[0], words[2]), -1), module.stack((words[1], words[3]), -1)
    mantissa, exponent = module.frexp((_double(radial) + 0.5) * 2.0**-32)
    low = mantissa < math.sqrt(0.5)
    mantissa = module.where(low, mantissa * 2, mantissa)
    exponent = _double(exponent) - _double(low)
    ratio = (mantissa - 1) / (mantissa + 1)
    logarithm = ratio * _horner(_LOG, ratio * ratio) + exponent * math.log(2)
    radius = module.sqrt(-logarithm)
    angle = (_double(angular >> 2) - 2.0**29 + 0.5) * (math.pi / 2 * 2.0**-30)
    square = angle * angle
    cosine, sine = _horner(_COS, square), angle * _horner(_SIN, square)
    signs = _double(1 - (angular & 1) * 2), _double(1 - (angular & 2))
    pair = module.stack((signs[0] * radius * (cosine - sine), signs[1] * radius * (cosine + sine)), -1)
    return pair.reshape(*words[0].shape, 4)


def _horner(coefficients: tuple[float, ...], x: Numbers) -> Numbers:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        value *= x
        value += coefficient
    return value


def _double(x: Numbers) -> Numbers:
    return x.double() if isinstance(x, Tensor) else x.astype(np.float64)
