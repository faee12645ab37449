r"""The four error terms of theorems 3.3 and 3.5, one by one, in nats of one coordinate.

===============  =========================================================  ==============================
term             SDE (KL of the paths)                                      ODE (squared distance of laws)
===============  =========================================================  ==============================
truncation       :math:`e^{-T}`                                             the same
discretisation   :math:`\epsilon`                                           :math:`\epsilon^2`
score            :math:`\delta^2`                                           :math:`\delta^2`
Picard           :math:`e^{-K}`                                             :math:`e^{-K}`
===============  =========================================================  ==============================

For Gaussian data everything is exact, by :mod:`paradrift.bench.theory_affine`; the answers alone are also known there.
For the mixture of :mod:`paradrift.bench.theory_setting` the estimators of the library measure the SDE; an ODE in one
dimension is monotone in its start, so the mean squared distance of two of them is the Wasserstein distance of the laws.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping

import torch

import paradrift as pd
from paradrift import discretisation
from paradrift.bench import theory_affine as affine
from paradrift.bench.records import Point, Record
from paradrift.bench.theory_affine import Line
from paradrift.bench.theory_setting import flow, product
from paradrift.forms import Form
from paradrift.noise import Philox
from paradrift.samplers import Corrected, Sampler, Underdamped
from paradrift.solvers.solver import Solver
from paradrift.tableau import Tableau

GAUSSIAN = pd.OU(horizon=6.0, last=0.05)
MIXTURE = pd.OU(horizon=4.0, last=0.1)
STEPS = 200
SDE, ODE = pd.Exponential(), pd.Exponential(stochasticity=0.0)
RESIDUAL = pd.Exponential(form=Form.RESIDUAL)
SHAPE = (64, 64)  # samples of independent coordinates

Values = dict[str, float]


def points(quick: bool) -> Iterator[Point]:
    """One point for each term, data and size.

    Args:
        quick: Two sizes of each.

    Yields:
        Key and measurement.
    """
    many, deltas = (16, 32, 64, 128, 256, 512), (0.4, 0.2, 0.1, 0.05, 0.025)
    cases: list[tuple[str, str, tuple[float, ...], Callable[[float], Values]]] = [
        ("truncation", "Gaussian", (1, 2, 4, 6, 8, 10), _truncation),
        ("discretisation", "Gaussian", many, _discretisation),
        ("discretisation", "mixture", many, _discretisation_mixture),
        ("score", "Gaussian", deltas, _score),
        ("score", "mixture", deltas, _score_mixture),
        ("picard", "Gaussian", tuple(range(1, 21)), _picard),
        ("picard", "mixture", tuple(range(1, 17)), _picard_mixture),
    ]
    for term, data, sizes, measure in cases:
        for size in sizes[2:4] if quick else sizes:
            yield f"terms/{term}/{data}/{size:g}", functools.partial(_measure, term, data, size, measure)


def _measure(term: str, data: str, size: float, measure: Callable[[float], Mapping[str, float]]) -> Record:
    begin = time.perf_counter()
    values = measure(size)
    return Record(
        problem=f"{data}, {term} {size:g}",
        method="error term",
        sampler="Exponential",
        steps=int(size) if term == "discretisation" else 0 if term == "truncation" else STEPS,
        window="",
        tol=None,
        samples=0 if data == "Gaussian" else SHAPE[0] * SHAPE[1],
        rounds_mean=0.0,
        rounds_max=0,
        evaluations=0,
        seconds=time.perf_counter() - begin,
        extra={"part": "terms", "term": term, "data": data, "size": size, **values},
    )


def _table(schedule: pd.OU, sampler: Sampler, steps: int = STEPS) -> Tableau:
    return sampler.tableau(schedule, pd.grids.shrinking(schedule, steps))


def _truncation(horizon: float) -> Values:
    mean, variance = Line().law(horizon)
    return {"truncation": affine.between((float(mean), float(variance)), (0.0, 1.0))}


def _discretisation(size: float) -> Values:
    """The corrector has as many steps as the predictor, after each of four blocks."""
    line, steps, ends = Line(), int(size), (GAUSSIAN.first, GAUSSIAN.last)
    table, still = _table(GAUSSIAN, SDE, steps), _table(GAUSSIAN, ODE, steps)
    corrected = Corrected(blocks=4, predictor=ODE, corrector=Underdamped(steps=steps // 4))
    law, flow = affine.end(affine.sequential(still, line)), affine.flow(line, *ends, 0.0)
    after = affine.end(affine.sequential(_table(GAUSSIAN, corrected, steps), line))
    target = line.law(GAUSSIAN.last)
    return {
        "SDE, paths": affine.continuous_nats(table, line),
        "SDE, answers": affine.between(affine.end(affine.sequential(table, line)), affine.flow(line, *ends, 1.0)),
        "ODE, answers": affine.between(law, flow),
        "ODE, squared distance": affine.apart(law, flow),
        "ODE, answers to data": affine.between(law, (float(target[0]), float(target[1]))),
        "ODE with corrector, answers to data": affine.between(after, (float(target[0]), float(target[1]))),
    }


def _drawn(sampler: Sampler, steps: int = STEPS, tilt: float = 0.0, solver: Solver | None = None) -> pd.Solution:
    return pd.sample(
        product(MIXTURE, tilt),
        SHAPE,
        sampler=sampler,
        times=pd.grids.shrinking(MIXTURE, steps),
        solver=solver or pd.sequential(),
        trajectory=True,
        dtype=torch.float64,
    )


def _per_coordinate(nats: torch.Tensor, name: str) -> Values:
    mean = float(nats.mean()) / SHAPE[1]
    return {name: mean, f"{name}, standard error": float(nats.std()) / math.sqrt(len(nats)) / SHAPE[1]}


@functools.cache
def _ode(steps: int, tilt: float = 0.0) -> torch.Tensor:
    return _drawn(ODE, steps, tilt).samples


def _discretisation_mixture(size: float) -> Values:
    found = discretisation.kl(_drawn(SDE, int(size)), product(MIXTURE))
    start = Philox(seed=0, shape=SHAPE[1:], dtype=torch.float64).start(torch.arange(SHAPE[0]))
    distance = (_ode(int(size)) - flow(MIXTURE, start)).square().mean()
    return _per_coordinate(found.nats, "SDE, paths") | {"ODE, squared distance": float(distance)}


def _score(size: float) -> Values:
    line, wrong = Line(), Line(tilt=size)
    table, still = _table(GAUSSIAN, SDE), _table(GAUSSIAN, ODE)
    ends = [affine.end(affine.sequential(own, data)) for own in (table, still) for data in (wrong, line)]
    return {
        "SDE, paths": affine.wrong_nats(table, wrong),
        "SDE, answers": affine.between(ends[0], ends[1]),
        "ODE, squared distance": affine.apart(ends[2], ends[3]),
    }


def _score_mixture(size: float) -> Values:
    found = pd.certificate.kl(_drawn(SDE, tilt=size), product(MIXTURE))
    distance = (_ode(STEPS, size) - _ode(STEPS)).square().mean()
    return _per_coordinate(found.nats, "SDE, paths") | {"ODE, squared distance": float(distance)}


def _picard(size: float) -> Values:
    line, sweeps = Line(), int(size)
    still = _table(GAUSSIAN, ODE)
    before, after = affine.sequential(still, line), affine.picard(still, line, sweeps)[0]
    apart = (before - after)[-1]  # answers from the same start: what theorem 3.5 needs of the predictor
    return {
        "SDE, score form": affine.picard_nats(_table(GAUSSIAN, SDE), line, sweeps),
        "SDE, residual form": affine.picard_nats(_table(GAUSSIAN, RESIDUAL), line, sweeps),
        "ODE, squared distance": float((apart**2).sum()),
    }


def _picard_mixture(size: float) -> Values:
    found: Values = {}
    for sampler, slopes, name in (
        (SDE, pd.Zero(Form.SCORE), "SDE, score form"),
        (RESIDUAL, pd.Zero(Form.RESIDUAL), "SDE, residual form"),
        (SDE, pd.Secant(), "SDE, secant slopes"),
    ):
        solver = Solver(window=pd.Whole(), slopes=slopes, guess=pd.Repeat(), stop=pd.Sweeps(int(size)), verify=0)
        solution = _drawn(sampler, solver=solver)
        found |= _per_coordinate(pd.certificate.kl(solution, product(MIXTURE)).nats, name)
    return found
