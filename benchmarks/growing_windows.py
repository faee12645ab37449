"""What could windows gain that are not of one width? Chains of 250 noisy steps, windows of many widths.

    python benchmarks/growing_windows.py --out benchmarks/results/growing_windows.jsonl     # some minutes on one core

A call of r rows is taken to cost 1 + r / k: a sample alone takes its rounds plus its evaluations / k. The bound takes
the best width for each fifth of the chain, by where the front stands, from the windows of one width: what a window that
depends on the front could save, if changing its width cost nothing. What came of it is told in docs/decisions.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

import paradrift as pd
from paradrift.bench.problems import Problem, digits, rough
from paradrift.bench.records import Record, append
from paradrift.report import distance
from paradrift.windows import Window

PARTS, FLAT = 5, (8, 16, 64)  # parts of the chain; k, rows at which a call costs twice that of one
WIDTHS = (8, 12, 16, 24, 32, 48, 64)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Growing:
    """A window whose width changes linearly with the front.

    Args:
        first: Width at the start of the chain.
        last: Width at its end.
    """

    first: int
    last: int

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """First node outside.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Shape (S,), int64.
        """
        return (front + self.first + front * (self.last - self.first) // nodes).clamp(max=nodes)


GROWING = (Growing(8, 16), Growing(8, 24), Growing(12, 32), Growing(24, 12), Growing(16, 8))


def solve(problem: Problem, samples: int, window: Window) -> tuple[Record, Tensor]:
    """One window.

    Args:
        problem: What is sampled.
        samples: How many.
        window: Which window.

    Returns:
        The record, and rounds and evaluations of a sample by the part of the chain that its front was in, (2, PARTS).
    """
    settled: list[Tensor] = []
    model, nodes = problem.denoiser(samples), problem.steps
    shape = (samples, *problem.shape)
    draw = partial(pd.sample, model, shape, sampler=problem.sampler, times=problem.times, max_rows=512)
    before = draw(solver=pd.sequential())
    solver = pd.default(1e-2, window, verify=0)
    found = draw(solver=solver, callback=lambda seen: settled.append(seen.settled.clone()))
    spent, front = torch.zeros(2, PARTS), torch.zeros(samples, dtype=torch.int64)
    for after in settled:
        inside = front[front < nodes]
        part = inside * PARTS // nodes
        spent[0].index_add_(0, part, torch.ones(len(inside)) / samples)
        spent[1].index_add_(0, part, (window.limit(inside, nodes) - inside) / samples)
        front = after
    gap, stats = distance(found.samples, before.samples, model.variance), found.stats
    record = Record(
        problem=problem.name,
        method="default",
        sampler=type(problem.sampler).__name__,
        steps=nodes,
        window=str(window),
        tol=1e-2,
        samples=samples,
        rounds_mean=sum(stats.sample_rounds) / samples,
        rounds_max=stats.rounds,
        evaluations=stats.evaluations,
        seconds=stats.seconds,
        sequential_seconds=before.stats.seconds,
        error_median=float(gap.median()),
        error_worst=float(gap.max()),
        extra={f"calls, k = {k}": round(float(spent[0].sum() + spent[1].sum() / k), 2) for k in FLAT},
    )
    return record, spent


@app.command()
def main(
    samples: Annotated[int, typer.Option(help="Samples of each problem.")] = 8,
    out: Annotated[Path | None, typer.Option(help="File of JSON lines to add to.")] = None,
) -> None:
    """Rounds, evaluations and predicted time of windows of one width, of changing width, and the bound."""
    torch.set_num_threads(1)
    for problem in (rough(pd.DDPM(), 250, "rough SDE 250"), digits(pd.DDPM(), 250, "digits guided SDE 250")):
        by_width: list[Tensor] = []
        for window in [*(pd.Sliding(width) for width in WIDTHS), *GROWING]:
            record, spent = solve(problem, samples, window)
            by_width += [spent] * isinstance(window, pd.Sliding)
            if out is not None:
                append(out, record)
            times = ", ".join(f"{word}: {number}" for word, number in record.extra.items())
            size = f"{record.rounds_mean:.1f} rounds, {record.evaluations / samples:.0f} evaluations"
            typer.echo(f"{problem.name} {window!s:32} {size}; {times}; error {record.error_median:.0e}")
        for k in FLAT:
            parts = torch.stack([spent[0] + spent[1] / k for spent in by_width])
            fixed, bound = parts.sum(1), parts.min(0)
            best = [WIDTHS[index] for index in bound.indices.tolist()]
            least, at = float(fixed.min()), WIDTHS[int(fixed.argmin())]
            gain = 1 - float(bound.values.sum()) / least
            typer.echo(f"{problem.name} k = {k}: {least:.1f} with {at}; at most {gain:.1%} less, with {best}")


if __name__ == "__main__":
    app()
