"""Where the rows of a chain lie when each of its blocks is a window of its own, all windows side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Blocks as columns; position ``p`` of block n holds the absolute row ``left[n] - (history - 1) + p``.

    The left end of a block is the last row of the block before it and the first node of its own: as a state it belongs
    there, as a node here.

    Args:
        left: Row of each block's left end, N numbers; 0 for the first block.
        right: Last row of each block, N numbers.
        edges: First node of each block, and M.
        history: Positions up to and including the left end.
        width: Positions after it: rows of the longest block.
        state: Position and block of each row's state, shape (2, R), int64.
        node: Position and block of each node, shape (2, R), int64; of other rows without meaning.
        uses: Nodes that the rows of each block use, shape (N, R), bool.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    edges: tuple[int, ...]
    history: int
    width: int
    state: Tensor
    node: Tensor
    uses: Tensor

    @staticmethod
    def of(table: Tableau, edges: tuple[int, ...], device: torch.device) -> Layout:
        """Lay a table out.

        Args:
            table: The sampler's table.
            edges: First node of each block, and M.
            device: Device of the index tensors.

        Returns:
            The layout.
        """
        of_node = np.append(np.flatnonzero(table.evaluated), table.rows - 1)
        right = of_node[list(edges[1:])]
        left = np.concatenate([[0], right[:-1]])
        # one row more than the table reaches back: a node without an output continues the one before it
        history, rows = table.reach + 1, np.arange(table.rows)
        as_state = np.searchsorted(right, rows)
        as_node = np.minimum(np.searchsorted(right, rows, side="right"), len(right) - 1)
        uses = np.zeros((len(right), table.rows), bool)
        (of_a, a), (of_b, b), _ = table.entries
        uses[as_state[of_b], b] = True
        # States before a block are used at their references too: the same arithmetic as when the block has settled.
        before = a <= left[as_state[of_a]]
        uses[as_state[of_a[before]], a[before]] = True

        def placed(block: np.ndarray) -> Tensor:
            return torch.as_tensor(np.stack([rows - left[block] + history - 1, block])).to(device)

        return Layout(
            left=tuple(left.tolist()),
            right=tuple(right.tolist()),
            edges=edges,
            history=history,
            width=int((right - left).max()),
            state=placed(as_state),
            node=placed(as_node),
            uses=torch.as_tensor(uses & table.evaluated).to(device),
        )

    @property
    def blocks(self) -> int:
        """Number of blocks N."""
        return len(self.left)

    def before(self, block: int) -> Tensor:
        """Rows up to and including a block's left end, as far back as the table reaches; clamped to the table.

        Args:
            block: The block.

        Returns:
            Shape (history,), int64.
        """
        first = self.left[block] - self.history + 1
        return torch.arange(first, first + self.history, device=self.state.device).clamp(min=0)

    def inside(self, block: int) -> slice:
        """Positions of a block's own rows.

        Args:
            block: The block.

        Returns:
            A slice of positions.
        """
        return slice(self.history, self.history + self.right[block] - self.left[block])
