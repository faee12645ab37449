"""Plans: the theorems' numbers by hand, growth and monotonicity, runs that keep the plan, fits, words and bad input."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import paradrift as pd
from paradrift.cli import main
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.plans import Constants, Measured, fit

DIMENSIONS = [2**power for power in range(4, 21)]


def test_the_sde_by_hand_for_4096_dimensions_and_one_nat():
    """Quarter 1/4: T >= log(4096 * 4) = 9.7: 10 blocks of 1; 1 / eps = 4 * 4096 * 10.001; K >= log(163856) = 12.007."""
    plan = pd.plan(4096, kl=1.0)
    assert (plan.blocks, plan.length, plan.horizon, plan.sweeps) == (10, 1.0, pytest.approx(10.001), 13)
    assert plan.step == pytest.approx(1 / (4 * 4096 * 10.001))
    # 1 / eps = 163856.4 equal steps; the last block, from 1.001 to 0.001, has 164 and log(1000) / log(1 + eps)
    assert list(plan.steps) == [163857] * 9 + [164 + 1131884]
    assert (plan.rounds, plan.points, plan.sequential) == (130, 1132048, 9 * 163857 + 1132048)
    assert plan.terms.truncation == pytest.approx(4096 * math.exp(-10.001))
    assert plan.terms.discretisation == pytest.approx(0.25)
    assert plan.terms.score == plan.score == 0.25
    assert plan.terms.picard == pytest.approx(4096 * 10.001 * math.exp(-13))
    assert plan.terms.total == pytest.approx(sum(dataclasses.astuple(plan.terms)))
    assert plan.terms.total < 1


def test_the_ode_by_hand_for_256_dimensions_and_total_variation_one_tenth():
    """TV^2 <= 0.01, quarter 0.0025: T >= log(102400) = 11.54; eps = sqrt(0.0025 / 256) / 12.001; K = log(14745600)."""
    plan = pd.plan(256, tv=0.1, ode=True)
    assert plan.kl == pytest.approx(0.02)
    assert (plan.blocks, plan.horizon, plan.sweeps) == (12, pytest.approx(12.001), 17)
    assert plan.step == pytest.approx(math.sqrt(0.0025 / 256) / 12.001)
    fine = math.ceil(12.001 / math.sqrt(0.0025 / 256))
    assert plan.corrector == pd.plans.Corrector(time=1.0, steps=fine, sweeps=17)
    last = math.ceil(0.001 * fine) + math.ceil(math.log(1000) / math.log1p(plan.step))
    assert list(plan.steps) == [fine] * 11 + [last]
    assert plan.rounds == 2 * 12 * 17
    assert plan.sequential == 11 * fine + last + 12 * fine
    assert plan.points == last > fine
    assert plan.score == pytest.approx(0.0025 / (12.001**2 + 144))
    expected = (256 * math.exp(-12.001), 0.0025, 0.0025, 256 * 144 * math.exp(-17))
    assert dataclasses.astuple(plan.terms) == pytest.approx(expected)


def test_the_corrector_of_a_steep_score_by_hand():
    """L = 2, quarter 0.01: N = 36 blocks of 1/4; corrections of time 1 / sqrt(2), steps sqrt(0.01 / 64) / N; K = 16."""
    plan = pd.plan(64, tv=0.2, ode=True, lipschitz=2.0)
    assert (plan.blocks, plan.length, plan.horizon) == (36, 0.25, pytest.approx(9.001))
    assert plan.corrector == pd.plans.Corrector(time=math.sqrt(0.5), steps=2037, sweeps=16)  # 2036.5, log(8294400)
    longer = pd.plan(64, tv=0.2, ode=True, lipschitz=2.0, constants=Constants(correction=2.0, block=0.5))
    assert (longer.length, longer.corrector.time) == (0.125, pytest.approx(math.sqrt(2)))


def test_a_short_horizon_counts_the_grid_by_its_early_stop():
    plan = pd.plan(1, kl=1.0, early_stop=1e-4)
    assert (plan.horizon, plan.clock) == (pytest.approx(2.0001), pytest.approx(math.log(1e4)))
    assert plan.step == pytest.approx(1 / (4 * math.log(1e4)))


def test_total_variation_becomes_nats_by_pinsker():
    assert pd.plan(64, tv=0.3) == pd.plan(64, kl=2 * 0.3**2)


def test_steeper_scores_take_shorter_blocks_and_a_larger_moment_a_longer_horizon():
    plan, steep, far = pd.plan(64, kl=1.0), pd.plan(64, kl=1.0, lipschitz=2.0), pd.plan(64, kl=1.0, second_moment=6400)
    assert (steep.length, plan.length) == (0.25, 1.0)
    assert steep.blocks == 23  # (log(256) - 0.001) / 0.25
    assert pd.plan(64, kl=1.0, lipschitz=0.5) == dataclasses.replace(plan, lipschitz=0.5)
    assert far.horizon == pytest.approx(0.001 + math.ceil(math.log(4 * (64 + 6400) / 2) - 0.001))
    assert far.horizon > plan.horizon
    assert far.terms.truncation == pytest.approx((64 + 6400) / 2 * math.exp(-far.horizon))


@pytest.mark.parametrize("ode", [False, True])
def test_rounds_grow_like_the_square_of_log_d_and_sequential_steps_like_a_power_of_d(ode):
    logs = np.log(DIMENSIONS)
    plans = [pd.plan(dim, kl=1.0, ode=ode) for dim in DIMENSIONS]
    assert np.polyfit(logs, [plan.blocks for plan in plans], 1)[0] == pytest.approx(1, abs=0.05)
    assert np.polyfit(logs, [plan.sweeps for plan in plans], 1)[0] == pytest.approx(1.1, abs=0.1)  # log d + log T
    curve = np.polyfit(logs, [plan.rounds for plan in plans], 2)[0]
    assert curve == pytest.approx(2 if ode else 1, rel=0.25)
    power = np.polyfit(logs, np.log([plan.sequential for plan in plans]), 1)[0]
    memory = np.polyfit(logs, np.log([plan.points for plan in plans]), 1)[0]
    low = 0.5 if ode else 1.0  # and a factor log d
    assert low <= memory <= power + 0.1 < low + 0.3
    assert [plan.rounds for plan in plans] == sorted(plan.rounds for plan in plans)


@given(
    st.integers(1, 10**4),
    st.floats(2e-3, 1.0),
    st.floats(1.0, 10.0),
    st.floats(0.3, 5.0),
    st.booleans(),
    st.sampled_from([1e-4, 1e-3, 0.05, 0.5]),
)
def test_more_accuracy_never_takes_fewer_rounds_points_or_steps(dim, tv, factor, lipschitz, ode, early_stop):
    options = dict(ode=ode, lipschitz=lipschitz, early_stop=early_stop)
    dear, cheap = pd.plan(dim, tv=tv / factor, **options), pd.plan(dim, tv=tv, **options)
    for name in ("rounds", "points", "sequential", "sweeps", "blocks", "horizon"):
        assert getattr(dear, name) >= getattr(cheap, name)
    for plan in (dear, cheap):
        quarter = plan.kl / (8 if ode else 4)
        assert max(dataclasses.astuple(plan.terms)) <= quarter * (1 + 1e-9)
        assert plan.solver_rounds <= plan.blocks * plan.sweeps
        assert plan.rounds <= plan.sequential


@given(st.floats(0.02, 1.0), st.floats(0.5, 3.0), st.sampled_from([1e-3, 0.05, 0.7]))
def test_the_grid_has_the_planned_steps_and_keeps_the_shrinking_condition(kl, lipschitz, early_stop):
    plan = pd.plan(1, kl=kl, lipschitz=lipschitz, early_stop=early_stop)
    times = plan.grid()
    assert len(times) == plan.sequential + 1
    assert (times[0], times[-1]) == (pytest.approx(plan.horizon), pytest.approx(early_stop))
    assert np.all(-np.diff(times) <= plan.step * np.minimum(1, times[1:]) * (1 + 1e-6))
    borders = times[np.cumsum(plan.steps)]
    np.testing.assert_allclose(borders, plan.horizon - plan.length * np.arange(1, plan.blocks + 1), rtol=1e-9)


def test_the_grid_of_another_schedule_has_the_same_noise_levels():
    plan, vp = pd.plan(2, kl=1.0, early_stop=0.05), pd.VP()
    np.testing.assert_allclose(vp.alpha(plan.grid(vp)), np.exp(-plan.grid() / 2), rtol=1e-9)
    assert plan.arguments(vp)["times"][0] == plan.grid(vp)[0]
    with pytest.raises(SpecError, match=r"alpha\^2 \+ sigma\^2 = 1"):
        plan.grid(pd.VE())
    with pytest.raises(SpecError, match=r"reaches from time .* use OU\(horizon=14\.05"):
        pd.plan(1, kl=4.0, second_moment=1e6, early_stop=0.05).grid(pd.VP())


def test_the_early_stop_moves_the_data_by_at_most_the_blur():
    """Gaussian data N(0, v) per element: W2 = |sqrt(v) - sqrt(v e^-eta + 1 - e^-eta)| sqrt(d)."""
    for value in (0.0, 0.5, 1.0, 4.0):
        plan = pd.plan(9, kl=1.0, second_moment=9 * value, early_stop=0.1)
        distance = 3 * abs(math.sqrt(value) - math.sqrt(value * math.exp(-0.1) - math.expm1(-0.1)))
        assert distance <= plan.blur * (1 + 1e-12)
        assert plan.blur < 1.5 + 0.2 * math.sqrt(value)
    assert pd.plan(9, kl=1.0, second_moment=0, early_stop=0.1).blur == pytest.approx(3 * math.sqrt(-math.expm1(-0.1)))


@pytest.mark.parametrize("moment", [0.0, 1.0, 40.0])
def test_the_truncation_term_with_factor_one_is_a_bound(moment):
    """A point mass is the worst law of its second moment: KL(p_T | N(0, 1)) = (a^2 (m - 1) - log(1 - a^2)) / 2."""
    for kl in (1.0, 0.1):
        plan = pd.plan(1, kl=kl, second_moment=moment)
        square = math.exp(-plan.horizon)
        exact = (square * (moment - 1) - math.log1p(-square)) / 2
        assert exact <= plan.terms.truncation <= plan.kl / 4


def gaussian(plan, value, mean, solver=None):
    """Mean, variance and rounds of a run on N(mean, value): every answer is affine in the start and the noises."""
    schedule = pd.OU(horizon=plan.horizon, last=plan.early_stop)
    model = pd.Gaussian([mean], value, schedule, form=Form.SCORE)
    arguments = plan.arguments() | ({} if solver is None else {"solver": solver})
    rows = arguments["sampler"].tableau(schedule, arguments["times"]).rows
    samples = 2 + rows
    start = torch.zeros(samples, 1, dtype=torch.float64)
    start[1] = 1
    noises = torch.zeros(samples, rows, 1, dtype=torch.float64)
    noises[torch.arange(2, samples), torch.arange(samples - 2)] = 1
    found = pd.sample(model, (samples, 1), start=start, noise=noises, dtype=torch.float64, **arguments)
    loads = found.samples[:, 0].numpy() - found.samples[0, 0].numpy()
    return float(found.samples[0, 0]), float(loads @ loads), found.stats.rounds


def divergence(law, other):
    """KL(law | other) of Gaussians in one dimension."""
    (mean, var), (centre, spread) = law, other
    return 0.5 * (var / spread - 1 + (mean - centre) ** 2 / spread + math.log(spread / var))


def noised(plan, value, mean):
    alpha = math.exp(-plan.early_stop / 2)
    return alpha * mean, alpha**2 * value + 1 - alpha**2


def gaussian_plan(dim, kl, value, mean, **options):
    steepest = 1 / min(1.0, value * math.exp(-0.05) - math.expm1(-0.05))
    moment = dim * (value + mean**2)
    return pd.plan(dim, kl=kl, lipschitz=steepest, second_moment=moment, early_stop=0.05, **options)


@pytest.mark.parametrize(
    ("dim", "kl", "value", "mean"), [(1, 0.5, 1.0, 0.0), (2, 1.0, 2.5, 0.7), (4, 2.0, 0.6, 0.5), (8, 4.0, 1.0, 0.3)]
)
def test_a_planned_run_on_a_gaussian_takes_the_planned_rounds_and_stays_below_the_planned_nats(dim, kl, value, mean):
    plan = gaussian_plan(dim, kl, value, mean)
    mean_found, var, rounds = gaussian(plan, value, mean)
    assert rounds == plan.rounds == plan.blocks * plan.sweeps
    assert 1e-9 < dim * divergence(noised(plan, value, mean), (mean_found, var)) < plan.kl
    exact, spread, steps = gaussian(plan, value, mean, pd.sequential())
    assert steps == plan.sequential
    assert 0 < dim * divergence((exact, spread), (mean_found, var)) < plan.terms.picard
    assert dim * divergence(noised(plan, value, mean), (exact, spread)) < plan.kl - plan.terms.picard


@pytest.mark.parametrize(("dim", "kl", "value", "mean"), [(2, 1.0, 2.5, 0.7), (4, 4.0, 0.3, 0.5), (1, 0.2, 1.0, 0.0)])
def test_a_planned_run_of_the_ode_with_its_corrector_takes_the_planned_rounds(dim, kl, value, mean):
    """And stays below the planned total variation, here by Pinsker's inequality; sequentially too."""
    plan = gaussian_plan(dim, kl, value, mean, ode=True)
    sampler = plan.arguments()["sampler"]
    assert sampler.predictor == pd.Exponential(stochasticity=0.0)
    assert sampler.corrector.time / math.sqrt(plan.lipschitz) == pytest.approx(plan.corrector.time)
    found, var, rounds = gaussian(plan, value, mean)
    assert rounds == plan.rounds == plan.solver_rounds + plan.blocks * plan.corrector.sweeps
    assert 1e-9 < dim * divergence(noised(plan, value, mean), (found, var)) / 2 < plan.kl / 2
    exact, spread, steps = gaussian(plan, value, mean, pd.sequential())
    assert steps == plan.sequential
    assert var != spread
    assert dim * divergence((exact, spread), (found, var)) / 2 < plan.terms.picard


