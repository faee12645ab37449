"""Parareal: its iterates by hand, the sequential sampler's answer, its rounds, and what may go wrong."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paradrift as pd
from paradrift.forms import Form
from paradrift.noise import Given
from paradrift.solvers.base import Interrupted
from paradrift.solvers.holding import cuts, held
from paradrift.solvers.method import Problem

SCHEDULE = pd.OU(horizon=4.0, last=0.05)
SAMPLERS = [
    pd.DDPM(),
    pd.DDIM(),
    pd.DDIM(eta=0.5),
    pd.Euler(),
    pd.Ancestral(),
    pd.Exponential(form=Form.SCORE, stochasticity=1.0),
    pd.Exponential(form=Form.RESIDUAL, stochasticity=0.8),
    pd.Heun(),
]
MULTISTEP = [pd.DPMpp2M(), pd.DPMpp3M(short=0), pd.DPMppSDE(short=0)]


def mixture(form=Form.NOISE):
    return pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, SCHEDULE, form=form)


def solve(method, samples=3, model=None, **request):
    request = dict(sampler=pd.DDPM(), steps=16, dtype=torch.float64, seed=5) | request
    if isinstance(request["sampler"], pd.Tableau):
        del request["steps"]
    return pd.sample(model or mixture(), (samples, 2), solver=method, **request)


def known(fine, coarse, iterations, pipelined=True):
    """Rounds after which each iterate has reached the end: the recursion of the chapter."""
    blocks = len(fine)
    before, ends = None, []
    for p in range(iterations + 1):
        now = [0]
        for i in range(blocks):
            if p > i + 1:
                now.append(before[i + 1])
                continue
            first = now[i] + coarse[i] if p <= i else 0
            second = (before[i] if pipelined else ends[-1]) + fine[i] if p else 0
            now.append(max(first, second))
        before = now
        ends.append(now[-1])
    return ends


# the sequential sampler's answer


@settings(max_examples=20)
@given(
    st.sampled_from(SAMPLERS),
    st.sampled_from([Form.DATA, Form.NOISE, Form.V, Form.SCORE]),
    st.sampled_from([None, pd.DDIM(), pd.DDPM(), pd.Heun()]),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_as_many_iterations_as_blocks_give_the_sequential_answer(
    sampler, form, coarse, steps, blocks, coarse_steps, pipelined, dtype
):
    blocks = min(blocks, steps)
    method = pd.Parareal(blocks=blocks, coarse=coarse, coarse_steps=coarse_steps, tol=0, pipelined=pipelined)
    request = dict(sampler=sampler, steps=steps, dtype=dtype, model=mixture(form), trajectory=True)
    ours, theirs = solve(method, **request), solve(pd.sequential(), **request)
    close = dict(rtol=1e-12, atol=1e-12) if dtype is torch.float64 else dict(rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(ours.samples, theirs.samples, **close)
    torch.testing.assert_close(ours.trajectory, theirs.trajectory, **close)
    assert ours.converged
    assert float(ours.error.max()) == 0
    assert not ours.certifiable


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_every_iteration_makes_one_more_block_exact(sampler):
    table = sampler.tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 12))
    theirs = solve(pd.sequential(), sampler=table, trajectory=True).trajectory
    borders = [cuts(table)[3 * block] for block in range(5)]
    for p in (1, 2, 3):
        method = pd.Parareal(blocks=4, tol=0, iterations=p, pipelined=False)
        ours = solve(method, sampler=table, trajectory=True).trajectory
        torch.testing.assert_close(ours[:, : borders[p] + 1], theirs[:, : borders[p] + 1], rtol=1e-12, atol=1e-12)
        assert float((ours[:, -1] - theirs[:, -1]).abs().max()) > 1e-9


@pytest.mark.parametrize("sampler", MULTISTEP, ids=str)
def test_a_sampler_that_looks_back_over_borders_is_refused(sampler):
    with pytest.raises(pd.SpecError, match="expected a chain that can be cut into 4 blocks"):
        solve(pd.srds(), sampler=sampler)


def test_churn_needs_a_coarse_sampler_of_its_own():
    sampler = pd.Heun(churn=6.0, high=10.0)
    with pytest.raises(pd.SpecError, match="name a coarse sampler"):
        solve(pd.srds(tol=0), sampler=sampler)
    ours, theirs = (solve(method, sampler=sampler) for method in (pd.srds(tol=0, coarse=pd.DDIM()), pd.sequential()))
    torch.testing.assert_close(ours.samples, theirs.samples, rtol=1e-12, atol=1e-12)


def test_a_coarse_sampler_with_several_noises_a_step_is_refused():
    with pytest.raises(pd.SpecError, match="one noise a step"):
        solve(pd.srds(coarse=pd.Heun(churn=30.0)))


# the iterates


def affine(table, model, mean, variance):
    """z_m = A z_{m-1} + d + c xi for a one-step table and Gaussian data, worked out from the closed form."""
    out = []
    for m in range(1, table.rows):
        alpha, sigma = table.alpha[m - 1], table.sigma[m - 1]
        spread = alpha**2 * variance + sigma**2
        gain, rest = alpha * variance / spread, mean * sigma**2 / spread  # of the data prediction
        data = table.reform(Form.DATA)
        a, b, c = data.a[m, m - 1], data.b[m, m - 1], data.c[m, m]
        out.append((a + b * gain, b * rest, c))
    return out


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.Exponential(form=Form.DATA, stochasticity=0.6)], ids=str)
@pytest.mark.parametrize("named", [False, True], ids=["held", "named"])
def test_iterates_of_a_linear_problem_are_those_of_the_parareal_matrices(sampler, named):
    """x = (I - N G)^-1 (N (F - G) x + e), N the shift, with the noises of a merged step weighed by their variance."""
    mean, variance, blocks, size = 0.7, 2.5, 5, 4
    model = pd.Gaussian(np.full(1, mean), np.full(1, variance), SCHEDULE)
    times = pd.grids.shrinking(SCHEDULE, blocks * size)
    table, large = sampler.tableau(SCHEDULE, times), sampler.tableau(SCHEDULE, times[::size])
    start, xi = torch.randn(2, 1, dtype=torch.float64), torch.randn(2, table.rows, 1, dtype=torch.float64)
    data = table.reform(Form.DATA)
    fine, coarse = affine(table, model, mean, variance), affine(large, model, mean, variance)
    identity = np.eye(blocks + 1)
    for sample in range(2):
        noise = xi[sample, :, 0].numpy()
        f, fe, g, ge = (np.zeros((blocks + 1, blocks + 1)) for _ in range(4))
        forced = []
        for i in range(blocks):
            gain, shift, weights = 1.0, 0.0, np.zeros(size)
            for step in range(size):
                m = i * size + step
                a, d, c = fine[m]
                gain, shift = a * gain, a * shift + d + c * noise[m + 1]
                weights *= data.a[m + 1, m]  # how noises of a merged step add up while the prediction is held
                weights[step] = data.c[m + 1, m + 1]
            length = np.linalg.norm(weights)
            merged = weights @ noise[i * size + 1 : (i + 1) * size + 1] / length if length else 0.0
            a, d, c = coarse[i]
            f[i + 1, i], g[i + 1, i] = gain, a
            forced.append((shift, d + c * merged))
        fe, ge = (np.array([0.0, *[pair[way] for pair in forced]]) for way in (0, 1))
        first = np.zeros(blocks + 1)
        first[0] = float(start[sample, 0])
        x = np.linalg.solve(identity - g, first + ge)
        for p in range(1, blocks + 1):
            x = np.linalg.solve(identity - g, first + (f - g) @ x + fe)
            method = pd.Parareal(blocks=blocks, coarse=sampler if named else None, tol=0, iterations=p, pipelined=False)
            found = pd.sample(
                model, (2, 1), sampler=table, solver=method, dtype=torch.float64, start=start, noise=xi, trajectory=True
            )
            np.testing.assert_allclose(found.trajectory[sample, ::size, 0], x, rtol=1e-11, atol=1e-12)
            piped = dataclasses.replace(method, pipelined=True)
            again = pd.sample(model, (2, 1), sampler=table, solver=piped, dtype=torch.float64, start=start, noise=xi)
            np.testing.assert_allclose(again.samples[sample, 0], x[-1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM(), pd.Exponential(form=Form.SCORE, stochasticity=0.6)], ids=str)
def test_a_held_output_is_the_integrators_own_larger_step(sampler):
    times = pd.grids.shrinking(SCHEDULE, 12)
    rows = [0, 3, 7, 12]
    own, (large, mix) = sampler.tableau(SCHEDULE, times[rows]), held(sampler.tableau(SCHEDULE, times), rows)
    for name in "abc":
        np.testing.assert_allclose(getattr(large, name), getattr(own, name), rtol=1e-9, atol=1e-12)
    lengths = np.linalg.norm(mix[1:], axis=1)
    np.testing.assert_allclose(lengths, np.where(np.diagonal(large.c)[1:] > 0, 1.0, 0.0), rtol=1e-12)


# rounds


@pytest.mark.parametrize("pipelined", [True, False])
@pytest.mark.parametrize(
    ("steps", "blocks", "coarse_steps"), [(16, 4, 1), (25, 5, 2), (17, 5, 1), (9, 9, 1), (12, 1, 3)]
)
def test_rounds_and_evaluations_are_those_of_the_chapter(steps, blocks, coarse_steps, pipelined):
    edges = [steps * block // blocks for block in range(blocks + 1)]
    fine = np.diff(edges)
    coarse = np.minimum(coarse_steps, fine)
    ends = known(fine, coarse, blocks, pipelined)
    for p in range(1, blocks + 1):
        method = pd.Parareal(blocks=blocks, coarse_steps=coarse_steps, tol=0, iterations=p, pipelined=pipelined)
        stats = solve(method, steps=steps).stats
        assert stats.rounds == ends[p]
        assert stats.sample_rounds == (ends[p],) * 3
        if steps % blocks == 0:
            q, size = int(coarse[0]), steps // blocks
            waiting = blocks * q + sum(size + (blocks - r) * q for r in range(1, p + 1))
            assert stats.rounds == (p * size + (blocks - p) * q if pipelined else waiting)
        if not pipelined or p == blocks:  # a walk that was not needed is none
            done = coarse.sum() + sum(fine[r - 1 :].sum() + coarse[r:].sum() for r in range(1, p + 1))
            assert stats.evaluations == 3 * done


def test_rounds_count_stages_not_steps():
    table = pd.Heun().tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 12))
    stats = solve(pd.Parareal(blocks=3, tol=0, iterations=1), sampler=table).stats
    assert table.nodes == 24
    assert stats.rounds == known([8, 8, 8], [1, 1, 1], 1)[1] == 10


def test_the_default_number_of_blocks_is_the_root_of_the_number_of_nodes():
    stats = solve(pd.srds(iterations=1, tol=0), steps=40).stats
    edges = [40 * block // 6 for block in range(7)]
    assert stats.rounds == known(np.diff(edges), [1] * 6, 1)[1]


# the stop


def test_a_sample_stops_when_its_answer_has_changed_by_less_than_the_tolerance():
    values = [solve(pd.Parareal(blocks=8, tol=0, iterations=p), samples=6, steps=64).samples for p in range(1, 9)]
    model, steps, blocks = mixture(), 64, 8
    unit = float(model.variance) ** 0.5
    changes = [(b - a).square().mean(1).sqrt() / unit for a, b in pairwise(values)]
    ordered = torch.stack(changes[:4]).flatten().sort().values
    tol = float((ordered[13] * ordered[14]).sqrt())  # between two of them: rounding would decide a tie
    found = solve(pd.Parareal(blocks=blocks, tol=tol), samples=6, steps=steps)
    ends = known([8] * 8, [1] * 8, 8)
    stopped = set()
    for sample in range(6):
        p = next((p for p in range(2, 9) if changes[p - 2][sample] < tol or p == 8), None)
        if found.stats.sample_rounds[sample] == ends[1]:
            continue  # stopped on the change from the coarse answer, which is not among the values
        assert found.stats.sample_rounds[sample] == ends[p]
        torch.testing.assert_close(found.samples[sample], values[p - 1][sample], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.error[sample], changes[p - 2][sample], rtol=1e-9, atol=1e-12)
        stopped.add(p)
    assert len(stopped) > 1
    assert found.converged


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM()], ids=str)
def test_answers_come_early_but_the_change_is_no_bound_of_the_error(sampler):
    ours = solve(pd.srds(tol=1e-2), samples=32, steps=100, sampler=sampler)
    theirs = solve(pd.sequential(), samples=32, steps=100, sampler=sampler)
    error = (ours.samples - theirs.samples).square().mean(1).sqrt()
    assert float(error.median()) < 1e-3
    assert float(error.max()) < 5e-2
    if sampler == pd.DDPM():
        assert float(error.max()) > 1e-2  # near the decision between two modes
    assert ours.stats.rounds < 60


# samples on their own


def test_a_sample_does_not_depend_on_its_batch_mates_and_its_seed_draws_it_again():
    together = solve(pd.srds(tol=1e-3), samples=5, seed=[3, 1, 4, 15, 9], steps=36)
    assert len(set(together.stats.sample_rounds)) > 1
    for index, seed in enumerate([3, 1, 4, 15, 9]):
        alone = solve(pd.srds(tol=1e-3), samples=1, seed=[seed], steps=36)
        torch.testing.assert_close(alone.samples[0], together.samples[index], rtol=1e-12, atol=1e-12)
        assert alone.stats.sample_rounds == together.stats.sample_rounds[index : index + 1]


def test_the_draws_of_a_generator_are_those_of_the_sequential_loop():
    ours, theirs = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    found = solve(pd.srds(tol=0), generator=ours)
    expected = solve(pd.sequential(), generator=theirs)
    torch.testing.assert_close(found.samples, expected.samples, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours.get_state(), theirs.get_state())


# what may go wrong


class Broken:
    """A mixture that answers NaN to some questions."""

    def __init__(self, bad):
        self.inner, self.bad, self.calls = mixture(), bad, 0
        self.form, self.schedule, self.variance = self.inner.form, self.inner.schedule, self.inner.variance

    def __call__(self, x, t, sample=None):
        out = self.inner(x, t)
        self.calls += 1
        return torch.where(self.bad(self.calls, x, t)[:, None], torch.nan, out)


@pytest.mark.parametrize("broken", range(1, 14))
def test_a_bad_answer_ahead_is_forgotten(broken):
    """Rows past the exact ones may fail once: the answer is the sequential one all the same."""
    theirs = solve(pd.sequential())
    for pipelined in (True, False):
        first = pd.grids.default(SCHEDULE, 16)[1 + (broken - 1) % 4]  # beyond what can be exact in this round
        model = Broken(lambda call, x, t, first=first: (call == broken) & (t < first))
        ours = solve(pd.Parareal(blocks=4, tol=0, pipelined=pipelined), model=model)
        if set(ours.status) == {pd.Status.CONVERGED}:
            torch.testing.assert_close(ours.samples, theirs.samples, rtol=1e-12, atol=1e-12)
        else:  # then the round held an exact row, and the sequential sampler would have failed there
            assert broken > 4


def test_an_answer_made_with_a_bad_output_is_not_accepted_but_the_next_is():
    model = Broken(lambda call, x, t: (call == 4 + 1) & (t < pd.grids.default(SCHEDULE, 16)[11]))
    ours, theirs = solve(pd.Parareal(blocks=4, tol=1e9), model=model), solve(pd.Parareal(blocks=4, tol=1e9))
    ends = known([4] * 4, [1] * 4, 4)
    assert theirs.stats.rounds == ends[1]
    assert ours.stats.rounds == ends[2]
    assert ours.converged


def test_a_model_that_always_breaks_is_said_so_and_hurts_no_mate():
    cut = pd.grids.default(SCHEDULE, 16)[9]
    start = torch.randn(3, 2, dtype=torch.float64)
    model = Broken(lambda call, x, t: (t < cut) & (x[:, 0] > 50))
    start[1, 0] = 1e4
    request = dict(sampler=pd.DDIM(), start=start)
    ours, theirs = (solve(pd.srds(tol=tol), model=model, **request) for tol in (0, 1e-2))
    for found in (ours, theirs):
        assert [status.name for status in found.status] == ["CONVERGED", "NON_FINITE", "CONVERGED"]
        assert float(found.error[1]) == math.inf
    expected = solve(pd.sequential(), model=model, **request)
    torch.testing.assert_close(ours.samples[::2], expected.samples[::2], rtol=1e-12, atol=1e-12)


def test_out_of_rounds_it_gives_its_best_answer_and_says_so():
    ends = known([4] * 4, [1] * 4, 4)
    for budget in (2, ends[0], ends[1] + 1):
        found = solve(pd.srds(tol=0), max_rounds=budget)
        assert {status.name for status in found.status} == {"BUDGET_EXHAUSTED"}
        assert found.stats.rounds == budget
        assert torch.isfinite(found.samples).all()
        assert torch.isfinite(found.error).all() == (budget > ends[0])


def test_an_interrupt_returns_what_there_is():
    table = pd.DDIM().tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 16)).reform(Form.NOISE)
    start = torch.randn(2, 2, dtype=torch.float64)
    noise = Given(torch.zeros(2, 17, 2, dtype=torch.float64), start)
    problem = Problem(
        own=table, table=table, schedule=SCHEDULE, start=start, noise=noise, variance=1.0, keep=False, observe=None
    )
    solving = pd.srds().solve(problem)
    next(solving)
    with pytest.raises(StopIteration) as end:
        solving.throw(Interrupted())
    assert {status.name for status in end.value.value.status} == {"INTERRUPTED"}


def test_other_choices_beside_it_are_refused_in_one_sentence():
    for choice in (dict(window=pd.Whole()), dict(slopes=pd.Zero()), dict(tol=1e-3), dict(exact=True)):
        with pytest.raises(pd.SpecError, match=f"expected no {next(iter(choice))}= beside Parareal"):
            solve(pd.srds(), **choice)
    for wrong in (dict(blocks=0), dict(tol=-1.0), dict(tol=math.nan), dict(iterations=0)):
        with pytest.raises(pd.SpecError, match="at least"):
            pd.srds(**wrong)
    with pytest.raises(pd.SpecError, match="expected a solver"):
        solve("srds")


def test_rounds_are_told_one_by_one():
    seen = []
    found = solve(pd.srds(tol=0), callback=seen.append)
    assert [one.index for one in seen] == list(range(1, found.stats.rounds + 1))
    settled = [int(one.settled.min()) for one in seen]
    assert settled == sorted(settled)
    assert settled[3] == 4
    assert settled[-1] == 16
    assert torch.equal(seen[-1].answer, found.samples)
    rounds = list(pd.iterate(mixture(), (1, 2), sampler=pd.DDIM(), steps=16, solver=pd.srds(tol=0)))
    assert len(rounds) == 16
