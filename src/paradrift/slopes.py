r"""Slopes: how a defect travels through nodes that are not evaluated again.

Between two evaluations a node answers with the surrogate :math:`g(x) = f_{old} + s\,(x - x_{old})`. The sweep's fixed
point is the sequential sampler for any ``s``; good slopes make it come in fewer rounds. A constant slope is also what
"Picard in another form" is: with :math:`f = p x + q f'`, freezing :math:`f'` means :math:`s = p`.

=========================  =====================================================================
slope                      method
=========================  =====================================================================
``Zero()``                 Picard in the table's own form: PIADM's exponential integrator
``Zero(Form.DATA)``        Picard in data form, for a table of any form
``Increments()``           transition I: ParaDiGMS
``Constant(s)``            slope ``s`` of the data prediction in x / alpha
``Reference(variance)``    exact for isotropic Gaussian data
``Secant()``               measured: least squares through the last two iterates of each node
=========================  =====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Affine, Array, Form, convert, from_data
from paradrift.tableau import Tableau


class Slopes(Protocol):
    """Where the slope of each node comes from."""

    @property
    def measured(self) -> bool:
        """Whether slopes are replaced by secants once a node has been evaluated twice."""
        ...

    @property
    def groups(self) -> Tensor | None:
        """Group of each element, shape (*shape), int64, when secants are taken per group; None for one group."""
        ...

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and largest measured slope that is taken, of the model's own output; None for any."""
        ...

    def prior(self, table: Tableau) -> Array:
        """Slopes before anything is measured, in the table's own form.

        Args:
            table: The sampler's table.

        Returns:
            Shape (R,), float64, zero at rows that are not nodes.
        """
        ...


def to_data(table: Tableau) -> Affine:
    """Coefficients of ``f = p x + q D`` at each row of a table; (0, 1) at rows without a model or a schedule.

    Args:
        table: The sampler's table.

    Returns:
        The pair (p, q), each of shape (R,).
    """
    p, q = np.zeros(table.rows), np.ones(table.rows)
    if table.form is not Form.VALUE and table.alpha is not None and table.sigma is not None:
        nodes = table.evaluated
        scale = table.scale[nodes]  # forms speak of what the model sees
        p[nodes], q[nodes] = from_data(table.form, table.alpha[nodes] * scale, table.sigma[nodes] * scale)
        p[nodes] *= scale
    return Affine(p, q)


def in_form(table: Tableau, data_slopes: Array) -> Array:
    """Turn slopes of the data prediction in x / alpha into slopes of the table's own outputs.

    Args:
        table: The sampler's table.
        data_slopes: dD / d(x / alpha) at each row, shape (R,).

    Returns:
        df / dx at each row, shape (R,), zero at rows that are not nodes.
    """
    p, q = to_data(table)
    alpha = np.ones(table.rows) if table.alpha is None else table.alpha
    # a state without signal says nothing about the data: its slope is zero
    slopes = np.divide(data_slopes, alpha, out=np.zeros(table.rows), where=alpha > 0)
    return np.where(table.evaluated, p + q * slopes, 0.0)


def gaussian(table: Tableau, variance: float) -> Array:
    r"""Slopes of the data prediction in x / alpha for isotropic Gaussian data: :math:`v / (v + \sigma^2/\alpha^2)`.

    Args:
        table: A table with a noise schedule.
        variance: Data variance per element, v.

    Returns:
        Shape (R,), zero for tables without a schedule.
    """
    if table.alpha is None or table.sigma is None:
        return np.zeros(table.rows)
    signal = table.alpha**2 * variance
    return signal / (signal + table.sigma**2)


