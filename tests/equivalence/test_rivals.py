"""What is common to the published rivals: their words on the command line, what is refused, what their papers show."""

import dataclasses

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift import choices
from paradrift.choices import SamplerName, SolverName
from paradrift.cli import main
from paradrift.forms import Form

SCHEDULE = pd.OU(horizon=4.0, last=0.05)


def mixture():
    return pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, SCHEDULE)


# certificates


@pytest.mark.parametrize(
    "solver",
    [
        dataclasses.replace(pd.default(), window=pd.Whole(), stop=pd.Tolerance(1e-2, finish=True)),
        pd.srds(),
        pd.chords(starts=(0, 2, 4)),
        pd.anderson(),
        pd.Newton(damping=1e-3),
    ],
    ids=["finish", "srds", "chords", "anderson", "damped"],
)
def test_methods_without_a_certificate_are_refused_one_before_anything_is_evaluated(solver):
    counted = pd.Counted(mixture())
    with pytest.raises(pd.SpecError, match="expected a causal method for certify=True, found") as caught:
        pd.sample(counted, (2, 2), sampler=pd.DDPM(), steps=12, solver=solver, certify=True)
    assert "\n" not in str(caught.value)
    assert counted.calls == 0
    found = pd.sample(counted, (2, 2), sampler=pd.DDIM(), steps=12, solver=solver)
    assert found.converged
    assert not found.certifiable


@pytest.mark.parametrize(
    "solver", [pd.default(), pd.paradigms(), pd.parasolver(), pd.parataa(), pd.relaxed(), pd.newton()], ids=range(6)
)
def test_causal_methods_are_certified(solver):
    found = pd.sample(mixture(), (2, 2), sampler=pd.DDPM(), steps=12, solver=solver, certify=True)
    assert found.certifiable
    assert found.certificate is not None


# the command line


def word(name, settle=None, span=None, sampler=SamplerName.DDIM):
    rule = choices.sampler(sampler, SolverName(name), 8)
    return choices.solver(SolverName(name), rule, settle, span=span, blocks=8, sweeps=8)


def test_words_are_the_published_choices_with_the_tolerance_and_width_that_were_given():
    presets = dict(
        paradigms=pd.paradigms,
        parasolver=pd.parasolver,
        parataa=pd.parataa,
        newton=pd.newton,
        anderson=pd.anderson,
        relaxed=pd.relaxed,
        srds=pd.srds,
        chords=pd.chords,
    )
    for name, preset in presets.items():
        assert word(name) == preset()
        if name != "parataa":
            assert word(name, pd.Tolerance(0.3)) == preset(tol=0.3)
    assert word("parataa", pd.Tolerance(0.3)) == pd.parataa(tol=0.3, share=0.3)
    for name in ("paradigms", "parasolver", "parataa", "newton"):
        assert word(name, span="12") == presets[name](window=12)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--solver", "srds", "--kl", "1"], "expected no --kl or --exact beside --solver srds"),
        (["--solver", "newton", "--exact"], "expected no --kl or --exact beside --solver newton"),
        (["--solver", "chords", "--window", "8"], "expected no --window beside --solver chords, found '8'"),
        (["--solver", "parasolver", "--window", "whole"], "expected a width such as 64 as window of parasolver"),
        (["--solver", "deer"], "is not one of"),
    ],
)
def test_what_a_rival_has_no_meaning_for_is_refused(words, sentence, capsys):
    assert main(["sample", *words]) == 2
    assert sentence in capsys.readouterr().err


SLOW = [pytest.param(name, 50, marks=pytest.mark.slow) for name in ("parasolver", "anderson", "relaxed", "chords")]


@pytest.mark.parametrize(("name", "steps"), [("newton", 5), ("srds", 10), *SLOW])
def test_each_word_draws_a_digit(name, steps, tmp_path, capsys):
    words = [
        "--solver",
        name,
        "--sampler",
        "ddim",
        "--steps",
        str(steps),
        "--labels",
        "3",
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert main(["sample", *words, "--no-sequential"]) == 0
    assert '"converged"' in capsys.readouterr().out


# what the papers show


def toy(dim, modes=8):
    centres = torch.randn(modes, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return pd.GaussianMixture([1 / modes] * modes, centres, 0.3, pd.Discrete.linear(1000), form=Form.NOISE)


def compared(method, samples=16, dim=64, **request):
    request = dict(dtype=torch.float64, seed=1) | request
    found, theirs = (pd.sample(toy(dim), (samples, dim), solver=one, **request) for one in (method, pd.sequential()))
    away = (found.samples - theirs.samples).square().mean(1).sqrt()
    return found, away


def test_parataa_takes_100_steps_of_ddim_in_a_few_rounds():
    """Published: 7 rounds for the same picture of Stable Diffusion, 4 to 14 times fewer rounds than steps."""
    found, away = compared(pd.parataa(order=100, memory=3, tol=1e-3, share=0.0), sampler=pd.DDIM(), steps=100)
    assert found.converged
    assert 100 / np.mean(found.stats.sample_rounds) > 4
    assert away.median() < 0.02
    # low orders lose most of it
    slow, _ = compared(pd.parataa(order=2, memory=3, tol=1e-3, share=0.0), sampler=pd.DDIM(), steps=100)
    assert np.mean(slow.stats.sample_rounds) > 2 * np.mean(found.stats.sample_rounds)


def test_anderson_over_the_whole_chain_takes_no_more_than_its_15_iterations():
    """DEQ-DDIM: memory 5, at most 15 iterations of the whole chain."""
    found, away = compared(pd.anderson(tol=5e-3).within(15), sampler=pd.DDIM(), steps=50)
    assert found.converged
    assert away.median() < 0.02


def test_newton_takes_the_fewest_rounds_of_all_and_the_most_evaluations():
    """DEER: rounds hardly grow with the steps where the chain contracts; each is as dear as its products."""
    rounds, spent = {}, {}
    for steps in (25, 100):
        for name, method in (("newton", pd.newton(pd.Full(), tol=1e-3)), ("picard", pd.relaxed(1.0))):
            found, away = compared(method, 4, 12, sampler=pd.DDIM(), steps=steps)
            assert away.max() < 0.05
            rounds[name, steps], spent[name, steps] = found.stats.rounds, found.stats.evaluations
    assert rounds["newton", 100] <= rounds["newton", 25] + 1
    assert rounds["newton", 100] < 0.7 * rounds["picard", 100]
    assert spent["newton", 100] > 5 * spent["picard", 100]


def test_a_relaxed_iteration_beats_the_plain_one_where_it_overshoots():
    """ParaFlow: part of the way in each round, fewer rounds than all of it."""
    plain, _ = compared(pd.relaxed(1.0), sampler=pd.DDIM(), steps=50)
    part, away = compared(pd.relaxed(0.8), sampler=pd.DDIM(), steps=50)
    assert np.mean(part.stats.sample_rounds) < np.mean(plain.stats.sample_rounds)
    assert away.median() < 0.01
