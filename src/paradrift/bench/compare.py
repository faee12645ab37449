"""One point of the comparison: one method at one knob on one problem, its answers beside the sequential sampler's."""

from __future__ import annotations

import functools
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import paradrift as pd
from paradrift.bench.methods import Entry
from paradrift.bench.models import Model
from paradrift.bench.problems import Problem
from paradrift.bench.records import Plain, Record
from paradrift.errors import SpecError
from paradrift.report import distance
from paradrift.solvers.method import Method

KINDS = ("ode", "sde")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One problem for a number of samples, with what all methods share: it is computed once.

    Args:
        model: The model.
        kind: "ode" or "sde": which of its samplers.
        steps: Number of steps.
        samples: Number of samples S.
        seed: Seed of the noises.
    """

    model: Model
    kind: str
    steps: int
    samples: int
    seed: int = 0

    @functools.cached_property
    def problem(self) -> Problem:
        """The chain."""
        if self.kind not in KINDS:
            raise SpecError(f"expected a kind of sampler among {', '.join(KINDS)}, found {self.kind!r}")
        return self.model.problem(self.model.ode if self.kind == "ode" else self.model.sde, self.steps)

    @functools.cached_property
    def denoiser(self) -> pd.Denoiser:
        """The model for these samples."""
        return self.model.denoiser(self.samples)

    @functools.cached_property
    def answer(self) -> pd.Solution:
        """The sequential sampler's answers."""
        return self.solve(pd.sequential())

    @functools.cached_property
    def one_row(self) -> float:
        """Seconds of a model call of one row."""
        return cost(self, 1)

    def solve(self, solver: pd.Solver | Method) -> pd.Solution:
        """Sample it.

        Args:
            solver: The method.

        Returns:
            The solution.
        """
        problem = self.problem
        return pd.sample(
            self.denoiser,
            (self.samples, *problem.shape),
            sampler=problem.sampler,
            times=problem.times,
            solver=solver,
            seed=self.seed,
            dtype=problem.dtype,
        )


def cost(case: Case, rows: int, repeats: int = 8) -> float:
    """Seconds of a model call of so many rows, the least of several.

    Args:
        case: Model and times.
        rows: Number of rows.
        repeats: Number of calls.

    Returns:
        Seconds.
    """
    problem = case.problem
    x = torch.zeros(rows, *problem.shape, dtype=problem.dtype)
    t = torch.full((rows,), float(problem.times[problem.steps // 2]), dtype=problem.dtype)
    sample = torch.arange(rows) % case.samples
    taken: list[float] = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            case.denoiser(x, t, sample)
            taken.append(time.perf_counter() - begin)
    return min(taken[1:])


def flips(case: Case, samples: Tensor) -> int | None:
    """How many samples ended in another class than the sequential sampler's.

    Args:
        case: The problem.
        samples: Answers, shape (S, *shape).

    Returns:
        Their number; None for models without classes.
    """
    if case.model.classes is None:
        return None
    return int((case.model.classes(samples) != case.model.classes(case.answer.samples)).sum())


def named(width: int | None) -> str:
    """A width in words.

    Args:
        width: Rows of a sample in a round; None for the whole chain.

    Returns:
        Its number, or "whole".
    """
    return "whole" if width is None else str(width)


def key(case: Case, entry: Entry, width: int | None, knob: float) -> str:
    """The name of a point, by which a run goes on where it was cut off.

    Args:
        case: The problem.
        entry: The method.
        width: Rows of a sample in a round.
        knob: Its knob.

    Returns:
        The name.
    """
    return f"compare/{case.model.name}/{case.kind}/{case.steps}/{case.samples}/{named(width)}/{entry.name}/{knob:g}"


def measure(case: Case, entry: Entry, width: int | None, knob: float) -> Record:
    """Measure one point.

    Args:
        case: The problem.
        entry: The method.
        width: Rows of a sample in a round; None for the whole chain.
        knob: Its knob.

    Returns:
        The record. In ``extra``: the key; ``part``; ``kind``, ``width``, ``knob`` and what it is; ``ours``; ``flips``;
        ``unconverged`` samples; ``memory``, bytes that the process grew by at most, and ``cuda_memory``;
        ``flat_seconds``, the rounds of one sample times the cost of a call of one row, which a device of flat cost
        would take for any number of rows, and ``flat_sequential``, that of the steps. A method that is exact in law
        only has no error.
    """
    answer, problem = case.answer, case.problem
    with memory() as used:
        solution = case.solve(entry.make(knob, width, problem))
    stats, nodes = solution.stats, solution.stats.nodes
    gap = None if entry.law else distance(solution.samples, answer.samples, case.denoiser.variance)
    mean = statistics.mean(stats.sample_rounds)
    extra: dict[str, Plain] = {
        "key": key(case, entry, width, knob),
        "part": "compare",
        "model": case.model.name,
        "kind": case.kind,
        "nodes": nodes,
        "knob": knob,
        "knob_of": entry.knob,
        "ours": entry.ours,
        "law": entry.law,
        "flips": None if entry.law else flips(case, solution.samples),
        "unconverged": sum(status is not pd.Status.CONVERGED for status in solution.status),
        "memory": used.grown,
        "cuda_memory": used.cuda,
        "flat_seconds": mean * case.one_row,
        "flat_sequential": nodes * case.one_row,
    }
    return Record(
        problem=case.model.name,
        method=entry.name,
        sampler=type(problem.sampler).__name__,
        steps=case.steps,
        window=named(width),
        tol=knob if entry.ours else None,
        samples=case.samples,
        rounds_mean=mean,
        rounds_max=max(stats.sample_rounds),
        evaluations=stats.evaluations,
        seconds=stats.seconds,
        sequential_seconds=answer.stats.seconds,
        error_median=None if gap is None else float(gap.median()),
        error_worst=None if gap is None else float(gap.max()),
        engine_share=stats.engine_seconds / stats.seconds,
        extra=extra,
    )


@dataclass
class Memory:
    """What a call needed.

    Args:
        grown: Bytes that the process held beyond what it held before, at most; None where it cannot be asked. Memory
            that an earlier call has left to the allocator does not count again, so this is a lower bound.
        cuda: Bytes allocated on the GPU at most, beyond those before; None without one.
    """

    grown: int | None = None
    cuda: int | None = None
    ended: threading.Event = field(default_factory=threading.Event)


def resident() -> int | None:
    """Bytes that this process holds in memory; None where it cannot be asked.

    Returns:
        Bytes.
    """
    source = Path("/proc/self/statm")
    return int(source.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if source.is_file() else None


@contextmanager
def memory(every: float = 0.01) -> Iterator[Memory]:
    """Watch the memory of what is done inside.

    Args:
        every: Seconds between two looks.

    Yields:
        What was needed, complete at the end.
    """
    found, before, device = Memory(), resident(), torch.cuda.is_available()
    highest = [before or 0]

    def watch() -> None:
        while not found.ended.wait(every):
            highest.append(max(highest.pop(), resident() or 0))

    held = 0
    if device:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    watcher = threading.Thread(target=watch, daemon=True) if before is not None else None
    if watcher is not None:
        watcher.start()
    try:
        yield found
    finally:
        found.ended.set()
        if watcher is not None:
            watcher.join()
        if before is not None:
            found.grown = max(0, max(highest[0], resident() or 0) - before)
        if device:
            found.cuda = torch.cuda.max_memory_allocated() - held
