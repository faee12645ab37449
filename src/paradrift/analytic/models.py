"""The analytic models by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paradrift.analytic.mixture import Mixture
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.schedules import Schedule

Numbers = Tensor | Sequence[float] | float


class PointMass(Mixture):
    """Data that take one value: D = mean, so every sampler in the data form is exact on every grid.

    Args:
        mean: The value, shape (*shape).
        schedule: The noise schedule.
        form: What the model returns.
    """

    def __init__(self, mean: Numbers, schedule: Schedule, *, form: Form = Form.DATA) -> None:
        centre = _double(mean)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        super().__init__(one, centre.reshape(1, -1), zero, None, tuple(centre.shape), schedule, form)


class Gaussian(Mixture):
    r"""Gaussian data: :math:`D = \mu + \alpha\Sigma C^{-1}(x - \alpha\mu)`, linear in the state.

    Args:
        mean: Shape (*shape), d elements.
        variance: One number, one for each element (*shape), or a full covariance (d, d).
        schedule: The noise schedule.
        form: What the model returns.

    Raises:
        SpecError: if the variance has another shape, is negative, or the covariance is not symmetric.
    """

    def __init__(self, mean: Numbers, variance: Numbers, schedule: Schedule, *, form: Form = Form.DATA) -> None:
        centre, spread = _double(mean), _double(variance)
        size, basis = centre.numel(), None
        flat = centre.reshape(1, -1)
        if spread.ndim == 0 or spread.shape == centre.shape:
            values = spread.reshape(1, -1)
        elif spread.shape == (size, size):
            if not torch.allclose(spread, spread.mT):
                raise SpecError("expected a symmetric covariance, found one that is not")
            eigenvalues, basis = torch.linalg.eigh(spread)
            values, flat = eigenvalues[None], flat @ basis
        else:
            raise SpecError(
                f"expected a variance that is one number, of shape {tuple(centre.shape)} or {(size, size)}, found "
                f"shape {tuple(spread.shape)}"
            )
        one = torch.ones(1, dtype=torch.float64)
        super().__init__(one, flat, values, basis, tuple(centre.shape), schedule, form)


class GaussianMixture(Mixture):
    """A mixture of Gaussians with isotropic or diagonal covariances.

    Args:
        weights: Shape (K,), positive; scaled to sum one.
        means: Shape (K, *shape).
        variances: One number, one for each component (K,), or one for each element (K, *shape).
        schedule: The noise schedule.
        form: What the model returns.

    Raises:
        SpecError: if a shape is wrong, a weight is not positive or a variance is negative.
    """

    def __init__(
        self, weights: Numbers, means: Numbers, variances: Numbers, schedule: Schedule, *, form: Form = Form.DATA
    ) -> None:
        shares, centres, spreads = _double(weights), _double(means), _double(variances)
        count = len(shares) if shares.ndim == 1 else -1
        if centres.ndim == 0 or len(centres) != count or not bool((shares > 0).all()):
            raise SpecError(
                f"expected K positive weights and means of shape (K, *shape), found shapes {tuple(shares.shape)} and "
                f"{tuple(centres.shape)}"
            )
        if spreads.ndim == 0:
            spreads = spreads.expand(count)
        if spreads.shape not in ((count,), centres.shape):
            raise SpecError(
                f"expected variances of shape () or {(count,)} or {tuple(centres.shape)}, found shape "
                f"{tuple(spreads.shape)}"
            )
        shape = tuple(centres.shape[1:])
        super().__init__(
            shares / shares.sum(), centres.reshape(count, -1), spreads.reshape(count, -1), None, shape, schedule, form
        )


def _double(values: Numbers) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu()
