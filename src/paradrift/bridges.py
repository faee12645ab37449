"""The two estimates of :mod:`paradrift.discretisation`, on a path that is open: by step and sample.

Both start from the outputs that were held over the steps. They follow from the path and its noises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Array, Form, convert
from paradrift.kept import Kept, Part
from paradrift.noise import Philox
from paradrift.samplers import Exponential
from paradrift.samplers.frozen import Bridge, bridge, recognise
from paradrift.samplers.held import Levels, Step, step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau

_KEY = 0x6272_6964_6765_0000  # seeds of fresh noise: apart from those that people choose
_STRANGE = 0.5  # distance in standard deviations at which the first step cannot be that of this table and noise


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The steps of an integrator that end with noise, N of them.

    Args:
        sampler: The integrator.
        schedule: The noise schedule.
        model: The form of the model's outputs.
        t: Model times, shape (N + 1,).
        start: Levels at the start of each step, shape (N,).
        end: Levels at its end, shape (N,).
    """

    sampler: Exponential
    schedule: Schedule
    model: Form
    t: Array
    start: Levels
    end: Levels

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return len(self.t) - 1

    @property
    def girsanov(self) -> float:
        """Nats per log-SNR and squared difference of noise predictions."""
        square = self.sampler.stochasticity**2
        return (1 + square) ** 2 / (4 * square)

    def maps(self, start: Levels, end: Levels) -> Step:
        """The integrator's maps between some levels.

        Args:
            start: Levels at the starts.
            end: Levels at the ends.

        Returns:
            The maps.
        """
        return step(self.sampler.form, self.sampler.stochasticity, self.schedule, start, end)


def grid_of(opened: Kept) -> Grid:
    """What the steps of a path are.

    Args:
        opened: The path.

    Returns:
        The grid.

    Raises:
        SpecError: if its table is no exponential integrator with noise, or no step ends with noise.
    """
    table, schedule = opened.table, opened.denoiser.schedule
    if schedule is None:
        raise SpecError("expected a denoiser with a noise schedule, found none: there is no continuous dynamics")
    sampler = recognise(table, schedule)
    alpha, sigma = (level[:, 0] for level in _at(table, list(range(table.rows))))
    steps = table.rows - 1 - int(sigma[-1] == 0)
    if steps < 1:
        raise SpecError("expected at least one step that ends with noise, found none: use more steps")
    return Grid(
        sampler=sampler,
        schedule=schedule,
        model=opened.denoiser.form,
        t=table.t[: steps + 1],
        start=Levels(alpha[:steps], sigma[:steps]),
        end=Levels(alpha[1 : steps + 1], sigma[1 : steps + 1]),
    )


def bridged(opened: Kept, grid: Grid, *, fresh: int = 0, max_rows: int | None = None) -> tuple[Tensor, int]:
    """Nats of each step, unbiased: one level drawn in it, and the model asked there.

    Args:
        opened: The path.
        grid: Its steps.
        fresh: Number of the set of fresh levels and noises.
        max_rows: Most rows in one model call.

    Returns:
        Shape (N, S), float64, and the number of rows evaluated.
    """
    parts, evaluations = opened.audit(lambda part: _bridged(part, grid, fresh), max_rows)
    return torch.cat(parts, 1), evaluations


def neighbouring(opened: Kept, grid: Grid, *, max_rows: int | None = None) -> tuple[Tensor, int]:
    """Nats of each step to leading order, from the change of the held outputs.

    Args:
        opened: The path.
        grid: Its steps.
        max_rows: Most rows in one model call.

    Returns:
        Shape (N, S), float64, and the number of rows evaluated.
    """
    parts, evaluations = opened.audit(lambda part: _neighbouring(part, grid), max_rows)
    return torch.cat(parts, 1), evaluations


def _held(part: Part, grid: Grid) -> Tensor:
    """The outputs held over each step, in the sampler's form, shape (N, S, D)."""
    a, b, c = (_column(weight, part.z) for weight in grid.maps(grid.start, grid.end))
    count = grid.steps
    return (part.z[1 : count + 1] - a * part.z[:count] - c * part.xi[1 : count + 1]) / b


