"""Guesses that propose: counted, causal, independent of batch mates, harmless when wrong, worth rounds when right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift import grids
from paradrift.windows import Cut

STEPS = 30
MODES = torch.randn(5, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
SCHEDULE = pd.Discrete.linear(200)
WINDOWS = [pd.Whole(), pd.Sliding(7), pd.Blocks(3), Cut((5, 20, STEPS))]
AROUND = dict(shape=(4, 12), steps=STEPS, dtype=torch.float64)


def mixture(schedule=SCHEDULE):
    return pd.GaussianMixture([0.3, 0.2, 0.2, 0.2, 0.1], MODES, 0.1, schedule)


def solve(guess, window, tol=1e-3, model=None, **options):
    solver = pd.default(tol, window, verify=0)
    return pd.sample(model or mixture(), solver=solver, guess=guess, **{"sampler": pd.DDIM()} | AROUND | options)


def table_of(sampler):
    return sampler.tableau(SCHEDULE, grids.default(SCHEDULE, STEPS))


def knowing(sampler, **options):
    """A student that knows every data prediction of the sequential sampler's trajectory."""
    rows = solve(pd.Coast(), pd.Sliding(1), 0.0, sampler=sampler, trajectory=True, **options).trajectory
    assert rows is not None
    table, model = table_of(sampler), pd.Reform(mixture(), pd.Form.DATA)
    nodes = np.flatnonzero(table.evaluated)
    sample = torch.arange(len(rows))
    data = torch.stack([model(rows[:, m], torch.full((len(rows),), table.t[m]), sample) for m in nodes])
    assert table.alpha is not None
    assert table.sigma is not None
    return pd.Student(lambda x, t, sample: data[:, sample], np.log(table.alpha[nodes] / table.sigma[nodes]).tolist())


def wrong(x, t, sample):
    return 5 * torch.sin(7 * x + sample[:, None])


def broken(x, t, sample):
    return torch.where((sample % 2 == 0)[:, None], torch.full_like(x, torch.nan), 0.5 * x)


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM()])
def test_a_student_that_knows_the_trajectory_leaves_one_round(sampler):
    found = solve(knowing(sampler), pd.Whole(), sampler=sampler)
    assert found.stats.sample_rounds == (2,) * 4  # its own, and the one that finds nothing wrong
    assert found.stats.evaluations == 4 + 4 * STEPS
    assert solve(pd.Coast(), pd.Whole(), sampler=sampler).stats.rounds > 4
    assert float(found.error.max()) < 1e-6


def test_rounds_and_rows_of_a_student_are_counted():
    asked, calls = [], []

    def student(x, t, sample):
        asked.append((t.tolist(), sample.tolist()))
        return torch.zeros_like(x)

    model = pd.Counted(mixture())
    found = solve(pd.Student(student, calls=3), pd.Sliding(8), model=model, callback=calls.append)
    table = table_of(pd.DDIM())
    assert [t for t, _ in asked] == [[float(table.t[row])] * 4 for row in (0, 10, 20)]
    assert all(sample == [0, 1, 2, 3] for _, sample in asked)
    assert found.stats.evaluations == model.rows + 12
    assert found.stats.rounds == model.calls + 3
    assert calls[0].index == 4
    assert calls[-1].evaluations == found.stats.evaluations
    assert found.stats.model_seconds > 0
    assert solve(pd.Student(student), pd.Sliding(8), max_rows=3).stats.evaluations > 4
    assert [len(sample) for _, sample in asked[3:]] == [3, 1]  # rows of a student are limited too


SAMPLERS = [pd.DDIM(), pd.DDPM(), pd.DPMpp2M(), pd.Heun()]
PAIRS = [(sampler, window) for sampler in SAMPLERS for window in WINDOWS]
ACROSS = {0, 5, 10, 15}  # each sampler and each window once


@pytest.mark.parametrize("model", [wrong, broken])
@pytest.mark.parametrize(
    ("sampler", "window"),
    [pytest.param(*pair, marks=() if i in ACROSS else pytest.mark.slow) for i, pair in enumerate(PAIRS)],
    ids=str,
)
def test_whatever_is_proposed_tolerance_zero_gives_the_sequential_bits(sampler, window, model):
    options = dict(sampler=sampler, max_rows=1, shape=(2, 12))
    theirs = solve(pd.Coast(), pd.Sliding(1), 0.0, **options).samples
    ours = solve(pd.Student(model, calls=2), window, 0.0, **options)
    assert ours.converged
    assert torch.equal(ours.samples, theirs)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM()])
