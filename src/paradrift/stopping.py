r"""Stops: when nodes are settled.

The tolerance bounds the distance of the *final* sample to the sequential answer, not a local change. Node j's output
was last predicted by its surrogate with a miss :math:`d_j` that the sweep has just measured (the true defect of the
previous iterate); after the sweep its state moved by :math:`dx_j`, and the part of the output that the slope did not
explain changes by at most about :math:`R_j |dx_j|`. The larger of the two enters every row that the node's output is
used in, and each of them is felt in the answer multiplied by its *growth*: the response of the table with the slopes of
Gaussian data of variance v, where v is the largest variance that the slopes measured up to
this row have shown (unknown: infinite, no damping). A network that is steeper than the data makes its own bound
stricter; what lies ahead is never looked at, so acceptance stays causal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paradrift.errors import SpecError

TOGETHER = 0.5  # of their budgets, what all nodes that are left may spend when they are settled at once


@dataclass(frozen=True, kw_only=True)
class View:
    """What a stop may look at after a sweep: the window of each sample, from its front on.

    Args:
        effect: Predicted effect of each node's defect on the answer, rms, shape (W, S); zero at rows that are not
            nodes, infinite where a node has not been evaluated.
        weight: Effect of a unit defect of each node's output, shape (W, S).
        change: Change of each node's state in this sweep, rms, shape (W, S); zero at the front.
        posterior: Standard deviation of DDPM's noise on the step that leaves each node, shape (W, S); zero without a
            noise schedule.
        unit: sqrt(v0) of each sample, shape (S,).
        span: Rows of each sample's window, shape (S,), int64.
        swept: Sweeps since the front last moved by acceptance of its window, shape (S,), int64.
        turn: How often the front has moved so far, shape (S,), int64.
        nodes: Nodes M of the whole table.
        last: Whether a sample's window ends with the answer, shape (S,), bool.
        moved: Change of the answer in this sweep, rms, shape (S,); infinite where it is not in the window.
        noisy: Whether the chain draws noise.
    """

    effect: Tensor
    weight: Tensor
    change: Tensor
    posterior: Tensor
    unit: Tensor
    span: Tensor
    swept: Tensor
    turn: Tensor
    nodes: int
    last: Tensor
    moved: Tensor
    noisy: bool


class Stop(Protocol):
    """When rows are settled."""

    @property
    def causal(self) -> bool:
        """Whether acceptance of a row depends on noises before it only, so that a certificate may be computed."""
        ...

    def accept(self, view: View) -> Tensor:
        """How many rows after the front are settled now.

        Args:
            view: The windows after a sweep.

        Returns:
            Shape (S,), int64, between 0 and ``view.span``.
        """
        ...


@dataclass(frozen=True)
class Tolerance:
    r"""Settle the longest prefix whose effects on the answer stay below a share of the tolerance.

    Each of the M nodes may contribute :math:`\mathrm{share} \cdot \mathrm{tol} / \sqrt M` in units of sqrt(v0):
    defects of different nodes add up like independent errors. Once the window holds the answer, what counts is their
    sum: with ``finish``, everything is settled when the answer has stopped changing, and the effects of all nodes
    that are left stay together, as a root sum of squares, below :math:`\mathrm{share} \cdot \mathrm{tol}`.

    Args:
        tol: Distance of the final sample to the sequential answer, rms over elements in units of sqrt(v0); 0 asks for
            the sequential answer itself.
        share: Safety factor below 1; the calibration in the documentation was made with the default.
        finish: Whether the answer itself may end the solve. It takes about a round less, but looks at later rows: no
            certificate. None: only where no noise is drawn, since there is no certificate to lose.

    Raises:
        SpecError: if the tolerance is negative or not a number.
    """

    tol: float
    share: float = 0.35
    finish: bool | None = None

    def __post_init__(self) -> None:
        if not self.tol >= 0:
            raise SpecError(f"expected a tolerance of at least 0, found {self.tol}")

    @property
    def causal(self) -> bool:
        """True unless the answer itself may end a solve with noise."""
        return not self.finish

    def accept(self, view: View) -> Tensor:
        """The longest prefix within budget, at least the one row that is exact; or everything.

        Args:
            view: The windows after a sweep.

        Returns:
            Shape (S,), int64.
        """
        budget = self.share * self.tol / math.sqrt(view.nodes) * view.unit
        settled = view.effect <= budget  # False for NaN
        if self.tol == 0:
            # an exact slope, or a weight of nothing, makes the effect of a change vanish, but not its rounding
            settled &= view.change == 0
        settled[0] = True  # the front was evaluated at its exact state, so the row after it is exact
        count = settled.long().cumprod(0).sum(0)
        may = not view.noisy if self.finish is None else self.finish
        if may and self.tol > 0 and bool(view.last.any()):
            inside = torch.arange(1, len(view.effect), device=count.device)[:, None] < view.span
            left = torch.linalg.vector_norm(torch.where(inside, view.effect[1:], 0.0), dim=0)
            quiet = (view.moved <= self.tol / 3 * view.unit) & (left <= TOGETHER * self.share * self.tol * view.unit)
            count = torch.where(view.last & quiet, view.span, count)
        return torch.minimum(count, view.span)


@dataclass(frozen=True)
class Sweeps:
    """Settle a whole window after a fixed number of sweeps: PIADM's K per block.

    Args:
        count: Sweeps per window, at least 1; or several numbers, which windows take in turn, again and again: (K, K')
            for blocks that are each followed by a corrector.

    Raises:
        SpecError: if a count is below 1, or there is none.
    """

    count: int | tuple[int, ...]

    def __post_init__(self) -> None:
        counts = (self.count,) if isinstance(self.count, int) else self.count
        if not counts or min(counts) < 1:
            raise SpecError(f"expected at least 1 sweep, found {self.count}")

    @property
    def causal(self) -> bool:
        """True: the number of sweeps is fixed in advance."""
        return True

    def accept(self, view: View) -> Tensor:
        """Nothing, then the whole window.

        Args:
            view: The windows after a sweep.

        Returns:
            Shape (S,), int64.
        """
        counts = torch.tensor((self.count,) if isinstance(self.count, int) else self.count, device=view.swept.device)
        return torch.where(view.swept >= counts[view.turn % len(counts)], view.span, torch.zeros_like(view.span))


@dataclass(frozen=True)
class LocalChange:
    r"""ParaDiGMS' rule: a row is settled when it changed little compared with the noise of its own step.

    Row m passes when :math:`|dx_m|^2 / D \le \mathrm{tol}^2 g_m^2`, g the standard deviation of DDPM's posterior; the
    row after the last that passed is settled too. A local change is not an error: where transitions damp, the answer
    may still be far away. Kept for comparison.

    Args:
        tol: Change per noise, 0.1 in the paper.

    Raises:
        SpecError: if the tolerance is negative or not a number.

    Source: Shih et al. 2023, arXiv 2305.16317, Algorithm 1.
    """

    tol: float = 0.1

    def __post_init__(self) -> None:
        if not self.tol >= 0:
            raise SpecError(f"expected a tolerance of at least 0, found {self.tol}")

    @property
    def causal(self) -> bool:
        """True: prefixes are settled by what happened before them."""
        return True

    def accept(self, view: View) -> Tensor:
        """The longest prefix of rows that pass, and one more.

        Args:
            view: The windows after a sweep.

        Returns:
            Shape (S,), int64.
        """
        settled = view.change <= self.tol * view.posterior
        settled[0] = True
        return torch.minimum(settled.long().cumprod(0).sum(0), view.span)
