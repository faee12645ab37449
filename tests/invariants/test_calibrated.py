"""Guesses from two moments: exact for Gaussian data, causal, the same in any batch, and never in the answer's way."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import paradrift as pd
from paradrift import prepare
from paradrift.errors import SpecError
from paradrift.guesses import Proposal
from paradrift.noise import Given, Philox
from paradrift.windows import Window

SCHEDULE = pd.Discrete.linear(1000)
VARIANCES = torch.tensor([4.0, 1.0, 0.05], dtype=torch.float64)
MEAN = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
TURN = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
EXACT = pd.Moments(mean=MEAN, directions=torch.eye(3, dtype=torch.float64), variances=VARIANCES, rest=0.0)
GAUSSIAN = pd.Gaussian(MEAN, VARIANCES, SCHEDULE)
SAMPLERS = [pd.DDIM(), pd.DDPM(), pd.DPMpp2M(), pd.Heun()]
named = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)


def modes() -> pd.Denoiser:
    """Two modes in four dimensions."""
    means = [[-1.0, 0.5, 0.0, 0.2], [0.8, 0.2, -0.3, 0.0]]
    return pd.GaussianMixture([0.4, 0.6], means, 0.02, SCHEDULE)


def fitted(model: pd.Denoiser, size: int) -> pd.Moments:
    known = pd.sample(model, (300, size), sampler=pd.DDIM(), steps=20, solver=pd.sequential(), seed=9)
    return pd.Moments.fit(known.samples)


def proposal(moments: pd.Moments, table: pd.Tableau, start: torch.Tensor, noise: object) -> Proposal:
    with pytest.raises(StopIteration) as end:
        next(pd.Calibrated(moments).propose(table, start, noise))
    return end.value.value


# --- moments


def test_moments_of_many_samples_are_those_of_their_law():
    """Standard errors of variances are sqrt(2 / 20,000), of directions less: five of them are 5 %."""
    draws = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = pd.Moments.fit(MEAN + (draws * VARIANCES.sqrt()) @ TURN.T)
    torch.testing.assert_close(moments.variances, VARIANCES, rtol=0.05, atol=0)
    torch.testing.assert_close(moments.mean, MEAN, rtol=0, atol=0.07)
    torch.testing.assert_close((moments.directions @ TURN).abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=0.05)


def test_what_the_directions_leave_is_spread_over_the_rest():
    data = torch.randn(500, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moments = pd.Moments.fit(data.view(500, 2, 3), rank=2)
    assert moments.directions.shape == (2, 2, 3)
    total = float(data.var(0).sum())
    assert float(moments.variances.sum()) + 4 * moments.rest == pytest.approx(total)


def test_directions_that_no_sample_shows_have_a_tenth_of_the_least_variance():
    data = torch.randn(4, 10, generator=torch.Generator().manual_seed(2))
    moments = pd.Moments.fit(data)
    assert len(moments.variances) == 3
    assert moments.rest == pytest.approx(0.1 * float(moments.variances[-1]))
    flat = moments.directions
    torch.testing.assert_close(flat @ flat.T, torch.eye(3, dtype=torch.float64))


def test_moments_are_written_and_read(tmp_path: Path):
    moments = pd.Moments.fit(torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(3)), rank=4)
    moments.save(tmp_path / "moments.safetensors")
    again = pd.Moments.load(tmp_path / "moments.safetensors")
    for name in ("mean", "directions", "variances"):
        assert torch.equal(getattr(again, name), getattr(moments, name))
    assert again.rest == moments.rest


def test_wrong_moments_are_refused_in_one_sentence(tmp_path: Path):
    (tmp_path / "text").write_text("no tensors")
    save_file({"mean": torch.zeros(2)}, tmp_path / "other")
    for make, words in (
        (lambda: pd.Moments.fit(torch.zeros(1, 3)), "expected at least 2 samples"),
        (lambda: pd.Moments.fit(torch.full((3, 2), torch.nan)), "expected finite samples"),
        (lambda: pd.Moments.fit(torch.zeros(3, 2), rank=0), "expected a rank of at least 1"),
        (lambda: pd.Moments.load(tmp_path / "none"), "expected a file of moments"),
        (lambda: pd.Moments.load(tmp_path / "other"), "expected a file written by Moments.save"),
        (lambda: pd.Moments.load(tmp_path / "text"), "found another kind of file"),
        (
            lambda: pd.Moments(mean=MEAN, directions=torch.eye(3)[:2], variances=VARIANCES, rest=0.0),
            "expected directions of shape",
        ),
        (
            lambda: pd.Moments(mean=MEAN, directions=torch.eye(3), variances=-VARIANCES, rest=0.0),
            "expected variances of at least 0",
        ),
    ):
        with pytest.raises(SpecError, match=words):
            make()


# --- the guess


@named
def test_the_path_of_gaussian_data_is_proposed_exactly(sampler: pd.Sampler):
    """Data predictions of the model itself along its sequential path, for one-step, multistep and two-stage tables."""
    solution = pd.sample(
        GAUSSIAN,
        (4, 3),
        sampler=sampler,
        steps=20,
        solver=pd.sequential(),
        seed=1,
        trajectory=True,
        dtype=torch.float64,
    )
    table = prepare.in_form_of(GAUSSIAN, solution.recipe.table)
    noise = Philox(seed=1, shape=(3,), dtype=torch.float64)
    start = solution.trajectory[:, 0]
    found = proposal(EXACT, table, start, noise)
    model = pd.Reform(GAUSSIAN, pd.Form.DATA)
    samples = torch.arange(4)
    for row in np.flatnonzero(table.evaluated).tolist():
        x = solution.trajectory[:, row] * float(table.scale[row])
        expected = model(x, torch.full((4,), float(table.t[row]), dtype=torch.float64), samples)
        proposed = found.at(torch.full((1, 4), row), samples)[0]
        torch.testing.assert_close(proposed, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM(), pd.DPMpp2M()], ids=lambda sampler: type(sampler).__name__)
def test_gaussian_data_need_one_round(sampler: pd.Sampler):
    chain = dict(sampler=sampler, steps=50, dtype=torch.float64, solver=pd.default(1e-2, pd.Whole(), verify=0))
    without, found = (pd.sample(GAUSSIAN, (4, 3), guess=guess, **chain) for guess in (None, pd.Calibrated(EXACT)))
    assert found.stats.rounds == 1 < without.stats.rounds


def test_pictures_are_samples_too():
    """Samples of shape (1, 2, 3), whose covariance is not diagonal, at single precision."""
    data = torch.randn(2000, 3, generator=torch.Generator().manual_seed(6)).repeat_interleave(2, 1)
    data = (data + 0.1 * torch.randn(2000, 6, generator=torch.Generator().manual_seed(7))).view(2000, 1, 2, 3)
    moments = pd.Moments.fit(data)
    covariance = data.flatten(1).double().T.cov()

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The data prediction of the Gaussian with these moments, C (C + rho^2)^-1 x / alpha, in float64."""
        times = t.double().numpy()
        alpha, sigma = (torch.as_tensor(part)[:, None] for part in (SCHEDULE.alpha(times), SCHEDULE.sigma(times)))
        inner = covariance + (sigma / alpha).square()[..., None] * torch.eye(6, dtype=torch.float64)
        clean = torch.linalg.solve(inner, (x.double().flatten(1) / alpha - moments.mean.flatten())[..., None])
        return ((clean.mT @ covariance)[:, 0] + moments.mean.flatten()).view_as(x).to(x)

    model = pd.denoiser(score, predicts="data", schedule=SCHEDULE)
    chain = dict(sampler=pd.DDIM(), steps=50, solver=pd.default(1e-2, pd.Whole(), verify=0))
    without, found = (pd.sample(model, (3, 1, 2, 3), guess=guess, **chain) for guess in (None, pd.Calibrated(moments)))
    assert found.stats.rounds == 1 < without.stats.rounds
    exact = pd.sample(model, (3, 1, 2, 3), sampler=pd.DDIM(), steps=50, solver=pd.sequential()).samples
    torch.testing.assert_close(found.samples, exact, rtol=0, atol=1e-4)


