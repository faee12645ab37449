"""The wavefront: the published schedule by hand, the sequential sampler's bits, its rounds, and what may go wrong."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import paradrift as pd
from paradrift.cli import main
from paradrift.forms import Form
from paradrift.solvers.base import Interrupted
from paradrift.solvers.sweep import sweep
from paradrift.solvers.wavefront import wavefront

SCHEDULE = pd.OU(horizon=4.0, last=0.05)
SAMPLERS = [
    pd.DDPM(),
    pd.DDIM(),
    pd.Euler(),
    pd.Ancestral(),
    pd.Exponential(form=Form.SCORE, stochasticity=1.0),
    pd.Exponential(form=Form.NOISE, stochasticity=0.5),
    pd.Exponential(form=Form.DATA, stochasticity=0.0),
    pd.Exponential(form=Form.RESIDUAL, stochasticity=0.8),
    pd.DPMpp2M(),
    pd.DPMpp3M(short=0),
    pd.DPMppSDE(short=0),
    pd.Heun(),
    pd.Heun(churn=6.0, high=10.0),
]
SLOPES = [pd.Zero(), pd.Zero(Form.DATA), pd.Constant(0.5), pd.Reference(0.7), pd.Secant()]


def mixture(form=Form.NOISE):
    return pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, SCHEDULE, form=form)


def solver(blocks, sweeps, slopes=None, **choices):
    return dataclasses.replace(pd.wavefront(blocks, sweeps), slopes=slopes or pd.Zero(), **choices)


def solve(method, samples=3, model=None, **request):
    request = dict(sampler=pd.DDPM(), dtype=torch.float64, seed=5, trajectory=True) | request
    if not isinstance(request["sampler"], pd.Tableau):
        request = dict(steps=14) | request
    return pd.sample(model or mixture(), (samples, 2), solver=method, **request)


def enough(nodes, blocks):
    """Sweeps after which the answer is the sequential one."""
    return nodes - min(blocks, nodes) + 1


# the published schedule


def published(table, model, edges, sweeps, start, noises):
    """x[n][j], the rows of block n after its j-th update, in the order of rounds; one-step tables, Picard."""
    blocks = len(edges) - 1
    x, rounds = [[None] * (sweeps + 1) for _ in range(blocks)], 0
    for k in range(1, blocks + sweeps):  # blocks are counted from 0, so this is the diagonal n + j = k
        rounds += 1
        for n in range(blocks):
            j = k - n
            if not 1 <= j <= sweeps:
                continue
            end = start if n == 0 else x[n - 1][j][-1]
            if j == 1:
                x[n][0] = [end] * (edges[n + 1] - edges[n] + 1)
            before, rows = [end, *x[n][j - 1][1:]], [end]
            for m in range(edges[n], edges[n + 1]):
                t = torch.full((len(start),), table.t[m], dtype=torch.float64)
                output = model(before[m - edges[n]], t)
                a, b, c = (getattr(table, name)[m + 1, m + (name == "c")] for name in "abc")
                rows.append(a * rows[-1] + b * output + c * noises[:, m + 1])
            x[n][j] = rows
    path = [start] + [row for block in x for row in block[sweeps][1:]]
    return torch.stack(path, 1), rounds


@pytest.mark.parametrize(("blocks", "sweeps"), [(1, 4), (2, 1), (3, 2), (5, 6), (5, 11), (20, 3)])
def test_the_kept_path_is_that_of_the_published_schedule_row_by_row(blocks, sweeps):
    times = pd.grids.shrinking(SCHEDULE, 20)
    model = mixture(Form.SCORE)
    table = pd.Exponential(form=Form.SCORE, stochasticity=1.0).tableau(SCHEDULE, times)
    start = torch.randn(3, 2, dtype=torch.float64)
    noises = torch.randn(3, table.rows, 2, dtype=torch.float64)
    edges = [20 * block // blocks for block in range(blocks + 1)]
    path, rounds = published(table, model, edges, sweeps, start, noises)
    found = solve(pd.wavefront(blocks, sweeps), model=model, sampler=table, start=start, noise=noises)
    torch.testing.assert_close(found.trajectory, path, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.samples, path[:, -1], rtol=1e-12, atol=1e-12)
    assert found.stats.rounds == min(rounds, 20)
    assert found.converged


def by_hand(table, model, edges, sweeps, start, noises, slopes):
    """The same for any table: rows before a block are what they were when the round began, with the outputs there."""
    of_node = np.append(np.flatnonzero(table.evaluated), table.rows - 1)
    right = of_node[edges[1:]]
    left = [0, *right[:-1]]
    blocks, z = len(right), torch.zeros(table.rows, *start.shape, dtype=torch.float64)
    z[0] = start

    def row(m, now, old, outputs, first):
        total = sum((table.c[m, i] * noises[:, i] for i in range(m + 1)), torch.zeros_like(start))
        for i in np.flatnonzero((table.a[m] != 0) | (table.b[m] != 0)):
            total = total + table.a[m, i] * now[i]
            if table.b[m, i] != 0:
                total = total + table.b[m, i] * (outputs[i] + (slopes[i] * (now[i] - old[i]) if i > first else 0))
        return total

    for m in range(1, of_node[0] + 1):
        z[m] = row(m, z, z, z, m)
    for k in range(1, blocks + sweeps):
        if k <= blocks:
            z[max(left[k - 1], of_node[0]) + 1 : right[k - 1] + 1] = z[max(left[k - 1], of_node[0])]
        old, times = z.clone(), torch.tensor(table.t)
        outputs = torch.zeros_like(z)
        for i in np.flatnonzero(table.evaluated):
            outputs[i] = model(table.scale[i] * old[i], times[i].expand(len(start)))
        for n in range(max(0, k - sweeps), min(blocks, k)):
            now = old.clone()
            for m in range(left[n] + 1, right[n] + 1):
                now[m] = row(m, now, old, outputs, left[n])
            z[left[n] + 1 : right[n] + 1] = now[left[n] + 1 : right[n] + 1]
    return z.transpose(0, 1)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize(("blocks", "sweeps"), [(3, 4), (9, 2)])
def test_any_table_and_slope_is_the_diagonal_recursion_row_by_row(sampler, blocks, sweeps):
    table = sampler.tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 9)).reform(Form.NOISE)
    nodes = table.nodes
    start = torch.randn(2, 2, dtype=torch.float64)
    noises = torch.randn(2, table.rows, 2, dtype=torch.float64)
    edges = [nodes * block // blocks for block in range(blocks + 1)]
    for slopes in (pd.Zero(), pd.Reference(0.5)):
        path = by_hand(table, mixture(), edges, sweeps, start, noises, slopes.prior(table))
        found = solve(solver(blocks, sweeps, slopes), 2, sampler=table, start=start, noise=noises)
        torch.testing.assert_close(found.trajectory, path, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("sweeps", [1, 4, 9])
def test_one_block_is_piadm_with_one_block(sweeps):
    ours, theirs = (solve(method(1, sweeps)) for method in (pd.wavefront, pd.piadm_sde))
    torch.testing.assert_close(ours.trajectory, theirs.trajectory, rtol=1e-12, atol=1e-12)
    assert ours.stats.rounds == theirs.stats.rounds == sweeps
    # secants of one block are those of the sweep too, once both have measured
    secants = [dataclasses.replace(method(1, 2), slopes=pd.Secant()) for method in (pd.wavefront, pd.piadm_sde)]
    ours, theirs = (solve(method, sampler=pd.DDIM()) for method in secants)
    torch.testing.assert_close(ours.samples, theirs.samples, rtol=0.05, atol=0.05)


# the sequential sampler's answer


@given(
    st.sampled_from(SAMPLERS),
    st.sampled_from([Form.DATA, Form.NOISE, Form.V, Form.SCORE]),
    st.sampled_from(SLOPES),
    st.integers(1, 8),
    st.integers(1, 10),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_enough_sweeps_give_the_sequential_answer_to_the_last_bit(
    sampler, form, slopes, steps, blocks, samples, more, dtype
):
    request = dict(sampler=sampler, steps=steps, dtype=dtype, model=mixture(form))
    theirs = solve(pd.sequential(), samples, **request)
    sweeps = enough(theirs.stats.nodes, blocks) + more
    ours = solve(solver(blocks, sweeps, slopes), samples, **request)
    assert ours.converged
    assert ours.certifiable
    assert torch.equal(ours.trajectory, theirs.trajectory)
    assert torch.equal(ours.samples, theirs.samples)
    assert float(ours.error.max()) == 0
    assert ours.stats.rounds <= theirs.stats.nodes


def test_one_sweep_less_is_not_enough():
    """Rows that no block has reached in time are not exact: the number of sweeps is the smallest."""
    theirs = solve(pd.sequential(), sampler=pd.Exponential(), model=mixture(Form.SCORE))
    for blocks in (1, 2, 5, 13):
        needed = enough(14, blocks)
        ours = solve(solver(blocks, needed - 1), sampler=pd.Exponential(), model=mixture(Form.SCORE))
        assert 0 < float((ours.samples - theirs.samples).abs().max()) < 0.1
        assert torch.equal(ours.trajectory[:, :needed], theirs.trajectory[:, :needed])


@pytest.mark.parametrize("draws", ["one generator", "one a sample"])
def test_the_draws_of_a_generator_are_those_of_the_sequential_loop(draws):
    def made():
        generators = [torch.Generator().manual_seed(index) for index in range(3)]
        return generators if draws == "one a sample" else generators[0]

    ours, theirs = made(), made()
    before = solve(pd.sequential(), generator=theirs)
    after = solve(solver(4, 11), generator=ours)
    assert torch.equal(after.samples, before.samples)
    states = [[g.get_state() for g in (made if isinstance(made, list) else [made])] for made in (ours, theirs)]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


# rounds


@pytest.mark.parametrize(("blocks", "sweeps"), [(1, 5), (2, 1), (7, 13), (7, 3), (60, 1), (99, 5)])
def test_rounds_are_blocks_plus_sweeps_less_one(blocks, sweeps):
    found = solve(solver(blocks, sweeps), sampler=pd.Exponential(), steps=60, model=mixture(Form.SCORE))
    used = min(blocks, 60)
    assert found.stats.rounds == min(used + sweeps - 1, 60)
    assert found.stats.sample_rounds == (found.stats.rounds,) * 3
    assert found.stats.evaluations <= 3 * 60 * sweeps
    edges = [60 * block // used for block in range(used + 1)]
    assert found.stats.window == max(edges[min(n + sweeps, used)] - edges[n] for n in range(used))


def test_nodes_that_have_not_moved_are_not_evaluated_again():
    found = solve(solver(2, 50), sampler=pd.Exponential(), steps=20, model=mixture(Form.SCORE))
    assert found.stats.rounds <= 20
    # node i (from 0) is exact, and evaluated for the last time, in round i + 1; its block enters in round 1 or 2
    assert found.stats.evaluations <= 3 * (sum(range(1, 21)) - 10)


# causality


@pytest.mark.parametrize("slopes", SLOPES, ids=lambda slopes: type(slopes).__name__)
@pytest.mark.parametrize("sampler", [pd.DDPM(), pd.DPMppSDE()])
def test_a_row_depends_on_the_noises_before_it_only(sampler, slopes):
    table = sampler.tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 12)).reform(Form.NOISE)
    start, noises = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 13, 2, dtype=torch.float64)
    method = solver(4, 3, slopes)
    path = solve(method, 2, sampler=table, start=start, noise=noises).trajectory
    for row in (1, 4, 5, 8, 11, 12):
        if table.c[row, row] != 0:
            other = noises.clone()
            other[:, row] += 0.5
            moved = solve(method, 2, sampler=table, start=start, noise=other).trajectory
            assert torch.equal(moved[:, :row], path[:, :row])
            assert not torch.equal(moved[:, row], path[:, row])


def test_a_sample_does_not_depend_on_its_batch():
    for slopes in SLOPES:
        together = solve(solver(3, 4, slopes), 3, seed=[4, 5, 6])
        alone = solve(solver(3, 4, slopes), 1, seed=[5])
        assert torch.equal(together.trajectory[1], alone.trajectory[0])


# secants


def test_secants_need_fewer_sweeps_and_no_further_evaluations():
    theirs = solve(pd.sequential(), 16, steps=40)

    def error(slopes, sweeps):
        found = solve(solver(4, sweeps, slopes), 16, steps=40)
        return float((found.samples - theirs.samples).abs().max()), found.stats.evaluations

    (picard, evaluations), (secant, same) = error(pd.Zero(Form.NOISE), 7), error(pd.Secant(), 7)
    assert secant < picard / 20
    assert same <= evaluations


def test_secants_per_group_are_exact_where_each_group_is_one_gaussian():
    model = pd.Gaussian([0.3, -0.2], [4.0, 0.04], SCHEDULE)
    theirs = solve(pd.sequential(), model=model, steps=40)
    apart, together = (
        solve(solver(2, 5, pd.Secant(groups=groups)), model=model, steps=40) for groups in (torch.arange(2), None)
    )
    assert float((apart.samples - theirs.samples).abs().max()) < 1e-9
    assert float((together.samples - theirs.samples).abs().max()) > 1e-6


# what a solve says of itself


@pytest.mark.parametrize("verify", [0, 14, 1000])
@pytest.mark.parametrize("sweeps", [2, 4, 6])
def test_the_error_is_at_least_the_distance_to_the_sequential_answer(sweeps, verify):
    """The growth is that of data of unknown variance, so the estimate is on the safe side; not by orders of magnitude
    for the exponential integrator in data form, whose growth is bounded."""
    model = pd.Gaussian([0.3, -0.2], 1.0, SCHEDULE)
    method = solver(3, sweeps, verify=verify)
    sampler = pd.Exponential(form=Form.DATA, stochasticity=1.0)
    found = solve(method, 64, model=model, sampler=sampler)
    theirs = solve(pd.sequential(), 64, model=model, sampler=sampler)
    error = (found.samples - theirs.samples).square().mean(1).sqrt()
    assert bool((found.error >= error).all())
    assert 1e-9 < float(found.error.median()) < 500 * float(error.median())
    assert found.stats.rounds == 3 + sweeps - 1 + (verify > 0)


def test_rounds_report_what_moves():
    rounds = []
    found = solve(solver(4, 3), steps=12, callback=rounds.append)
    assert [seen.index for seen in rounds] == list(range(1, 7))
    assert rounds[-1].evaluations == found.stats.evaluations
    for k, seen in enumerate(rounds, start=1):
        frozen, entered = max(0, k - 2), min(4, k)
        assert seen.settled.tolist() == [max(min(k, 4), 3 * frozen)] * 3  # the fifth node is in a block frozen before
        first = 3 * max(0, k - 3) + 1
        assert torch.isfinite(seen.change[:, first : 3 * entered + 1]).all()
        assert torch.isnan(seen.change[:, :first]).all()
        assert torch.isnan(seen.change[:, 3 * entered + 1 :]).all()
        assert torch.isfinite(seen.answer).all() == (entered == 4)
        assert seen.preview.shape == (3, 2)
    assert torch.equal(rounds[-1].answer, found.samples)


def test_a_solve_can_be_walked_through_by_hand():
    walk = pd.iterate(mixture(), (2, 2), sampler=pd.DDPM(), steps=12, solver=solver(4, 3))
    assert [next(walk).index for _ in range(6)] == list(range(1, 7))
    with pytest.raises(StopIteration) as end:
        next(walk)
    assert end.value.value.converged


@pytest.mark.parametrize("budget", [1, 4, 6, 9])
def test_a_budget_keeps_the_best_answer(budget):
    found = solve(solver(5, 6), max_rounds=budget)
    assert found.stats.rounds == budget
    assert found.status == (pd.Status.BUDGET_EXHAUSTED,) * 3
    whole = solve(solver(5, 6))
    reached = budget >= 5
    assert torch.isfinite(found.error).all() == reached
    assert torch.isfinite(found.samples).all()
    assert torch.isfinite(found.trajectory[:, -1]).all() == reached
    assert whole.stats.rounds == 10
    assert whole.converged
    assert solve(solver(5, 6), max_rounds=10).converged
    if reached:
        assert float((found.samples - whole.samples).abs().max()) < 1


def test_an_interrupt_keeps_the_best_answer():
    table = pd.DDPM().tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 12)).reform(Form.NOISE)
    source = pd.noise.Philox(seed=0, shape=(2,), dtype=torch.float64)
    for after in (1, 5, 6):
        solving = wavefront(table, source.start(torch.arange(2)), source, solver(4, 3, verify=20), variance=1.0)
        request = next(solving)
        for _ in range(after):
            request = solving.send(mixture()(request.x, request.t))
        with pytest.raises(StopIteration) as end:
            solving.throw(Interrupted())
        outcome = end.value.value
        # interrupted while it verifies, all blocks are frozen already
        assert outcome.status == ((pd.Status.CONVERGED if after == 6 else pd.Status.INTERRUPTED),) * 2
        assert torch.isfinite(outcome.samples).all()
        assert torch.isfinite(outcome.error).all() == (after > 3)


class Broken:
    """A model whose output is not a number where it should not be asked."""

    def __init__(self, model, bad):
        self.form, self.schedule, self.variance, self._model, self._bad = (
            model.form,
            model.schedule,
            model.variance,
            model,
            bad,
        )

    def __call__(self, x, t, sample=None):
        return torch.where(self._bad(x, t, sample)[:, None], torch.nan, self._model(x, t, sample))


@pytest.mark.parametrize("slopes", SLOPES, ids=lambda slopes: type(slopes).__name__)
def test_a_model_that_breaks_for_one_sample_breaks_that_sample_only(slopes):
    method = solver(4, 5, slopes)
    fine = solve(method, steps=12)
    for last in (4.0, 2.0, 0.1):  # at the first, a middle, the last nodes
        broken = Broken(mixture(), lambda x, t, sample, last=last: (sample == 1) & (t <= last))
        found = solve(method, model=broken, steps=12)
        assert found.status == (pd.Status.CONVERGED, pd.Status.NON_FINITE, pd.Status.CONVERGED)
        assert torch.isfinite(found.samples).all()
        assert torch.isinf(found.error).tolist() == [False, True, False]
        assert torch.equal(found.trajectory[[0, 2]], fine.trajectory[[0, 2]])


@pytest.mark.parametrize("slopes", SLOPES, ids=lambda slopes: type(slopes).__name__)
def test_outputs_that_are_not_finite_on_the_way_do_no_harm(slopes):
    """States of half-converged rows may leave the domain of a model; the sequential sampler's own states do not."""
    theirs = solve(pd.sequential(), 8, sampler=pd.DPMpp2M(), steps=12)
    largest = float(theirs.trajectory.abs().max()) * 1.001
    sizes = []

    def outside(x, t, sample):
        far = x.abs().amax(1) > largest
        sizes.append(int(far.sum()))
        return far

    def early(x, t, sample):  # the first time that these nodes are asked for
        sizes.append(1)
        return (t < 2.0) & (len(sizes) <= 4)

    for bad in (outside, early):
        sizes.clear()
        found = solve(solver(4, 9, slopes), 8, model=Broken(mixture(), bad), sampler=pd.DPMpp2M(), steps=12)
        assert found.converged
        assert torch.equal(found.samples, theirs.samples)
        assert bad is outside or len(sizes) > 4


