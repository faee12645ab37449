"""The lean sequential sampler is the window of one node, to the last bit, and breaks as it does."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import paradrift as pd
from paradrift.solvers import stepping as steps
from paradrift.solvers import sweep as sweeping
from paradrift.solvers.stepping import plain

SAMPLERS = [
    pd.DDIM(),
    pd.DDPM(),
    pd.Ancestral(),
    pd.DPMpp2M(),
    pd.DPMpp3M(),
    pd.DPMppSDE(),
    pd.UniPC(),
    pd.DEIS(),
    pd.Heun(),
    pd.AcceleratedSDE(),
]


def toy() -> pd.GaussianMixture:
    means = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    return pd.GaussianMixture(torch.ones(4), means, torch.full((4,), 0.1), pd.Discrete.linear(1000))


@dataclasses.dataclass(frozen=True)
class Breaking:
    """Not a number for one sample, below a time."""

    inner: pd.GaussianMixture
    sample: int
    below: float

    @property
    def form(self) -> object:
        return self.inner.form

    @property
    def schedule(self) -> object:
        return self.inner.schedule

    @property
    def variance(self) -> float:
        return 1.0

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor | None = None) -> Tensor:
        assert sample is not None
        bad = (sample == self.sample) & (t < self.below)
        return torch.where(bad[:, None], torch.nan, self.inner(x, t, sample))


def both(monkeypatch: pytest.MonkeyPatch, model: object, **options: object) -> tuple[pd.Solution, pd.Solution]:
    def solve() -> pd.Solution:
        return pd.sample(model, (3, 6), solver=pd.sequential(), trajectory=True, **options)  # type: ignore[arg-type]

    lean = solve()
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "plain", lambda table: False)
        return lean, solve()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_every_sampler_steps_as_a_window_of_one_node_does(monkeypatch: pytest.MonkeyPatch, sampler: pd.Sampler) -> None:
    lean, window = both(monkeypatch, toy(), sampler=sampler, steps=70, seed=[4, 1, 7])
    assert torch.equal(lean.samples, window.samples)
    assert lean.trajectory is not None
    assert window.trajectory is not None
    assert torch.equal(lean.trajectory, window.trajectory)
    assert lean.stats.sample_rounds == window.stats.sample_rounds
    assert lean.stats.evaluations == window.stats.evaluations
    assert lean.certifiable
    assert lean.converged
    assert not lean.error.any()


def test_a_generator_ends_where_the_loop_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for budget in (None, 5):
        generator = torch.Generator().manual_seed(3)
        pd.sample(
            toy(), (3, 6), steps=20, sampler=pd.DDPM(), solver=pd.sequential(), generator=generator, max_rounds=budget
        )
        ends.append(torch.randn(2, generator=generator))
    assert torch.equal(ends[0], ends[1])


def test_a_broken_sample_ends_alone_with_its_last_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Breaking(toy(), sample=1, below=500)
    lean, window = both(monkeypatch, model, sampler=pd.DDPM(), steps=20)
    assert lean.status == window.status
    assert lean.status == (pd.Status.CONVERGED, pd.Status.NON_FINITE, pd.Status.CONVERGED)
    assert torch.equal(lean.samples[[0, 2]], window.samples[[0, 2]])
    assert torch.isfinite(lean.samples).all()
    assert lean.stats.sample_rounds == window.stats.sample_rounds
    assert lean.error.tolist() == [0.0, torch.inf, 0.0]


@dataclasses.dataclass(frozen=True)
class Saying:
    """One output from a node on, the states themselves before."""

    output: tuple[float, ...]
    form: object = pd.forms.Form.VALUE
    schedule: object = None
    variance: float = 1.0

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor | None = None) -> Tensor:
        return torch.where(t[:, None] < 0.5, x, torch.tensor(self.output, dtype=x.dtype))


@pytest.mark.parametrize(
    "output",
    [(torch.inf, -torch.inf), (torch.nan, 0.0), (0.0, -torch.inf), (3e38, 3e38), (-3e38, -3e38)],
    ids=str,
)
@pytest.mark.parametrize("listed", [0, 64], ids=["torch", "python"])
def test_what_is_not_finite_is_found_and_what_is_huge_is_let_pass(
    monkeypatch: pytest.MonkeyPatch, output: tuple[float, ...], listed: int
) -> None:
    monkeypatch.setattr(steps, "LISTED", listed)
    rows = pd.tableau.Rows(form=pd.forms.Form.VALUE)
    for node in range(4):
        rows.add(t=node / 4, a={node - 1: 0.5} if node else {}, b={node - 1: 0.25} if node else {})
    rows.add(t=1.0, a={3: 0.5}, b={3: 0.1}, evaluated=False)
    start = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))

    def solve() -> pd.Solution:
        return pd.sample(Saying(output), (2, 2), sampler=rows.build(), start=start, solver=pd.sequential())  # type: ignore[arg-type]

    lean = solve()
    monkeypatch.setattr(sweeping, "plain", lambda table: False)
    window = solve()
    assert (
        lean.status
        == window.status
        == (pd.Status.CONVERGED if max(output) == 3e38 or min(output) == -3e38 else pd.Status.NON_FINITE,) * 2
    )
    assert lean.stats.sample_rounds == window.stats.sample_rounds
    assert lean.stats.evaluations == window.stats.evaluations
    if lean.converged:
        assert torch.equal(lean.samples, window.samples)


@pytest.mark.parametrize("few", [0, 16], ids=["numbers", "tensors"])
def test_weights_round_alike_as_numbers_and_as_tensors(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(steps, "FEW", few)
    steps._chain.cache_clear()
    lean, window = both(monkeypatch, toy(), sampler=pd.DPMpp3M(), steps=20)
    steps._chain.cache_clear()
    assert torch.equal(lean.samples, window.samples)


def test_a_spent_budget_keeps_the_newest_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    lean, window = both(monkeypatch, toy(), sampler=pd.DDPM(), steps=20, max_rounds=7)
    assert set(lean.status) == {pd.Status.BUDGET_EXHAUSTED} == set(window.status)
    torch.testing.assert_close(lean.samples, window.samples, rtol=1e-5, atol=1e-6)
    assert lean.error.isinf().all()


def test_a_callback_sees_every_node_once() -> None:
    seen: list[pd.Round] = []
    solution = pd.sample(toy(), (3, 6), steps=20, solver=pd.sequential(), callback=seen.append)
    assert [one.settled.tolist() for one in seen] == [[node] * 3 for node in range(1, 21)]
    assert torch.equal(seen[-1].answer, solution.samples)
    assert all(torch.isfinite(one.preview).all() for one in seen)


def test_chains_with_rows_that_are_no_nodes_are_left_to_the_window() -> None:
    schedule = pd.Discrete.linear(1000)
    times = pd.grids.default(schedule, 10)
    assert plain(pd.DDPM().tableau(schedule, times))
    assert not plain(pd.Heun(churn=5.0).tableau(pd.EDM(), pd.grids.karras(pd.EDM(), 10)))
