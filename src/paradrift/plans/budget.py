"""From an accuracy to a plan: each error term gets a quarter."""

from __future__ import annotations

import dataclasses
import math

from paradrift.errors import SpecError
from paradrift.plans.constants import Constants, positive
from paradrift.plans.theorems import Corrector, Plan

MOST_BLOCKS = 10_000_000
MOST_STEPS = 1e15  # where float64 stops counting exactly


def plan(
    dim: int,
    *,
    kl: float | None = None,
    tv: float | None = None,
    ode: bool = False,
    lipschitz: float = 1.0,
    second_moment: float | None = None,
    score: float | None = None,
    early_stop: float = 1e-3,
    constants: Constants | None = None,
) -> Plan:
    r"""What an accuracy costs: horizon, blocks, steps, sweeps, rounds and memory of PIADM, and of the usual sampler.

    With dimension d, horizon T, step size :math:`\epsilon`, N blocks of length h and K sweeps each, the theorems bound

    - SDE, Theorem 3.3, in nats: :math:`KL \lesssim d e^{-T} + d \epsilon T + \delta_2^2 + d T e^{-K}`;
    - ODE with corrector, Theorem 3.5: :math:`TV^2 \lesssim d e^{-T} + d \epsilon^2 T^2 + (T^2 + N^2)
      \delta_\infty^2 + d N^2 e^{-K}`.

    The plan gives each term a quarter of the budget. Ours, and not the theorems', are: the quarters; the factors, see
    :class:`paradrift.plans.Constants`; :math:`(d + E|x|^2)/2` for d in the truncation term, which with the factor 1 is
    a proof: :math:`KL(p_T \| N(0, I)) \le \tfrac12 (E|x|^2 e^{-T} + d e^{-2T})` for :math:`T \ge 1`; the length of the
    grid :math:`\max(T, \log(1/\eta))` for T in the discretisation term, which is T where the theorem is meant;
    :math:`h = \min(1, 1/L^2)`; and the corrector, which runs for :math:`\min(1, L^{-1/2})` after each block, as finely
    as keeps N of them within the discretisation term, with K sweeps.

    Args:
        dim: Dimension d of one sample, at least 1.
        kl: Accuracy: Kullback-Leibler divergence of the samples' law from the noised data's, in nats.
        tv: Accuracy: total variation, between 0 and 1, instead of ``kl``; by Pinsker's inequality kl = 2 tv^2.
        ode: Plan the probability-flow ODE with corrector; a budget ``kl`` then means the total variation that it
            would imply.
        lipschitz: Lipschitz constant L of the score, per unit of the data.
        second_moment: E|x|^2 of the data, summed over the elements, in squared units of the data; d unless given,
            that of the theorems' unit covariance.
        score: The network's error, as :class:`Plan` defines it; None to be told what it may be.
        early_stop: Forward time eta > 0 at which sampling stops.
        constants: Factors that the theorems leave open; all 1 unless given.

    Returns:
        The plan.

    Raises:
        SpecError: if the request is out of range, or the network's error does not fit its quarter.

    Sources: Chen, Ren, Ying, Rotskoff 2024, arXiv 2405.15986, Theorems 3.3 and 3.5; Benton et al. 2024, arXiv
    2308.03686, for the grid.

    Example:
        >>> cheap, dear = plan(64, kl=1.0), plan(64, kl=0.01)
        >>> (cheap.rounds, cheap.sequential), (dear.rounds, dear.sequential)
        ((48, 21067), (143, 4761947))
    """
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise SpecError(f"expected dim to be a whole number of at least 1, found {dim}")
    if (kl is None) == (tv is None):
        raise SpecError(f"expected kl= or tv=, one of the two, found {'neither' if kl is None else 'both'}")
    if tv is not None and not 0 < tv <= 1:
        raise SpecError(f"expected tv above 0 and at most 1, found {tv}")
    budget = kl if kl is not None else 2 * tv**2 if tv is not None else math.nan
    moment = float(dim) if second_moment is None else second_moment
    for name, value in (("kl", budget), ("lipschitz", lipschitz), ("early_stop", early_stop)):
        positive(name, value)
    if not (moment >= 0 and math.isfinite(moment)):
        raise SpecError(f"expected second_moment to be a number of at least 0, found {moment}")
    factors = constants or Constants()
    quarter = budget / (8 if ode else 4)

    wanted = max(1.0, math.log(factors.truncation * (dim + moment) / 2 / quarter))
    length = factors.block * min(1.0, (1 / lipschitz) ** 2)
    blocks = max(1, math.ceil((wanted - early_stop) / length))
    if blocks > MOST_BLOCKS:
        raise SpecError(f"expected at most {MOST_BLOCKS} blocks, found {blocks}: the Lipschitz constant is too large")
    horizon = early_stop + blocks * length
    clock = max(horizon, -math.log(early_stop))
    share = quarter / (factors.discretisation * dim)
    step = min(1.0, (math.sqrt(share) if ode else share) / clock)
    if not (clock / step < MOST_STEPS):
        raise SpecError(f"expected an accuracy that takes at most {MOST_STEPS:.0e} steps, found {clock / step:.6g}")
    size = factors.picard * dim * (blocks**2 if ode else horizon)
    sweeps = max(1, math.ceil(math.log(size / quarter) / factors.contraction))
    allowed = quarter / factors.score / (horizon**2 + blocks**2 if ode else 1.0)
    if score is not None and not 0 <= score <= allowed:
        raise SpecError(f"expected a score error between 0 and {allowed:.6g}, a quarter of the budget, found {score}")

    corrector = None
    if ode:
        time = factors.correction * min(1.0, (1 / lipschitz) ** 0.5)
        fine = math.ceil(time / (step * min(1.0, clock / blocks)))
        corrector = Corrector(time=time, steps=fine, sweeps=min(sweeps, fine))
    found = Plan(
        dim=dim,
        kl=budget,
        lipschitz=lipschitz,
        second_moment=moment,
        early_stop=early_stop,
        blocks=blocks,
        length=length,
        step=step,
        sweeps=sweeps,
        score=allowed if score is None else score,
        constants=factors,
        corrector=corrector,
    )
    return dataclasses.replace(found, sweeps=min(sweeps, int(found.steps.max())))
