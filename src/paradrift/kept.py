"""A kept path as an audit sees it: rows, noises, and a model to ask, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from paradrift import prepare
from paradrift.denoisers import Denoiser, modules
from paradrift.errors import SpecError
from paradrift.executors import Local
from paradrift.noise import Noise
from paradrift.prepare import Generators
from paradrift.pump import evaluating
from paradrift.solution import Solution, Status
from paradrift.solvers.base import Request
from paradrift.tableau import Tableau

_CHUNK = 1 << 24  # numbers of a path that are worked on at a time, in float64

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Some samples of a path, flat and in float64.

    Args:
        table: The sampler's table, in the form of the model.
        ids: Sample indices, shape (S,).
        z: The path, shape (R, S, D).
        xi: The noises in use, zero in the other columns, shape (R, S, D).
        executor: Where the model is asked.
        dtype: Precision in which the path was made.
        shape: Shape of one sample.
    """

    table: Tableau
    ids: Tensor
    z: Tensor
    xi: Tensor
    executor: Local
    dtype: torch.dtype
    shape: tuple[int, ...]

    @cached_property
    def outputs(self) -> Tensor:
        """Model outputs at the nodes of the path, zero elsewhere, shape (R, S, D): asked once."""
        return self.at(self.z)

    def at(self, z: Tensor) -> Tensor:
        """Model outputs at the nodes of some path, in one request.

        Args:
            z: Rows, shape (R, S, D).

        Returns:
            Shape (R, S, D), zero at rows that are not nodes.
        """
        nodes = np.flatnonzero(self.table.evaluated)
        where = torch.as_tensor(nodes, device=z.device)
        scale = torch.as_tensor(self.table.scale[nodes]).to(z)[:, None, None]
        times = torch.as_tensor(self.table.t[nodes])[:, None].expand(-1, z.shape[1])
        outputs = torch.zeros_like(z)
        outputs[where] = self.ask(z[where] * scale, times, where)
        return outputs

    def total(self, name: str, values: Tensor) -> Tensor:
        """A matrix of the table times values by row, lag by lag.

        Args:
            name: "a", "b" or "c".
            values: Shape (R, S, D).

        Returns:
            Shape (R, S, D).
        """
        total = torch.zeros_like(values)
        for lag in self.table.lags["abc".index(name)]:
            band = torch.as_tensor(self.table.band(name, lag)).to(values)[:, None, None]
            total[lag:] += band[lag:] * values[: len(values) - lag]
        return total

    def ask(self, states: Tensor, times: Tensor, node: Tensor) -> Tensor:
        """Model outputs at some states, in one request.

        Args:
            states: Shape (N, S, D), as the model sees them.
            times: Model times, shape (N, S), float64.
            node: Row that each state stands for, shape (N,), int64.

        Returns:
            Shape (N, S, D), float64.
        """
        count, samples = states.shape[:2]
        request = Request(
            x=states.to(self.dtype).flatten(0, 1).unflatten(1, self.shape),
            t=times.to(states.device, self.dtype).flatten(),
            sample=self.ids.repeat(count),
            node=node.repeat_interleave(samples),
        )
        return self.executor.evaluate(request).flatten(1).double().unflatten(0, (count, samples))


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """A path with what it was drawn with.

    Args:
        path: All rows, shape (S, R, *shape).
        table: The sampler's table, in the form of the model.
        denoiser: The model.
        noise: The noises that the path was drawn with.
    """

    path: Tensor
    table: Tableau
    denoiser: Denoiser
    noise: Noise

    def __post_init__(self) -> None:
        if self.path.ndim < 3 or self.path.shape[1] != self.table.rows:
            raise SpecError(
                f"expected a path (S, R, *shape) of {self.table.rows} rows for this sampler, found shape "
                f"{tuple(self.path.shape)}"
            )

    def audit(self, work: Callable[[Part], Found], max_rows: int | None = None) -> tuple[list[Found], int]:
        """Do some work on all samples, part by part.

        Args:
            work: What to do.
            max_rows: Most rows in one model call.

        Returns:
            What was found in each part, in order, and the number of rows evaluated.
        """
        executor = Local(denoiser=self.denoiser, max_rows=max_rows)
        count = max(1, _CHUNK // self.path[0].numel())
        try:
            with evaluating(modules(self.denoiser)), torch.inference_mode():
                found = [work(self._part(first, count, executor)) for first in range(0, len(self.path), count)]
        finally:
            self.noise.finish()
        return found, executor.rows

    def _part(self, first: int, count: int, executor: Local) -> Part:
        path = self.path[first : first + count]
        ids = torch.arange(first, first + len(path), device=path.device)
        z = path.transpose(0, 1).flatten(2).double()
        xi = torch.zeros_like(z)
        columns = np.unique(self.table.entries[2][1])
        if len(columns):
            used = torch.as_tensor(columns, device=path.device)
            xi[used] = self.noise.draw(ids, used.expand(len(ids), -1)).flatten(2).transpose(0, 1).to(z)
        return Part(
            table=self.table,
            ids=ids,
            z=z,
            xi=xi,
            executor=executor,
            dtype=path.dtype,
            shape=tuple(path.shape[2:]),
        )


def kept(
    solution: Solution, denoiser: Denoiser, *, generator: Generators | None = None, noise: Noise | Tensor | None = None
) -> Kept:
    """The path of a solution, with the sampler and the noises that it was drawn with.

    Args:
        solution: A solution with its trajectory.
        denoiser: The model.
        generator: A generator (or one a sample) in the state that it had before the solve, where it drew the noise.
        noise: The noise source, or the ready noises, where the solve was given one.

    Returns:
        The path, its table and its noises.

    Raises:
        SpecError: if the path was not kept, or its noise is not known.
    """
    path, recipe = solution.trajectory, solution.recipe
    if path is None or recipe is None:
        raise SpecError("expected a solution with its path, found none: sample with trajectory=True")
    if solution.stats.rejected is not None:
        raise SpecError(
            "expected a path of the noises that it was given, found one exact in law: nothing is left to ask"
        )
    shape = (path.shape[0], *path.shape[2:])
    prepare.check(denoiser, shape, path.dtype)
    table, seed = prepare.in_form_of(denoiser, recipe.table), recipe.seed
    if seed is None and generator is None and noise is None and table.noisy:
        raise SpecError("expected the noise of this path, found none: give the generator or noise of its solve")
    start = path[:, 0] if isinstance(noise, Tensor) else None
    if generator is None and noise is None:
        source = prepare.noise_for(table, shape, seed or 0, None, None, None, path.dtype, path.device)
    else:
        source = prepare.noise_for(table, shape, 0, generator, noise, start, path.dtype, path.device)
    return Kept(path=path, table=table, denoiser=denoiser, noise=source)


def certifiable(solution: Solution) -> None:
    """Refuse paths of which no divergence can be told.

    Args:
        solution: A solution.

    Raises:
        SpecError: if its method was not causal, or a sample did not converge.
    """
    if not solution.certifiable and solution.stats.rejected is None:
        raise SpecError(
            "expected a causal path, found one whose stop looked at later rows: certify Tolerance(tol) without finish"
        )
    for index, status in enumerate(solution.status):
        if status is not Status.CONVERGED:
            raise SpecError(
                f"expected every sample to have converged, found sample {index}: {status.value}; raise max_rounds, "
                "since a mean over the rest would be of another law"
            )
