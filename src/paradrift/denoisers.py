r"""What a model is to this library: rows in, rows out.

A denoiser maps R noisy states at R times, belonging to R (not necessarily different) samples, to R outputs. Rows are
independent: no row's output may depend on another row of the same call, which is what allows many time steps, samples
and guidance halves to share one batch.

``sample`` selects the conditioning. The index i >= 0 asks for sample i under its conditioning; the index ``~i`` (that
is, -1 - i) asks for sample i under the *unconditional* entry. So the two halves of classifier-free guidance are 2R rows
of one call of any denoiser, however it is wrapped.

Wrappers compose: ``Counted(Clipped(Guided(denoiser, 3.0)))``. Each passes on ``variance`` and ``modules``, the torch
modules behind it, which the caller may switch to evaluation mode. Times may stay on the host, where schedules live:
a wrapper that needs alpha(t) then waits for no device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from paradrift.errors import SpecError
from paradrift.forms import Array, Form, convert
from paradrift.schedules import Schedule


@runtime_checkable
class Denoiser(Protocol):
    """A model with its form and its noise schedule."""

    @property
    def form(self) -> Form:
        """What the outputs mean."""
        ...

    @property
    def schedule(self) -> Schedule | None:
        """The noise schedule that the model was trained with, None for a bare function of (x, t)."""
        ...

    @property
    def variance(self) -> float | None:
        """Data variance per element, v0, the unit of tolerances; None when unknown."""
        ...

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate the model.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,), floating point; float64 where the schedule is to be exact.
            sample: Index of the sample that each row belongs to, shape (R,), int64: selects the conditioning.

        Returns:
            Outputs, shape (R, *shape), in the form that the denoiser declares.
        """
        ...


def modules(denoiser: Denoiser) -> tuple[nn.Module, ...]:
    """The torch modules behind a denoiser, whose mode and gradients the caller may switch.

    Args:
        denoiser: Any denoiser.

    Returns:
        Its ``modules``, or nothing for one that names none.
    """
    return tuple(getattr(denoiser, "modules", ()))


def levels(schedule: Schedule, t: Tensor) -> tuple[Array, Array]:
    """Signal and noise level of each row, on the host.

    Args:
        schedule: The noise schedule.
        t: Times, shape (R,); on a device, this waits for it.

    Returns:
        alpha and sigma, shape (R,), float64.
    """
    times = t.detach().to("cpu", torch.float64).numpy()
    return np.asarray(schedule.alpha(times), np.float64), np.asarray(schedule.sigma(times), np.float64)


def column(values: Array, like: Tensor) -> Tensor:
    """One number per row, cast and shaped to multiply a batch of states.

    Args:
        values: Shape (R,), float64, on the host.
        like: States, shape (R, *shape).

    Returns:
        Shape (R, 1, ..., 1), in the dtype and on the device of the states.
    """
    cast = torch.from_numpy(np.array(values, np.float64)).to(like.device, like.dtype)
    return cast.reshape(-1, *(1,) * (like.ndim - 1))


class _Around:
    """What every wrapper passes on unchanged."""

    denoiser: Denoiser

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    @property
    def variance(self) -> float | None:
        """The variance of the denoiser."""
        return self.denoiser.variance

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The modules of the denoiser."""
        return modules(self.denoiser)


@dataclass(frozen=True)
class Reform(_Around):
    """The same model in another form: f' = p x + q f, with (p, q) from :func:`paradrift.forms.convert`.

    The pair is computed per row in float64 on the host, from the schedule at the times of the call, and cast once.

    Args:
        denoiser: A denoiser with a schedule.
        form: The form wanted.

    Raises:
        SpecError: if the denoiser has no schedule and another form; when called, if a conversion divides by zero.

    Cost: some tens of microseconds and two passes over the states.
    """

    denoiser: Denoiser
    form: Form

    def __post_init__(self) -> None:
        if self.denoiser.schedule is None and self.form is not self.denoiser.form:
            raise SpecError(
                f"expected a denoiser with a schedule to turn {self.denoiser.form.value} into {self.form.value}, "
                "found none: give the denoiser its schedule"
            )

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate and convert; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            Outputs in the form wanted, shape (R, *shape).
        """
        output = self.denoiser(x, t, sample)
        if self.form is self.denoiser.form or self.schedule is None:
            return output
        p, q = convert(self.denoiser.form, self.form, *levels(self.schedule, t))
        scaled = output * column(q, x)
        return scaled + column(p, x) * x if np.any(p) else scaled


@dataclass(frozen=True)
class Guided(_Around):
    r"""Classifier-free guidance, both halves in one call of 2R rows.

    .. math:: f = f_\varnothing + w\,(f_c - f_\varnothing)

    The weights sum to one, so guidance is the same function in every form. With ``rescale`` = phi the standard
    deviation over a row's elements is pulled back to that of the conditional half,
    :math:`f \leftarrow \phi f\,\mathrm{std}(f_c)/\mathrm{std}(f) + (1-\phi) f`, in the form of the denoiser.

    The unconditional half asks the denoiser for the samples ``~i``; see :mod:`paradrift.denoisers`.

    Args:
        denoiser: A denoiser that knows conditional and unconditional entries.
        scale: The weight w; 1 is the conditional model.
        rescale: phi between 0 (off, the default of the source's baseline) and 1; the source uses 0.7.

    Raises:
        SpecError: if rescale is not between 0 and 1.

    Cost: 2R rows, one call.
    Source: Ho and Salimans 2022 (arXiv 2207.12598); Lin et al. 2024 (arXiv 2305.08891), equations 14 to 16.
    """

    denoiser: Denoiser
    scale: float
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rescale <= 1:
            raise SpecError(f"expected rescale between 0 and 1, found {self.rescale}")

    @property
    def form(self) -> Form:
        """The form of the denoiser."""
        return self.denoiser.form

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate both halves and combine; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            Guided outputs, shape (R, *shape).
        """
        both = self.denoiser(torch.cat([x, x]), torch.cat([t, t]), torch.cat([sample, ~sample]))
        conditional, unconditional = both.chunk(2)
        guided = unconditional + self.scale * (conditional - unconditional)
        if self.rescale == 0:
            return guided
        axes = tuple(range(1, x.ndim))
        ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        return self.rescale * (guided * ratio) + (1 - self.rescale) * guided


@dataclass(frozen=True)
class Clipped(_Around):
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


@dataclass
class Counted(_Around):
    """A denoiser that counts what it is asked.

    Args:
        denoiser: Any denoiser.
        calls: Calls so far.
        rows: Rows so far.
    """

    denoiser: Denoiser
    calls: int = 0
    rows: int = 0

    @property
    def form(self) -> Form:
        """The form of the denoiser."""
        return self.denoiser.form

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate and count; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            The denoiser's outputs, shape (R, *shape).
        """
        self.calls += 1
        self.rows += len(x)
        return self.denoiser(x, t, sample)


def _quantiles(values: Tensor, quantile: float) -> Tensor:
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    rows = max(1, (1 << 24) // values.shape[1])  # torch.quantile takes at most 2^24 elements
    return torch.cat([torch.quantile(part, quantile, dim=1) for part in values.split(rows)])
