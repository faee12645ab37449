"""Solves at fewer nodes than steps: within the tolerance, sample by sample, through every way that a solve can end."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import paradrift as pd
from paradrift.forward_error import forward_error
from paradrift.noise import Philox
from paradrift.report import distance
from paradrift.windows import Window

SCHEDULE = pd.Discrete.linear(1000)
MIXTURE = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5, 0.1], [0.8, 0.2, -0.3]], 0.05, SCHEDULE)


class Restless(torch.nn.Module):
    """A network whose outputs jump with time, as if every step had one of its own."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Noise prediction."""
        return 0.8 * x + 0.5 * torch.sin(1e3 * t)[:, None]


RESTLESS = pd.denoiser(Restless(), predicts="noise", schedule=SCHEDULE)


def solved(denoiser=MIXTURE, samples=8, steps=200, tol=1e-2, nodes=None, verify=0, window=None, **options):
    """A chain without noise, in float64."""
    solver = pd.default(tol, window or pd.Sliding(32), verify=verify)
    solver = solver if nodes is None else dataclasses.replace(solver, nodes=nodes)
    options = dict(seed=0, dtype=torch.float64) | options
    return pd.sample(denoiser, (samples, 3), sampler=pd.DDIM(), steps=steps, solver=solver, **options)


def sequential(denoiser=MIXTURE, samples=8, steps=200, **options):
    """The sequential sampler's answers."""
    options = dict(seed=0, dtype=torch.float64) | options
    return pd.sample(denoiser, (samples, 3), sampler=pd.DDIM(), steps=steps, solver=pd.sequential(), **options)


@given(
    steps=st.integers(2, 150),
    tol=st.sampled_from([0.3, 0.1, 1e-2, 1e-3]),
    window=st.sampled_from([pd.Whole(), pd.Sliding(2), pd.Sliding(7), pd.Sliding(32)]),
    seed=st.integers(0, 3),
)
def test_answers_stay_within_the_tolerance(steps: int, tol: float, window: Window, seed: int) -> None:
    """At any length, tolerance and window: three tolerances at most, as for any solve (docs/decisions.md).

    Samples at which the sequential sampler is itself unstable count as little as in the calibration: moving their start
    by a tenth of the tolerance moves their answer by more than the tolerance.
    """
    found = solved(steps=steps, tol=tol, window=window, seed=seed)
    plain = sequential(steps=steps, seed=seed).samples
    start = Philox(seed=seed, shape=(3,), dtype=torch.float64).start(torch.arange(8))
    push = torch.randn(8, 3, generator=torch.Generator().manual_seed(17), dtype=torch.float64)
    moved = sequential(steps=steps, start=start + push * tol / 10).samples
    stable = distance(moved, plain, MIXTURE.variance) < tol
    assert found.converged
    assert int(stable.sum()) >= 6
    assert float(distance(found.samples, plain, MIXTURE.variance)[stable].max()) <= 3 * tol


def test_long_chains_ask_a_fraction_of_their_nodes() -> None:
    """1000 steps in a window of 64: a sixth of the evaluations and a third of the rounds, at the same tolerance."""
    few = solved(steps=1000, window=pd.Sliding(64))
    every = solved(steps=1000, window=pd.Sliding(64), nodes=pd.Every())
    gap = distance(few.samples, sequential(steps=1000).samples, MIXTURE.variance)
    assert few.stats.evaluations < every.stats.evaluations / 3
    assert max(few.stats.sample_rounds) < max(every.stats.sample_rounds) * 0.75
    assert float(gap.max()) < 1e-2


@pytest.mark.parametrize("nodes", [None, pd.Every()])
def test_tolerance_zero_and_windows_of_one_node_are_the_sequential_sampler(nodes: pd.Nodes | None) -> None:
    """To the last bit."""
    plain = sequential().samples
    assert torch.equal(solved(tol=0.0, nodes=nodes).samples, plain)
    assert torch.equal(solved(tol=0.1, nodes=nodes, window=pd.Sliding(1)).samples, plain)


def test_a_window_of_one_node_may_be_thinned_on_request() -> None:
    """Then it asks for a few nodes, one after the other."""
    found = solved(tol=0.1, window=pd.Sliding(1), nodes=pd.Thinned(alone=True))
    gap = distance(found.samples, sequential().samples, MIXTURE.variance)
    assert max(found.stats.sample_rounds) < 50
    assert float(gap.max()) < 0.1


def test_outputs_that_jump_with_time_are_asked_at_every_node() -> None:
    """The first round shows it: a few rounds more than without thinning, and the same answer."""
    plain = sequential(RESTLESS, steps=100)
    few = solved(RESTLESS, steps=100, tol=0.05)
    every = solved(RESTLESS, steps=100, tol=0.05, nodes=pd.Every())
    assert few.stats.evaluations >= 100 * 8
    assert max(few.stats.sample_rounds) <= max(every.stats.sample_rounds) + 4
    assert float(distance(few.samples, plain.samples, None).max()) < 0.05


@pytest.mark.parametrize("verify", [0, 64])
def test_batch_mates_change_no_bit(verify: int) -> None:
    """A sample of a batch, some of which go on with more nodes, and the same alone."""
    options = dict(steps=400, tol=3e-3, verify=verify, window=pd.Sliding(20))
    batch = solved(samples=12, seed=list(range(12)), **options)
    assert len(set(batch.stats.sample_rounds)) > 1
    for sample in range(0, 12, 3):
        alone = solved(samples=1, seed=[sample], **options)
        assert torch.equal(alone.samples[0], batch.samples[sample])
        assert torch.equal(alone.error[0], batch.error[sample])
        assert alone.stats.sample_rounds[0] == batch.stats.sample_rounds[sample]


