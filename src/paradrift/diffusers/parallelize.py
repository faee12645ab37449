"""Any diffusers pipeline, parallel in time: its own code, replayed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from paradrift.diffusers.replay import guarded
from paradrift.diffusers.snapshot import generators_in
from paradrift.diffusers.speculation import Replay
from paradrift.diffusers.stats import ReplayStats
from paradrift.errors import SpecError

_TIMES = frozenset(("timestep", "timesteps", "timestep_ratio", "t"))
_METHODS = ("forward", "encode", "decode", "generate")
_CALLBACK = "callback_on_step_end"


@dataclass
class Running:
    """What a ``parallelize`` block knows of its last run.

    Args:
        stats: What it cost; None before the first.
    """

    stats: ReplayStats | None = None


@contextmanager
def parallelize(
    pipe: Any,  # noqa: ANN401 - any pipeline of diffusers
    *,
    tol: float = 1e-3,
    window: int | None = None,
    secant: bool = True,
    single: bool = False,
    max_rows: int | None = None,
    only: Sequence[str] | None = None,
    strict: bool = False,
) -> Iterator[Running]:
    """Within this block the pipeline samples parallel in time.

    Args:
        pipe: The pipeline; it is as before when the block ends, also after an exception.
        tol: How far arguments of a network may be from where it was evaluated, rms over rms, times the root of the
            number of steps: of the size of the final error, not a bound on it; 0 asks for the plain run itself.
        window: Network calls beyond the settled ones that are worked on.
        secant: Whether stale calls are answered with secant slopes, or as they are.
        single: Whether every call is evaluated alone; with tol 0 the result is the plain run's to the last bit.
        max_rows: Most calls in one batch.
        only: Names of the networks to replay; None: every component whose forward takes a timestep.
        strict: Raise when the pipeline cannot be replayed, instead of running it plainly with a warning.

    Yields:
        An object whose ``stats`` say what the last call of the pipeline cost.

    Raises:
        SpecError: if no network is found.
    """
    components = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    modules = {name: part for name, part in components.items() if (name in only if only else _is_denoiser(part))}
    if not modules:
        raise SpecError(
            f"expected a component of {type(pipe).__name__} whose forward takes a timestep, found none among "
            f"{', '.join(components)}: name the networks with only=[...]"
        )
    barriers = [
        (part, method)
        for name, part in components.items()
        if name not in modules
        for method in _METHODS
        if callable(getattr(type(part), method, None))
    ]
    objects = [pipe, *(part for part in pipe.components.values() if hasattr(part, "set_timesteps"))]
    running, plain = Running(), type(pipe)

    def steps() -> int:
        listed = [getattr(each, "timesteps", None) for each in objects[1:]]
        return max((len(times) for times in listed if times is not None), default=1)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        run = Replay(
            modules=modules,
            objects=objects,
            barriers=barriers,
            tol=tol,
            steps=steps,
            window=window,
            secant=secant,
            single=single,
            max_rows=max_rows,
        )
        running.stats = run.stats

        def program() -> Any:  # noqa: ANN401
            return plain.__call__(self, *args, **_watched(self, kwargs, run))

        def alone() -> Any:  # noqa: ANN401
            return plain.__call__(self, *args, **kwargs)

        with _one_bar(self, run):
            return guarded(run, program, generators_in([list(args), kwargs]), strict, alone)

    pipe.__class__ = type(plain.__name__, (plain,), {"__call__": call, "__module__": plain.__module__})
    try:
        yield running
    finally:
        pipe.__class__ = plain


@contextmanager
def _one_bar(pipe: Any, run: Replay) -> Iterator[None]:  # noqa: ANN401
    """One progress bar of settled calls, where the pipeline would have shown its own, once for each execution."""
    own = dict(getattr(pipe, "_progress_bar_config", {}))
    if not hasattr(pipe, "set_progress_bar_config"):
        yield
        return
    before: dict[str, Any] | None = vars(pipe).get("_progress_bar_config")
    with tqdm(unit="call", desc="settled", disable=own.get("disable", False)) as bar:

        def observe(settled: int) -> None:
            bar.update(max(0, settled - bar.n))

        run.observe = observe
        pipe.set_progress_bar_config(**own | {"disable": True})
        try:
            yield
        finally:
            vars(pipe).pop("_progress_bar_config", None)
            if before is not None:
                pipe._progress_bar_config = before


def _is_denoiser(part: nn.Module) -> bool:
    names = inspect.signature(type(part).forward).parameters
    return bool(_TIMES & set(names)) and not hasattr(part, "decode")


def _watched(pipe: Any, kwargs: dict[str, Any], run: Replay) -> dict[str, Any]:  # noqa: ANN401
    """The arguments, with a callback that is called once a step, when the step is settled."""
    callback = kwargs.get(_CALLBACK)
    if callback is None:
        return kwargs
    original: Callable[..., Any] = callback

    def settled(self: Any, *args: Any, **rest: Any) -> Any:  # noqa: ANN401
        return run.visit(lambda: original(self, *args, **rest), owner=self, skip=True)

    tensors = getattr(callback, "tensor_inputs", None)
    extra = {} if tensors is None else {f"{_CALLBACK}_tensor_inputs": tensors}
    return extra | kwargs | {_CALLBACK: settled}
