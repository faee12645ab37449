"""The engine of the analytic models; its formulas stand in :mod:`paradrift.analytic`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paradrift.denoisers import levels
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.schedules import Schedule


class Mixture:
    """A mixture of Gaussians whose covariances are diagonal in one common basis: the engine of this chapter.

    :class:`PointMass`, :class:`Gaussian` and :class:`GaussianMixture` say in their own words what it is made of.

    Args:
        weights: Shape (K,), positive, of sum one.
        means: Shape (K, d), in the common basis.
        variances: Shape (K, d) or (K, 1), eigenvalues of the covariances.
        basis: Eigenvectors as columns, shape (d, d); None: the coordinate axes.
        shape: Shape of one sample, of d elements.
        schedule: The noise schedule.
        form: What the model returns.
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        variances: Tensor,
        basis: Tensor | None,
        shape: tuple[int, ...],
        schedule: Schedule,
        form: Form,
    ) -> None:
        if form is Form.VALUE:
            raise SpecError("expected a form tied to a noise schedule, found Form.VALUE")
        if not bool((variances >= 0).all()):
            raise SpecError(f"expected variances of at least 0, found {float(variances.min())}")
        self.form, self.schedule, self.shape = form, schedule, shape
        self._weights, self._means, self._variances, self._basis = weights, means, variances, basis

    @property
    def variance(self) -> float | None:
        """Data variance, mean over the elements; None for a point mass, which has no spread to measure by."""
        weights = self._weights[:, None]
        centre = (weights * self._means).sum(0)
        spread = (weights * (self._variances + (self._means - centre) ** 2)).sum(0).mean()
        return float(spread) or None

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor | None = None) -> Tensor:
        """Evaluate the model in its form; see :meth:`paradrift.denoisers.Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Times, shape (R,).
            sample: Unused: there is no conditioning.

        Returns:
            Outputs, shape (R, *shape), in the dtype of the states.

        Raises:
            SpecError: if the states have another shape than the data.
        """
        alpha, sigma, state = self._prepare(x, t)
        shares, pulls, data = self._components(state, alpha, sigma)
        prediction = _total(shares[..., None] * data, 1) if self.form in (Form.DATA, Form.V, Form.FLOW) else state
        pull = prediction if self.form is Form.DATA else _total(shares[..., None] * pulls, 1)
        return self._restore(self._combine(prediction, pull, state, alpha, sigma), x)

    def jacobian(self, x: Tensor, t: Tensor) -> Tensor:
        """Derivative of the output by the state; dense, for small d.

        With s_i = -g_i and s = -g, the shares have the gradient r_i (s_i - s).

        Args:
            x: States, shape (R, *shape).
            t: Times, shape (R,).

        Returns:
            Shape (R, d, d), entry [r, i, j] = d output_i / d x_j, float64.
        """
        alpha, sigma, state = self._prepare(x, t)
        shares, pulls, data = self._components(state, alpha, sigma)
        tilt = shares[..., None] * ((shares[..., None] * pulls).sum(1, keepdim=True) - pulls)
        precision = (1 / self._spread(alpha, sigma)).expand_as(pulls)
        gain = alpha[:, None] * self._variances.to(x.device) * precision
        eye = torch.eye(state.shape[1], dtype=torch.float64, device=x.device)
        of_data = eye * (shares[..., None] * gain).sum(1)[:, None] + torch.einsum("rki,rkj->rij", data, tilt)
        of_pull = eye * (shares[..., None] * precision).sum(1)[:, None] + torch.einsum("rki,rkj->rij", pulls, tilt)
        total = self._combine(of_data, of_pull, eye, alpha[..., None], sigma[..., None])
        if self._basis is None:
            return total
        basis = self._basis.to(x.device)
        return basis @ total @ basis.mT

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """Logarithm of the density of x_t.

        Args:
            x: States, shape (R, *shape).
            t: Times, shape (R,).

        Returns:
            Shape (R,), float64, in nats.
        """
        alpha, sigma, state = self._prepare(x, t)
        return torch.logsumexp(self._exponents(state, alpha, sigma)[0], 1) - state.shape[1] / 2 * math.log(2 * math.pi)

    def law(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of x_t; dense, for small d.

        Args:
            t: Times, shape (R,).

        Returns:
            Shapes (R, *shape) and (R, d, d), float64.
        """
        alpha, sigma = (torch.from_numpy(level) for level in levels(self.schedule, t))
        weights = self._weights[:, None]
        centre = (weights * self._means).sum(0)
        apart = self._means - centre
        within = torch.diag_embed((weights * self._variances).sum(0).expand_as(centre))
        covariance = within + torch.einsum("ki,kj->ij", weights * apart, apart)
        if self._basis is not None:
            centre, covariance = self._basis @ centre, self._basis @ covariance @ self._basis.mT
        eye = torch.eye(len(centre), dtype=torch.float64)
        mean = alpha[:, None] * centre
        return mean.reshape(-1, *self.shape), alpha[:, None, None] ** 2 * covariance + sigma[:, None, None] ** 2 * eye

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws of the data.

        Args:
            count: How many.
            generator: A generator on the host; None: torch's own.

        Returns:
            Shape (count, *shape), float64.
        """
        chosen = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        normal = torch.randn(count, self._means.shape[1], dtype=torch.float64, generator=generator)
        drawn = self._means[chosen] + self._variances[chosen].sqrt() * normal
        return (drawn if self._basis is None else drawn @ self._basis.mT).reshape(-1, *self.shape)

    def _prepare(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.shape != (len(t), *self.shape):
            raise SpecError(f"expected states of shape {(len(t), *self.shape)}, found {tuple(x.shape)}")
        alpha, sigma = (torch.from_numpy(level).to(x.device)[:, None] for level in levels(self.schedule, t))
        state = x.double().flatten(1)
        return alpha, sigma, state if self._basis is None else _turn(state, self._basis.to(x.device))

    def _restore(self, output: Tensor, x: Tensor) -> Tensor:
        turned = output if self._basis is None else _turn(output, self._basis.mT.to(x.device))
        return turned.reshape(x.shape).to(x.dtype)

    def _spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha**2)[:, None] * self._variances.to(alpha.device) + (sigma**2)[:, None]

    def _exponents(self, state: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The unnormalised log shares (R, K) and the pulls g_i (R, K, d)."""
        spread = self._spread(alpha, sigma)
        apart = state[:, None] - alpha[:, None] * self._means.to(state.device)
        pulls = apart / spread
        volume = _total(spread.log(), 2) * (state.shape[1] // spread.shape[2])
        return self._weights.to(state.device).log() - (_total(apart * pulls, 2) + volume) / 2, pulls

    def _components(self, state: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The shares r_i (R, K), the pulls g_i and the data predictions of each component (R, K, d)."""
        exponents, pulls = self._exponents(state, alpha, sigma)
        exponents = (exponents - exponents.amax(1, keepdim=True)).exp()
        shares = exponents / _total(exponents, 1)[:, None]
        data = self._means.to(state.device) + alpha[:, None] * self._variances.to(state.device) * pulls
        return shares, pulls, data

    def _combine(self, data: Tensor, pull: Tensor, state: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The form as a combination of D, g and x; linear, so it serves derivatives too."""
        match self.form:
            case Form.DATA:
                return data
            case Form.NOISE:
                return sigma * pull
            case Form.V:
                return alpha * sigma * pull - sigma * data
            case Form.FLOW:
                return sigma * pull - data
            case Form.SCORE:
                return -pull
            case _:
                return state - pull


def _total(values: Tensor, axis: int) -> Tensor:
    """Sum over an axis by halving: elementwise additions in an order that depends on the length alone."""
    while (length := values.shape[axis]) > 1:
        half = (length + 1) // 2
        upper = values.narrow(axis, half, length - half)
        lower = values.narrow(axis, 0, length - half) + upper
        values = lower if length % 2 == 0 else torch.cat([lower, values.narrow(axis, half - 1, 1)], axis)
    return values.squeeze(axis)


def _turn(states: Tensor, basis: Tensor) -> Tensor:
    return _total(states[:, :, None] * basis, 1)
