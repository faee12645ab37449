"""CHORDS: the published schedule by hand, when answers arrive, and what may go wrong."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paradrift as pd
from paradrift.forms import Form

SCHEDULE = pd.OU(horizon=4.0, last=0.05)
SAMPLERS = [
    pd.DDIM(),
    pd.Euler(),
    pd.Exponential(form=Form.SCORE, stochasticity=0.0),
    pd.Exponential(form=Form.NOISE, stochasticity=0.0),
    pd.Exponential(form=Form.RESIDUAL, stochasticity=0.0),
]
PUBLISHED = (0, 2, 4, 8, 16, 24, 32, 40)
ARRIVALS = [8, 17, 24, 31, 38, 45, 48, 49, 50]


def mixture(form=Form.NOISE):
    return pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, SCHEDULE, form=form)


def solve(method, samples=3, model=None, **request):
    request = dict(sampler=pd.DDIM(), steps=50, dtype=torch.float64, seed=5) | request
    return pd.sample(model or mixture(), (samples, 2), solver=method, **request)


def arrivals(method, **request):
    """Rounds in which an answer arrived, and the answers."""
    seen = []
    solve(method, callback=seen.append, **request)
    finite = [bool(torch.isfinite(one.answer).all()) for one in seen]
    changed = [bool(torch.isfinite(one.change[:, -1]).all()) for one in seen]
    first = finite.index(True)
    found = [one for at, one in enumerate(seen) if at == first or changed[at]]
    return [one.index for one in found], [one.answer for one in found]


def by_hand(model, sampler, times, starts, start):
    """Answers by round, from events alone: every core knows its segment, and looks whether the slower one is there."""
    end = len(times) - 1

    def output(m, x):
        return model(x, torch.full((len(x),), times[m], dtype=torch.float64))

    def jump(m, to, x, f):  # the sampler's own single step from m to `to`
        table = sampler.tableau(SCHEDULE, times[[m, to]]).reform(model.form)
        return float(table.a[1, 0]) * x + float(table.b[1, 0]) * f

    cores, answers, fixed = {0: dict(step=0, x=start, begin=0)}, [], {}
    for n in range(1, end + 1):
        live = [k for k in cores if cores[k]["step"] < end]
        at = {k: (cores[k]["step"], cores[k]["x"], output(cores[k]["step"], cores[k]["x"])) for k in live}
        for k in live:
            step, x, f = at[k]
            core = cores[k]
            if core["begin"] == step:
                core["origin"] = (x, f)
            new = jump(step, step + 1, x, f)
            if k and k - 1 in at and at[k - 1][0] == core["begin"]:
                new = (
                    new + jump(core["begin"], step + 1, *at[k - 1][1:]) - jump(core["begin"], step + 1, *core["origin"])
                )
                core["begin"] = step + 1
                fixed.setdefault(k, []).append((n, step + 1))
            core.update(step=step + 1, x=new)
        last = max(cores)
        if n == last + 1 and last + 1 < len(starts):
            cores[last + 1] = dict(step=starts[last + 1], x=jump(at[last][0], starts[last + 1], *at[last][1:]))
            cores[last + 1]["begin"] = starts[last + 1]
        elif n == last + 1:
            answers.append((n, jump(at[last][0], end, *at[last][1:])))
        answers += [(n, cores[k]["x"]) for k in reversed(live) if cores[k]["step"] == end]
    return answers, fixed


def grid(steps):
    return pd.grids.default(SCHEDULE, steps)


ascending = st.lists(st.integers(1, 19), unique=True, max_size=6).map(lambda more: (0, *sorted(more)))


@settings(max_examples=12)
@given(ascending, st.sampled_from(SAMPLERS))
def test_answers_are_those_of_the_published_events_round_by_round(starts, sampler):
    start = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected, fixed = by_hand(mixture(), sampler, grid(20), starts, start)
    found = {}

    def see(one):
        found[one.index] = one.answer

    ours = solve(
        pd.chords(starts, tol=0), samples=2, sampler=sampler, steps=20, start=start, callback=see, trajectory=True
    )
    for index, answer in dict(expected).items():  # of two in a round, the slower core's
        torch.testing.assert_close(found[index], answer, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours.samples, expected[-1][1], rtol=1e-12, atol=1e-12)
    assert sorted(index for index, _ in expected) == sorted([len(starts), *(20 - s + k for k, s in enumerate(starts))])
    for k, events in fixed.items():  # the law of the chapter
        apart = starts[k] - starts[k - 1]
        assert events == [(k + j * apart, starts[k] + j * apart) for j in range(1, (20 - starts[k]) // apart + 1)]


def test_answers_arrive_when_published():
    rounds, answers = arrivals(pd.chords(tol=0))
    assert rounds == ARRIVALS
    assert len(answers) == 9
    assert solve(pd.chords(tol=0)).stats.evaluations == 3 * sum(50 - start for start in PUBLISHED)


@settings(max_examples=12)
@given(ascending, st.sampled_from(SAMPLERS), st.sampled_from([Form.DATA, Form.NOISE, Form.V, Form.SCORE]))
def test_the_slowest_core_is_the_sequential_sampler(starts, sampler, form):
    request = dict(sampler=sampler, steps=20, model=mixture(form), trajectory=True)
    ours, theirs = solve(pd.chords(starts, tol=0), **request), solve(pd.sequential(), **request)
    torch.testing.assert_close(ours.samples, theirs.samples, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.trajectory, theirs.trajectory, rtol=1e-12, atol=1e-12)
    assert ours.converged
    assert float(ours.error.max()) == 0
    assert ours.stats.rounds == 20
    assert ours.stats.window <= len(starts)
    assert not ours.certifiable


def test_the_error_decreases_core_by_core():
    exact = solve(pd.sequential(), samples=64).samples
    _, answers = arrivals(pd.chords(tol=0), samples=64)
    errors = [float((answer - exact).square().mean(1).sqrt().mean()) for answer in answers]
    assert all(after < before for before, after in pairwise(errors[:6]))
    assert max(errors[6:]) == 0  # to the last bit from the seventh answer on
    assert errors[4] < 1e-2 * errors[0]


def test_fixed_numbers_of_arrivals_stop_when_published():
    for count, rounds in enumerate(ARRIVALS[1:], start=1):
        found = solve(pd.chords(tol=0, arrivals=count))
        assert found.stats.sample_rounds == (rounds,) * 3
        assert found.converged


def test_a_sample_leaves_when_two_answers_agree_to_the_tolerance():
    model, tol = mixture(), 1e-2
    _, answers = arrivals(pd.chords(tol=0), samples=16)
    unit = float(model.variance) ** 0.5
    changes = [(b - a).square().mean(1).sqrt() / unit for a, b in pairwise(answers)]
    found = solve(pd.chords(tol=tol), samples=16)
    for sample in range(16):
        first = next(k for k, change in enumerate(changes) if change[sample] < tol)
        assert found.stats.sample_rounds[sample] == ARRIVALS[first + 1]
        torch.testing.assert_close(found.samples[sample], answers[first + 1][sample], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.error[sample], changes[first][sample], rtol=1e-9, atol=1e-12)
    assert len(set(found.stats.sample_rounds)) > 1
    assert found.stats.evaluations < 16 * sum(50 - start for start in PUBLISHED)


def test_a_sample_does_not_depend_on_its_batch_mates():
    seeds = [3, 1, 4, 15, 9]
    together = solve(pd.chords(tol=1e-3), samples=5, seed=seeds)
    for index, seed in enumerate(seeds):
        alone = solve(pd.chords(tol=1e-3), samples=1, seed=[seed])
        torch.testing.assert_close(alone.samples[0], together.samples[index], rtol=1e-12, atol=1e-12)
        assert alone.stats.sample_rounds == together.stats.sample_rounds[index : index + 1]


@pytest.mark.parametrize("sampler", [pd.DDPM(), pd.DDIM(eta=0.5), pd.Heun(), pd.DPMpp2M()], ids=str)
def test_noise_stages_and_multistep_rules_are_refused(sampler):
    with pytest.raises(pd.SpecError, match="expected a deterministic sampler of one evaluation a step"):
        solve(pd.chords(), sampler=sampler)


def test_wrong_words_are_refused_in_one_sentence():
    for starts in ((), (1, 2), (0, 4, 4), (0, 5, 3)):
        with pytest.raises(pd.SpecError, match="expected ascending steps"):
            pd.chords(starts)
    for wrong in (dict(tol=-1.0), dict(tol=math.nan), dict(arrivals=0)):
        with pytest.raises(pd.SpecError, match="at least"):
            pd.chords(**wrong)
    with pytest.raises(pd.SpecError, match="before step 40"):
        solve(pd.chords(), steps=40)
    with pytest.raises(pd.SpecError, match="expected no stop= beside Chords"):
        solve(pd.chords(), stop=pd.Sweeps(3))


class Broken:
    """A mixture that answers NaN to some questions."""

    def __init__(self, bad):
        self.inner, self.bad, self.calls = mixture(), bad, 0
        self.form, self.schedule, self.variance = self.inner.form, self.inner.schedule, self.inner.variance

    def __call__(self, x, t, sample=None):
        self.calls += 1
        return torch.where(self.bad(self.calls, x, t)[:, None], torch.nan, self.inner(x, t))


@pytest.mark.parametrize("broken", [2, 5, 8, 9, 12, 17, 25, 40])
def test_a_bad_answer_ahead_is_forgotten(broken):
    """Faster cores may fail once: they wait for the slower ones, and no answer that came of it is taken."""
    times = grid(50)
    model = Broken(lambda call, x, t: (call == broken) & (t < times[broken - 1] - 1e-9))
    ours, plain = solve(pd.chords(tol=0), model=model), solve(pd.chords(tol=0))
    torch.testing.assert_close(ours.samples, plain.samples, rtol=1e-12, atol=1e-12)
    assert ours.converged
    again = Broken(model.bad)
    early = solve(pd.chords(tol=0, arrivals=1), model=again)
    assert early.converged
    assert torch.isfinite(early.samples).all()
    assert float((early.samples - plain.samples).abs().max()) < 0.5


def stepped(x, m, to, times, model):
    """The sampler's single step from m to `to`."""
    table = pd.DDIM().tableau(SCHEDULE, times[[m, to]]).reform(model.form)
    return table.a[1, 0] * x + table.b[1, 0] * model(x, torch.full((len(x),), times[m], dtype=torch.float64))


