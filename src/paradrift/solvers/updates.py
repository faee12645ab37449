r"""Updates: from a residual, and from what was learned before, to the next iterate.

With an iterate Y and its residual R = F(Y) - Y, Anderson's method looks back at the differences of the last iterates,
dX of the states and dR of the residuals, and asks which combination of them would have made the residual small:

.. math:: \gamma = \arg\min \|R - \textstyle\sum_p \gamma_p\, dR^p\|^2 + \lambda |\gamma|^2 , \qquad
          Y \leftarrow Y + R - \textstyle\sum_p \gamma_p (dX^p + dR^p) .

dX + dR is the difference of two right-hand sides F, in which the noise of a row cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.summing import over_rows


@dataclass(frozen=True, kw_only=True)
class Past:
    """What an update may look at: consecutive rows, zero wherever a row is outside its sample's window.

    Args:
        residual: R of the iterate, shape (W, S, D).
        before: R of the iterate before, zero where it is not known, shape (W, S, D).
        states: Differences dX of the last iterates, the newest first, each of shape (W, S, D).
        residuals: Differences dR, as many.
    """

    residual: Tensor
    before: Tensor
    states: tuple[Tensor, ...]
    residuals: tuple[Tensor, ...]


class Update(Protocol):
    """How an iterate is moved."""

    @property
    def memory(self) -> int:
        """Iterates that are combined, the newest included: 1 keeps nothing."""
        ...

    @property
    def causal(self) -> bool:
        """Whether a row moves by what rows up to it have done only, so that a certificate may be computed."""
        ...

    def step(self, past: Past) -> Tensor:
        """The change of every row.

        Args:
            past: The residual and what was before it.

        Returns:
            Shape (W, S, D).
        """
        ...


@dataclass(frozen=True)
class Plain:
    """The fixed-point iteration itself: Y becomes F(Y)."""

    @property
    def memory(self) -> int:
        """One: nothing is kept."""
        return 1

    @property
    def causal(self) -> bool:
        """True: rows use earlier rows only."""
        return True

    def step(self, past: Past) -> Tensor:
        """The residual.

        Args:
            past: The residual and what was before it.

        Returns:
            Shape (W, S, D).
        """
        return past.residual


@dataclass(frozen=True)
class Relaxed:
    """Part of the way: Y becomes (1 - w) Y + w F(Y).

    Args:
        weight: w, above 0 and below 2; 1 is :class:`Plain`.

    Raises:
        SpecError: if the weight is outside.
    """

    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < 2:
            raise SpecError(f"expected a weight above 0 and below 2, found {self.weight}: 1 is the plain iteration")

    @property
    def memory(self) -> int:
        """One: nothing is kept."""
        return 1

    @property
    def causal(self) -> bool:
        """True: rows use earlier rows only."""
        return True

    def step(self, past: Past) -> Tensor:
        """The residual times w.

        Args:
            past: The residual and what was before it.

        Returns:
            Shape (W, S, D).
        """
        return self.weight * past.residual


@dataclass(frozen=True)
class Anderson:
    """Anderson's method for the whole window at once: one combination for all of its rows.

    Early rows then move by what later rows have done, so no certificate can be computed.

    Args:
        memory: Iterates that are combined, the newest included.
        ridge: lambda, in the units of squared states summed over rows and elements.

    Raises:
        SpecError: if the memory is below 1 or the ridge is negative.

    Source: Anderson 1965; for diffusion chains Pokle, Geng and Kolter 2022, arXiv 2210.12867.
    """

    memory: int = 5
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        _check(self.memory, self.ridge)

    @property
    def causal(self) -> bool:
        """False: the combination looks at all rows."""
        return False

    def step(self, past: Past) -> Tensor:
        """The residual less the one combination of differences.

        Args:
            past: The residual and what was before it.

        Returns:
            Shape (W, S, D).
        """
        return _combined(past, self.ridge, lambda sums: over_rows(sums).expand_as(sums))


@dataclass(frozen=True)
class TriangularAnderson:
    """Anderson's method for every row by itself: the combination of row m looks at the rows up to m.

    Args:
        memory: Iterates that are combined, the newest included.
        ridge: lambda, in the units of squared states summed over rows and elements.

    Raises:
        SpecError: if the memory is below 1 or the ridge is negative.

    Source: Tang et al. 2024, arXiv 2402.09970 (triangular Anderson acceleration).
    """

    memory: int = 2
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        _check(self.memory, self.ridge)

    @property
    def causal(self) -> bool:
        """True: sums end at the row itself."""
        return True

    def step(self, past: Past) -> Tensor:
        """The residual less each row's own combination of differences.

        Args:
            past: The residual and what was before it.

        Returns:
            Shape (W, S, D).
        """
        return _combined(past, self.ridge, lambda sums: sums.cumsum(0))


def _check(memory: int, ridge: float) -> None:
    if memory < 1:
        raise SpecError(f"expected a memory of at least 1 iterate, found {memory}")
    if not ridge >= 0:
        raise SpecError(f"expected a ridge of at least 0, found {ridge}")


def _combined(past: Past, ridge: float, total: Callable[[Tensor], Tensor]) -> Tensor:
    """R less the best combination; plain where it is not finite, and after a step that made the residual grow.

    Args:
        past: The residual and what was before it.
        ridge: lambda.
        total: Sums over the rows that count for each row, of values of shape (W, S, ...).

    Returns:
        Shape (W, S, D).
    """
    count = len(past.states)
    if not count:
        return past.residual
    now = past.residual.double()
    differences = [difference.double() for difference in past.residuals]
    gram = torch.stack([torch.stack([(p * q).sum(-1) for q in differences], -1) for p in differences], -1)
    target = torch.stack([(p * now).sum(-1) for p in differences], -1)
    eye = torch.eye(count, dtype=now.dtype, device=now.device)
    # solve_ex: a singular system is answered with what is not finite, not with an exception
    gamma = torch.linalg.solve_ex(total(gram) + ridge * eye, total(target)[..., None])[0][..., 0]
    known = (past.before != 0).any(-1, keepdim=True)
    grown = total((now * known).square().sum(-1)) > total(past.before.double().square().sum(-1))
    gamma = torch.where((torch.isfinite(gamma).all(-1) & ~grown)[..., None], gamma, 0.0).to(past.residual)
    step = past.residual
    for p, (dx, dr) in enumerate(zip(past.states, past.residuals, strict=True)):
        step = step - gamma[..., p, None] * (dx + dr)
    return step
