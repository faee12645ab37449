r"""Networks of the EDM family, whose time is the noise level: :math:`x = x_0 + \sigma\epsilon`.

A denoiser in their sense, :math:`D(x, \sigma)` (EDM's preconditioned networks, k-diffusion's wrappers), predicts the
data. The raw network F behind it sees and predicts quantities of unit variance:

.. math:: D(x, \sigma) = c_\mathrm{skip} x + c_\mathrm{out} F(c_\mathrm{in} x, c_\mathrm{noise})

with :math:`s^2 = \sigma^2 + \sigma_\mathrm{data}^2`, :math:`c_\mathrm{skip} = \sigma_\mathrm{data}^2 / s^2`,
:math:`c_\mathrm{out} = \sigma\,\sigma_\mathrm{data} / s`, :math:`c_\mathrm{in} = 1/s` and
:math:`c_\mathrm{noise} = \tfrac14 \log\sigma`.

Source: Karras et al. 2022 (arXiv 2206.00364), table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from paradrift.adapters.conditioning import Conditioning, Tree
from paradrift.adapters.modules import ModuleDenoiser, denoiser
from paradrift.denoisers import column, levels
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.schedules import EDM, Schedule


@dataclass(frozen=True, eq=False)
class Preconditioned:
    """A raw network with the preconditioning of :mod:`paradrift.adapters.edm`, outside of its half precision.

    Args:
        raw: The raw network F as a bare function of (x, c_noise).
        schedule: A schedule with alpha = 1.
        sigma_data: Standard deviation of the data per element.
    """

    raw: ModuleDenoiser
    schedule: Schedule
    sigma_data: float

    @property
    def form(self) -> Form:
        """Always DATA."""
        return Form.DATA

    @property
    def variance(self) -> float | None:
        """The square of sigma_data."""
        return self.sigma_data**2

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The modules of the raw network."""
        return self.raw.modules

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate D; see :meth:`paradrift.denoisers.Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Times, shape (R,).
            sample: Sample indices, shape (R,), int64.

        Returns:
            Data predictions, shape (R, *shape).
        """
        sigma = levels(self.schedule, t)[1]
        scale = np.hypot(sigma, self.sigma_data)
        noise = torch.from_numpy(np.log(sigma) / 4)
        raw = self.raw(column(1 / scale, x) * x, noise, sample)
        return column((self.sigma_data / scale) ** 2, x) * x + column(sigma * self.sigma_data / scale, x) * raw


def edm_denoiser(
    net: Callable[..., Tensor],
    *,
    schedule: Schedule | None = None,
    variance: float | None = None,
    conditioning: Tree | None = None,
    unconditional: Tree | None = None,
) -> ModuleDenoiser:
    """A denoiser in the sense of EDM and k-diffusion: ``net(x, sigma, **conditioning)`` predicts the data.

    Args:
        net: The preconditioned network.
        schedule: Its range of noise levels; None: :class:`paradrift.schedules.EDM` with its defaults.
        variance: Data variance per element; None: measured during the solve.
        conditioning: Keyword tensors with one entry for each sample, or one for all.
        unconditional: Keyword tensors of the unconditional model.

    Returns:
        The denoiser.
    """
    return denoiser(
        net,
        predicts=Form.DATA,
        schedule=EDM() if schedule is None else schedule,
        variance=variance,
        conditioning=conditioning,
        unconditional=unconditional,
    )


def edm_network(
    net: Callable[..., Tensor],
    *,
    sigma_data: float,
    schedule: Schedule | None = None,
    conditioning: Tree | None = None,
    unconditional: Tree | None = None,
) -> Preconditioned:
    """A raw network F of the EDM family, called as ``net(c_in x, c_noise, **conditioning)``.

    Args:
        net: The raw network.
        sigma_data: Standard deviation of the data per element that it was trained with; 0.5 in the source.
        schedule: Its range of noise levels; None: :class:`paradrift.schedules.EDM` with its defaults.
        conditioning: Keyword tensors with one entry for each sample, or one for all.
        unconditional: Keyword tensors of the unconditional model.

    Returns:
        The denoiser D.

    Raises:
        SpecError: if sigma_data is not positive.
    """
    if not sigma_data > 0:
        raise SpecError(f"expected sigma_data > 0, found {sigma_data}")
    raw = ModuleDenoiser(net, Form.VALUE, None, None, Conditioning(conditioning, unconditional))
    return Preconditioned(raw, EDM() if schedule is None else schedule, sigma_data)
