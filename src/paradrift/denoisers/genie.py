"""GENIE: the second derivative of the flow inside the model, so that DDIM is of second order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from paradrift.denoisers.base import Denoiser, Wrapper, column
from paradrift.denoisers.reform import Reform
from paradrift.errors import SpecError
from paradrift.forms import Array, Form, convert
from paradrift.schedules import Schedule


class _Flow(NamedTuple):
    """Levels of rows, all of shape (R,)."""

    gamma: Array
    alpha: Array
    t: Array


@dataclass(frozen=True)
class GENIE(Wrapper):
    r"""The noise prediction with half a step of its own derivative along the flow.

    With :math:`\bar x = x/\alpha` and :math:`\gamma = \sigma/\alpha` the probability-flow ODE is
    :math:`d\bar x = \hat\epsilon\,d\gamma`, and Taylor's polynomial of second order for a step from :math:`\gamma_t` to
    :math:`\gamma_s` is

    .. math:: \bar x_s = \bar x_t + \Delta\,\Big[\hat\epsilon + \frac{\Delta}{2} \frac{d\hat\epsilon}{d\gamma}\Big],
        \qquad \Delta = \gamma_s - \gamma_t, \qquad
        \frac{d\hat\epsilon}{d\gamma} = \frac{\partial\hat\epsilon}{\partial\bar x}\hat\epsilon
        + \frac{\partial\hat\epsilon}{\partial\gamma}.

    The bracket is what this denoiser returns, so that :class:`~paradrift.DDIM` *on the same times* is the method. The
    derivative is one number per element, in the direction of the flow, from either of

    - "difference": the model at :math:`\gamma (1 \pm \text{probe})` on the tangent, inside the first and last node.
      Every model can; float32 keeps about four digits with the default.
    - "forward": forward-mode derivatives through the model by ``torch.func.jvp``, exact up to the derivatives of the
      schedule. The model must be written in torch operations of x and t throughout, so neither
      analytic models nor wrappers that look up levels on the host can; a model that ignores changes of t by less than
      one, as tables of embeddings do, gives a wrong answer.

    The paper trains a small head for this derivative; here nothing is trained.

    Source: Dockhorn, Vahdat and Kreis 2022, arXiv 2210.05475, section 3.

    Args:
        denoiser: A denoiser with a schedule, in any form.
        times: The times of the sampler, shape (N + 1,), decreasing, N >= 2.
        derivative: "difference" or "forward".
        probe: Length of the difference, as a share of gamma.

    Raises:
        SpecError: if there is no schedule, the times are too few or start without signal, or a setting is another;
            when called, if a time is none of the nodes.

    Cost: two calls a node, of R and of 2R rows ("difference"), or one call of about twice the work and memory.

    Example:
        >>> import paradrift as pd
        >>> times = pd.grids.log_snr(pd.EDM(), 12)
        >>> model = GENIE(pd.Gaussian([0.0], 1.0, pd.EDM()), tuple(times))
        >>> pd.sample(model, (1, 1), sampler=pd.DDIM(), times=times).stats.nodes
        12
    """

    denoiser: Denoiser
    times: tuple[float, ...]
    derivative: Literal["difference", "forward"] = "difference"
    probe: float = 1e-2

    def __post_init__(self) -> None:
        if self.derivative not in ("difference", "forward") or not 0 < self.probe < 1:
            raise SpecError(
                "expected derivative 'difference' or 'forward' and probe between 0 and 1, found "
                f"{self.derivative!r} and {self.probe}"
            )
        schedule = self._known()
        if len(self.times) < 3 or not schedule.alpha(np.asarray(self.times[:1], np.float64))[0] > 0:
            raise SpecError(
                f"expected at least 3 times, the first with signal, found {len(self.times)} from "
                f"t={self.times[0] if self.times else None}: start the grid later or take more steps"
            )

    @property
    def form(self) -> Form:
        """The noise prediction."""
        return Form.NOISE

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate the bracket; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,), each one of the nodes.
            sample: Sample indices, shape (R,).

        Returns:
            Shape (R, *shape), in noise form.
        """
        grid = np.asarray(self.times, np.float64)
        asked = t.detach().to("cpu", torch.float64).numpy()
        at = np.abs(grid[None, :-1] - asked[:, None]).argmin(axis=1)
        # float32 times are accepted
        if not np.allclose(grid[at], asked, rtol=1e-6, atol=1e-6):
            raise SpecError(
                f"expected times among the {len(grid) - 1} nodes of this grid, found t={asked.max()}: give GENIE the "
                "sampler's own times"
            )
        here, ahead, ends = self._levels(grid[at]), self._levels(grid[at + 1]), self._levels(grid[[0, -2]])
        around = []
        for factor in (1 + self.probe, 1 - self.probe):
            gamma = np.clip(here.gamma * factor, ends.gamma[1], ends.gamma[0])
            around.append(self._levels(np.asarray(self._known().time(-np.log(gamma)), np.float64)))
        rule = self._difference if self.derivative == "difference" else self._forward
        noise, slope = rule(x, t, sample, here, around[0], around[1])
        return noise + column((ahead.gamma - here.gamma) / 2, x) * slope

    def _difference(
        self, x: Tensor, t: Tensor, sample: Tensor, here: _Flow, above: _Flow, below: _Flow
    ) -> tuple[Tensor, Tensor]:
        """The noise prediction and its derivative from two more rows for each row."""
        model = Reform(self.denoiser, Form.NOISE)
        noise = model(x, t, sample)
        states = [
            column(side.alpha / here.alpha, x) * x + column(side.alpha * (side.gamma - here.gamma), x) * noise
            for side in (above, below)
        ]
        times = torch.from_numpy(np.concatenate([above.t, below.t])).to(t.device)
        up, down = model(torch.cat(states), times, torch.cat([sample, sample])).chunk(2)
        return noise, (up - down) * column(1 / (above.gamma - below.gamma), x)

    def _forward(
        self, x: Tensor, t: Tensor, sample: Tensor, here: _Flow, above: _Flow, below: _Flow
    ) -> tuple[Tensor, Tensor]:
        """The same by forward-mode derivatives of the model, in its own form, with noise = p x + q f."""

        def pair(side: _Flow) -> tuple[Array, Array]:
            return convert(self.denoiser.form, Form.NOISE, side.alpha, side.alpha * side.gamma)

        def rate(high: Array, low: Array) -> Array:
            return (high - low) / (above.gamma - below.gamma)

        (p, q), (p_up, q_up), (p_down, q_down) = pair(here), pair(above), pair(below)
        # Samplers run without a graph, in a mode that knows no derivatives: leave it, on ordinary tensors.
        with torch.inference_mode(False), torch.no_grad():
            x, t, sample = x.clone(), t.clone(), sample.clone()
            noise = column(p, x) * x + column(q, x) * self.denoiser(x, t, sample)
            flow = column(rate(above.alpha, below.alpha) / here.alpha, x) * x + column(here.alpha, x) * noise
            ticks = torch.from_numpy(rate(above.t, below.t)).to(t.device, t.dtype)
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward-mode rule
                pushed = torch.func.jvp(lambda x, t: self.denoiser(x, t, sample), (x, t), (flow, ticks))
            slope = column(p, x) * flow + column(q, x) * pushed[1]
            slope = slope + column(rate(p_up, p_down), x) * x + column(rate(q_up, q_down), x) * pushed[0]
        return noise, slope

    def _known(self) -> Schedule:
        """The schedule, which must be there."""
        if self.schedule is None:
            raise SpecError("expected a denoiser with a schedule, found none: give the denoiser its schedule")
        return self.schedule

    def _levels(self, times: Array) -> _Flow:
        """The levels at times of any kind."""
        alpha = np.asarray(self._known().alpha(times), np.float64)
        return _Flow(np.asarray(self._known().sigma(times), np.float64) / alpha, alpha, times)
