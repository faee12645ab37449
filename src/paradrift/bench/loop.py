"""The strongest honest sequential loop for any model and table: Python numbers, the network itself, one noise a step.

It is what somebody would write who knows the table: coefficients are ready, times and conditioning are tensors made
beforehand, guidance shares a call, noise is one ``randn`` a step. Of a model made by :func:`paradrift.denoiser` the
network is called directly; other models (exact ones) are functions of their own, which are called as they are.
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
from paradrift.denoisers import Guided
from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.tableau import Tableau

Call = Callable[[Tensor, Tensor], Tensor]
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
    call, kind = raw(model, len(start))
    times = [
        torch.full((len(start),), round(t) if kind == torch.int64 else t, dtype=kind)
        for t in np.where(own.evaluated, own.t, 0.0).tolist()
    ]
    states, outputs = _terms(own.a), _terms(own.b)
    scales, noise_scale = own.scale.tolist(), own.c.diagonal().tolist()
    evaluated, reach = own.evaluated.tolist(), own.reach

    def run(noise: Callable[[int], Tensor] | None = None) -> tuple[Tensor, float]:
        draw = noise or (lambda row: torch.randn_like(start))
        begin = time.perf_counter()
        with torch.inference_mode():
            x, f = {0: start}, {}
            for row in range(1, own.rows):
                last = row - 1
                if evaluated[last]:
                    state = x[last] if scales[last] == 1 else scales[last] * x[last]
                    f[last] = call(state, times[last])
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
        return x[own.rows - 1], time.perf_counter() - begin

    return run


def _terms(weights: Array) -> list[Terms]:
    """Columns and weights of each row that are not zero."""
    return [[(int(column), float(row[column])) for column in row.nonzero()[0]] for row in weights]


def raw(model: pd.Denoiser, samples: int) -> tuple[Call, torch.dtype]:
    """The network behind a model, with the conditioning of all samples at hand.

    Args:
        model: The model.
        samples: Number of samples S, one row each.

    Returns:
        Function of states, shape (S, *shape), and times, shape (S,); and the dtype of the times.
    """
    sample = torch.arange(samples)
    if isinstance(model, ModuleDenoiser):
        return _network(model, sample), _kind(model)
    if isinstance(model, Guided) and model.rescale == 0 and isinstance(model.denoiser, ModuleDenoiser):
        both, scale = _network(model.denoiser, torch.cat([sample, ~sample])), model.scale

        def guided(x: Tensor, t: Tensor) -> Tensor:
            f, free = both(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
            return free + scale * (f - free)

        return guided, _kind(model.denoiser)
    return (lambda x, t: model(x, t, sample)), torch.float64


def _kind(model: ModuleDenoiser) -> torch.dtype:
    return torch.int64 if model.whole else torch.float32


def _network(model: ModuleDenoiser, sample: Tensor) -> Call:
    weights = [weight for module in model.modules for weight in module.parameters() if weight.is_floating_point()]
    dtype = weights[0].dtype if weights else None
    given, net = model.conditioning.rows(sample, sample.device, dtype), model.net
    return lambda x, t: net(x, t, **given)
