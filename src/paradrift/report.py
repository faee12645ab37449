"""What a person reads in the terminal: a live progress line, and one table that puts runs side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from paradrift.forms import Array
from paradrift.solution import Round, Solution

Callback = Callable[[Round], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One solve with the name it goes by in tables and pictures.

    Args:
        name: "sequential" or "parallel", say.
        solution: The result.
        distance: Measured distance of each sample to the sequential answer, shape (S,), in units of the data's
            standard deviation; None where there is nothing to compare with.
    """

    name: str
    solution: Solution
    distance: Tensor | None = None


def distance(samples: Tensor, reference: Tensor, variance: float | None) -> Tensor:
    """How far each sample is from the sequential answer: rms over elements in units of sqrt(v0).

    Args:
        samples: Shape (S, *shape).
        reference: The sequential sampler's answers, shape (S, *shape).
        variance: Data variance per element, v0; None: the mean square of each reference sample.

    Returns:
        Shape (S,), float64, on the host.
    """
    x, y = (tensor.detach().to("cpu", torch.float64).flatten(1) for tensor in (samples, reference))
    unit = y.square().mean(1) if variance is None else torch.full((len(y),), variance, dtype=torch.float64)
    return ((x - y).square().mean(1) / unit).sqrt()


@dataclass
class Trace:
    """A callback that keeps how one sample converged: what the convergence picture is drawn from.

    Args:
        sample: Which sample to follow.
        change: Per round, the last change of each row, shape (R,), NaN outside the window.
        settled: Per round, how many nodes are settled.
        previews: Data predictions after rounds 1, 2, 4, 8, ... and the last, by round, each of shape (*shape).
    """

    sample: int = 0
    change: list[Array] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    previews: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, state: Round) -> None:
        """Keep one round; rounds after the sample has settled are left out.

        Args:
            state: What the solver reports after the round.
        """
        settled = int(state.settled[self.sample])
        change = np.asarray(state.change[self.sample].detach().to("cpu", torch.float64).numpy(), np.float64)
        if self.settled and settled == self.settled[-1] and not np.any(np.isfinite(change)):
            return
        self.settled.append(settled)
        self.change.append(change.copy())
        index = len(self.settled)
        if index > 1 and (index - 1) & (index - 2):
            self.previews.pop(index - 1, None)  # the round before was neither a power of two nor the last
        self.previews[index] = state.preview[self.sample].detach().to("cpu", torch.float32).clone()


@contextmanager
def progress(console: Console, name: str, *callbacks: Callback) -> Iterator[Callback]:
    """A live line with settled nodes of all nodes, rounds, and the estimated time left.

    Args:
        console: Where to draw it.
        name: What the line is called.
        *callbacks: Called with every round too.

    Yields:
        A callback for ``sample``.
    """
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:.0f} of {task.total:.0f} nodes settled"),
        TextColumn("{task.fields[rounds]} rounds"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console)  # started by the first round: an error before it leaves no empty line
    task = bar.add_task(name, total=None, rounds=0)

    def show(state: Round) -> None:
        for callback in callbacks:
            callback(state)
        bar.update(task, total=len(state.settled) * state.nodes, completed=int(state.settled.sum()), rounds=state.index)
        if not bar.live.is_started:
            bar.start()

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def table(runs: Sequence[Run]) -> Table:
    """The runs side by side.

    Args:
        runs: What to show, one row each.

    Returns:
        A rich table.
    """
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    result.add_column("", no_wrap=True)
    for name in ("seconds", "rounds", "evaluations", "error\nestimated", "error\nmeasured"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("status", min_width=10)
    for run in runs:
        stats = run.solution.stats
        result.add_row(
            run.name,
            f"{stats.seconds:.2f}",
            f"{stats.rounds}",
            f"{stats.evaluations}",
            _largest(run.solution.error),
            "" if run.distance is None else _largest(run.distance),
            statuses(run.solution),
        )
    return result


def statuses(solution: Solution) -> str:
    """How the samples ended, in words.

    Args:
        solution: The result of a solve.

    Returns:
        "converged" when all did, else each status with its number of samples.
    """
    counts = {status: solution.status.count(status) for status in dict.fromkeys(solution.status)}
    if len(counts) == 1:
        return next(iter(counts)).value
    return ", ".join(f"{count} {status.value}" for status, count in counts.items())


def verdict(sequential: Solution | None, parallel: Solution) -> str:
    """The comparison in one sentence.

    Args:
        sequential: The sequential run, or None when only its predicted time is known.
        parallel: The parallel run.

    Returns:
        Plain text.
    """
    stats = parallel.stats
    measured = sequential.stats.seconds if sequential else stats.predicted_sequential_seconds
    rounds = f"{stats.rounds} rounds where the sequential sampler needs {stats.nodes}"
    law = "" if parallel.certificate is None else f"\n{parallel.certificate}."
    if stats.rejected is not None:
        law = f"\nExact in law: {sum(stats.rejected)} drafts of {len(stats.rejected)} samples replaced."
    if measured is None or stats.seconds <= 0:
        return f"{rounds}.{law}"
    ratio = measured / stats.seconds
    speed = f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"
    basis = "" if sequential else " than its predicted time"
    return f"{rounds}; {speed}{basis}. Choice: {stats.choice}.{law}"


def written(solution: Solution, model: Mapping[str, Any], path: Path) -> None:
    """Write a solution so that ``paradrift audit`` can judge it.

    Args:
        solution: The result of a solve.
        model: How to make its denoiser again.
        path: File to write.
    """
    recipe = solution.recipe
    known = None if recipe is None else dataclasses.replace(recipe, model=model)
    dataclasses.replace(solution, recipe=known).save(path)


def plain(runs: Sequence[Run], settings: Mapping[str, str | int | float]) -> dict[str, object]:
    """The runs as plain values for JSON.

    Args:
        runs: What to show.
        settings: What was asked for.

    Returns:
        Settings, and per run its statistics, statuses and errors per sample; unknown errors are null.
    """

    def finite(values: Tensor) -> list[float | None]:
        return [value if np.isfinite(value) else None for value in values.tolist()]

    entries = [
        {
            "name": run.name,
            "stats": dataclasses.asdict(run.solution.stats),
            "status": [status.value for status in run.solution.status],
            "error_estimated": finite(run.solution.error),
            "error_measured": None if run.distance is None else finite(run.distance),
        }
        for run in runs
    ]
    return {"settings": dict(settings), "runs": entries}


def _largest(values: Tensor) -> str:
    worst = float(values.max()) if len(values) else 0.0
    return "unknown" if not np.isfinite(worst) else ("0" if worst == 0 else f"{worst:.1e}")
