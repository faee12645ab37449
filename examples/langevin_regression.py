"""Bayesian logistic regression with 50 coefficients, by underdamped Langevin chains, parallel in time.

The data are scikit-learn's handwritten digits: is the digit at least five? The pictures are projected on their first 49
principal components, each scaled to unit variance, beside a constant; the prior is a standard normal.

    python examples/langevin_regression.py

With few steps, to see that it runs:

    python examples/langevin_regression.py --tiny
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor

import paradrift as pd


def regression() -> tuple[Tensor, Tensor]:
    """The data: shape (1797, 50), and whether the digit is at least five."""
    pictures, digits = load_digits(return_X_y=True)
    centred = torch.tensor(pictures - pictures.mean(0))
    components = torch.linalg.svd(centred, full_matrices=False).U[:, :49] * math.sqrt(len(centred))
    return torch.cat([torch.ones(len(centred), 1), components], 1).float(), torch.tensor(digits >= 5).float()


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the posterior, sequentially and in parallel, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument(
        "--tol", type=float, default=1e-2, help="distance to the sequential chains, in rms of the state"
    )
    parser.add_argument("--tiny", action="store_true", help="60 steps of one chain")
    chosen = parser.parse_args(arguments)
    steps, chains = (60, 1) if chosen.tiny else (chosen.steps, chosen.chains)

    data, labels = regression()

    def score(x: Tensor) -> Tensor:
        return (labels - torch.sigmoid(x @ data.T)) @ data - x

    steepest = 1 + 0.25 * float(torch.linalg.eigvalsh(data.T @ data).max())
    start, step, friction = torch.zeros(chains, data.shape[1]), 0.2 / math.sqrt(steepest), math.sqrt(steepest) / 4
    sequential = pd.langevin(score, start, steps, step, friction, solver=pd.sequential())
    parallel = pd.langevin(score, start, steps, step, friction, window=pd.Sliding(chosen.window), tol=chosen.tol)
    gap = (parallel.last - sequential.last).square().mean(1).sqrt() / sequential.last.square().mean(1).sqrt()
    print(f"{parallel.stats.rounds} rounds instead of {steps}, {parallel.stats.evaluations} evaluations")
    print(f"distance to the sequential chains: {float(gap.max()):.1e}")
    kept = parallel.states[:, steps // 4 :]
    print(f"effective draws, of {chains * kept.shape[1]}: {float(pd.effective_size(kept).median()):.0f}")
    right = ((data @ kept.mean((0, 1)) > 0) == (labels > 0.5)).float().mean()
    print(f"share of digits that the mean coefficients get right: {float(right):.3f}")


if __name__ == "__main__":
    main()
