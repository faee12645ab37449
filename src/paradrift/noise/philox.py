"""Counter-based normals: the same bits on every device, in every order.

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

The words become normals in operations that round alike everywhere: see :mod:`paradrift.noise.counter`. So noise is
bitwise independent of device, batch, order, window and chunking.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller 1958.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.noise.counter import MASK, normals, philox

_CHUNK = 1 << 14  # blocks at a time: eight int64 temporaries of this size fit a CPU's second-level cache
_CHUNK_DEVICE = 1 << 22
_PAGE = 1 << 16  # numbers in a page of Buffered
HELD = 64  # pages, at most, beside those of one draw


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

    Cost: about 80 ns an element on one CPU core and 0.4 ms a call however small; nothing kept between calls.

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
            first, second = (word if isinstance(word, int) else word[rows, None] for word in key)
            counter = (blocks[None], column[rows, None], stream[rows, None], torch.zeros_like(blocks)[None])
            out[rows] = _normals(counter, (first, second)).flatten(1)[:, :size]
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
    make that cost vanish, and go when the slowest sample has passed them, or when many newer ones are held; they are
    made again where they are asked for again. Values do not change.

    Args:
        noise: The source.
        samples: Number of samples S; indices run below it.
        columns: How many columns will be asked for, about; no page is made for more.

    Cost: memory for a page (2^16 numbers, or one column of all samples) and for those that the window touches, or 64.

    Example:
        >>> source = Philox(seed=0, shape=(3,))
        >>> where = torch.tensor([0, 1]), torch.tensor([[4, 5], [90, 91]])
        >>> torch.equal(Buffered(source, samples=2, columns=100).draw(*where), source.draw(*where))
        True
    """

    def __init__(self, noise: Philox, *, samples: int, columns: int) -> None:
        self._noise, self._samples = noise, samples
        self._width = max(1, min(columns, _PAGE // max(1, samples * math.prod(noise.shape))))
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
        for old in list(self._pages)[: -max(HELD, len(pages))]:
            del self._pages[old]
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
        page = self._pages.pop(index, None)
        if page is None:
            columns = torch.arange(index * self._width, (index + 1) * self._width).expand(self._samples, -1)
            page = self._noise.draw(torch.arange(self._samples), columns)
        self._pages[index] = page  # the newest last
        return page


def _normals(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int | Tensor, int | Tensor]) -> Tensor:
    """Normals of a counter and a key, by numpy on the host."""
    if counter[0].device.type != "cpu":
        return normals(philox(counter, key))
    zero, one, two, three = (word.numpy() for word in counter)
    first, second = (word if isinstance(word, int) else word.numpy() for word in key)
    return torch.from_numpy(normals(philox((zero, one, two, three), (first, second))))


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


def _stream(
    seed: int | Sequence[int], samples: Tensor, repeats: int
) -> tuple[tuple[int | Tensor, int | Tensor], Tensor]:
    """The two words of the key, numbers or one for each row, and the sample's word, each sample repeated."""
    if isinstance(seed, int):
        return _words(seed), samples.repeat_interleave(repeats)
    last = int(samples.max()) if len(samples) else -1
    if last >= len(seed):
        raise SpecError(f"expected one seed for each sample, found {len(seed)} for sample {last}")
    words = torch.tensor([_words(one) for one in seed], device=samples.device)[samples]
    low, high = (word.repeat_interleave(repeats) for word in words.unbind(1))
    return (low, high), torch.zeros_like(samples).repeat_interleave(repeats)


def _words(seed: int) -> tuple[int, int]:
    return seed & MASK, (seed >> 32) & MASK
