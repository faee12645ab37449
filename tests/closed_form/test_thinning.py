"""The weights of thinned chains: exact for cubics, of fourth order, and honest about what they do not know."""

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift.forms import Form
from paradrift.noise import Philox
from paradrift.solvers.traces import Trace
from paradrift.tableau import Tableau
from paradrift.thinning import CORRECTOR, Thin, spread, thin, thinnable

SCHEDULE = pd.Discrete.linear(1000)
LONG = pd.DDIM().tableau(SCHEDULE, pd.grids.default(SCHEDULE, 200))
FLOW = LONG.reform(Form.FLOW)
GAUSSIAN = pd.Gaussian([0.3, -0.2, 0.1], [1.0, 0.3, 0.02], SCHEDULE)


def driven(table: Tableau, outputs: np.ndarray, start: float) -> np.ndarray:
    """All rows of a chain whose nodes answer with given numbers."""
    state, gain, _ = table.gains()
    return state * start + gain[:, : len(outputs)] @ outputs


def traced(thinned: Thin, outputs: np.ndarray, start: float) -> Trace:
    """One sample of one element whose kept nodes have answered with given numbers."""
    trace = Trace(thinned, torch.tensor([[start]], dtype=torch.float64), Philox(seed=0, shape=(1,)), 1.0)
    trace.heard.outputs[:, 0, 0] = torch.as_tensor(outputs)
    trace.heard.asked[:] = 1
    return trace


def cubic(degree: int) -> np.ndarray:
    """A power of log(alpha / sigma) at each node of the long chain."""
    return (np.log(LONG.alpha[:-1] / LONG.sigma[:-1]) / 3) ** degree


@pytest.mark.parametrize("degree", range(CORRECTOR))
def test_gaps_are_crossed_exactly_where_outputs_are_cubics(degree: int) -> None:
    """From a row of the fine chain to any other of the same gap, once four nodes are known: to round-off."""
    thinned, outputs = thin(LONG, 20, 1.0), cubic(degree)
    whole = driven(FLOW, outputs, 0.7)
    for index in range(CORRECTOR - 1, len(thinned.kept) - 1):
        first, last = thinned.kept[index], thinned.kept[index + 1]
        for row in range(first + 1, last + 1):
            used = outputs[thinned.kept[thinned.sources[row - 1]]]
            found = thinned.through[row] * whole[first] + thinned.gained[row] @ used
            assert abs(found - whole[row]) < 1e-11


def test_the_thinned_table_and_the_path_are_the_same_chain() -> None:
    """Whatever the nodes answer, the last row of the table is the last row of the interpolated path."""
    thinned = thin(FLOW, 20, 1.0)
    outputs = np.random.default_rng(0).standard_normal(len(thinned.kept) - 1)
    answer = driven(thinned.table, outputs, 0.7)[-1]
    path = traced(thinned, outputs, 0.7)._walk(np.array([len(FLOW.t) - 1]))[0]
    assert abs(float(path) - answer) < 1e-12


def test_cubics_leave_no_doubt_and_noise_does() -> None:
    """What two cubics disagree about vanishes for cubics, in every gap that four nodes stand around."""
    thinned = thin(LONG, 20, 1.0)
    kept = thinned.kept[:-1]
    smooth, rough = traced(thinned, cubic(3)[kept], 0.0), traced(thinned, cubic(5)[kept], 0.0)
    noise = traced(thinned, np.random.default_rng(0).standard_normal(len(kept)), 0.0)
    unknown = thinned.doubt[: CORRECTOR - 1] @ cubic(3)[kept]  # the first gaps, interpolated with fewer nodes
    felt = thinned.felt[-1, : CORRECTOR - 1]  # nothing was asked twice, so nothing is damped
    assert abs(float(smooth.doubts()) - np.linalg.norm(felt * unknown)) < 1e-10
    assert float(noise.doubts()) > 0.1
    assert float(rough.doubts()) > float(smooth.doubts())


def test_gaps_that_were_not_asked_yet_count_nothing() -> None:
    """Doubts grow with the nodes that have answered, and none is raised before."""
    thinned = thin(LONG, 20, 1.0)
    outputs = np.random.default_rng(0).standard_normal(len(thinned.kept) - 1)
    found = []
    for asked in (0, 4, 10, len(outputs)):
        trace = traced(thinned, outputs, 0.0)
        trace.heard.asked[asked:] = 0
        found.append(float(trace.doubts()))
    assert found[0] == 0
    assert found == sorted(found)
    assert found[1] < found[-1]


def test_answers_are_of_fourth_order_in_the_nodes() -> None:
    """On Gaussian data the distance to the fine chain's own answer falls with the fourth power: measured 4.4."""
    chain = pd.DDIM().tableau(SCHEDULE, pd.grids.default(SCHEDULE, 1000))
    options = dict(solver=pd.sequential(), seed=0, dtype=torch.float64)
    whole = pd.sample(GAUSSIAN, (8, 3), sampler=chain, **options).samples
    counts, gaps = (16, 32, 64), []
    for count in counts:
        few = pd.sample(GAUSSIAN, (8, 3), sampler=thin(chain, count, 1.0).table, **options).samples
        gaps.append(float((few - whole).square().mean().sqrt()))
    order = -np.polyfit(np.log(counts), np.log(gaps), 1)[0]
    assert 3.5 < order < 5.5
    assert gaps[1] < 1e-3


def test_rows_are_spread_between_the_ends() -> None:
    """The first row, the last node and the answer are kept, and no gap is wider than a quarter of the chain."""
    rows = spread(LONG, 16)
    assert rows[0] == 0
    assert rows[-2:].tolist() == [199, 200]
    assert np.all(np.diff(rows) > 0)
    assert np.diff(rows).max() < 50


@pytest.mark.parametrize(
    "sampler", [pd.DDPM(), pd.Heun(), pd.DPMpp2M(), pd.UniPC()], ids=lambda sampler: type(sampler).__name__
)
def test_noise_stages_and_several_steps_are_not_thinned(sampler: pd.Sampler) -> None:
    """Their chains are solved at every node."""
    assert not thinnable(sampler.tableau(SCHEDULE, pd.grids.default(SCHEDULE, 50)))


@pytest.mark.parametrize("form", [Form.DATA, Form.NOISE, Form.V, Form.FLOW])
def test_the_form_of_the_model_changes_nothing(form: Form) -> None:
    """The thinned table of a form is the thinned table of another, reformed."""
    one, other = thin(LONG.reform(form), 20, 1.0).table, thin(FLOW, 20, 1.0).table.reform(form)
    for mine, theirs in zip(one.gains(), other.gains(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
