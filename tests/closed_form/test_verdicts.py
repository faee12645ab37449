"""Verdicts: a budget of nats is never exceeded, and exact answers have the sequential sampler's law.

Statistical checks state their error rate; seeds are fixed, so a pass stays a pass.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import paradrift as pd
from paradrift.forms import Form
from paradrift.samplers.kinetic import kinetic_step

MIXTURE = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.05, pd.Discrete.linear(1000))
OU = pd.OU(horizon=4.0, last=0.05)
LINE = pd.GaussianMixture([0.3, 0.7], [[-1.5], [1.0]], 0.1, OU)
SAMPLERS = {
    "ddpm": pd.DDPM(),
    "ancestral": pd.Ancestral(),
    "sde 2m": pd.DPMppSDE(),
    "ddim 1": pd.DDIM(eta=1.0),
    "score": pd.Exponential(form=Form.SCORE, stochasticity=0.8),
    "noise": pd.Exponential(form=Form.NOISE),
}
SLOPES = {"zero": pd.Zero(), "data": pd.Zero(Form.DATA), "secant": pd.Secant(), "reference": pd.Reference(0.5)}
WINDOWS = {"1": pd.Sliding(1), "5": pd.Sliding(5), "blocks": pd.Blocks(3), "whole": pd.Whole()}
TIMES = np.linspace(999, 20, 17)


def request(sampler, **more):
    return dict(sampler=SAMPLERS[sampler], times=TIMES, dtype=torch.float64, seed=5, trajectory=True) | more


def langevin(steps, length, friction):
    """Underdamped Langevin dynamics as a table: pairs of rows (velocity, position), the position a node."""
    step, rows = kinetic_step(length, friction), pd.Rows(form=Form.VALUE)
    position = rows.add(t=0.0, evaluated=False)  # the start only, so that a fresh velocity comes before the first node
    velocity = rows.add(t=0.0, c=1.0, evaluated=False)
    position = rows.add(t=0.0, a={position: 1.0})
    for m in range(steps):
        moved = rows.add(t=0.0, a={velocity: step.v_v}, b={position: step.v_s}, c=step.v_noise, evaluated=False)
        a, c = {position: 1.0, velocity: step.u_v}, {moved: step.u_shared, moved + 1: step.u_noise}
        position = rows.add(t=0.0, a=a, b={position: step.u_s}, c=c, evaluated=m < steps - 1)
        velocity = moved
    return rows.build()


class Force:
    """A score without a schedule: minus the state, that of N(0, 1), or of a double well."""

    form, schedule, variance = Form.VALUE, None, None

    def __init__(self, well=False):
        self.well = well

    def __call__(self, x, t, sample):
        return 4 * x * (1 - x * x) if self.well else -x


# ---------------------------------------------------------------------------------------------------------------- KL


@settings(max_examples=25, deadline=None)
@given(
    sampler=st.sampled_from(sorted(SAMPLERS)),
    slopes=st.sampled_from(sorted(SLOPES)),
    window=st.sampled_from(sorted(WINDOWS)),
    guess=st.sampled_from([pd.Coast(), pd.Repeat()]),
    budget=st.sampled_from([1.0, 1e-1, 1e-3]),
)
def test_no_sample_ever_spends_more_than_the_budget_and_the_audit_agrees(sampler, slopes, window, guess, budget):
    chosen = dict(slopes=SLOPES[slopes], window=WINDOWS[window], guess=guess, stop=pd.KL(budget))
    solution = pd.sample(MIXTURE, (40, 2), **request(sampler, **chosen))
    audit = pd.certificate.kl(solution, MIXTURE)
    assert solution.converged
    assert solution.certifiable
    assert solution.certificate.evaluations == 0
    assert audit.nats.max() <= budget * (1 + 1e-9)
    torch.testing.assert_close(solution.certificate.per_node, audit.per_node, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(solution.certificate.llr, audit.llr, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(solution.samples, audit.samples, rtol=0, atol=1e-9)


def test_the_budget_holds_after_every_node_and_what_is_left_is_spent_later():
    solution = pd.sample(MIXTURE, (200, 2), **request("ddpm", stop=pd.KL(1.0), window=pd.Whole()))
    spent = solution.certificate.per_node.cumsum(0)
    share = torch.arange(1, len(spent) + 1)[:, None] / len(spent)
    assert bool((spent <= share * (1 + 1e-9)).all())
    assert solution.certificate.mean > 0.5  # a budget that is hardly touched would cost rounds
    assert bool((solution.certificate.per_node > 1.5 / len(spent)).any())


def test_less_budget_means_more_rounds_and_none_means_the_sequential_answer():
    exact = pd.sample(MIXTURE, (50, 2), **request("ddpm", solver=pd.sequential()))
    rounds = []
    for budget in (10.0, 1e-1, 1e-3, 1e-30):
        solution = pd.sample(MIXTURE, (50, 2), **request("ddpm", stop=pd.KL(budget), window=pd.Whole()))
        rounds.append(np.mean(solution.stats.sample_rounds))
    assert rounds == sorted(rounds)
    assert rounds[0] < rounds[-1] <= len(TIMES) - 1
    torch.testing.assert_close(solution.samples, exact.samples, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", ["ddpm", "sde 2m", "score"])
def test_weights_of_a_budgeted_run_have_mean_one(sampler):
    """Error rate: six comparisons at 4 standard errors, about 4e-4 in all, for other seeds."""
    solution = pd.sample(MIXTURE, (4000, 2), **request(sampler, stop=pd.KL(0.5), window=pd.Sliding(8)))
    found = solution.certificate
    weights, noise, root = torch.exp(-found.llr), found.llr - found.nats, math.sqrt(4000)
    assert 0.1 < found.mean <= 0.5
    assert abs(weights.mean() - 1) < 4 * weights.std() / root < 0.15
    assert abs(noise.mean()) < 4 * noise.std() / root


def test_a_budget_holds_for_pairs_of_rows_with_shared_noise():
    table = langevin(30, 0.2, 1.5)
    start = torch.linspace(-2, 2, 60, dtype=torch.float64)[:, None]
    common = dict(sampler=table, start=start, dtype=torch.float64, trajectory=True, window=pd.Whole())
    solution = pd.sample(Force(well=True), (60, 1), stop=pd.KL(0.1), **common)
    audit = pd.certificate.kl(solution, Force(well=True))
    assert solution.converged
    assert 1e-3 < audit.mean
    assert audit.nats.max() <= 0.1 * (1 + 1e-9)
    torch.testing.assert_close(solution.certificate.per_node, audit.per_node, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(solution.certificate.llr, audit.llr, rtol=1e-6, atol=1e-9)
    # the weight of a squared error of the force is length / (4 friction), whatever the step's coefficients
    step = kinetic_step(0.2, 1.5)
    psi, root = np.array([step.v_s, step.u_s]), np.array([[step.v_noise, 0], [step.u_shared, step.u_noise]])
    assert np.sum(np.linalg.solve(root, psi) ** 2) / 2 == pytest.approx(0.2 / (4 * 1.5), rel=1e-12)


def test_a_budget_that_ran_out_of_rounds_says_so_and_certifies_nothing():
    solution = pd.sample(MIXTURE, (5, 2), **request("ddpm", stop=pd.KL(1e-3), window=pd.Sliding(4), max_rounds=3))
    assert set(solution.status) == {pd.Status.BUDGET_EXHAUSTED}
    assert solution.certificate is None


def test_a_model_that_breaks_in_one_sample_leaves_the_budget_of_the_others_alone():
    class Breaking:
        form, schedule, variance = MIXTURE.form, MIXTURE.schedule, MIXTURE.variance

        def __call__(self, x, t, sample):
            out = MIXTURE(x, t, sample)
            return torch.where(((sample == 2) & (t < 500))[:, None], torch.nan, out)

    common = request("ddpm", stop=pd.KL(1e-2), window=pd.Sliding(6))
    broken, whole = pd.sample(Breaking(), (5, 2), **common), pd.sample(MIXTURE, (5, 2), **common)
    assert [status is pd.Status.CONVERGED for status in broken.status] == [True, True, False, True, True]
    assert broken.certificate is None
    others = [0, 1, 3, 4]
    torch.testing.assert_close(broken.samples[others], whole.samples[others], rtol=0, atol=0)


class WholeWindow:
    """Settles everything once the last change of the whole window is small: looks at later rows."""

    causal = False

    def __init__(self, tol):
        self.tol = tol

    def accept(self, view):
        return torch.where(view.change.amax(0) <= self.tol, view.span, 0)


def test_a_stop_that_looks_ahead_violates_the_identity_that_causal_methods_keep():
    """Beyond 10 standard errors; its causal twin of as many nats stays within 4 (error rate 6e-5)."""
    model, count = pd.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], 0.05, OU), 10_000
    picard = dict(window=pd.Whole(), slopes=pd.Zero(), guess=pd.Repeat(), trajectory=True, seed=1)
    common = dict(times=np.geomspace(4.0, 0.05, 20), dtype=torch.float64) | picard

    def away(solution):
        weights = torch.exp(-pd.certificate.kl(solution, model).llr)
        return abs(float((weights.mean() - 1) / weights.std())) * math.sqrt(count)

    ahead = pd.sample(model, (count, 1), stop=WholeWindow(0.4), **common)
    with pytest.raises(pd.SpecError, match="expected a causal path"):
        pd.certificate.kl(ahead, model)
    assert away(dataclasses.replace(ahead, certifiable=True)) > 10
    assert away(pd.sample(model, (count, 1), stop=pd.KL(0.3), **common)) < 4


# ------------------------------------------------------------------------------------------------------------- exact


def gaussian_law(sampler, times, model_mean, variance):
    """Mean and variance of the sequential sampler's answer for one-dimensional Gaussian data, from its own table."""
    table = sampler.tableau(OU, times).reform(Form.SCORE)
    mean, spread = 0.0, 1.0
    for m in range(1, table.rows):
        t = times[m - 1]
        C = math.exp(-t) * variance - math.expm1(-t)
        k, q = -1 / C, math.exp(-t / 2) * model_mean / C
        gain = table.a[m, m - 1] + table.b[m, m - 1] * k
        mean = gain * mean + table.b[m, m - 1] * q
        spread = gain**2 * spread + table.c[m, m] ** 2
    return mean, spread


