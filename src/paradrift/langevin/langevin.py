"""The front door for Langevin chains."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift import prepare
from paradrift.denoisers import Value
from paradrift.errors import SpecError
from paradrift.guesses import Guess
from paradrift.langevin.books import Books
from paradrift.langevin.chain import Chain, Segment
from paradrift.langevin.streams import Continued
from paradrift.langevin.tables import Dynamics, check
from paradrift.noise import Buffered, Philox
from paradrift.sample import sample
from paradrift.slopes import Secant, Slopes
from paradrift.solution import Stats
from paradrift.solvers.sweep import Solver
from paradrift.stopping import Stop, Tolerance
from paradrift.verdicts import KL, Verdict
from paradrift.windows import Sliding, Window

SEGMENT = 1000  # steps in one table: tables are dense, and their memory grows with the square
WINDOW = Sliding(64)


def langevin(
    score: Callable[..., Tensor],
    x: Tensor,
    steps: int,
    step_size: float,
    friction: float | None = None,
    *,
    velocity: Tensor | None = None,
    indexed: bool = False,
    thin: int = 1,
    solver: Solver | None = None,
    window: Window | None = None,
    slopes: Slopes | None = None,
    guess: Guess | None = None,
    stop: Stop | Verdict | None = None,
    tol: float | None = None,
    scale: float | None = None,
    max_rounds: int | None = None,
    seed: int | Sequence[int] = 0,
    max_rows: int | None = None,
    segment: int = SEGMENT,
    trajectory: bool = False,
) -> Chain:
    r"""Run Langevin chains, parallel in time: the sequential chains for the same noise, in few rounds of batched calls.

    Overdamped, :math:`x_{m+1} = x_m + h\,s(x_m) + \sqrt{2h}\,\xi`, or, with a friction :math:`\gamma`, underdamped,
    with the force frozen over a step and everything else exact (:mod:`paradrift.samplers.kinetic`). Neither corrects
    its step size: the stationary law is that of the discrete chain, as sequentially.

    Args:
        score: Gradient of the log density: rows (R, \*shape) in, rows out, each by itself, always the same for the same
            row. Called without gradients; one that differentiates itself uses ``torch.func.grad`` or switches them on.
        x: Where the chains start, shape (S, \*shape), float32 or float64: the dtype and device of everything.
        steps: Number of steps.
        step_size: h, in the time of the dynamics.
        friction: gamma, per unit of that time; None for overdamped chains.
        velocity: Where velocities start, shape (S, \*shape); None for fresh standard normals.
        indexed: Whether the score takes the index of each row's chain, shape (R,), as a second argument.
        thin: Keep every ``thin``-th state only.
        solver: The parallel method, :func:`paradrift.default` unless given; ``paradrift.sequential()`` for none. The
            next five arguments replace one of its choices each.
        window: Which steps are worked on; 64 of each chain unless given.
        slopes: How defects travel; unless given, secants between 0 and the steepest force that a step of this size can
            follow, -1/h (overdamped) or -gamma/h.
        guess: Where entering steps start.
        stop: When steps are settled; ``KL(nats)`` is shared evenly by all steps of the chain, others count anew in each
            segment.
        tol: Short for ``stop=Tolerance(tol)``: distance of each chain to the sequential one, rms over elements in units
            of ``scale``, shared evenly by all steps of the chain.
        scale: Standard deviation of the target per element; None for the rms of each chain's own state as it goes,
            which is strict where a chain of few elements crosses zero.
        max_rounds: Budget of rounds, all segments together.
        seed: Seed of the addressed noise: ``s`` gives chain i the stream (s, i), a list gives each its own.
        max_rows: Most rows in one call of the score.
        segment: Steps solved as one table, whose memory grows with the square: 1000 steps take 24 MB overdamped and 96
            MB underdamped. Tolerances and noises do not depend on it.
        trajectory: Whether to keep all rows of all segments, for :meth:`Chain.kl`.

    Returns:
        The chains. One that leaves the finite numbers, because the step is too large, say, is NON_FINITE: what was
        settled before is kept, and the others go on.

    Raises:
        SpecError: if the request cannot be carried out as written.

    Cost: memory for the states that are kept, for all rows of one segment (S times ``segment``, twice that with
        velocities), and seven times that of one window.

    Example:
        >>> chain = langevin(lambda x: -x, torch.zeros(4, 3), steps=200, step_size=0.1, seed=0)
        >>> chain.states.shape, chain.converged, chain.stats.rounds < 100
        (torch.Size([4, 201, 3]), True, True)
    """
    begin = time.perf_counter()
    _check(x, steps, friction, velocity, thin, scale, segment)
    dynamics = Dynamics(step_size, friction)
    long, short = dynamics.table(min(segment, steps)), dynamics.table(steps % segment or min(segment, steps))
    if solver is None:
        window, slopes = window or WINDOW, slopes or Secant(bounds=(-dynamics.steepest, 0.0))
    base = prepare.solver_for(solver, window, slopes, guess, stop, tol, max_rounds)
    if isinstance(base.stop, Verdict) and base.stop.reflects:
        raise SpecError("expected a stop that keeps the noises of a chain, found Exact: use tol= or stop=KL(nats)")
    philox = Philox(seed=seed, shape=x.shape[1:], dtype=x.dtype, device=x.device)
    source = Buffered(philox, samples=len(x), columns=steps * dynamics.columns + 2)
    ids = torch.arange(len(x), device=x.device)
    if friction is not None and velocity is None:
        velocity = source.draw(ids, torch.ones_like(ids)[:, None])[:, 0]
    books = Books.open(x, velocity, dynamics, steps, thin)
    parts: list[Segment] = []
    stats: list[Stats] = []
    for first in range(0, steps, segment):
        active = books.active()
        spent = sum(part.rounds for part in stats)
        if not len(active) or (base.max_rounds is not None and spent >= base.max_rounds):
            books.give_up(active)
            break
        count = min(segment, steps - first)
        table = long if count == min(segment, steps) else short
        chains = torch.tensor(active, device=x.device)
        noise = Continued(
            noise=source,
            offset=first * dynamics.columns,
            chains=chains,
            handed=None if books.momentum is None else books.momentum[chains],
        )
        model = Value(
            function=Rows(score=score, chains=chains, indexed=indexed), variance=None if scale is None else scale**2
        )
        solution = sample(
            model,
            (len(active), *x.shape[1:]),
            sampler=table,
            solver=dataclasses.replace(
                base,
                stop=_shared(base.stop, count / steps),
                max_rounds=None if base.max_rounds is None else base.max_rounds - spent,
            ),
            noise=noise,
            start=books.position[chains],
            max_rows=max_rows,
            dtype=x.dtype,
            device=x.device,
            trajectory=True,
        )
        books.enter(solution, active, first, count)
        stats.append(solution.stats)
        if trajectory:
            parts.append(Segment(solution=solution, table=table, noise=noise, score=model))
    return books.close(
        _total(stats, books.rounds, steps, time.perf_counter() - begin), tuple(parts) if trajectory else None
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The user's score as a function of rows, times and chains of one segment.

    Args:
        score: The score.
        chains: Index of each chain of the segment, shape (S,).
        indexed: Whether the score takes the index of the chain.
    """

    score: Callable[..., Tensor]
    chains: Tensor
    indexed: bool

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """The score of each row.

        Args:
            x: States, shape (R, *shape).
            t: Times, which the score does not depend on.
            sample: Index in the segment of the chain of each row, shape (R,).

        Returns:
            Shape (R, *shape).

        Raises:
            SpecError: if the score returns something else.
        """
        value = self.score(x, self.chains[sample]) if self.indexed else self.score(x)
        if not isinstance(value, Tensor) or value.shape != x.shape:
            found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise SpecError(
                f"expected the score to return one row for each row, of shape {tuple(x.shape)}, found {found}: it is "
                "called with many states at once, along the first dimension"
            )
        return value


