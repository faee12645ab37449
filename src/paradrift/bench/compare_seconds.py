"""The second half of a comparison: the wall time of one sample, methods and the plain loop in turn.

Every method runs as it would be used: ours by its defaults with a planned window, and once more as rivals run, without
verification and at the tolerance that its own curve says is enough; rivals at the width and knob which, by their own
curves and the measured cost of a call, are the fastest for the error asked for, without flips. The plain loop is the
strongest sequential alternative; see :mod:`paradrift.bench.loop`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import torch

import paradrift as pd
from paradrift.bench import loop
from paradrift.bench.compare import Case, cost, flips
from paradrift.bench.equal_error import latest
from paradrift.bench.methods import CATALOGUE, table
from paradrift.bench.records import Plain, Record, machine
from paradrift.report import distance
from paradrift.solvers.method import Method

TARGET = 1e-2
EVERY = frozenset(entry.name for entry in CATALOGUE)
AIM = 0.7  # of the target: the errors of other samples scatter


@dataclass(frozen=True, kw_only=True)
class Racer:
    """A method as it runs for time.

    Args:
        name: Word for tables.
        ours: Whether it is the library's own.
        width: Its width in words.
        knob: Its knob.
        solver: The method.
    """

    name: str
    ours: bool
    width: str
    knob: float
    solver: pd.Solver | Method


def racers(case: Case, done: Sequence[Record], methods: Container[str]) -> list[Racer]:
    """The methods and how they run.

    Args:
        case: The problem.
        done: Measurements of the comparison.
        methods: Names of those that take part.

    Returns:
        Ours by its defaults, then every one that has reached the error on its own curve.
    """
    own = Racer(name="default", ours=True, width="auto", knob=TARGET, solver=pd.default(TARGET))
    found = [own] if own.name in methods else []
    costs: dict[int, float] = {}
    for entry in CATALOGUE:
        if entry.name not in methods:
            continue
        best: tuple[float, Record] | None = None
        for record in latest(done, "compare"):
            where = (record.extra["model"], record.extra["kind"], record.steps, record.method)
            if where != (case.model.name, case.kind, case.steps, entry.name) or record.error_median is None:
                continue
            if record.error_median > TARGET or record.extra["flips"] or record.extra["unconverged"]:
                continue
            rows = max(1, math.ceil(record.evaluations / record.samples / record.rounds_mean))
            if rows not in costs:
                costs[rows] = cost(case, rows, 3)
            predicted = record.rounds_mean * costs[rows]
            if best is None or predicted < best[0]:
                best = predicted, record
        if best is None:
            continue
        knob = _loosened(best[1], done) if entry.knob == "tolerance" else float(best[1].extra["knob"] or 0)
        width = None if best[1].window == "whole" else int(best[1].window)
        if entry.planned is None:
            solver = entry.make(knob, width, case.problem)
            found.append(Racer(name=entry.name, ours=entry.ours, width=best[1].window, knob=knob, solver=solver))
        else:
            name = f"{entry.name}, tol {knob:g}, unverified"
            found.append(Racer(name=name, ours=entry.ours, width="auto", knob=knob, solver=entry.planned(knob)))
    return found


def _loosened(record: Record, done: Sequence[Record]) -> float:
    """The tolerance, between that of a point and that of the next looser one, at which the error is about TARGET.

    Points of a ladder are a factor of three apart; a user of either method would not stop there. Interpolated
    geometrically towards AIM times the target, where both points are without flips.
    """
    knob = float(record.extra["knob"] or 0)
    same = ("model", "kind", "nodes")
    looser = [
        other
        for other in latest(done, "compare")
        if all(other.extra[name] == record.extra[name] for name in same)
        and (other.method, other.steps, other.window) == (record.method, record.steps, record.window)
        and float(other.extra["knob"] or 0) > knob
    ]
    if not looser or record.error_median is None:
        return knob
    near = min(looser, key=lambda other: float(other.extra["knob"] or 0))
    aim, low, high = AIM * TARGET, record.error_median, near.error_median
    if near.extra["flips"] or near.extra["unconverged"] or high is None or not 0 < low < aim < high:
        return knob
    share = math.log(aim / low) / math.log(high / low)
    return float(f"{knob * (float(near.extra['knob'] or 0) / knob) ** share:.2g}")


def lane(name: str) -> str:
    """The name of a racer without its tolerance, which follows from measured costs and so differs from run to run.

    Args:
        name: Such as "default, tol 0.3, unverified".

    Returns:
        Such as "default, unverified".
    """
    head, _, tail = name.partition(", tol ")
    return f"{head},{tail.partition(',')[2]}" if tail else name


def race(case: Case, done: Sequence[Record], repeats: int = 9, methods: Container[str] = EVERY) -> Iterator[Record]:
    """Every method and the plain loop, in turn, seed by seed.

    Args:
        case: The problem, for one sample.
        done: Measurements so far: methods that have run already on this processor are left out.
        repeats: Seeds.
        methods: Names of the methods that take part.

    Yields:
        One record for each method: medians over seeds. In ``extra``: the key; ``part``; ``speedup`` over the plain
        loop, median, and ``speedup_least``; ``ceiling``, what rounds and the measured cost of a call allow; ``flips``.
    """
    here = machine()["processor"]
    names = {
        lane(str(record.extra["key"])) for record in latest(done, "seconds") if record.machine["processor"] == here
    }
    stem = f"seconds/{case.model.name}/{case.kind}/{case.steps}"
    running = [racer for racer in racers(case, done, methods) if lane(f"{stem}/{racer.name}") not in names]
    if not running:
        return
    own, problem = table(case.problem), case.problem
    start = torch.randn(1, *problem.shape, dtype=problem.dtype) * own.start
    plain = loop.prepared(case.denoiser, own, start)
    plain(None)  # the first run of anything is slow
    for racer in running:
        case.solve(racer.solver)
    times: list[float] = []
    solved: dict[str, list[pd.Solution]] = {racer.name: [] for racer in running}
    gaps: dict[str, list[float]] = {racer.name: [] for racer in running}
    flipped = dict.fromkeys(solved, 0)
    for seed in range(1, repeats + 1):
        turn = Case(model=case.model, kind=case.kind, steps=case.steps, samples=1, seed=seed)
        times.append(plain(None)[1])
        for racer in running:
            solution = turn.solve(racer.solver)
            solved[racer.name].append(solution)
            gaps[racer.name] += distance(solution.samples, turn.answer.samples, turn.denoiser.variance).tolist()
            flipped[racer.name] += flips(turn, solution.samples) or 0
    one = cost(case, 1)
    for racer in running:
        solutions = solved[racer.name]
        seconds = [solution.stats.seconds for solution in solutions]
        rounds = statistics.mean(solution.stats.rounds for solution in solutions)
        rows = statistics.mean(solution.stats.evaluations / solution.stats.rounds for solution in solutions)
        extra: dict[str, Plain] = {
            "key": f"{stem}/{racer.name}",
            "part": "seconds",
            "model": case.model.name,
            "kind": case.kind,
            "nodes": own.nodes,
            "knob": racer.knob,
            "ours": racer.ours,
            "repeats": repeats,
            "speedup": statistics.median(times) / statistics.median(seconds),
            "speedup_least": min(a / b for a, b in zip(times, seconds, strict=True)),
            "ceiling": own.nodes * one / (rounds * cost(case, math.ceil(rows))),
            "rows_per_round": rows,
            "flips": None if case.model.classes is None else flipped[racer.name],
            "choice": solutions[-1].stats.choice,
        }
        yield Record(
            problem=case.model.name,
            method=racer.name,
            sampler=type(problem.sampler).__name__,
            steps=case.steps,
            window=racer.width,
            tol=racer.knob if racer.ours else None,
            samples=1,
            rounds_mean=rounds,
            rounds_max=max(solution.stats.rounds for solution in solutions),
            evaluations=solutions[-1].stats.evaluations,
            seconds=statistics.median(seconds),
            sequential_seconds=statistics.median(times),
            error_median=statistics.median(gaps[racer.name]),
            error_worst=max(gaps[racer.name]),
            engine_share=statistics.median(s.stats.engine_seconds / s.stats.seconds for s in solutions),
            extra=extra,
        )
