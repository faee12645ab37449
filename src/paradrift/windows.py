"""Windows: which nodes are worked on next.

A window starts at a sample's front, the first node that is not settled, and ends before a *limit*, counted in nodes.
Every window gives the same answer within the tolerance; it decides memory, and how rounds trade against evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paradrift.errors import SpecError


class Window(Protocol):
    """Where a sample's window ends."""

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """First node outside the window of each sample.

        Args:
            front: First unsettled node of each sample, shape (S,), int64, below ``nodes``.
            nodes: Number of nodes M of the table.

        Returns:
            Shape (S,), int64, in ``front + 1 .. nodes``.
        """
        ...


@dataclass(frozen=True)
class Whole:
    """All remaining nodes: fewest rounds, memory for the whole chain."""

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """First node outside: the end of the chain.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Shape (S,), int64.
        """
        return torch.full_like(front, nodes)


@dataclass(frozen=True)
class Sliding:
    """The next ``width`` nodes, moving with the front; a width of 1 is the sequential sampler.

    Args:
        width: Nodes per sample, at least 1.

    Raises:
        SpecError: if the width is below 1.
    """

    width: int

    def __post_init__(self) -> None:
        if self.width < 1:
            raise SpecError(f"expected a window of at least 1 node, found {self.width}: use Sliding(1) for sequential")

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """First node outside: ``width`` nodes after the front.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Shape (S,), int64.
        """
        return (front + self.width).clamp(max=nodes)


@dataclass(frozen=True)
class Blocks:
    """The chain cut into ``count`` blocks of nearly equal size, one after the other, as PIADM does.

    Args:
        count: Number of blocks, at least 1; sizes differ by at most one node.
        after: Nodes of further blocks that follow each of them, as the corrector of PIADM-ODE does; the nodes of the
            chain that are not theirs are shared among the ``count``.

    Raises:
        SpecError: if a count is below 1.
    """

    count: int
    after: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SpecError(f"expected at least 1 block, found {self.count}")
        if min(self.after, default=1) < 1:
            raise SpecError(f"expected at least 1 node in each block that follows another, found {self.after}")

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """First node outside: the end of the block that holds the front.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Shape (S,), int64.

        Raises:
            SpecError: if the chain is too short.
        """
        own = nodes - self.count * sum(self.after)
        if self.after and own < self.count:
            raise SpecError(
                f"expected a chain of {self.count} blocks, each followed by {self.after} nodes, found {nodes} nodes"
            )
        count = min(self.count, own)
        sizes = [(own * (block + 1) // count - own * block // count, *self.after) for block in range(count)]
        edges = torch.tensor(sizes, device=front.device).flatten().cumsum(0)
        return edges[torch.searchsorted(edges, front, right=True)]


@dataclass(frozen=True)
class Cut:
    """The chain cut into blocks that end at given nodes, one block after the other.

    Args:
        ends: First node after each block, ascending; the last is the number of nodes.
    """

    ends: tuple[int, ...]

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """First node outside: the end of the block that holds the front.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Shape (S,), int64.
        """
        ends = torch.tensor([*self.ends, max(nodes, self.ends[-1])], device=front.device)
        return ends[torch.searchsorted(ends, front, right=True)].clamp(max=nodes)


@dataclass(frozen=True)
class Wavefront:
    """The chain cut into ``blocks`` of nearly equal size that are all in flight at once, each a sweep behind the last.

    Not a window of :func:`paradrift.solvers.sweep.sweep`, where defects travel through everything in flight: here they
    do not cross the borders between blocks within a round; see :mod:`paradrift.solvers.wavefront`.

    Args:
        blocks: Number of blocks, at least 1; at most as many as nodes are made.

    Raises:
        SpecError: if there is none.
    """

    blocks: int

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise SpecError(f"expected at least 1 block, found {self.blocks}")

    def edges(self, nodes: int) -> tuple[int, ...]:
        """Where blocks begin and end.

        Args:
            nodes: Number of nodes M.

        Returns:
            First node of each block, and M; strictly ascending.
        """
        count = min(self.blocks, nodes)
        return tuple(nodes * block // count for block in range(count + 1))

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """Never called by a solver: a block is no window that starts at a front, since blocks before it still move.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Nothing.

        Raises:
            SpecError: always.
        """
        raise SpecError(
            "expected a window that starts at a front, found Wavefront: solve with paradrift.sample, which knows it, "
            "or choose Blocks(n)"
        )


@dataclass(frozen=True)
class Auto:
    """Let the planner choose a width from the measured cost of batched calls; see :mod:`paradrift.planner`.

    Args:
        widest: Largest width considered.
    """

    widest: int = 128

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """Never called: the planner replaces this window by a concrete one before a solve.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Nothing.

        Raises:
            SpecError: always.
        """
        raise SpecError(
            "expected a concrete window, found Auto(): let paradrift.sample plan it, or choose Sliding(width)"
        )
