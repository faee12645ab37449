r"""The ODE beside the SDE: steps of the order of the square root of d, with and without the corrector.

No divergence is finite here, so the measure is the mean squared distance of the whole vector, in units of the variance
of one coordinate: d times that of one coordinate. SHARE of it may come from the steps (the distance to the
exact flow from the same start; one dimension is monotone, so this is the Wasserstein distance of the laws), and
as much from the parallel method (the distance to its own sequential answer, from the same start and noises). It is not
comparable with a KL; only the growth with d is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import paradrift as pd
from paradrift.bench.records import Plain, Point, Record
from paradrift.bench.theory_setting import LAST, Setting, flow, product
from paradrift.forms import Form
from paradrift.noise import Philox
from paradrift.samplers import Corrected, Sampler, Underdamped

SHARE = 0.01  # of a squared distance, for the steps and for the parallel method
ODE = pd.Exponential(form=Form.SCORE, stochasticity=0.0)
METHODS = (
    "PIADM-ODE",
    "Picard, predictor alone",
    "default, predictor alone",
    "default, with corrector",
)


@functools.cache
def squared(schedule: pd.OU, steps: int) -> float:
    """Mean squared error of one coordinate by discretisation.

    Args:
        schedule: The schedule.
        steps: Steps of the shrinking grid.

    Returns:
        In units of the variance of the data, which is 1.
    """
    shape = (64, 64)
    start = Philox(seed=0, shape=shape[1:], dtype=torch.float64).start(torch.arange(shape[0]))
    times, solver = pd.grids.shrinking(schedule, steps), pd.sequential()
    model = product(schedule)
    found = pd.sample(model, shape, sampler=ODE, times=times, solver=solver, start=start, dtype=torch.float64)
    return float((found.samples - flow(schedule, start)).square().mean())


def steps(schedule: pd.OU, dim: int) -> int:
    """The fewest steps whose squared error is within the share; it falls like one over their square.

    Args:
        schedule: The schedule.
        dim: Dimension.

    Returns:
        The steps.
    """
    many = 128
    enough = math.ceil(many * math.sqrt(dim * squared(schedule, many) / SHARE))
    if enough >= many:
        return enough
    low, high = 1, many
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if dim * squared(schedule, middle) <= SHARE else (middle, high)
    return high


def points(dims: tuple[int, ...]) -> Iterator[Point]:
    """One point for each dimension and method.

    Args:
        dims: Dimensions.

    Yields:
        Key and measurement.
    """
    for dim in dims:
        for name in METHODS:
            yield f"ode/theorem/{dim}/{name}", functools.partial(_measure, dim, name)


def _measure(dim: int, name: str) -> Record:
    schedule = Setting(dim=dim, nats=1.0, careful=True).schedule
    count = steps(schedule, dim)
    blocks = min(max(2, round(schedule.horizon - LAST)), count)
    per_block = math.ceil(count / blocks)
    corrected = Corrected(blocks=blocks, predictor=ODE, corrector=Underdamped(steps=per_block))
    alone = name.endswith("alone")
    sampler: Sampler = ODE if alone else corrected
    times = pd.grids.shrinking(schedule, count)
    model, samples = product(schedule), max(2, min(32, (1 << 12) // dim))
    extra: dict[str, Plain] = {
        "part": "ode",
        "dim": dim,
        "horizon": schedule.horizon,
        "horizon_rule": "theorem",
        "blocks": blocks,
        "discretisation": dim * squared(schedule, min(count, 128)) * (min(count, 128) / count) ** 2,
    }

    def solved(solver: pd.Solver) -> pd.Solution:
        rows = max(1, (1 << 20) // dim)
        shape = (samples, dim)
        return pd.sample(model, shape, sampler=sampler, times=times, solver=solver, max_rows=rows, dtype=torch.float64)

    before = solved(pd.sequential())

    def gap(found: pd.Solution) -> Tensor:
        return (found.samples - before.samples).square().sum(1)

    base = dataclasses.replace(pd.piadm_sde(1, 1), slopes=pd.Zero(Form.SCORE))
    sweeps: dict[str, Callable[[int], pd.Solver]] = {
        "PIADM-ODE": lambda k: pd.piadm_ode(corrected, k),
        "Picard, predictor alone": lambda k: dataclasses.replace(base, stop=pd.Sweeps(k)),
    }
    if name in sweeps:
        k = 1
        while not float(gap(after := solved(sweeps[name](k))).mean()) <= SHARE:
            k += 1
        extra["sweeps"] = k
    else:
        after = solved(pd.default(math.sqrt(SHARE / dim), pd.Whole(), verify=0))
    found = gap(after)
    rounds = after.stats.sample_rounds
    extra |= {
        "parallel": float(found.mean()),
        "parallel_worst": float(found.max()),
        "points": after.stats.window,
        "predictor_steps": count,
    }
    return Record(
        problem=f"product of mixtures, d = {dim}",
        method=name,
        sampler="Exponential ODE, score" if alone else "Corrected",
        steps=after.stats.nodes,
        window=f"{after.stats.window} points",
        tol=None,
        samples=samples,
        rounds_mean=sum(rounds) / len(rounds),
        rounds_max=max(rounds),
        evaluations=after.stats.evaluations,
        seconds=after.stats.seconds,
        extra=extra,
    )
