"""The strongest honest sequential loop for any model and table: Python numbers, the network itself, one noise a step.

It is what somebody would write who knows the table: coefficients are ready, times and conditioning are tensors made
beforehand, guidance shares a call, clipping is a product and a clamp, noise is one ``randn`` a step. Of a model made by
:func:`paradrift.denoiser` the network is called directly; other models (exact ones) are functions of their own, which
are called as they are. All of it lives where the start does, and on a GPU nothing in the loop waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import paradrift as pd
from paradrift import prepare
from paradrift.adapters.modules import ModuleDenoiser
from paradrift.denoisers import Clipped, Guided
from paradrift.errors import SpecError
from paradrift.forms import Array, Form, convert
from paradrift.pump import synchronize
from paradrift.tableau import Tableau

Step = Callable[[Tensor], Tensor]  # the model at one time, of states
Terms = list[tuple[int, float]]


def plain(model: pd.Denoiser, table: Tableau, start: Tensor, noise: Callable[[int], Tensor] | None = None) -> Tensor:
    """Sample one step after the other, as short as it can be written.

    Args:
        model: The model.
        table: The sampler's own table; every row draws at most its own noise.
        start: The start, already scaled, shape (S, *shape).
        noise: Noise of a row, shape (S, *shape); None to draw it.

    Returns:
        The answers, shape (S, *shape).
    """
    return prepared(model, table, start)(noise)[0]


def prepared(
    model: pd.Denoiser, table: Tableau, start: Tensor
) -> Callable[[Callable[[int], Tensor] | None], tuple[Tensor, float]]:
    """The loop, ready to run: what is made beforehand is not timed.

    Args:
        model: The model.
        table: The sampler's own table.
        start: The start, already scaled, shape (S, *shape).

    Returns:
        Function of the noises that samples once and returns the answers and the wall time in seconds.

    Raises:
        SpecError: if a row uses the noise of another.
    """
    own = prepare.in_form_of(model, table)
    _, _, (noised, noises) = own.entries
    if (noised != noises).any():
        raise SpecError("expected a table whose rows draw their own noise, found one that shares noises")
    at = raw(model, len(start), start.device)
    calls = [at(t) if used else None for t, used in zip(own.t.tolist(), own.evaluated.tolist(), strict=True)]
    states, outputs = _terms(own.a), _terms(own.b)
    scales, noise_scale = own.scale.tolist(), own.c.diagonal().tolist()
    reach = own.reach

    def run(noise: Callable[[int], Tensor] | None = None) -> tuple[Tensor, float]:
        draw = noise or (lambda row: torch.randn_like(start))
        synchronize(start.device)
        begin = time.perf_counter()
        with torch.inference_mode():
            x, f = {0: start}, {}
            for row in range(1, own.rows):
                last = row - 1
                if (call := calls[last]) is not None:
                    f[last] = call(x[last] if scales[last] == 1 else scales[last] * x[last])
                new = None
                for source, terms in ((x, states[row]), (f, outputs[row])):
                    for column, weight in terms:
                        new = weight * source[column] if new is None else new.add(source[column], alpha=weight)
                if noise_scale[row]:
                    new = (
                        new.add(draw(row), alpha=noise_scale[row]) if new is not None else noise_scale[row] * draw(row)
                    )
                x[row] = torch.zeros_like(start) if new is None else new
                x.pop(row - reach, None)
                f.pop(row - reach, None)
            synchronize(start.device)
        return x[own.rows - 1], time.perf_counter() - begin

    return run


def _terms(weights: Array) -> list[Terms]:
    """Columns and weights of each row that are not zero."""
    return [[(int(column), float(row[column])) for column in row.nonzero()[0]] for row in weights]


def raw(model: pd.Denoiser, samples: int, device: torch.device) -> Callable[[float], Step]:
    """The network behind a model, with the conditioning of all samples, and what depends on time alone, at hand.

    Args:
        model: The model.
        samples: Number of samples S, one row each.
        device: Where the states live.

    Returns:
        Function of a time to the function of states, shape (S, *shape), that gives the outputs of that step.
    """
    sample = torch.arange(samples, device=device)
    if isinstance(model, ModuleDenoiser):
        return _network(model, sample)
    if isinstance(model, Guided) and model.rescale == 0 and isinstance(model.denoiser, ModuleDenoiser):
        return _guided(model.scale, _network(model.denoiser, torch.cat([sample, ~sample])))
    if isinstance(model, Clipped) and model.quantile is None and model.schedule is not None:
        return _clipped(model, raw(model.denoiser, samples, device))

    def whole(t: float) -> Step:
        time = torch.full((samples,), t, dtype=torch.float64, device=device)
        return lambda x: model(x, time, sample)

    return whole


def _network(model: ModuleDenoiser, sample: Tensor) -> Callable[[float], Step]:
    weights = [weight for module in model.modules for weight in module.parameters() if weight.is_floating_point()]
    dtype = weights[0].dtype if weights else None
    given, net = model.conditioning.rows(sample, sample.device, dtype), model.net

    def at(t: float) -> Step:
        time = torch.full_like(sample, round(t)) if model.whole else torch.full_like(sample, t, dtype=torch.float32)
        return lambda x: net(x, time, **given)

    return at


def _guided(scale: float, both: Callable[[float], Step]) -> Callable[[float], Step]:
    def at(t: float) -> Step:
        halves = both(t)

        def guided(x: Tensor) -> Tensor:
            f, free = halves(torch.cat([x, x])).chunk(2)
            return free + scale * (f - free)

        return guided

    return at


def _clipped(model: Clipped, inner: Callable[[float], Step]) -> Callable[[float], Step]:
    schedule, form, bound = model.schedule, model.denoiser.form, model.bound
    assert schedule is not None

    def at(t: float) -> Step:
        own = inner(t)
        time = np.array([t])
        p, q = (float(weight[0]) for weight in convert(form, Form.DATA, schedule.alpha(time), schedule.sigma(time)))
        return lambda x: (q * own(x)).add(x, alpha=p).clamp(-bound, bound)

    return at