def test_blocks_shorter_than_the_sweeps_are_exact_and_left_early():
    plan = dataclasses.replace(gaussian_plan(1, 1.0, 2.5, 0.7), sweeps=10)
    assert list(plan.steps) == [13, 13, 1 + 39]  # eps = 1 / (4 * 3.05); log(20) / log(1 + eps) = 38.03
    assert gaussian(plan, 2.5, 0.7)[2] == plan.rounds == 30
    more = dataclasses.replace(plan, sweeps=20)
    assert gaussian(more, 2.5, 0.7)[2] <= more.rounds == 13 + 13 + 20
    assert more.terms.picard > 0 == dataclasses.replace(plan, sweeps=40).terms.picard


def test_a_planned_run_on_a_mixture_stays_below_the_planned_nats():
    """KL over 40 bins is at most that of the laws; 4000 draws add about 40 / (2 * 4000) = 0.005."""
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)[:, None]
    make = lambda schedule: pd.GaussianMixture([0.4, 0.6], [[-1.2], [0.8]], 0.5, schedule, form=Form.SCORE)  # noqa: E731
    rough = make(pd.OU(last=0.05))
    levels = np.geomspace(0.05, 8, 40)
    steepest = max(float(rough.jacobian(grid, torch.full((801,), time)).abs().max()) for time in levels)
    plan = pd.plan(1, kl=1.0, lipschitz=steepest, second_moment=0.5 + 0.4 * 1.44 + 0.6 * 0.64, early_stop=0.05)
    model = make(pd.OU(horizon=plan.horizon, last=0.05))
    found = pd.sample(model, (4000, 1), dtype=torch.float64, plan=plan)
    assert found.stats.rounds == plan.rounds == plan.blocks * plan.sweeps
    edges = torch.linspace(-4, 4, 39, dtype=torch.float64)
    alpha, sigma = math.exp(-0.025), math.sqrt(-math.expm1(-0.05))
    spread = math.sqrt(alpha**2 * 0.5 + sigma**2)
    normal = torch.special.ndtr((edges[:, None] - alpha * torch.tensor([-1.2, 0.8])) / spread)
    below = torch.cat([torch.zeros(1), normal @ torch.tensor([0.4, 0.6], dtype=torch.float64), torch.ones(1)])
    shares = torch.bincount(torch.bucketize(found.samples[:, 0], edges), minlength=40) / 4000
    exact = below.diff()
    filled = shares > 0
    nats = float((exact[filled] * (exact[filled] / shares[filled]).log()).sum())
    assert 1e-4 < nats < 0.02 < plan.kl


