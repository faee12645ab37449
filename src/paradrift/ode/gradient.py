r"""Gradients of a parallel solution, parallel in time themselves.

At the solution all rows obey :math:`z = \Phi(z, \theta)`, the table with the outputs at the rows themselves, so
:math:`dz = (I - J)^{-1}\, \partial_\theta \Phi\, d\theta` with :math:`J = \partial_z \Phi`, strictly lower triangular.
For a gradient g of the rows, backpropagation through time computes

.. math:: \lambda = (I - J)^{-T} g, \qquad \lambda_j = g_j + \sum_m a_{mj} \lambda_m + J_j^T u_j, \qquad
    u_j = \sum_m b_{mj} \lambda_m,

from the last row to the first, one vector-Jacobian product :math:`J_j^T u_j` of f after the other. But this is a table
again, with the rows :math:`u_j, \lambda_j` in reverse order, g in the place of the noise, and the products in the place
of the model: the same solver fills it, with the same tolerance. What remains is one ordinary backward pass of
:math:`\lambda` through :math:`\Phi`, for parameters, start and times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SolveError, SpecError
from paradrift.forms import Array, Form
from paradrift.ode.function import Function
from paradrift.ode.schemes import Scheme
from paradrift.sample import sample
from paradrift.schedules import Schedule
from paradrift.solvers.sweep import Solver
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An equation on a grid, and how its tables are solved.

    Args:
        function: The right side.
        scheme: The method.
        grid: Points of the grid, shape (N + 1,), float64, on the host.
        solver: The parallel method.
        max_rows: Most rows in one call; None for no limit.
    """

    function: Function
    scheme: Scheme
    grid: Array
    solver: Solver
    max_rows: int | None


def attach(problem: Problem, rows: Tensor, start: Tensor, grid: Tensor) -> Tensor:
    """Rows of a solution as a differentiable function of the start, the grid, and everything that f depends on.

    Args:
        problem: The equation.
        rows: All rows, solved, shape (R, D), without a graph.
        start: The start, shape (D,).
        grid: Points of the grid, shape (N + 1,).

    Returns:
        The same rows, shape (R, D), whose gradients are those of the sequential method.
    """
    scheme = problem.scheme

    def index(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=rows.device)

    lengths = torch.cat([grid.diff(), grid.new_zeros(1)])  # no step starts at the last point
    at = index(scheme.at[:-1])
    fraction = torch.as_tensor(scheme.fraction[:-1], dtype=grid.dtype, device=rows.device)
    times = (grid[at] + fraction * lengths[at]).to(rows.dtype)
    chunks = zip(
        times.split(problem.max_rows or len(times)), rows[:-1].split(problem.max_rows or len(times)), strict=True
    )
    outputs = torch.cat([problem.function.evaluate(t, y) for t, y in chunks])
    weights = torch.as_tensor(scheme.weights, dtype=rows.dtype, device=rows.device)
    gains = weights * lengths.to(rows.dtype)[index(scheme.step[scheme.used])]
    based = torch.cat([start[None], rows[index(scheme.base[1:])]])
    once = based.index_add(0, index(scheme.used), gains[:, None] * outputs[index(scheme.sources)])
    return _Attached.apply(once, rows, problem)


class _Attached(torch.autograd.Function):
    """The rows themselves; backward, the gradient of the rows turned into one of the table's right side."""

    @staticmethod
    def forward(ctx: Any, once: Tensor, rows: Tensor, problem: Problem) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(rows)
        ctx.problem = problem
        return rows.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        if torch.is_grad_enabled():  # what was solved for has no graph: second derivatives would miss it, silently
            raise SpecError("expected a first derivative, found create_graph=True: use torchdiffeq for higher ones")
        (rows,) = ctx.saved_tensors
        return adjoint(ctx.problem, rows, grad_outputs[0]), None, None


