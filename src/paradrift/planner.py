r"""The planner: how wide a window, from the measured cost of batched calls on this machine.

Rounds fall with the width W roughly as

.. math:: \mathrm{rounds}(W) \approx K + M / (\eta W),

K sweeps (at most 10, fewer in narrow windows) to settle anything at all, and afterwards a share :math:`\eta` of the
window settled in each round. What a round costs is the model's time for S W rows, which only a measurement knows: on an
idle GPU nearly that of one row, on two CPU cores often proportional to the rows; and the solver's own time. The width
with the least predicted time is taken; if the sequential sampler (M calls of S rows) is predicted to be as fast, the
plan is the sequential sampler.

What cannot pay is not measured: a batch of more rows never counts as faster than one of fewer, so where windows would
lose even with free rows, as with models that cost less than the solver itself, one call decides.

Models differ in how many rounds they need. What a planned solve has taken, in rounds and in the solver's own time,
corrects the next plan for the same model, number of nodes and batch.
"""

from __future__ import annotations

import bisect
import math
import time
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import torch

from paradrift.executors import Local
from paradrift.pump import synchronize
from paradrift.solvers.base import Request
from paradrift.tableau import Tableau
from paradrift.windows import Auto, Sliding

PROBES = (16, 8, 32, 4, 64, 128)  # widths to measure, in this order, as far as the budget goes
SETTLING = 10.0  # K and eta: fitted on the embedded model at 50, 250 and 1000 steps, tol 1e-2
SHARE = 0.63
MARGIN = 0.8  # share of the sequential time that a parallel plan must promise where the solver's own time is not known
GAIN = 0.95  # and where it is counted
BUDGET = 0.05  # of the predicted sequential time is spent on measuring; for short chains up to five times as much,
BRIEF = 0.3  # but then not more than these seconds
ENGINE = 2e-3, 1.5e-5  # seconds a round that the solver takes, and more for each node of the window, until measured
TRUST = 0.5, 2.0  # measured rounds correct the prediction by factors in these bounds: a solve is but one sample


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the planner decided.

    Args:
        window: A concrete window, to be passed as ``window=`` to replay the choice.
        words: The decision in one sentence.
        sequential_seconds: Predicted time of the sequential sampler.
        seconds: Predicted time of the plan.
        costs: Measured seconds of a call by number of rows.
    """

    window: Sliding
    words: str
    sequential_seconds: float
    seconds: float
    costs: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What planned solves of a model have shown.

    Args:
        rounds: Rounds taken, as a share of those predicted.
        rows: Rows of a round, as a share of full windows and the nodes that are evaluated once more.
        engine: Seconds a round of the solver itself, as a share of those expected.
    """

    rounds: float = 1.0
    rows: float = 1.0
    engine: float = 1.0


_measured: dict[tuple[object, ...], tuple[Callable[[], object], dict[int, float]]] = {}
_experience: dict[tuple[int, Hashable], tuple[Callable[[], object], Experience]] = {}


def experience_of(model: object, chain: Hashable) -> Experience:
    """What has been learned from planned solves of a model.

    Args:
        model: The denoiser.
        chain: What the solves had in common: nodes, noise, batch, tolerance, device.

    Returns:
        The experience; without any, predictions stand as they are.
    """
    alive, known = _experience.get((id(model), chain), (lambda: None, Experience()))
    return known if alive() is model else Experience()


def learn(
    model: object,
    chain: Hashable,
    *,
    nodes: int,
    samples: int,
    width: int,
    verify: int,
    rounds: int,
    evaluations: int,
    engine_seconds: float,
) -> None:
    """Remember what a planned solve has taken.

    Args:
        model: The denoiser.
        chain: What solves must have in common to learn from each other.
        nodes: Nodes M.
        samples: Number of samples S.
        width: Width that was planned; 1 teaches nothing.
        verify: Number of nodes that are evaluated once more.
        rounds: Rounds it took.
        evaluations: Rows it evaluated.
        engine_seconds: Wall time outside model, noise and planner.
    """
    if width <= 1:
        return
    found = Experience(
        rounds=_trusted(rounds / rounds_of(width, nodes)),
        rows=min(1.0, _trusted(evaluations / (samples * (rounds * width + min(verify, nodes))))),
        engine=_trusted(max(engine_seconds, 0.0) / rounds / (ENGINE[0] + ENGINE[1] * width)),
    )
    try:
        _experience[(id(model), chain)] = (weakref.ref(model), found)
    except TypeError:  # an object without weak references is planned anew each time
        pass


def _trusted(share: float) -> float:
    return min(max(share, TRUST[0]), TRUST[1])


