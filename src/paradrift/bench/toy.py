"""The 64-dimensional eight-mode toy with eight evaluations a round: how many rounds without a single mode flip?"""

from __future__ import annotations

from collections.abc import Iterator

import torch

import paradrift as pd
from paradrift.bench.problems import mixture, modes
from paradrift.bench.records import Record
from paradrift.report import distance


def toy(quick: bool) -> Iterator[Record]:
    """Window 8, no verification (so that a round has at most eight rows a sample), and Picard and ParaDiGMS beside it.

    Args:
        quick: 50 samples instead of 2000.

    Yields:
        One record per method; the worst error relative to the norm and the mode flips stand in ``extra``.
    """
    samples = 50 if quick else 2000
    problem = mixture(stochastic=False)
    before = problem.solve(samples, pd.sequential())
    for name, solver in [
        ("default, tol 1e-2", pd.default(1e-2, pd.Sliding(8), verify=0)),
        ("default, tol 3e-3", pd.default(3e-3, pd.Sliding(8), verify=0)),
        ("ParaDiGMS, 0.1", pd.paradigms(8, 0.1)),
        ("ParaDiGMS, 0.01", pd.paradigms(8, 0.01)),
    ]:
        after = problem.solve(samples, solver)
        gaps = distance(after.samples, before.samples, problem.denoiser(samples).variance)
        relative = (after.samples - before.samples).norm(dim=1) / before.samples.norm(dim=1)
        flips = torch.cdist(after.samples, modes()).argmin(1) != torch.cdist(before.samples, modes()).argmin(1)
        yield Record(
            problem="mixture-64 ODE 50, 8 evaluations a round",
            method=name,
            sampler="Euler",
            steps=50,
            window="Sliding(width=8)",
            tol=solver.stop.tol if isinstance(solver.stop, pd.Tolerance) else None,
            samples=samples,
            rounds_mean=sum(after.stats.sample_rounds) / samples,
            rounds_max=max(after.stats.sample_rounds),
            evaluations=after.stats.evaluations,
            seconds=after.stats.seconds,
            error_median=float(gaps.median()),
            error_worst=float(gaps.max()),
            engine_share=after.stats.engine_seconds / after.stats.seconds,
            extra={"flips": int(flips.sum()), "relative_worst": float(relative.max())},
        )
