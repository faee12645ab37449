r"""What an error in the answer to a call does to the program's final result.

With the surrogates of all calls in place a tape is a differentiable function of its answers :math:`f_k`, from the
first call to the result y. One backward pass with a random cotangent :math:`v \sim N(0, I)` gives
:math:`g_k = (\partial y / \partial f_k)^T v` for every call at once, and :math:`E |g_k|^2` is the squared Frobenius
norm of that derivative: an error of rms d in the answer, in no special direction, changes y by :math:`|g_k| d`.
Guidance, multistep formulas, blends and several networks are in it, because the program's own operations are; so is
the networks' response on the way, as far as their secants tell. Errors here are relative: over the norm of y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.diffusers.calls import Cell, Leaves, state_of
from paradrift.diffusers.tape import Tape

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


def _result(tape: Tape, cells: Sequence[Cell]) -> tuple[list[Leaves], Tensor, float, int]:
    values: dict[int, Tensor] = {}
    arguments: Leaves = cells[tape.start].leaves
    leaves: list[Leaves] = []
    for number in range(tape.start, tape.end):
        cell, group, answer = cells[number], [], []
        slopes = cell.slopes or [None] * len(cell.outputs)
        for output, slope in zip(cell.outputs, slopes, strict=True):
            leaf = None
            if isinstance(output, Tensor) and output.is_floating_point():
                leaf = output.detach().clone().requires_grad_(True)
                at = None if slope is None else state_of(output, arguments)
                answer.append(leaf * 1 if at is None else leaf + (slope * (arguments[at] - arguments[at].detach())))
            else:
                answer.append(output)
            group.append(leaf)
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
