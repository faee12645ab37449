"""The forward error of a kept path against dense linear algebra, linear models, and sequential answers."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift import smoothing
from paradrift.forms import Form
from paradrift.forward_error import corrected, forward_error
from paradrift.kept import kept
from paradrift.report import distance
from paradrift.slopes import gaussian, in_form

LINEAR = pd.Discrete.linear(1000)
EDM = pd.EDM(0.02, 80.0)
SIMPLE = pd.Gaussian([0.3, -0.2, 0.9], 0.25, LINEAR)
MODES = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.05, LINEAR)
SAMPLERS = (
    pd.DDIM(),
    pd.DPMpp2M(),
    pd.DPMpp3M(),
    pd.Heun(),
    pd.DDPM(),
    pd.Exponential(form=Form.SCORE, stochasticity=0),
)


def words(model, sampler, steps=12):
    times = pd.grids.default(model.schedule, steps)
    return dict(sampler=sampler, times=times[:-1] if isinstance(sampler, pd.Exponential) else times, seed=3)


def solved(model, size, sampler, solver=None, samples=5, dtype=torch.float64, **change):
    given = words(model, sampler, **change)
    solver = solver or pd.sequential()
    return pd.sample(model, (samples, size), solver=solver, dtype=dtype, trajectory=True, **given)


def pushed(solution, size=1e-3):
    """The same with its path pushed off the table, by about the same size everywhere."""
    push = torch.randn(solution.trajectory.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    path = solution.trajectory.clone()
    path[:, 1:] += size * push[:, 1:]
    return dataclasses.replace(solution, trajectory=path, samples=path[:, -1])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_one_round_sums_what_each_true_defect_does_to_the_answer(sampler):
    solution = solved(MODES, 2, sampler)
    wrong = pushed(solution)
    found = forward_error(wrong, MODES, rounds=1)
    opened = kept(wrong, MODES, generator=None, noise=None)
    table, z = opened.table, wrong.trajectory
    nodes = np.flatnonzero(table.evaluated)
    outputs = torch.zeros_like(z)
    for row in nodes:
        t = torch.full((5,), table.t[row], dtype=torch.float64)
        outputs[:, row] = MODES(z[:, row] * table.scale[row], t)
    xi = opened.noise.draw(torch.arange(5), torch.arange(table.rows).expand(5, -1))
    parts = ((table.a, z), (table.b, outputs), (table.c, xi))
    defect = sum(torch.einsum("mj,sjd->smd", torch.from_numpy(matrix.copy()), values) for matrix, values in parts) - z
    slope = in_form(table, gaussian(table, 16 * MODES.variance))
    inverse = np.linalg.inv(np.eye(table.rows) - table.a - table.b * slope)[-1].copy()
    effects = defect[:, 1:].square().mean(2).sqrt() @ torch.from_numpy(np.abs(inverse[1:]))
    torch.testing.assert_close(found.error, effects / math.sqrt(MODES.variance), rtol=1e-9, atol=1e-15)
    together = torch.einsum("m,smd->sd", torch.from_numpy(inverse[1:]), defect[:, 1:]).square().mean(1).sqrt()
    torch.testing.assert_close(found.corrections[0], together / math.sqrt(MODES.variance), rtol=1e-9, atol=1e-12)
    assert found.evaluations == 5 * table.nodes
    assert bool((found.corrections[0] <= found.summed * (1 + 1e-12)).all())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_two_rounds_find_the_sequential_answer_of_a_linear_model(sampler):
    solution = solved(SIMPLE, 3, sampler)
    wrong = pushed(solution)
    found = forward_error(wrong, SIMPLE)
    gap = distance(wrong.samples, solution.samples, SIMPLE.variance)
    expected = torch.maximum(found.summed, gap + found.corrections[1])
    torch.testing.assert_close(found.error, expected, rtol=1e-7, atol=1e-12)
    assert float(gap.min()) > 1e-6
    assert found.corrections.shape == (2, 5)
    third = forward_error(wrong, SIMPLE, rounds=3)
    assert float(third.corrections[2].max()) < 1e-9 * float(gap.max())  # nothing is left


@pytest.mark.parametrize("sampler", SAMPLERS[:4], ids=lambda sampler: type(sampler).__name__)
def test_a_sequential_path_has_no_error_but_rounding(sampler):
    for dtype, small in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        solution = solved(MODES, 2, sampler, dtype=dtype)
        assert float(forward_error(solution, MODES).error.max()) < small


def test_the_model_is_asked_what_the_table_shows_it():
    table = pd.DDIM().tableau(LINEAR, pd.grids.default(LINEAR, 12))
    given = dict(sampler=dataclasses.replace(table, scale=np.linspace(0.8, 1.2, 13)), seed=3)
    solution = pd.sample(MODES, (3, 2), solver=pd.sequential(), dtype=torch.float64, trajectory=True, **given)
    assert float(forward_error(solution, MODES).error.max()) < 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS[:4], ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("tol", [1e-1, 1e-2])
def test_parallel_answers_are_within_the_estimate(sampler, tol):
    """Of 200 samples of a mixture, at least 97 in 100: seeds are fixed, so this passes or fails for good."""
    before = solved(MODES, 2, sampler, samples=200, steps=30)
    after = solved(MODES, 2, sampler, pd.default(tol, pd.Sliding(8)), samples=200, steps=30)
    found = forward_error(after, MODES)
    gap = distance(after.samples, before.samples, MODES.variance)
    assert float((found.error >= gap).double().mean()) >= 0.97
    assert float((found.error / gap).median()) < 30
    assert float(gap.max()) > 1e-6


def test_it_needs_no_solver_and_no_schedule():
    """An Euler chain of a bare function, y' = -y, from a path of zeros."""

    class Decay:
        form, schedule, variance = Form.VALUE, None, None

        def __call__(self, x, t, sample):
            return -x

    rows = pd.Rows(form=Form.VALUE)
    for row in range(5):
        last = {row - 1: 1.0} if row else {}
        rows.add(t=float(row), a=last, b={key: 0.1 for key in last}, evaluated=row < 4)
    start = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    given = dict(sampler=rows.build(), start=start, seed=0)
    exact = pd.sample(Decay(), (1, 2), solver=pd.sequential(), dtype=torch.float64, trajectory=True, **given)
    torch.testing.assert_close(exact.samples, start * 0.9**4)
    wrong = pushed(exact, size=1e-2)
    found = forward_error(wrong, Decay())
    gap = distance(wrong.samples, exact.samples, None) * exact.samples.square().mean().sqrt()
    unit = wrong.samples.square().mean().sqrt()
    torch.testing.assert_close(
        found.error, torch.maximum(found.summed, gap / unit + found.corrections[1]), rtol=1e-6, atol=0
    )


