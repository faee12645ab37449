"""What the theorems hide, and the four terms that they bound."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

from paradrift.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Factors that the theorems leave open, all without units. With all of them 1 a plan shows orders, not promises.

    Args:
        truncation: Factor of the truncation term. 1 is a proof for the SDE, see :func:`paradrift.plan`.
        discretisation: Factor of the discretisation term.
        score: Factor of the score term.
        picard: Factor of the Picard term at no sweep at all.
        contraction: Rate c of the Picard term, exp(-c K).
        block: Length h of a block where the score's Lipschitz constant is at most 1.
        correction: Time of underdamped Langevin dynamics after each block, where that constant is at most 1.

    Raises:
        SpecError: if one of them is not a positive number.
    """

    truncation: float = 1.0
    discretisation: float = 1.0
    score: float = 1.0
    picard: float = 1.0
    contraction: float = 1.0
    block: float = 1.0
    correction: float = 1.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            positive(f"the constant {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The four error terms: in nats of KL for the SDE, in squared total variation for the ODE.

    Args:
        truncation: The forward process is not yet Gaussian at the horizon.
        discretisation: The score is frozen over a step.
        score: The network is not the score.
        picard: The sweeps of a block stop before they have converged.
    """

    truncation: float
    discretisation: float
    score: float
    picard: float

    @property
    def total(self) -> float:
        """Their sum: the bound on the error of the law."""
        return sum(astuple(self))


def positive(name: str, value: float) -> None:
    """Refuse what is not a positive, finite number."""
    if not (value > 0 and math.isfinite(value)):
        raise SpecError(f"expected {name} to be a positive number, found {value}")
