"""Requests that cannot be carried out are refused in one clear sentence, before or while solving."""

import numpy as np
import pytest
import torch
from torch import nn

import paradrift as pd
from paradrift.forms import Form

SCHEDULE = pd.Discrete.linear(50)
MODEL = pd.Gaussian([0.1, -0.2], 1.0, SCHEDULE)
NET = nn.Linear(2, 2)


def network(answer, form="noise"):
    return pd.denoiser(answer, predicts=form, schedule=SCHEDULE)


class Raw:
    """A denoiser without an adapter to check its answers."""

    form, schedule, variance = Form.DATA, SCHEDULE, 1.0

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, x, t, sample):
        return self.answer(x)


def sample(model=MODEL, shape=(2, 2), **options):
    if not {"steps", "times"} & set(options) and not isinstance(options.get("sampler"), pd.Tableau):
        options["steps"] = 10
    return pd.sample(model, shape, **({"window": pd.Sliding(4)} | options))


def table():
    return pd.DDPM().tableau(SCHEDULE, np.array([40.0, 20.0, -1.0]))


REQUESTS = {
    "a network instead of a denoiser": (lambda: sample(NET), r"expected a denoiser, found Linear: wrap a network"),
    "no shape": (lambda: sample(shape=()), r"expected the shape of a batch, \(samples, \*shape\).*found \(\)"),
    "no sample axis": (lambda: sample(shape=(2,)), r"expected the shape of a batch.*found \(2,\)"),
    "no samples": (lambda: sample(shape=(0, 2)), r"expected the shape of a batch.*found \(0, 2\)"),
    "a broken shape": (lambda: sample(shape=(2, 2.5)), r"expected the shape of a batch.*found \(2, 2.5\)"),
    "the wrong shape for the model": (
        lambda: sample(shape=(2, 3)),
        r"expected states of shape \(\d, 2\), found \(\d, 3\)",
    ),
    "an unknown form": (lambda: network(NET, "nose"), "expected predicts to be one of data, noise.*found 'nose'"),
    "a bare function in a diffusion sampler": (
        lambda: sample(pd.denoiser(NET, predicts="value", schedule=SCHEDULE)),
        "expected a model of form data, found value",
    ),
    "no schedule": (
        lambda: sample(pd.denoiser(NET, predicts="value", schedule=None)),
        "expected a denoiser with a noise schedule, found none",
    ),
    "an unknown sampler": (
        lambda: sample(sampler="ddpm"),
        r"expected a sampler such as DDIM\(\) or DDPM\(\), found 'ddpm'",
    ),
    "rising times": (lambda: sample(times=[1.0, 2.0]), "expected strictly decreasing times, found 1.0 then 2.0"),
    "repeated times": (lambda: sample(times=[9, 9, 0]), "expected strictly decreasing times, found 9.0 then 9.0"),
    "a time that is not a number": (lambda: sample(times=[9, float("nan"), 0]), "expected finite times, found nan"),
    "one time": (lambda: sample(times=[9]), "expected a vector of at least 2 times"),
    "times outside": (lambda: sample(times=[70, 3]), r"expected times in \[-1, 49\], found 3.0 to 70.0"),
    "no steps": (lambda: sample(steps=0), "expected a positive number of steps, found 0"),
    "negative steps": (lambda: sample(steps=-3), "expected a positive number of steps, found -3"),
    "half a step": (lambda: sample(steps=2.5), "expected a positive number of steps, found 2.5"),
    "too many steps": (lambda: sample(steps=51), "expected 1 to 50 steps, found 51"),
    "steps and times": (lambda: sample(steps=3, times=[9, 0]), "expected steps= or times=, one of the two"),
    "neither steps nor times": (lambda: pd.sample(MODEL, (2, 2)), "expected steps= or times=, one of the two"),
    "steps beside a table": (
        lambda: sample(sampler=table(), steps=3),
        "expected no steps or times beside a sampler with a grid of its own",
    ),
    "tol and stop": (lambda: sample(tol=0.1, stop=pd.Sweeps(3)), "expected either stop= or tol=, found both"),
    "a negative tolerance": (lambda: sample(tol=-1e-3), "expected a tolerance of at least 0, found -0.001"),
    "a tolerance that is not a number": (
        lambda: sample(tol=float("nan")),
        "expected a tolerance of at least 0, found nan",
    ),
    "a negative local change": (lambda: pd.paradigms(8, -1.0), "expected a tolerance of at least 0, found -1.0"),
    "a window of no nodes": (lambda: pd.Sliding(0), r"expected a window of at least 1 node, found 0: use Sliding\(1\)"),
    "no blocks": (lambda: pd.piadm_sde(0, 3), "expected at least 1 block, found 0"),
    "no sweeps": (lambda: pd.piadm_sde(3, 0), "expected at least 1 sweep, found 0"),
    "no rounds": (lambda: sample(max_rounds=0), "expected max_rounds of at least 1, found 0"),
    "no rows": (lambda: sample(max_rows=0), "expected max_rows of at least 1, found 0"),
    "increments of a multistep rule": (
        lambda: sample(sampler=pd.DPMpp2M(), slopes=pd.Increments()),
        "expected a one-step table for Increments, found one that reaches back 2 rows",
    ),
    "half-precision states": (
        lambda: sample(dtype=torch.float16),
        "expected states in float32 or float64, found torch.float16",
    ),
    "whole-number states": (
        lambda: sample(dtype=torch.int64),
        "expected states in float32 or float64, found torch.int64",
    ),
    "a start of another shape": (
        lambda: sample(start=torch.zeros(2, 3)),
        r"expected a start of shape \(2, 2\), found \(2, 3\)",
    ),
    "noises without a start": (lambda: sample(noise=torch.zeros(2, 11, 2)), "expected start= beside ready noises"),
    "noises of another shape": (
        lambda: sample(noise=torch.zeros(2, 9, 2), start=torch.zeros(2, 2)),
        r"expected noises of shape \(2, 11, 2\), one for each row, found \(2, 9, 2\)",
    ),
    "generator and noise": (
        lambda: sample(generator=torch.Generator(), noise=torch.zeros(2, 11, 2)),
        "expected generator= or noise=, found both",
    ),
    "too few seeds": (lambda: sample(seed=[1]), "expected one seed, or one for each of 2 samples, found 1"),
    "too few generators": (
        lambda: sample(generator=[torch.Generator()]),
        "expected one generator, or one for each of 2",
    ),
    "a network that returns no tensor": (
        lambda: sample(network(lambda x, t: (x,))),
        "expected the network to return a tensor, found tuple",
    ),
    "a network of another shape": (
        lambda: sample(network(lambda x, t: x[:, :1])),
        r"expected an output of shape \(\d, 2\), found \(\d, 1\)",
    ),
    "a denoiser that returns no tensor": (
        lambda: sample(Raw(lambda x: None)),
        "expected the denoiser to return a tensor",
    ),
    "a denoiser that loses rows": (
        lambda: sample(Raw(lambda x: x[:1])),
        r"expected outputs of shape \(8, 2\) from the denoiser, found \(1, 2\): rows in, rows out",
    ),
    "a denoiser that returns whole numbers": (
        lambda: sample(Raw(lambda x: x.long())),
        "expected floating-point outputs from the denoiser, found torch.int64",
    ),
    "a missing answer": (
        lambda: pd.Solution.load("nowhere.safetensors"),
        "expected a solution file at nowhere.safetensors",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_wrong_requests_are_refused_in_one_sentence(name):
    request, sentence = REQUESTS[name]
    with pytest.raises(pd.SpecError, match=sentence) as caught:
        request()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    assert message.startswith("expected")


def test_other_files_are_not_answers(tmp_path):
    from safetensors.torch import save_file

    save_file({"samples": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(pd.SpecError, match="expected a file written by Solution.save at .*, found other safetensors"):
        pd.Solution.load(tmp_path / "other.safetensors")


def test_a_refused_request_leaves_the_generator_where_the_loop_leaves_it_or_alone():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    with pytest.raises(pd.SpecError):
        sample(steps=0, generator=generator)
    assert torch.equal(generator.get_state(), before)