@pytest.mark.parametrize("slopes", SLOPES, ids=lambda slopes: type(slopes).__name__)
def test_one_bad_answer_on_the_way_is_forgotten(slopes):
    """The surrogate that was known before stands in for it; a few updates later nothing is left of it."""
    calls = itertools.count()
    once = Broken(mixture(), lambda x, t, sample: (t < 3.0) & (next(calls) == 3))
    found, fine = (solve(solver(2, 8, slopes), model=model, steps=24) for model in (once, mixture()))
    assert found.converged
    assert 0 < float((found.trajectory - fine.trajectory).abs().max()) < 0.3


def test_a_sample_without_a_finite_output_at_its_last_update_has_no_answer():
    calls = itertools.count()
    late = Broken(mixture(), lambda x, t, sample: (t < 1.0) & (sample == 0) & (next(calls) >= 4))
    found = solve(solver(2, 4), model=late, steps=12)
    assert found.status == (pd.Status.NON_FINITE, pd.Status.CONVERGED, pd.Status.CONVERGED)
    assert found.stats.sample_rounds[1] == 5


# refusals


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (dict(stop=pd.Tolerance(0.1)), "expected one number of sweeps"),
        (dict(stop=pd.LocalChange(0.1)), "expected one number of sweeps"),
        (dict(stop=pd.Sweeps((2, 3))), "expected one number of sweeps"),
        (dict(guess=pd.Coast()), "expected a guess that gives the states"),
    ],
)
def test_choices_that_a_wavefront_cannot_follow_are_refused(choices, words):
    with pytest.raises(pd.SpecError, match=words):
        solve(solver(3, 4, **choices))