def test_the_solver_is_the_preset_with_blocks_of_equal_time():
    plan = pd.plan(2, kl=1.0, early_stop=0.05)
    solver, preset = plan.solver(), pd.piadm_sde(plan.blocks, plan.sweeps)
    assert dataclasses.replace(solver, window=preset.window) == preset
    front = torch.tensor([0, plan.steps[0] - 1, plan.steps[0], plan.steps.sum() - 1])
    ends = np.cumsum(plan.steps)
    limits = solver.window.limit(front, int(ends[-1]))
    assert limits.tolist() == [ends[0], ends[0], ends[1], ends[-1]]


def test_a_plan_too_large_for_a_table_says_so():
    with pytest.raises(SpecError, match="at most 10000 rows to be run, found 2606762"):
        pd.plan(4096, kl=1.0).arguments()


def test_a_fit_returns_the_constants_that_made_the_errors():
    truth = Constants(truncation=0.3, discretisation=0.02, score=1.7, picard=5.0, contraction=1.6)
    runs = []
    for dim, sweeps in ((4, 3), (16, 4), (64, 6)):
        plan = dataclasses.replace(pd.plan(dim, kl=1.0, constants=truth), sweeps=sweeps)
        runs.append(Measured(plan=plan, **dataclasses.asdict(plan.terms)))
    assert dataclasses.astuple(fit(runs)) == pytest.approx(dataclasses.astuple(truth))
    only = fit([Measured(plan=runs[0].plan, picard=runs[0].picard)], Constants(contraction=1.6, block=2.0))
    assert dataclasses.astuple(only) == pytest.approx(
        dataclasses.astuple(Constants(picard=5.0, contraction=1.6, block=2))
    )


