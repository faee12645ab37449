"""Certificates: the Girsanov identity against Gaussian path laws in closed form, its signs, and what is refused.

For Gaussian data the shift of every noise is an affine function of the start and the noises, so the expectation of its
square is found exactly, without sampling, from runs at rest and at plus and minus one unit of each of them.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift import kept
from paradrift.forms import Form

GRID = np.concatenate([np.linspace(0, 3, 13), 4 - np.exp(np.linspace(0, np.log(0.05), 9))[1:]])
TIMES, VALUE, MEAN, SHARE = 4 - GRID, 2.5, 0.7, 0.8
GOLDEN = {  # nats of the path after K Picard sweeps
    (Form.SCORE, 1): 7.1612698170,
    (Form.SCORE, 2): 11.5694960648,
    (Form.SCORE, 3): 6.3538920374,
    (Form.SCORE, 4): 1.5805563182,
    (Form.SCORE, 5): 0.2065011950,
    (Form.RESIDUAL, 1): 0.1496833217,
    (Form.RESIDUAL, 2): 0.0107895878,
}
LAST = {1: 5.4505725898, 2: 4.9670694848, 3: 2.7674191715, 5: 0.0163467108}  # nats of the last row, score form
MIXTURE = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.05, pd.Discrete.linear(1000))


def picard(sweeps):
    return pd.Solver(window=pd.Whole(), slopes=pd.Zero(), guess=pd.Repeat(), stop=pd.Sweeps(sweeps), verify=0)


def problem(form):
    schedule = pd.OU(horizon=4.0)
    table = pd.Exponential(form=form, stochasticity=SHARE).tableau(schedule, TIMES)
    return table, pd.Gaussian([MEAN], VALUE, schedule, form=form)


def solved(model, shape, seed=3, dtype=torch.float64, **request):
    return pd.sample(model, shape, seed=seed, dtype=dtype, trajectory=True, **request)


def expected_nats(table, model, sweeps):
    """The exact expectation of the certificate by node, from impulses, shape (M,)."""
    size = table.rows
    signed = torch.cat([torch.zeros(1, size), torch.eye(size), -torch.eye(size)]).double()
    start, noises = signed[:, :1], signed.clone()
    noises[:, 0] = 0
    given = dict(sampler=table, start=start, noise=noises[..., None])
    solution = solved(model, start.shape, solver=picard(sweeps), **given)
    rest, plus, minus = pd.certificate.kl(solution, model, noise=given["noise"]).per_node.split([1, size, size], dim=1)
    return (rest.squeeze(1) + ((plus + minus) / 2 - rest).sum(1)).numpy()


def by_hand(table, form, sweeps):
    """Path laws N(mean, cov) of rows 0 to M after K sweeps, and the shifts of each row's noise: affine maps, no solver.

    Every quantity is a row of coefficients with respect to (1, y_0, xi_1 ... xi_M).
    """
    size = table.rows
    slope = (1.0 if form is Form.RESIDUAL else 0.0) - 1 / (np.exp(-TIMES) * VALUE - np.expm1(-TIMES))
    slope, offset = slope[:-1], np.exp(-TIMES / 2)[:-1] * MEAN / (np.exp(-TIMES) * VALUE - np.expm1(-TIMES))[:-1]
    maps = np.zeros((size, size + 1))
    maps[:, 1] = 1
    before = maps
    for _ in range(sweeps):
        before, maps = maps, np.zeros((size, size + 1))
        maps[0, 1] = 1
        for m in range(1, size):
            output = slope[m - 1] * before[m - 1]
            output[0] += offset[m - 1]
            maps[m] = table.a[m, m - 1] * maps[m - 1] + table.b[m, m - 1] * output
            maps[m, m + 1] += table.c[m, m]
    weight = np.diagonal(table.b, -1) / np.diagonal(table.c)[1:] * slope
    return maps[:, 0], maps[:, 1:] @ maps[:, 1:].T, weight[:, None] * (before - maps)[:-1]


def gaussian_kl(mean, cov, other_mean, other_cov):
    away = mean - other_mean
    quadratic = np.trace(np.linalg.solve(other_cov, cov)) - len(mean) + away @ np.linalg.solve(other_cov, away)
    return (quadratic + np.linalg.slogdet(other_cov)[1] - np.linalg.slogdet(cov)[1]) / 2


@pytest.mark.parametrize(("form", "sweeps"), GOLDEN)
def test_nats_are_the_divergence_of_the_gaussian_path_laws(form, sweeps):
    table, model = problem(form)
    found = expected_nats(table, model, sweeps)
    mean, cov, shift = by_hand(table, form, sweeps)
    exact = gaussian_kl(mean, cov, *by_hand(table, form, table.rows)[:2])
    assert found.sum() == pytest.approx(exact, rel=1e-8)
    assert found.sum() == pytest.approx(GOLDEN[form, sweeps], rel=1e-8)
    np.testing.assert_allclose(found, (shift**2).sum(1) / 2, rtol=1e-8, atol=1e-20)


@pytest.mark.parametrize("sweeps", LAST)
def test_nats_bound_the_divergence_of_the_answers(sweeps):
    table, model = problem(Form.SCORE)
    mean, cov, _ = by_hand(table, Form.SCORE, sweeps)
    theirs, spread, _ = by_hand(table, Form.SCORE, table.rows)
    last = gaussian_kl(mean[-1:], cov[-1:, -1:], theirs[-1:], spread[-1:, -1:])
    assert last == pytest.approx(LAST[sweeps], rel=1e-8)
    assert expected_nats(table, model, sweeps).sum() >= last


def test_a_node_left_out_is_seen():
    table, model = problem(Form.RESIDUAL)
    nats = expected_nats(table, model, 1)
    exact = GOLDEN[Form.RESIDUAL, 1]
    assert nats[0] == pytest.approx(0, abs=1e-20)  # the first output is exact in every method
    assert np.all(np.abs(nats.sum() - nats[1:] - exact) > 1e-5 * exact)


@pytest.mark.parametrize(("form", "sweeps"), [(Form.SCORE, 5), (Form.RESIDUAL, 1), (Form.RESIDUAL, 2)])
def test_mean_and_weights_of_drawn_samples(form, sweeps):
    table, model = problem(form)
    solution = solved(model, (10_000, 1), sampler=table, solver=picard(sweeps))
    found = pd.certificate.kl(solution, model)
    assert abs(found.mean - GOLDEN[form, sweeps]) < 4 * found.standard_error < 0.1 * found.mean
    check_ratio(found)


def check_ratio(found):
    """E exp(-llr) = 1, and llr has the same mean as nats."""
    weights, noise = torch.exp(-found.llr), found.llr - found.nats
    root = math.sqrt(len(weights))
    assert abs(weights.mean() - 1) < 4 * weights.std() / root < 0.1
    assert abs(noise.mean()) < 4 * noise.std() / root


@pytest.mark.parametrize(
    ("solver", "sampler"),
    [
        (pd.default(0.3, pd.Sliding(8)), pd.DDPM()),
        (pd.default(1.0, pd.Whole()), pd.DPMppSDE()),
        (pd.paradigms(12, 0.5), pd.Ancestral()),
    ],
)
def test_weights_have_mean_one_for_adaptive_windows_and_measured_slopes(solver, sampler):
    solution = solved(MIXTURE, (4000, 2), sampler=sampler, steps=20, solver=solver)
    found = pd.certificate.kl(solution, MIXTURE)
    assert 1e-8 < found.mean < 1
    check_ratio(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sampler", [pd.DDPM(), pd.Ancestral(), pd.DPMppSDE(), pd.DDIM(eta=1.0)])
def test_the_sequential_answer_has_no_divergence(sampler, dtype):
    solution = solved(MIXTURE, (50, 2), dtype=dtype, sampler=sampler, steps=20, tol=0.0, window=pd.Sliding(6))
    found = pd.certificate.kl(solution, MIXTURE)
    small = 1e-24 if dtype is torch.float64 else 1e-8
    assert float(found.nats.max()) < small
    torch.testing.assert_close(found.samples, solution.samples, rtol=0, atol=small**0.5)


def shared(table):
    """A table with scaled inputs whose rows also use the noise of the row before, the last only that."""
    c = table.c.copy()
    rows = np.arange(2, table.rows)
    c[rows, rows - 1] = 0.4 * np.diagonal(c)[1:-1]
    c[-1, -1] = 0
    scale = np.linspace(0.9, 1.1, table.rows)
    return dataclasses.replace(table, c=c, draws=np.arange(table.rows) > 0, scale=scale)


@pytest.mark.parametrize("change", [lambda table: table, shared])
@pytest.mark.parametrize("sampler", [pd.DDPM(), pd.DPMppSDE()])
def test_the_sequential_sampler_walks_the_path_from_the_shifted_noises(sampler, change):
    """The definition of the ratio: both laws at the same path, one with its noises, one with those that it needs."""
    schedule = MIXTURE.schedule
    table = change(sampler.tableau(schedule, pd.grids.default(schedule, 12)))
    noises = torch.randn(5, 13, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = torch.ones(5, 2, dtype=torch.float64)
    request = dict(sampler=table, start=start)
    solution = solved(MIXTURE, (5, 2), noise=noises, solver=picard(4), **request)
    found = pd.certificate.kl(solution, MIXTURE, noise=noises)

    theirs = torch.zeros_like(noises)
    path = solution.trajectory
    for row in range(1, table.rows):
        if table.c[row, row] == 0:
            continue
        # with this noise still zero, the sequential sampler misses the row by just what the noise must add
        without = solved(MIXTURE, (5, 2), noise=theirs, solver=pd.sequential(), **request).trajectory[:, row]
        theirs[:, row] = (path[:, row] - without) / table.c[row, row]
    walked = solved(MIXTURE, (5, 2), noise=theirs, solver=pd.sequential(), **request)
    own = np.diagonal(table.c) != 0
    torch.testing.assert_close(walked.trajectory[:, :-1], path[:, :-1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(walked.samples, found.samples, rtol=1e-9, atol=1e-9)
    ratio = (theirs.square() - noises.square())[:, own].sum((1, 2)) / 2
    torch.testing.assert_close(found.llr, ratio, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.nats, (theirs - noises)[:, own].square().sum((1, 2)) / 2, rtol=1e-7, atol=1e-9)
    assert float(found.nats.min()) > 1e-3
    if not own[-1]:  # the last row was settled with an old output; the certified answer was not
        assert not torch.allclose(found.samples, solution.samples, atol=1e-4)


def test_rows_that_only_repeat_earlier_ones_need_no_noise():
    rows = pd.Rows(form=Form.DATA)
    rows.add(t=2.0, alpha=0.4, sigma=0.9)
    rows.add(t=1.5, alpha=0.5, sigma=0.8, a={0: 0.6}, b={0: 0.5}, c=0.5)
    rows.add(t=1.5, alpha=0.5, sigma=0.8, a={1: 1.0}, evaluated=False)
    rows.add(t=1.0, alpha=0.7, sigma=0.6, a={2: 0.5}, b={1: 0.4}, c=0.4)
    rows.add(t=0.0, alpha=0.9, sigma=0.1, b={3: 1.0}, evaluated=False)
    table = rows.build()
    model = pd.Gaussian([0.0], 1.0, pd.OU(horizon=4.0))
    solution = solved(model, (6, 1), sampler=table, solver=picard(1))
    found = pd.certificate.kl(solution, model)
    assert found.per_node.shape == (3, 6)
    assert [bool(node.any()) for node in found.per_node > 1e-6] == [False, True, False]
    assert found.evaluations == 18


def test_chunks_and_row_limits_change_nothing(monkeypatch):
    request = dict(sampler=pd.Ancestral(), steps=10)
    solution = solved(MIXTURE, (7, 2), seed=[5, 6, 7, 8, 9, 10, 11], solver=picard(2), **request)
    whole = pd.certificate.kl(solution, MIXTURE)
    monkeypatch.setattr(kept, "_CHUNK", 3 * 11 * 2)
    model = pd.Counted(MIXTURE)
    parts = pd.certificate.kl(solution, model, max_rows=8)
    assert whole.evaluations == parts.evaluations == model.rows == 70
    for name in ("nats", "per_node", "llr", "samples"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-14)


def test_generators_ready_noises_and_files(tmp_path):
    request = dict(sampler=pd.Ancestral(), steps=10)
    drawn = solved(MIXTURE, (3, 2), generator=torch.Generator().manual_seed(4), solver=picard(2), **request)
    drawn.save(tmp_path / "solution.safetensors")
    again = torch.Generator().manual_seed(4)
    found = pd.certificate.kl(pd.Solution.load(tmp_path / "solution.safetensors"), MIXTURE, generator=again)
    twin = torch.Generator().manual_seed(4)
    start = torch.randn(3, 2, generator=twin, dtype=torch.float64)
    noises = torch.zeros(3, 11, 2, dtype=torch.float64)
    for row in range(1, 11):
        noises[:, row] = torch.randn(3, 2, generator=twin, dtype=torch.float64)
    assert torch.equal(drawn.trajectory[:, 0], start)
    torch.testing.assert_close(pd.certificate.kl(drawn, MIXTURE, noise=noises).llr, found.llr)
    with pytest.raises(pd.SpecError, match="expected the noise of this path, found none"):
        pd.certificate.kl(drawn, MIXTURE)
    assert torch.equal(again.get_state(), twin.get_state())


def test_another_model_is_compared_with_its_own_sequential_sampler():
    other = pd.Gaussian([0.0, 0.0], 0.9, MIXTURE.schedule)
    mine = pd.Gaussian([0.0, 0.0], 1.0, MIXTURE.schedule)
    solution = solved(mine, (50, 2), steps=20, tol=0.0)
    assert pd.certificate.kl(solution, mine).mean < 1e-20
    assert pd.certificate.kl(solution, other).mean > 1e-3


def test_one_line_says_what_was_found():
    solution = solved(MIXTURE, (9, 2), steps=10, solver=picard(3))
    found = pd.certificate.kl(solution, MIXTURE)
    assert str(found).startswith(f"KL(parallel || sequential) = {found.mean:.4g} ± ")
    assert f"nats over 9 samples, total variation at most {found.total_variation:.2g}, 90 evaluations" in str(found)
    assert found.total_variation == pytest.approx(min(1, (found.mean / 2) ** 0.5))
    alone = dataclasses.replace(found, nats=found.nats[:1] + 9)
    assert math.isnan(alone.standard_error)
    assert alone.total_variation == 1
    assert "±" not in str(alone)
    assert "over 1 sample," in str(alone)


def test_what_cannot_be_certified_is_refused():
    def refused(solution, sentence, model=MIXTURE, **audit):
        with pytest.raises(pd.SpecError, match=sentence):
            pd.certificate.kl(solution, model, **audit)

    good = solved(MIXTURE, (4, 2), steps=10, tol=0.1)
    early = pd.Tolerance(0.1, finish=True)
    finish = solved(MIXTURE, (4, 2), steps=10, stop=early, window=pd.Whole())  # planned, it would be sequential
    refused(finish, "expected a causal path, found one whose stop looked at later rows")
    refused(pd.sample(MIXTURE, (4, 2), steps=10, seed=3), "expected a solution with its path, found none")
    refused(solved(MIXTURE, (4, 2), steps=10, tol=0.0, max_rounds=2), "found sample 0: budget exhausted")
    shorter = dataclasses.replace(good, trajectory=good.trajectory[:, :9])
    refused(shorter, "of 11 rows for this sampler, found shape")
    strange = dataclasses.replace(good, recipe=dataclasses.replace(good.recipe, seed=4))
    refused(strange, "expected the noises and the sampler of this solution")
    smooth = solved(MIXTURE, (4, 2), sampler=pd.DDIM(), steps=10)
    refused(smooth, "expected noise in every row but the last, found none in row 1")
    refused(solved(MIXTURE, (4, 2), sampler=pd.DPMpp2M(), steps=10), "found none in row 1 \\(t=")
    rows = pd.Rows(form=Form.DATA)
    rows.add(t=2.0)
    rows.add(t=1.5, a={0: 0.6}, b={0: 0.5}, c=0.5)
    rows.add(t=1.25, a={1: 0.6}, b={1: 0.5})
    rows.add(t=1.0, a={2: 0.5}, b={2: 0.4}, c=0.4, evaluated=False)
    staged = solved(MIXTURE, (4, 2), sampler=rows.build(), window=pd.Whole())
    refused(staged, "found none in row 2 \\(t=1.25\\)")

    class Broken:
        form, schedule, variance = MIXTURE.form, MIXTURE.schedule, MIXTURE.variance

        def __call__(self, x, t, sample):
            outputs = MIXTURE(x, t, sample)
            outputs[(sample == 2) & (t < 500)] = torch.nan
            return outputs

    refused(good, "expected finite model outputs along the path, found others in sample 2", Broken())
