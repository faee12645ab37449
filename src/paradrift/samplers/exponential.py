"""Exponential integrators: exact in the linear part, the model output frozen over the step."""

from __future__ import annotations

from dataclasses import dataclass

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.base import fraction, levels, one_step
from paradrift.samplers.held import Levels, preserving, step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Exponential:
    r"""The exponential integrators of PIADM, in four forms, for every stochasticity between ODE and SDE.

    The reverse dynamics :math:`dx = [f x - \tfrac{1+\lambda^2}{2} g^2 s]\,dt + \lambda g\,dw` are solved exactly over
    a step with one quantity held at its value at the start of the step. With :math:`\varrho = \sigma/\alpha`,
    :math:`r = \varrho_s/\varrho_t` and :math:`\epsilon = 2\log(\alpha_s/\alpha_t)`:

    - SCORE, the score s: :math:`x_s = \frac{\alpha_s}{\alpha_t} x_t + \alpha_s \frac{1+\lambda^2}{2}
      \int_{\varrho_s}^{\varrho_t} \alpha\,d(\varrho^2)\, s + \lambda \alpha_s \sqrt{\varrho_t^2-\varrho_s^2}\,\xi`. On
      a variance-preserving schedule the weight of s is :math:`(1+\lambda^2)(e^{\epsilon/2} - 1)`, the rule of the
      paper; with :math:`\alpha = 1` it is :math:`\frac{1+\lambda^2}{2}(\sigma_t^2-\sigma_s^2)`; otherwise a quadrature.
    - NOISE, :math:`\hat\epsilon`: :math:`x_s = \frac{\alpha_s}{\alpha_t} x_t - (1+\lambda^2) \alpha_s
      (\varrho_t-\varrho_s)\,\hat\epsilon + \lambda \alpha_s \sqrt{\varrho_t^2-\varrho_s^2}\,\xi`.
    - DATA, D: :math:`x_s = \frac{\sigma_s}{\sigma_t} r^{\lambda^2} x_t + \alpha_s (1-r^{1+\lambda^2}) D + \sigma_s
      \sqrt{1-r^{2\lambda^2}}\,\xi`.
    - RESIDUAL, s + x, on variance-preserving schedules: :math:`x_s = e^{-\lambda^2\epsilon/2} x_t +
      \frac{1+\lambda^2}{\lambda^2} (1-e^{-\lambda^2\epsilon/2}) (s + x) + \sqrt{1-e^{-\lambda^2\epsilon}}\,\xi`.

    With :math:`\lambda = 0` NOISE and DATA are DDIM; with :math:`\lambda = 1` DATA is DDPM with the small variance.
    Otherwise the four are different samplers with one continuous limit. In SCORE, NOISE and RESIDUAL form the last
    noise does not vanish at a noiseless end: stop early, as the theory does.

    Sources: Chen, Ren, Ying and Rotskoff 2024, arXiv 2405.15986, algorithms 1 and 2 (score form on
    :class:`~paradrift.schedules.OU`); Zhang and Chen 2023, arXiv 2204.13902, its rule of order zero (noise form);
    Lu et al. 2022, arXiv 2211.01095, its first-order rule (data form). The residual form, and the stochasticities
    between 0 and 1, are ours.

    Args:
        form: SCORE, NOISE, DATA or RESIDUAL: what is frozen over a step, and what the table's outputs mean.
        stochasticity: lambda (upsilon in the paper): 1 is the reverse SDE, 0 the probability-flow ODE.

    Raises:
        SpecError: if the form is another, the stochasticity is not in [0, 1], the schedule starts without signal in
            any form but DATA, or is not variance-preserving in RESIDUAL form.

    Cost: N nodes for N steps, reach 1. Order 1.

    Example:
        >>> import numpy as np
        >>> from paradrift.schedules import OU
        >>> table = Exponential().tableau(OU(), np.array([2.0, 1.0]))
        >>> round(float(table.a[1, 0]), 6), round(float(table.b[1, 0]), 6), round(float(table.c[1, 1] ** 2), 6)
        (1.648721, 1.297443, 1.718282)
    """

    form: Form = Form.SCORE
    stochasticity: float = 1.0

    def __post_init__(self) -> None:
        fraction("stochasticity", self.stochasticity)
        if self.form not in (Form.SCORE, Form.NOISE, Form.DATA, Form.RESIDUAL):
            raise SpecError(
                f"expected the form SCORE, NOISE, DATA or RESIDUAL, found {self.form}: no exponential integrator "
                "freezes it; choose one of the four and let reform() speak the model's form"
            )

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in the sampler's form.

        Raises:
            SpecError: if the schedule does not fit the form.
        """
        grid = levels(schedule, times)
        if self.form is not Form.DATA and grid.alpha[0] <= 0:
            raise SpecError(
                f"expected signal at the first time to integrate in {self.form.value} form, found alpha = 0 at "
                f"t={grid.t[0]}: start the grid later or use Form.DATA"
            )
        start, end = Levels(grid.alpha[:-1], grid.sigma[:-1]), Levels(grid.alpha[1:], grid.sigma[1:])
        if self.form is Form.RESIDUAL and not (preserving(start) and preserving(end)):
            raise SpecError(
                "expected a variance-preserving schedule for the residual form, found alpha^2 + sigma^2 = "
                f"{float(grid.alpha[0] ** 2 + grid.sigma[0] ** 2)} at the start: use another form"
            )
        return one_step(grid, self.form, *step(self.form, self.stochasticity, schedule, start, end))
