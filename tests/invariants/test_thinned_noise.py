"""Chains with noise at fewer nodes than steps: the sequential answer on the same noises, through every way to end."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import paradrift as pd
from paradrift.errors import SpecError
from paradrift.noise import Given, Philox
from paradrift.report import distance
from paradrift.solvers.thinned import thinned
from paradrift.windows import Window

SCHEDULE = pd.Discrete.linear(1000)
# two wells that touch: no path is near a watershed that an error of the tolerance would cross
MIXTURE = pd.GaussianMixture([0.5, 0.5], [[-0.3, 0.5, 0.1], [0.3, 0.2, -0.3]], 0.2, SCHEDULE)
SAMPLERS = (pd.DDPM(), pd.DDIM(eta=0.7), pd.Ancestral(), pd.Exponential(stochasticity=1.0))


class Restless(torch.nn.Module):
    """A network whose outputs jump with time, as if every step had one of its own."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Noise prediction."""
        return 0.8 * x + 0.5 * torch.sin(1e3 * t)[:, None]


RESTLESS = pd.denoiser(Restless(), predicts="noise", schedule=SCHEDULE)


def solved(denoiser=MIXTURE, samples=8, steps=400, tol=3e-2, nodes=None, verify=0, window=None, **options):
    """A chain with noise, in float64."""
    solver = pd.default(tol, window or pd.Sliding(32), verify=verify)
    solver = solver if nodes is None else dataclasses.replace(solver, nodes=nodes)
    options = dict(seed=0, dtype=torch.float64, sampler=pd.DDPM()) | options
    return pd.sample(denoiser, (samples, 3), steps=steps, solver=solver, **options)


def sequential(denoiser=MIXTURE, samples=8, steps=400, **options):
    """The sequential sampler's answers."""
    options = dict(seed=0, dtype=torch.float64, sampler=pd.DDPM()) | options
    return pd.sample(denoiser, (samples, 3), steps=steps, solver=pd.sequential(), **options)


@given(
    steps=st.integers(2, 300),
    tol=st.sampled_from([1.0, 0.3, 0.1, 3e-2]),
    window=st.sampled_from([pd.Whole(), pd.Sliding(2), pd.Sliding(7), pd.Sliding(64)]),
    sampler=st.sampled_from(SAMPLERS),
    seed=st.integers(0, 3),
)
def test_answers_stay_within_the_tolerance(
    steps: int, tol: float, window: Window, sampler: pd.Sampler, seed: int
) -> None:
    """At any length, tolerance and window, on the noises of the sequential sampler."""
    found = solved(steps=steps, tol=tol, window=window, sampler=sampler, seed=seed)
    gap = distance(found.samples, sequential(steps=steps, sampler=sampler, seed=seed).samples, MIXTURE.variance)
    assert found.converged
    assert float(gap.max()) <= 2 * tol


def test_long_chains_ask_a_fraction_of_their_nodes() -> None:
    """1000 steps of DDPM in a window of 64: a third of the rounds and a fourth of the evaluations."""
    few = solved(steps=1000, window=pd.Sliding(64))
    every = solved(steps=1000, window=pd.Sliding(64), nodes=pd.Every())
    gap = distance(few.samples, sequential(steps=1000).samples, MIXTURE.variance)
    assert few.stats.evaluations < every.stats.evaluations / 3
    assert max(few.stats.sample_rounds) < max(every.stats.sample_rounds) * 0.6
    assert float(gap.max()) < 3e-2
    assert not few.certifiable
    assert every.certifiable


@pytest.mark.parametrize("nodes", [None, pd.Every()])
def test_tolerance_zero_and_windows_of_one_node_are_the_sequential_sampler(nodes: pd.Nodes | None) -> None:
    """To the last bit."""
    plain = sequential().samples
    assert torch.equal(solved(tol=0.0, nodes=nodes).samples, plain)
    assert torch.equal(solved(tol=1.0, nodes=nodes, window=pd.Sliding(1)).samples, plain)


def test_a_window_of_one_node_may_be_thinned_on_request() -> None:
    """Then it asks for one average after the other, and in one round more how far it is off."""
    found = solved(tol=0.3, window=pd.Sliding(1), nodes=pd.Thinned(alone=True))
    gap = distance(found.samples, sequential().samples, MIXTURE.variance)
    assert max(found.stats.sample_rounds) < 80
    assert float(gap.max()) < 0.3


