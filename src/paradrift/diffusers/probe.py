r"""A live scheduler read as a table.

All affine schedulers act element by element, so independent scalar *lanes* of one batch give every coefficient in one
pass over the schedule: at call i, lane i holds the sample 1, lane N + i the output 1, and the n-th Gaussian draw of the
run is 1 in lane 2N + n. Nothing is chained: every call is fed fresh impulses, and what it returns is exactly

.. math:: x_{j+1} = \sum_i X_{ji} x_i + \sum_i O_{ji} f_i + \sum_n Z_{jn} \xi_n .

Impulses alone would be deceived: a learned variance or a norm-based step passes every one of them. So the table is
certified by dense random superpositions at several scales, and refused when they disagree.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paradrift.diffusers.live import Draws, Loop, replica
from paradrift.errors import NotAffineError, SpecError
from paradrift.forms import Array, Form, from_data
from paradrift.noise import Given
from paradrift.tableau import Tableau

_FORMS = {"epsilon": Form.NOISE, "sample": Form.DATA, "v_prediction": Form.V, "flow_prediction": Form.FLOW}
_ACCEPT = 1e-4  # disagreement of a superposition, relative; affine schedulers stay below 2e-5 in float32 arithmetic
_KEPT = 4  # tables remembered: one of 1000 steps takes 24 MB
_REMEDIES = {
    "clip_sample": "set it to False and clip in the denoiser: Clipped(denoiser, clip_sample_range) is the same sampler "
    "where the step uses the data prediction alone (DDPM), not for DDIM",
    "thresholding": "set it to False and threshold in the denoiser: Clipped(denoiser, 1.0, ratio, maximum)",
    "clip_denoised": "set it to False and clip in the denoiser with Clipped",
    "use_clipped_model_output": "leave it out",
}
_tables: OrderedDict[object, Tableau] = OrderedDict()


@dataclass(frozen=True, kw_only=True)
class _Entries:
    """What one pass of impulses found: all shape (N, N) but the noises, (N, K)."""

    states: Array
    outputs: Array
    noises: Array
    scale: Array
    draws: tuple[int, ...]


@dataclass(frozen=True)
class Probed:
    """A live scheduler of diffusers as a sampler.

    It is read when it is used: timesteps, sigmas, begin index and patched settings are those of that moment. Model
    times are its timesteps; states are its own samples, so a start is what a pipeline would pass to the loop
    (``latents``, already scaled), and with ``generator=`` the result is that of its own loop.

    Args:
        scheduler: The scheduler, after ``set_timesteps``; it is not changed.
        timesteps: Where the loop runs over a part of the scheduler's timesteps (an image-to-image start).
        arguments: Further arguments of every ``step``, such as ``{"eta": 1.0}``.
        form: What the model predicts; None: read from the scheduler's ``prediction_type``.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> scheduler = DDIMScheduler(clip_sample=False)
        >>> scheduler.set_timesteps(20)
        >>> table = Probed(scheduler).table()
        >>> table.nodes, table.reach, table.form
        (20, 1, <Form.NOISE: 'noise'>)
    """

    scheduler: Any
    timesteps: Tensor | None = None
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    form: Form | None = None

    def table(self) -> Tableau:
        """The table of the scheduler as it stands.

        Returns:
            A certified table with one node for each call of ``step``. Draws beyond the first of a call stand in rows
            of their own.

        Raises:
            SpecError: if timesteps are not set, or the scheduler is in the middle of a loop.
            NotAffineError: if it has no table; the message names the option at fault.
        """
        loop = Loop(scheduler=self.scheduler, timesteps=self._timesteps(), arguments=self.arguments)
        key = _fingerprint(loop, self.form)
        if key not in _tables:
            _tables[key] = _tabulate(loop, _form(self.scheduler, self.form))
            while len(_tables) > _KEPT:
                _tables.popitem(last=False)
        return _tables[key]

    def noise(self, start: Tensor) -> Given:
        """The scheduler's own noises, drawn as its loop draws them: for Brownian trees, which no generator replays.

        Args:
            start: The start, shape (S, *shape), in the scheduler's scale.

        Returns:
            A noise source to pass as ``noise=`` beside ``start=``; all noises in memory at once.
        """
        loop = Loop(scheduler=self.scheduler, timesteps=self._timesteps(), arguments=self.arguments)
        table = self.table()
        noises = start.new_zeros(len(start), table.rows, *start.shape[1:])
        columns = iter(np.flatnonzero(table.draws).tolist())
        for drawn in loop.noises(start):
            noises[:, next(columns)] = drawn.to(noises)
        return Given(noises, start)

    def _timesteps(self) -> Tensor:
        scheduler, found = self.scheduler, self.timesteps
        name = type(scheduler).__name__
        if found is None:
            listed = getattr(scheduler, "timesteps", None)
            unset = getattr(scheduler, "num_inference_steps", 0) is None
            if listed is None or (unset and not getattr(scheduler, "custom_timesteps", False)):
                raise SpecError(f"expected a {name} with its timesteps set, found none: call set_timesteps first")
            found = torch.as_tensor(listed)[getattr(scheduler, "_begin_index", None) or 0 :]
        if getattr(scheduler, "_step_index", None) is not None or getattr(scheduler, "counter", 0):
            raise SpecError(f"expected a {name} that has not stepped yet, found one in use: call set_timesteps again")
        return torch.as_tensor(found)


def _fingerprint(loop: Loop, form: Form | None) -> object:
    """Everything that the table depends on, by value."""

    def frozen(value: object) -> object:
        if isinstance(value, Tensor):
            return value.detach().cpu().numpy().tobytes()
        return value.tobytes() if isinstance(value, np.ndarray) else repr(value)

    state = {name: frozen(value) for name, value in vars(loop.scheduler).items()}
    arguments = {name: frozen(value) for name, value in loop.arguments.items()}
    parts = (type(loop.scheduler), form, frozen(loop.timesteps), *state.items(), *arguments.items())
    return tuple(parts)


def _form(scheduler: Any, form: Form | None) -> Form:  # noqa: ANN401
    if form is not None:
        return form
    config = dict(scheduler.config)
    name = config.get("prediction_type")
    if "EDM" in type(scheduler).__name__ or "CosineDPM" in type(scheduler).__name__:
        return Form.VALUE  # the network is seen raw, before its preconditioning
    if name is None:
        return Form.FLOW if "Flow" in type(scheduler).__name__ else Form.NOISE
    return _FORMS.get(name, Form.VALUE)


def _tabulate(loop: Loop, form: Form) -> Tableau:
    if str(dict(loop.scheduler.config).get("variance_type", "")).startswith("learned"):
        raise _refusal(loop, "by its definition")
    loop = dataclasses.replace(loop, vector=loop.takes_vectors)
    entries = _impulses(loop)
    _certify(loop, entries)
    # row[i] is the sample of call i; draws beyond the first of a call put empty rows before its result
    row = np.concatenate([[0], np.cumsum([max(1, count) for count in entries.draws])])
    rows = int(row[-1]) + 1
    columns = [row[i + 1] - count + 1 + k for i, count in enumerate(entries.draws) for k in range(count)]
    a, b, c = np.zeros((rows, rows)), np.zeros((rows, rows)), np.zeros((rows, rows))
    a[np.ix_(row[1:], row[:-1])] = entries.states
    b[np.ix_(row[1:], row[:-1])] = entries.outputs
    if columns:
        c[np.ix_(row[1:], columns)] = entries.noises
    t, scale = np.zeros(rows), np.ones(rows)
    evaluated, draws = np.zeros(rows, bool), np.zeros(rows, bool)
    t[row[:-1]], scale[row[:-1]], evaluated[row[:-1]] = loop.timesteps.double().numpy(), entries.scale, True
    draws[columns] = True
    start = getattr(loop.scheduler, "init_noise_sigma", 1.0)
    plain = Tableau(t=t, a=a, b=b, c=c, form=form, evaluated=evaluated, scale=scale, start=float(start), draws=draws)
    found = None if form is Form.VALUE else _levels(loop)
    if found is None:
        return plain
    alpha, sigma = (np.repeat(level, np.diff(np.concatenate([[-1], row]))) for level in found)
    full = dataclasses.replace(plain, alpha=alpha, sigma=sigma)
    return full if _consistent(full) else plain


def _impulses(loop: Loop) -> _Entries:
    calls = len(loop.timesteps)
    counts: list[int] = []

    def zeros(number: int, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    draws, before = Draws(zeros), 0
    nothing = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    try:
        for _ in loop.run(lambda index, last: nothing, lambda index, scaled: nothing, draws):
            counts.append(draws.count - before)
            before = draws.count
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise SpecError(
            f"expected {type(loop.scheduler).__name__} to step over its timesteps, found {error!r} at number "
            f"{len(counts)}: give the timesteps= that its pipeline loops over"
        ) from error
    lanes = 2 * calls + draws.count + 1

    def unit(lane: int) -> Tensor:
        lane_of = torch.zeros(lanes, 1, 1, 1, dtype=torch.float64)
        lane_of[lane] = 1.0
        return lane_of

    scale: list[float] = []

    def output(index: int, scaled: Tensor) -> Tensor:
        scale.append(float(scaled[index]))
        return unit(calls + index)

    answers = Draws(lambda number, shape: unit(2 * calls + number).expand(shape))
    found = [result.double().flatten().numpy() for result in loop.run(lambda index, last: unit(index), output, answers)]
    matrix = np.stack(found)
    if not np.all(np.isfinite(matrix)):
        raise _refusal(
            loop, f"its own loop returns NaN or infinity in step {int(np.argmin(np.isfinite(matrix).all(1)))}"
        )
    if np.any(matrix[:, -1]):
        raise _refusal(loop, "it adds a constant")
    matrix[np.abs(matrix) < 1e-12 * np.abs(matrix).max(1, keepdims=True)] = 0.0
    return _Entries(
        states=matrix[:, :calls],
        outputs=matrix[:, calls : 2 * calls],
        noises=matrix[:, 2 * calls : -1],
        scale=np.array(scale),
        draws=tuple(counts),
    )


def _certify(loop: Loop, entries: _Entries) -> None:
    """Compare dense random superpositions with the table."""
    random = torch.Generator().manual_seed(0)
    calls, shape = len(entries.scale), (2, 3, 4, 4)

    def normal(count: int) -> Tensor:
        return torch.randn(count, *shape, generator=random, dtype=torch.float64)

    worst = 0.0
    for states_scale, outputs_scale in ((1.0, 1.0), (8.0, 1.0), (1.0, 8.0), (0.1, 0.1)):
        states, outputs = normal(calls) * states_scale, normal(calls) * outputs_scale
        noises = normal(entries.noises.shape[1])
        results = loop.run(
            lambda index, last, states=states: states[index],
            lambda index, scaled, outputs=outputs: outputs[index],
            Draws(lambda number, size, noises=noises: noises[number].expand(size)),
        )
        found = torch.stack([result.double() for result in results]).flatten(1)
        expected = torch.zeros_like(found)
        for weights, parts in ((entries.states, states), (entries.outputs, outputs), (entries.noises, noises)):
            expected += torch.from_numpy(weights) @ parts.flatten(1)
        gaps = (found - expected).abs().amax(1) / expected.abs().amax(1).clamp(min=1e-12)
        worst = max(worst, float(gaps.nan_to_num(torch.inf).max()))
    if not worst < _ACCEPT:
        raise _refusal(loop, f"a superposition of steps is off by {worst:.0e} of its size")


def _refusal(loop: Loop, found: str) -> NotAffineError:
    """Name the option at fault, and what to do instead."""
    config, name = dict(loop.scheduler.config), type(loop.scheduler).__name__
    settings = config | dict(loop.arguments)
    for option, remedy in _REMEDIES.items():
        if settings.get(option, False):
            return NotAffineError(f"expected an affine scheduler, found {name} with {option}=True, {found}: {remedy}")
    if str(config.get("variance_type", "")).startswith("learned"):
        return NotAffineError(
            f"expected an affine scheduler, found {name} with variance_type={config['variance_type']!r}: its noise "
            "depends on the output; use variance_type='fixed_small', or parallelize the pipeline"
        )
    return NotAffineError(
        f"expected an affine scheduler, found {name}: {found}; run its own loop, or parallelize the pipeline"
    )


def _levels(loop: Loop) -> tuple[Array, Array] | None:
    """Signal and noise level of each sample, as ``add_noise`` mixes them; a clean end."""
    twin, times = replica(loop.scheduler), loop.timesteps.repeat_interleave(2)
    if hasattr(twin, "_begin_index"):
        twin._begin_index = None
    data = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(len(loop.timesteps)).reshape(-1, 1, 1, 1)
    try:
        if hasattr(twin, "add_noise"):
            mixed = twin.add_noise(data, 1 - data, times)
        else:
            mixed = twin.scale_noise(sample=data, timestep=times, noise=1 - data)
    except (AttributeError, TypeError, ValueError, IndexError, RuntimeError):  # not of the usual form: unknown
        return None
    found = np.concatenate([mixed.double().reshape(-1, 2).numpy(), [[1.0, 0.0]]])
    return found[:, 0], found[:, 1]


def _consistent(table: Tableau) -> bool:
    """Whether a perfect prediction of the data 1 carries the state alpha to the answer 1, row by row."""
    assert table.alpha is not None
    assert table.sigma is not None
    nodes = np.flatnonzero(table.evaluated)
    alpha, sigma, scale = table.alpha[nodes], table.sigma[nodes], table.scale[nodes]
    if np.any(sigma <= 0) or not np.all(np.isfinite(alpha) & np.isfinite(sigma)):
        return False
    p, q = from_data(table.form, alpha * scale, sigma * scale)
    z, f = np.zeros(table.rows), np.zeros(table.rows)
    z[0] = table.alpha[0]
    place = {int(node): index for index, node in enumerate(nodes)}
    for row in range(table.rows):
        if row:
            z[row] = table.a[row] @ z + table.b[row] @ f
        if row in place:
            index = place[row]
            f[row] = p[index] * scale[index] * table.alpha[row] + q[index]
    used = table.evaluated.copy()
    used[-1] = True
    return bool(np.max(np.abs(z - table.alpha)[used]) < 1e-2)