def test_the_default_with_a_wavefront_says_which_preset_to_take():
    with pytest.raises(pd.SpecError, match=r"preset wavefront\(blocks, sweeps\)"):
        pd.sample(mixture(), (1, 2), steps=10, window=pd.Wavefront(2))


def test_a_wavefront_is_no_window_of_a_sweep():
    table = pd.DDPM().tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 12))
    source = pd.noise.Philox(seed=0, shape=(2,))
    with pytest.raises(pd.SpecError, match="a window that starts at a front"):
        next(sweep(table, torch.zeros(1, 2), source, solver(2, 3)))
    with pytest.raises(pd.SpecError, match=r"the window Wavefront\(blocks\)"):
        next(wavefront(table, torch.zeros(1, 2), source, pd.piadm_sde(2, 3)))
    with pytest.raises(pd.SpecError, match="at least 1 block"):
        pd.Wavefront(0)


def test_a_given_trajectory_is_a_guess_too():
    theirs = solve(pd.sequential())
    warm = solve(solver(5, 1, guess=pd.Given(theirs.trajectory)))
    torch.testing.assert_close(warm.samples, theirs.samples, rtol=1e-12, atol=1e-12)
    assert warm.stats.rounds == 5


def test_the_command_line_knows_the_preset(capsys):
    assert main(["sample", "--solver", "wavefront", "--tol", "1"]) == 2
    assert "expected no --tol, --kl or --exact beside --solver wavefront" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_line_draws_a_digit_with_a_wavefront(tmp_path, capsys):
    words = ["sample", "--solver", "wavefront", "--steps", "6", "--blocks", "2", "--sweeps", "3", "--labels", "3"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert "4 rounds" in " ".join(capsys.readouterr().out.split())