def test_a_fit_is_least_squares_in_logarithms():
    plans = [dataclasses.replace(pd.plan(16, kl=1.0), sweeps=sweeps) for sweeps in (2, 3, 5, 6)]
    errors = [0.5, 0.1, 0.02, 0.001]
    found = fit([Measured(plan=plan, picard=error) for plan, error in zip(plans, errors, strict=True)])
    slope, level = np.polyfit([2, 3, 5, 6], np.log(errors) - np.log(16 * plans[0].horizon), 1)
    assert (found.contraction, found.picard) == (pytest.approx(-slope), pytest.approx(math.exp(level)))
    pair = fit([Measured(plan=plans[0], truncation=error) for error in (0.1, 0.4)])
    assert pair.truncation == pytest.approx(0.2 / plans[0].orders.truncation)


def test_constants_of_a_pilot_run_make_a_cheaper_plan_that_still_holds():
    pilot = gaussian_plan(2, 1.0, 2.5, 0.7)
    exact = gaussian(pilot, 2.5, 0.7, pd.sequential())[:2]
    runs = [Measured(plan=pilot, discretisation=2 * divergence(noised(pilot, 2.5, 0.7), exact))]
    for sweeps in (2, 3, 4):
        trial = dataclasses.replace(pilot, sweeps=sweeps)
        runs.append(Measured(plan=trial, picard=2 * divergence(exact, gaussian(trial, 2.5, 0.7)[:2])))
    constants = fit(runs)
    plan = gaussian_plan(2, 0.1, 2.5, 0.7, constants=constants)
    assert plan.sequential < gaussian_plan(2, 0.1, 2.5, 0.7).sequential / 10
    mean, var, rounds = gaussian(plan, 2.5, 0.7)
    assert rounds <= plan.rounds
    assert 2 * divergence(noised(plan, 2.5, 0.7), (mean, var)) < 0.1