@pytest.mark.parametrize("slopes", ["zero", "secant"])
@pytest.mark.parametrize("window", ["5", "whole"])
@pytest.mark.parametrize("refine", [True, False])
def test_exact_answers_have_the_gaussian_law_of_the_sequential_sampler(slopes, window, refine):
    """Kolmogorov-Smirnov against the exact normal law; error rate 1e-3 for each of eight, for other seeds."""
    times, sampler = np.geomspace(4.0, 0.05, 12), pd.Exponential(stochasticity=0.8)
    model = pd.Gaussian([0.7], 2.5, OU, form=Form.SCORE)
    solver = pd.Solver(window=WINDOWS[window], slopes=SLOPES[slopes], guess=pd.Coast(), stop=pd.Exact(4, refine))
    solution = pd.sample(model, (20_000, 1), sampler=sampler, times=times, solver=solver, seed=4, dtype=torch.float64)
    mean, variance = gaussian_law(sampler, times, 0.7, 2.5)
    assert np.mean(solution.stats.rejected) > 0.2  # without rejections nothing was tested
    law = stats.norm(mean, math.sqrt(variance))
    assert stats.kstest(solution.samples[:, 0].numpy(), law.cdf).pvalue > 1e-3


def test_drafts_taken_as_they_are_have_another_law():
    """What the tests above would say of a verdict that lets every draft pass: a pass of theirs means something."""
    times, sampler = np.geomspace(4.0, 0.05, 12), pd.Exponential(stochasticity=0.8)
    model = pd.Gaussian([0.7], 2.5, OU, form=Form.SCORE)
    chosen = dict(window=pd.Whole(), slopes=pd.Zero(), guess=pd.Coast(), stop=pd.Sweeps(1))
    solution = pd.sample(model, (20_000, 1), sampler=sampler, times=times, seed=4, dtype=torch.float64, **chosen)
    mean, variance = gaussian_law(sampler, times, 0.7, 2.5)
    assert stats.kstest(solution.samples[:, 0].numpy(), stats.norm(mean, math.sqrt(variance)).cdf).pvalue < 1e-9


