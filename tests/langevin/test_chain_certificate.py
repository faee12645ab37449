"""The certificate of chains: closed forms, and the importance weights."""

import pytest
import torch

import paradrift as pd
from paradrift.langevin import langevin


def score(x):
    return -x + 0.5 * torch.sin(3 * x)


@pytest.mark.parametrize(("friction", "weight"), [(None, 0.1 / 4), (0.5, 0.1 / 2), (3.0, 0.1 / 12)])
def test_nats_are_h_over_four_gamma_for_each_squared_difference_of_scores(friction, weight):
    # One sweep from a constant guess uses the score of the start throughout; overdamped, gamma is 1: b^2 / (2 c^2).
    x = torch.randn(3, 2, dtype=torch.float64)
    chain = langevin(
        score,
        x,
        20,
        0.1,
        friction,
        stop=pd.Sweeps(1),
        guess=pd.Repeat(),
        slopes=pd.Zero(),
        window=pd.Whole(),
        trajectory=True,
    )
    nodes = chain.states[:, :-1]
    used = score(x)[:, None]
    expected = weight * (used - score(nodes)).square().sum(2)
    certificate = chain.kl()
    torch.testing.assert_close(certificate.per_node, expected.T, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(certificate.nats, expected.sum(1), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("friction", [None, 1.0])
def test_the_weights_towards_the_sequential_law_have_the_mean_one(friction):
    # 4 standard errors over 2000 chains: wrong alarms below 1e-4 each
    chain = langevin(
        score,
        torch.ones(2000, 2, dtype=torch.float64),
        60,
        0.1,
        friction,
        stop=pd.Sweeps(2),
        slopes=pd.Zero(),
        window=pd.Sliding(6),
        segment=30,
        trajectory=True,
    )
    certificate = chain.kl()
    weights = torch.exp(-certificate.llr)
    assert certificate.mean > 1e-6
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / 2000**0.5
    assert torch.equal(certificate.samples, chain.last)
    gap = certificate.llr - certificate.nats  # a martingale: its mean is zero
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / 2000**0.5
    assert len(certificate.per_node) == chain.stats.nodes == 60


def test_without_its_rows_a_chain_has_no_certificate():
    with pytest.raises(pd.SpecError, match="expected chains with all their rows, found none"):
        langevin(score, torch.zeros(1, 1), 5, 0.1).kl()
