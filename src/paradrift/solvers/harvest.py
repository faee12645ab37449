"""What a wavefront solve says of itself: its answers, how wrong they may be, and its rounds."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.solution import Round, Status
from paradrift.solvers.base import Outcome
from paradrift.solvers.diagonal import Diagonal, Places, rms


def verified(run: Diagonal, places: Places, answer: Tensor) -> Tensor:
    """The error from true defects of nodes, evenly spread over the chain, at their final states.

    Args:
        run: The solve.
        places: Where the outputs belong.
        answer: Model outputs, shape (K, *shape).

    Returns:
        Shape (S,), float64, in units of sqrt(v0).
    """
    state, (row, column, position) = run.state, places
    at = (position, column)
    used = state.f[at] + state.slope[at] * (state.z[at] - state.ref[at])
    defect = rms(answer.flatten(1).to(used) - used)
    return _felt(run, row, column % len(run.samples), run.table.stride * defect)


def predicted(run: Diagonal) -> Tensor:
    r"""The error from what the last evaluations say of the defects that were left.

    A node that has moved by dx since its last evaluation answered with a surrogate that is off by about R \|dx\|, R the
    slope that was left unexplained, or by what it was off at that evaluation, whichever is larger.

    Args:
        run: The solve.

    Returns:
        Shape (S,), float64, in units of sqrt(v0); infinite before the last block has entered.
    """
    if run.entered < run.blocks:
        return torch.full((len(run.samples),), torch.inf, dtype=torch.float64, device=run.samples.device)
    row = run.table.of_node[:-1]
    place = run.layout.node[:, row]
    away = rms(run.rows(run.state.z, place) - run.rows(run.state.ref, place))
    defect = torch.maximum(run.rows(run.miss, place), run.rows(run.state.rest, place) * away)
    defect = torch.where(away > 0, defect, torch.where(run.rows(run.state.known, place), 0.0, torch.inf))
    rows, samples = torch.meshgrid(row, run.samples, indexing="ij")
    return _felt(run, rows.flatten(), samples.flatten(), defect.flatten())


def _felt(run: Diagonal, row: Tensor, sample: Tensor, defect: Tensor) -> Tensor:
    """What defects do to the answers, with the growth for data of unknown variance, shape (S,)."""
    effect = run.table.influence[-1, row] / _unit(run)[sample] * defect
    total = torch.zeros(len(run.samples), dtype=torch.float64, device=row.device)
    return total.index_add_(0, sample, torch.nan_to_num(effect.double(), nan=torch.inf))


def _newest(run: Diagonal) -> Tensor:
    """Data prediction of the last evaluated node of each sample (its state, without a schedule), shape (S, D)."""
    row = run.table.of_node[:-1]
    known = run.rows(run.state.known, run.layout.node[:, row])
    last = torch.where(known, torch.arange(len(row), device=row.device)[:, None], 0).amax(0)
    position, block = run.layout.node[:, row[last]]
    at = (position, block * len(run.samples) + run.samples)
    if not run.table.scheduled:
        return run.state.z[at]
    level = run.here.levels(*at, None)
    data = (run.state.f[at] - level.p * run.state.ref[at]) / level.q
    return torch.where(run.state.known[at][:, None], data, run.start)


def _unit(run: Diagonal) -> Tensor:
    """sqrt(v0) of each sample, shape (S,): given, or the rms of its own data prediction."""
    if run.variance is not None:
        return run.start.new_full((len(run.samples),), run.variance**0.5)
    size = rms(_newest(run))
    return torch.where(size > 0, size, 1.0)


def _answers(run: Diagonal) -> Tensor:
    """The last row of each sample as it stands, shape (S, D); NaN before the last block has entered."""
    if run.entered < run.blocks:
        return torch.full_like(run.start, torch.nan)
    return run.rows(run.state.z, run.layout.state[:, -1:])[0]


def report(run: Diagonal, index: int, active: range) -> Round:
    """What a callback sees.

    Args:
        run: The solve.
        index: Rounds so far.
        active: The blocks of this round.

    Returns:
        The report; settled are nodes that are exact, and those of frozen blocks.
    """
    place, nodes = run.layout.state, run.layout.edges
    change = run.rows(run.change / run.here.levels().alpha, place) / _unit(run)
    still = (place[1] < active.start) | (place[1] >= active.stop)
    still[0] = True
    change = torch.where(still[:, None], torch.nan, change)
    return Round(
        index=index,
        evaluations=run.evaluations,
        settled=torch.where(run.failed, nodes[-1], max(run.front, nodes[run.frozen])).cpu(),
        nodes=nodes[-1],
        change=change.T.contiguous().cpu(),
        preview=_newest(run).unflatten(1, run.shape),
        answer=_answers(run).clone().unflatten(1, run.shape),
    )


def outcome(run: Diagonal, ending: Status, error: Tensor | None, keep: bool) -> Outcome:
    """Everything the machine needs to make a solution.

    Args:
        run: The solve.
        ending: Status of the samples where it ended before its last block was frozen.
        error: The error as it was verified; None to predict it.
        keep: Whether to keep all rows.

    Returns:
        The outcome.
    """
    ending = Status.CONVERGED if run.frozen == run.blocks else ending
    answers = _answers(run)
    answers = torch.where(torch.isfinite(answers).all(1, keepdim=True), answers, _newest(run))
    trajectory = None
    if keep:
        rows = run.rows(run.state.z, run.layout.state)
        rows[run.layout.state[1] >= max(1, run.entered)] = torch.nan
        trajectory = rows.transpose(0, 1).contiguous().unflatten(2, run.shape)
    error = predicted(run) if error is None else error
    return Outcome(
        samples=answers.unflatten(1, run.shape),
        status=tuple(Status.NON_FINITE if failed else ending for failed in run.failed.tolist()),
        error=torch.where(run.failed, torch.inf, error).to(run.start.dtype),
        rounds=tuple(run.rounds.tolist()),
        window=run.widest,
        certifiable=True,
        trajectory=trajectory,
    )