@named
@pytest.mark.parametrize("window", [pd.Whole(), pd.Sliding(8)], ids=["whole", "sliding"])
def test_at_tolerance_zero_the_answer_is_the_sequential_one_to_the_last_bit(sampler: pd.Sampler, window: Window):
    model = modes()
    guess, chain = pd.Calibrated(fitted(model, 4)), dict(sampler=sampler, steps=20, seed=3, dtype=torch.float64)
    found = pd.sample(model, (3, 4), window=window, tol=0, guess=guess, **chain)
    assert torch.equal(found.samples, pd.sample(model, (3, 4), solver=pd.sequential(), **chain).samples)


@pytest.mark.parametrize("steps", [40, 150])
def test_batch_mates_change_no_bit(steps: int):
    """With one block of turned noises, and with several."""
    model = modes()
    chain = dict(sampler=pd.DDPM(), steps=steps, window=pd.Sliding(16), tol=1e-2, guess=pd.Calibrated(fitted(model, 4)))
    together = pd.sample(model, (5, 4), seed=list(range(5)), **chain)
    for index in range(5):
        alone = pd.sample(model, (1, 4), seed=[index], **chain)
        assert torch.equal(alone.samples[0], together.samples[index])


@pytest.mark.parametrize("levels", [128, 5])
@pytest.mark.parametrize("sampler", [pd.DDPM(), pd.Heun(churn=5.0)], ids=["DDPM", "churned"])
def test_a_proposal_knows_no_later_noise(sampler: pd.Sampler, levels: int, monkeypatch: pytest.MonkeyPatch):
    """Nodes up to m stay as they are, to the last bit, when all noises after m are others; later ones do not.

    Churned chains have rows that are no nodes.
    """
    monkeypatch.setattr("paradrift.calibrated.LEVELS", levels)
    table = prepare.own_table(GAUSSIAN, sampler, 12, None)
    start = torch.ones(2, 3, dtype=torch.float64)
    noises = torch.randn(2, table.rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    samples, before = torch.arange(2), proposal(EXACT, table, start, Given(noises, start))
    for row in range(table.rows):
        others = noises.clone()
        others[:, row + 1 :] += 1
        after = proposal(EXACT, table, start, Given(others, start))
        rows = torch.arange(table.rows)[:, None].expand(-1, 2)
        same = (before.at(rows, samples) == after.at(rows, samples)).all(-1).all(-1).numpy()
        assert same[: row + 1][table.evaluated[: row + 1]].all()
        if levels == 128 and row == 0:
            assert not same[-2]


def test_fewer_levels_are_interpolated_without_noise(monkeypatch: pytest.MonkeyPatch):
    table = prepare.own_table(GAUSSIAN, pd.DDIM(), 40, None)
    start = torch.ones(2, 3, dtype=torch.float64)
    noise, rows = Philox(seed=0, shape=(3,)), torch.arange(41)[:, None].expand(-1, 2)
    full = proposal(EXACT, table, start, noise)
    monkeypatch.setattr("paradrift.calibrated.LEVELS", 9)
    few = proposal(EXACT, table, start, noise)
    assert (len(full.data), len(few.data)) == (40, 9)
    between = few.at(rows, torch.arange(2)) - full.at(rows, torch.arange(2))
    assert 0 < float(between.abs().max()) < 0.1
    assert int((between == 0).all(-1).all(-1).sum()) == 10  # nine nodes, and the answer, which holds the last


def test_modes_take_fewer_rounds_and_keep_their_certificates():
    model = modes()
    moments = fitted(model, 4)
    chain = dict(steps=50, dtype=torch.float64, solver=pd.default(1e-2, pd.Whole(), verify=0))
    for sampler in (pd.DDIM(), pd.DDPM()):
        means = []
        for guess in (None, pd.Calibrated(moments)):
            solution = pd.sample(model, (32, 4), sampler=sampler, guess=guess, **chain)
            assert solution.converged
            means.append(sum(solution.stats.sample_rounds) / 32)
        assert means[1] < 0.95 * means[0]
    noisy = pd.sample(model, (4, 4), sampler=pd.DDPM(), guess=pd.Calibrated(moments), certify=True, **chain)
    assert noisy.certifiable
    assert 0 < float(noisy.certificate.nats.mean()) < 0.1


def test_generators_end_where_the_sequential_sampler_leaves_them():
    model = modes()
    chain = dict(sampler=pd.DDPM(), steps=30)
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    plain = pd.sample(model, (3, 4), solver=pd.sequential(), generator=generators[0], **chain)
    guess = pd.Calibrated(fitted(model, 4))
    found = pd.sample(model, (3, 4), window=pd.Sliding(8), tol=0, guess=guess, generator=generators[1], **chain)
    assert torch.equal(found.samples, plain.samples)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_wrong_uses_are_refused_in_one_sentence():
    with pytest.raises(SpecError, match=r"expected samples of the moments' shape \(3,\), found \(4,\)"):
        pd.sample(modes(), (2, 4), sampler=pd.DDIM(), steps=10, window=pd.Whole(), guess=pd.Calibrated(EXACT))
    solver = dataclasses.replace(pd.default(1e-2, pd.Sliding(8)), guess=pd.Calibrated(EXACT))
    with pytest.raises(SpecError, match="expected a table with a noise schedule for calibrated guesses"):
        pd.langevin(lambda x: -x, torch.ones(2, 3), steps=20, step_size=1e-2, solver=solver)
