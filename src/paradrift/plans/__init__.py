r"""Plans: what an accuracy costs, by the theorems of PIADM, before anything is run.

Theorem 3.3 (PIADM-SDE) and Theorem 3.5 (PIADM-ODE with its corrector) split the error of the samples' law into four
terms: truncation at a finite horizon, discretisation, the network's own error, and Picard sweeps that stop early. A
:class:`Plan` gives each term a quarter of the budget and says which horizon, blocks, steps and sweeps that takes.

The theorems give orders. Every factor that they hide is a field of :class:`Constants`, 1 unless given, and :func:`fit`
finds them from the errors of a pilot run.

Source: Chen, Ren, Ying, Rotskoff 2024, arXiv 2405.15986.
"""

from __future__ import annotations

from paradrift.plans.budget import plan
from paradrift.plans.constants import Constants, Terms
from paradrift.plans.fitting import Measured, fit
from paradrift.plans.theorems import Corrector, Plan

__all__ = ["Constants", "Corrector", "Measured", "Plan", "Terms", "fit", "plan"]
