"""Models that break on the way: numbers that are not, exhausted budgets, interrupts, memory."""

import pytest
import torch

import paradrift as pd
from paradrift.forms import Form
from paradrift.report import distance

SCHEDULE = pd.Discrete.linear(100)
CENTRES = torch.randn(4, 6, generator=torch.Generator().manual_seed(8))
GOOD = pd.GaussianMixture([0.25] * 4, CENTRES, 0.1, SCHEDULE)


class Breaking:
    """A good model that answers some rows of some calls with something else."""

    form, schedule = Form.DATA, SCHEDULE

    def __init__(self, spoil):
        self.spoil, self.calls, self.sizes = spoil, 0, []

    @property
    def variance(self):
        return GOOD.variance

    def __call__(self, x, t, sample):
        self.calls += 1
        self.sizes.append(len(x))
        return self.spoil(self.calls, GOOD(x, t).clone(), x, t, sample)


def bad_number(value, when):
    def spoil(call, output, x, t, sample):
        output[when(call, t, sample)] = value
        return output

    return Breaking(spoil)


def solve(model, samples=3, **options):
    return pd.sample(model, (samples, 6), **({"steps": 30, "window": pd.Sliding(10)} | options))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tol", [0.0, 1e-3])
@pytest.mark.parametrize("sampler", [pd.DDPM(), pd.DPMpp3M(), pd.Heun()], ids=["DDPM", "3M", "Heun"])
@pytest.mark.parametrize("slopes", [pd.Secant(), pd.Zero(Form.NOISE)], ids=["secant", "picard"])
def test_a_bad_number_at_a_future_node_changes_nothing(value, tol, sampler, slopes):
    """Nodes away from the front break in the first two calls: neither the sequential sampler nor the answer sees it."""
    times = None if not isinstance(sampler, pd.Heun) else torch.linspace(99, -1, 16).round().tolist()
    options = dict(sampler=sampler, steps=30 if times is None else None, times=times)
    model = bad_number(value, lambda call, t, sample: (t < t.max() - 8) if call <= 2 else torch.zeros_like(t).bool())
    ours = solve(model, tol=tol, slopes=slopes, **options)
    theirs = solve(GOOD, solver=pd.sequential(), window=None, **options)
    assert ours.converged
    assert torch.isfinite(ours.samples).all()
    if tol == 0:
        assert torch.equal(ours.samples, theirs.samples)
    else:
        assert float((ours.samples - theirs.samples).square().mean(1).sqrt().max()) < 3e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_number_at_the_front_ends_its_sample_alone(value):
    model = bad_number(value, lambda call, t, sample: (sample == 1) & (t < 50))
    ours, theirs = solve(model), solve(GOOD)
    assert [status.value for status in ours.status] == ["converged", "non-finite", "converged"]
    assert not ours.converged
    assert torch.equal(ours.samples[[0, 2]], theirs.samples[[0, 2]])
    assert torch.isfinite(ours.samples).all()  # the best so far of the broken one
    assert ours.error[1] == float("inf")
    assert torch.isfinite(ours.error[[0, 2]]).all()
    with pytest.raises(pd.SolveError, match="found sample 1: non-finite") as caught:
        solve(model, throw=True)
    assert torch.equal(caught.value.solution.samples, ours.samples)
    sequential = solve(model, solver=pd.sequential(), window=None)
    assert [status.value for status in sequential.status] == ["converged", "non-finite", "converged"]


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_an_exhausted_budget_returns_the_best_so_far(rounds):
    ours = solve(GOOD, max_rounds=rounds)
    theirs = solve(GOOD, solver=pd.sequential(), window=None)
    assert set(ours.status) == {pd.Status.BUDGET_EXHAUSTED}
    assert ours.stats.rounds == rounds
    assert torch.isfinite(ours.samples).all()
    assert bool((ours.error == float("inf")).all())  # the window has not reached the answer: nothing is known of it
    # better than nothing: closer to the answer than the start is
    assert float((ours.samples - theirs.samples).norm()) < float(theirs.samples.norm()) * 2
    with pytest.raises(
        pd.SolveError, match="expected every sample to converge, found sample 0: budget exhausted"
    ) as caught:
        solve(GOOD, max_rounds=rounds, throw=True)
    assert torch.equal(caught.value.solution.samples, ours.samples)


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM(), pd.DPMpp2M()], ids=["DDIM", "DDPM", "2M"])
def test_an_exhausted_budget_says_how_far_the_answer_is(sampler, rounds):
    options = dict(samples=128, steps=20, sampler=sampler)
    theirs = solve(GOOD, solver=pd.sequential(), window=None, **options)
    ours = solve(GOOD, window=pd.Whole(), tol=1e-6, max_rounds=rounds, **options)
    late = torch.tensor([status is pd.Status.BUDGET_EXHAUSTED for status in ours.status])
    assert bool(late.any())
    true = distance(ours.samples, theirs.samples, GOOD.variance)[late]
    assert bool(torch.isfinite(ours.error[late]).all())
    # an estimate, not a bound: a sample that hesitates between two modes may be told too little, one in twenty at most
    assert float((true > 3 * ours.error[late].double() + 1e-6).double().mean()) <= 0.05
    shorter = solve(GOOD, window=pd.Whole(), tol=1e-6, max_rounds=1, **options)
    if rounds > 2:
        assert float(ours.error.median()) < float(shorter.error.median()) / 3


