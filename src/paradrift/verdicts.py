r"""Verdicts: which drafted rows stand, now that the model has been evaluated at them.

A stop of :mod:`paradrift.stopping` predicts what a change would do to the answer and settles rows that were just
computed. A verdict looks at the rows as they were *before* the sweep: the round has evaluated the model at them, so it
is known by how much their drift is off from the sequential sampler's. With the outputs :math:`\tilde f_j` that drafted
row m, the outputs :math:`f(z_j)` at the drafts and the row's own noise weight,

.. math:: \delta_m = \frac{1}{c_{mm}} \sum_j b_{mj} (\tilde f_j - f(z_j)) ,

in standard deviations: the sequential sampler would have drawn this very row from the noise :math:`\xi_m + \delta_m`.
What stands is kept as it is; the step after it is computed from exact outputs, so it is exact and settled too. At least
one step settles in every round, and nothing is decided by looking at later noises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from paradrift.errors import SpecError
from paradrift.noise.philox import uniforms


@dataclass(frozen=True, kw_only=True)
class Drafts:
    r"""The steps of each sample's window, from its front on: the rows between a node and the next belong to one step.

    Args:
        nats: Half the squared shift :math:`|\delta|^2 / 2` of each step, shape (W, S), float64; not finite where it
            is not known, or where a row without noise is off.
        product: :math:`\langle\delta, \xi\rangle` with the step's noises, shape (W, S), float64.
        ends: Whether a position is the last row of its step, shape (W, S), bool; the other positions hold zeros.
        row: Absolute row of each position, shape (W, S), int64.
        done: Nodes whose steps are settled by the end of each position's step, over all M, shape (W, S).
        spent: Nats of the steps settled so far, shape (S,), float64.
        sample: Index of each sample, shape (S,), int64.
    """

    nats: Tensor
    product: Tensor
    ends: Tensor
    row: Tensor
    done: Tensor
    spent: Tensor
    sample: Tensor


@runtime_checkable
class Verdict(Protocol):
    """Which drafts stand."""

    @property
    def refine(self) -> bool:
        """Whether drafts that fall are refined by what was learned at them, or made anew from the settled rows."""
        ...

    @property
    def reflects(self) -> bool:
        """Whether the first draft that falls is replaced by its reflection, which makes the law exact."""
        ...

    def stand(self, drafts: Drafts) -> Tensor:
        """Which steps pass, each by itself; the longest prefix of them will stand.

        Args:
            drafts: The steps.

        Returns:
            Shape (W, S), bool; read at the ends of steps.
        """
        ...


@dataclass(frozen=True)
class KL:
    r"""Spend a budget of nats: KL(parallel || sequential) of the paths stays below it, sample by sample.

    By Girsanov's theorem the divergence of the paths is the expectation of :math:`\sum_m |\delta_m|^2 / 2`. A step
    passes while the sum up to it is at most the share of the budget that its nodes have earned, :math:`n / M` of it
    after n of M nodes; what one step leaves is there for the next. The sum of every single sample stays within the
    budget, so its expectation does.

    Args:
        nats: The budget.

    Raises:
        SpecError: if the budget is not positive.

    Source: the identity is the generalised Girsanov theorem that Chen, Ren, Ying, Rotskoff 2024, arXiv 2405.15986, use
    in their proof; spending it as a stop is ours.
    """

    nats: float
    refine = True
    reflects = False

    def __post_init__(self) -> None:
        if not (self.nats > 0 and math.isfinite(self.nats)):
            raise SpecError(f"expected a positive budget in nats, found {self.nats}: use tol=0 for the same answer")

    def stand(self, drafts: Drafts) -> Tensor:
        """Steps within budget.

        Args:
            drafts: The steps.

        Returns:
            Shape (W, S), bool.
        """
        return drafts.spent + drafts.nats.cumsum(0) <= self.nats * drafts.done


@dataclass(frozen=True)
class Exact:
    r"""Exact in law: drafts are verified by a reflection maximal coupling.

    A draft was drawn from :math:`N(\tilde\mu, c^2)` with noise :math:`\xi`; the sequential sampler draws from
    :math:`N(\mu, c^2)`. With :math:`\delta = (\tilde\mu - \mu)/c` and U uniform, the draft passes if

    .. math:: \log U \le \min\big(0, \tfrac12 |\xi|^2 - \tfrac12 |\xi + \delta|^2\big) ,

    and otherwise :math:`\mu + c\,(\xi - 2 e \langle e, \xi\rangle)`, :math:`e = \delta / |\delta|`, takes its place and
    the rows after it are drafted again. Whatever the drafts, each row then has the sequential sampler's own conditional
    law: the answers are the sequential sampler's in law, for any solver and without tolerance. They are not the answers
    that the same noises would have given.

    Args:
        seed: Seed of U, or one for each sample; a stream of its own beside the noise of the same seed.
        refine: Whether drafts that fall are refined by the outputs found at them (Picard or secant drafts); otherwise
            all is drafted anew with the outputs frozen at the last settled node: autospeculation.

    Sources: Bou-Rabee, Eberle, Zimmer 2020, arXiv 1805.00452, for the coupling; De Bortoli et al. 2025, arXiv
    2501.05370, and Hu et al. 2025, arXiv 2505.03983, for drafts with a frozen drift. Drafts by Picard sweeps are ours.
    """

    seed: int | Sequence[int] = 0
    refine: bool = True
    reflects = True

    def stand(self, drafts: Drafts) -> Tensor:
        """Steps that pass.

        Args:
            drafts: The steps.

        Returns:
            Shape (W, S), bool.
        """
        draw = uniforms(self.seed, drafts.sample, drafts.row.T).T.to(drafts.nats)
        return draw.log() <= -(drafts.product + drafts.nats)
