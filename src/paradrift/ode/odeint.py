"""The front door for ordinary differential equations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from paradrift.errors import SolveError, SpecError
from paradrift.guesses import Coast
from paradrift.ode.function import Function, State
from paradrift.ode.gradient import Problem, attach
from paradrift.ode.schemes import scheme
from paradrift.sample import sample
from paradrift.slopes import Secant, Slopes
from paradrift.solution import Solution
from paradrift.solvers.sweep import Solver
from paradrift.stopping import Tolerance
from paradrift.windows import Sliding, Window

ROUND_OFF = 16  # default tolerance in units of the dtype's epsilon
WIDTH = 1024  # default window in evaluations: rows further ahead of the front are guesses built on guesses


def odeint(
    func: Callable[[Tensor, Any], Any],
    y0: State,
    t: Tensor,
    *,
    method: str,
    options: Mapping[str, Any] | None = None,
    batched: bool = False,
    tol: float | None = None,
    window: Window | None = None,
    slopes: Slopes | None = None,
    max_rounds: int | None = None,
    max_rows: int | None = None,
) -> State:
    r"""Solve :math:`dy/dt = f(t, y)`, all steps at once: the answer of ``torchdiffeq.odeint``, in fewer rounds.

    Differentiable in ``y0``, ``t`` and everything that ``func`` depends on, with the gradients of the sequential
    method, which are computed in parallel as well. Gradients of gradients are not.

    Args:
        func: The right side, of a scalar time and a state like ``y0``; one call for each step and round unless torch
            can map it over many. It must not depend on when or how often it is called.
        y0: The state at ``t[0]``: a tensor in float32 or float64, or a tuple of such.
        t: Times, shape (T,), T >= 2, strictly increasing or decreasing.
        method: euler, midpoint, heun2, heun3, rk4 (the 3/8 rule) or explicit_adams.
        options: ``{"step_size": h}`` or ``{"grid_constructor": constructor}``: steps on another grid than t, from whose
            points the solution is interpolated linearly, as torchdiffeq does. The constructor is called with ``func``,
            ``y0`` and ``t`` and returns a grid from ``t[0]`` to ``t[-1]``.
        batched: Whether ``func`` takes many at once: times of shape (R,), states of shape (R, \*shape).
        tol: Distance of every row to the sequential answer, rms over elements in units of the state's own rms;
            round-off unless given.
        window: How many evaluations are worked on at once, 1024 unless given.
        slopes: How defects travel, secants unless given (one for each tensor of a tuple).
        max_rounds: Budget of rounds; None for no limit.
        max_rows: Most rows in one call; None for no limit.

    Returns:
        The solution at all times, shape (T, \*shape), or a tuple of such.

    Raises:
        SpecError: if the request cannot be carried out as written.
        SolveError: if it did not converge; it carries the solution so far.

    Example:
        >>> times = torch.linspace(0, 2, 65, dtype=torch.float64)
        >>> decay = odeint(lambda t, y: -y, torch.ones(3, dtype=torch.float64), times, method="rk4")
        >>> decay.shape, bool(torch.allclose(decay[-1], torch.exp(-times[-1])))
        (torch.Size([65, 3]), True)
    """
    solution = odeint_solution(
        func,
        y0,
        t,
        method=method,
        options=options,
        batched=batched,
        tol=tol,
        window=window,
        slopes=slopes,
        max_rounds=max_rounds,
        max_rows=max_rows,
    )
    if not solution.converged:
        raise SolveError(
            f"expected the solve to converge, found it {solution.status[0].value} after {solution.stats.rounds} "
            f"rounds: raise max_rounds, or look at the solution that this error holds",
            solution,
        )
    values = solution.samples[0]
    return _function(func, y0, batched).split(values, len(t)) if isinstance(y0, tuple) else values


def odeint_solution(
    func: Callable[[Tensor, Any], Any],
    y0: State,
    t: Tensor,
    *,
    method: str,
    options: Mapping[str, Any] | None = None,
    batched: bool = False,
    tol: float | None = None,
    window: Window | None = None,
    slopes: Slopes | None = None,
    max_rounds: int | None = None,
    max_rows: int | None = None,
) -> Solution:
    r"""The same solve with everything that is known of it: rounds, evaluations, status, error.

    Args:
        func: The right side.
        y0: The start.
        t: Times, shape (T,).
        method: The method.
        options: The grid.
        batched: Whether ``func`` takes many at once.
        tol: Distance to the sequential answer.
        window: How many evaluations are worked on at once.
        slopes: How defects travel.
        max_rounds: Budget of rounds.
        max_rows: Most rows in one call.

    Returns:
        One sample, of shape (1, T, \*shape), or (1, T, N) with the flattened tensors of a tuple side by side. Times
        that were not settled hold NaN. ``stats.nodes`` is the number of evaluations of the sequential method.

    Raises:
        SpecError: if the request cannot be carried out as written.
    """
    function = _function(func, y0, batched)
    parts = y0 if isinstance(y0, tuple) else (y0,)
    start = torch.cat([part.reshape(-1) for part in parts])
    points = _grid(func, y0, t, dict(options or {})).to(start.device)
    grid = points.detach().to("cpu", torch.float64).numpy()
    if slopes is None:
        sizes = torch.tensor([shape.numel() for shape in function.shapes])
        groups = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        slopes = Secant(groups=groups if len(sizes) > 1 else None)
    if tol is None:
        tol = ROUND_OFF * torch.finfo(start.dtype).eps
    problem = Problem(
        function=function,
        scheme=scheme(method, len(grid) - 1),
        grid=grid,
        solver=Solver(
            window=window or Sliding(WIDTH),
            slopes=slopes,
            guess=Coast(),
            stop=Tolerance(tol),
            verify=0,
            max_rounds=max_rounds,
        ),
        max_rows=max_rows,
    )
    solution = sample(
        function,
        (1, len(start)),
        sampler=problem.scheme.tableau(grid),
        solver=problem.solver,
        start=start.detach()[None],
        max_rows=max_rows,
        dtype=start.dtype,
        device=start.device,
        trajectory=True,
    )
    if solution.trajectory is None:
        raise RuntimeError("expected the trajectory that was asked for")
    rows = solution.trajectory[0]
    if solution.converged and _differentiable(function, start, points):
        rows = attach(problem, rows, start, points)
    values = _interpolate(points, rows[torch.as_tensor(problem.scheme.points, device=rows.device)], t.to(start.device))
    shaped = values if isinstance(y0, tuple) else values.reshape(len(t), *y0.shape)
    return dataclasses.replace(solution, samples=shaped[None], trajectory=None)


def _function(func: Callable[[Tensor, Any], Any], y0: State, batched: bool) -> Function:
    """The right side as a model, after a look at the start."""
    parts = y0 if isinstance(y0, tuple) else (y0,)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise SpecError(f"expected y0 to be a tensor or a tuple of tensors, found {type(y0).__name__}")
    if len({(part.dtype, part.device) for part in parts}) > 1 or parts[0].dtype not in (torch.float32, torch.float64):
        found = ", ".join(f"{part.dtype} on {part.device}" for part in parts)
        raise SpecError(f"expected y0 in float32 or float64, of one dtype and on one device, found {found}")
    shapes = tuple(part.shape for part in parts)
    return Function(function=func, shapes=shapes, tuples=isinstance(y0, tuple), batched=batched)


def _grid(func: Callable[[Tensor, Any], Any], y0: State, t: Tensor, options: dict[str, Any]) -> Tensor:
    """Points of the grid, differentiable in t."""
    _check_times("t", t)
    unknown = sorted(options.keys() - {"step_size", "grid_constructor"})
    if unknown or len(options) > 1:
        raise SpecError(
            f"expected step_size or grid_constructor as the only option, found {', '.join(sorted(options))}: "
            "leave out the others"
        )
    constructor, size = options.get("grid_constructor"), options.get("step_size")
    if constructor is not None:
        points = constructor(func, y0, t)
        _check_times("the constructed grid", points)
    elif size is not None:
        if not size > 0:
            raise SpecError(f"expected a positive step_size, found {size}: backward in time it is positive as well")
        sign = 1 if t[-1] > t[0] else -1
        begin, end = sign * t[0], sign * t[-1]
        steps = int(torch.ceil((end - begin) / size + 1).item())
        inner = torch.arange(steps - 1, dtype=t.dtype, device=t.device) * size + begin
        points = sign * torch.cat([inner, end[None]])
    else:
        return t
    if points[0] != t[0] or points[-1] != t[-1] or (points[-1] > points[0]) != (t[-1] > t[0]):
        raise SpecError(
            f"expected a grid from t[0]={float(t[0])} to t[-1]={float(t[-1])}, found one from {float(points[0])} to "
            f"{float(points[-1])}"
        )
    return points


def _check_times(name: str, t: Tensor) -> None:
    if not isinstance(t, Tensor) or t.ndim != 1 or len(t) < 2 or not t.dtype.is_floating_point:
        found = f"{tuple(t.shape)} of {t.dtype}" if isinstance(t, Tensor) else type(t).__name__
        raise SpecError(f"expected {name} to be a vector of at least 2 floating-point times, found {found}")
    steps = t.detach().diff()
    if not bool((steps > 0).all() | (steps < 0).all()):
        raise SpecError(f"expected {name} to be strictly increasing or decreasing, found neither: sort the times")


def _differentiable(function: Function, start: Tensor, points: Tensor) -> bool:
    """Whether gradients are wanted: of the start, of the times, or of anything that f depends on."""
    if not torch.is_grad_enabled():
        return False
    if start.requires_grad or points.requires_grad:
        return True
    return function.evaluate(points[:1].to(start.dtype), start[None]).requires_grad


def _interpolate(points: Tensor, values: Tensor, t: Tensor) -> Tensor:
    """Values on the grid, linearly interpolated to t: shape (T, N)."""
    if t is points or (len(t) == len(points) and torch.equal(t, points)):
        return values
    sign = 1 if points[-1] > points[0] else -1
    after = torch.searchsorted(sign * points.detach(), sign * t.detach()).clamp(min=1)
    before, length = points[after - 1], points[after] - points[after - 1]
    weight = ((t - before) / length).to(values.dtype)[:, None]
    between = values[after - 1] + weight * (values[after] - values[after - 1])
    exact = torch.where((t == points[after])[:, None], values[after], between)
    return torch.where((t == before)[:, None], values[after - 1], exact)
