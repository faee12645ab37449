"""Reference numbers to ten digits: the sequential sampler and its Picard iterates on one Gaussian coordinate.

They were computed once in arithmetic of 40 digits, step by step; here they come from affine maps, and again from the
library itself by drawing nothing but unit impulses. The chain: OU, T = 4, data
N(0.7, 2.5), stochasticity 0.8, twelve equal steps and eight geometric ones down to 0.05.
"""

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift.bench import theory_affine as affine
from paradrift.bench.theory_affine import Line
from paradrift.bench.theory_tables import GOLDEN, golden
from paradrift.forms import Form

LINE = Line(mean=0.7, variance=2.5)
SEQUENTIAL = {
    Form.SCORE: (0.6345349282106842, 2.5115172935860532),
    Form.RESIDUAL: (0.5828003230872086, 2.2003971473697965),
}
PATHS = {
    Form.SCORE: (7.16126981698, 11.5694960648, 6.35389203737, 1.58055631815, 0.206501195034),
    Form.RESIDUAL: (0.149683321702, 0.0107895877952, 3.7151834573e-4, 6.26711609079e-6, 5.6822392913e-8),
}
ANSWERS = {
    Form.SCORE: (5.45057258982, 4.96706948483, 2.76741917153, 0.12718914834, 0.016346710778),
    Form.RESIDUAL: (0.0396498802286, 0.00185084233861, 3.48924023254e-5, 3.34628194245e-7),  # then only eight digits
}


def digits(value):
    """Ten significant digits."""
    return f"{value:.9e}"


def impulses(form, solver):
    """The same maps through the library: mean and covariance of the answer from unit impulses, without sampling."""
    table = golden(form)
    size = table.rows
    model = pd.Gaussian([LINE.mean], LINE.variance, GOLDEN, form=form)
    given = torch.cat([torch.zeros(1, size), torch.eye(size)]).double()
    start, noise = given[:, :1], given.clone()
    noise[:, 0] = 0
    solution = pd.sample(
        model, start.shape, sampler=table, start=start, noise=noise[..., None], solver=solver, dtype=torch.float64
    )
    rest, moved = solution.samples[0], solution.samples[1:]
    return float(rest), float(((moved - rest) ** 2).sum())


def picard(sweeps):
    return pd.Solver(window=pd.Whole(), slopes=pd.Zero(), guess=pd.Repeat(), stop=pd.Sweeps(sweeps), verify=0)


@pytest.mark.parametrize("form", SEQUENTIAL)
def test_the_law_of_the_sequential_sampler(form):
    expected = [digits(value) for value in SEQUENTIAL[form]]
    assert [digits(value) for value in affine.end(affine.sequential(golden(form), LINE))] == expected
    assert [digits(value) for value in impulses(form, pd.sequential())] == expected


@pytest.mark.parametrize(
    ("form", "sweeps", "expected"), [(form, k, value) for form in PATHS for k, value in enumerate(PATHS[form], 1)]
)
def test_the_divergence_of_the_paths(form, sweeps, expected):
    assert digits(affine.picard_nats(golden(form), LINE, sweeps)) == digits(expected)


@pytest.mark.parametrize(
    ("form", "sweeps", "expected"), [(form, k, value) for form in ANSWERS for k, value in enumerate(ANSWERS[form], 1)]
)
def test_the_divergence_of_the_answers(form, sweeps, expected):
    law = affine.end(affine.sequential(golden(form), LINE))
    for found in (affine.end(affine.picard(golden(form), LINE, sweeps)[0]), impulses(form, picard(sweeps))):
        # ten digits, less those that cancel where both laws are nearly equal
        assert affine.between(found, law) == pytest.approx(expected, rel=5e-11, abs=1e-15)


def test_the_divergence_rises_before_it_falls():
    nats = [affine.picard_nats(golden(Form.SCORE), LINE, sweeps) for sweeps in range(1, 22)]
    assert nats[0] < nats[1] > nats[2] > nats[3] > nats[4]
    assert nats[-1] < 1e-25  # one sweep more than rows before the last: exact


def test_two_ways_to_the_divergence_of_the_paths():
    """Girsanov's sum against the divergence of the two Gaussian laws of all rows."""
    table = golden(Form.SCORE)
    after, before = (states for states in (affine.picard(table, LINE, 3)[0], affine.sequential(table, LINE)))
    away = after[:, 0] - before[:, 0]
    one, other = after[:, 1:] @ after[:, 1:].T, before[:, 1:] @ before[:, 1:].T
    quadratic = np.trace(np.linalg.solve(other, one)) - len(away) + away @ np.linalg.solve(other, away)
    nats = (quadratic + np.linalg.slogdet(other)[1] - np.linalg.slogdet(one)[1]) / 2
    assert nats == pytest.approx(affine.picard_nats(table, LINE, 3), rel=1e-9)


@pytest.mark.parametrize("stochasticity", [0.0, 0.7, 1.0])
def test_fine_grids_come_to_the_exact_flow(stochasticity):
    schedule = pd.OU(horizon=3.0, last=0.1)
    table = pd.Exponential(stochasticity=stochasticity).tableau(schedule, pd.grids.shrinking(schedule, 600))
    found = affine.end(affine.sequential(table, LINE))
    assert found == pytest.approx(affine.flow(LINE, 3.0, 0.1, stochasticity), rel=6e-3)


def test_the_divergence_from_the_continuous_dynamics_is_what_the_library_estimates():
    """Four standard errors: fails by chance once in 16,000 seeds."""
    schedule = pd.OU(horizon=3.0, last=0.1)
    times = pd.grids.shrinking(schedule, 20)
    model = pd.Gaussian([LINE.mean], LINE.variance, schedule, form=Form.SCORE)
    drawn = pd.sample(
        model,
        (6000, 1),
        sampler=pd.Exponential(),
        times=times,
        solver=pd.sequential(),
        dtype=torch.float64,
        trajectory=True,
    )
    found = pd.discretisation.kl(drawn, model)
    exact = affine.continuous_nats(pd.Exponential().tableau(schedule, times), LINE)
    assert abs(found.mean - exact) < 4 * found.standard_error < 0.05 * exact


def test_a_wrong_score_costs_what_the_certificate_says():
    """The sequential sampler of a wrong score against that of the true one; four standard errors."""
    schedule = pd.OU(horizon=3.0, last=0.1)
    times, wrong = pd.grids.shrinking(schedule, 20), Line(tilt=0.1)

    class Wrong(pd.Gaussian):
        def __call__(self, x, t, sample=None):
            return super().__call__(x, t, sample) + 0.1 * (1 + x / 2)

    true, tilted = (kind([LINE.mean], LINE.variance, schedule, form=Form.SCORE) for kind in (pd.Gaussian, Wrong))
    drawn = pd.sample(
        tilted,
        (4000, 1),
        sampler=pd.Exponential(),
        times=times,
        solver=pd.sequential(),
        dtype=torch.float64,
        trajectory=True,
    )
    found = pd.certificate.kl(drawn, true)
    exact = affine.wrong_nats(pd.Exponential().tableau(schedule, times), wrong)
    assert abs(found.mean - exact) < 4 * found.standard_error < 0.1 * exact
