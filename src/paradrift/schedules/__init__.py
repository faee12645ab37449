r"""Noise schedules: signal and noise levels as functions of the model's own time.

A noisy state is :math:`x_t = \alpha(t) x_0 + \sigma(t) \epsilon`. Time is whatever the network was trained with
(continuous, an integer step, a noise level), and runs from ``first`` (noise) *down* to ``last`` (data). Two derived
quantities say everything else: the relative noise :math:`\rho = \sigma/\alpha` and the log signal-to-noise ratio
:math:`\lambda = \log(\alpha/\sigma) = -\log\rho`, which grows along the sampling path.

============  ==========================================================  =============  ==================
schedule      levels                                                      time           ends
============  ==========================================================  =============  ==================
VP            :math:`\alpha = e^{-B(t)/2}`, :math:`\sigma^2 = 1-e^{-B}`   1 to 0         ``last`` (1e-3)
Cosine        :math:`\alpha \propto \cos`, :math:`\sigma^2 = 1-\alpha^2`  1 to 0         ``last`` (1e-3)
OU            :math:`\alpha = e^{-t/2}`, :math:`\sigma^2 = 1-e^{-t}`      horizon to 0   ``last`` (1e-3)
VE            :math:`\alpha = 1`, :math:`\sigma` geometric                1 to 0         sigma_min
EDM           :math:`\alpha = 1`, :math:`\sigma = t`                      sigma_max to 0  clean, 0
Flow          :math:`\alpha = 1-t`, :math:`\sigma = t`                    1 to 0         clean, 0
Discrete      :math:`\alpha^2 =` ``alphas_cumprod[t]``                    n-1 to 0       clean, -1
============  ==========================================================  =============  ==================

Everything is float64 on the host: a schedule never sees a tensor.
"""

from __future__ import annotations

from paradrift.schedules.base import Schedule, log_snr
from paradrift.schedules.discrete import Discrete
from paradrift.schedules.preserving import OU, VP, Cosine
from paradrift.schedules.straight import EDM, VE, Flow

__all__ = ["EDM", "OU", "VE", "VP", "Cosine", "Discrete", "Flow", "Schedule", "log_snr"]
