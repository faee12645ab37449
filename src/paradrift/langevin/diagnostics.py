r"""How many independent draws a chain is worth."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.errors import SpecError


def effective_size(draws: Tensor) -> Tensor:
    r"""Effective sample size by Geyer's initial monotone sequence.

    With the autocovariances :math:`\gamma_k` of a stationary reversible chain, the sums of neighbours
    :math:`\Gamma_i = \gamma_{2i} + \gamma_{2i+1}` are positive and decreasing. Their estimates are cut at the first
    that is not positive, and made decreasing; then

    .. math:: \mathrm{ESS} = \frac{n \gamma_0}{-\gamma_0 + 2 \sum_i \Gamma_i} .

    Several chains share their mean and their autocovariances, so that chains which disagree have few effective draws.

    Args:
        draws: Shape (S, n, *shape): n consecutive draws of S chains, at least 4 of each.

    Returns:
        Effective draws of all chains together by element, shape (*shape), float64; NaN for elements that do not vary.

    Raises:
        SpecError: if there are fewer draws.

    Source: Geyer 1992, Practical Markov chain Monte Carlo, Statistical Science 7, section 3.3.

    Example:
        >>> independent = torch.randn(4, 1000, 2, generator=torch.Generator().manual_seed(0))
        >>> bool((effective_size(independent) > 3000).all())
        True
    """
    if draws.ndim < 2 or draws.shape[1] < 4:
        raise SpecError(f"expected draws of shape (chains, at least 4, *shape), found {tuple(draws.shape)}")
    chains, count = draws.shape[:2]
    centred = draws.double().flatten(0, 1)
    centred = (centred - centred.mean(0)).unflatten(0, (chains, count)).movedim(1, -1)  # (S, *shape, n)
    power = torch.fft.rfft(centred, n=2 * count).abs().square().mean(0)
    covariance = torch.fft.irfft(power, n=2 * count)[..., :count] / count
    pairs = covariance[..., : count // 2 * 2].unflatten(-1, (-1, 2)).sum(-1)
    positive = (pairs > 0).long().cumprod(-1).bool()
    monotone = torch.where(positive, pairs.cummin(-1).values, 0.0).sum(-1)
    first = covariance[..., 0]
    return chains * count * first / (2 * monotone - first)
