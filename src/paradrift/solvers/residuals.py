"""When the rows of a fixed-point iteration are settled: by the defects of their own equations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.solvers.lowered import posterior
from paradrift.tableau import Tableau


@dataclass(frozen=True)
class Residual:
    r"""ParaTAA's rule: a row is settled when its own equation is nearly solved.

    Row m passes when the rms of its defect of order 1 is at most ``tol``, or at most ``share`` times the standard
    deviation g of DDPM's noise on the step to it. Rows are settled from the front on, without gaps. A defect is not an
    error: what many small ones do to the answer is in ``solution.error``.

    Args:
        tol: Largest defect, in the units of the states.
        share: Largest defect in units of g; 0 to look at ``tol`` alone.

    Raises:
        SpecError: if one of them is negative or not a number.

    Source: Tang et al. 2024, arXiv 2402.09970, Algorithm 1.
    """

    tol: float = 1e-3
    share: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.tol >= 0 and self.share >= 0):
            raise SpecError(f"expected tolerances of at least 0, found {self.tol} and {self.share}")

    def thresholds(self, table: Tableau) -> Array:
        """The largest defect of each row.

        Args:
            table: The sampler's table.

        Returns:
            Shape (R,).
        """
        noise = np.append(0.0, posterior(table)[:-1])  # of the step that leads to each row
        return np.maximum(self.tol, self.share * noise)