def test_a_core_that_has_lost_its_way_puts_no_other_right():
    """Core 1 loses its way at step 11 and is not put right before core 2 has arrived, which therefore walks alone."""
    times, start = grid(20), torch.randn(2, 2, dtype=torch.float64)
    model = Broken(lambda call, x, t: (call == 3) & ((t - times[11]).abs() < 1e-9))
    found = solve(pd.chords((0, 10, 12), tol=0, arrivals=1), 2, model, steps=20, start=start)
    expected = stepped(stepped(start, 0, 10, times, mixture()), 10, 12, times, mixture())
    for m in range(12, 20):
        expected = stepped(expected, m, m + 1, times, mixture())
    torch.testing.assert_close(found.samples, expected, rtol=1e-10, atol=1e-12)
    assert found.stats.rounds == 20 - 12 + 2


def test_a_lost_core_is_put_right_by_the_slower_one_alone():
    """Core 2 loses its way at step 9; at step 12, the end, it is the jump of core 1 from step 8."""
    times, start = grid(12), torch.randn(2, 2, dtype=torch.float64)
    model = Broken(lambda call, x, t: (call == 4) & ((t - times[9]).abs() < 1e-9))
    found = solve(pd.chords((0, 4, 8), tol=0, arrivals=1), 2, model, steps=12, start=start, trajectory=True)
    expected = stepped(found.trajectory[:, 8], 8, 12, times, mixture())
    torch.testing.assert_close(found.samples, expected, rtol=1e-10, atol=1e-12)
    assert found.stats.rounds == 12 - 8 + 2


