"""One model in another form."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from paradrift.denoisers.base import Denoiser, Wrapper, column, levels
from paradrift.errors import SpecError
from paradrift.forms import Form, convert
from paradrift.schedules import Schedule

KEPT = 1024  # weights of as many calls

Weights = tuple[Tensor, Tensor | None]  # of the output, and of the state if it is not zero


@dataclass(frozen=True)
class Reform(Wrapper):
    """The same model in another form: f' = p x + q f, with (p, q) from :func:`paradrift.forms.convert`.

    The pair is computed per row in float64 on the host, from the schedule at the times of the call, and cast once.
    Pairs of a sequential sampler's calls, whose rows are all at one time, are kept: the same times come again.

    Args:
        denoiser: A denoiser with a schedule.
        form: The form wanted.

    Raises:
        SpecError: if the denoiser has no schedule and another form; when called, if a conversion divides by zero.

    Cost: some tens of microseconds, a few where they are kept, and two passes over the states.
    """

    denoiser: Denoiser
    form: Form
    _kept: dict[tuple[object, ...], tuple[Schedule, Weights]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

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
        source, schedule = self.denoiser.form, self.schedule
        if self.form is source or schedule is None:
            return output
        q, p = self._weights(schedule, source, x, t)
        scaled = output * q
        return scaled if p is None else scaled + p * x

    def _weights(self, schedule: Schedule, source: Form, x: Tensor, t: Tensor) -> Weights:
        times = t.tolist()
        key = (times[0], len(times), source, x.dtype, x.device, x.ndim) if _same(times) else None
        known = None if key is None else self._kept.get(key)
        if known is not None and known[0] is schedule:
            return known[1]
        with torch.inference_mode(False):  # ordinary tensors, which may be used in any mode
            p, q = convert(source, self.form, *levels(schedule, t))
            found = column(q, x), column(p, x) if np.any(p) else None
        if key is not None and fixed(schedule):
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[key] = schedule, found
        return found


def fixed(schedule: Schedule) -> bool:
    """Whether a schedule is a frozen dataclass: what it says of a time once is what it would say again."""
    kind = getattr(type(schedule), "__dataclass_params__", None)
    return kind is not None and kind.frozen


def _same(times: list[float]) -> bool:
    """Whether all rows are at one time."""
    return bool(times) and times.count(times[0]) == len(times)
