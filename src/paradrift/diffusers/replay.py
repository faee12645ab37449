"""Replay of any Python sampling loop, and the plain run where that is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paradrift.diffusers.settings import Settings
from paradrift.diffusers.speculation import Replay
from paradrift.diffusers.stats import ReplayStats
from paradrift.errors import Refused


def replay(
    program: Callable[[], Any],
    modules: Mapping[str, nn.Module],
    *,
    objects: Sequence[Any] = (),
    generators: Sequence[torch.Generator] = (),
    tol: float = 1e-3,
    window: int | None = None,
    secant: bool = True,
    single: bool = False,
    max_rows: int | None = None,
    pad: bool = False,
    strict: bool = False,
) -> tuple[Any, ReplayStats]:
    """Run a Python sampling loop, parallel in time.

    Args:
        program: The loop, as a function without arguments; it is run several times.
        modules: The networks that it calls one after the other, by name.
        objects: Objects that it changes (schedulers, say), put back before each execution.
        generators: Generators that it draws from.
        tol: Tolerance of what the program returns, relative rms, as for :func:`paradrift.parallelize`; shared among the
            steps of the schedulers in ``objects``, or else among the calls.
        window: Calls beyond the settled ones that are worked on; None: chosen by what batches cost here.
        secant: Whether stale calls are answered with secant slopes.
        single: Whether every call is evaluated alone.
        max_rows: Most calls in one batch.
        pad: Whether to fill every batch up to ``max_rows`` (or the window, or 16) calls, so that compiled networks and
            CUDA graphs keep one shape; done anyway for networks compiled by torch.
        strict: Raise when the program cannot be replayed, instead of running it plainly.

    Returns:
        What the program returns, and what it cost.

    Raises:
        Refused: with ``strict``, if the program cannot be replayed; the message says why and what to do.

    Example:
        >>> net = nn.Linear(3, 3).requires_grad_(False)
        >>> def loop():
        ...     x = torch.ones(1, 3)
        ...     for _ in range(10):
        ...         x = x - 0.1 * net(x)
        ...     return x
        >>> found, stats = replay(loop, {"net": net}, tol=0.0, single=True, window=8)
        >>> torch.equal(found, loop()), stats.calls, stats.rounds <= 10
        (True, 10, True)
    """
    settings = Settings(tol=tol, window=window, secant=secant, single=single, max_rows=max_rows, pad=pad)
    run = Replay(modules=modules, settings=settings, objects=objects)
    return guarded(run, program, generators, strict, program), run.stats


def guarded(
    run: Replay,
    program: Callable[[], Any],
    generators: Sequence[torch.Generator],
    strict: bool,
    plain: Callable[[], Any],
) -> Any:  # noqa: ANN401
    """Replay a program, or run it plainly if that is refused.

    Args:
        run: The replay.
        program: The program.
        generators: Generators that it draws from.
        strict: Raise a refusal instead.
        plain: The program as it is run plainly.

    Returns:
        What the program returns.

    Raises:
        Refused: with ``strict``.
    """
    try:
        return run.run(program, generators)
    except Refused as refusal:
        if strict:
            raise
        run.stats.fallback = str(refusal)
        warnings.warn(f"paradrift runs this plainly: {refusal}", stacklevel=3)
        return plain()
