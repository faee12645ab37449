"""A sweep solver is four choices and a budget."""

from __future__ import annotations

from dataclasses import dataclass

from paradrift.guesses import Guess
from paradrift.nodes import Every, Nodes
from paradrift.slopes import Slopes
from paradrift.stopping import Stop
from paradrift.verdicts import Verdict
from paradrift.windows import Window


@dataclass(frozen=True, kw_only=True)
class Solver:
    """The choices of one sweep solver.

    Args:
        window: Which nodes are worked on.
        slopes: How defects travel.
        guess: Where entering nodes start.
        stop: When rows are settled.
        verify: Most nodes, evenly spread over the chain, that are evaluated once more at their accepted states,
            to measure the defects that were left (and one more round at the end); the reported error is built on
            them. 0: on predictions made while settling.
        nodes: Which nodes of a chain the model is asked at; the others are interpolated, or averaged with noise.
        max_rounds: Budget of rounds; None for no limit (a chain never needs more rounds than it has nodes, per sweep
            that is asked for).
    """

    window: Window
    slopes: Slopes
    guess: Guess
    stop: Stop | Verdict
    verify: int = 64
    nodes: Nodes = Every()
    max_rounds: int | None = None

    def verified(self, nodes: int) -> int:
        """How many nodes of a chain are evaluated once more, if all of them move: one in a fixed number.

        Args:
            nodes: Nodes M.

        Returns:
            Their number, at most ``verify``.
        """
        return -(-nodes // stride(nodes, self.verify)) if self.verify else 0


def stride(nodes: int, verify: int) -> int:
    """One of how many nodes is evaluated once more.

    Args:
        nodes: Nodes M.
        verify: Most nodes that may be; 0 for none.

    Returns:
        The stride; M where none is.
    """
    return -(-nodes // verify) if verify else nodes
