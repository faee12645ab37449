r"""What an error in the answer to a call does to the program's final result.

A tape is a differentiable function of its answers :math:`f_k`, from the first call to the result y. One backward pass
with a random cotangent :math:`v \sim N(0, I)` gives :math:`g_k = (\partial y / \partial f_k)^T v` for every call at
once, and :math:`E |g_k|^2` is the squared Frobenius norm of that derivative: an error of rms d in the answer, in no
special direction, changes y by :math:`|g_k| d`. Guidance, multistep formulas, blends and several networks are in it,
because the program's own operations are. Errors here are relative: over the norm of y.

The networks' own response on the way is left out: later answers are held fixed. For networks that predict noise,
velocity or flow that means that an error is neither damped nor amplified on its way, which is what is seen: secants
are measured along the changes of an iteration, which networks damp much more than the errors that are left at its end.
For networks that predict data, holding the answers would damp everything, and nothing is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paradrift.diffusers.calls import Cell, Leaves
from paradrift.diffusers.keeping import copied
from paradrift.diffusers.lending import lend
from paradrift.diffusers.tape import Tape

MARGIN = 5.0  # worst error of digits over the effects' sum: 4.8 in a first set of 45 runs, 9.7 in a second
_FAILURES = (RuntimeError, TypeError, NotImplementedError)


@dataclass(frozen=True)
class Response:
    """The response of the result to the answers of all calls on a tape.

    Args:
        rows: For each call and each of its outputs: relative error of the result for an error of rms 1 in each row,
            shape (rows,); None for outputs that are not used.
        samples: Samples in the result.
    """

    rows: list[list[Tensor | None]]
    samples: int

    def felt(self, debts: Sequence[Sequence[Tensor | None]]) -> list[float]:
        """What errors in the answers are felt as.

        Args:
            debts: Rms error of each call's outputs by row, shape (rows,); None: none.

        Returns:
            Relative rms error of the result, of the sample where it is largest, for each call. Rows of one sample
            (guidance halves stand one behind the other) add up like independent errors.
        """
        return [self._of_call(rows, owed) for rows, owed in zip(self.rows, debts, strict=True)]

    def _of_call(self, rows: Sequence[Tensor | None], owed: Sequence[Tensor | None]) -> float:
        total = 0.0
        for response, debt in zip(rows, owed, strict=False):
            if response is None or debt is None:
                continue
            square = (response * debt.to(response.device)).square()
            halves = square.reshape(-1, self.samples) if len(square) % self.samples == 0 else square[:, None]
            total += float(halves.sum(0).max())
        return math.sqrt(total)


def response(tape: Tape, cells: Sequence[Cell]) -> Response | None:
    """One backward pass over a tape.

    Args:
        tape: A complete tape.
        cells: All calls of the program, each with an answer.

    Returns:
        The response; None if the tape cannot be differentiated.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            leaves, total, size, samples = _result(tape, cells)
            flat = [leaf for group in leaves for leaf in group if leaf is not None]
            found = iter(torch.autograd.grad(total, flat, allow_unused=True))
    except _FAILURES:
        return None
    rows: list[list[Tensor | None]] = []
    for group in leaves:
        gradients = [None if leaf is None else next(found) for leaf in group]
        rows.append([None if g is None else _rows(g) / size for g in gradients])
    return Response(rows=rows, samples=samples)


@dataclass(frozen=True)
class Estimate:
    """How far the result is from the plain run's.

    Args:
        effects: What each call on the tape that settled away from where it was evaluated does to the result, relative.
        rounding: What the rounding of batches does to it, relative.
    """

    effects: list[float]
    rounding: float

    @property
    def settling(self) -> float:
        """The effects, all in one direction."""
        return sum(self.effects)

    @property
    def total(self) -> float:
        """Both together, with a margin."""
        return MARGIN * self.settling + self.rounding


def estimate(found: Response, tape: Tape, cells: Sequence[Cell], noise: Mapping[str, float]) -> Estimate | None:
    """Estimate the error of the result.

    Args:
        found: The response of the tape.
        tape: The tape.
        cells: All calls of the program, settled.
        noise: For each network: the rounding of a batch, rms over rms.

    Returns:
        The estimate; None where the program itself has lost its numbers.
    """
    lend(cells)
    on_tape = cells[tape.start : tape.end]
    effects = found.felt([cell.debts() for cell in on_tape])
    rounded = [[_rounding(output, noise[cell.signature.module]) for output in cell.outputs] for cell in on_tape]
    rounding = math.hypot(*found.felt(rounded))
    if any(math.isnan(effect) for effect in (*effects, rounding)):
        return None
    return Estimate(effects=effects, rounding=rounding)


def _rounding(output: Any, noise: float) -> Tensor | None:  # noqa: ANN401
    if noise == 0 or not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim == 0:
        return None
    return output.double().flatten(1 if output.ndim > 1 else 0).square().mean(-1).sqrt().reshape(-1) * noise


def _result(tape: Tape, cells: Sequence[Cell]) -> tuple[list[Leaves], Tensor, float, int]:
    values: dict[int, Tensor] = {}
    arguments: Leaves = []
    leaves: list[Leaves] = []
    for number in range(tape.start, tape.end):
        group = [
            output.detach().clone().requires_grad_(True)
            if isinstance(output, Tensor) and output.is_floating_point()
            else None
            for output in cells[number].outputs
        ]
        answer = [
            copied(output) if leaf is None else leaf * 1
            for leaf, output in zip(group, cells[number].outputs, strict=True)
        ]
        leaves.append(group)
        arguments = tape.play(values, number, answer)
    random = torch.Generator().manual_seed(0)
    result = [leaf for leaf in arguments if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not result:
        raise RuntimeError("the result does not depend on the calls")
    parts = [(leaf.float() * torch.randn(leaf.shape, generator=random).to(leaf.device)).sum() for leaf in result]
    samples = result[0].shape[0]
    size = math.sqrt(sum(float(leaf.detach().float().square().sum()) for leaf in result) / samples)
    return leaves, torch.stack(parts).sum(), size, samples


def _rows(gradient: Tensor) -> Tensor:
    flat = gradient.double().reshape(gradient.shape[0], -1) if gradient.ndim else gradient.double().reshape(1, 1)
    return flat.square().sum(1).sqrt()
