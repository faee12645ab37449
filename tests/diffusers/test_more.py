"""More pipelines as wholes, and unusual ways to run one: replayed, they give what they give plainly."""

import importlib.util
import inspect
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from paradrift.diffusers import parallelize, replay
from paradrift.errors import Refused

_spec = importlib.util.spec_from_file_location("pipelines_more", Path(__file__).with_name("pipelines_more.py"))
_pipelines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pipelines)
MORE = _pipelines.MORE
REFUSED = _pipelines.REFUSED

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = {"modular-sdxl-momentum", "sd3-skip-layer"}  # the others are marked slow
MISSING = {"accelerate-hook"} if importlib.util.find_spec("accelerate") is None else set()
TIMES = {"timestep", "timesteps", "timestep_ratio"}
SMALLEST = 1e-6  # of the size of the result
FACTOR = 20

WINDOWS = (1, 3, 64)


def _marked(name: str, *also: int) -> Any:
    marks = [] if name in QUICK else [pytest.mark.slow]
    marks += [pytest.mark.skip(reason="accelerate is not installed")] if name in MISSING else []
    return pytest.param(name, *also, marks=marks)


def _denoisers(pipe: Any) -> list[nn.Module]:
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    modules = [getattr(part, "_orig_mod", part) for part in modules]
    return [part for part in modules if TIMES & set(inspect.signature(type(part).forward).parameters)]