def test_wrong_proposals_cost_rounds_never_the_answer(sampler, window):
    theirs = solve(pd.Coast(), pd.Sliding(1), 0.0, sampler=sampler).samples
    ours = solve(pd.Student(wrong), window, sampler=sampler)
    assert ours.converged
    assert float((ours.samples - theirs).square().mean(1).sqrt().max()) < 1e-3


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_where_nothing_finite_is_proposed_a_sample_is_solved_as_without(window):
    alone = solve(pd.Coast(), window, max_rows=1)
    found = solve(pd.Student(broken), window, max_rows=1)
    assert torch.equal(found.samples[::2], alone.samples[::2])
    assert not torch.equal(found.samples[1::2], alone.samples[1::2])
    assert [mine - its for mine, its in zip(found.stats.sample_rounds, alone.stats.sample_rounds, strict=True)][
        ::2
    ] == [1, 1]


def test_an_answer_does_not_depend_on_the_batch():
    student = pd.Student(lambda x, t, sample: torch.sin(x + t[:, None]), calls=2)
    together = solve(student, pd.Sliding(8), sampler=pd.DDPM(), seed=[3, 5, 7, 9], max_rows=1)
    for index, seed in enumerate([3, 5, 7, 9]):
        alone = solve(student, pd.Sliding(8), sampler=pd.DDPM(), shape=(1, 12), seed=[seed], max_rows=1)
        assert torch.equal(alone.samples[0], together.samples[index])
        assert alone.stats.sample_rounds[0] == together.stats.sample_rounds[index]