def _bridged(part: Part, grid: Grid, fresh: int) -> Tensor:
    held, count, size = _held(part, grid), grid.steps, part.z.shape[2]
    rows = torch.arange(count, device=part.ids.device).expand(len(part.ids), -1)
    new = Philox(seed=_KEY + fresh, shape=(size + 1,), dtype=torch.float64, device=part.z.device)
    drawn = new.draw(part.ids, rows).transpose(0, 1)
    share = torch.special.ndtr(drawn[..., 0]).cpu().numpy()
    t, between, weight = _between(grid, share)
    one = [Levels(ends.alpha[:, None], ends.sigma[:, None]) for ends in (grid.start, grid.end)]
    law = bridge(grid.sampler, grid.schedule, one[0], between, one[1])
    a, b, known, free = (_element(number, part.z) for number in Bridge(*law))
    state = a * part.z[:count] + b * held + known * part.xi[1 : count + 1] + free * drawn[..., 1:]
    # the first node is asked once more where it was: with the wrong noises it would not say what it said
    states = torch.cat([state, part.z[:1]])
    times = np.concatenate([t, np.broadcast_to(grid.t[:1, None], (1, len(part.ids)))])
    node = torch.cat([rows[0], rows[0, :1]])
    outputs = part.ask(states, torch.from_numpy(times), node)
    levels = Levels(*(np.concatenate([x, _wide(y[:1], x)]) for x, y in zip(between, grid.start, strict=True)))
    outputs = _in_form(grid, outputs, states, levels)
    _check_first(held[0] - outputs[-1], grid)
    return torch.from_numpy(weight).to(held.device) * (held - outputs[:-1]).square().sum(2)


def _neighbouring(part: Part, grid: Grid) -> Tensor:
    held = _held(part, grid)
    noisy = grid.steps + 1 == len(part.z)  # the chain ends with noise, and nothing is held after its last step
    asked = [0, grid.steps] if noisy else [0]
    states = part.z[asked]
    ids = part.ids
    times = _wide(part.table.t[asked], np.empty((1, len(ids))))
    outputs = part.ask(states, torch.from_numpy(times.copy()), torch.tensor(asked, device=ids.device))
    outputs = _in_form(grid, outputs, states, _at(part.table, asked))
    _check_first(held[0] - outputs[0], grid)
    after = torch.cat([held[1:], outputs[1:]]) if noisy else torch.cat([held[1:], _following(part, grid)])
    _, b, c = grid.maps(grid.start, grid.end)
    weights = torch.from_numpy(b**2 / (4 * c**2)).to(held.device)[:, None]
    return weights * (after - held).square().sum(2)


def _following(part: Part, grid: Grid) -> Tensor:
    """The output held over the last step, which has no noise, in the sampler's form, shape (1, S, D)."""
    last = part.table.rows - 1
    table = part.table
    drift = float(table.a[last, -2]) * part.z[-2:-1] + float(table.c[last, -1]) * part.xi[-1:]
    output = (part.z[-1:] - drift) / float(table.b[last, -2])
    return _in_form(grid, output, part.z[-2:-1], _at(part.table, [last - 1]))


def _at(table: Tableau, rows: list[int]) -> Levels:
    """Levels of some rows, shape (len(rows), 1)."""
    if table.alpha is None or table.sigma is None:
        raise SpecError("expected a table with a noise schedule, found none")
    return Levels(table.alpha[rows, None], table.sigma[rows, None])


def _between(grid: Grid, share: Array) -> tuple[Array, Levels, Array]:
    """Times and levels at a share of each step, and the weight of what is found there; all of shape (N, S).

    The share runs evenly through SNR in the data form, where that is the rate itself and a start without signal is
    finite, and through log SNR in the others.
    """
    start, end = ((levels.alpha / levels.sigma)[:, None] for levels in (grid.start, grid.end))
    if grid.sampler.form is Form.DATA:
        ratio = np.sqrt(start**2 + share * (end**2 - start**2))
    else:
        ratio = start ** (1 - share) * end**share
    t = np.clip(grid.schedule.time(np.log(ratio)), grid.t[1:, None], grid.t[:-1, None])
    levels = Levels(np.asarray(grid.schedule.alpha(t)), np.asarray(grid.schedule.sigma(t)))
    if grid.sampler.form is Form.DATA:
        return t, levels, np.broadcast_to(grid.girsanov / 2 * (end**2 - start**2), share.shape).copy()
    gain = np.ones_like(t) if grid.sampler.form is Form.NOISE else levels.sigma**2
    return t, levels, grid.girsanov * np.log(end / start) * gain


def _in_form(grid: Grid, outputs: Tensor, states: Tensor, levels: Levels) -> Tensor:
    """Model outputs as the sampler's form reads them, at states and levels of shape (N, S) or (N, 1)."""
    p, q = convert(grid.model, grid.sampler.form, levels.alpha, levels.sigma)
    return _element(p, states) * states + _element(q, outputs) * outputs


def _check_first(apart: Tensor, grid: Grid) -> None:
    first = [Levels(levels.alpha[:1], levels.sigma[:1]) for levels in (grid.start, grid.end)]
    _, b, c = grid.maps(*first)
    off = float(apart.square().mean().sqrt() * abs(b[0]) / c[0])
    if not off <= _STRANGE:
        raise SpecError(
            f"expected the noises and the sampler of this solution, found its first step off by {off:.2g} standard "
            "deviations: pass the model and the noise that it was drawn with"
        )


def _column(numbers: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(numbers)).to(like)[:, None, None]


def _element(numbers: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(numbers)).to(like)[..., None]


def _wide(numbers: Array, like: Array) -> Array:
    return np.broadcast_to(numbers[:, None], (len(numbers), like.shape[1]))
