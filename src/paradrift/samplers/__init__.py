r"""Sequential samplers as tables: one sampler a file, each a map from (schedule, times) to a table.

Every step leads to the *next listed time*. Libraries that step by a fixed stride instead (``t - n // steps``) agree
where the grid has that stride and otherwise jump between levels that the model was not asked about.

Most of these names are points of one family. With the step ratio :math:`r = \varrho_s/\varrho_t`,

.. math:: x_s = a x_t + (\alpha_s - \alpha_t a) D + c\,\xi

is :class:`DDIM` with :math:`a = \sqrt{\sigma_s^2 - c^2}/\sigma_t`; with c = 0 it is :class:`Euler`,
:class:`FlowEuler` and :class:`Exponential` without stochasticity in noise or data form; with
:math:`c^2 = \sigma_s^2(1-r^2)` it is :class:`DDPM` and :class:`Ancestral`.
"""

from __future__ import annotations

from paradrift.samplers.accelerated import AcceleratedODE, AcceleratedSDE
from paradrift.samplers.ancestral import Ancestral
from paradrift.samplers.base import Gridded, Sampler
from paradrift.samplers.corrected import Corrected, Underdamped
from paradrift.samplers.ddim import DDIM
from paradrift.samplers.ddpm import DDPM
from paradrift.samplers.deis import DEIS
from paradrift.samplers.dpmpp_2m import DPMpp2M
from paradrift.samplers.dpmpp_3m import DPMpp3M
from paradrift.samplers.dpmpp_sde import DPMppSDE
from paradrift.samplers.euler import Euler
from paradrift.samplers.exponential import Exponential
from paradrift.samplers.flow_euler import FlowEuler
from paradrift.samplers.flow_heun import FlowHeun
from paradrift.samplers.heun import Heun
from paradrift.samplers.unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "AcceleratedODE",
    "AcceleratedSDE",
    "Ancestral",
    "Corrected",
    "DPMpp2M",
    "DPMpp3M",
    "DPMppSDE",
    "Euler",
    "Exponential",
    "FlowEuler",
    "FlowHeun",
    "Gridded",
    "Heun",
    "Sampler",
    "Underdamped",
    "UniPC",
]
