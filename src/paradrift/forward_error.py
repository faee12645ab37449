r"""How far a kept path's answer is from the sequential one, found without the solver that made it.

One batch evaluates the model at every node of the path z. That gives the true defects

.. math:: r = z_0 e + a z + b f(z) + c \xi - z,

what each row still lacks to obey the table. To first order the sequential path is :math:`z + e` with

.. math:: (I - a - b S)\, e = r,

S the slopes of the model. No slope is known from one evaluation; the first round takes those of Gaussian data, of 16
times the data variance, because errors are smooth and data vary most there. With the growth :math:`y_m` that these
slopes give a change of row m on its way to the answer, the defects can do at most

.. math:: A = \sum_m |y_m|\,|r_m| .

A second round evaluates the model at the corrected path; the difference of the two rounds gives secants, what is still
lacking there, and a second correction of the answer. After k rounds the estimate is

.. math:: |z^* - z| \lesssim \max\Big(A,\; \Big|\sum_{i\le k} e_i\Big| + |e_k|\Big), \quad k \ge 2,

and A alone after one. It is an estimate and not a bound: the first part trusts the growth, the second that what follows
is no larger than the last correction. Where one fails, the other has mostly held: ``paradrift bench coverage`` measures
how often the true error is above it.

This is one Newton-like iteration of the whole chain per round with scalar slopes (as Danieli et al. 2023, arXiv
2309.16318, use with full Jacobians), here to audit and not to solve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.denoisers import Denoiser
from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.kept import Kept, Part, kept
from paradrift.noise import Noise
from paradrift.prepare import Generators
from paradrift.slopes import gaussian, in_form
from paradrift.solution import Solution
from paradrift.summing import over_rows
from paradrift.tableau import Tableau

_WIDE = 16.0  # of the data variance: the slopes that nothing is yet known about
Audited = tuple[Tensor, Tensor, Tensor]  # estimate, sum of effects, corrections
_ROUNDING = 64.0  # changes below this many rounding errors of the state say nothing about slopes


@dataclass(frozen=True, kw_only=True, eq=False)
class ForwardError:
    """The distance of each sample to the sequential answer, estimated.

    Args:
        error: rms over elements in units of the data's standard deviation, shape (S,), float64; infinite where the
            path or the model is not finite.
        summed: What the defects can do at most, A, in the same unit, shape (S,).
        corrections: Size of the answer's correction in each round, in the same unit, shape (rounds, S).
        rounds: Batches that had to wait for each other.
        evaluations: Rows evaluated.
    """

    error: Tensor
    summed: Tensor
    corrections: Tensor
    rounds: int
    evaluations: int

    def __str__(self) -> str:
        return (
            f"distance to the sequential answer: median {float(self.error.median()):.2g}, largest "
            f"{float(self.error.max()):.2g} of {len(self.error)} sample{'s' * (len(self.error) > 1)}, "
            f"{self.rounds} round{'s' * (self.rounds > 1)}, {self.evaluations} evaluations"
        )


def forward_error(
    solution: Solution,
    denoiser: Denoiser,
    *,
    generator: Generators | None = None,
    noise: Noise | Tensor | None = None,
    max_rows: int | None = None,
    rounds: int = 2,
) -> ForwardError:
    """Estimate how far the answers of a kept path are from those of the sequential sampler, for any table.

    Args:
        solution: A solution with its trajectory.
        denoiser: The model.
        generator: A generator (or one a sample) in the state that it had before the solve, where it drew the noise.
        noise: The noise source, or the ready noises, where the solve was given one.
        max_rows: Most rows in one model call.
        rounds: How many rounds of evaluations: 1 for the sum of effects alone, 2 to correct the path as well.

    Returns:
        The estimate.

    Raises:
        SpecError: if the path was not kept, the words do not fit it, or rounds is below 1.

    Cost: one evaluation per node and sample in each round.

    Example:
        >>> from paradrift.analytic import Gaussian
        >>> from paradrift.sample import sample
        >>> from paradrift.samplers import DDIM
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> solution = sample(toy, (3, 2), sampler=DDIM(), steps=50, seed=7, trajectory=True)
        >>> found = forward_error(solution, toy)
        >>> bool((found.error < 1e-2).all()), found.evaluations
        (True, 300)
    """
    opened = kept(solution, denoiser, generator=generator, noise=noise)
    return corrected(opened, rounds=rounds, max_rows=max_rows)


def corrected(opened: Kept, *, rounds: int = 2, max_rows: int | None = None) -> ForwardError:
    """:func:`forward_error` of a path that is already open.

    Args:
        opened: The path.
        rounds: How many rounds of evaluations.
        max_rows: Most rows in one model call.

    Returns:
        The estimate.

    Raises:
        SpecError: if rounds is below 1.
    """
    if rounds < 1:
        raise SpecError(f"expected at least one round of evaluations, found {rounds}")
    variance = opened.denoiser.variance
    parts, evaluations = opened.audit(lambda part: audited(part, rounds, variance), max_rows)
    return gathered(parts, rounds, evaluations)


def gathered(parts: list[Audited], rounds: int, evaluations: int) -> ForwardError:
    """The estimate of all samples.

    Args:
        parts: What :func:`audited` found of each part, in order.
        rounds: Rounds of evaluations.
        evaluations: Rows evaluated.

    Returns:
        The estimate.
    """
    error, summed, corrections = (torch.cat(found, -1) for found in zip(*parts, strict=True))
    return ForwardError(
        error=torch.nan_to_num(error, nan=math.inf),
        summed=summed,
        corrections=corrections,
        rounds=rounds,
        evaluations=evaluations,
    )


def audited(part: Part, rounds: int, variance: float | None) -> Audited:
    """The estimate, the sum of effects, and the size of the answer's correction in each round, of some samples.

    Args:
        part: The samples.
        rounds: Rounds of evaluations.
        variance: Data variance per element; None: the unit is each answer's own size.

    Returns:
        Shapes (S,), (S,) and (rounds, S).
    """
    prior = in_form(part.table, gaussian(part.table, _WIDE * (variance or 1.0)))
    z, unit = part.z, _unit(part.z[-1], variance)
    outputs = part.outputs
    defect = _defect(part, z, outputs)
    growth = torch.as_tensor(_growth(part.table, prior)).to(z)[:, None]
    error = summed = over_rows(defect.square().mean(2).sqrt() * growth) / unit
    slope = torch.as_tensor(prior).to(z)[:, None, None].repeat(1, z.shape[1], 1)
    sizes: list[Tensor] = []
    while True:
        # rows in the precision of the path: what the model can be shown
        moved = (z + _propagate(part.table, defect, slope)).to(part.dtype).double()
        sizes.append(_rms(moved[-1] - z[-1]) / unit)
        if len(sizes) == rounds:
            break
        new = part.at(moved)
        slope = _secants(moved - z, new - outputs, moved, slope, part.dtype)
        z, outputs = moved, new
        defect = _defect(part, z, outputs)
    if rounds > 1:
        error = torch.maximum(summed, _rms(moved[-1] - part.z[-1]) / unit + sizes[-1])
    return error, summed, torch.stack(sizes)


def _defect(part: Part, z: Tensor, outputs: Tensor) -> Tensor:
    """What each row lacks to obey the table; nothing in row 0."""
    total = part.total("a", z) + part.total("b", outputs) + part.total("c", part.xi) - z
    total[0] = 0
    return total


def _entries(table: Tableau) -> list[tuple[int, int]]:
    """Row and source of every entry of a and b, in the order of rows."""
    return sorted({(int(m), int(j)) for rows, sources in table.entries[:2] for m, j in zip(rows, sources, strict=True)})


def _propagate(table: Tableau, defect: Tensor, slope: Tensor) -> Tensor:
    """The forward substitution: the defect of each row and what earlier changes do to it."""
    change = defect.clone()
    for row, source in _entries(table):
        change[row] += (float(table.a[row, source]) + float(table.b[row, source]) * slope[source]) * change[source]
    return change


def _growth(table: Tableau, slope: Array) -> Array:
    """What a unit change of each row does to the answer, shape (R,)."""
    felt = np.zeros(table.rows)
    felt[-1] = 1.0
    for row, source in reversed(_entries(table)):
        felt[source] += (table.a[row, source] + table.b[row, source] * slope[source]) * felt[row]
    return np.abs(felt)


def _secants(dx: Tensor, df: Tensor, z: Tensor, prior: Tensor, dtype: torch.dtype) -> Tensor:
    """Least-squares slopes per node and sample; the prior where nothing moved."""
    square = dx.square().sum(2, keepdim=True)
    least = (_ROUNDING * torch.finfo(dtype).eps) ** 2 * z.square().sum(2, keepdim=True)
    slope = (dx * df).sum(2, keepdim=True) / square
    return torch.where((square > least) & torch.isfinite(slope), slope, prior)


def _unit(answer: Tensor, variance: float | None) -> Tensor:
    """The data's standard deviation, or the rms of each answer, shape (S,)."""
    return _rms(answer) if variance is None else torch.full_like(answer[:, 0], math.sqrt(variance))


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(1).sqrt()
