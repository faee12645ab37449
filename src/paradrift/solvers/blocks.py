"""A chain cut into blocks, each with a fine and a coarse way through it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.samplers import Sampler
from paradrift.solvers.holding import Coarse, added, cuts, held, part
from paradrift.solvers.method import Problem
from paradrift.tableau import Tableau

_CLOSE = 1e-5  # relative: tables read from schedulers are float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One block.

    Args:
        first: Row where it begins.
        last: Row where it ends.
        fine: The sampler's rows of it, in the form of the model.
        coarse: The coarse rows, in the same form.
        mix: Coarse noises as combinations of the chain's, shape (rows, R).
        nodes: Row of the chain that each coarse row stands for.
    """

    first: int
    last: int
    fine: Tableau
    coarse: Tableau
    mix: Array
    nodes: tuple[int, ...]


def blocks(problem: Problem, count: int, coarse: Sampler | None, steps: int) -> tuple[Block, ...]:
    """Cut a chain.

    Args:
        problem: The chain.
        count: Number of blocks.
        coarse: The coarse sampler; None to hold the sampler's own outputs.
        steps: Coarse steps in a block, fewer where it has fewer steps.

    Returns:
        The blocks.

    Raises:
        SpecError: if the chain cannot be cut so often, or the coarse sampler does not fit it.
    """
    rows = cuts(problem.own)
    most = len(rows) - 1
    if count > most:
        raise SpecError(
            f"expected a chain that can be cut into {count} blocks, found one of at most {most}: choose fewer blocks, "
            "or a sampler whose steps use nothing from before they begin, such as DDIM, DDPM or Heun"
        )
    borders = [most * block // count for block in range(count + 1)]
    found = []
    for first, last in pairwise(borders):
        inner = min(steps, last - first)
        places = [rows[first + (last - first) * step // inner] for step in range(inner + 1)]
        made = held(problem.own, places) if coarse is None else _sampled(problem, coarse, places)
        found.append(
            Block(
                first=places[0],
                last=places[-1],
                fine=part(problem.table, places[0], places[-1]),
                coarse=made.table.reform(problem.table.form),
                mix=made.mix,
                nodes=_nearest(problem.own, made.table, places[0], places[-1]),
            )
        )
    return tuple(found)


def _sampled(problem: Problem, coarse: Sampler, places: list[int]) -> Coarse:
    """Another sampler's table between some rows of a chain."""
    own, schedule = problem.own, problem.schedule
    if schedule is None or own.alpha is None or own.sigma is None:
        raise SpecError(
            "expected a denoiser and a table with a noise schedule for a coarse sampler, found none: leave coarse= out"
        )
    table = coarse.tableau(schedule, own.t[places])
    assert table.alpha is not None
    assert table.sigma is not None
    for row, place in ((0, places[0]), (-1, places[-1])):
        ours, theirs = (own.alpha[place], own.sigma[place]), (table.alpha[row], table.sigma[row])
        if not np.allclose(ours, theirs, rtol=_CLOSE, atol=_CLOSE):
            raise SpecError(
                f"expected the model's schedule at t={own.t[place]} to have the sampler's levels {ours}, found "
                f"{theirs}: leave coarse= out"
            )
    if table.noisy and table.rows != len(places):
        raise SpecError(
            f"expected a coarse sampler with one noise a step, found a table of {table.rows} rows for "
            f"{len(places) - 1} steps: choose DDPM, or one without noise such as DDIM"
        )
    mix = added(own, places)[1] if table.noisy else np.zeros((table.rows, own.rows))
    return Coarse(table, mix)


def _nearest(own: Tableau, coarse: Tableau, first: int, last: int) -> tuple[int, ...]:
    """The node of a block that is nearest in time to each coarse row."""
    nodes = first + np.flatnonzero(own.evaluated[first:last])
    times = np.where(coarse.evaluated, coarse.t, own.t[nodes[0]])
    return tuple(nodes[np.abs(own.t[nodes] - times[:, None]).argmin(1)].tolist())