def test_a_model_that_breaks_where_the_sequential_sampler_does_is_said_so():
    start = torch.randn(3, 2, dtype=torch.float64)
    start[1, 0] = 1e4
    model = Broken(lambda call, x, t: (t < grid(50)[30]) & (x[:, 0] > 50))
    found = solve(pd.chords(tol=0), model=model, start=start)
    assert [status.name for status in found.status] == ["CONVERGED", "NON_FINITE", "CONVERGED"]
    assert float(found.error[1]) == math.inf
    expected = solve(pd.sequential(), model=model, start=start)
    torch.testing.assert_close(found.samples[::2], expected.samples[::2], rtol=1e-12, atol=1e-12)


def test_out_of_rounds_it_gives_its_best_answer_and_says_so():
    for budget in (5, 20):
        found = solve(pd.chords(tol=0), max_rounds=budget)
        assert {status.name for status in found.status} == {"BUDGET_EXHAUSTED"}
        assert found.stats.rounds == budget
        assert torch.isfinite(found.samples).all()
        assert bool(torch.isfinite(found.error).all()) == (budget > ARRIVALS[1])


def test_a_jump_on_a_table_read_from_a_scheduler_needs_no_schedule():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=100, clip_sample=False)
    scheduler.set_timesteps(25)
    model = pd.Gaussian(np.zeros(2), np.full(2, 0.5), pd.Discrete.linear(100), form=Form.NOISE)
    request = dict(sampler=pd.Probed(scheduler), steps=None, model=model)
    starts = (0, 2, 4, 8, 12, 16, 20)
    found, expected = solve(pd.chords(starts, tol=0, arrivals=4), **request), solve(pd.sequential(), **request)
    assert found.stats.rounds == 25 - 8 + 3
    torch.testing.assert_close(found.samples, expected.samples, rtol=1e-3, atol=1e-3)
