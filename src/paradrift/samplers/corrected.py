r"""Predictor and corrector: a sampler in blocks, each followed by Langevin dynamics at the noise level it has reached.

The predictor leads from noise level to noise level; its errors add up on the way. The corrector stays at a level t and
runs underdamped Langevin dynamics there, :mod:`paradrift.samplers.kinetic`, whose stationary law is that of the noisy
data itself: what the predictor got wrong is forgotten, and closeness of states becomes closeness of laws. Both read
nothing but the score, so the whole method is one table,

======================  ==================================================================  ====
row                     equation                                                            node
======================  ==================================================================  ====
predictor               its own                                                             yes
:math:`u_0`             the predictor's last row of the block                               yes
:math:`v_0`             :math:`\xi`, a fresh velocity                                       no
:math:`v_m`             :math:`E v_{m-1} + \psi_v s(u_{m-1}) + n_v`                         no
:math:`u_m`             :math:`u_{m-1} + \psi_v v_{m-1} + \psi_u s(u_{m-1}) + n_u`          yes
======================  ==================================================================  ====

with the score s at the level t throughout, and the last :math:`u_m` the first row of the next block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.grids import check
from paradrift.samplers.base import Sampler
from paradrift.samplers.exponential import Exponential
from paradrift.samplers.kinetic import kinetic_step
from paradrift.schedules import Schedule
from paradrift.tableau import Rows, Tableau


@dataclass(frozen=True, kw_only=True)
class Underdamped:
    r"""Underdamped Langevin dynamics at one noise level, in units of the steepest curvature L of its potential.

    At the level t the potential is :math:`-\log p_t`. Whatever the data, its curvature is at most
    :math:`1/\sigma_t^2`, so with that for L the same settings are stable at every level of every schedule: a run lasts
    ``time`` :math:`\sigma_t`, and moves a sample by about as much where the potential is flat.

    Args:
        time: Duration of one run, in units of :math:`1/\sqrt L`.
        friction: gamma, in units of :math:`\sqrt L`; 2 damps the steepest direction critically.
        steps: Steps of each block, M'.
        blocks: Blocks of one run, N'. They share ``time``; the velocity goes on from one to the next.
        lipschitz: L, one over the square of the state's unit, for all levels; None for :math:`1/\sigma_t^2`, each its
            own.

    Raises:
        SpecError: if one of them is not a positive number.

    Source: Chen, Ren, Ying, Rotskoff 2024, arXiv 2405.15986, Algorithm 3, which has one constant L; the units and the
    bound of each level are ours.
    """

    time: float = 1.0
    friction: float = 2.0
    steps: int = 4
    blocks: int = 1
    lipschitz: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "blocks"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(f"expected the corrector's {name} to be a whole number of at least 1, found {value}")
        for name in ("time", "friction", "lipschitz"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise SpecError(f"expected the corrector's {name} to be a positive number, found {value}")

    def tableau_at(self, t: float, alpha: float, sigma: float) -> Tableau:
        """One run at one level.

        Args:
            t: Model time of the level.
            alpha: Its signal level.
            sigma: Its noise level, positive.

        Returns:
            A table in score form with ``steps * blocks`` nodes. Row 0 is the state to be corrected, row 1 a fresh
            velocity, and then velocity and state in turn; the last row is the corrected state.

        Raises:
            SpecError: if the level has no noise.
        """
        if not sigma > 0:
            raise SpecError(f"expected noise at the level of a corrector, found sigma = {sigma} at t={t}")
        root = 1 / sigma if self.lipschitz is None else math.sqrt(self.lipschitz)
        total = self.steps * self.blocks
        step = kinetic_step(self.time / (total * root), self.friction * root)
        rows = Rows(form=Form.SCORE)
        add = partial(rows.add, t=t, alpha=alpha, sigma=sigma)
        here, velocity = add(), add(c=1.0, evaluated=False)
        for left in reversed(range(total)):
            faster = add(a={velocity: step.v_v}, b={here: step.v_s}, c=step.v_noise, evaluated=False)
            noises = {faster: step.u_shared, faster + 1: step.u_noise}
            here = add(a={here: 1.0, velocity: step.u_v}, b={here: step.u_s}, c=noises, evaluated=left > 0)
            velocity = faster
        return rows.build()


@dataclass(frozen=True, kw_only=True)
class Corrected:
    r"""A predictor in blocks, each followed by a corrector: with its defaults the sequential sampler of PIADM-ODE.

    The steps of the grid are shared among the blocks; the predictor starts anew in each, which matters to multistep
    rules only. The corrector runs at the level where the block ends. Where the grid ends without noise there is no
    score to correct with: the last block then takes its last step after its corrector (so that the windows of a block
    solver lie one node later there; their number of nodes stays).

    Solve it in the paper's own way with :func:`paradrift.piadm_ode`, or with any other solver.

    Source: Chen, Ren, Ying, Rotskoff 2024, arXiv 2405.15986, Algorithms 2 and 3.

    Args:
        blocks: Number of blocks N, or the steps of each of them.
        predictor: The sampler between the correctors; the probability-flow ODE in score form unless given.
        corrector: What follows each block.

    Raises:
        SpecError: if there are fewer steps than blocks need, or the steps of the blocks are not those of the grid.

    Cost: the predictor's nodes and M' N' more for each block; reach 3 (or the predictor's).

    Example:
        >>> from paradrift.schedules import OU
        >>> method = Corrected(blocks=2, corrector=Underdamped(steps=3))
        >>> method.tableau(OU(), np.array([3.0, 2.0, 1.5, 1.0, 0.5])).nodes
        10
    """

    blocks: int | tuple[int, ...]
    predictor: Sampler = field(default_factory=lambda: Exponential(form=Form.SCORE, stochasticity=0.0))
    corrector: Underdamped = field(default_factory=Underdamped)

    def __post_init__(self) -> None:
        counts = (self.blocks,) if isinstance(self.blocks, int) else self.blocks
        if not counts or min(counts) < 1:
            raise SpecError(f"expected at least 1 block, and 1 step in each, found blocks={self.blocks}")

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in the predictor's form.
        """
        times = check(times)
        steps = len(times) - 1
        borders = self._borders(steps)
        clean = not schedule.sigma(times[-1]) > 0
        if clean:  # the last step, to no noise, is left for after the corrector
            borders[-1] -= 1
            if borders[-1] == borders[-2]:
                raise SpecError(
                    "expected a last block of at least 2 steps on a grid that ends without noise, found 1 step: take "
                    "fewer blocks or more steps"
                )
        parts: list[Tableau] = []
        for low, high in pairwise(borders):
            ahead = self.predictor.tableau(schedule, times[low : high + 1])
            t = times[high]
            still = self.corrector.tableau_at(float(t), float(schedule.alpha(t)), float(schedule.sigma(t)))
            parts += [ahead, still.reform(ahead.form)]
        if clean:
            parts.append(self.predictor.tableau(schedule, times[-2:]))
        return joined(parts)

    def _borders(self, steps: int) -> list[int]:
        """Steps before each block, and before the end."""
        if isinstance(self.blocks, int):
            if self.blocks > steps:
                raise SpecError(
                    f"expected at most as many blocks as steps, found {self.blocks} blocks of {steps} steps"
                )
            return [steps * block // self.blocks for block in range(self.blocks + 1)]
        if sum(self.blocks) != steps:
            raise SpecError(f"expected blocks that share the grid's {steps} steps, found {sum(self.blocks)} in them")
        return [0, *np.cumsum(self.blocks).tolist()]


def joined(parts: list[Tableau]) -> Tableau:
    """Tables one after the other: the last row of each is row 0 of the next.

    Args:
        parts: Tables of one form with noise schedules, at the same level where they meet; at least one.

    Returns:
        One table, which starts like the first.

    Raises:
        SpecError: if a table has no noise schedule.
    """
    size = 1 + sum(part.rows - 1 for part in parts)
    a, b, c = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    t, alpha, sigma, scale = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    evaluated, draws = np.zeros(size, bool), np.zeros(size, bool)
    first = 0
    for part in parts:
        if part.alpha is None or part.sigma is None:
            raise SpecError("expected tables with a noise schedule to join, found one without")
        here = slice(first, first + part.rows)
        for whole, own in ((a, part.a), (b, part.b), (c, part.c)):
            whole[here, here] += own  # where two meet, one has an empty row and the other an empty column
        for whole, own in ((t, part.t), (alpha, part.alpha), (sigma, part.sigma), (scale, part.scale)):
            whole[here] = own
        evaluated[here] |= part.evaluated
        draws[here] |= part.draws
        first += part.rows - 1
    return Tableau(
        t=t,
        a=a,
        b=b,
        c=c,
        form=parts[0].form,
        evaluated=evaluated,
        alpha=alpha,
        sigma=sigma,
        scale=scale,
        start=parts[0].start,
        draws=draws,
    )
