"""Data predictions kept in the range of the data."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from paradrift.denoisers.base import Denoiser, Wrapper
from paradrift.denoisers.reform import Reform
from paradrift.errors import SpecError
from paradrift.forms import Form


@dataclass(frozen=True)
class Clipped(Wrapper):
    r"""The data prediction, kept in the range of the data.

    Static: clamped to [-bound, bound]. Dynamic, with ``quantile`` = p: each row is clamped to [-s, s] and divided by
    s / bound, where s is the p-quantile of its absolute values, kept between bound and ``ceiling``.

    The output is in the data form whatever the denoiser's. A sampler that uses the model through its data prediction
    alone (DDPM, data-form exponential integrators, DPM++) then equals the scheduler that clips. A scheduler whose noise
    prediction stays unclipped beside a clipped data prediction (DDIM by default) is no function of one model output:
    no table has it.

    Args:
        denoiser: A denoiser in any form.
        bound: The largest absolute value of the data; 1 for images scaled to [-1, 1].
        quantile: p for dynamic thresholding, 0.995 in the source; None: static.
        ceiling: Largest s; None: no limit.

    Raises:
        SpecError: if the bound is not positive, the quantile not in (0, 1], or the ceiling under the bound.

    Source: Ho et al. 2020 (static); Saharia et al. 2022 (arXiv 2205.11487), section 2.3 (dynamic).
    Twin: ``clip_sample`` and ``thresholding`` of diffusers' schedulers, with bound 1 and ceiling ``sample_max_value``.
    """

    denoiser: Denoiser
    bound: float = 1.0
    quantile: float | None = None
    ceiling: float | None = None
    _data: Reform = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise SpecError(f"expected a positive bound, found {self.bound}")
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise SpecError(f"expected a quantile above 0 and at most 1, found {self.quantile}")
        if self.ceiling is not None and self.ceiling < self.bound:
            raise SpecError(f"expected a ceiling of at least the bound {self.bound}, found {self.ceiling}")
        object.__setattr__(self, "_data", Reform(self.denoiser, Form.DATA))

    @property
    def form(self) -> Form:
        """Always DATA."""
        return Form.DATA

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate, convert to the data form and clip; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            Data predictions, shape (R, *shape).
        """
        data = self._data(x, t, sample)
        if self.quantile is None:
            return data.clamp(-self.bound, self.bound)
        limit = _quantiles(data.flatten(1).abs(), self.quantile).clamp(self.bound, self.ceiling)
        limit = limit.reshape(-1, *(1,) * (x.ndim - 1))
        return data.clamp(-limit, limit) / limit * self.bound


def _quantiles(values: Tensor, quantile: float) -> Tensor:
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    rows = max(1, (1 << 24) // values.shape[1])  # torch.quantile takes at most 2^24 elements
    return torch.cat([torch.quantile(part, quantile, dim=1) for part in values.split(rows)])
