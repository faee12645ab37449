"""Rounds against dimension at a fixed divergence from the data: the claim of the theorems, method by method."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import paradrift as pd
from paradrift import discretisation
from paradrift.bench.records import Plain, Point, Record
from paradrift.bench.theory_setting import LAST, PILOT, SHARES, Setting, pilot, product, truncation
from paradrift.forms import Form
from paradrift.windows import Cut

PIECE = 1 << 24  # numbers of a path that are solved for at a time
METHODS = (
    "sequential",
    "PIADM-SDE",
    "wavefront",
    "Picard, score form",
    "Picard, residual form",
    "secant slopes",
    "Picard, score form, stop=KL",
    "default, stop=KL",
    "default, window M/4, stop=KL",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Certified runs of one method.

    Args:
        nats: KL(parallel | sequential) of each sample, shape (S,).
        rounds: Rounds of each sample.
        evaluations: Rows evaluated, certificates not counted.
        points: States held of each sample.
        seconds: Wall time.
        drift: Divergence from the continuous dynamics, parallel and discretisation together; None if not asked for.
    """

    nats: Tensor
    rounds: tuple[int, ...]
    evaluations: int
    points: int
    seconds: float
    drift: float | None


def solve(setting: Setting, solver: pd.Solver, drift: bool = False) -> Outcome:
    """Run a method, as many samples at a time as memory allows.

    Args:
        setting: What is asked.
        solver: The method.
        drift: Whether to measure the divergence from the continuous dynamics too.

    Returns:
        The runs; infinite nats where a sample failed.
    """
    model, steps, dim = product(setting.schedule), setting.steps, setting.dim
    count = max(1, PIECE // (steps * dim))
    nats, rounds, drifts, evaluations, seconds, points = [], [], [], 0, 0.0, 0
    for first in range(0, setting.samples, count):
        seeds = list(range(first, min(first + count, setting.samples)))
        found = pd.sample(
            model,
            (len(seeds), dim),
            sampler=setting.table,
            solver=solver,
            seed=seeds,
            max_rows=max(1, (1 << 20) // dim),
            certify=True,
            trajectory=drift,
        )
        given = found.certificate
        nats.append(torch.full((len(seeds),), math.inf).double() if given is None else given.nats)
        rounds += found.stats.sample_rounds
        evaluations += found.stats.evaluations - (given.evaluations if given else 0)
        points, seconds = max(points, found.stats.window), seconds + found.stats.seconds
        if drift:
            drifts.append(discretisation.kl(found, model, max_rows=max(1, (1 << 20) // dim)).nats)
    total = float(torch.cat(drifts).mean()) if drifts else None
    return Outcome(
        nats=torch.cat(nats),
        rounds=tuple(rounds),
        evaluations=evaluations,
        points=points,
        seconds=seconds,
        drift=total,
    )


def fewest(setting: Setting, name: str) -> tuple[int, Outcome]:
    """The fewest sweeps whose mean certified divergence is within the share, started from those on a coarser grid.

    Args:
        setting: What is asked.
        name: A method with sweeps.

    Returns:
        The sweeps and their runs.
    """
    guess = 1 if setting.steps <= 200 else fewest(replace(setting, thinned=8 * setting.thinned), name)[0]
    solver = solvers(setting)[name]
    assert not isinstance(solver, pd.Solver)

    share, failed = SHARES["parallel"] * setting.nats, 0

    def excess(found: Outcome) -> float:
        return math.log(max(float(found.nats.mean()) / share, 1e-9))

    found = solve(setting, solver(guess))
    while excess(found) > 0:  # a sweep gains about a factor of 20 at the end, less before
        failed, ahead = guess, excess(found) / 3
        guess += max(1, int(ahead)) if ahead < 20 else 1
        found = solve(setting, solver(guess))
    while guess > failed + 1 and excess(fewer := solve(setting, solver(guess - 1))) <= 0:
        guess, found = guess - 1, fewer
    return guess, found


def solvers(setting: Setting) -> dict[str, pd.Solver | Callable[[int], pd.Solver]]:
    """The methods by name: a solver, or one for each number of sweeps.

    Args:
        setting: What is asked.

    Returns:
        The methods.
    """
    blocks, ends = setting.blocks, _ends(setting)
    share = pd.KL(SHARES["parallel"] * setting.nats)
    slide = pd.Sliding(max(2, setting.steps // 4))

    def whole(form: Form) -> Callable[[int], pd.Solver]:
        base = replace(pd.piadm_sde(1, 1), slopes=pd.Zero(form))
        return lambda sweeps: replace(base, stop=pd.Sweeps(sweeps))

    return {
        "PIADM-SDE": lambda sweeps: replace(pd.piadm_sde(1, sweeps), window=Cut(ends)),
        "wavefront": lambda sweeps: pd.wavefront(blocks, sweeps),
        "Picard, score form": whole(Form.SCORE),
        "Picard, residual form": whole(Form.RESIDUAL),
        "secant slopes": lambda sweeps: replace(pd.default(window=pd.Whole(), verify=0), stop=pd.Sweeps(sweeps)),
        "Picard, score form, stop=KL": replace(pd.piadm_sde(1, 1), stop=share),
        "default, stop=KL": replace(pd.default(window=pd.Whole()), stop=share),
        "default, window M/4, stop=KL": replace(pd.default(window=slide), stop=share),
    }


def _ends(setting: Setting) -> tuple[int, ...]:
    """Nodes after which blocks of equal time end."""
    left = np.linspace(setting.schedule.horizon, LAST, setting.blocks + 1)[1:-1]
    inner = np.searchsorted(-setting.times, -left)
    return tuple(sorted({*inner.clip(1, setting.steps - 1).tolist(), setting.steps}))


def points(settings: list[Setting]) -> Iterator[Point]:
    """One point for each setting and method.

    Args:
        settings: What is asked.

    Yields:
        Key and measurement.
    """
    for setting in settings:
        for name in METHODS:
            rule = "theorem" if setting.careful else "exact"
            key = f"dimension/{setting.form.value}/{rule}/{setting.nats:g}/{setting.dim}/{name}"
            yield key, functools.partial(_measure, setting, name)


def _measure(setting: Setting, name: str) -> Record:
    schedule, steps, dim = setting.schedule, setting.steps, setting.dim
    extra: dict[str, Plain] = {
        "part": "dimension",
        "dim": dim,
        "nats": setting.nats,
        "form": setting.form.value,
        "horizon": schedule.horizon,
        "horizon_rule": "theorem" if setting.careful else "exact",
        "blocks": setting.blocks,
        "truncation": dim * truncation(schedule.horizon)[0],
        "truncation_reverse": dim * truncation(schedule.horizon)[1],
        "discretisation": dim * pilot(setting.form, schedule, min(steps, PILOT)) * min(steps, PILOT) / steps,
    }
    if name == "sequential":
        one = Outcome(
            nats=torch.zeros(1).double(), rounds=(steps,), evaluations=steps, points=1, seconds=0.0, drift=None
        )
        return record(setting, name, one, extra)
    solver = solvers(setting)[name]
    if isinstance(solver, pd.Solver):
        found = solve(setting, solver, drift=name == "default, stop=KL")
    else:
        extra["sweeps"], found = fewest(setting, name)
    return record(setting, name, found, extra)


def record(setting: Setting, name: str, found: Outcome, extra: dict[str, Plain]) -> Record:
    """A measurement as a record.

    Args:
        setting: What was asked.
        name: The method.
        found: Its runs.
        extra: What else is known.

    Returns:
        The record.
    """
    error = float(found.nats.std()) / math.sqrt(len(found.nats)) if len(found.nats) > 1 else None
    more: dict[str, Plain] = {
        "parallel": float(found.nats.mean()),
        "parallel_standard_error": error,
        "parallel_worst": float(found.nats.max()),
        "drift": found.drift,
        "points": found.points,
    }
    return Record(
        problem=f"product of mixtures, d = {setting.dim}",
        method=name,
        sampler=f"Exponential {setting.form.value}",
        steps=setting.steps,
        window=f"{found.points} points",
        tol=None,
        samples=len(found.nats),
        rounds_mean=sum(found.rounds) / len(found.rounds),
        rounds_max=max(found.rounds),
        evaluations=found.evaluations,
        seconds=found.seconds,
        extra=extra | more,
    )
