"""Students as drafts: rounds with and without them, and how far each is from its teacher by itself.

Every point has a name, so ``paradrift bench students --resume`` goes on where it was cut off.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch

import paradrift as pd
from paradrift.bench.problems import Problem, digits
from paradrift.bench.records import Point, Record, measured
from paradrift.guesses import Guess
from paradrift.noise import Philox
from paradrift.pretrained.students import pretrained_student
from paradrift.report import distance

SAMPLES = 64
CHAINS = ((pd.DDIM(), 50), (pd.DDIM(), 25), (pd.DDIM(), 100), (pd.DDPM(), 250))
TOLERANCES = (1e-2, 1e-1, 1e-3, 1e-4)
WINDOWS = (pd.Sliding(16), pd.Whole())
GUESSES: dict[str, Callable[[], Guess]] = {
    "default": pd.Coast,
    "trajectory": lambda: pretrained_student("trajectory"),
    "consistency": lambda: pretrained_student("consistency"),
    "consistency x 2": lambda: pretrained_student("consistency", calls=2),
}


def students(quick: bool) -> Iterator[Record]:
    """The students of the digits as drafts: rounds with and without them, and their own error alone.

    Args:
        quick: Two samples of a short chain: a check that all of it runs.

    Yields:
        One record for each point.
    """
    for point in points(quick):
        yield measured(point)


def points(quick: bool) -> Iterator[Point]:
    """The measurements, not made yet: first what the students say by themselves, then solves, the cheapest first.

    Args:
        quick: Two samples of a short chain.

    Yields:
        Key and measurement.
    """
    samples, chains = (2, ((pd.DDIM(), 4), (pd.DDPM(), 4))) if quick else (SAMPLES, CHAINS)
    tolerances, windows = ((1e-1,), (pd.Whole(),)) if quick else (TOLERANCES, WINDOWS)
    for sampler, steps in chains:
        for name in list(GUESSES)[1:]:
            yield f"{type(sampler).__name__} {steps} {name} alone", partial(_alone, sampler, steps, samples, name)
    for sampler, steps in chains:
        for window in windows:
            for tol in tolerances:
                for name in list(GUESSES)[: 3 if isinstance(sampler, pd.DDIM) else None]:
                    key = f"{type(sampler).__name__} {steps} {window} {tol:.0e} {name}"
                    yield key, partial(_solve, sampler, steps, samples, name, window, tol)


@cache
def _guess(name: str) -> Guess:
    return GUESSES[name]()


@cache
def _problem(sampler: pd.Sampler, steps: int) -> Problem:
    return digits(sampler, steps, "digits guided")


@cache
def _sequential(sampler: pd.Sampler, steps: int, samples: int) -> pd.Solution:
    return _problem(sampler, steps).solve(samples, pd.sequential())


def _alone(sampler: pd.Sampler, steps: int, samples: int, name: str) -> Record:
    """What a student says of the end, against the teacher's answer."""
    problem, student = _problem(sampler, steps), _guess(name)
    model = problem.denoiser(samples)
    assert isinstance(student, pd.Student)
    assert model.schedule is not None
    table, noise = sampler.tableau(model.schedule, problem.times), Philox(seed=0, shape=problem.shape)
    begin = time.perf_counter()
    proposing = student.propose(table, noise.start(torch.arange(samples)) * table.start, noise)
    with torch.inference_mode():
        request = next(proposing)
        while True:
            try:
                request = proposing.send(student.model(request.x, request.t, request.sample))
            except StopIteration as end:
                proposal = end.value
                break
    seconds = time.perf_counter() - begin
    answers = proposal.data[-1].view(samples, *problem.shape)
    before = _sequential(sampler, steps, samples)
    gap = distance(answers, before.samples, model.variance)
    return Record(
        problem=problem.name,
        method=f"{name} alone",
        sampler=type(sampler).__name__,
        steps=steps,
        window="none",
        tol=None,
        samples=samples,
        rounds_mean=float(student.calls),
        rounds_max=student.calls,
        evaluations=samples * student.calls,
        seconds=seconds,
        sequential_seconds=before.stats.seconds,
        error_median=float(gap.median()),
        error_worst=float(gap.max()),
    )


def _solve(
    sampler: pd.Sampler, steps: int, samples: int, name: str, window: pd.Sliding | pd.Whole, tol: float
) -> Record:
    """A solve from a guess."""
    problem, before = _problem(sampler, steps), _sequential(sampler, steps, samples)
    found = problem.solve(samples, dataclasses.replace(pd.default(tol, window), guess=_guess(name)))
    gap, stats = distance(found.samples, before.samples, problem.denoiser(samples).variance), found.stats
    return Record(
        problem=problem.name,
        method=name,
        sampler=type(sampler).__name__,
        steps=steps,
        window=stats.choice,
        tol=tol,
        samples=samples,
        rounds_mean=statistics.mean(stats.sample_rounds),
        rounds_max=stats.rounds,
        evaluations=stats.evaluations,
        seconds=stats.seconds,
        sequential_seconds=before.stats.seconds,
        error_median=float(gap.median()),
        error_worst=float(gap.max()),
        engine_share=stats.engine_seconds / stats.seconds,
        extra={"converged": sum(status is pd.Status.CONVERGED for status in found.status)},
    )