@pytest.mark.parametrize("sampler", [pd.DDPM(), pd.DPMppSDE()])
@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_exact_answers_of_a_mixture_have_the_law_of_a_sequential_run_with_other_noises(sampler, count):
    """Two-sample Kolmogorov-Smirnov, error rate 1e-3 each, for other seeds."""
    common = dict(sampler=sampler, steps=20, dtype=torch.float64)
    found = pd.sample(LINE, (count, 1), exact=True, window=pd.Sliding(8), seed=5, **common)
    other = pd.sample(LINE, (count, 1), solver=pd.sequential(), seed=6, **common)
    assert np.mean(found.stats.rejected) > 0.2
    assert stats.ks_2samp(found.samples[:, 0], other.samples[:, 0]).pvalue > 1e-3


def energy_distance(x, y):
    return 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()


def test_exact_answers_in_the_plane_by_energy_distance():
    """A permutation test with 199 permutations: error rate 1 in 200 for other seeds."""
    common = dict(sampler=pd.DDPM(), steps=25, dtype=torch.float64)
    found = pd.sample(MIXTURE, (800, 2), exact=True, window=pd.Whole(), seed=1, **common).samples
    other = pd.sample(MIXTURE, (800, 2), solver=pd.sequential(), seed=2, **common).samples
    both, generator = torch.cat([found, other]), torch.Generator().manual_seed(0)
    seen = energy_distance(found, other)
    shuffled = [both[torch.randperm(1600, generator=generator)].split(800) for _ in range(199)]
    assert seen < max(energy_distance(*pair) for pair in shuffled)


