"""Stable Diffusion pipelines and their kin: replayed, they give what they give plainly."""

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from paradrift.diffusers import parallelize

_spec = importlib.util.spec_from_file_location("pipelines_stable", Path(__file__).with_name("pipelines_stable.py"))
_pipelines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pipelines)
STABLE = _pipelines.STABLE

pytestmark = pytest.mark.filterwarnings("ignore")

_QUICK = {"sd-ddim", "sd-euler-ancestral", "sd-controlnet", "sdxl"}
_EACH = pytest.mark.parametrize(
    "name", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STABLE]
)


def _denoisers(pipe: Any) -> list[torch.nn.Module]:
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return [part for part in modules if "timestep" in inspect.signature(type(part).forward).parameters]


def _processors(pipe: Any) -> list[Any]:
    return [each for part in _denoisers(pipe) for each in getattr(part, "attn_processors", {}).values()]


def _crowded(forward: Callable[..., Any], copies: int) -> Callable[..., Any]:
    """Each row beside copies of itself: networks that split their batch in halves or thirds still find them."""

    def crowded(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = pytree.tree_flatten((args, kwargs))
        tensors = [v for v in leaves if isinstance(v, Tensor) and v.ndim]
        rows = next(v.shape[0] for v in tensors if v.is_floating_point() and v.ndim >= 2)
        sizes = {v.shape[0] for v in tensors if v.shape[0] == rows or (rows > 1 and v.shape[0] % rows == 0)}

        def repeated(leaf: Any) -> Any:
            batched = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] in sizes
            return leaf.repeat_interleave(copies, 0) if batched else leaf

        args, kwargs = pytree.tree_unflatten([repeated(leaf) for leaf in leaves], structure)
        return pytree.tree_map(lambda out: out[::copies] if isinstance(out, Tensor) else out, forward(*args, **kwargs))

    return crowded


@contextmanager
def _in_batches(pipe: Any, copies: int) -> Iterator[None]:
    parts = _denoisers(pipe)
    for part in parts:
        part.forward = _crowded(part.forward, copies)
    try:
        yield
    finally:
        for part in parts:
            del part.forward


@pytest.mark.parametrize("window", [1, 3, 64])
@_EACH
def test_evaluated_alone_it_is_the_plain_run_bit_by_bit(name: str, window: int) -> None:
    pipe, call = STABLE[name]()
    plain, processors = call(pipe), _processors(pipe)
    assert np.isfinite(plain).all()
    with parallelize(pipe, tol=0.0, single=True, window=window, strict=True) as running:
        found = call(pipe)
    assert np.array_equal(found, plain), f"largest difference {np.abs(found - plain).max()}"
    assert running.stats.rounds <= running.stats.calls
    assert all(now is then for now, then in zip(_processors(pipe), processors, strict=True)), "changed for good"
    assert np.array_equal(call(pipe), plain), "changed for good"


@_EACH
def test_in_batches_it_is_the_plain_run_to_the_noise_of_batching(name: str) -> None:
    pipe, call = STABLE[name]()
    plain = call(pipe)
    floor = 1e-6
    for copies in (4, 8):  # kernels change with the size of the batch
        with _in_batches(pipe, copies):
            floor = max(floor, float(np.abs(call(pipe) - plain).max()))
    with parallelize(pipe, tol=1e-6, strict=True) as running:
        found = call(pipe)
    assert np.abs(found - plain).max() <= 20 * floor
    assert running.stats.rounds <= running.stats.calls


def test_a_callback_sees_each_step_once_in_order_with_settled_values() -> None:
    pipe, call = STABLE["sd-ddim"]()
    seen: list[tuple[int, int, np.ndarray]] = []

    def callback(own: Any, step: int, timestep: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        own.last_seen = step  # callbacks change attributes of their pipeline too
        seen.append((step, int(timestep), values["latents"].numpy().copy()))
        return {"latents": values["latents"] * 1.001}

    def run() -> np.ndarray:
        seen.clear()
        return call(lambda **settings: pipe(**settings, callback_on_step_end=callback))

    plain_result, plain = run(), list(seen)
    pipe.last_seen = -1
    with parallelize(pipe, tol=0.0, single=True, window=16, strict=True) as running:
        found = run()
    assert running.stats.executions > 1
    assert [each[:2] for each in seen] == [each[:2] for each in plain]
    assert all(np.array_equal(mine[2], theirs[2]) for mine, theirs in zip(seen, plain, strict=True))
    assert np.array_equal(found, plain_result)
    assert pipe.last_seen == len(seen) - 1