def _shared(stop: Stop | Verdict, part: float) -> Stop | Verdict:
    """A tolerance of the whole chain, as a segment sees it: every step has the same share, in whatever segment."""
    if isinstance(stop, Tolerance):
        return dataclasses.replace(stop, tol=stop.tol * math.sqrt(part))
    return dataclasses.replace(stop, nats=stop.nats * part) if isinstance(stop, KL) else stop


def _total(parts: list[Stats], rounds: list[int], steps: int, seconds: float) -> Stats:
    """What all segments cost together."""
    predicted = [part.predicted_sequential_seconds for part in parts]
    return dataclasses.replace(
        parts[0],
        rounds=sum(part.rounds for part in parts),
        evaluations=sum(part.evaluations for part in parts),
        nodes=steps,
        sample_rounds=tuple(rounds),
        seconds=seconds,
        model_seconds=sum(part.model_seconds for part in parts),
        noise_seconds=sum(part.noise_seconds for part in parts),
        planning_seconds=sum(part.planning_seconds for part in parts),
        window=max(part.window for part in parts),
        predicted_sequential_seconds=None if None in predicted else sum(value or 0.0 for value in predicted),
    )


def _check(
    x: Tensor,
    steps: int,
    friction: float | None,
    velocity: Tensor | None,
    thin: int,
    scale: float | None,
    segment: int,
) -> None:
    """Refuse what is no chain."""
    if not isinstance(x, Tensor) or x.ndim < 2 or not x.numel() or x.dtype not in (torch.float32, torch.float64):
        found = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise SpecError(
            f"expected x of shape (chains, *shape) in float32 or float64, found {found}: a single chain is x[None]"
        )
    if not bool(torch.isfinite(x).all()):
        raise SpecError("expected finite starts, found NaN or infinity in x")
    for name, value in (("number of steps", steps), ("thin", thin), ("segment", segment)):
        if not isinstance(value, int) or value < 1:
            raise SpecError(f"expected a whole {name} of at least 1, found {value}")
    if thin > steps:
        raise SpecError(f"expected thin of at most {steps}, the number of steps, found {thin}")
    if scale is not None:
        check("scale", scale)
    if velocity is not None:
        if friction is None:
            raise SpecError("expected no velocity without friction=: overdamped chains have none")
        if velocity.shape != x.shape or not bool(torch.isfinite(velocity).all()):
            raise SpecError(
                f"expected a finite velocity of shape {tuple(x.shape)}, found shape {tuple(velocity.shape)}"
            )