def test_exact_answers_of_pairs_of_rows_have_the_law_of_the_affine_chain():
    """Variance of the position within 4 standard errors, and Kolmogorov-Smirnov at 1e-3."""
    steps, length, friction = 12, 0.4, 1.2
    step = kinetic_step(length, friction)
    law = np.zeros((2, 2))  # covariance of (velocity, position)
    law[0, 0] = 1.0
    move = np.array([[step.v_v, -step.v_s], [step.u_v, 1 - step.u_s]])
    root = np.array([[step.v_noise, 0.0], [step.u_shared, step.u_noise]])
    for _ in range(steps):
        law = move @ law @ move.T + root @ root.T
    start = torch.zeros(20_000, 1, dtype=torch.float64)
    chosen = dict(window=pd.Whole(), slopes=pd.Zero(), guess=pd.Coast(), exact=True, seed=6, dtype=torch.float64)
    solution = pd.sample(Force(), (20_000, 1), sampler=langevin(steps, length, friction), start=start, **chosen)
    found = solution.samples[:, 0].numpy()
    assert np.mean(solution.stats.rejected) > 0.2
    assert found.var() == pytest.approx(law[1, 1], rel=4 * math.sqrt(2 / 20_000))
    assert stats.kstest(found, stats.norm(0, math.sqrt(law[1, 1])).cdf).pvalue > 1e-3


def test_drafts_fall_as_often_as_the_total_variation_between_them_and_the_truth():
    """Three rows, the second drafted with slope 0: P(fall) = 2 Phi(|delta| / 2) - 1; 4 standard errors."""
    times, count, variance, centre = np.array([2.0, 1.0, 0.5]), 40_000, 2.5, 0.7
    model, sampler = pd.Gaussian([centre], variance, OU, form=Form.SCORE), pd.Exponential()
    chosen = dict(slopes=pd.Zero(), guess=pd.Coast(), window=pd.Whole(), stop=pd.Exact(3))
    start = torch.zeros(count, 1, dtype=torch.float64)
    common = dict(sampler=sampler, times=times, start=start, seed=3, dtype=torch.float64, trajectory=True)
    solution = pd.sample(model, (count, 1), **chosen, **common)
    # Both drafts were made before any evaluation, with the output zero. Row 1: its shift is the same in all samples.
    table = sampler.tableau(OU, times)
    spread = np.exp(-times) * variance - np.expm1(-times)
    first = abs(table.b[1, 0] * centre * math.exp(-times[0] / 2) / spread[0] / table.c[1, 1])
    fell_first = torch.tensor(solution.stats.rejected) > 0
    # Row 2 is judged against drafts of the first round where row 1 stood, else drawn again from the score at row 0.
    chance = math.erf(first / 2 / math.sqrt(2))
    assert 0.02 < chance < 0.9
    plain = pd.sample(model, (count, 1), solver=pd.sequential(), **common).trajectory
    changed = ((solution.trajectory[:, 1] - plain[:, 1]).abs() > 1e-12)[:, 0]
    # a draft that stands is the row of another noise, one that falls is its mirror image: neither is the plain row
    assert bool(changed.all())
    assert bool(fell_first.any())
    mirrored = 2 * float(table.b[1, 0] * centre * math.exp(-times[0] / 2) / spread[0]) - plain[:, 1, 0]
    fell = (solution.trajectory[:, 1, 0] - mirrored).abs() < 1e-9
    error = math.sqrt(chance * (1 - chance) / count)
    assert float(fell.double().mean()) == pytest.approx(chance, abs=4 * error)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("stop", [pd.KL(0.1), pd.Exact(3)])