def test_the_reported_error_covers_the_true_one() -> None:
    """True defects in the middle of the gaps, after one round more: all of 64 samples here."""
    found = solved(samples=64, tol=0.03, verify=64)
    gap = distance(found.samples, sequential(samples=64).samples, MIXTURE.variance)
    assert bool((found.error >= gap).all())
    assert float(found.error.median()) < 0.03


def test_a_kept_path_is_one_of_the_whole_chain() -> None:
    """All its rows, near the sequential ones, the start and the answer exactly."""
    found, plain = solved(trajectory=True), sequential(trajectory=True)
    assert found.trajectory.shape == plain.trajectory.shape == (8, 201, 3)
    assert torch.equal(found.trajectory[:, 0], plain.trajectory[:, 0])
    assert torch.equal(found.trajectory[:, -1], found.samples)
    assert float((found.trajectory - plain.trajectory).abs().max()) < 0.02
    told = forward_error(found, MIXTURE)
    gap = distance(found.samples, plain.samples, MIXTURE.variance)
    assert bool((told.error >= gap).all())


def test_rounds_are_reported_in_the_words_of_the_whole_chain() -> None:
    """Nodes, rows and settled nodes are those of the chain that was asked for; what is settled never falls back."""
    seen: list[pd.Round] = []
    found = solved(steps=100, tol=0.05, callback=seen.append)
    assert [one.index for one in seen] == sorted(one.index for one in seen)
    assert seen[-1].index == found.stats.rounds
    assert all(one.nodes == 100 and one.change.shape == (8, 101) for one in seen)
    settled = torch.stack([one.settled for one in seen])
    assert bool((settled.diff(dim=0) >= 0).all())
    assert bool((settled[-1] == 100).all())
    assert torch.equal(seen[-1].answer, found.samples)


def test_a_budget_keeps_the_best_answer() -> None:
    """Two rounds: told as exhausted, with an answer that is finite and better than the start."""
    found, plain = solved(max_rounds=2), sequential()
    assert set(found.status) == {pd.Status.BUDGET_EXHAUSTED}
    assert found.stats.rounds == 2
    assert bool(torch.isfinite(found.samples).all())
    started = sequential(trajectory=True).trajectory[:, 0]
    assert float((found.samples - plain.samples).norm()) < float((started - plain.samples).norm())


def test_a_model_that_breaks_is_told() -> None:
    """Outputs that are not numbers at low noise: the whole chain is asked, and says so."""

    class Breaking(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.where((t < 100)[:, None], torch.nan, 0.9 * x)

    found = solved(pd.denoiser(Breaking(), predicts="noise", schedule=SCHEDULE))
    assert set(found.status) == {pd.Status.NON_FINITE}
    assert bool(torch.isinf(found.error).all())


def test_an_interrupt_returns_what_there_is() -> None:
    """Ctrl-C in the third call."""
    calls = []

    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return 0.9 * x

    found = solved(pd.denoiser(Slow(), predicts="noise", schedule=SCHEDULE), tol=1e-6, steps=1000)
    assert set(found.status) == {pd.Status.INTERRUPTED}
    assert bool(torch.isfinite(found.samples).all())


def test_guesses_speak_of_the_whole_chain() -> None:
    """An earlier trajectory, given for all rows, starts a thinned solve near its end."""
    earlier = solved(steps=200, trajectory=True, tol=1e-3)
    again = solved(steps=200, guess=pd.Given(earlier.trajectory), tol=1e-2)
    fresh = solved(steps=200, tol=1e-2)
    assert max(again.stats.sample_rounds) < max(fresh.stats.sample_rounds)


def test_given_paths_belong_to_their_samples_in_every_stage() -> None:
    """A batch of which a third goes on with all nodes, each sample with its own path; the paths of others are wrong."""
    options = dict(steps=60, window=pd.Sliding(20), tol=1e-2)
    earlier = solved(samples=12, seed=list(range(12)), trajectory=True, **options).trajectory
    options["nodes"] = pd.Thinned(share=0.1)
    batch = solved(samples=12, seed=list(range(12)), guess=pd.Given(earlier), **options)
    assert len(set(batch.stats.sample_rounds)) > 1
    for sample in range(12):
        alone = solved(samples=1, seed=[sample], guess=pd.Given(earlier[sample : sample + 1]), **options)
        assert torch.equal(alone.samples[0], batch.samples[sample])
        assert alone.stats.sample_rounds[0] == batch.stats.sample_rounds[sample]


def test_an_interrupt_while_errors_are_measured_keeps_the_answers() -> None:
    """Ctrl-C in the very last call: the answers are there, with the error that was predicted."""

    class Counting(torch.nn.Module):
        def __init__(self, last: int | None) -> None:
            super().__init__()
            self.calls, self.last = 0, last

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == self.last:
                raise KeyboardInterrupt
            return 0.9 * x

    def run(net: Counting) -> pd.Solution:
        return solved(pd.denoiser(net, predicts="noise", schedule=SCHEDULE), tol=0.1, verify=64)

    whole = Counting(None)
    expected = run(whole)
    found = run(Counting(whole.calls))
    assert torch.equal(found.samples, expected.samples)
    assert found.converged
    assert bool(torch.isfinite(found.error).all())
