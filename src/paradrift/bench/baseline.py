"""The strongest honest sequential loop for the embedded model: nothing in it but the network and three products."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift.denoisers import modules
from paradrift.forms import Form


def plain_loop(
    model: pd.Denoiser, sampler: pd.Sampler, steps: int, labels: Sequence[int], guidance: float | None
) -> tuple[Tensor, float]:
    """Sample digits one step after the other, as short as it can be written, and time it.

    The coefficients are ready Python numbers, both halves of the guidance share a call, the noise is one ``randn`` a
    step. No library code runs inside the loop.

    Args:
        model: The embedded model: its network and its schedule are used.
        sampler: DDPM or DDIM.
        steps: Number of steps of the leading grid.
        labels: The digits.
        guidance: Scale of guidance, or None.

    Returns:
        The samples, shape (S, 1, 28, 28), and the wall time in seconds.
    """
    network: nn.Module = modules(model)[0]
    schedule = model.schedule
    assert schedule is not None
    table = sampler.tableau(schedule, pd.grids.default(schedule, steps)).reform(Form.V)
    a, b = table.band("a", 1)[1:].tolist(), table.band("b", 1)[1:].tolist()
    c, times = table.band("c", 0)[1:].tolist(), table.t[:-1].tolist()
    wanted = torch.tensor(labels)
    both = torch.cat([wanted, torch.full_like(wanted, 10)])
    begin = time.perf_counter()
    with torch.inference_mode():
        x = torch.randn(len(labels), 1, 28, 28)
        for step in range(steps):
            if guidance is None:
                t = torch.full((len(labels),), times[step])
                f = network(x, timestep=t, class_labels=wanted, return_dict=False)[0]
            else:
                t = torch.full((2 * len(labels),), times[step])
                f, free = network(torch.cat([x, x]), timestep=t, class_labels=both, return_dict=False)[0].chunk(2)
                f = free + guidance * (f - free)
            x = a[step] * x + b[step] * f
            if c[step]:
                x = x + c[step] * torch.randn_like(x)
    return x, time.perf_counter() - begin
