"""Averages of gaps: what they add up to, exactly where they must, and how fast the rest falls."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import paradrift as pd
from paradrift.averaging import Averaged, average, averageable
from paradrift.forms import Form, convert, preconditioned
from paradrift.gaps import density, edges_of, odd
from paradrift.growth import FLOOR, SIGNAL, levels
from paradrift.noise import Chosen, Gathered, Given, Philox
from paradrift.solvers.steepness import Steepness
from paradrift.tableau import Tableau
from paradrift.thinning import spread

SCHEDULE = pd.Discrete.linear(1000)
SAMPLERS = (pd.DDPM(), pd.DDIM(eta=0.5), pd.Ancestral())


def chain(steps: int, sampler=SAMPLERS[0], form: Form = Form.DATA) -> Tableau:
    """The table of a sampler with noise."""
    return sampler.tableau(SCHEDULE, pd.grids.default(SCHEDULE, steps)).reform(form)


def answers(table: Tableau, outputs: np.ndarray, start: float, noises: np.ndarray) -> np.ndarray:
    """All rows of a chain whose nodes answer with given numbers."""
    state, gain, shaken = table.gains()
    return state * start + gain[:, : len(outputs)] @ outputs + shaken @ noises


def gathered(averaged: Averaged, noises: np.ndarray) -> np.ndarray:
    """The noises of the thinned chain that belong to those of the whole one."""
    return (averaged.shares * noises[averaged.columns]).sum(1)


def from_data(averaged: Averaged, rows: np.ndarray, states: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Data predictions that make the preconditioned output what it is told to be, along a path of the whole chain."""
    fine = averaged.fine
    p, q = preconditioned(Form.DATA, fine.alpha[rows], fine.sigma[rows], averaged.variance)
    return (f - p * states[rows]) / q


@given(st.lists(st.integers(1, 60), min_size=3, max_size=30, unique=True))
def test_gaps_are_odd_and_the_ends_stand_alone(rows: list[int]) -> None:
    last = max(rows) + 1
    edges = odd(np.array([0, *sorted(rows), last]))
    gaps = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == last
    assert (gaps % 2 == 1).all()
    assert gaps[0] == gaps[-1] == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("form", [Form.DATA, Form.NOISE, Form.V])
def test_gaps_of_one_row_are_the_chain_itself(sampler: pd.Sampler, form: Form) -> None:
    """Nothing skipped: the same propagators from start, outputs and noises to the answer, to round-off."""
    table = chain(30, sampler, form)
    averaged = average(table, 1000, 1.3)
    assert averaged.table.nodes == table.nodes
    theirs, ours = table.gains(), averaged.table.gains()
    places = np.zeros((table.rows, table.rows))
    np.add.at(places, (np.arange(table.rows)[:, None], averaged.columns), averaged.shares)
    for one, other in zip(theirs, (ours[0], ours[1], ours[2] @ places), strict=True):
        assert np.abs(one[-1] - other[-1]).max() < 1e-12


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [10, 25, 60])
def test_a_constant_output_is_followed_exactly(sampler: pd.Sampler, count: int) -> None:
    """F the same everywhere: the thinned chain has the whole one's answer on the same noises, to round-off."""
    table, rng = chain(200, sampler), np.random.default_rng(0)
    averaged, noises, constant = average(table, count, 0.7), rng.standard_normal(table.rows), 0.4
    whole = 0.9 * np.ones(table.rows)
    data = np.zeros(table.nodes)
    a, b, c = table.band("a", 1), table.band("b", 1), table.band("c", 0)
    for row in range(1, table.rows):
        data[row - 1] = from_data(averaged, np.array([row - 1]), whole, constant)[0]
        whole[row] = a[row] * whole[row - 1] + b[row] * data[row - 1] + c[row] * noises[row]
    thin, own, shaken = averaged.table, np.zeros(averaged.table.rows), gathered(averaged, noises)
    own[0], outputs = 0.9, np.zeros(averaged.table.nodes)
    for row in range(1, thin.rows):
        at, before = averaged.kept[row - 1 : row], own[row - 1 : row]
        p, q = preconditioned(Form.DATA, table.alpha[at], table.sigma[at], averaged.variance)
        outputs[row - 1] = ((constant - p * before) / q)[0]
        own[row] = thin.a[row] @ own + thin.b[row, :-1] @ outputs + shaken[row]
    assert averaged.table.nodes < 0.6 * table.nodes
    assert abs(own[-1] - whole[-1]) < 1e-12


