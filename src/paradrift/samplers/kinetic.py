r"""Langevin dynamics of one potential, solved exactly over a step with the force frozen.

With positions u, velocities v, friction :math:`\gamma` and the score :math:`s = \nabla\log\pi` as force,

.. math:: du = v\,dt, \qquad dv = -\gamma v\,dt + s(u)\,dt + \sqrt{2\gamma}\,dw .

Over a step of length h with s held at its start, and :math:`E = e^{-\gamma h}`,

.. math::
    u' = u + \tfrac{1-E}{\gamma} v + \psi_u s + n_u, \qquad v' = E v + \psi_v s + n_v, \qquad
    \psi_v = \tfrac{1-E}{\gamma}, \quad \psi_u = \tfrac{1}{\gamma}\big(h - \tfrac{1-E}{\gamma}\big),

with noises that are Gaussian together, independently in every element:

.. math::
    \mathrm{Var}\,n_v = 1 - E^2, \qquad \mathrm{Cov}(n_u, n_v) = \tfrac{(1-E)^2}{\gamma}, \qquad
    \mathrm{Var}\,n_u = \tfrac{2}{\gamma}\Big(h - \tfrac{2(1-E)}{\gamma} + \tfrac{1-E^2}{2\gamma}\Big).

What the velocity's noise does not explain of the position's has the variance
:math:`\tfrac{2}{\gamma^2}(\gamma h - 2\tanh(\gamma h / 2))`. The stationary law is :math:`\pi(u)\,N(v; 0, 1)` up
to the error of the frozen force.

Source: Cheng, Chatterji, Bartlett, Jordan 2018, arXiv 1707.03663, the integrator; Chen, Ren, Ying, Rotskoff 2024, arXiv
2405.15986, Algorithm 3, where it corrects the probability-flow ODE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paradrift.errors import SpecError

_SMALL = 0.1  # of gamma h: below it the closed forms cancel, and the series are exact to 1e-13


@dataclass(frozen=True)
class KineticStep:
    """Coefficients of one step; everything per element.

    Args:
        u_v: Weight of the old velocity in the new position.
        u_s: Weight of the score in the new position, psi_u.
        v_v: Weight of the old velocity in the new velocity, E.
        v_s: Weight of the score in the new velocity, psi_v.
        v_noise: Standard deviation of the velocity's noise, a multiple of one standard normal.
        u_shared: Weight of that same normal in the position.
        u_noise: Weight of a second, independent normal in the position.
    """

    u_v: float
    u_s: float
    v_v: float
    v_s: float
    v_noise: float
    u_shared: float
    u_noise: float


def kinetic_step(length: float, friction: float) -> KineticStep:
    r"""The step's coefficients, with series where the closed forms cancel.

    Args:
        length: Step size h > 0, in the time of the dynamics.
        friction: gamma > 0, per unit of that time.

    Returns:
        The coefficients.

    Raises:
        SpecError: if one of them is not a positive number.

    Example:
        >>> step = kinetic_step(0.5, 2.0)
        >>> round(step.v_v, 6), round(step.v_noise**2, 6), round(step.u_shared * step.v_noise, 6)
        (0.367879, 0.864665, 0.199788)
    """
    for name, value in (("step size", length), ("friction", friction)):
        if not (value > 0 and math.isfinite(value)):
            raise SpecError(f"expected a positive {name}, found {value}")
    x = friction * length
    lost = -math.expm1(-x)  # 1 - E
    velocity = math.sqrt(-math.expm1(-2 * x))
    if x < _SMALL:
        drift = x**2 * (1 / 2 - x / 6 + x**2 / 24 - x**3 / 120 + x**4 / 720 - x**5 / 5040 + x**6 / 40320)
        y = (x / 2) ** 2
        alone = x**3 / 4 * (1 / 3 - 2 * y / 15 + 17 * y**2 / 315 - 62 * y**3 / 2835 + 1382 * y**4 / 155925)
    else:
        drift, alone = x - lost, x - 2 * math.tanh(x / 2)
    return KineticStep(
        u_v=lost / friction,
        u_s=drift / friction**2,
        v_v=1 - lost,
        v_s=lost / friction,
        v_noise=velocity,
        u_shared=lost**2 / (friction * velocity),
        u_noise=math.sqrt(2 * alone) / friction,
    )
