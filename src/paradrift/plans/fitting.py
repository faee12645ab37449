"""The constants of a problem, from the errors of pilot runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paradrift.errors import SpecError
from paradrift.plans.constants import Constants, positive
from paradrift.plans.theorems import Plan

NAMES = ("truncation", "discretisation", "score", "picard")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Errors measured in one pilot run; None for a term that was not measured.

    Args:
        plan: What was run. ``dataclasses.replace(plan, sweeps=3)`` is the same with other sweeps.
        truncation: In nats (SDE) or squared total variation (ODE), like the other three.
        discretisation: Of the sequential sampler, without truncation.
        score: Caused by the network's error alone.
        picard: Between the law after the plan's sweeps and that of the sequential sampler.

    Raises:
        SpecError: if a measured error is not a positive number.
    """

    plan: Plan
    truncation: float | None = None
    discretisation: float | None = None
    score: float | None = None
    picard: float | None = None

    def __post_init__(self) -> None:
        for name in NAMES:
            value = getattr(self, name)
            if value is not None:
                positive(f"the measured {name} error", value)


def fit(runs: Sequence[Measured], base: Constants | None = None) -> Constants:
    r"""Constants from pilot runs: least squares in logarithms, in closed form.

    A factor is the geometric mean of measured error over the theorem's order. Picard errors at several numbers of
    sweeps K give the contraction too: :math:`\log C - c K` is the least-squares line through their logarithms.
    A fit goes through the middle of what was measured: raise a factor where a plan must not be exceeded.

    Args:
        runs: At least one measured run.
        base: Constants of the terms that were not measured; all 1 unless given.

    Returns:
        The constants.

    Raises:
        SpecError: if nothing was measured, or Picard errors do not fall with the sweeps.

    Example:
        >>> from paradrift.plans import plan
        >>> pilot = plan(16, kl=1.0)
        >>> round(fit([Measured(plan=pilot, truncation=0.5 * pilot.orders.truncation)]).truncation, 12)
        0.5
    """
    found: dict[str, float] = {}
    for name in NAMES:
        pairs = [(getattr(run, name), run) for run in runs if getattr(run, name) is not None]
        if not pairs:
            continue
        ratios = np.array([np.log(value) - np.log(getattr(run.plan.orders, name)) for value, run in pairs])
        if name == "picard":
            sweeps = np.array([run.plan.sweeps for _, run in pairs], float)
            logs = ratios - sweeps  # the order holds exp(-K)
            centred = sweeps - sweeps.mean()
            contraction = -float(centred @ logs / (centred @ centred)) if np.any(centred) else None
            if contraction is not None:
                if not contraction > 0:
                    raise SpecError(
                        f"expected Picard errors that fall with the sweeps, found the rate {contraction:.3g}: "
                        "measure at more sweeps"
                    )
                found["contraction"] = contraction
            rate = contraction if contraction is not None else (base or Constants()).contraction
            ratios = logs + rate * sweeps
        found[name] = float(np.exp(ratios.mean()))
    if not found:
        raise SpecError("expected at least one measured error, found none: give Measured(plan=..., picard=...), say")
    return dataclasses.replace(base or Constants(), **found)