def _among_copies(forward: Callable[..., Any], copies: int) -> Callable[..., Any]:
    """Each row beside copies of itself: networks that split their batch in halves or thirds still find them."""

    def crowded(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = pytree.tree_flatten((args, kwargs))
        rows = next(v.shape[0] for v in leaves if isinstance(v, Tensor) and v.is_floating_point() and v.ndim >= 2)

        def repeated(leaf: Any) -> Any:
            batched = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == rows
            return leaf.repeat_interleave(copies, 0) if batched else leaf

        args, kwargs = pytree.tree_unflatten([repeated(leaf) for leaf in leaves], structure)
        return pytree.tree_map(lambda out: out[::copies] if isinstance(out, Tensor) else out, forward(*args, **kwargs))

    return crowded


@contextmanager
def _in_batches(pipe: Any, copies: int) -> Iterator[None]:
    before = [(part, vars(part).get("forward")) for part in _denoisers(pipe)]
    for part, _ in before:
        part.forward = _among_copies(part.forward, copies)
    try:
        yield
    finally:
        for part, forward in before:
            del part.forward
            if forward is not None:
                part.forward = forward


@pytest.mark.parametrize(("name", "window"), [_marked(name, w) for name in MORE for w in WINDOWS])
def test_evaluated_alone_it_is_the_plain_run_bit_by_bit(name: str, window: int) -> None:
    pipe, call = MORE[name]()
    plain = call(pipe)
    assert np.isfinite(plain).all()
    assert plain.std() > 0
    with parallelize(pipe, tol=0.0, single=True, window=window, strict=True) as running:
        found = call(pipe)
    assert np.array_equal(found, plain), f"largest difference {np.abs(found - plain).max()}"
    stats = running.stats
    assert stats.fallback is None
    assert stats.rounds <= stats.calls <= stats.evaluations
    assert np.array_equal(call(pipe), plain), "the pipeline is as before afterwards"


@pytest.mark.parametrize("name", [_marked(name) for name in MORE])
def test_in_batches_it_is_the_plain_run_to_the_noise_of_batching(name: str) -> None:
    pipe, call = MORE[name]()
    plain = call(pipe)
    floor = SMALLEST * float(np.abs(plain).max())
    for copies in (4, 8):  # kernels change with the size of the batch
        with _in_batches(pipe, copies):
            floor = max(floor, float(np.abs(call(pipe) - plain).max()))
    with parallelize(pipe, tol=1e-6, window=16, strict=True) as running:
        found = call(pipe)
    stats = running.stats
    gap = float(np.abs(found - plain).max())
    assert gap <= FACTOR * floor, f"{gap:.1e} away, batching noise {floor:.1e}"
    assert stats.unbatchable == ()
    assert stats.rounds <= stats.calls <= stats.evaluations


class _Same:
    """Equal to the same object alone."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __repr__(self) -> str:
        return f"the very {self.value!r:.60}"


def _facts(value: Any) -> Any:
    """A value taken apart: tensors and containers by what is in them, everything else by which object it is."""
    if isinstance(value, Tensor):
        return (str(value.dtype), value.requires_grad, value.detach().clone().float().numpy().tobytes())
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: _facts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_facts(item) for item in value]
    return value if isinstance(value, int | float | str | bool | None) else _Same(value)


def _state(pipe: Any) -> dict[str, Any]:
    """Everything about a pipeline, its parts and the random states that a run could change for good."""
    found = {"class": _Same(type(pipe)), "pipe": _facts(vars(pipe))}
    for name, component in pipe.components.items():
        parts = dict(component.named_modules()) if isinstance(component, nn.Module) else {"": component}
        for inner, part in parts.items():
            if part is not None:
                found |= {f"{name}.{inner}.{key}": _facts(value) for key, value in vars(part).items()}
    found["random"] = [_facts(torch.get_rng_state()), _facts(list(np.random.get_state())), random.getstate()]
    return found


def _assert_same(now: dict[str, Any], then: dict[str, Any]) -> None:
    changed = {key: (then.get(key), now.get(key)) for key in now | then if now.get(key) != then.get(key)}
    assert not changed, f"changed for good: {changed!s:.500}"


def _told(name: str) -> Any:
    slow = [] if name in ("self-attention-guidance", "first-block-cache") else [pytest.mark.slow]
    return pytest.param(name, marks=slow)


@pytest.mark.parametrize("name", [_told(name) for name in REFUSED])
def test_what_cannot_be_replayed_is_refused_or_run_plainly(name: str) -> None:
    build, sentence = REFUSED[name]
    pipe, call = build()
    plain = call(pipe)
    again = call(pipe)
    assert np.array_equal(again, plain)
    before = _state(pipe)
    for window in (3, 16):
        with pytest.raises(Refused, match=sentence), parallelize(pipe, window=window, strict=True):
            call(pipe)
        _assert_same(_state(pipe), before)
    with warnings.catch_warnings(record=True) as seen, parallelize(pipe) as running:
        warnings.simplefilter("always")
        found = call(pipe)
    assert np.array_equal(found, plain)
    assert [str(each.message).startswith("paradrift runs this plainly: ") for each in seen].count(True) == 1
    assert running.stats.fallback is not None
    assert np.array_equal(call(pipe), plain)


class _Broken(Exception):
    pass


def _raising(error: type[BaseException], when: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
    """A replacement for a method, which raises in some cases."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            if when(*args):
                raise error
            return original(*args, **kwargs)

        return method

    return wrap


def _fifth_step(pipe: Any) -> tuple[Any, str, Any]:
    return pipe.scheduler, "step", _raising(_Broken, lambda _, time, *rest: time == pipe.scheduler.timesteps[5])


def _batch(pipe: Any) -> tuple[Any, str, Any]:
    return pipe.unet.mid_block, "forward", _raising(KeyboardInterrupt, lambda x, *_: len(x) > 2)


def _words(pipe: Any) -> tuple[Any, str, Any]:
    return pipe.text_encoder.get_input_embeddings(), "forward", _raising(KeyboardInterrupt)


def _pictures(pipe: Any) -> tuple[Any, str, Any]:
    return pipe.vae.decoder, "forward", _raising(KeyboardInterrupt)


def _third_callback(_pipe: Any, step: int, _time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
    if step == 3:
        raise _Broken
    return values


_ERRORS = (
    (_fifth_step, _Broken),
    (_third_callback, _Broken),
    (_batch, KeyboardInterrupt),
    (_words, KeyboardInterrupt),
    (_pictures, KeyboardInterrupt),
)


@pytest.mark.parametrize("strict", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize(("where", "error"), _ERRORS)
def test_after_an_error_everything_is_as_before(where: Any, error: type[BaseException], strict: bool) -> None:
    pipe, call = _pipelines.with_words()
    plain = call(pipe)
    more: dict[str, Any] = {"callback_on_step_end": where} if where is _third_callback else {}
    owner, method, wrap = (None, "", None) if more else where(pipe)
    if owner is not None:
        setattr(owner, method, wrap(getattr(owner, method)))
    generator = torch.Generator().manual_seed(1)
    start, before = generator.get_state(), _state(pipe)
    with pytest.raises(error), parallelize(pipe, window=16, strict=strict) as running:
        call(pipe, generator=generator, num_inference_steps=10, guidance_scale=3.0, **more)
    _assert_same(_state(pipe), before)
    assert torch.equal(generator.get_state(), start)
    assert running.stats.fallback is None
    if owner is not None:
        delattr(owner, method)
    assert np.array_equal(call(pipe), plain)


@pytest.mark.parametrize("name", ["sd-words", "sd3-skip-layer", "repaint"])
def test_after_a_run_everything_is_as_after_a_plain_one(name: str) -> None:
    pipe, call = MORE[name]()
    call(pipe)
    plain = _state(pipe)
    with parallelize(pipe, tol=0.0, single=True, window=16, strict=True):
        call(pipe)
    _assert_same(_state(pipe), plain)


@pytest.mark.parametrize("window", WINDOWS)
@torch.inference_mode()
def test_in_inference_mode_changes_in_place_are_seen(window: int) -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6))

    def loop() -> Tensor:
        x = torch.ones(2, 6)
        for _ in range(10):
            x.sub_(0.3 * net(x))
        return x

    plain = loop()
    found, _ = replay(loop, {"net": net}, tol=0.0, single=True, window=window, strict=True)
    assert torch.equal(found, plain)


def test_a_modular_pipeline_shows_one_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pipe, call = MORE["modular-sdxl"]()
    with parallelize(pipe, window=3, strict=True) as running:
        call(pipe)
    assert running.stats.executions > 1
    assert capsys.readouterr().err.count(" 0/8 [") <= 1


def test_the_text_encoder_and_the_decoder_run_exactly_as_often_as_plainly() -> None:
    pipe, _ = _pipelines.with_words()
    counts = {"text": 0, "decoder": 0}

    def counted(part: Any, method: str, name: str) -> None:
        original = getattr(part, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(*args, **kwargs)

        setattr(part, method, call)

    counted(pipe.text_encoder, "forward", "text")
    counted(pipe.vae, "decode", "decoder")

    def run() -> dict[str, int]:
        counts.update(text=0, decoder=0)
        pipe("a b", num_inference_steps=6, output_type="np", generator=torch.Generator().manual_seed(0))
        return dict(counts)

    plain = run()
    assert min(plain.values()) > 0
    with parallelize(pipe, tol=1e-3, window=4, strict=True) as running:
        assert run() == plain
    assert running.stats.executions > 1
