"""Random signs by address, for probes of matrices: no bit of them is used by any noise of the same seed."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.noise.counter import philox


def signs(seed: int, rows: Tensor, count: int, size: int) -> Tensor:
    """Independent signs as a function of (seed, row, index, element): Rademacher variables.

    Args:
        seed: The seed, modulo 2^64.
        rows: Rows of a table, shape (K,), int64, at least 0.
        count: How many vectors of signs for each row.
        size: Elements of a vector.

    Returns:
        Shape (count, K, size), int64, of -1 and 1.
    """
    device = rows.device
    index = torch.arange(count, device=device)[:, None, None]
    blocks = torch.arange(-(-size // 128), device=device)  # four words of 32 bits in each
    counter = (blocks, rows[:, None] + 1, index, torch.full_like(index, 2))
    words = torch.stack(philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)), -1)
    bits = (words[..., None] >> torch.arange(32, device=device)) & 1
    return 1 - 2 * bits.flatten(2)[..., :size]
