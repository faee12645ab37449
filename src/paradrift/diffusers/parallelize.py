"""Any diffusers pipeline, parallel in time: its own code, replayed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from paradrift.diffusers.replay import guarded
from paradrift.diffusers.settings import Settings
from paradrift.diffusers.snapshot import generators_in
from paradrift.diffusers.speculation import Replay
from paradrift.diffusers.stats import ReplayStats
from paradrift.errors import SpecError

_TIMES = frozenset(("timestep", "timesteps", "timestep_ratio", "t"))
_METHODS = ("forward", "encode", "decode", "generate")
_BAR = "_progress_bar_config"
_CALLBACKS = ("callback_on_step_end", "callback")  # the second is the older one, without the pipeline


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
    pad: bool = False,
    only: Sequence[str] | None = None,
    strict: bool = False,
) -> Iterator[Running]:
    """Within this block the pipeline samples parallel in time.

    Args:
        pipe: The pipeline; it is as before when the block ends, also after an exception.
        tol: Tolerance of the final latent against the plain run, relative rms. Calls settle when their arguments are
            within ``tol / sqrt(steps)`` (of at most 50) of where they were evaluated, and stricter where the estimate
            of the final error asks for it; 0 asks for the plain run itself.
        window: Network calls beyond the settled ones that are worked on; None: chosen by what batches cost here, which
            is measured; 1 where none promises to be faster.
        secant: Whether stale calls are answered with secant slopes, or as they are.
        single: Whether every call is evaluated alone; with tol 0 the result is the plain run's to the last bit.
        max_rows: Most calls in one batch.
        pad: Whether to fill every batch up to ``max_rows`` (or the window, or 16) calls, so that compiled networks and
            CUDA graphs keep one shape; done anyway for networks compiled by torch.
        only: Names of the networks to replay; None: every component whose forward takes a timestep.
        strict: Raise when the pipeline cannot be replayed, instead of running it plainly with a warning.

    Yields:
        An object whose ``stats`` say what the last call of the pipeline cost.

    Raises:
        SpecError: if no network is found.
    """
    components = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    modules = {name: part for name, part in components.items() if (name in only if only else _is_denoiser(part))}
    strange = [name for name in only or () if name not in components]
    if strange or not modules:
        raise SpecError(
            f"expected a component of {type(pipe).__name__} whose forward takes a timestep, found "
            f"{', '.join(strange) or 'none'} among {', '.join(components)}: name the networks with only=[...]"
        )
    barriers = [
        (part, method)
        for name, part in components.items()
        if name not in modules
        for method in _METHODS
        if callable(getattr(type(_bare(part)), method, None))
    ]
    # schedulers, and the guiders of modular pipelines
    changing = [
        part for part in pipe.components.values() if hasattr(part, "set_timesteps") or hasattr(part, "prepare_models")
    ]
    objects = [pipe, *changing]
    settings = Settings(tol=tol, window=window, secant=secant, single=single, max_rows=max_rows, pad=pad)
    running, plain = Running(), type(pipe)

    @functools.wraps(plain.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        run = Replay(modules=modules, settings=settings, objects=objects, barriers=barriers)
        running.stats = run.stats

        def program() -> Any:  # noqa: ANN401
            return plain.__call__(self, *args, **_watched(kwargs, run))

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
    shown = [each for each in _with_bars(pipe) if hasattr(each, "set_progress_bar_config")]
    quiet = any(getattr(each, "_progress_bar_config", {}).get("disable", False) for each in shown) or not shown
    before = [(each, vars(each).get(_BAR)) for each in shown]
    with tqdm(unit="call", desc="settled", disable=quiet) as bar:

        def observe(settled: int) -> None:
            bar.update(max(0, settled - bar.n))

        run.observe = observe
        for each, config in before:
            each.set_progress_bar_config(**(config or {}) | {"disable": True})
        try:
            yield
        finally:
            for each, config in before:
                vars(each).pop(_BAR, None)
                if config is not None:
                    setattr(each, _BAR, config)


def _with_bars(part: Any) -> Iterator[Any]:  # noqa: ANN401
    """A pipeline; of a modular one, the blocks that it is made of too."""
    yield part
    for block in (getattr(part, "_blocks", None), *getattr(part, "sub_blocks", {}).values()):
        if block is not None:
            yield from _with_bars(block)


def _bare(part: nn.Module) -> nn.Module:
    """Without the wrapper of ``torch.compile``."""
    return getattr(part, "_orig_mod", part)


def _is_denoiser(part: nn.Module) -> bool:
    names = inspect.signature(type(_bare(part)).forward).parameters
    return bool(_TIMES & set(names)) and not hasattr(part, "decode")


def _watched(kwargs: dict[str, Any], run: Replay) -> dict[str, Any]:
    """The arguments, with callbacks that are called once a step, when the step is settled."""

    def settled(original: Callable[..., Any]) -> Callable[..., Any]:
        def callback(*args: Any, **rest: Any) -> Any:  # noqa: ANN401
            owner = args[0] if args and hasattr(args[0], "components") else None
            return run.visit(lambda: original(*args, **rest), owner=owner, skip=True, sees=(args[1:], rest))

        return callback

    found = {name: settled(kwargs[name]) for name in _CALLBACKS if callable(kwargs.get(name))}
    tensors = getattr(kwargs.get(_CALLBACKS[0]), "tensor_inputs", None)
    extra = {} if tensors is None else {f"{_CALLBACKS[0]}_tensor_inputs": tensors}
    return extra | kwargs | found