def test_chunks_and_row_limits_change_nothing(monkeypatch):
    solution = solved(MODES, 2, pd.DDPM(), samples=7)
    wrong = pushed(solution)
    whole = forward_error(wrong, MODES)
    monkeypatch.setattr("paradrift.kept._CHUNK", 3 * 13 * 2)
    counted = pd.Counted(MODES)
    parts = forward_error(wrong, counted, max_rows=8)
    torch.testing.assert_close(parts.error, whole.error, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(parts.corrections, whole.corrections, rtol=1e-12, atol=1e-14)
    assert counted.rows == parts.evaluations == 2 * 7 * 12
    assert torch.equal(forward_error(wrong, MODES).error, whole.error)  # in its own words
    assert str(whole).endswith("of 7 samples, 2 rounds, 168 evaluations")


def test_broken_paths_are_infinitely_far_and_wrong_words_are_refused():
    solution = solved(MODES, 2, pd.DDIM())
    path = solution.trajectory.clone()
    path[1, 6] = torch.nan
    found = forward_error(dataclasses.replace(solution, trajectory=path), MODES)
    assert torch.isinf(found.error).tolist() == [False, True, False, False, False]
    with pytest.raises(pd.SpecError, match="expected a solution with its path"):
        forward_error(dataclasses.replace(solution, trajectory=None), MODES)
    with pytest.raises(pd.SpecError, match="expected at least one round"):
        forward_error(solution, MODES, rounds=0)
    with pytest.raises(pd.SpecError, match="expected a path .* rows for this sampler"):
        forward_error(dataclasses.replace(solution, trajectory=path[:, :9]), MODES)
    opened = kept(solution, MODES, generator=None, noise=None)
    assert corrected(opened, rounds=1).rounds == 1


def gaussian_kl(mean, cov, other):
    quadratic = np.trace(np.linalg.solve(other, cov)) - len(mean) + mean @ np.linalg.solve(other, mean)
    return (quadratic + np.linalg.slogdet(other)[1] - np.linalg.slogdet(cov)[1]) / 2


@pytest.mark.parametrize("noise", [0.05, 0.3, 2.0])
def test_smoothed_nats_are_above_the_divergence_of_gaussians(noise):
    """y = A x + b of one x ~ N(0, C): both laws are Gaussian, before and after the noise."""
    random = np.random.default_rng(0)
    factor = random.normal(size=(6, 6))
    cov, variance = factor @ factor.T / 6, float(np.trace(factor @ factor.T / 6) / 6)
    extra = noise**2 * variance * np.eye(6)
    x = torch.from_numpy(random.multivariate_normal(np.zeros(6), cov, size=20_000))
    for part, equal in ((0.0, True), (0.05, False)):
        change, shift = part * random.normal(size=(6, 6)), 0.05 * random.normal(size=6)
        y = x @ torch.from_numpy(np.eye(6) + change).T + torch.from_numpy(shift)
        found = smoothing.smoothed(distance(y, x, variance), 6, noise)
        turned = (np.eye(6) + change) @ cov @ (np.eye(6) + change).T
        exact = gaussian_kl(shift, turned + extra, cov + extra)
        square = np.trace(change @ cov @ change.T) + shift @ shift
        mean = square / (2 * noise**2 * variance)
        assert abs(found.mean - mean) <= 4 * found.standard_error + 1e-12  # once in 16,000
        assert exact <= mean * (1 + 1e-12)
        if equal:  # the bound of one start: a shift seen through the noise alone
            assert gaussian_kl(shift, extra, extra) == pytest.approx(found.mean, rel=1e-9)
        assert found.total_variation == min(1, math.sqrt(found.mean / 2))


def test_the_noise_that_a_budget_needs():
    errors = torch.tensor([1e-3, 3e-3, 0.0])
    level = smoothing.needed(errors, 784, nats=0.02)
    found = smoothing.smoothed(errors, 784, level)
    assert found.mean == pytest.approx(0.02, rel=1e-12)
    assert smoothing.smoothed(errors, 784, 2 * level).mean == pytest.approx(0.005, rel=1e-12)
    assert math.isnan(smoothing.smoothed(errors[:1], 784, level).standard_error)
    assert smoothing.smoothed(torch.tensor([math.inf]), 2, 1.0).total_variation == 1
    for function, sentence in (
        (lambda: smoothing.smoothed(errors, 784, 0.0), "expected noise of a positive"),
        (lambda: smoothing.needed(errors, 784, 0.0), "expected a positive budget"),
        (lambda: smoothing.needed(errors[None], 784, 1.0), "expected errors of shape"),
        (lambda: smoothing.smoothed(errors, 0, 1.0), "expected errors of shape"),
    ):
        with pytest.raises(pd.SpecError, match=sentence):
            function()
