"""From a user's words to what a solve needs: checks, the table, the noise, the solver, each with a clear refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from paradrift import grids, presets
from paradrift.denoisers import Denoiser
from paradrift.density import check_steps
from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.guesses import Guess
from paradrift.nodes import Nodes
from paradrift.noise import Buffered, Drawn, Given, Noise, Philox
from paradrift.samplers import DDPM, Gridded, Sampler
from paradrift.slopes import Secant, Slopes, Zero
from paradrift.solvers.method import Method
from paradrift.solvers.sweep import Solver
from paradrift.stopping import Stop, Tolerance
from paradrift.tableau import Tableau
from paradrift.tabulated import reformed, tabulated
from paradrift.verdicts import Exact, Verdict
from paradrift.windows import Window

Generators = torch.Generator | Sequence[torch.Generator]


def solver_for(
    solver: Solver | None,
    window: Window | None,
    slopes: Slopes | None,
    guess: Guess | None,
    stop: Stop | Verdict | None,
    tol: float | None,
    max_rounds: int | None,
    exact: int | Sequence[int] | None = None,
    nodes: Nodes | None = None,
) -> Solver:
    """The solver, with single choices replaced.

    Args:
        solver: The base; None for the library's own.
        window: Replaces the window, if given.
        slopes: Replaces the slopes, if given.
        guess: Replaces the guess, if given.
        stop: Replaces the stop, if given.
        tol: Short for a stop.
        max_rounds: Replaces the budget, if given.
        exact: The seed, where the answers are to be exact in law; None otherwise.
        nodes: Replaces the choice of nodes, if given.

    Returns:
        The solver.

    Raises:
        SpecError: if two of them contradict each other.
    """
    if stop is not None and tol is not None:
        raise SpecError("expected either stop= or tol=, found both: tol is short for stop=Tolerance(tol)")
    if exact is not None and (stop is not None or tol is not None):
        raise SpecError("expected no stop= or tol= beside exact=True, which needs no tolerance: leave it out")
    if max_rounds is not None and max_rounds < 1:
        raise SpecError(f"expected max_rounds of at least 1, found {max_rounds}")
    base = solver or presets.default()
    if tol is not None:
        stop = Tolerance(tol)
    elif exact is not None:
        stop = Exact(exact)
    return dataclasses.replace(
        base,
        window=window or base.window,
        slopes=slopes or base.slopes,
        guess=guess or base.guess,
        stop=stop or base.stop,
        nodes=nodes or base.nodes,
        max_rounds=base.max_rounds if max_rounds is None else max_rounds,
    )


def method_for(
    solver: Solver | Method | None,
    window: Window | None,
    slopes: Slopes | None,
    guess: Guess | None,
    stop: Stop | Verdict | None,
    tol: float | None,
    max_rounds: int | None,
    exact: int | Sequence[int] | None = None,
    nodes: Nodes | None = None,
) -> Solver | Method:
    """The same for a method with choices of its own, too: it takes a budget, and nothing else.

    Args:
        solver: The base; None for the library's own.
        window: Replaces the window, if given.
        slopes: Replaces the slopes, if given.
        guess: Replaces the guess, if given.
        stop: Replaces the stop, if given.
        tol: Short for a stop.
        max_rounds: Replaces the budget, if given.
        exact: The seed, where the answers are to be exact in law; None otherwise.
        nodes: Replaces the choice of nodes, if given.

    Returns:
        The solver or the method.

    Raises:
        SpecError: if two of them contradict each other, or the base is neither a solver nor a method.
    """
    if solver is None or isinstance(solver, Solver):
        return solver_for(solver, window, slopes, guess, stop, tol, max_rounds, exact, nodes)
    if not isinstance(solver, Method):
        raise SpecError(f"expected a solver such as default() or srds(), found {solver!r}")
    given = dict(window=window, slopes=slopes, guess=guess, stop=stop, tol=tol, exact=exact, nodes=nodes)
    named = [f"{name}=" for name, value in given.items() if value is not None]
    if named:
        raise SpecError(
            f"expected no {', '.join(named)} beside {type(solver).__name__}, which has choices of its own: make them "
            "there, as in srds(tol=...)"
        )
    return solver if max_rounds is None else solver.within(max_rounds)


def check(denoiser: Denoiser, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Refuse what cannot be sampled.

    Args:
        denoiser: The model.
        shape: Shape of the batch.
        dtype: Precision of the states.

    Raises:
        SpecError: if one of them is not what it should be.
    """
    if not isinstance(denoiser, Denoiser):
        found = type(denoiser).__name__
        raise SpecError(f"expected a denoiser, found {found}: wrap a network with paradrift.denoiser(net, ...)")
    if len(shape) < 2 or any(not isinstance(size, int) or size < 1 for size in shape):
        raise SpecError(f"expected the shape of a batch, (samples, *shape) of positive sizes, found {shape}")
    if dtype not in (torch.float32, torch.float64):
        raise SpecError(f"expected states in float32 or float64, found {dtype}: give the model the lower precision")


