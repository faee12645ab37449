r"""The hub between model parametrisations: every form is affine in the state and the data prediction.

A noisy state is :math:`x = \alpha x_0 + \sigma \epsilon`. A network may predict any of

========  =====================================  ==========================================
form      meaning                                in terms of the state and the data prediction
========  =====================================  ==========================================
DATA      :math:`\hat x_0`                        :math:`D`
NOISE     :math:`\hat\epsilon`                    :math:`(x - \alpha D)/\sigma`
V         :math:`\alpha\hat\epsilon-\sigma\hat x_0`  :math:`(\alpha/\sigma) x - ((\alpha^2+\sigma^2)/\sigma) D`
FLOW      :math:`\hat\epsilon-\hat x_0`           :math:`x/\sigma - ((\alpha+\sigma)/\sigma) D`
SCORE     :math:`-\hat\epsilon/\sigma`            :math:`-x/\sigma^2 + (\alpha/\sigma^2) D`
RESIDUAL  score plus state                       :math:`(1-1/\sigma^2) x + (\alpha/\sigma^2) D`
========  =====================================  ==========================================

so that each row of the table above is a pair :math:`(p, q)` with :math:`f = p x + q D`, and any conversion is two
such pairs. This is what makes a sampler written for one form usable with a model of another, and what turns "Picard in
another form" into nothing more than another slope (see :mod:`paradrift.slopes`).

Sources: Salimans and Ho 2022 (v), Lipman et al. 2023 (flow matching), Song et al. 2021 (score).
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paradrift.errors import SpecError

Array = NDArray[np.float64]


class Form(enum.Enum):
    """What a model output means; see the table of :mod:`paradrift.forms`."""

    DATA = "data"
    NOISE = "noise"
    V = "v"
    FLOW = "flow"
    SCORE = "score"
    RESIDUAL = "residual"
    VALUE = "value"  # a bare function value (ODE right sides, forces): no schedule, converts to nothing


class Affine(NamedTuple):
    """The map :math:`y = p x + q f`, elementwise, one pair of coefficients per row.

    Args:
        p: Coefficients of the state, shape (R,).
        q: Coefficients of the model output, shape (R,).
    """

    p: Array
    q: Array


def from_data(form: Form, alpha: Array, sigma: Array) -> Affine:
    """Coefficients of ``f = p x + q D`` for the data prediction ``D``.

    Args:
        form: The form of ``f``.
        alpha: Signal level per row, shape (R,).
        sigma: Noise level per row, shape (R,), positive unless the form is DATA.

    Returns:
        The pair (p, q), float64.

    Raises:
        SpecError: if the form is VALUE, or divides by a noise level of zero.
    """
    alpha, sigma = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    if form is Form.VALUE:
        raise SpecError("expected a form tied to a noise schedule, found Form.VALUE, which converts to nothing")
    if form is Form.DATA:
        return Affine(np.zeros_like(alpha), np.ones_like(alpha))
    if np.any(sigma <= 0):
        raise SpecError(
            f"expected sigma > 0 where the model is evaluated in {form.value} form, found "
            f"{float(np.min(sigma))}: end the grid before sigma = 0, or use the data form"
        )
    match form:
        case Form.NOISE:
            return Affine(1 / sigma, -alpha / sigma)
        case Form.V:
            return Affine(alpha / sigma, -(alpha**2 + sigma**2) / sigma)
        case Form.FLOW:
            return Affine(1 / sigma, -(alpha + sigma) / sigma)
        case Form.SCORE:
            return Affine(-1 / sigma**2, alpha / sigma**2)
        case Form.RESIDUAL:
            return Affine(1 - 1 / sigma**2, alpha / sigma**2)


def convert(source: Form, target: Form, alpha: Array, sigma: Array) -> Affine:
    """Coefficients of ``f_target = p x + q f_source``.

    Args:
        source: The form at hand.
        target: The form wanted.
        alpha: Signal level per row, shape (R,).
        sigma: Noise level per row, shape (R,).

    Returns:
        The pair (p, q), float64; exactly (0, 1) when the two forms agree.

    Raises:
        SpecError: if a conversion divides by zero (``alpha = 0`` or ``sigma = 0``), or involves VALUE.

    Example:
        >>> import numpy as np
        >>> p, q = convert(Form.NOISE, Form.DATA, np.array([0.8]), np.array([0.6]))
        >>> round(float(p[0]), 12), round(float(q[0]), 12)
        (1.25, -0.75)
    """
    alpha, sigma = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    if source is target:
        return Affine(np.zeros_like(alpha), np.ones_like(alpha))
    # Closed forms where the detour through D would divide by alpha and lose digits: eps-type forms agree without D.
    if source is Form.NOISE and target is Form.SCORE:
        _positive(sigma, "sigma", source, target)
        return Affine(np.zeros_like(alpha), -1 / sigma)
    if source is Form.SCORE and target is Form.NOISE:
        return Affine(np.zeros_like(alpha), -sigma)
    if source is Form.V and target is Form.DATA:
        norm = alpha**2 + sigma**2
        return Affine(alpha / norm, -sigma / norm)
    if source is Form.V and target is Form.NOISE:
        norm = alpha**2 + sigma**2
        return Affine(sigma / norm, alpha / norm)
    if source is Form.FLOW and target is Form.DATA:
        return Affine(1 / (alpha + sigma), -sigma / (alpha + sigma))
    if source is Form.FLOW and target is Form.NOISE:
        return Affine(1 / (alpha + sigma), alpha / (alpha + sigma))
    if target is Form.DATA:
        _positive(alpha, "alpha", source, target)
        if source is Form.NOISE:
            return Affine(1 / alpha, -sigma / alpha)
        if source is Form.SCORE:
            return Affine(1 / alpha, sigma**2 / alpha)
        if source is Form.RESIDUAL:
            return Affine((1 - sigma**2) / alpha, sigma**2 / alpha)
    to = from_data(target, alpha, sigma)
    via = convert(source, Form.DATA, alpha, sigma)
    return Affine(to.p + to.q * via.p, to.q * via.q)


def preconditioned(form: Form, alpha: Array, sigma: Array, variance: float) -> Affine:
    r"""Coefficients of ``F = p x + q f`` for the output F of a preconditioned network, of unit size at every level.

    With :math:`D = c_{skip}\, x/\alpha + c_{out} F`, :math:`c_{skip} = v / (v + \rho^2)`,
    :math:`c_{out} = \rho / \sqrt{v + \rho^2}`, :math:`\rho = \sigma/\alpha` (in units of :math:`\sqrt v`, which
    Karras et al. multiply it by), F vanishes for centred isotropic Gaussian data of variance v, is the data prediction
    where there is only noise, and a noise prediction where there is hardly any.

    Args:
        form: The form of ``f``.
        alpha: Signal level per row, shape (R,).
        sigma: Noise level per row, shape (R,), positive.
        variance: Data variance per element, v.

    Returns:
        The pair (p, q), float64.

    Raises:
        SpecError: if the noise level is zero, or the form says nothing about the data at a signal level of zero.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1.

    Example:
        >>> import numpy as np
        >>> p, q = preconditioned(Form.DATA, np.array([1.0]), np.array([1.0]), 1.0)  # (D - x / 2) / sqrt(1 / 2)
        >>> round(float(p[0]), 4), round(float(q[0]), 4)
        (-0.7071, 1.4142)
    """
    _positive(np.asarray(sigma), "sigma", form, form)
    p, q = convert(form, Form.DATA, alpha, sigma)
    spread = alpha**2 * variance + sigma**2
    skip, out = alpha * variance / spread, sigma / np.sqrt(spread)
    return Affine((p - skip) / out, q / out)


def _positive(values: Array, name: str, source: Form, target: Form) -> None:
    if np.any(values <= 0):
        raise SpecError(
            f"expected {name} > 0 to turn {source.value} into {target.value}, found {float(np.min(values))}: "
            f"start the grid after {name} = 0 or use a model of another form"
        )
