"""One chain walked row by row: a table as the sequential sampler has it, for all samples at once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

from torch import Tensor

from paradrift.slopes import to_data
from paradrift.tableau import Tableau


class Ask(NamedTuple):
    """A row that wants the model's output, for every sample.

    Args:
        node: Row of the sampler's table that it stands for.
        t: Model time.
        scale: The model sees ``scale * state``.
        p: Coefficient of the state in ``f = p x + q D``.
        q: Coefficient of the data prediction.
        state: Shape (S, D).
    """

    node: int
    t: float
    scale: float
    p: float
    q: float
    state: Tensor


Walk = Generator[Ask, Tensor, Tensor]


class Lane:
    """A table made ready for a walk: weights of each row in the order in which a window adds them up.

    Args:
        table: The table.
        nodes: Row of the sampler's table that each row stands for.
        noise: The noise of a column for all samples, shape (S, D).
    """

    def __init__(self, table: Tableau, nodes: list[int], noise: Callable[[int], Tensor]) -> None:
        self.table, self.nodes, self.noise = table, nodes, noise
        self.p, self.q = to_data(table)
        self.weights = {name: by_row(table, name) for name in "cab"}
        self.reach = table.reach

    def ask(self, row: int, state: Tensor) -> Ask:
        """The question that a node asks.

        Args:
            row: The node.
            state: Its state, shape (S, D).

        Returns:
            The question.
        """
        table = self.table
        return Ask(
            node=self.nodes[row],
            t=float(table.t[row]),
            scale=float(table.scale[row]),
            p=float(self.p[row]),
            q=float(self.q[row]),
            state=state,
        )

    def walk(self, start: Tensor, see: Callable[[int, Tensor], None] | None = None) -> Walk:  # noqa: DOC403
        """Walk from the first row to the last.

        Args:
            start: States of row 0, shape (S, D).
            see: Called with each row between the two and its states; or None.

        Yields:
            A question at each node.

        Returns:
            States of the last row, shape (S, D).
        """
        rows: dict[int, Tensor] = {0: start}
        outputs: dict[int, Tensor] = {}
        for row in range(self.table.rows):
            if row:
                state = start.new_zeros(start.shape)
                for column, weight in self.weights["c"][row]:
                    state += weight * self.noise(column)
                for column, weight in self.weights["a"][row]:
                    state += weight * rows[column]
                for column, weight in self.weights["b"][row]:
                    state += weight * outputs[column]
                rows[row] = state
                if see is not None and row < self.table.rows - 1:
                    see(row, state)
            if self.table.evaluated[row]:
                outputs[row] = yield self.ask(row, rows[row])
            rows.pop(row - self.reach, None)
            outputs.pop(row - self.reach, None)
        return rows[self.table.rows - 1]


def by_row(table: Tableau, name: str) -> list[list[tuple[int, float]]]:
    """Columns and weights of a matrix that are not zero, row by row, the nearest column first."""
    rows, columns = table.entries["abc".index(name)]
    weights: list[list[tuple[int, float]]] = [[] for _ in range(table.rows)]
    for row, column in zip(rows[::-1].tolist(), columns[::-1].tolist(), strict=True):
        weights[row].append((column, float(getattr(table, name)[row, column])))
    return weights