def table_for(
    denoiser: Denoiser,
    sampler: Sampler | Gridded | Tableau | None,
    steps: int | None,
    times: Array | Sequence[float] | None,
    solver: Solver,
) -> tuple[Tableau, Solver]:
    """The table in the denoiser's own form, and the solver with what it left open filled in.

    Args:
        denoiser: The model.
        sampler: The sequential method, one with a grid of its own, or a ready table.
        steps: Number of steps.
        times: The grid.
        solver: The parallel method.

    Returns:
        The two.

    Raises:
        SpecError: if they do not fit together.
    """
    table = own_table(denoiser, sampler, steps, times)
    if isinstance(solver.stop, Verdict):
        check_steps(table)
    slopes = solver.slopes
    if isinstance(slopes, Zero) and slopes.form is None:
        slopes = Zero(table.form)  # the sampler's own form, not the one that its model happens to speak
    if isinstance(slopes, Secant) and slopes.variance is None:
        slopes = dataclasses.replace(slopes, variance=denoiser.variance)
    return in_form_of(denoiser, table), dataclasses.replace(solver, slopes=slopes)


def in_form_of(denoiser: Denoiser, table: Tableau) -> Tableau:
    """The same sampler for the outputs of a denoiser.

    Args:
        denoiser: The model.
        table: The sampler's own table.

    Returns:
        The table.

    Raises:
        SpecError: if the forms cannot be turned into each other.
    """
    if table.form is not denoiser.form and Form.VALUE in (table.form, denoiser.form):
        raise SpecError(f"expected a model of form {table.form.value}, found {denoiser.form.value}")
    return reformed(table, denoiser.form)


def own_table(
    denoiser: Denoiser,
    sampler: Sampler | Gridded | Tableau | None,
    steps: int | None,
    times: Array | Sequence[float] | None,
) -> Tableau:
    """The sampler's own table.

    Args:
        denoiser: The model.
        sampler: The sequential method, one with a grid of its own, or a ready table.
        steps: Number of steps.
        times: The grid.

    Returns:
        The table.

    Raises:
        SpecError: if they do not fit together.
    """
    if isinstance(sampler, Tableau | Gridded):
        if steps is not None or times is not None:
            raise SpecError("expected no steps or times beside a sampler with a grid of its own: leave them out")
        return sampler if isinstance(sampler, Tableau) else sampler.table()
    if denoiser.schedule is None:
        raise SpecError("expected a denoiser with a noise schedule, found none: give sampler= a ready table")
    if (steps is None) == (times is None):
        raise SpecError("expected steps= or times=, one of the two: how long is the chain?")
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise SpecError(f"expected a positive number of steps, found {steps}")
    grid = grids.check(times) if times is not None else grids.default(denoiser.schedule, steps or 1)
    chosen = sampler if sampler is not None else DDPM()
    if not hasattr(chosen, "tableau"):
        raise SpecError(f"expected a sampler such as DDIM() or DDPM(), found {chosen!r}")
    return tabulated(chosen, denoiser.schedule, grid)


def noise_for(
    table: Tableau,
    shape: tuple[int, ...],
    seed: int | Sequence[int],
    generator: Generators | None,
    noise: Noise | Tensor | None,
    start: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Noise:
    """Where the noise comes from.

    Args:
        table: The sampler's table.
        shape: Shape of the batch.
        seed: Seed of addressed noise, or one for each sample.
        generator: Generators to draw from instead.
        noise: A source or ready noises instead.
        start: The start, where it is given.
        dtype: Precision of the noise.
        device: Where it is wanted.

    Returns:
        The source.

    Raises:
        SpecError: if two sources are named, or shapes disagree.
    """
    if generator is not None and noise is not None:
        raise SpecError("expected generator= or noise=, found both")
    if isinstance(noise, Tensor):
        if start is None:
            raise SpecError("expected start= beside ready noises: they do not contain one")
        if noise.shape != (shape[0], table.rows, *shape[1:]):
            expected = (shape[0], table.rows, *shape[1:])
            raise SpecError(f"expected noises of shape {expected}, one for each row, found {tuple(noise.shape)}")
        return Given(noise.to(device=device, dtype=dtype), start.to(device=device, dtype=dtype))
    if noise is not None:
        return noise
    if generator is not None:
        return Drawn(
            generator, table.draws, samples=shape[0], shape=shape[1:], dtype=dtype, device=device, initial=start
        )
    if not isinstance(seed, int) and len(seed) != shape[0]:
        raise SpecError(f"expected one seed, or one for each of {shape[0]} samples, found {len(seed)}")
    philox = Philox(seed=seed, shape=shape[1:], dtype=dtype, device=device)
    return Buffered(philox, samples=shape[0], columns=table.rows)


def start_for(start: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A start of the right shape.

    Args:
        start: What the user gave.
        shape: Shape of the batch.

    Returns:
        The start.

    Raises:
        SpecError: if its shape is another.
    """
    if tuple(start.shape) != shape:
        raise SpecError(f"expected a start of shape {shape}, found {tuple(start.shape)}")
    return start
