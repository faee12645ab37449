"""The front door: sample a chain, all of it at once."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from paradrift import certificate, prepare, presets
from paradrift.denoisers import Denoiser, modules
from paradrift.divergence import Certificate
from paradrift.errors import SolveError, SpecError
from paradrift.executors import Local
from paradrift.forms import Array
from paradrift.guesses import Guess
from paradrift.noise import Noise
from paradrift.planner import choose, measure_costs
from paradrift.prepare import Generators
from paradrift.pump import Timed, evaluating, pump, synchronize
from paradrift.samplers import Gridded, Sampler
from paradrift.slopes import Slopes
from paradrift.solution import Recipe, Round, Solution, Stats, Status
from paradrift.solvers.base import Outcome
from paradrift.solvers.sweep import Solver, sweep
from paradrift.solvers.wavefront import wavefront
from paradrift.stopping import Stop
from paradrift.tableau import Tableau
from paradrift.verdicts import Verdict
from paradrift.watch import Watch
from paradrift.windows import Auto, Wavefront, Window


def sample(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    sampler: Sampler | Gridded | Tableau | None = None,
    steps: int | None = None,
    times: Array | Sequence[float] | None = None,
    solver: Solver | None = None,
    window: Window | None = None,
    slopes: Slopes | None = None,
    guess: Guess | None = None,
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
        solver: The parallel method, :func:`paradrift.default` unless given. The next five arguments replace one of its
            choices each.
        window: Which nodes are worked on; ``Auto()`` plans it from measured costs.
        slopes: How defects travel.
        guess: Where entering nodes start.
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
    own = None if not exact else seed if isinstance(seed, int) else tuple(seed)
    steps_of = _rounds(
        denoiser,
        tuple(shape),
        sampler=sampler,
        steps=steps,
        times=times,
        solver=prepare.solver_for(solver, window, slopes, guess, stop, tol, max_rounds, own),
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
    solver: Solver | None = None,
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
    rounds = _rounds(
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
    )
    solution: Solution | None = None
    while solution is None:
        # The mode must not leak into the caller's code between rounds.
        with torch.inference_mode():
            try:
                next(rounds)
            except StopIteration as end:
                solution = end.value
        while seen:  # one, or none in a round that only verifies; the last round ends the solve as well
            yield _ordinary(seen.pop(0))
    return _ordinary(solution)


def _rounds(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    *,
    sampler: Sampler | Gridded | Tableau | None,
    steps: int | None,
    times: Array | Sequence[float] | None,
    solver: Solver,
    seed: int | Sequence[int],
    generator: Generators | None,
    noise: Noise | Tensor | None,
    start: Tensor | None,
    max_rows: int | None,
    dtype: torch.dtype,
    device: torch.device,
    callback: Callable[[Round], None] | None,
    progress: bool,
    trajectory: bool,
) -> Generator[None, None, Solution]:
    begin = time.perf_counter()
    prepare.check(denoiser, shape, dtype)
    own = prepare.own_table(denoiser, sampler, steps, times)
    table, solver = prepare.table_for(denoiser, own, None, None, solver)
    samples = shape[0]
    source = Timed(noise=prepare.noise_for(table, shape, seed, generator, noise, start, dtype, device))
    executor = Local(denoiser=denoiser, max_rows=max_rows)
    ids = torch.arange(samples, device=device)
    with evaluating(modules(denoiser)), contextlib.ExitStack() as stack:
        stack.callback(source.finish)
        if start is None:
            initial = source.start(ids).to(device=device, dtype=dtype) * table.start
        else:
            initial = prepare.start_for(start, shape).to(device=device, dtype=dtype)
        planned, words, sequential_seconds = 0.0, f"given: {solver.window}", None
        if isinstance(solver.window, Auto):
            planning = time.perf_counter()
            costs = measure_costs(executor, table, shape[1:], samples, solver.window.widest, initial)
            choice = choose(solver.window, costs, samples, table.nodes, solver.verify)
            solver = dataclasses.replace(solver, window=choice.window)
            words, sequential_seconds = choice.words, choice.sequential_seconds
            planned = time.perf_counter() - planning
            executor = Local(denoiser=denoiser, max_rows=executor.max_rows)
        counter = Watch(samples, table.nodes, progress, callback)
        stack.callback(counter.close)
        method = wavefront if isinstance(solver.window, Wavefront) else sweep
        solving = method(
            table,
            initial,
            source,
            solver,
            variance=denoiser.variance,
            keep=trajectory,
            lead=2 if generator is not None else None,
            observe=counter.see if callback is not None or progress else None,
        )
        outcome: Outcome = yield from pump(solving, executor)
    synchronize(device)
    stats = Stats(
        rounds=max(outcome.rounds),
        evaluations=executor.rows,
        nodes=table.nodes,
        sample_rounds=outcome.rounds,
        seconds=time.perf_counter() - begin,
        model_seconds=executor.seconds,
        noise_seconds=source.seconds,
        planning_seconds=planned,
        window=outcome.window,
        choice=words,
        predicted_sequential_seconds=sequential_seconds,
        rejected=outcome.rejected,
    )
    addressed = generator is None and noise is None
    return Solution(
        samples=outcome.samples,
        status=outcome.status,
        error=outcome.error if outcome.rejected is None else torch.where(outcome.error < torch.inf, 0.0, outcome.error),
        stats=stats,
        certifiable=outcome.certifiable and outcome.rejected is None,
        certificate=_spent(outcome),
        trajectory=outcome.trajectory,
        recipe=Recipe(table=own, seed=(seed if isinstance(seed, int) else tuple(seed)) if addressed else None),
    )


def _spent(outcome: Outcome) -> Certificate | None:
    """The certificate of a solve under a verdict, which has cost nothing; None if a sample did not converge."""
    if outcome.nats is None or outcome.llr is None or set(outcome.status) != {Status.CONVERGED}:
        return None
    per_node = outcome.nats.T.contiguous()
    return Certificate(nats=per_node.sum(0), per_node=per_node, llr=outcome.llr, samples=outcome.samples, evaluations=0)


_Result = TypeVar("_Result", Round, Solution)


def _ordinary(result: _Result) -> _Result:
    """The same with ordinary tensors: those made in inference mode cannot enter autograd."""
    tensors = {name: value.clone() for name, value in vars(result).items() if isinstance(value, Tensor)}
    return dataclasses.replace(result, **tensors)
