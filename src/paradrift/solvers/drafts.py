"""Judging drafts: how far the drifts of a window's rows were off, which of them stand, and what replaces the first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.solvers.ledger import Ledger
from paradrift.solvers.lowered import Here, Lowered
from paradrift.solvers.state import State
from paradrift.summing import over_rows
from paradrift.verdicts import Drafts, Verdict


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The decision of a round.

    Args:
        kept: Rows after the front that stand as they were, shape (S,), int64.
        settled: Rows after the front that are settled once the step after those is computed anew, shape (S,), int64.
    """

    kept: Tensor
    settled: Tensor


def predictions(state: State) -> Tensor:
    """What the rows as they stand were computed with: the surrogate of every node at its state.

    Args:
        state: The windows, before they have learned from a round.

    Returns:
        Shape (B, S, D).
    """
    return state.f + state.slope * (state.z - state.ref)


def judge(
    verdict: Verdict,
    state: State,
    here: Here,
    table: Lowered,
    ledger: Ledger,
    predicted: Tensor,
    active: Tensor,
    span: Tensor,
    history: int,
    drafted: Tensor,
) -> Judged:
    """Decide which drafts stand, book what they cost, and reflect the noise of the first that falls.

    Args:
        verdict: The rule.
        state: The windows, after they have learned from the round and before they march; noise may change in place.
        here: The table under the windows.
        table: The table.
        ledger: The books.
        predicted: What :func:`predictions` said before the round, shape (B, S, D).
        active: Samples under the windows, shape (S,).
        span: Rows of each window, shape (S,).
        history: H.
        drafted: Rows that were computed with what is in ``predicted``, shape (W, S), bool; others cannot stand.

    Returns:
        The decision.
    """
    inside = slice(history, history + int(span.max()))
    row = here.row[inside]
    index = torch.arange(len(row), device=row.device)[:, None]
    ends = here.node[inside] | (index == span - 1)
    delta, xi = _shifts(state, here, predicted, inside)
    nats = _by_step(delta.double().square().sum(-1) / 2, ends)
    product = _by_step((delta.double() * xi.double()).sum(-1), ends)
    done = table.before[row.clamp(max=len(table.before) - 1)] / (len(table.of_node) - 1)
    drafts = Drafts(
        nats=nats, product=product, ends=ends, row=row, done=done.double(), spent=ledger.spent(active), sample=active
    )
    passes = (verdict.stand(drafts) | ~ends) & drafted & (index < span)
    stands = passes.long().cumprod(0).bool() & ends
    kept = torch.where(stands, index + 1, 0).amax(0)

    following = torch.where(ends, index + 1, len(row)).flip(0).cummin(0).values.flip(0)
    after = torch.minimum(following.gather(0, kept.clamp(max=len(row) - 1)[None])[0], span)
    sure = state.known.gather(0, (history - 1 + kept)[None])[0]
    settled = torch.where(sure & (kept < span), after, kept)

    # the cost of what stands; a verdict that reflects leaves none, since the law is exact
    node = (table.before[row.clamp(max=len(table.before) - 1)] - 1).clamp(min=0)
    booked = (stands & (index < kept)).nonzero(as_tuple=True)
    if verdict.reflects:
        fallen = (index == after - 1) & (index >= kept) & sure & drafted & (nats > 0) & torch.isfinite(nats)
        _reflect(state, here, delta, product, nats, fallen, kept, after, inside)
        ledger.reject(active, fallen.any(0))
    else:
        ledger.spend(active[booked[1]], node[booked], nats[booked], product[booked])
    return Judged(kept=kept, settled=settled)


def _shifts(state: State, here: Here, predicted: Tensor, inside: slice) -> tuple[Tensor, Tensor]:
    """Shifts and noises in standard deviations, shape (W, S, D): c times them is the error of the drift, and the noise.

    By forward substitution where rows use noises of others.
    """
    known = torch.where(state.known, 0.0, torch.nan).to(predicted)
    off = torch.where(here.node[..., None], predicted - state.f + known[..., None], 0.0)
    off[: inside.start - 1] = 0.0  # settled nodes were exact when the rows after them were computed last
    drift = torch.zeros_like(state.z[inside])
    for lag, weight in here.b.items():
        drift += weight[inside] * off[inside.start - lag : inside.stop - lag]
    own = here.c[0][inside] if 0 in here.c else torch.zeros_like(drift[..., :1])  # a single step has no noise
    pair = torch.stack([drift, state.noise[inside]])
    for index in range(pair.shape[1]):
        for lag, weight in here.c.items():
            if 0 < lag <= index:
                pair[:, index] -= weight[inside][index] * pair[:, index - lag]
        if len(here.c) > 1:
            pair[:, index] = torch.where(pair[:, index] == 0, 0.0, pair[:, index] / own[index])
    if len(here.c) <= 1:
        pair = torch.where(pair == 0, 0.0, pair / own)
    return pair[0], pair[1]


def _by_step(values: Tensor, ends: Tensor) -> Tensor:
    """Sums over the rows of each step, at its last row; zero elsewhere. Shape (W, S)."""
    if bool(ends.all()):
        return values
    total = values.cumsum(0)
    index = torch.arange(len(values), device=values.device)[:, None]
    last = torch.where(ends, index, -1).cummax(0).values
    before = torch.cat([last.new_full((1, last.shape[1]), -1), last[:-1]])
    base = torch.where(before >= 0, total.gather(0, before.clamp(min=0)), 0.0)
    return torch.where(ends, total - base, 0.0)


def _reflect(
    state: State,
    here: Here,
    delta: Tensor,
    product: Tensor,
    nats: Tensor,
    fallen: Tensor,
    kept: Tensor,
    after: Tensor,
    inside: slice,
) -> None:
    """Turn the noise of fallen steps around: ``xi - 2 e <e, xi>`` with ``e = delta / |delta|``."""
    if not bool(fallen.any()):
        return
    which = over_rows(torch.where(fallen, product / nats, 0.0))  # 2 <delta, xi> / |delta|^2 of the one step
    index = torch.arange(len(nats), device=nats.device)[:, None]
    rows = (index >= kept) & (index < after) & fallen.any(0)
    change = torch.where(rows[..., None], -which[None, :, None].to(delta) * delta, 0.0)
    for lag, weight in here.c.items():
        moved = weight[inside][lag:] * change[: len(change) - lag]
        state.noise[inside.start + lag : inside.stop] += moved
