r"""Counter-based normals: the same bits on every device, in every order.

Philox4x32-10 (Salmon et al. 2011) is ten rounds of multiply, split and xor that turn a counter of four 32-bit words and
a key of two into four random words. The key is the seed; the counter says which noise is wanted:

====  =====================================
word  meaning
====  =====================================
0     block of four elements
1     column + 1; the start is column -1
2     sample
3     0; 1 for the uniforms of a verdict; 2 for signs
====  =====================================

Two words make two normals. With :math:`u = (w_0 + 1/2) 2^{-32}`, an angle :math:`\phi` uniform in
:math:`[-\pi/4, \pi/4)` from 30 bits of :math:`w_1`, and two signs from the other two bits, Box and Muller's pair is

.. math:: \pm\sqrt{-\log u}\,(\cos\phi - \sin\phi), \qquad \pm\sqrt{-\log u}\,(\cos\phi + \sin\phi),

the usual :math:`\sqrt{-2\log u}` times the cosine and sine of :math:`\phi + \pi/4`. The logarithm, cosine and sine are
polynomials written in float64 additions and multiplications, which IEEE 754 fixes to the last bit as it does the root,
where it is correctly rounded; library functions
differ between devices and even between the vectors and the tail of one array. So noise is bitwise independent of
device, batch, order, window and chunking.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller 1958.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SpecError

_MASK = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_CHUNK = 1 << 14  # blocks at a time: eight int64 temporaries of this size fit a CPU's second-level cache
_CHUNK_DEVICE = 1 << 22
_PAGE = 1 << 16  # numbers in a page of Buffered

# log m = 2 s (1 + s^2/3 + s^4/5 + ...), s = (m - 1)/(m + 1), |s| < 0.172, and Taylor series on [-pi/4, pi/4]. What is
# left out is below 1e-12: more would only cost time, since the polynomials are the definition.
_LOG = tuple(2.0 / (2 * k + 1) for k in range(8))
_COS = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(7))
_SIN = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(7))


@dataclass(frozen=True, kw_only=True, eq=False)
class Philox:
    """Standard normals as a function of (seed, sample, column, element).

    Args:
        seed: One seed, which gives sample i the stream (seed, i); or one seed for each sample, which gives sample i
            the stream (seed_i, 0), so that it can be redrawn alone. Seeds count modulo 2^64.
        shape: Shape of one sample.
        dtype: Floating dtype of the noises; computed in float64 and rounded once.
        device: Where the noises are made.

    Raises:
        SpecError: if the list of seeds is empty, or a sample has more than 2^34 elements.

    Cost: about 80 ns an element on one CPU core and 0.7 ms a call however small; nothing kept between calls.

    Example:
        >>> noise = Philox(seed=0, shape=(3,))
        >>> several = noise.draw(torch.tensor([0, 1]), torch.tensor([[5, 7], [7, 5]]))
        >>> alone = noise.draw(torch.tensor([1]), torch.tensor([[7]]))
        >>> torch.equal(several[1, 0], alone[0, 0])
        True
    """

    seed: int | Sequence[int]
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) and len(self.seed) == 0:
            raise SpecError("expected a seed, or one for each sample, found an empty list")
        if math.prod(self.shape) > 1 << 34:
            raise SpecError(f"expected at most 2^34 elements a sample, found {math.prod(self.shape)}")

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample, addressed as column -1.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self.draw(samples, torch.full((len(samples), 1), -1, device=samples.device))[:, 0]

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of any samples and columns.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns, shape (S, K), int64, at least -1.

        Returns:
            Shape (S, K, *shape).

        Raises:
            SpecError: if seeds were given one by one and a sample has none.
        """
        device = torch.device(self.device)
        key, stream = _stream(self.seed, samples.to(device), columns.shape[1])
        column = columns.to(device).reshape(-1) + 1
        size = math.prod(self.shape)
        blocks = torch.arange(-(-size // 4), device=device)
        out = torch.empty(len(stream), size, dtype=self.dtype, device=device)
        limit = _CHUNK if device.type == "cpu" else _CHUNK_DEVICE
        chunk = max(1, limit // max(1, len(blocks)))
        for begin in range(0, len(stream), chunk):
            rows = slice(begin, begin + chunk)
            keys = tuple(word if isinstance(word, int) else word[rows, None] for word in key)
            words = philox((blocks[None], column[rows, None], stream[rows, None], torch.zeros_like(blocks)[None]), keys)
            out[rows] = normals(words).flatten(1)[:, :size]
        return out.reshape(*columns.shape, *self.shape)

    def release(self, column: int) -> None:
        """Nothing to forget: nothing is kept.

        Args:
            column: The first column that may still be asked for.
        """

    def finish(self) -> None:
        """Nothing to leave behind: no generator is touched."""


class Buffered:
    """Counter-based noise made in pages of columns, for windows that advance a little in every round.

    One draw of :class:`Philox` costs some hundred tensor operations however small it is. Pages hold as many columns as
    make that cost vanish, and go when the slowest sample has passed them. Values do not change.

    Args:
        noise: The source.
        samples: Number of samples S; indices run below it.

    Cost: memory for a page (2^16 numbers, or one column of all samples) and for those that the window touches.

    Example:
        >>> source = Philox(seed=0, shape=(3,))
        >>> where = torch.tensor([0, 1]), torch.tensor([[4, 5], [90, 91]])
        >>> torch.equal(Buffered(source, samples=2).draw(*where), source.draw(*where))
        True
    """

    def __init__(self, noise: Philox, *, samples: int) -> None:
        self._noise, self._samples = noise, samples
        self._width = max(1, _PAGE // max(1, samples * math.prod(noise.shape)))
        self._pages: dict[int, Tensor] = {}

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :meth:`Philox.start`.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self._noise.start(samples)

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns, shape (S, K), int64, at least 0; best kept on the host, where their range is read.

        Returns:
            Shape (S, K, *shape).
        """
        if columns.numel() == 0:
            return self._noise.draw(samples, columns)
        low, high = (int(bound) // self._width for bound in columns.aminmax())
        pages = [self._page(index) for index in range(low, high + 1)]
        table = pages[0] if len(pages) == 1 else torch.cat(pages, 1)
        device = table.device
        return table[samples.to(device)[:, None], (columns - low * self._width).to(device)]

    def release(self, column: int) -> None:
        """Forget the pages that end before this column.

        Args:
            column: The first column that may still be asked for.
        """
        for old in [index for index in self._pages if (index + 1) * self._width <= column]:
            del self._pages[old]

    def finish(self) -> None:
        """Nothing to leave behind: no generator is touched."""

    def _page(self, index: int) -> Tensor:
        if index not in self._pages:
            columns = torch.arange(index * self._width, (index + 1) * self._width).expand(self._samples, -1)
            self._pages[index] = self._noise.draw(torch.arange(self._samples), columns)
        return self._pages[index]


def uniforms(seed: int | Sequence[int], samples: Tensor, columns: Tensor) -> Tensor:
    """Uniform numbers as a function of (seed, sample, column), independent of all normals of the same seed.

    Args:
        seed: One seed, or one for each sample, as :class:`Philox` takes them.
        samples: Sample indices, shape (S,), int64.
        columns: Columns, shape (S, K), int64, at least 0.

    Returns:
        Shape (S, K), float64, strictly between 0 and 1.

    Raises:
        SpecError: if seeds were given one by one and a sample has none.
    """
    key, stream = _stream(seed, samples, columns.shape[1])
    zero = torch.zeros_like(stream)
    words = philox((zero, columns.reshape(-1) + 1, stream, zero + 1), key)
    return ((words[0].double() + 0.5) * 2.0**-32).view(columns.shape)


def _stream(seed: int | Sequence[int], samples: Tensor, repeats: int) -> tuple[tuple[int | Tensor, ...], Tensor]:
    """The two words of the key, numbers or one for each row, and the sample's word, each sample repeated."""
    if isinstance(seed, int):
        return _words(seed), samples.repeat_interleave(repeats)
    last = int(samples.max()) if len(samples) else -1
    if last >= len(seed):
        raise SpecError(f"expected one seed for each sample, found {len(seed)} for sample {last}")
    words = torch.tensor([_words(one) for one in seed], device=samples.device)[samples]
    key = tuple(word.repeat_interleave(repeats) for word in words.unbind(1))
    return key, torch.zeros_like(samples).repeat_interleave(repeats)


def philox(counter: tuple[Tensor, ...], key: tuple[int | Tensor, ...]) -> tuple[Tensor, ...]:
    """Philox4x32-10 on 32-bit words held in int64 tensors, which wrap modulo 2^64 as the algorithm wants.

    Args:
        counter: Four words, int64 in [0, 2^32), of shapes that broadcast.
        key: Two words in [0, 2^32), whole numbers or int64 tensors that broadcast.

    Returns:
        Four random words, int64 in [0, 2^32), of the broadcast shape.
    """
    first, second, third, fourth = counter
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first = (product_1 >> 32).bitwise_and_(_MASK) ^ second ^ key_0
        third = (product_0 >> 32).bitwise_and_(_MASK) ^ fourth ^ key_1
        second, fourth = product_1.bitwise_and_(_MASK), product_0.bitwise_and_(_MASK)
        key_0, key_1 = (key_0 + _WEYL[0]) & _MASK, (key_1 + _WEYL[1]) & _MASK
    return tuple(torch.broadcast_tensors(first, second, third, fourth))


def normals(words: tuple[Tensor, ...]) -> Tensor:
    """Four independent standard normals from four random words; see :mod:`paradrift.noise.philox`.

    Args:
        words: Four int64 tensors of one shape, entries in [0, 2^32).

    Returns:
        Shape (*shape, 4), float64.
    """
    radial, angular = torch.stack((words[0], words[2]), -1), torch.stack((words[1], words[3]), -1)
    mantissa, exponent = torch.frexp((radial.double() + 0.5) * 2.0**-32)
    low = mantissa < math.sqrt(0.5)
    mantissa = torch.where(low, mantissa * 2, mantissa)
    exponent = exponent.double() - low.double()
    ratio = (mantissa - 1) / (mantissa + 1)
    logarithm = ratio * _horner(_LOG, ratio * ratio) + exponent * math.log(2)
    radius = _root(-logarithm)
    angle = ((angular >> 2).double() - 2.0**29 + 0.5) * (math.pi / 2 * 2.0**-30)
    square = angle * angle
    cosine, sine = _horner(_COS, square), angle * _horner(_SIN, square)
    signs = (1 - (angular & 1) * 2).double(), (1 - (angular & 2)).double()
    pair = torch.stack((signs[0] * radius * (cosine - sine), signs[1] * radius * (cosine + sine)), -1)
    return pair.flatten(-2)


def _root(x: Tensor) -> Tensor:
    """The correctly rounded square root: numpy's on the host, where torch may take a faster one that is an ulp off."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value


def _words(seed: int) -> tuple[int, int]:
    return seed & _MASK, (seed >> 32) & _MASK
