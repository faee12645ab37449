"""The divergence between two samplers' laws, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Nats:
    """A divergence, or a bound on one, estimated by the mean of what each sample contributes.

    Args:
        nats: Contribution of each sample, shape (S,), float64.
    """

    nats: Tensor

    @property
    def mean(self) -> float:
        """The divergence in nats: the mean over samples."""
        return float(self.nats.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, NaN for a single sample."""
        count = len(self.nats)
        return float(self.nats.std()) / math.sqrt(count) if count > 1 else math.nan

    @property
    def total_variation(self) -> float:
        """Bound on the total variation distance by Pinsker's inequality, from the estimated mean; at most 1."""
        return min(1.0, math.sqrt(self.mean / 2))

    @property
    def words(self) -> str:
        """The mean, its standard error, and over how many samples."""
        count = len(self.nats)
        spread = f" ± {self.standard_error:.2g}" if count > 1 else ""
        return f"{self.mean:.4g}{spread} nats over {count} sample{'s' * (count > 1)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate(Nats):
    """The divergence of the parallel sampler's law from the sequential sampler's.

    Args:
        nats: Half the squared shift of the noises of each sample, shape (S,), float64; its expectation is the
            divergence of the paths, KL(parallel || sequential).
        per_node: The same by node, shape (M, S): what the rows between this node and the next contribute.
        llr: Log-likelihood ratio of each path, parallel against sequential, shape (S,), float64. Its expectation is
            the divergence too, and ``exp(-llr)``, the weight that turns a sample into one of the sequential sampler,
            has the expectation 1.
        samples: The answers that the certificate speaks of, shape (S, *shape): where the last row has no noise, it is
            computed again, from the outputs at the path itself; elsewhere they are those of the solution.
        evaluations: Rows evaluated for the certificate.
    """

    per_node: Tensor
    llr: Tensor
    samples: Tensor
    evaluations: int

    def __str__(self) -> str:
        return (
            f"KL(parallel || sequential) = {self.words}, total variation at most {self.total_variation:.2g}, "
            f"{self.evaluations} evaluations"
        )
