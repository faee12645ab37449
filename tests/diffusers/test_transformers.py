"""Pipelines of many families, run by their own code in parallel in time: bit by bit, and within the batching noise."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from paradrift.diffusers import parallelize

_spec = importlib.util.spec_from_file_location(
    "pipelines_transformers", Path(__file__).with_name("pipelines_transformers.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
TRANSFORMERS = _module.TRANSFORMERS

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = ("ddpm", "dit-ddim", "flux", "wan")  # the others are marked slow
DENOISERS = ("unet", "transformer", "transformer_2")
COPIES = 4
SMALLEST = 1e-6
FACTOR = 20

NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMERS]


@contextmanager
def _patched(module: torch.nn.Module, forward: Callable) -> Iterator[None]:
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


def _among_copies(original: Callable) -> Callable:
    """The same forward, evaluated for several copies of its batch; the first is returned."""

    def forward(*args, **kwargs):
        leaves, structure = pytree.tree_flatten((args, kwargs))
        rows = next(v.shape[0] for v in leaves if _is_tensor(v) and v.is_floating_point() and v.ndim >= 2)

        def repeated(value):
            if not _is_tensor(value) or value.ndim == 0 or value.shape[0] != rows:
                return value
            return value.repeat(COPIES, *[1] * (value.ndim - 1))

        args, kwargs = pytree.tree_unflatten([repeated(value) for value in leaves], structure)
        outputs, structure = pytree.tree_flatten(original(*args, **kwargs))
        assert all(output.shape[0] == COPIES * rows for output in outputs if _is_tensor(output))
        return pytree.tree_unflatten([v[:rows].clone() if _is_tensor(v) else v for v in outputs], structure)

    return forward


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _floor(pipe, call, plain: np.ndarray) -> float:
    """How much the result changes when every call of a network is evaluated in a batch of its copies."""
    modules = [part for name in DENOISERS if (part := getattr(pipe, name, None)) is not None]
    try:
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(_patched(module, _among_copies(module.forward)))
            found = call(pipe)
    except Exception:  # calls of this network cannot be made into one
        return SMALLEST
    return max(SMALLEST, float(np.abs(found - plain).max()))


@pytest.mark.parametrize("window", [1, 3, 64])
@pytest.mark.parametrize("name", NAMES)
def test_bitwise(name, window):
    pipe, call = TRANSFORMERS[name]()
    plain = call(pipe)
    assert np.isfinite(plain).all()
    assert plain.std() > 0
    with parallelize(pipe, tol=0.0, single=True, window=window, strict=True) as running:
        found = call(pipe)
    assert np.array_equal(found, plain)
    assert running.stats.fallback is None
    assert running.stats.rounds <= running.stats.calls
    assert np.array_equal(call(pipe), plain), "the pipeline is as before afterwards"


@pytest.mark.parametrize("name", NAMES)
def test_batched(name):
    pipe, call = TRANSFORMERS[name]()
    plain = call(pipe)
    with parallelize(pipe, tol=1e-6, strict=True) as running:
        found = call(pipe)
    assert running.stats.fallback is None
    assert running.stats.rounds <= running.stats.calls
    floor = _floor(pipe, call, plain)
    gap = float(np.abs(found - plain).max())
    assert gap <= FACTOR * floor, f"{gap:.1e} away, batching noise {floor:.1e}"