def test_outputs_that_jump_with_time_are_asked_at_every_node() -> None:
    """A few rounds show it; then the whole chain is solved, to the last bit as without thinning."""
    few = solved(RESTLESS, steps=300, tol=0.1)
    every = solved(RESTLESS, steps=300, tol=0.1, nodes=pd.Every())
    assert torch.equal(few.samples, every.samples)
    assert max(few.stats.sample_rounds) <= max(every.stats.sample_rounds) + 6


def test_what_a_coarse_chain_leaves_is_made_good_by_finer_ones() -> None:
    """A tolerance shared out so narrowly that the first chain cannot do: more evaluations, and a smaller error."""
    plain = sequential().samples
    wide = solved(tol=0.1)
    narrow = solved(tol=0.1, nodes=pd.Thinned(share=0.003))
    errors = [distance(one.samples, plain, MIXTURE.variance) for one in (wide, narrow)]
    assert narrow.converged
    assert narrow.stats.evaluations > wide.stats.evaluations * 1.3
    assert float(errors[1].median()) < float(errors[0].median()) / 3


def test_samples_that_go_on_with_every_node_keep_their_own_noises() -> None:
    """A batch whose odd samples have outputs that jump with time: those are solved whole, the others are not."""

    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, jumps: torch.Tensor) -> torch.Tensor:
            return 0.8 * x + (0.5 * jumps * torch.sin(1e3 * t))[:, None]

    jumps = torch.tensor([0.0, 1.0] * 4, dtype=torch.float64)
    model = pd.denoiser(Half(), predicts="noise", schedule=SCHEDULE, conditioning={"jumps": jumps})
    found, plain = solved(model, tol=0.1), sequential(model)
    rounds = torch.tensor(found.stats.sample_rounds)
    assert int(rounds[1::2].min()) > int(rounds[::2].max())
    assert float(distance(found.samples, plain.samples, None).max()) < 0.1


@pytest.mark.parametrize("verify", [0, 64])
def test_batch_mates_change_no_bit(verify: int) -> None:
    """A sample of a batch, some of which go on with more nodes, and the same alone."""
    options = dict(steps=400, tol=0.3, verify=verify, window=pd.Sliding(20), nodes=pd.Thinned(share=0.005))
    batch = solved(samples=12, seed=list(range(12)), **options)
    assert len(set(batch.stats.sample_rounds)) > 1
    for sample in range(0, 12, 3):
        alone = solved(samples=1, seed=[sample], **options)
        assert torch.equal(alone.samples[0], batch.samples[sample])
        assert torch.equal(alone.error[0], batch.error[sample])
        assert alone.stats.sample_rounds[0] == batch.stats.sample_rounds[sample]


def test_the_reported_error_covers_the_true_one() -> None:
    """Halves of the gaps, asked in one round more: at least 62 of 64 samples."""
    found = solved(samples=64, tol=0.1, verify=64)
    gap = distance(found.samples, sequential(samples=64).samples, MIXTURE.variance)
    assert int((found.error >= gap).sum()) >= 62
    assert float(found.error.median()) < 0.1


def test_paths_that_are_kept_are_asked_at_every_node() -> None:
    """So they have a certificate; without their path such answers have none, and say so."""
    kept = solved(steps=400, tol=0.3, trajectory=True)
    every = solved(steps=400, tol=0.3, nodes=pd.Every())
    assert kept.certifiable
    assert torch.equal(kept.samples, every.samples)
    certified = solved(steps=400, tol=0.3, certify=True)
    assert certified.certificate is not None
    assert certified.certificate.mean < 10
    with pytest.raises(SpecError, match="causal"):
        pd.certificate.kl(dataclasses.replace(kept, certifiable=False), MIXTURE)


