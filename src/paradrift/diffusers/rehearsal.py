r"""The solve on a tape: rounds of evaluations until every call on it is settled, without running the program.

A call settles, in order, when its arguments are within :math:`\mathrm{tol}/\sqrt{N}` of where it was evaluated. When
all have, the adjoint of the tape (:mod:`paradrift.diffusers.adjoint`) tells what the leftovers do to the final result.
If that is more than the tolerance, every call gets a budget of its own in the result, and the solve goes on from the
first call that is over it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch.utils import _pytree as pytree

from paradrift.diffusers.adjoint import Estimate, Response, estimate, response
from paradrift.diffusers.calls import Cell
from paradrift.diffusers.evaluation import Evaluator
from paradrift.diffusers.lending import borrow, recognised
from paradrift.diffusers.operations import Values
from paradrift.diffusers.tape import Tape

_FEW = 16  # calls for which it is not worth while to leave the tape
_PASSES = 4  # times that budgets are made stricter
_SHARE = 0.5  # of the tolerance: what the estimate may say; each further pass aims at half of it


@dataclass(kw_only=True)
class Rehearsal:
    """Settles the calls of a tape.

    Args:
        tape: The tape; ``tape.start`` is the first unsettled call, and its arguments are exact.
        cells: All calls of the program so far.
        evaluator: Evaluates them.
        width: Window to work on, from the first unsettled call.
        tol: Tolerance of the final result, relative.
        allowed: How far the arguments of a settled call may be from where it was evaluated.
        estimable: Whether the error of the result can be estimated.
        observe: Called with the number of settled calls.
        error: Estimated error of the result, once all calls are settled; None where it cannot be told.
    """

    tape: Tape
    cells: Sequence[Cell]
    evaluator: Evaluator
    width: Callable[[int], int]
    tol: float
    allowed: float
    estimable: bool
    observe: Callable[[int], None]
    error: float | None = None
    _front: int = 0
    _values: Values = field(default_factory=dict)
    _response: Response | None = None
    _budget: float = math.inf

    def run(self) -> int:
        """Solve as far as the tape goes.

        Returns:
            Number of the first call that is not settled.
        """
        tape = self.tape
        self._front = tape.start
        with torch.no_grad():
            for attempt in range(_PASSES + 1):
                self._settle_all()
                if self._front < tape.end or not tape.complete or self.tol == 0 or not self.estimable:
                    break
                found = self._estimated()
                if found is None or found.settling <= _SHARE * self.tol or attempt == _PASSES:
                    break
                self._budget = _SHARE * self.tol * 0.5**attempt / len(self.cells)
                if not self._reopen(found.effects):
                    break
        return self._front

    def _settle_all(self) -> None:
        tape, begun = self.tape, False
        while True:
            width = self.width(self._front)
            self._sweep(width)
            self.observe(self._front)
            ahead = tape.end - self._front
            alone = width == 1 and ahead > _FEW  # the program can do that as well
            if ahead == 0 or (begun and (alone or (ahead < width and not tape.complete))):
                return  # all is settled; or the program goes on by itself; or a longer tape is needed
            window = range(self._front, min(self._front + width, tape.end))
            self.evaluator.round(self.cells, [number for number in window if not self._fits(number)], tape.source)
            begun = True

    def _sweep(self, width: int) -> None:
        """Play the window with what is known now; what is settled at its beginning is played for good."""
        begin, front = time.perf_counter(), self._front
        values, settled, number = self._values, True, front
        while number < min(self._front + width, self.tape.end):
            cell = self.cells[number]
            if cell.borrowed:
                borrow(self.cells, number)
            if settled and not self._fits(number):
                settled, values = False, dict(values)
            answer = cell.settle() if settled else cell.answer(cell.leaves)
            arguments = self.tape.play(values, number, pytree.tree_leaves(answer))
            number += 1
            if settled:
                self._front = number
            if number < self.tape.end:
                self.cells[number].leaves = recognised(arguments, self.cells[number].known)
        self.evaluator.pace.played(number - front, time.perf_counter() - begin)

    def _fits(self, number: int) -> bool:
        """Whether a call may be settled where its arguments are now."""
        cell = self.cells[number]
        moved = cell.moved()
        if not moved <= self.allowed:
            return False
        if self._response is None or (moved == 0 and not cell.strayed):
            return True
        rows = self._response.rows[number - self.tape.start]
        return Response(rows=[rows], samples=self._response.samples).felt([cell.debts(moved)])[0] <= self._budget

    def _estimated(self) -> Estimate | None:
        self._response = response(self.tape, self.cells)
        if self._response is None:
            return None
        found = estimate(self._response, self.tape, self.cells, self.evaluator.noise)
        self.error = None if found is None else found.total
        return found

    def _reopen(self, effects: Sequence[float]) -> bool:
        """Go back to the first call that is over its budget."""
        over = [number for number, effect in enumerate(effects, start=self.tape.start) if not effect <= self._budget]
        if not over:
            return False
        for number in over:
            self.cells[number].known = None
        self._front, self._values = over[0], {}
        for number in range(self.tape.start, over[0]):
            answer = self.cells[number].answer(self.cells[number].leaves)
            self.tape.play(self._values, number, pytree.tree_leaves(answer))
        return True
