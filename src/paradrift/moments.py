r"""Mean and covariance of data: what a Gaussian knows of them.

At high noise every score is nearly that of the Gaussian with the data's mean and covariance, whatever the data are; so
two moments, fitted once on a few hundred samples, say most of what happens in the first half of a trajectory.

Source: Wang and Vastola 2023, "The Hidden Linear Structure in Score-Based Models and its Application", arXiv
2311.10892.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from paradrift.errors import SpecError

UNSEEN = 0.1  # of the least variance seen: variance of directions that fewer samples than dimensions do not show
_FILE = "paradrift.moments"


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    r"""A mean, and a covariance :math:`\sum_k v_k u_k u_k^T + v_\perp (I - \sum_k u_k u_k^T)`.

    Args:
        mean: Mean of the data, shape (\*shape).
        directions: Orthonormal directions u, shape (K, \*shape).
        variances: Variances v along them, shape (K,), descending.
        rest: Variance :math:`v_\perp` of every other direction.

    Raises:
        SpecError: if shapes disagree, or a variance is negative or not a number.

    Example:
        >>> data = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.1])
        >>> moments = Moments.fit(data)
        >>> [round(float(variance), 1) for variance in moments.variances]
        [9.2, 1.0, 0.0]
    """

    mean: Tensor = field(repr=False)
    directions: Tensor = field(repr=False)
    variances: Tensor = field(repr=False)
    rest: float

    def __post_init__(self) -> None:
        if self.directions.shape != (len(self.variances), *self.mean.shape):
            raise SpecError(
                f"expected directions of shape {(len(self.variances), *self.mean.shape)}, one of a mean's shape for "
                f"each variance, found {tuple(self.directions.shape)}"
            )
        if not (self.rest >= 0 and bool((self.variances >= 0).all())):
            raise SpecError("expected variances of at least 0, found others: fit them with Moments.fit")

    @staticmethod
    def fit(data: Tensor, rank: int = 256) -> Moments:
        r"""The moments of some samples: training data, or answers of the model itself.

        The directions are the principal components. What is left of the variance is spread over the other directions;
        where there are fewer samples than dimensions, directions that no sample shows are given a tenth of the least
        variance that was seen.

        Args:
            data: Samples, shape (N, \*shape), in the units of the model's data predictions.
            rank: Most directions.

        Returns:
            The moments, in float64 on the host.

        Raises:
            SpecError: if there are fewer than two samples, a number is not finite, or the rank is below 1.
        """
        if data.ndim < 2 or len(data) < 2:
            raise SpecError(f"expected at least 2 samples, shape (N, *shape), found shape {tuple(data.shape)}")
        if rank < 1:
            raise SpecError(f"expected a rank of at least 1, found {rank}")
        flat = data.detach().cpu().double().flatten(1)
        if not bool(torch.isfinite(flat).all()):
            raise SpecError("expected finite samples, found some that are not: leave them out")
        mean, size = flat.mean(0), flat.shape[1]
        _, singular, directions = torch.linalg.svd(flat - mean, full_matrices=False)
        seen = min(len(flat) - 1, size)
        variances = singular[:seen].square() / (len(flat) - 1)
        kept = min(rank, seen)
        if kept < seen:
            rest = float(variances[kept:].sum()) / (size - kept)
        else:
            rest = UNSEEN * float(variances[-1])
        return Moments(
            mean=mean.view(data.shape[1:]),
            directions=directions[:kept].reshape(kept, *data.shape[1:]),
            variances=variances[:kept],
            rest=rest,
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file.

        Args:
            path: File to write.
        """
        from safetensors.torch import save_file

        tensors = {"mean": self.mean, "directions": self.directions, "variances": self.variances}
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(kept, str(path), metadata={_FILE: repr(float(self.rest))})

    @staticmethod
    def load(path: str | Path) -> Moments:
        """Read what :meth:`save` wrote.

        Args:
            path: File to read.

        Returns:
            The moments, on the host.

        Raises:
            SpecError: if the file is missing or was not written by :meth:`save`.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise SpecError(f"expected a file of moments at {path}, found none: check the path")
        try:
            with safe_open(str(path), framework="pt") as file:
                rest = (file.metadata() or {}).get(_FILE)
                if rest is None:
                    raise SpecError(f"expected a file written by Moments.save at {path}, found other safetensors")
                return Moments(
                    mean=file.get_tensor("mean"),
                    directions=file.get_tensor("directions"),
                    variances=file.get_tensor("variances"),
                    rest=float(rest),
                )
        except SafetensorError as error:
            raise SpecError(f"expected a file written by Moments.save at {path}, found another kind of file") from error
