"""DEIS: the exponential integrator with Adams and Bashforth's rule in the noise prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.base import Levels, levels
from paradrift.schedules import Schedule
from paradrift.tableau import Rows, Tableau

_POINTS, _SHARES = np.polynomial.legendre.leggauss(32)
_INNER, _SHARES = (1 + _POINTS) / 2, _SHARES / 2  # from 0 to 1


@dataclass(frozen=True, kw_only=True)
class DEIS:
    r"""The diffusion exponential integrator sampler: a polynomial through the last noise predictions.

    With :math:`\varrho = \sigma/\alpha`, the probability-flow ODE is :math:`d(x/\alpha) = \hat\epsilon\,d\varrho`.
    Interpolating the last outputs by Lagrange's polynomials :math:`\ell_i` in a variable :math:`w(\varrho)` gives

    .. math:: x_s = \frac{\alpha_s}{\alpha_t} x_t - \alpha_s \sum_{i=0}^{r} C_i \hat\epsilon_{t_{-i}}, \qquad
        C_i = \int_{\varrho_s}^{\varrho_t} \ell_i\,d\varrho
        = -\ell_i(w_s)(\varrho_s - \varrho_t) + \int_{w_t}^{w_s} \ell_i'(w)\,(\varrho(w) - \varrho_t)\,dw.

    The table speaks of data predictions, :math:`\hat\epsilon = (x - \alpha D)/\sigma`, so that a start without signal
    has a first step; the outputs there count for no later step. With ``order=0`` it is DDIM. The first steps use what
    outputs there are; a step to a noiseless end is of order 0 but in "rho": in log-rho that end is at infinity, and a
    discrete schedule has no levels on the way to it.

    Source: Zhang and Chen 2023, arXiv 2204.13902, equations 14 and 15 ("time": tAB-DEIS) and section 4 ("rho":
    rhoAB-DEIS). Twin of "log-rho": diffusers' ``DEISMultistepScheduler``, whose ``solver_order`` is our order + 1.

    Args:
        order: r, the degree of the polynomial: 0 to 3.
        variable: What the polynomial is in: "log-rho" as in diffusers, "rho", or the model's "time". Between the
            integer times of a discrete schedule the last is only piecewise smooth.
        short: Grids of fewer steps end with steps of order at most 1 and 0, for stability; 15 is diffusers'
            ``lower_order_final``, 0 turns this off.

    Raises:
        SpecError: if the order or the variable is another, or the grid leaves the schedule.

    Cost: N nodes for N steps, reach r + 1. Converges with order r + 1 where the first steps are short.

    Example:
        >>> from paradrift.schedules import EDM
        >>> table = DEIS(order=1, variable="rho", short=0).tableau(EDM(), np.array([3.0, 2.0, 1.0])).reform(Form.NOISE)
        >>> table.b[2].round(12).tolist()
        [0.5, -1.5, 0.0]
    """

    order: Literal[0, 1, 2, 3] = 2
    variable: Literal["log-rho", "rho", "time"] = "log-rho"
    short: int = 15

    def __post_init__(self) -> None:
        if self.order not in (0, 1, 2, 3):
            raise SpecError(f"expected an order from 0 to 3, found {self.order}: choose one of them")
        if self.variable not in ("log-rho", "rho", "time"):
            raise SpecError(f"expected variable 'log-rho', 'rho' or 'time', found {self.variable!r}: choose one")

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.
        """
        grid = levels(schedule, times)
        with np.errstate(divide="ignore"):
            relative = grid.sigma / grid.alpha
            places = {"log-rho": np.log(relative), "rho": relative, "time": grid.t}[self.variable]
        rows = Rows(form=Form.DATA, start=grid.start)
        rows.add(t=grid.t[0], alpha=grid.alpha[0], sigma=grid.sigma[0])
        for step, order in enumerate(self._orders(grid)):
            alpha = grid.alpha[step + 1]
            # the rest of x_t's weight is the noise prediction's, so that nothing is divided by alpha_t
            a, b = {step: grid.decay[step]}, {step: alpha * (1 - grid.ratio[step])}
            if order > 0:
                nodes = np.arange(step, step - order - 1, -1)
                weights = self._integrals(schedule, places[nodes], places[step + 1], relative[step : step + 2])
                weights[0] -= relative[step] - relative[step + 1]  # what DDIM has already
                for node, weight in zip(nodes.tolist(), alpha * weights, strict=True):
                    a[node] = a.get(node, 0.0) - weight / grid.sigma[node]
                    b[node] = b.get(node, 0.0) + weight * grid.alpha[node] / grid.sigma[node]
            last = step == grid.steps - 1
            rows.add(t=grid.t[step + 1], alpha=alpha, sigma=grid.sigma[step + 1], a=a, b=b, evaluated=not last)
        return rows.build()

    def _orders(self, grid: Levels) -> list[int]:
        """The degree of the polynomial in each step."""
        without = int(grid.alpha[0] == 0)
        known = np.maximum(np.arange(grid.steps) - without, 0)
        left = grid.steps - 1 - np.arange(grid.steps) if grid.steps < self.short else np.full(grid.steps, self.order)
        reachable = (grid.ratio > 0) | (self.variable == "rho")
        return np.where(reachable, np.minimum(np.minimum(known, left), self.order), 0).tolist()

    def _integrals(self, schedule: Schedule, nodes: Array, end: float, relative: Array) -> Array:
        """The C of the docstring, by parts and Gauss's rule; nodes and end are values of the variable."""
        span = end - nodes[0]
        places = nodes[0] + span * _INNER
        match self.variable:
            case "log-rho":
                above = relative[0] * np.expm1(places - nodes[0])
            case "rho":
                above = places - nodes[0]
            case "time":
                above = np.asarray(schedule.sigma(places)) / np.asarray(schedule.alpha(places)) - relative[0]
        # Lagrange's polynomials as columns of coefficients; with the step from 0 to 1 they stay of size one
        scaled = (nodes - nodes[0]) / span
        powers = np.arange(len(nodes))
        basis = np.linalg.inv(scaled[:, None] ** powers)
        inner = (_SHARES * above) @ _INNER[:, None] ** powers[:-1]  # moments of rho(w) - rho_t
        return (powers[1:] * inner) @ basis[1:] - basis.sum(axis=0) * (relative[1] - relative[0])