@dataclass(frozen=True)
class Zero:
    """Picard: outputs are frozen in a form.

    Args:
        form: The form that is frozen; None for the table's own.
    """

    measured = False
    groups = None
    bounds = None
    form: Form | None = None

    def prior(self, table: Tableau) -> Array:
        """The slope that freezing another form amounts to.

        Args:
            table: The sampler's table.

        Returns:
            Shape (R,).

        Raises:
            SpecError: if the table has no noise schedule and another form is asked for.
        """
        slopes = np.zeros(table.rows)
        if self.form is None or self.form is table.form:
            return slopes
        if table.alpha is None or table.sigma is None:
            raise SpecError(f"expected a table with a noise schedule to freeze its {self.form.value} form")
        nodes = table.evaluated
        slopes[nodes] = convert(self.form, table.form, table.alpha[nodes], table.sigma[nodes]).p
        return slopes


@dataclass(frozen=True)
class Increments:
    r"""Freeze the increments :math:`z_{m+1} - z_m`: the slope that makes every transition the identity, as ParaDiGMS.

    Source: Shih et al. 2023, arXiv 2305.16317. For one-step tables only.
    """

    measured = False
    groups = None
    bounds = None

    def prior(self, table: Tableau) -> Array:
        r"""The slope with :math:`a + b s = 1`.

        Args:
            table: A one-step table.

        Returns:
            Shape (R,).

        Raises:
            SpecError: if the table is multistep or multistage.
        """
        if table.reach > 1:
            raise SpecError(f"expected a one-step table for Increments, found one that reaches back {table.reach} rows")
        slopes = np.zeros(table.rows)
        a, b = table.band("a", 1)[1:], table.band("b", 1)[1:]
        used = b != 0
        slopes[:-1][used] = (1 - a[used]) / b[used]
        return slopes


@dataclass(frozen=True)
class Constant:
    """A constant slope of the data prediction in x / alpha.

    Args:
        value: The slope; 0 is Picard in data form, 1/2 a good compromise for images.
    """

    measured = False
    groups = None
    bounds = None
    value: float = 0.5

    def prior(self, table: Tableau) -> Array:
        """The constant in the table's own form.

        Args:
            table: The sampler's table.

        Returns:
            Shape (R,).
        """
        return in_form(table, np.full(table.rows, self.value))


@dataclass(frozen=True)
class Reference:
    """The slope that is exact for isotropic Gaussian data: with it, a longer horizon costs no more rounds.

    Args:
        variance: Data variance per element.

    Raises:
        SpecError: if the variance is not positive.
    """

    measured = False
    groups = None
    bounds = None
    variance: float = 1.0

    def __post_init__(self) -> None:
        if not self.variance > 0:
            raise SpecError(f"expected a positive reference variance, found {self.variance}")

    def prior(self, table: Tableau) -> Array:
        """The Gaussian slope in the table's own form.

        Args:
            table: The sampler's table.

        Returns:
            Shape (R,).
        """
        return in_form(table, gaussian(table, self.variance))


@dataclass(frozen=True, eq=False)
class Secant:
    r"""Measured slopes, :math:`s = \langle dx, df\rangle / \langle dx, dx\rangle`, per node and sample: the default.

    They need no evaluation beyond those of the sweep itself. Before a node has been evaluated twice it takes the slope
    that Gaussian data of the variance measured at the last known node would have there.

    Args:
        groups: Group of each element, shape (*shape), int64, starting at 0: one secant per group (coordinates against
            atom types of a molecule, say). None: one per sample and node.
        variance: Data variance per element of the Gaussian slope used before the first measurement; None for the
            denoiser's own, or 1.
        bounds: Least and largest slope of the model's output that is taken, others are clamped; None for any. Where a
            model is steep and curved, as forces of potentials that are not convex, a secant may point far beyond what
            holds at the next state, and slopes that amplify carry that through the window: ``(-math.inf, 0.0)`` lets
            none.

    Raises:
        SpecError: if the bounds are not in order.
    """

    measured = True
    groups: Tensor | None = None
    variance: float | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.bounds is not None and not self.bounds[0] <= self.bounds[1]:
            raise SpecError(f"expected bounds (least, largest) in order, found {self.bounds}")

    def prior(self, table: Tableau) -> Array:
        """The Gaussian slope in the table's own form.

        Args:
            table: The sampler's table.

        Returns:
            Shape (R,).
        """
        return in_form(table, gaussian(table, self.variance or 1.0))