def adjoint(problem: Problem, rows: Tensor, gradient: Tensor) -> Tensor:
    r"""Solve :math:`(I - J)^T \lambda = g`, parallel in time.

    Args:
        problem: The equation.
        rows: All rows of its solution, shape (R, D).
        gradient: Gradient of each row, shape (R, D).

    Returns:
        lambda, shape (R, D).

    Raises:
        SolveError: if the solve does not converge.
    """
    unit = gradient.square().mean(1).amax().sqrt()
    if unit == 0:
        return torch.zeros_like(gradient)
    table, order = _reversed(problem.scheme, problem.grid)
    given = gradient.new_zeros(1, table.rows, gradient.shape[1])
    given[0, torch.as_tensor(order, device=rows.device)] = gradient / unit
    solution = sample(
        Products(function=problem.function, rows=rows, times=problem.scheme.times(problem.grid)),
        (1, gradient.shape[1]),
        sampler=table,
        solver=problem.solver,
        noise=given,
        start=given[:, 0],
        max_rows=problem.max_rows,
        dtype=rows.dtype,
        device=rows.device,
        trajectory=True,
    )
    if not solution.converged or solution.trajectory is None:
        raise SolveError(
            f"expected the gradient to converge, found {solution.status[0].value} after {solution.stats.rounds} rounds",
            solution,
        )
    return solution.trajectory[0, torch.as_tensor(order, device=rows.device)] * unit


def _reversed(scheme: Scheme, grid: Array) -> tuple[Tableau, np.ndarray]:
    """The table of the adjoint equation, and the row in it of each row's lambda."""
    last = scheme.rows - 1
    size = 2 * last + 1
    order = 2 * (last - np.arange(scheme.rows))  # lambda of the last row first; u of each row right before its lambda
    a, b, c = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    scale = np.ones(size)
    gains = scheme.weights * np.diff(grid)[scheme.step[scheme.used]]
    # u is held in units of its weights, so that its rms, the unit of the tolerance, is that of lambda
    sizes = np.bincount(scheme.sources, np.abs(gains), minlength=scheme.rows)
    sizes = np.where(sizes > 0, sizes, 1.0)
    a[order[scheme.sources] - 1, order[scheme.used]] = gains / sizes[scheme.sources]
    scale[order[:-1] - 1] = sizes[:-1]
    a[order[scheme.base[1:]], order[1:]] = 1.0
    b[order[:-1], order[:-1] - 1] = 1.0
    c[order[:-1], order[:-1]] = 1.0
    node = np.zeros(size, bool)
    node[order[:-1] - 1] = True
    row = np.zeros(size)
    row[order[:-1] - 1] = np.arange(last)  # the "time" of a product is the row that it belongs to
    draws = np.zeros(size, bool)
    draws[order[:-1]] = True
    return Tableau(t=row, a=a, b=b, c=c, form=Form.VALUE, evaluated=node, scale=scale, draws=draws), order


@dataclass(frozen=True, kw_only=True, eq=False)
class Products:
    """Vector-Jacobian products of a function at the rows of a solution, as a model.

    Args:
        function: The function.
        rows: Where it is linearised, shape (R, D).
        times: Time of each row, shape (R,).
    """

    function: Function
    rows: Tensor
    times: Array

    @property
    def form(self) -> Form:
        """A bare function value."""
        return Form.VALUE

    @property
    def schedule(self) -> Schedule | None:
        """None: there is no noise."""
        return None

    @property
    def variance(self) -> float | None:
        """None: the unit of tolerances is the state's own rms."""
        return None

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """The products.

        Args:
            x: Vectors, shape (K, D).
            t: The row that each belongs to, shape (K,).
            sample: Index of the sample of each vector, shape (K,); there is but one.

        Returns:
            Shape (K, D).
        """
        with torch.inference_mode(False), torch.enable_grad():
            at = t.round().long().clone()
            times = torch.as_tensor(self.times, dtype=x.dtype, device=x.device)[at]
            states = self.rows[at].detach().requires_grad_()
            outputs = self.function.evaluate(times, states)
            if not outputs.requires_grad:  # f does not look at its state
                return torch.zeros_like(states)
            (products,) = torch.autograd.grad(outputs, states, x.clone(), allow_unused=True)
        return torch.zeros_like(states) if products is None else products
