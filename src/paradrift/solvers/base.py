"""The protocol between solvers and the machine: requests out, model outputs in.

A solver is a generator. It yields a :class:`Request`, is sent the model's outputs for it, and returns an
:class:`Outcome`. It never sees a model, a device or a clock, so the same solver runs on one core, on many devices, or
by hand.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from paradrift.solution import Status


@dataclass(frozen=True, kw_only=True)
class Request:
    """Rows to evaluate, all at once: one round.

    The answer has one output for each row, shape (R, *shape). With K tangents it has shape (1 + K, R, *shape): first
    the outputs :math:`f(x)`, then the products :math:`J v_k`, J the derivative of the output by the x that is given
    here, at fixed times. A product costs about as much as an output, which it is computed with: K tangents count as
    2 K evaluations of each row.

    Args:
        x: States, already scaled for the model, shape (R, *shape).
        t: Model times, shape (R,).
        sample: The sample that each row belongs to, shape (R,), int64.
        node: The table's row that each request row belongs to, shape (R,), int64.
        tangent: Directions v_k for Jacobian-vector products, K for each row, shape (K, R, *shape); or None.
        model: Which model answers, for solvers that use several.
    """

    x: Tensor
    t: Tensor
    sample: Tensor
    node: Tensor
    tangent: Tensor | None = None
    model: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a solver returns, before the machine adds what it cost.

    Args:
        samples: Answers, shape (S, *shape).
        status: How each sample ended.
        error: Estimated distance to the sequential answer in units of sqrt(v0), shape (S,).
        rounds: Rounds until each sample was settled.
        window: Widest window used, in nodes.
        certifiable: Whether acceptance was causal.
        trajectory: All rows, shape (S, R, *shape), or None.
        nats: Nats that each node's step has cost, shape (S, M), float64, where a verdict has counted them; or None.
        llr: Log-likelihood ratio of each path, shape (S,), float64, or None.
        rejected: Drafts that were replaced, one count per sample, where a verdict replaces; or None.
        outputs: Outputs that the rows were computed with, shape (S, R, *shape), where they were asked for; or None.
    """

    samples: Tensor
    status: tuple[Status, ...]
    error: Tensor
    rounds: tuple[int, ...]
    window: int
    certifiable: bool
    trajectory: Tensor | None
    nats: Tensor | None = None
    llr: Tensor | None = None
    rejected: tuple[int, ...] | None = None
    outputs: Tensor | None = None


Solving = Generator[Request, Tensor, Outcome]


class Interrupted(Exception):
    """Thrown into a solver to make it return its best answer so far."""