def test_chains_of_a_step_or_two_are_the_sequential_ones_where_nothing_was_drafted(steps, stop):
    common = dict(sampler=pd.DDPM(), steps=steps, dtype=torch.float64, seed=3)
    found = pd.sample(MIXTURE, (4, 2), stop=stop, window=pd.Sliding(4), **common)
    assert found.converged
    assert found.stats.rounds <= steps
    if steps == 1:
        assert torch.equal(found.samples, pd.sample(MIXTURE, (4, 2), solver=pd.sequential(), **common).samples)


@pytest.mark.parametrize("wish", [dict(stop=pd.KL(0.1)), dict(exact=True)])
@pytest.mark.parametrize("several", [True, False])
def test_verdicts_leave_generators_where_the_sequential_loop_does(wish, several):
    def generators():
        made = [torch.Generator().manual_seed(seed) for seed in range(3)]
        return made if several else made[0]

    mine, theirs = generators(), generators()
    common = dict(sampler=pd.DDPM(), steps=20)
    found = pd.sample(MIXTURE, (3, 2), generator=mine, window=pd.Sliding(6), **common, **wish)
    pd.sample(MIXTURE, (3, 2), generator=theirs, solver=pd.sequential(), **common)
    states = [[g.get_state() for g in (gs if several else [gs])] for gs in (mine, theirs)]
    assert found.converged
    assert found.certificate.mean <= 0.1
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))


@pytest.mark.slow
def test_autospeculation_gains_at_least_the_cube_root_that_is_published_and_secants_far_more():
    """Mean rounds of four samples in 64 dimensions, windows of the whole chain: 125 steps and 1000."""
    means = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).double()
    model = pd.GaussianMixture([0.5, 0.3, 0.2], means, 0.05, pd.Discrete.linear(1000))
    secants = pd.Solver(window=pd.Whole(), slopes=pd.Secant(), guess=pd.Coast(), stop=pd.Exact())
    rounds = {
        (name, steps): np.mean(pd.sample(model, (4, 64), steps=steps, solver=solver).stats.sample_rounds)
        for steps in (125, 1000)
        for name, solver in (("frozen", pd.autospeculative(steps)), ("secants", secants))
    }
    assert 1000 / rounds["frozen", 1000] > 8 ** (1 / 3) * 125 / rounds["frozen", 125]
    assert rounds["secants", 1000] < 2 * rounds["secants", 125] < rounds["frozen", 1000]


def test_exact_answers_do_not_depend_on_batch_mates_and_repeat():
    common = dict(sampler=pd.DDPM(), steps=30, dtype=torch.float64, exact=True, window=pd.Sliding(8))
    three = pd.sample(MIXTURE, (3, 2), seed=[7, 8, 9], **common)
    alone = pd.sample(MIXTURE, (1, 2), seed=[8], **common)
    torch.testing.assert_close(three.samples[1:2], alone.samples, rtol=0, atol=1e-12)
    assert three.stats.rejected[1:2] == alone.stats.rejected
    assert three.certificate.mean == 0
    assert float(three.error.max()) == 0
    assert not three.certifiable
    with pytest.raises(pd.SpecError, match="exact in law"):
        pd.certificate.kl(dataclasses.replace(three, trajectory=torch.zeros(3, 31, 2)), MIXTURE)


