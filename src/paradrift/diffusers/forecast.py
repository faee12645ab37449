"""What will come: the tape of the program's arithmetic ahead of the settled calls, and the solve on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch.utils import _pytree as pytree

from paradrift.diffusers.adjoint import estimate, response
from paradrift.diffusers.calls import Leaves
from paradrift.diffusers.evaluation import Evaluator
from paradrift.diffusers.ledger import Ledger
from paradrift.diffusers.lending import RECENT
from paradrift.diffusers.rehearsal import Rehearsal
from paradrift.diffusers.tape import Tape


@dataclass(kw_only=True)
class Forecast:
    """Records tapes as the program speculates, and settles the calls on them.

    Args:
        ledger: The program's calls.
        tol: Tolerance of the final result, relative.
        estimable: Whether the error of the result can be estimated.
        observe: Called with the number of settled calls.
        settled: Calls that are settled on tape, whether or not the program has seen that yet.
        given_up: Why there are no tapes any more; None: there are.
    """

    ledger: Ledger
    tol: float
    estimable: Callable[[], bool]
    observe: Callable[[int], None]
    settled: int = 0
    given_up: str | None = None
    _tape: Tape | None = None
    _whole: Tape | None = None  # one that goes to the end of the program, and before which nothing strayed
    _error: float | None = None
    _modes: ExitStack = field(default_factory=ExitStack)

    @property
    def taping(self) -> bool:
        """Whether a tape is being recorded, and can take more."""
        return self._tape is not None and self._tape.broken is None and not self._tape.full

    def ready(self, number: int) -> bool:
        """Whether there is a whole tape that begins with a call: an earlier execution came to its end.

        Args:
            number: Number of the call.

        Returns:
            Whether it can be solved now.
        """
        return self._tape is not None and self._tape.complete and self._tape.start == number

    def begin(self, number: int) -> None:
        """The first speculative call has come.

        Args:
            number: Its number.
        """
        if self.given_up is None:
            self._tape = Tape(number)
            self._modes.enter_context(self._tape)

    def pause(self) -> None:
        """A call has come: what is done to its arguments from now on is not the program's."""
        if self._tape is not None:
            self._tape.pause()

    def called(self, number: int, raw: Leaves) -> None:
        """Another speculative call has come.

        Args:
            number: Its number.
            raw: Its flattened arguments as the program gave them.
        """
        if self._tape is not None:
            self._tape.called(raw, self.ledger.cells[number].leaves)

    def answered(self, number: int, answer: Any, width: int) -> None:  # noqa: ANN401
        """A speculative call was answered.

        Args:
            number: Its number.
            answer: The answer as the program got it.
            width: Calls from the first unsettled one whose arguments are needed; the tape tells those of the others.
        """
        if self._tape is not None:
            self._tape.answered(pytree.tree_leaves(answer))
            if number - self.ledger.front > RECENT + width:
                self.ledger.cells[number - RECENT].leaves = []

    def finished(self, value: Any) -> None:  # noqa: ANN401
        """The program has come to what follows its last call.

        Args:
            value: What it hands to a decoder, or returns.
        """
        if self._tape is not None:
            self._tape.finished(pytree.tree_leaves(value))

    def stop(self) -> None:
        """The program is left, or its calls are about to be evaluated: nothing more is recorded."""
        self._modes.close()

    def give_up(self, reason: str) -> None:
        """Make no more tapes.

        Args:
            reason: Why, as the rest of a sentence.
        """
        self.given_up, self._tape, self._whole, self._error, self.settled = reason, None, None, None, 0

    def solve(self, evaluator: Evaluator, width: Callable[[int], int], allowed: float) -> bool:
        """Settle the calls on the tape.

        Args:
            evaluator: Evaluates them.
            width: Window to work on, from the first unsettled call.
            allowed: How far the arguments of a settled call may be from where it was evaluated.

        Returns:
            Whether there was a tape.
        """
        self.stop()
        tape, self._tape = self._tape, None
        if tape is None:
            return False
        if tape.broken is not None or tape.stale():
            self.give_up(tape.broken or "the program changes a constant of its tape in place")
            return False
        tape.wind_up()
        cells = self.ledger.cells
        rehearsal = Rehearsal(
            tape=tape,
            cells=cells[: tape.end],
            evaluator=evaluator,
            width=width,
            tol=self.tol,
            allowed=allowed,
            estimable=self.estimable(),
            observe=self.observe,
        )
        self.settled = rehearsal.run()
        if self._whole is None and tape.complete and not any(cell.strayed for cell in cells[: tape.start]):
            self._whole = tape
        self._error = rehearsal.error if self._whole is tape and self.settled == tape.end else None
        return True

    def bound(self, evaluator: Evaluator) -> float | None:
        """Estimated error of the program's result.

        Args:
            evaluator: Knows the rounding of batches.

        Returns:
            Relative rms; None if it cannot be told.
        """
        if not self.ledger.complete or self._error is not None:
            return self._error
        cells, tape = self.ledger.cells, self._whole
        found = None if tape is None or not self.estimable() else response(tape, cells)
        if tape is None or found is None:
            return None if any(cell.strayed for cell in cells) else 0.0
        told = estimate(found, tape, cells, evaluator.noise)
        return None if told is None else told.total