def test_a_budget_that_suffices_changes_nothing():
    free = solve(GOOD)
    enough = solve(GOOD, max_rounds=free.stats.rounds)
    assert enough.converged
    assert torch.equal(enough.samples, free.samples)
    assert solve(GOOD, throw=True).converged


@pytest.mark.parametrize("at", [1, 3])
def test_an_interrupt_returns_the_best_so_far(at):
    def spoil(call, output, x, t, sample):
        if call == at:
            raise KeyboardInterrupt
        return output

    ours = solve(Breaking(spoil))
    assert set(ours.status) == {pd.Status.INTERRUPTED}
    assert torch.isfinite(ours.samples).all()
    assert bool((ours.error == float("inf")).all())
    whole = solve(Breaking(spoil), window=pd.Whole())
    assert bool(torch.isfinite(whole.error).all()) == (at > 1)  # known as soon as one sweep has reached the answer
    assert not torch.is_inference_mode_enabled()


def test_a_model_that_raises_is_not_hidden():
    def spoil(call, output, x, t, sample):
        if call == 3:
            raise ZeroDivisionError("inside the model")
        return output

    with pytest.raises(ZeroDivisionError, match="inside the model"):
        solve(Breaking(spoil))


@pytest.mark.parametrize("fits", [1, 5, 12])
def test_running_out_of_memory_halves_the_rows_and_keeps_the_answer(fits):
    def spoil(call, output, x, t, sample):
        if len(x) > fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return output

    model = Breaking(spoil)
    ours, theirs = solve(model), solve(GOOD)
    assert torch.equal(ours.samples, theirs.samples)
    assert ours.stats.evaluations == theirs.stats.evaluations  # failed calls are not counted as evaluated
    assert ours.stats.rounds == theirs.stats.rounds
    failed = [size for size in model.sizes if size > fits]
    assert len(failed) <= 5  # it is remembered, not tried again in each round


def test_a_model_that_does_not_fit_at_all_says_so():
    def spoil(call, output, x, t, sample):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(pd.ParadriftError, match="expected memory for at least one row of the model, found none"):
        solve(Breaking(spoil))


def test_other_runtime_errors_are_not_taken_for_lack_of_memory():
    def spoil(call, output, x, t, sample):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        solve(Breaking(spoil))


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("how", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("count", [1, 3])
def test_generators_end_where_the_loop_leaves_them_also_after_a_breakdown(at, how, count):
    def spoil(call, output, x, t, sample):
        if call == at:
            raise how("broken")
        return output

    def generators():
        made = [torch.Generator().manual_seed(5 + index) for index in range(count)]
        return made if count > 1 else made[0]

    ours, theirs = generators(), generators()
    solve(GOOD, generator=theirs)
    if how is KeyboardInterrupt:
        solve(Breaking(spoil), generator=ours)
    else:
        with pytest.raises(ValueError, match="broken"):
            solve(Breaking(spoil), generator=ours)
    for mine, yours in zip(*([one] if count == 1 else one for one in (ours, theirs)), strict=True):
        assert torch.equal(mine.get_state(), yours.get_state())


def test_half_precision_outputs_are_taken_into_single_precision_states():
    model = Breaking(lambda call, output, x, t, sample: output.bfloat16())
    found = solve(model, trajectory=True)
    assert found.converged
    assert found.trajectory.dtype == torch.float32
    assert not torch.equal(found.trajectory, found.trajectory.bfloat16().float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_unknown_error_is_infinite_in_every_precision(dtype: torch.dtype) -> None:
    toy = pd.Gaussian(torch.zeros(4), 1.0, pd.Discrete.linear(1000))
    solution = pd.sample(toy, (2, 4), steps=100, window=pd.Sliding(8), max_rounds=2, dtype=dtype)
    assert set(solution.status) == {pd.Status.BUDGET_EXHAUSTED}
    assert solution.error.isinf().all()