def test_halves_add_up_to_their_gap() -> None:
    """Weights, and averages of x / alpha: of the beginning, of the output and of every noise."""
    averaged = average(chain(300), 40, 1.0)
    wholes, halves, alpha = averaged.wholes, averaged.halves, averaged.fine.alpha
    gaps = len(wholes.gap)
    split = np.flatnonzero(np.diff(averaged.edges) > 1)
    assert len(split) > 20
    one, two = split, split + gaps
    assert np.abs(halves.weight[one] + halves.weight[two] - wholes.weight[split]).max() < 1e-12
    for name in ("through", "gained", "noises"):
        parts, whole = getattr(halves, name), getattr(wholes, name)
        shares = [halves.weight[part] / alpha[halves.row[part]] for part in (one, two)]
        total = wholes.weight[split] / alpha[wholes.row[split]]
        if name == "noises":
            shares, total = [share[:, None] for share in shares], total[:, None]
        found = shares[0] * parts[one] + shares[1] * parts[two]
        assert np.abs(found - total * whole[split]).max() < 1e-12


def solved(denoiser: pd.Denoiser, averaged: Averaged, noise: Philox, samples: int) -> torch.Tensor:
    """The thinned chain, stepped through."""
    columns, shares = torch.as_tensor(averaged.columns), torch.as_tensor(averaged.shares)
    options = dict(sampler=averaged.table, dtype=torch.float64, solver=pd.sequential())
    return pd.sample(denoiser, (samples, 3), noise=Gathered(noise, columns, shares, 3), **options).samples


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_centred_isotropic_data_cost_nothing(sampler: pd.Sampler) -> None:
    """The preconditioned output vanishes, so any number of nodes has the sequential answer, to round-off."""
    model = pd.Gaussian([0.0, 0.0, 0.0], [0.6, 0.6, 0.6], SCHEDULE)
    table, noise = chain(400, sampler), Philox(seed=3, shape=(3,), dtype=torch.float64)
    whole = pd.sample(model, (5, 3), sampler=table, seed=3, dtype=torch.float64, solver=pd.sequential()).samples
    for count in (8, 30):
        assert float((solved(model, average(table, count, 0.6), noise, 5) - whole).abs().max()) < 1e-12


def test_errors_fall_faster_than_the_number_of_nodes_grows() -> None:
    """A Gaussian whose directions differ by a factor of fifty: the order of an answer on given noises is above one."""
    model = pd.Gaussian([0.3, -0.2, 0.1], [1.0, 0.3, 0.02], SCHEDULE)
    table, noise = chain(1000), Philox(seed=0, shape=(3,), dtype=torch.float64)
    whole = pd.sample(model, (64, 3), sampler=table, seed=0, dtype=torch.float64, solver=pd.sequential()).samples
    errors = []
    for count in (40, 80, 160):
        found = solved(model, average(table, count, model.variance), noise, 64)
        errors.append(float((found - whole).square().mean().sqrt()))
    assert errors[1] < errors[0] / 2.2
    assert errors[2] < errors[1] / 2.2
    assert errors[2] < 1e-3


def test_the_preconditioned_output_is_that_of_karras() -> None:
    """D = c_skip x / alpha + c_out F from every form, with the published coefficients over sqrt(v)."""
    alpha, sigma, v = np.array([1.0, 0.6, 0.05]), np.array([0.3, 0.8, 1.0]), 0.4
    rng, rho = np.random.default_rng(1), sigma / alpha
    x, data = rng.standard_normal(3), rng.standard_normal(3)
    expected = (data - v / (v + rho**2) * x / alpha) / (rho / np.sqrt(v + rho**2))
    for form in (Form.DATA, Form.NOISE, Form.V, Form.FLOW, Form.SCORE):
        to = convert(Form.DATA, form, alpha, sigma)
        p, q = preconditioned(form, alpha, sigma, v)
        assert np.allclose(p * x + q * (to.p * x + to.q * data), expected, rtol=0, atol=1e-12)


