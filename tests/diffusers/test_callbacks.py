"""Callbacks that do what users' callbacks do: the run is the plain run, whatever they change."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paradrift.diffusers import parallelize

_spec = importlib.util.spec_from_file_location("pipelines_more", Path(__file__).with_name("pipelines_more.py"))
_pipelines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pipelines)

pytestmark = pytest.mark.filterwarnings("ignore")

Values = dict[str, Tensor]
WINDOWS = (3, 64)


def _stops(pipe: Any, step: int, _time: Any, values: Values) -> Values:
    pipe._interrupt = step >= 3
    return values


def _ramps(pipe: Any, step: int, _time: Any, values: Values) -> Values:
    pipe._guidance_scale = 7.5 - 0.5 * step
    return values


def _draws(_pipe: Any, _step: int, _time: Any, values: Values) -> Values:
    return {"latents": values["latents"] + 0.01 * torch.randn(values["latents"].shape)}


def _weakens_words(_pipe: Any, step: int, _time: Any, values: Values) -> Values:
    return {"prompt_embeds": values["prompt_embeds"] * 0.5} if step == 3 else {}


def _looks(pipe: Any, _step: int, _time: Any, values: Values) -> Values:
    pipe.vae.decode(values["latents"])
    return values


def _scales_in_place(_pipe: Any, _step: int, _time: Any, values: Values) -> Values:
    values["latents"].mul_(1.01)
    return {}


def _changes_network(pipe: Any, step: int, _time: Any, values: Values) -> Values:
    """As the cut-offs of image adapters do."""
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].ff.net[2].strength = 1.0 if step < 3 else 0.0
    return values


CALLBACKS = (_stops, _ramps, _draws, _weakens_words, _looks, _scales_in_place, _changes_network)


def _each(quick: tuple[Any, ...]) -> list[Any]:
    found = []
    for callback in CALLBACKS:
        marks = [] if callback in quick else [pytest.mark.slow]
        found.append(pytest.param(callback, id=callback.__name__.strip("_"), marks=marks))
    return found


def _prepared(callback: Callable[..., Values]) -> tuple[Any, Callable[[], np.ndarray]]:
    pipe, call = _pipelines.with_words()
    layers = pipe.unet.mid_block.attentions[0].transformer_blocks[0].ff.net
    layers[2] = _pipelines.Scaled(layers[2])

    def run() -> np.ndarray:
        layers[2].strength = 1.0
        torch.manual_seed(3)
        names = ["latents", "prompt_embeds"]
        return call(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)

    return pipe, run


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("callback", _each((_ramps, _scales_in_place)))
def test_with_a_callback_it_is_the_plain_run_bit_by_bit(callback: Callable[..., Values], window: int) -> None:
    pipe, run = _prepared(callback)
    plain = run()
    assert np.array_equal(run(), plain)
    with parallelize(pipe, tol=0.0, single=True, window=window, strict=True):
        found = run()
    assert np.array_equal(found, plain), f"largest difference {np.abs(found - plain).max()}"


@pytest.mark.parametrize("callback", _each((_draws, _looks)))
def test_a_callback_costs_no_more_rounds_than_there_are_calls(callback: Callable[..., Values]) -> None:
    pipe, run = _prepared(callback)
    count: list[int] = []
    handle = pipe.unet.register_forward_hook(lambda *_: count.append(1))
    plain = run()
    calls = len(count)
    handle.remove()
    with parallelize(pipe, tol=1e-6, window=16, strict=True) as running:
        found = run()
    assert np.abs(found - plain).max() <= 1e-5
    assert running.stats.calls == calls
    assert running.stats.rounds <= calls
