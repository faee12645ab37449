r"""Models known in closed form: Gaussian mixtures seen through any noise schedule.

If :math:`x_0 \sim \sum_i w_i N(\mu_i, \Sigma_i)`, then :math:`x_t = \alpha x_0 + \sigma\epsilon` has the components
:math:`N(\alpha\mu_i, C_i)` with :math:`C_i = \alpha^2\Sigma_i + \sigma^2 I`, and with :math:`y_i = x - \alpha\mu_i`

.. math::
    g_i = C_i^{-1} y_i, \qquad
    r_i = \mathrm{softmax}_i\big(\log w_i - \tfrac12 y_i^\top g_i - \tfrac12\log\det C_i\big),
    \qquad -\nabla\log p_t = g = \sum_i r_i g_i, \qquad D = \sum_i r_i (\mu_i + \alpha\Sigma_i g_i).

The noise prediction is :math:`\sigma g`. Every form is a combination of D and g that divides by nothing, so the models
are exact at both ends of any schedule. Covariances share one eigenbasis, in which all is elementwise.

Sums run by halving, in one fixed order, instead of through matrix kernels, whose rounding depends on the number of
rows: a row's answer is bitwise the same whatever its batch. Everything is computed in float64 and rounded once to the
dtype of the state.

Source: Efron 2011 (Tweedie's formula); Song et al. 2021 (arXiv 2011.13456).
"""

from __future__ import annotations

from paradrift.analytic.mixture import Mixture
from paradrift.analytic.models import Gaussian, GaussianMixture, PointMass

__all__ = ["Gaussian", "GaussianMixture", "Mixture", "PointMass"]
