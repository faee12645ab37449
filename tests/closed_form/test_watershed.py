"""What errors grow to across the border between two modes, against the exact derivative of the answer."""

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift.bench.compare import Case
from paradrift.bench.model_set import mixture_64
from paradrift.slopes import to_data
from paradrift.solvers import run
from paradrift.solvers.lowered import Levels
from paradrift.solvers.watershed import LIMIT, growing

STEPS = 40
SCHEDULE = pd.Discrete.linear(1000)
TABLE = pd.DDIM().tableau(SCHEDULE, pd.grids.default(SCHEDULE, STEPS))


def levels(host: bool) -> Levels:
    """The levels of all rows of the chain, as a window of one sample would have them, for data predictions."""
    table = TABLE.reform(pd.Form.DATA)
    assert table.alpha is not None
    assert table.sigma is not None
    p, q = to_data(table)
    rows = (table.alpha, (table.sigma / table.alpha) ** 2, p, q, table.alpha / q, 0 * p, 0 * p)
    found = [np.array(row)[:, None] for row in rows]
    return Levels(*(found if host else map(torch.as_tensor, found)))


def along(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the data prediction of two modes at +-1 along a path, and what an error after each node grows to."""
    table, variance = TABLE, 1e-3
    assert table.alpha is not None
    assert table.sigma is not None
    alpha, sigma = table.alpha[:-1], table.sigma[:-1]
    total = variance + (sigma / alpha) ** 2
    slope = variance / total + (1 - np.tanh(path[:-1] / alpha / total) ** 2) * (sigma / alpha) ** 2 / total**2
    ratio = np.append(sigma / alpha, 0.0)
    held = ratio[1:] / ratio[:-1]
    times = held + (1 - held) * slope
    grown = [max(np.prod(times[row + 1 : end]) for end in range(row + 1, STEPS + 1)) for row in range(STEPS)]
    return slope, np.minimum(grown, LIMIT)


@pytest.mark.parametrize("host", [True, False], ids=["numpy", "torch"])
@pytest.mark.parametrize("start", [0.001, 0.05, 0.9])
def test_growth_is_that_of_the_chain_linearised_along_its_path(start, host):
    model = pd.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], 1e-3, SCHEDULE)
    told = pd.sample(
        model,
        (1, 1),
        sampler=TABLE,
        start=torch.full((1, 1), start, dtype=torch.float64),
        solver=pd.sequential(),
        trajectory=True,
        dtype=torch.float64,
    )
    slope, expected = along(told.trajectory[0, :, 0].numpy())
    assert (expected.max() > 2) == (start < 0.1)
    level = levels(host)
    rows = (slope / np.asarray(level.gain)[:-1, 0])[:, None, None], np.zeros((STEPS, 1))
    found = growing(*(rows if host else map(torch.as_tensor, rows)), level, 1)
    if (expected == 1).all():
        assert found is None
    else:
        np.testing.assert_allclose(np.asarray(found)[:, 0], expected, rtol=1e-9)


def test_the_other_secant_sees_what_the_mean_over_directions_hides():
    """A change in many directions, one of which is steep: the secant is flat, dD.dD / dx.dD is not."""
    slopes = np.append(np.full(63, 0.05), 8.0)
    secant, square = slopes.mean(), (slopes**2).mean()
    rest = np.sqrt(square - secant**2)
    level = levels(host=True)
    ones = np.ones((STEPS, 1))
    outputs = secant * ones[..., None] / level.gain[:-1, :, None]
    flat = growing(outputs, 0 * ones, level, 64)
    seen = growing(outputs, rest * ones, level, 64)
    assert flat is None
    assert seen is not None
    assert seen.max() > 10
    assert square / secant == pytest.approx(secant + rest**2 / secant)
    chance = growing(outputs, 8.1 * secant * ones, level, 64)  # a cosine below 1 / 8: unrelated vectors have that
    assert chance is None


def test_nothing_grows_where_nothing_was_measured_or_data_are_gaussian():
    level, ones = levels(host=True), np.ones((STEPS, 1))
    assert growing(9 * ones[..., None] / level.gain[:-1, :, None], -ones, level, 1) is None
    assert growing(0.999 * ones[..., None] / level.gain[:-1, :, None], 0 * ones, level, 1) is None


def flips(found: torch.Tensor, exact: torch.Tensor) -> int:
    """Answers in another mode than the sequential ones: modes are further apart than this."""
    return int(((found - exact).square().mean(1).sqrt() > 0.5).sum())


def test_fewer_samples_change_sides(monkeypatch):
    """Of 256 samples of eight modes, at a tolerance loose enough to lose some; the same noises: no chance is in it."""
    case = Case(model=mixture_64(), kind="ode", steps=250, samples=256)
    exact = case.solve(pd.sequential()).samples
    found = case.solve(pd.default(1.0, pd.Sliding(64)))
    monkeypatch.setattr(run, "growing", lambda slope, rest, level, size: None)
    before = case.solve(pd.default(1.0, pd.Sliding(64)))
    kept, lost = flips(found.samples, exact), flips(before.samples, exact)
    assert lost >= 20
    assert kept <= 0.7 * lost
    assert sum(found.stats.sample_rounds) <= 1.1 * sum(before.stats.sample_rounds)


def test_paths_with_noise_do_not_look_ahead(monkeypatch):
    def refuse(*_):
        raise AssertionError("expected no look at later rows")

    monkeypatch.setattr(run, "growing", refuse)
    model = pd.GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [0.8, 0.2]], 0.05, SCHEDULE)
    assert pd.sample(model, (3, 2), sampler=pd.DDPM(), steps=30, tol=0.1, window=pd.Sliding(8)).converged
