r"""From a distance to nats: the divergence of two laws after the same Gaussian noise is added to both.

Samplers without noise of their own are infinitely many nats apart unless they are equal. With noise of variance v per
element added to both answers, x and y of the same start, the two laws are mixtures over the same starts, and by the
convexity of the divergence

.. math:: \mathrm{KL}\big(x + \sqrt v\,\zeta \,\big\|\, y + \sqrt v\,\zeta\big) \le \frac{\mathbb E |x - y|^2}{2 v} .

It is an equality where the difference is the same for every start. The noise stands for what follows anyway: a
corrector, the noise of a measurement, pixels of 8 bits; or it is added for the sake of a promise.

Errors are as :attr:`paradrift.Solution.error` has them: rms over elements in units of the data's standard deviation.
With D elements and a noise of standard deviation u in that unit, :math:`|x - y|^2 / (2v) = D\,\text{error}^2 / (2u^2)`.
What comes out is as good as the errors that go in.

Source: the convexity of the divergence (Cover and Thomas, theorem 2.7.2); Chen, Ren, Ying and Rotskoff 2024, arXiv
2405.15986, whose corrector plays this part for the probability-flow ODE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from paradrift.divergence import Nats
from paradrift.errors import SpecError


@dataclass(frozen=True, kw_only=True, eq=False)
class Smoothed(Nats):
    """Bound on the divergence of two smoothed laws.

    Args:
        nats: Half the squared distance in units of the noise, of each sample, shape (S,), float64.
        noise: Standard deviation of the noise, in units of the data's.
    """

    noise: float


def smoothed(error: Tensor, elements: int, noise: float) -> Smoothed:
    """The divergence after noise, from the errors of samples.

    Args:
        error: Error of each sample, rms over elements in units of the data's standard deviation, shape (S,).
        elements: Number of elements D of a sample.
        noise: Standard deviation of the noise added to each element of both answers, in the same unit.

    Returns:
        The bound.

    Raises:
        SpecError: if the noise or the number of elements is not positive, or there is no sample.

    Example:
        >>> import torch
        >>> round(smoothed(torch.tensor([1e-3, 2e-3]), elements=784, noise=0.1).mean, 4)
        0.098
    """
    square = _square(error, elements)
    if not noise > 0:
        raise SpecError(f"expected noise of a positive standard deviation, found {noise}: without it there is no bound")
    return Smoothed(nats=square / (2 * noise**2), noise=noise)


def needed(error: Tensor, elements: int, nats: float) -> float:
    """The noise with which a divergence stays within a budget.

    Args:
        error: Error of each sample, rms over elements in units of the data's standard deviation, shape (S,).
        elements: Number of elements D of a sample.
        nats: The budget.

    Returns:
        Standard deviation of the noise, in units of the data's.

    Raises:
        SpecError: if the budget or the number of elements is not positive, or there is no sample.

    Example:
        >>> import torch
        >>> errors = torch.tensor([1e-3, 2e-3])
        >>> round(smoothed(errors, 784, needed(errors, 784, nats=0.01)).mean, 12)
        0.01
    """
    square = _square(error, elements)
    if not nats > 0:
        raise SpecError(f"expected a positive budget of nats, found {nats}: no noise makes two laws the same")
    return math.sqrt(float(square.mean()) / (2 * nats))


def _square(error: Tensor, elements: int) -> Tensor:
    """Squared distance of each sample in units of the data variance."""
    if error.ndim != 1 or len(error) < 1 or elements < 1:
        raise SpecError(
            f"expected errors of shape (S,) and a number of elements, found shape {tuple(error.shape)} and {elements}"
        )
    return error.double().square() * elements
