"""The front door: sample a chain, all of it at once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from paradrift import certificate, prepare, presets
from paradrift.denoisers import Denoiser
from paradrift.errors import SolveError, SpecError
from paradrift.forms import Array
from paradrift.guesses import Guess
from paradrift.nodes import Nodes
from paradrift.noise import Noise
from paradrift.planned import Planned, planned
from paradrift.prepare import Generators
from paradrift.samplers import Gridded, Sampler
from paradrift.slopes import Slopes
from paradrift.solution import Round, Solution, Status
from paradrift.solvers.method import Method
from paradrift.solvers.sweep import Solver
from paradrift.solving import rounds
from paradrift.stopping import Stop
from paradrift.tableau import Tableau
from paradrift.verdicts import Verdict
from paradrift.windows import Window


def sample(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    sampler: Sampler | Gridded | Tableau | None = None,
    steps: int | None = None,
    times: Array | Sequence[float] | None = None,
    plan: Planned | None = None,
    solver: Solver | Method | None = None,
    window: Window | None = None,
    slopes: Slopes | None = None,
    guess: Guess | None = None,
    nodes: Nodes | None = None,
    stop: Stop | Verdict | None = None,
    tol: float | None = None,
    exact: bool = False,
    max_rounds: int | None = None,
    seed: int | Sequence[int] = 0,
    generator: Generators | None = None,
    noise: Noise | Tensor | None = None,
    start: Tensor | None = None,
    max_rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    callback: Callable[[Round], None] | None = None,
    progress: bool = False,
    trajectory: bool = False,
    certify: bool = False,
    throw: bool = False,
) -> Solution:
    r"""Sample, parallel in time: the sequential sampler's answer in few rounds of batched calls.

    Args:
        denoiser: The model; see :func:`paradrift.denoiser` for your own network.
        shape: Shape of the batch, (S, *shape).
        sampler: The sequential method, DDPM unless given; one with a grid of its own, such as
            :class:`paradrift.Probed`; or a ready table.
        steps: Number of steps on the schedule's usual grid.
        times: The grid itself, strictly decreasing model times, instead of ``steps``.
        plan: A plan from :func:`paradrift.plan`, instead of sampler, steps, times and solver.
        solver: The parallel method, :func:`paradrift.default` unless given. The next six arguments replace one of its
            choices each; methods of another kind (:func:`paradrift.srds`, :func:`paradrift.chords`) have their own.
        window: Which nodes are worked on; ``Auto()`` plans it from measured costs.
        slopes: How defects travel.
        guess: Where entering nodes start.
        nodes: Which nodes of a chain are evaluated: ``Thinned()`` interpolates, or averages with noise, those that the
            tolerance does not need, ``Every()`` evaluates all. With noise, all are where the path is kept or certified,
            and where a generator draws.
        stop: When rows are settled; ``KL(nats)`` bounds the divergence from the sequential sampler's law.
        tol: Short for ``stop=Tolerance(tol)``: distance of each final sample to the sequential answer, rms over
            elements in units of the data's standard deviation.
        exact: Draw from the sequential sampler's very law, without tolerance: short for ``stop=Exact(seed)``. Rows are
            replaced where they have to be, so the answers are not those of the same noises.
        max_rounds: Budget of rounds; what is not settled by then has the status BUDGET_EXHAUSTED.
        seed: Seed of the addressed noise: ``s`` gives sample i the stream (s, i), a list gives each its own.
        generator: Take the noise from a generator (or one a sample) exactly as a sequential diffusers loop would.
        noise: A noise source, or ready noises of shape (S, R, *shape), which need ``start``.
        start: The start in the state's own scale, shape (S, *shape), instead of drawn noise.
        max_rows: Most rows in one model call.
        dtype: Precision of the states, float32 or float64; the model may run in less.
        device: Where the states live.
        callback: Called after each round with a :class:`paradrift.Round`.
        progress: Whether to draw a progress line of settled nodes.
        trajectory: Whether to keep all rows.
        certify: Evaluate the model once more at every node of the path, in one batch, and say in ``certificate`` how
            far the law is from the sequential sampler's; ``KL`` and ``exact`` do so without.
        throw: Raise :class:`paradrift.SolveError`, which carries the solution, unless every sample converged.

    Returns:
        The solution: samples, statuses, error estimates, statistics.

    Raises:
        SpecError: if the request cannot be carried out as written.
        SolveError: with ``throw``, if a sample did not converge.

    Example:
        >>> import numpy as np
        >>> from paradrift.analytic import Gaussian
        >>> from paradrift.schedules import Discrete
        >>> from paradrift.windows import Sliding
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> solution = sample(toy, (3, 2), steps=100, seed=0, window=Sliding(32))
        >>> solution.converged, solution.stats.rounds < 50
        (True, True)
    """
    if certify and generator is not None:
        raise SpecError("expected a seed to certify, found a generator, whose noises are gone by then: use seed=")
    if plan is not None:
        prepare.check(denoiser, tuple(shape), dtype)
        run = planned(plan, denoiser, tuple(shape), (sampler, steps, times, solver))
        sampler, times, solver = run["sampler"], run["times"], run["solver"]
    own = None if not exact else seed if isinstance(seed, int) else tuple(seed)
    steps_of = rounds(
        denoiser,
        tuple(shape),
        sampler=sampler,
        steps=steps,
        times=times,
        solver=prepare.method_for(solver, window, slopes, guess, stop, tol, max_rounds, own, nodes),
        seed=seed,
        generator=generator,
        noise=noise,
        start=start,
        max_rows=max_rows,
        dtype=dtype,
        device=torch.device(device),
        callback=callback,
        progress=progress,
        trajectory=trajectory or certify,
        certify=certify,
    )
    with torch.inference_mode():
        while True:
            try:
                next(steps_of)
            except StopIteration as end:
                solution: Solution = end.value
                break
    solution = _ordinary(solution)
    if certify and solution.certificate is None and solution.converged:
        begin = time.perf_counter()
        solution = dataclasses.replace(
            solution, certificate=certificate.kl(solution, denoiser, noise=noise, max_rows=max_rows)
        )
        stats = solution.stats
        spent = dict(rounds=stats.rounds + 1, evaluations=stats.evaluations + len(solution.samples) * stats.nodes)
        stats = dataclasses.replace(stats, seconds=stats.seconds + time.perf_counter() - begin, **spent)
        solution = dataclasses.replace(solution, stats=stats, trajectory=solution.trajectory if trajectory else None)
    if throw and not solution.converged:
        failed = [
            f"sample {i}: {status.value}" for i, status in enumerate(solution.status) if status is not Status.CONVERGED
        ]
        raise SolveError(f"expected every sample to converge, found {', '.join(failed[:5])}", solution)
    return solution


def iterate(  # noqa: DOC405
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    sampler: Sampler | Gridded | Tableau | None = None,
    steps: int | None = None,
    times: Array | Sequence[float] | None = None,
    solver: Solver | Method | None = None,
    seed: int | Sequence[int] = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Generator[Round, None, Solution]:
    """The same solve, one round at a time, by hand.

    Args:
        denoiser: The model.
        shape: Shape of the batch, (S, *shape).
        sampler: The sequential method, DDPM unless given; one with a grid of its own, such as
            :class:`paradrift.Probed`; or a ready table.
        steps: Number of steps on the schedule's usual grid.
        times: The grid itself instead of ``steps``.
        solver: The parallel method.
        seed: Seed of the addressed noise.
        dtype: Precision of the states.
        device: Where the states live.

    Yields:
        A :class:`paradrift.Round` after each round.

    Returns:
        The solution.

    Example:
        >>> import numpy as np
        >>> from paradrift.analytic import Gaussian
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> settled = [int(r.settled[0]) for r in iterate(toy, (1, 2), steps=20, solver=presets.default(1e-3))]
        >>> settled == sorted(settled) and settled[-1] == 20
        True
    """
    seen: list[Round] = []
    solving = rounds(
        denoiser,
        tuple(shape),
        sampler=sampler,
        steps=steps,
        times=times,
        solver=solver or presets.default(),
        seed=seed,
        generator=None,
        noise=None,
        start=None,
        max_rows=None,
        dtype=dtype,
        device=torch.device(device),
        callback=seen.append,
        progress=False,
        trajectory=False,
        certify=False,
    )
    solution: Solution | None = None
    while solution is None:
        # The mode must not leak into the caller's code between rounds.
        with torch.inference_mode():
            try:
                next(solving)
            except StopIteration as end:
                solution = end.value
        while seen:  # one, or none in a round that only verifies; the last round ends the solve as well
            yield _ordinary(seen.pop(0))
    return _ordinary(solution)


_Result = TypeVar("_Result", Round, Solution)


def _ordinary(result: _Result) -> _Result:
    """The same with ordinary tensors: those made in inference mode cannot enter autograd."""
    tensors = {name: value.clone() for name, value in vars(result).items() if isinstance(value, Tensor)}
    return dataclasses.replace(result, **tensors)