def measure_costs(
    executor: Local,
    table: Tableau,
    shape: tuple[int, ...],
    samples: int,
    widest: int,
    like: torch.Tensor,
    known: Experience | None = None,
) -> dict[int, float]:
    """Seconds of a model call for growing numbers of rows, remembered per model, shape, dtype, device and threads.

    Args:
        executor: Where rows are evaluated.
        table: The sampler's table: its times are used.
        shape: Shape of one sample.
        samples: Number of samples S; calls have S W rows.
        widest: Largest window width of interest.
        like: A tensor with the dtype and device of the states.
        known: What earlier solves have shown, if there were any.

    Returns:
        Seconds by number of rows, at least for one row of each sample.
    """
    key = (id(executor.denoiser), shape, samples, like.dtype, str(like.device), torch.get_num_threads())
    alive, costs = _measured.get(key, (lambda: None, {}))
    if alive() is not executor.denoiser:
        costs = {}
    nodes = np.flatnonzero(table.evaluated)

    def timed(rows: int, repeats: int) -> float:
        times = torch.as_tensor(table.t[nodes[len(nodes) // 2 :][:1]]).to(like)
        sample = torch.arange(rows, device=like.device) % samples
        request = Request(x=like.new_zeros(rows, *shape), t=times.expand(rows), sample=sample, node=sample)
        best = float("inf")
        for _ in range(repeats):
            synchronize(like.device)
            begin = time.perf_counter()
            executor.evaluate(request)
            best = min(best, time.perf_counter() - begin)
        return best

    begin = time.perf_counter()
    if samples not in costs:
        costs[samples] = timed(samples, 3 if 3 <= BUDGET * len(nodes) else 2)
    sequential = len(nodes) * costs[samples]
    allowed = max(BUDGET * sequential, min(5 * BUDGET * sequential, BRIEF))
    for width in PROBES:
        rows = samples * width
        if rows in costs or width > min(widest, len(nodes)):
            continue
        below = max(size for size in costs if size <= rows)
        # The pessimist expects a cost proportional to the rows of the nearest smaller measurement.
        if time.perf_counter() - begin + costs[below] * rows / below > allowed:
            continue
        if not _hopeful(below, costs, samples, widest, len(nodes), sequential, known or Experience()):
            continue
        costs[rows] = timed(rows, 2)
    try:
        _measured[key] = (weakref.ref(executor.denoiser), costs)
    except TypeError:  # an object without weak references is measured anew each time
        pass
    return costs


def _hopeful(
    below: int, costs: dict[int, float], samples: int, widest: int, nodes: int, sequential: float, known: Experience
) -> bool:
    """Whether a width between two measured ones would win if its calls took no longer than those of fewer rows."""
    above = min((size for size in costs if size > below), default=math.inf)
    return any(
        below < samples * width < above
        and _rounds(width, nodes, known) * (costs[below] + _engine(width, known)) < GAIN * sequential
        for width in _widths(widest, nodes)
    )


def _widths(widest: int, nodes: int) -> list[int]:
    """The widths to choose from."""
    widths = [width for width in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256) if width <= widest]
    return [width for width in widths if width < nodes] + ([nodes] if nodes <= widest else [])


def _rounds(width: int, nodes: int, known: Experience) -> float:
    return min(float(nodes), known.rounds * rounds_of(width, nodes))


def _engine(width: int, known: Experience) -> float:
    return known.engine * (ENGINE[0] + ENGINE[1] * width)


def cost_of(rows: float, costs: dict[int, float]) -> float:
    """Seconds of a call, interpolated; proportional to the rows beyond the largest measured number.

    No call counts as longer than one of more rows: that was a busy spell of the machine.

    Args:
        rows: Number of rows.
        costs: Measured seconds by number of rows.

    Returns:
        Seconds.
    """
    return _cost(rows, *_monotonic(costs))


def _monotonic(costs: dict[int, float]) -> tuple[list[int], list[float]]:
    """Numbers of rows, ascending, and for each the least cost of as many or more."""
    sizes, seconds, least = sorted(costs), [], math.inf
    for size in reversed(sizes):
        least = min(least, costs[size])
        seconds.append(least)
    return sizes, seconds[::-1]


def _cost(rows: float, sizes: list[int], seconds: list[float]) -> float:
    if rows >= sizes[-1]:
        return seconds[-1] * rows / sizes[-1]
    if rows <= sizes[0]:
        return seconds[0]
    upper = bisect.bisect_right(sizes, rows)
    share = (rows - sizes[upper - 1]) / (sizes[upper] - sizes[upper - 1])
    return seconds[upper - 1] + share * (seconds[upper] - seconds[upper - 1])


def rounds_of(width: int, nodes: int) -> float:
    """Predicted rounds of a window.

    Args:
        width: Width W.
        nodes: Nodes M.

    Returns:
        Rounds, not more than M.
    """
    return min(float(nodes), min(SETTLING, 0.35 * width) + nodes / max(1.0, SHARE * width))


def choose(
    auto: Auto, costs: dict[int, float], samples: int, nodes: int, verify: int, known: Experience | None = None
) -> Choice:
    """The width with the least predicted time.

    Args:
        auto: The request.
        costs: Measured seconds by number of rows.
        samples: Number of samples S.
        nodes: Nodes M.
        verify: Number of nodes that are evaluated once more.
        known: What earlier solves have shown, if there were any.

    Returns:
        The choice.
    """
    known = known or Experience()
    sizes, measured = _monotonic(costs)
    sequential = nodes * (costs[samples] if samples in costs else _cost(samples, sizes, measured))
    best, least = 1, sequential * GAIN
    for width in _widths(auto.widest, nodes):
        rounds = _rounds(width, nodes, known)
        checked = min(verify, nodes) / rounds
        seconds = rounds * (_cost(known.rows * samples * (width + checked), sizes, measured) + _engine(width, known))
        if seconds < least:
            best, least = width, seconds
    if best == 1:
        words = "sequential: no window promised to be faster"
        return Choice(window=Sliding(1), words=words, sequential_seconds=sequential, seconds=sequential, costs=costs)
    words = f"Sliding({best}): predicted {sequential / least:.1f} times faster than sequential"
    return Choice(window=Sliding(best), words=words, sequential_seconds=sequential, seconds=least, costs=costs)
