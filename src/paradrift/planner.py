r"""The planner: how wide a window, from the measured cost of batched calls on this machine.

Rounds fall with the width W roughly as

.. math:: \mathrm{rounds}(W) \approx K + M / (\eta W),

K sweeps (at most 10, fewer in narrow windows) to settle anything at all, and afterwards a share :math:`\eta` of the
window settled in each round. What a round costs is the model's time for S W rows, which only a measurement knows: on an
idle GPU nearly that of one row, on two CPU cores often proportional to the rows; and the solver's own time. The width
with the least predicted time is taken; if the sequential sampler (M calls of S rows) is predicted to be as fast, the
plan is the sequential sampler, the more easily where no solve has shown what a window takes. A thinned chain may also
be stepped through, which counts with the share of such chains that fail: then all nodes follow.

What cannot pay is not measured: a batch of more rows never counts as faster than one of fewer, so where windows would
lose even with free rows, as with models that cost less than the solver itself, one call decides.

Models differ in how many rounds they need, and calls in a solve take longer than calls that are repeated for a
measurement. What a planned solve has taken corrects the next plan: see :mod:`paradrift.experience`.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from paradrift.executors import Local
from paradrift.experience import Experience, cost_of
from paradrift.pump import synchronize
from paradrift.solvers.base import Request
from paradrift.tableau import Tableau
from paradrift.windows import Auto, Sliding

PROBES = (8, 16, 32, 4, 64, 128)  # widths to measure, in this order, as far as the budget goes: doubling is never dear
MARGIN = 0.8  # share of the sequential time that a parallel plan must promise where no solve has shown what it takes
GAIN = 0.95  # and where one has
BUDGET = 0.05  # of the predicted sequential time is spent on measuring; for short chains up to five times as much,
BRIEF = 0.3  # but then not more than these seconds
SERIAL = 0.4  # of the nodes: more are not worth stepping through, since all of them follow where those do not do


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the planner decided.

    Args:
        window: A concrete window, to be passed as ``window=`` to replay the choice.
        words: The decision in one sentence.
        sequential_seconds: Predicted time of the sequential sampler.
        seconds: Predicted time of the plan.
        costs: Measured seconds of a call by number of rows.
        thinned: Whether it is a thinned chain, stepped through: to be replayed with ``Thinned(alone=True)``, too.
    """

    window: Sliding
    words: str
    sequential_seconds: float
    seconds: float
    costs: dict[int, float]
    thinned: bool = False


Asked = Callable[[int], tuple[int, int]]  # how many nodes a window of some width asks, and once more


_measured: dict[tuple[object, ...], tuple[Callable[[], object], dict[int, float]]] = {}


def measure_costs(
    executor: Local,
    table: Tableau,
    shape: tuple[int, ...],
    samples: int,
    widest: int,
    like: torch.Tensor,
    known: Experience | None = None,
    asked: Asked | None = None,
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
        asked: How many nodes a width asks, where that is not the whole chain.

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
        chain = asked or _all(len(nodes), 0)
        if not _hopeful(below, costs, samples, widest, len(nodes), sequential, known or Experience(), chain):
            continue
        costs[rows] = timed(rows, 2)
    try:
        _measured[key] = (weakref.ref(executor.denoiser), costs)
    except TypeError:  # an object without weak references is measured anew each time
        pass
    return costs


def _all(nodes: int, verified: int) -> Asked:
    return lambda width: (nodes, verified)


def _hopeful(
    below: int,
    costs: dict[int, float],
    samples: int,
    widest: int,
    nodes: int,
    sequential: float,
    known: Experience,
    asked: Asked,
) -> bool:
    """Whether a width between two measured ones would win if its calls took no longer than those of fewer rows."""
    above = min((size for size in costs if size > below), default=math.inf)
    return any(
        below < samples * width < above
        and known.rounds_of(width, asked(width)[0]) * (known.calls * costs[below] + known.engine_of(width))
        < promised(known) * known.step * sequential
        for width in _widths(widest, nodes)
    )


def promised(known: Experience) -> float:
    """Share of the sequential time that a parallel plan must promise.

    Args:
        known: What earlier solves have shown.

    Returns:
        The share.
    """
    return GAIN if known.solved else MARGIN


def _widths(widest: int, nodes: int) -> list[int]:
    """The widths to choose from."""
    widths = [width for width in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256) if width <= widest]
    return [width for width in widths if width < nodes] + ([nodes] if nodes <= widest else [])


def choose(
    auto: Auto,
    costs: dict[int, float],
    samples: int,
    nodes: int,
    verified: int,
    known: Experience | None = None,
    asked: Asked | None = None,
) -> Choice:
    """The width with the least predicted time.

    Args:
        auto: The request.
        costs: Measured seconds by number of rows.
        samples: Number of samples S.
        nodes: Nodes M.
        verified: Number of nodes that are evaluated once more.
        known: What earlier solves have shown, if there were any.
        asked: How many nodes a width asks, and once more, where that is not the whole chain.

    Returns:
        The choice.
    """
    known, asked = known or Experience(), asked or _all(nodes, verified)
    sequential = nodes * known.step * cost_of(samples, costs)
    best, least, few = 1, sequential * promised(known), False
    for width in (1, *_widths(auto.widest, nodes)):
        kept, checked = asked(width)
        if width > 1:
            rounds = known.rounds_of(width, kept)
            rows = known.rows * samples * (width + checked / rounds)
            seconds = rounds * (known.calls * cost_of(rows, costs) + known.engine_of(width))
        elif kept <= SERIAL * nodes:  # a thinned chain, stepped through and checked; where it does not do, all nodes
            seconds = (kept + known.failing * nodes) * known.step * cost_of(samples, costs)
            seconds += cost_of(samples * checked, costs) + known.stepping_of(kept)
        else:
            continue
        if seconds < least:
            best, least, few = width, seconds, kept < nodes
    if best == 1 and not few:
        words = "sequential: no window promised to be faster"
        return Choice(window=Sliding(1), words=words, sequential_seconds=sequential, seconds=sequential, costs=costs)
    on = f" on {asked(best)[0]} of {nodes} nodes" if few else ""
    words = f"Sliding({best}){on}: predicted {sequential / least:.1f} times faster than sequential"
    return Choice(
        window=Sliding(best),
        words=words,
        sequential_seconds=sequential,
        seconds=least,
        costs=costs,
        thinned=best == 1,
    )