def test_the_sequential_sampler_asks_no_student():
    def never(x, t, sample):
        raise AssertionError("asked")

    for window in (pd.Sliding(1), pd.Blocks(STEPS)):
        assert solve(pd.Student(never), window).stats.rounds == STEPS
    with pytest.raises(AssertionError, match="asked"):
        solve(pd.Student(never), pd.Sliding(2))


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM(), pd.DPMpp2M()], ids=lambda s: type(s).__name__)
def test_a_further_call_sees_the_state_where_its_own_predictions_lead(sampler):
    """Against the table's own loop, row by row, with the predictions in place of the model's."""
    seen = []

    def student(x, t, sample):
        seen.append(x)
        return torch.stack([torch.sin(x), torch.cos(3 * x)])

    levels = (-2.0, 1.0)
    start, noises = torch.randn(4, 12, dtype=torch.float64), torch.randn(4, STEPS + 1, 12, dtype=torch.float64)
    solve(pd.Student(student, levels, calls=2), pd.Whole(), sampler=sampler, start=start, noise=noises)
    table = table_of(sampler)
    assert table.form is pd.Form.DATA or sampler != pd.DPMpp2M()
    table = table.reform(pd.Form.DATA)
    assert table.alpha is not None
    assert table.sigma is not None
    share = (np.log(table.alpha / np.maximum(table.sigma, 1e-300)).clip(*levels) - levels[0]) / 3
    first, second = torch.sin(start), torch.cos(3 * start)
    rows = [start]
    for m in range(1, STEPS // 2 + 1):
        z = sum(float(table.a[m, j]) * rows[j] for j in range(m))
        z = z + sum(float(table.b[m, j]) * ((1 - share[j]) * first + share[j] * second) for j in range(m))
        rows.append(z + sum(float(table.c[m, n]) * noises[:, n] for n in range(m + 1)))
    assert torch.equal(seen[0], start)
    assert torch.allclose(seen[1], rows[STEPS // 2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [pd.default(1e-2, pd.Sliding(12)), pd.default(1e-2, pd.Whole())])
def test_what_is_proposed_for_a_row_knows_no_later_noise(solver):
    """Later noises change neither the rows before them nor the rounds at which those were settled."""
    table, model = table_of(pd.DDPM()), mixture()
    student = pd.Student(pd.Reform(model, pd.Form.DATA), calls=3)
    start, noises = torch.randn(4, 12), torch.randn(4, table.rows, 12)

    def run(noises):
        seen = []
        found = pd.sample(
            model, (4, 12), sampler=table, solver=solver, guess=student, start=start, noise=noises, trajectory=True,
            callback=lambda round_: seen.append(round_.settled),
        )  # fmt: skip
        return found.trajectory, torch.stack(seen)

    rows, fronts = run(noises)
    for column in (1, 9, 11, 21, 29):  # the student is called at rows 0, 10 and 20
        other = noises.clone()
        other[:, column:] = torch.randn(4, table.rows - column, 12)
        changed, moved = run(other)
        assert torch.equal(changed[:, :column], rows[:, :column])
        assert not torch.equal(changed[:, column], rows[:, column])
        length = min(len(fronts), len(moved))
        assert torch.equal(fronts[:length].clamp(max=column - 1), moved[:length].clamp(max=column - 1))


def test_a_path_that_began_with_a_student_has_its_certificate():
    model = mixture(pd.OU(horizon=5.0, last=0.02))
    student = pd.Student(pd.Reform(model, pd.Form.DATA), calls=3)
    common = dict(sampler=pd.Exponential(stochasticity=1.0), steps=STEPS, guess=student)
    kept = pd.sample(model, (8, 12), tol=1e-2, trajectory=True, **common)
    assert float(pd.certificate.kl(kept, model).nats.max()) < 0.1
    spent = pd.sample(model, (8, 12), stop=pd.KL(1e-2), **common)
    assert spent.certificate is not None
    assert float(spent.certificate.nats.max()) <= 1e-2
    exact = pd.sample(model, (8, 12), exact=True, **common)
    assert exact.converged


def test_an_interrupt_while_the_student_is_asked_returns_what_there_is():
    def interrupted(x, t, sample):
        raise KeyboardInterrupt

    found = solve(pd.Student(interrupted), pd.Whole())
    assert set(found.status) == {pd.Status.INTERRUPTED}
    assert bool((found.error > 1e300).all())
    assert found.stats.rounds == 1


def test_a_budget_that_the_student_uses_up_leaves_its_rounds_in_the_books():
    found = solve(pd.Student(wrong, calls=3), pd.Whole(), max_rounds=2)
    assert set(found.status) == {pd.Status.BUDGET_EXHAUSTED}
    assert found.stats.rounds == 3
    more = solve(pd.Student(wrong, calls=2), pd.Whole(), max_rounds=4)
    assert more.stats.rounds == 4


def test_a_student_without_a_schedule_answers_with_outputs():
    rates = torch.linspace(-1, -0.1, 3, dtype=torch.float64)
    rows = pd.Rows(form=pd.Form.VALUE)
    last = rows.add(t=0.0)
    for step in range(1, 11):
        last = rows.add(t=0.1 * step, a={last: 1.0}, b={last: 0.1}, evaluated=step < 10)
    model = pd.denoisers.Value(function=lambda x, t, sample: rates * x, variance=1.0)
    start = torch.ones(2, 3, dtype=torch.float64)
    common = dict(sampler=rows.build(), start=start, dtype=torch.float64, solver=pd.default(1e-3, pd.Whole(), verify=0))
    found = pd.sample(model, (2, 3), guess=pd.Student(lambda x, t, sample: rates * x), **common)
    assert torch.allclose(found.samples, start * (1 + 0.1 * rates) ** 10, atol=1e-3)
    with pytest.raises(pd.SpecError, match="expected a table with a noise schedule for a student with levels"):
        pd.sample(model, (2, 3), guess=pd.Student(lambda x, t, sample: x[None], (0.0,)), **common)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pd.Student(wrong, (1.0, 0.0)), r"expected the levels of a student to ascend, found \[1.0, 0.0\]"),
        (lambda: pd.Student(wrong, calls=0), "expected at least 1 call of a student, found 0"),
        (
            lambda: solve(pd.Student(wrong, (0.0, 1.0)), pd.Whole()),
            r"expected data predictions of shape \(2, 4, 12\) from the student, found \(4, 12\)",
        ),
        (
            lambda: pd.sample(mixture(), (4, 12), steps=STEPS, solver=pd.wavefront(3, 3), guess=pd.Student(wrong)),
            "expected a guess that gives the states of an entering block, found Student",
        ),
    ],
)
def test_what_is_no_student_is_refused_in_one_sentence(make, words):
    with pytest.raises(pd.SpecError, match=words):
        make()