def test_the_path_of_averages_is_near_the_sequential_one() -> None:
    """What a thinned solve would keep: the start and the answer exactly, every row between on the same noises."""
    table = pd.DDPM().tableau(SCHEDULE, pd.grids.default(SCHEDULE, 400)).reform(pd.Form.DATA)
    noise, ids = Philox(seed=0, shape=(3,), dtype=torch.float64), torch.arange(8)
    solver = pd.default(0.03, pd.Sliding(32), verify=0)
    solving = thinned(table, noise.start(ids) * table.start, noise, solver, variance=MIXTURE.variance, keep=True)
    model = pd.Reform(MIXTURE, pd.Form.DATA)
    try:
        request = next(solving)
        while True:
            request = solving.send(model(request.x, request.t, request.sample))
    except StopIteration as end:
        found = end.value
    plain = sequential(trajectory=True).trajectory
    assert torch.equal(found.trajectory[:, 0], plain[:, 0])
    assert torch.equal(found.trajectory[:, -1], found.samples)
    assert float((found.trajectory - plain).abs().max()) < 0.1
    assert not found.certifiable


def test_generators_are_drawn_from_as_the_loop_does() -> None:
    """Each noise once and in order, so every node is asked: the same answer as the loop's with the same generator."""
    found = solved(generator=torch.Generator().manual_seed(3), tol=0.3)
    plain = sequential(generator=torch.Generator().manual_seed(3))
    assert float(distance(found.samples, plain.samples, MIXTURE.variance).max()) < 0.3
    assert found.certifiable


def test_ready_noises_are_read_as_they_are() -> None:
    """A tensor of noises, and a user's own source that has no certificate to lose."""
    noises = torch.randn(8, 401, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plain = sequential(noise=noises, start=start).samples
    found = solved(noise=noises, start=start, tol=0.1)
    assert not found.certifiable
    assert float(distance(found.samples, plain, MIXTURE.variance).max()) < 0.1
    assert torch.equal(solved(noise=Given(noises, start), tol=0.1).samples, found.samples)


def test_rounds_are_reported_in_the_words_of_the_whole_chain() -> None:
    """Nodes, rows and settled nodes are those of the chain that was asked for; what is settled never falls back."""
    seen: list[pd.Round] = []
    found = solved(tol=0.3, callback=seen.append)
    assert [one.index for one in seen] == sorted(one.index for one in seen)
    assert all(one.nodes == 400 and one.change.shape == (8, 401) for one in seen)
    settled = torch.stack([one.settled for one in seen])
    assert bool((settled.diff(dim=0) >= 0).all())
    assert bool((settled[-1] == 400).all())
    assert torch.equal(seen[-1].answer, found.samples)


def test_a_budget_keeps_the_best_answer() -> None:
    """Two rounds: told as exhausted, with an answer that is finite and nearer than the start."""
    found, plain = solved(max_rounds=2, tol=0.3), sequential()
    started = sequential(trajectory=True).trajectory[:, 0]
    assert set(found.status) == {pd.Status.BUDGET_EXHAUSTED}
    assert found.stats.rounds == 2
    assert bool(torch.isfinite(found.samples).all())
    assert float((found.samples - plain.samples).norm()) < float((started - plain.samples).norm())


def test_a_model_that_breaks_is_told() -> None:
    """Outputs that are not numbers at low noise: the whole chain is asked, and says so."""

    class Breaking(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.where((t < 100)[:, None], torch.nan, 0.9 * x)

    found = solved(pd.denoiser(Breaking(), predicts="noise", schedule=SCHEDULE), tol=0.3)
    assert set(found.status) == {pd.Status.NON_FINITE}
    assert bool(torch.isinf(found.error).all())


@pytest.mark.parametrize("call", [1, 2, 4, 7])
def test_an_interrupt_returns_what_there_is(call: int) -> None:
    """Ctrl-C in some call: in the sweep, and while halves are asked."""
    calls = []

    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            if len(calls) == call:
                raise KeyboardInterrupt
            return 0.9 * x + 0.1 * torch.sin(3 * x)

    found = solved(pd.denoiser(Slow(), predicts="noise", schedule=SCHEDULE), tol=0.1, verify=64)
    assert len(calls) == call
    assert set(found.status) <= {pd.Status.INTERRUPTED, pd.Status.CONVERGED}
    assert bool(torch.isfinite(found.samples).all())


def test_a_data_variance_that_is_not_known_is_measured() -> None:
    """Tolerances are then in units of each sample's own prediction, from the first halves on."""
    model = pd.denoiser(MIXTURE, predicts="data", schedule=SCHEDULE)
    assert model.variance is None
    found, plain = solved(model, tol=0.1), sequential(model)
    assert found.stats.evaluations < 8 * 300
    assert float(distance(found.samples, plain.samples, None).max()) < 0.1
