"""Which nodes of a chain the model is asked at: all of them, or as many as the tolerance needs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

FILLED = 64  # nodes of a window that are filled, as rounds hardly grow with them


class _Rule(NamedTuple):
    """How many nodes a kind of thinned chain needs, measured on the problem set.

    Args:
        needed: Nodes for a tolerance of 0.1.
        rate: How fast their number grows: with this power of 0.1 / tol.
        least: Fewer say too little about themselves.
        most: Share of the chain beyond which thinning saves less than a failure costs.
        spared: Share of the chain up to which windows are filled.
        order: The error falls with this power of the number of nodes.
    """

    needed: int
    rate: float
    least: int
    most: float
    spared: float
    order: float


INTERPOLATED = _Rule(needed=20, rate=0.27, least=12, most=0.7, spared=0.55, order=3.0)
AVERAGED = _Rule(needed=85, rate=0.6, least=24, most=0.6, spared=0.25, order=1.25)


class Nodes(Protocol):
    """Which nodes of a chain the model is asked at."""

    @property
    def share(self) -> float:
        """Share of the tolerance that skipped nodes may take."""
        ...

    def serial(self) -> Nodes:
        """The same, where windows of one node may be thinned, too.

        Returns:
            The choice.
        """
        ...

    def first(self, nodes: int, tol: float, width: int, noisy: bool) -> int:
        """How many nodes to begin with.

        Args:
            nodes: Nodes M of the chain.
            tol: Tolerance.
            width: Widest window, in nodes.
            noisy: Whether the chain draws noise.

        Returns:
            Their number; M for all.
        """
        ...

    def next(self, count: int, nodes: int, excess: Tensor, noisy: bool) -> Tensor:
        """How many nodes to go on with where so many were not enough.

        Args:
            count: How many were asked.
            nodes: Nodes M of the chain.
            excess: The error that skipped nodes make, as a multiple of what they may, shape (S,); infinite where it is
                not known.
            noisy: Whether the chain draws noise.

        Returns:
            Their numbers, shape (S,), int64; M for all.
        """
        ...


@dataclass(frozen=True)
class Every:
    """All nodes of the chain."""

    share = 0.0

    def serial(self) -> Every:
        """The same.

        Returns:
            Itself.
        """
        return self

    def first(self, nodes: int, tol: float, width: int, noisy: bool) -> int:
        """All.

        Args:
            nodes: Nodes M of the chain.
            tol: Tolerance.
            width: Widest window.
            noisy: Whether the chain draws noise.

        Returns:
            M.
        """
        return nodes

    def next(self, count: int, nodes: int, excess: Tensor, noisy: bool) -> Tensor:
        """All.

        Args:
            count: How many were asked.
            nodes: Nodes M of the chain.
            excess: How much too large the error is, shape (S,).
            noisy: Whether the chain draws noise.

        Returns:
            M, shape (S,).
        """
        return torch.full_like(excess, nodes, dtype=torch.int64)


@dataclass(frozen=True)
class Thinned:
    r"""As many as a chain needs for its tolerance, and more of them where those do not do.

    Without noise, outputs between two nodes are interpolated by cubics: see :mod:`paradrift.thinning`. The solve begins
    with about :math:`20\,(0.1 / \mathrm{tol})^{0.27}` nodes if those are at most seven tenths of the chain, and with as
    many as fill a window of up to 64 and half of the chain. With noise, gaps are averaged: see
    :mod:`paradrift.averaging`; about :math:`85\,(0.1 / \mathrm{tol})^{0.6}` nodes if those are at most 60 % of the
    chain, and a window of up to 64 and a fourth of the chain is filled. A sample whose skipped nodes may make an error
    above ``share`` tol goes on with two, four, eight times as many, as the error falls, and at last with all. At
    tolerance 0, for samplers of several steps or stages, and in windows of one node all nodes are asked.

    Args:
        share: Share of the tolerance (without noise of 0.25, if that is less) that skipped nodes may take, by estimate.
            The error was 0.04 to 1.3 times that in the median and 5 times at the worst, on smooth networks and rough
            ones; with noise 0.05 to 3 times in the median, and 17 times for one of 12 digits.
        alone: Whether windows of one node are thinned, too. Without, they are the sequential sampler itself; with, they
            are a sequential sampler of fewer steps, which asks for the fewest rows of all.
    """

    share: float = 0.35
    alone: bool = False

    def serial(self) -> Thinned:
        """The same, where windows of one node are thinned, too.

        Returns:
            The choice.
        """
        return dataclasses.replace(self, alone=True)

    def first(self, nodes: int, tol: float, width: int, noisy: bool) -> int:
        """How many nodes the tolerance needs.

        Args:
            nodes: Nodes M of the chain.
            tol: Tolerance.
            width: Widest window, in nodes.
            noisy: Whether the chain draws noise.

        Returns:
            Their number; M where that is too large a part of the chain.
        """
        if tol <= 0 or (width == 1 and not self.alone):
            return nodes
        rule = AVERAGED if noisy else INTERPOLATED
        needed = max(rule.least, round(rule.needed * (0.1 / tol) ** rule.rate))
        return max(needed, min(width, FILLED, int(rule.spared * nodes))) if needed <= rule.most * nodes else nodes

    def next(self, count: int, nodes: int, excess: Tensor, noisy: bool) -> Tensor:
        """The least power of two times as many that a cubic's error calls for.

        Args:
            count: How many were asked.
            nodes: Nodes M of the chain.
            excess: The error that skipped nodes make, as a multiple of what they may, shape (S,).
            noisy: Whether the chain draws noise.

        Returns:
            Their numbers, shape (S,); M where that is too large a part of the chain.
        """
        rule = AVERAGED if noisy else INTERPOLATED
        wanted = count * 2 ** (excess.clamp(min=1).log2() / rule.order).ceil().clamp(min=1)
        return torch.where(wanted <= rule.most * nodes, wanted, nodes).long()
