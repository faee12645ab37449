r"""Transitions, blocks and certificates: three small tables on problems small enough to be known exactly.

*Transitions*: sweeps of the whole chain until every row of every sample is within 1e-3 of the sequential path. Any
transition has the same fixed point; the slope decides how soon it is reached.

*Blocks*: block after block, until every row is within 1e-3 of where more sweeps of this block would bring it. Each
starts where the sweeps of the block before have left it.

*Certificates*: the sampled certificate beside the exact divergence of the Gaussian path laws.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

import paradrift as pd
from paradrift.bench import theory_affine as affine
from paradrift.bench.records import Plain, Point, Record
from paradrift.bench.theory_affine import Line
from paradrift.forms import Array, Form
from paradrift.slopes import Slopes
from paradrift.tableau import Tableau

TOL = 1e-3
SAMPLES = 64
DRAWN = 4096
SCHEDULE = pd.OU(horizon=8.0, last=0.02)
GOLDEN = pd.OU(horizon=4.0)


@dataclass(frozen=True)
class Still:
    """The slope that makes every transition zero: Jacobi iteration, one row a sweep."""

    measured = False
    groups = None
    bounds = None

    def prior(self, table: Tableau) -> Array:
        """The slope with :math:`a + b s = 0`.

        Args:
            table: A one-step table.

        Returns:
            Shape (R,).
        """
        return np.append(-np.diagonal(table.a, -1) / np.diagonal(table.b, -1), 0.0)


SLOPES: dict[str, Slopes] = {
    "Jacobi": Still(),
    "Picard, score form": pd.Zero(Form.SCORE),
    "Picard, data form": pd.Zero(Form.DATA),
    "ParaDiGMS": pd.Increments(),
    "Gaussian reference": pd.Reference(1.0),
    "secant": pd.Secant(),
}


def model() -> pd.GaussianMixture:
    """Three modes in the plane.

    Returns:
        The denoiser, in score form.
    """
    means = [[1.0, 0.5], [-1.0, 0.5], [0.0, -1.0]]
    weights, variances = torch.tensor([0.5, 0.3, 0.2]), torch.full((3,), 0.1)
    return pd.GaussianMixture(weights, torch.tensor(means), variances, SCHEDULE, form=Form.SCORE)


def points(quick: bool) -> Iterator[Point]:
    """One point for each row of the tables.

    Args:
        quick: Few of them, on a short chain.

    Yields:
        Key and measurement.
    """
    steps = 24 if quick else 222
    for noise, name in itertools.product((1.0, 0.0), SLOPES):
        if not quick or name != "Jacobi":
            yield f"transition/{steps}/{noise:g}/{name}", functools.partial(_transition, steps, noise, name)
    for blocks in (1, 2) if quick else (1, 2, 4, 8):
        for name in ("Picard, score form", "secant"):
            yield f"blocks/{steps}/{blocks}/{name}", functools.partial(_blocks, steps, blocks, name)
    for form, sweeps in itertools.product((Form.SCORE, Form.RESIDUAL), (5,) if quick else range(1, 8)):
        yield f"certificate/{form.value}/{sweeps}", functools.partial(_certificate, form, sweeps)


def _solved(steps: int, noise: float, solver: pd.Solver) -> tuple[torch.Tensor, int]:
    found = pd.sample(
        model(),
        (SAMPLES, 2),
        sampler=pd.Exponential(stochasticity=noise),
        times=pd.grids.shrinking(SCHEDULE, steps),
        solver=solver,
        dtype=torch.float64,
        trajectory=True,
    )
    assert found.trajectory is not None
    return found.trajectory, found.stats.evaluations


@functools.cache
def _path(steps: int, noise: float) -> torch.Tensor:
    return _solved(steps, noise, pd.sequential())[0]


def _sweeping(name: str, window: pd.Whole | pd.Blocks, counts: tuple[int, ...]) -> pd.Solver:
    return pd.Solver(window=window, slopes=SLOPES[name], guess=pd.Repeat(), stop=pd.Sweeps(counts), verify=0)


def _transition(steps: int, noise: float, name: str) -> Record:
    low, high = 0, steps  # after as many sweeps as steps every path is exact

    def close(sweeps: int) -> bool:
        found, _ = _solved(steps, noise, _sweeping(name, pd.Whole(), (sweeps,)))
        return bool(((found - _path(steps, noise)).abs() <= TOL).all())

    guess = 8  # doubling first: nearly all need few
    while guess < high and not close(guess):
        low, guess = guess, 2 * guess
    high = min(high, guess)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if close(middle) else (middle, high)
    return _record("transition", name, steps, noise, high, high * steps * SAMPLES, {})


def _blocks(steps: int, blocks: int, name: str) -> Record:
    window, counts, work = pd.Blocks(blocks), (), 0
    edges = [steps * block // blocks for block in range(blocks + 1)]
    for first, last in itertools.pairwise(edges):
        left = (1,) * (blocks - 1 - len(counts))

        def path(sweeps: int, counts: tuple[int, ...] = counts, left: tuple[int, ...] = left) -> torch.Tensor:
            return _solved(steps, 1.0, _sweeping(name, window, (*counts, sweeps, *left)))[0]

        settled, sweeps = path(last - first)[:, : last + 1], 1
        while not bool(((path(sweeps)[:, : last + 1] - settled).abs() <= TOL).all()):
            sweeps += 1
        counts = (*counts, sweeps)
        work += sweeps * (last - first)
    extra: dict[str, Plain] = {"blocks": blocks, "sweeps": " ".join(map(str, counts)), "points": -(-steps // blocks)}
    return _record("blocks", name, steps, 1.0, sum(counts), work * SAMPLES, extra)


def _record(
    part: str, name: str, steps: int, noise: float, rounds: int, evaluations: int, extra: dict[str, Plain]
) -> Record:
    return Record(
        problem="three modes in the plane",
        method=name,
        sampler=f"Exponential score, stochasticity {noise:g}",
        steps=steps,
        window=f"{extra.get('blocks', 1)} blocks",
        tol=None,
        samples=SAMPLES,
        rounds_mean=float(rounds),
        rounds_max=rounds,
        evaluations=evaluations,
        seconds=0.0,
        extra={"part": part, "tol": TOL, "stochasticity": noise, **extra},
    )


def golden(form: Form) -> Tableau:
    """Twenty steps of stochasticity 0.8: the chain of the reference numbers in the tests.

    Args:
        form: SCORE or RESIDUAL.

    Returns:
        The table.
    """
    grid = np.concatenate([np.linspace(0, 3, 13), 4 - np.exp(np.linspace(0, np.log(0.05), 9))[1:]])
    return pd.Exponential(form=form, stochasticity=0.8).tableau(GOLDEN, 4 - grid)


def _certificate(form: Form, sweeps: int) -> Record:
    table, line = golden(form), Line()
    solution = pd.sample(
        pd.Gaussian([line.mean], line.variance, GOLDEN, form=form),
        (DRAWN, 1),
        sampler=table,
        solver=dataclasses.replace(pd.piadm_sde(1, sweeps), slopes=pd.Zero()),
        dtype=torch.float64,
        certify=True,
    )
    given = solution.certificate
    assert given is not None
    weights = torch.exp(-given.llr)
    after, before = affine.picard(table, line, sweeps)[0], affine.sequential(table, line)
    return Record(
        problem="Gaussian, one dimension",
        method=f"Picard, {form.value} form",
        sampler=f"Exponential {form.value}, stochasticity 0.8",
        steps=table.nodes,
        window="Whole()",
        tol=None,
        samples=DRAWN,
        rounds_mean=float(sweeps),
        rounds_max=sweeps,
        evaluations=solution.stats.evaluations,
        seconds=solution.stats.seconds,
        extra={
            "part": "certificate",
            "form": form.value,
            "sweeps": sweeps,
            "sampled": given.mean,
            "standard_error": given.standard_error,
            "exact": affine.picard_nats(table, line, sweeps),
            "exact_answers": affine.between(affine.end(after), affine.end(before)),
            "weights_mean": float(weights.mean()),
            "weights_standard_error": float(weights.std()) / math.sqrt(DRAWN),
        },
    )
