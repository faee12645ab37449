"""Watching a solve: the user's callback and the progress line."""

from __future__ import annotations

from collections.abc import Callable

from paradrift.solution import Round


class Watch:
    """Shows each round to the user's callback and to the progress line.

    Args:
        samples: Number of samples S.
        nodes: Nodes M of the table.
        progress: Whether to draw the line: settled nodes of all nodes, rounds, estimated time.
        callback: Called with each round; None for no one.
    """

    def __init__(self, samples: int, nodes: int, progress: bool, callback: Callable[[Round], None] | None) -> None:
        self._callback = callback
        self._bar = None
        if progress:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=samples * nodes, unit="node", desc="settled")

    def see(self, seen: Round) -> None:
        """One round.

        Args:
            seen: What the solver reports.
        """
        if self._bar is not None:
            self._bar.set_postfix(rounds=seen.index, refresh=False)
            self._bar.update(int(seen.settled.sum()) - self._bar.n)
        if self._callback is not None:
            self._callback(seen)

    def close(self) -> None:
        """The end, also after a failure."""
        if self._bar is not None:
            self._bar.close()