def test_which_chains_can_be_averaged() -> None:
    grid = pd.grids.default(SCHEDULE, 50)
    assert all(averageable(sampler.tableau(SCHEDULE, grid)) for sampler in SAMPLERS)
    others = (pd.DDIM(), pd.DPMpp2M(), pd.DPMppSDE(), pd.Heun())
    assert not any(averageable(sampler.tableau(SCHEDULE, grid)) for sampler in others)


def test_gaps_are_wide_where_noise_drowns_the_data_and_narrow_at_the_end() -> None:
    """Density 0.4 far below, 1 between, 2 far above: beside even ones, early gaps are 2.5 times as wide."""
    assert density(np.array([-9.0, 0.0, 9.0])) == pytest.approx(np.array([0.4, 1.0, 2.0]), abs=1e-4)
    table = pd.DDPM().tableau(SCHEDULE, pd.grids.default(SCHEDULE, 1000))
    ratio = np.log(table.alpha[:-1] / table.sigma[:-1])

    def widths(edges: np.ndarray) -> list[float]:
        gaps, place = np.diff(edges[:-1]), ratio[edges[:-2]]
        assert gaps.sum() == 999
        assert (gaps % 2 == 1).all()
        return [float(gaps[(low < place) & (place < high)].mean()) for low, high in ((-9, -3.5), (-2, 2))]

    (early, middle), (first, even) = widths(edges_of(table, 60, 1.0)), widths(odd(spread(table, 60)))
    assert early / middle == pytest.approx(2.5 * first / even, rel=0.15)
    assert widths(edges_of(table, 60, 100.0))[0] < early  # large data are drowned by larger noise


def test_gathered_noises_are_sums_of_what_is_drawn() -> None:
    """Sample by sample and row by row, for some samples of a source, whatever the order of the question."""
    table = chain(60)
    averaged, rng = average(table, 20, 1.0), np.random.default_rng(5)
    noises = torch.as_tensor(rng.standard_normal((4, table.rows, 2)))
    source = Chosen(Given(noises, noises[:, 0]), torch.tensor([3, 1]))
    found = Gathered(source, torch.as_tensor(averaged.columns), torch.as_tensor(averaged.shares), 2)
    drawn = found.draw(torch.tensor([1, 0]), torch.tensor([[7, 2], [5, 7]]))
    for place, (sample, rows) in enumerate(((1, (7, 2)), (3, (5, 7)))):
        for column, row in enumerate(rows):
            for element in range(2):
                expected = gathered(averaged, noises[sample, :, element].numpy())[row]
                assert abs(float(drawn[place, column, element]) - expected) < 1e-12
    assert torch.equal(found.start(torch.tensor([0])), noises[3:4, 0])


def test_paths_steeper_than_any_gaussian_let_errors_grow() -> None:
    """Each sample by itself: the ladder where its slopes are those of data, else the chain's own response to them."""
    table = pd.DDIM().tableau(SCHEDULE, pd.grids.default(SCHEDULE, 12)).reform(Form.DATA)
    felt = levels(table, 1.0)[:, 1:] / np.maximum(table.alpha, SIGNAL)[1:]
    steepness = Steepness(table, felt, 1.0, 2, torch.device("cpu"))
    assert torch.equal(
        steepness.felt(), torch.as_tensor(felt[-1])[:, None].expand(-1, 2)
    )  # nothing known, nothing damped
    nodes, alpha, rho = np.arange(12), table.alpha[:-1], (table.sigma / table.alpha)[:-1]
    mild, steep = 1 / (1 + rho**2), np.full(12, 3.0)  # of the data prediction in x / alpha
    for sample, slope in enumerate((mild, steep)):
        change = torch.ones(12, 4, dtype=torch.float64)
        df = torch.as_tensor(slope / alpha)[:, None] * change
        steepness.see(torch.as_tensor(nodes), torch.full((12,), sample), change, df, torch.full((12,), True))
    found = steepness.felt()
    assert torch.allclose(
        found[:, 0], torch.as_tensor(felt[FLOOR])
    )  # the variance of the data: the floor of the ladder
    a, b = table.band("a", 1), table.band("b", 1)
    through = [np.prod([a[m + 1] + b[m + 1] * 3.0 / alpha[m] for m in range(row, 12)]) for row in range(1, 13)]
    assert np.allclose(found[:, 1].numpy(), np.abs(through) / table.alpha[-1])
    assert float(found[0, 1]) > 10 * felt[-1, 0]