def test_autospeculation_drafts_with_a_frozen_prediction_and_keeps_the_law():
    """Kolmogorov-Smirnov at 1e-3 for other seeds; and fewer rounds than steps, more than refined drafts need."""
    common = dict(sampler=pd.DDPM(), steps=40, dtype=torch.float64, seed=5)
    found = pd.sample(LINE, (10_000, 1), solver=pd.autospeculative(window=20, seed=5), **common)
    other = pd.sample(LINE, (10_000, 1), solver=pd.sequential(), **common | {"seed": 6})
    refined = pd.sample(LINE, (10_000, 1), exact=True, window=pd.Sliding(20), **common)
    assert stats.ks_2samp(found.samples[:, 0], other.samples[:, 0]).pvalue > 1e-3
    rounds = [np.mean(solution.stats.sample_rounds) for solution in (refined, found, other)]
    assert rounds == sorted(rounds)
    # one round for every draft that fell, and one or two for the windows that passed whole
    assert np.all(np.array(found.stats.sample_rounds) >= np.array(found.stats.rejected))


def test_a_window_of_one_node_is_the_sequential_sampler_itself():
    common = dict(sampler=pd.DDPM(), steps=30, dtype=torch.float64, seed=2)
    sequential = pd.sample(MIXTURE, (4, 2), solver=pd.sequential(), **common)
    for stop in (pd.KL(0.1), pd.Exact(2)):
        assert torch.equal(
            pd.sample(MIXTURE, (4, 2), stop=stop, window=pd.Sliding(1), **common).samples, sequential.samples
        )


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (dict(stop=pd.KL(0.1), sampler=pd.DDIM()), "found none in row 1"),
        (dict(exact=True, sampler=pd.DDIM()), "found none in row 1"),
        (dict(stop=pd.KL(0.1), sampler=pd.Exponential(form=Form.DATA, stochasticity=0.0)), "found none in row 1"),
        (dict(stop=pd.KL(0.1), sampler=pd.Heun()), "found none in row"),
        (dict(exact=True, tol=0.1), "expected no stop= or tol= beside exact=True"),
        (dict(stop=pd.KL(0.1), tol=0.1), "expected either stop= or tol="),
        (dict(certify=True, generator=torch.Generator()), "expected a seed to certify"),
        (dict(certify=True, sampler=pd.DDIM()), "found none in row 1"),
    ],
)
def test_what_cannot_be_certified_is_refused_in_one_sentence(wish, words):
    with pytest.raises(pd.SpecError, match=words) as error:
        pd.sample(MIXTURE, (2, 2), steps=10, **wish)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("nats", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_must_be_positive(nats):
    with pytest.raises(pd.SpecError, match="expected a positive budget in nats"):
        pd.KL(nats)


def test_a_middle_row_without_noise_is_named():
    table = pd.DDPM().tableau(MIXTURE.schedule, TIMES)
    c = table.c.copy()
    c[7, 7] = 0
    with pytest.raises(pd.SpecError, match="found none in row 7"):
        pd.sample(MIXTURE, (2, 2), sampler=dataclasses.replace(table, c=c), stop=pd.KL(0.1))
    c = table.c.copy()
    c[9, 7] = 0.1
    with pytest.raises(pd.SpecError, match="found row 9 using that of row 7"):
        pd.sample(MIXTURE, (2, 2), sampler=dataclasses.replace(table, c=c), stop=pd.KL(0.1))


def test_solutions_are_written_with_everything_an_audit_needs(tmp_path):
    chosen = dict(sampler=pd.DPMppSDE(), steps=20, stop=pd.KL(0.1), window=pd.Sliding(8), seed=[3, 4, 5, 6])
    solution = pd.sample(MIXTURE, (4, 2), trajectory=True, **chosen)
    solution.save(tmp_path / "s.safetensors")
    read = pd.Solution.load(tmp_path / "s.safetensors")
    assert read.recipe.seed == (3, 4, 5, 6)
    assert read.stats == solution.stats
    for name in ("t", "a", "b", "c", "evaluated", "alpha", "sigma", "scale", "draws"):
        np.testing.assert_array_equal(getattr(read.recipe.table, name), getattr(solution.recipe.table, name))
    assert torch.equal(read.certificate.per_node, solution.certificate.per_node)
    before, after = pd.certificate.kl(solution, MIXTURE), pd.certificate.kl(read, MIXTURE)
    assert torch.equal(before.nats, after.nats)
    assert after.mean == pytest.approx(solution.certificate.mean, rel=1e-3)