def test_the_table_says_what_the_plan_says():
    plan = pd.plan(4096, kl=1.0)
    text = str(plan)
    for words in (
        "PIADM-SDE (Theorem 3.3)",
        "4,096",
        "10.001",
        "163,857 to 1,132,048",
        "130",
        "2,606,761",
        "d T exp(-K)",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100
    other = str(pd.plan(64, tv=0.5, ode=True))
    assert "PIADM-ODE (Theorem 3.5)" in other
    assert "TV^2 at most 0.25" in other
    assert "corrector" in other
    assert "log(1/eta)" in str(pd.plan(1, kl=1.0))


def test_the_command_prints_the_table(capsys):
    assert main(["plan", "--dim", "4096", "--kl", "1"]) == 0
    assert capsys.readouterr().out.strip() == str(pd.plan(4096, kl=1.0))
    assert main(["plan", "--dim", "64", "--tv", "0.2", "--ode", "--lipschitz", "2", "--early-stop", "0.01"]) == 0
    assert capsys.readouterr().out.strip() == str(pd.plan(64, tv=0.2, ode=True, lipschitz=2.0, early_stop=0.01))
    assert main(["plan", "--dim", "0", "--kl", "1"]) == 2
    assert capsys.readouterr().err == "paradrift: expected dim to be a whole number of at least 1, found 0\n"


@pytest.mark.parametrize(
    ("dim", "options", "words"),
    [
        (0, dict(kl=1.0), "dim to be a whole number of at least 1, found 0"),
        (1.5, dict(kl=1.0), "dim to be a whole number"),
        (4, dict(kl=0.0), "kl to be a positive number, found 0.0"),
        (4, dict(kl=math.nan), "kl to be a positive number, found nan"),
        (4, dict(), "kl= or tv=, one of the two, found neither"),
        (4, dict(kl=1.0, tv=0.1), "kl= or tv=, one of the two, found both"),
        (4, dict(tv=1.5), "tv above 0 and at most 1, found 1.5"),
        (4, dict(tv=0.0), "tv above 0 and at most 1, found 0.0"),
        (4, dict(kl=1.0, lipschitz=0.0), "lipschitz to be a positive number"),
        (4, dict(kl=1.0, lipschitz=1e9), "at most 10000000 blocks"),
        (4, dict(kl=1.0, early_stop=0.0), "early_stop to be a positive number"),
        (4, dict(kl=1.0, second_moment=-1.0), "second_moment to be a number of at least 0"),
        (4, dict(kl=1.0, score=0.3), "score error between 0 and 0.25, a quarter of the budget, found 0.3"),
        (4, dict(kl=1e-20), "at most 1e+15 steps"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(dim, options, words):
    with pytest.raises(SpecError) as caught:
        pd.plan(dim, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_constants_and_pilots_are_refused():
    plan = pd.plan(4, kl=1.0)
    with pytest.raises(SpecError, match="the constant picard to be a positive number, found -1"):
        Constants(picard=-1)
    with pytest.raises(SpecError, match="the measured score error to be a positive number, found 0"):
        Measured(plan=plan, score=0.0)
    with pytest.raises(SpecError, match="at least one measured error, found none"):
        fit([Measured(plan=plan)])
    rising = [Measured(plan=dataclasses.replace(plan, sweeps=k), picard=float(k)) for k in (2, 3)]
    with pytest.raises(SpecError, match="Picard errors that fall with the sweeps"):
        fit(rising)


def test_a_given_score_error_is_kept():
    plan = pd.plan(4, kl=1.0, score=0.0)
    assert (plan.score, plan.terms.score) == (0.0, 0.0)
    assert json.dumps(dataclasses.asdict(plan))


def test_a_plan_is_one_argument_and_speaks_for_itself():
    plan = pd.plan(2, kl=1.0, second_moment=2 * 2.5, early_stop=0.05)
    model = pd.Gaussian([0.0, 0.0], 2.5, pd.OU(horizon=plan.horizon, last=plan.early_stop))
    one = pd.sample(model, (3, 2), plan=plan, seed=1)
    other = pd.sample(model, (3, 2), seed=1, **plan.arguments(model.schedule))
    assert torch.equal(one.samples, other.samples)
    with pytest.raises(pd.SpecError, match="expected no sampler=, steps=, times= or solver= beside plan="):
        pd.sample(model, (3, 2), plan=plan, steps=10)
    with pytest.raises(pd.SpecError, match="expected samples of 2 elements for this plan, found 3"):
        pd.sample(model, (3, 3), plan=plan)
