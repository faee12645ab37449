r"""Students as guesses: a fast model proposes the trajectory, the solver refines it to its teacher's own sample.

The fast relatives of a diffusion model answer from its start: a consistency model or a distilled denoiser with the end
of the trajectory that a state lies on, an operator network with the trajectory itself. Whatever they get wrong costs
rounds, never the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.guesses import Model, Proposal, Proposing
from paradrift.noise import Noise
from paradrift.solvers.base import Request
from paradrift.tableau import Tableau

_CHUNK = 64  # noises drawn at once


@dataclass(frozen=True, eq=False)
class Student:
    r"""Data predictions of a student, interpolated in :math:`\lambda = \log(\alpha/\sigma)`.

    The student is called at the start, and, for ``calls`` > 1, at further nodes, evenly spaced, where its own
    predictions so far and the chain's noises lead. From there on its later predictions count: with the noises of an
    SDE the state at node m knows more than the start. It uses noises up to its own row, so the path keeps its
    certificate. Each call is a round of one row a sample.

    Args:
        model: The student, called with scaled states (R, *shape), times (R,) and samples (R,) as a denoiser is. It
            answers with data predictions: shape (R, *shape), held from there to the end, or with ``levels`` (K, R,
            *shape). ``Reform(denoiser, Form.DATA)`` turns a student of another form into one.
        levels: Log signal-to-noise ratio :math:`\lambda` of each of K predictions, ascending; None for one that is
            held.
        calls: How often the student is called.

    Raises:
        SpecError: if the levels do not ascend, or there is no call.

    Cost: ``calls`` rounds of the student; memory for K ``calls`` states a sample.
    Source: Song et al. 2023 (arXiv 2303.01469), consistency models, Algorithm 1 for several calls; Zheng et al. 2023
    (arXiv 2211.13449), DSNO, the trajectory in one call.
    """

    model: Model
    levels: Sequence[float] | None = None
    calls: int = 1

    def __post_init__(self) -> None:
        if self.levels is not None and (len(self.levels) == 0 or not np.all(np.diff(self.levels) > 0)):
            raise SpecError(f"expected the levels of a student to ascend, found {list(self.levels)}")
        if self.calls < 1:
            raise SpecError(f"expected at least 1 call of a student, found {self.calls}")

    @property
    def models(self) -> tuple[Model, ...]:
        """The student."""
        return (self.model,)

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """None: march with what was proposed.

        Args:
            samples: Sample indices, shape (S,).
            rows: Entering rows, shape (K, S).
            last: Last states, shape (S, D).

        Returns:
            None.
        """
        return None

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:  # noqa: DOC403
        """Call the student.

        Args:
            table: The table of the solve.
            start: Starting states, shape (S, *shape).
            noise: Where noises come from.

        Yields:
            One request for each call.

        Returns:
            Its predictions.

        Raises:
            SpecError: if its answer has another shape, or it has levels and the table has none.
        """
        nodes = np.flatnonzero(table.evaluated)
        calls = min(self.calls, len(nodes))
        places = nodes[np.arange(calls) * len(nodes) // calls]
        within = _within(table, self.levels)  # place of each row among the levels of one call
        size = 1 if self.levels is None else len(self.levels)
        samples = torch.arange(len(start), device=start.device)
        position, found = np.zeros(table.rows), []
        for index, row in enumerate(places):
            position[row:] = index * size + within[row:]
            x = _state(table, position, int(row), start, noise, found)
            answer = yield Request(
                x=(float(table.scale[row]) * x).view_as(start),
                t=start.new_full((len(start),), float(table.t[row])),
                sample=samples,
                node=torch.full_like(samples, int(row)),
                model=1,
            )
            wanted = start.shape if self.levels is None else (size, *start.shape)
            if answer.shape != wanted:
                raise SpecError(
                    f"expected data predictions of shape {tuple(wanted)} from the student, found {tuple(answer.shape)}"
                )
            found += answer.to(start).reshape(size, len(start), -1).unbind()
        first = torch.as_tensor(np.floor(position), dtype=torch.int64, device=start.device)
        share = torch.as_tensor(position).to(start) - first
        return Proposal(data=torch.stack(found), first=first, share=share)


def _within(table: Tableau, levels: Sequence[float] | None) -> Array:
    """Place of each row among the levels, from 0 to K - 1, clamped at both ends."""
    if levels is None:
        return np.zeros(table.rows)
    if table.alpha is None or table.sigma is None:
        raise SpecError("expected a table with a noise schedule for a student with levels, found none")
    with np.errstate(divide="ignore"):
        ratio = np.log(table.alpha) - np.log(table.sigma)
    return np.interp(ratio, np.asarray(levels, np.float64), np.arange(len(levels)))


def _state(table: Tableau, position: Array, row: int, start: Tensor, noise: Noise, found: list[Tensor]) -> Tensor:
    """The state of a row, with predictions for outputs before it: its row of the closed loop; shape (S, D)."""
    flat = start.flatten(1)
    if row == 0:
        return flat
    states, outputs, noises = (
        gain[row] for gain in (table if table.alpha is None else table.reform(Form.DATA)).gains()
    )
    weights, share = np.zeros(len(found) + 1), position % 1
    np.add.at(weights, np.floor(position[:row]).astype(int), outputs[:row] * (1 - share[:row]))
    np.add.at(weights, np.floor(position[:row]).astype(int) + 1, outputs[:row] * share[:row])
    total = float(states) * flat
    for weight, data in zip(weights, found, strict=False):
        total = total + float(weight) * data
    columns = np.flatnonzero(noises)
    samples = torch.arange(len(start), device=start.device)
    for begin in range(0, len(columns), _CHUNK):
        chunk = columns[begin : begin + _CHUNK]
        drawn = noise.draw(samples, torch.as_tensor(chunk, device=start.device).expand(len(start), -1))
        total = total + _summed(torch.as_tensor(noises[chunk]).to(start)[:, None] * drawn.flatten(2).to(start))
    return total


def _summed(terms: Tensor) -> Tensor:
    """The sum over dimension 1 in one fixed order; matrix products choose theirs by the size of the batch."""
    while terms.shape[1] > 1:
        half = terms.shape[1] // 2
        terms = torch.cat([terms[:, :half] + terms[:, half : 2 * half], terms[:, 2 * half :]], 1)
    return terms[:, 0]
