"""E exp(-llr) = 1 and E llr = E nats, for every certified method at once: the identity that causality buys.

Twenty methods and two comparisons each at 4.5 standard errors: a false alarm in 4 of 1000 suites with other seeds.
Settings are such that the divergence is at most 1 nat, where the mean of the weights can be seen.
"""

import dataclasses
import math

import pytest
import torch

import paradrift as pd
from paradrift.forms import Form

MIXTURE = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.05, pd.Discrete.linear(1000))
OU = pd.OU(horizon=5.0, last=0.1)
SMOOTH = pd.GaussianMixture([0.4, 0.6], [[-0.8, 0.5], [0.8, 0.2]], 0.4, OU)
COUNT = 2000


def picard(window, sweeps, slopes=None):
    return pd.Solver(window=window, slopes=slopes or pd.Zero(), guess=pd.Repeat(), stop=pd.Sweeps(sweeps), verify=0)


LEFT = dict(slopes=pd.Zero(), guess=pd.Coast(), stop=pd.KL(0.5))
DDPM = dict(sampler=pd.DDPM(), steps=20)
SCORE = dict(sampler=pd.Exponential(stochasticity=1.0), steps=20)
METHODS = {
    "default, sliding": (MIXTURE, DDPM, pd.default(0.3, pd.Sliding(8))),
    "default, whole": (MIXTURE, DDPM, pd.default(0.5, pd.Whole())),
    "default, blocks": (MIXTURE, DDPM, pd.default(0.5, pd.Blocks(3))),
    "default, multistep": (MIXTURE, dict(sampler=pd.DPMppSDE(), steps=20), pd.default(0.5, pd.Sliding(8))),
    "default, ancestral": (MIXTURE, dict(sampler=pd.Ancestral(), steps=20), pd.default(0.5, pd.Sliding(8))),
    "budget": (MIXTURE, DDPM, dataclasses.replace(pd.default(window=pd.Sliding(8)), stop=pd.KL(0.5))),
    "budget, Picard": (SMOOTH, SCORE, pd.Solver(window=pd.Whole(), **LEFT)),
    "budget, eta": (MIXTURE, dict(sampler=pd.DDIM(eta=1.0), steps=20), pd.Solver(window=pd.Sliding(6), **LEFT)),
    "sequential": (MIXTURE, DDPM, pd.sequential()),
    "PIADM-SDE": (SMOOTH, SCORE, pd.piadm_sde(4, 4)),
    "PIADM-SDE, residual": (SMOOTH, SCORE | dict(sampler=pd.Exponential(form=Form.RESIDUAL)), picard(pd.Blocks(2), 3)),
    "ParaDiGMS": (MIXTURE, dict(sampler=pd.Ancestral(), steps=20), pd.paradigms(12, 0.4)),
    "wavefront": (SMOOTH, SCORE, pd.wavefront(4, 9)),
    "wavefront, secants": (SMOOTH, SCORE, dataclasses.replace(pd.wavefront(4, 2), slopes=pd.Secant())),
    "whole-window Picard": (SMOOTH, SCORE, picard(pd.Whole(), 11)),
    "data form": (SMOOTH, SCORE, picard(pd.Whole(), 5, pd.Zero(Form.DATA))),
    "constant slope": (SMOOTH, SCORE, picard(pd.Whole(), 6, pd.Constant(0.5))),
    "reference slope": (SMOOTH, SCORE, picard(pd.Whole(), 2, pd.Reference(1.0))),
    "secants in sweeps": (SMOOTH, SCORE, picard(pd.Whole(), 2, pd.Secant())),
    "local change": (SMOOTH, SCORE, dataclasses.replace(pd.paradigms(12, 0.3), slopes=pd.Secant())),
}  # fmt: skip


def test_every_causal_choice_of_the_library_is_in_the_list():
    solvers = [solver for _, _, solver in METHODS.values()]
    assert {type(solver.window) for solver in solvers} >= {pd.Sliding, pd.Whole, pd.Blocks, pd.Wavefront}
    assert {type(solver.stop) for solver in solvers} == {pd.Tolerance, pd.KL, pd.Sweeps, pd.LocalChange}
    slopes = {pd.Zero, pd.Increments, pd.Constant, pd.Reference, pd.Secant}
    assert {type(solver.slopes) for solver in solvers} == slopes


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_of_drawn_samples_have_mean_one(method):
    model, request, solver = METHODS[method]
    solution = pd.sample(model, (COUNT, 2), solver=solver, seed=11, dtype=torch.float64, certify=True, **request)
    found, root = solution.certificate, math.sqrt(COUNT)
    weights, noise = torch.exp(-found.llr), found.llr - found.nats
    if method == "sequential":
        assert found.mean < 1e-20
        return
    assert 1e-9 < found.mean < 1.0
    assert abs(float(weights.mean() - 1)) < 4.5 * float(weights.std()) / root
    assert abs(float(noise.mean())) < 4.5 * float(noise.std()) / root
