"""One solve from a user's words to a solution: the table, the noise, the planner, the pump, the books."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor, nn

from paradrift import prepare
from paradrift.denoisers import Denoiser, modules
from paradrift.density import check_noise
from paradrift.divergence import Certificate
from paradrift.errors import SpecError
from paradrift.executors import Local, Several
from paradrift.experience import experience_of, learn
from paradrift.forms import Array
from paradrift.noise import Noise
from paradrift.planner import choose, measure_costs
from paradrift.prepare import Generators
from paradrift.pump import Timed, evaluating, pump, synchronize
from paradrift.samplers import Gridded, Sampler
from paradrift.solution import Recipe, Round, Solution, Stats, Status
from paradrift.solvers.base import Outcome, Solving
from paradrift.solvers.method import Method, Problem
from paradrift.solvers.skipping import able, asks
from paradrift.solvers.sweep import Solver
from paradrift.solvers.thinned import thinned
from paradrift.solvers.wavefront import wavefront
from paradrift.stopping import Tolerance
from paradrift.summing import over_rows
from paradrift.tableau import Tableau
from paradrift.verdicts import Verdict
from paradrift.watch import Watch
from paradrift.windows import Auto, Wavefront


def rounds(  # noqa: DOC403, DOC405
    denoiser: Denoiser,
    shape: tuple[int, ...],
    *,
    sampler: Sampler | Gridded | Tableau | None,
    steps: int | None,
    times: Array | Sequence[float] | None,
    solver: Solver | Method,
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
    certify: bool,
) -> Generator[None, None, Solution]:
    """One solve, pausing after each round: what :func:`paradrift.sample` and :func:`paradrift.iterate` drive.

    Args:
        denoiser: The model.
        shape: Shape of the batch, (S, *shape).
        sampler: The sequential method.
        steps: Number of steps.
        times: The grid.
        solver: The parallel method.
        seed: Seed of the addressed noise.
        generator: Generators to draw from instead.
        noise: A noise source or ready noises instead.
        start: The start instead of drawn noise.
        max_rows: Most rows in one model call.
        dtype: Precision of the states.
        device: Where the states live.
        callback: Called after each round.
        progress: Whether to draw a progress line.
        trajectory: Whether to keep all rows.
        certify: Whether a certificate will be asked for: what cannot have one is refused now, not after the solve.

    Yields:
        Nothing, once after each round.

    Returns:
        The solution.
    """
    begin = time.perf_counter()
    prepare.check(denoiser, shape, dtype)
    own = prepare.own_table(denoiser, sampler, steps, times)
    if certify:
        _check_causal(solver)
        check_noise(own)
    if isinstance(solver, Solver):
        table, solver = prepare.table_for(denoiser, own, None, None, solver)
        solver = able(table, solver, trajectory, generator is not None)
    else:
        table = prepare.in_form_of(denoiser, own)
    samples = shape[0]
    source = Timed(noise=prepare.noise_for(table, shape, seed, generator, noise, start, dtype, device))
    executor = Local(denoiser=denoiser, max_rows=max_rows)
    students = solver.guess.models if isinstance(solver, Solver) else ()
    ids = torch.arange(samples, device=device)
    with (
        evaluating([*modules(denoiser), *(part for student in students for part in _parts(student))]),
        contextlib.ExitStack() as stack,
    ):
        stack.callback(source.finish)
        if start is None:
            initial = source.start(ids).to(device=device, dtype=dtype) * table.start
        else:
            initial = prepare.start_for(start, shape).to(device=device, dtype=dtype)
        chosen = solver.window if isinstance(solver, Solver) else solver
        planned, words, sequential_seconds, taught = 0.0, f"given: {chosen}", None, None
        if isinstance(solver, Solver) and isinstance(solver.window, Auto):
            planning = time.perf_counter()
            tol = solver.stop.tol if isinstance(solver.stop, Tolerance) else None
            chain = (table.nodes, table.noisy, shape, tol, dtype, str(device), torch.get_num_threads())
            known = experience_of(denoiser, chain)
            asked = functools.partial(asks, table, solver)
            costs = measure_costs(executor, table, shape[1:], samples, solver.window.widest, initial, known, asked)
            verified = solver.verified(table.nodes)
            choice = choose(solver.window, costs, samples, table.nodes, verified, known, asked)
            width = choice.window.width
            if choice.thinned:
                solver = dataclasses.replace(solver, nodes=solver.nodes.serial())
            kept, checked = asked(width) if width > 1 or choice.thinned else (table.nodes, verified)
            told = dict(nodes=kept, samples=samples, width=width, verified=checked)
            taught = functools.partial(learn, denoiser, chain, costs=costs, stepped=choice.thinned, **told)
            solver = dataclasses.replace(solver, window=choice.window)
            words, sequential_seconds = choice.words, choice.sequential_seconds
            planned = time.perf_counter() - planning
            executor = Local(denoiser=denoiser, max_rows=executor.max_rows)
        counter = Watch(samples, table.nodes, progress, callback)
        stack.callback(counter.close)
        observe = counter.see if callback is not None or progress else None
        if isinstance(solver, Solver):
            method = wavefront if isinstance(solver.window, Wavefront) else thinned
            solving: Solving = method(
                table,
                initial,
                source,
                solver,
                variance=denoiser.variance,
                keep=trajectory,
                lead=2 if generator is not None else None,
                observe=observe,
            )
        else:
            problem = Problem(
                own=own,
                table=table,
                schedule=denoiser.schedule,
                start=initial,
                noise=source,
                variance=denoiser.variance,
                keep=trajectory,
                observe=observe,
            )
            solving = solver.solve(problem)
        machine = Several(first=executor, others=students, max_rows=max_rows) if students else executor
        outcome: Outcome = yield from pump(solving, machine)
    synchronize(device)
    stats = Stats(
        rounds=max(outcome.rounds),
        evaluations=machine.rows,
        nodes=table.nodes,
        sample_rounds=outcome.rounds,
        seconds=time.perf_counter() - begin,
        model_seconds=machine.seconds,
        noise_seconds=source.seconds,
        planning_seconds=planned,
        window=outcome.window,
        choice=words,
        predicted_sequential_seconds=sequential_seconds,
        rejected=outcome.rejected,
    )
    if taught is not None and set(outcome.status) == {Status.CONVERGED}:
        taught(
            rounds=stats.rounds,
            evaluations=stats.evaluations,
            model_seconds=stats.model_seconds,
            engine_seconds=stats.engine_seconds,
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


def _check_causal(solver: Solver | Method) -> None:
    """Refuse methods whose paths have no certificate: their rows may have looked at later noises."""
    rule = solver.stop if isinstance(solver, Solver) else solver
    if not isinstance(rule, Verdict) and not rule.causal:
        raise SpecError(
            f"expected a causal method for certify=True, found {rule}, which lets later rows decide about earlier ones "
            "or knows no noise: choose Tolerance(tol) without finish, or leave certify out"
        )


def _parts(student: object) -> tuple[nn.Module, ...]:
    """The torch modules of a student: itself, or those that it names."""
    return (student,) if isinstance(student, nn.Module) else tuple(getattr(student, "modules", ()))


def _spent(outcome: Outcome) -> Certificate | None:
    """The certificate of a solve under a verdict, which has cost nothing; None if a sample did not converge."""
    if outcome.nats is None or outcome.llr is None or set(outcome.status) != {Status.CONVERGED}:
        return None
    per_node = outcome.nats.T.contiguous()
    return Certificate(
        nats=over_rows(per_node), per_node=per_node, llr=outcome.llr, samples=outcome.samples, evaluations=0
    )
