"""The trained networks of the problem set on a device, in every way to run them, and what is asked of them there."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import paradrift as pd
from paradrift.bench.models import Model
from paradrift.bench.problems import Problem
from paradrift.bench.ways import Way, rebuilt, run
from paradrift.denoisers import Clipped, Guided, modules
from paradrift.denoisers.base import Wrapper
from paradrift.forms import Form
from paradrift.pump import synchronize

TOL = 1e-2


@dataclass
class Watched(Wrapper):
    """A denoiser that keeps how many rows each call had.

    Args:
        denoiser: Any denoiser.
        rows: Rows of each call so far.
    """

    denoiser: pd.Denoiser
    rows: list[int] = field(default_factory=list)

    @property
    def form(self) -> Form:
        """The form of the denoiser."""
        return self.denoiser.form

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate and note; see :meth:`paradrift.Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            What the denoiser returns.
        """
        self.rows.append(len(x))
        return self.denoiser(x, t, sample)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A trained network on a device, in every way that it is asked for; what is made once is kept.

    Args:
        model: The model.
        device: Where it runs.
    """

    model: Model
    device: torch.device
    made: dict[Way, pd.Denoiser] = field(default_factory=dict)
    answers: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)

    def denoiser(self, way: Way) -> pd.Denoiser:
        """The model, its network run in one way.

        Args:
            way: The way.

        Returns:
            The denoiser.
        """
        if way not in self.made:
            own = self.model.denoiser(1)
            for module in modules(own):
                module.to(self.device).eval()
            self.made[way] = rebuilt(own, functools.partial(run, way=way))
        return self.made[way]

    def problem(self, kind: str, steps: int) -> Problem:
        """One chain.

        Args:
            kind: "ode" or "sde".
            steps: Number of steps.

        Returns:
            The problem.
        """
        return self.model.problem(self.model.ode if kind == "ode" else self.model.sde, steps)

    def solve(self, model: pd.Denoiser, problem: Problem, solver: pd.Solver, seed: int) -> tuple[pd.Solution, float]:
        """One sample by the public call, timed from outside.

        Args:
            model: The denoiser.
            problem: The chain.
            solver: The method.
            seed: Seed of the noise.

        Returns:
            The solution, and the wall time until the device is idle.
        """
        synchronize(self.device)
        begin = time.perf_counter()
        solution = pd.sample(
            model,
            (1, *problem.shape),
            sampler=problem.sampler,
            times=problem.times,
            solver=solver,
            seed=seed,
            dtype=problem.dtype,
            device=self.device,
        )
        synchronize(self.device)
        return solution, time.perf_counter() - begin

    def answer(self, way: Way, kind: str, steps: int, seed: int) -> Tensor:
        """The sequential sampler's answer.

        Args:
            way: How the network is run the first time that this is asked.
            kind: "ode" or "sde".
            steps: Number of steps.
            seed: Seed of the noise.

        Returns:
            Shape (1, *shape).
        """
        place = kind, steps, seed
        if place not in self.answers:
            solution, _ = self.solve(self.denoiser(way), self.problem(kind, steps), pd.sequential(), seed)
            self.answers[place] = solution.samples
        return self.answers[place]

    def cost(self, way: Way, problem: Problem, rows: int, repeats: int = 5) -> float:
        """Seconds of a call, the least of several.

        Args:
            way: How the network is run.
            problem: The chain.
            rows: Rows of the call.
            repeats: Calls, after a first one that does not count.

        Returns:
            Seconds.
        """
        x = torch.zeros(rows, *problem.shape, dtype=problem.dtype, device=self.device)
        t = torch.full((rows,), float(problem.times[problem.steps // 2]), dtype=problem.dtype, device=self.device)
        sample, model = torch.zeros(rows, dtype=torch.int64, device=self.device), self.denoiser(way)
        with torch.inference_mode():
            model(x, t, sample)
            return min(clocked(functools.partial(model, x, t, sample), self.device) for _ in range(repeats))


def clocked(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call until the device is idle.

    Args:
        call: What to do.
        device: The device.

    Returns:
        Seconds.
    """
    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - begin


def halves(model: pd.Denoiser) -> int:
    """Rows of the network for one row of a model.

    Args:
        model: The model.

    Returns:
        Two if it is guided, else one.
    """
    if isinstance(model, Guided):
        return 2
    return halves(model.denoiser) if isinstance(model, Clipped | Watched) else 1
