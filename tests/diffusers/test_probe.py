"""Every scheduler of the installed diffusers: read as a table, it reproduces its own loop, or is refused by name."""

import inspect

import diffusers.schedulers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

import paradrift as pd
from paradrift.diffusers.live import replica
from paradrift.forms import Form, from_data

# what diffusers and its Brownian trees warn of themselves
pytestmark = pytest.mark.filterwarnings("ignore:__array", "ignore:Should have t", "ignore::FutureWarning")

SHAPE = (2, 3, 4, 4)

# Configurations that have a table. A class alone stands for its defaults.
AFFINE = {
    "DDIM eps": ("DDIMScheduler", {"clip_sample": False}),
    "DDIM v": ("DDIMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}),
    "DDIM sample": ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}),
    "DDIM trailing": ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}),
    "DDIM linspace": ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "linspace"}),
    "DDIM zero snr": (
        "DDIMScheduler",
        {
            "clip_sample": False,
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
            "prediction_type": "v_prediction",
        },
    ),
    "DDIM eta": ("DDIMScheduler", {"clip_sample": False}, {"eta": 1.0}),
    "DDIM final alpha": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "DDIMParallel": ("DDIMParallelScheduler", {"clip_sample": False}),
    "DDIMInverse": ("DDIMInverseScheduler", {"clip_sample": False}),
    "CogVideoXDDIM": ("CogVideoXDDIMScheduler", {"prediction_type": "v_prediction"}),
    "CogVideoXDPM": ("CogVideoXDPMScheduler", {"prediction_type": "v_prediction"}),
    "DDPM small": ("DDPMScheduler", {"clip_sample": False}),
    "DDPM small log": ("DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_small_log"}),
    "DDPM large": ("DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large"}),
    "DDPM v": ("DDPMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}),
    "DDPM sample": ("DDPMScheduler", {"clip_sample": False, "prediction_type": "sample"}),
    "DDPM trailing": ("DDPMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}),
    "DDPMParallel": ("DDPMParallelScheduler", {"clip_sample": False}),
    "DDPMWuerstchen": ("DDPMWuerstchenScheduler", {}),
    "UnCLIP": ("UnCLIPScheduler", {"clip_sample": False}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler v": ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}),
    "Euler karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "Euler churn": ("EulerDiscreteScheduler", {}, {"s_churn": 4.0}),
    "Euler trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "EulerAncestral": ("EulerAncestralDiscreteScheduler", {}),
    "EulerAncestral v": ("EulerAncestralDiscreteScheduler", {"prediction_type": "v_prediction"}),
    "EDMEuler": ("EDMEulerScheduler", {}),
    "EDMEuler churn": ("EDMEulerScheduler", {}, {"s_churn": 4.0}),
    "FlowMatchEuler": ("FlowMatchEulerDiscreteScheduler", {}),
    "FlowMatchEuler shift": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "FlowMatchEuler stochastic": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "FlowMatchHeun": ("FlowMatchHeunDiscreteScheduler", {}),
    "FlowMatchLCM": ("FlowMatchLCMScheduler", {}),
    "LTXEulerAncestralRF": ("LTXEulerAncestralRFScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
    "TCD eta 0": ("TCDScheduler", {}, {"eta": 0.0}),
    "CM": ("CMStochasticIterativeScheduler", {"clip_denoised": False}),
    "DPM++ 1": ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M v": ("DPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}),
    "DPM++ 2M karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M heun": ("DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    "DPM++ 3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "DPM 2": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "DPM++ SDE 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ flow": (
        "DPMSolverMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
    "DPMInverse": ("DPMSolverMultistepInverseScheduler", {}),
    "DPMSingle 2": ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    "DPMSingle 3": ("DPMSolverSinglestepScheduler", {"solver_order": 3, "lower_order_final": True}),
    "EDMDPM": ("EDMDPMSolverMultistepScheduler", {}),
    "CosineDPM": ("CosineDPMSolverMultistepScheduler", {}),
    "DPMSDE": ("DPMSolverSDEScheduler", {"noise_sampler_seed": 7}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "UniPC 3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "UniPC flow": (
        "UniPCMultistepScheduler",
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
    ),
    "DEIS": ("DEISMultistepScheduler", {}),
    "DEIS 3": ("DEISMultistepScheduler", {"solver_order": 3}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "KDPM2": ("KDPM2DiscreteScheduler", {}),
    "KDPM2Ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "PNDM prk": ("PNDMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "IPNDM": ("IPNDMScheduler", {}),
    "SASolver": ("SASolverScheduler", {}),
    "SASolver noise": ("SASolverScheduler", {"algorithm_type": "noise_prediction"}),
}

# Options that no table can express, and a word of the refusal.
NOT_AFFINE = {
    "DDIM": ("DDIMScheduler", {}, "clip_sample"),
    "DDIM threshold": ("DDIMScheduler", {"clip_sample": False, "thresholding": True}, "thresholding"),
    "DDPM": ("DDPMScheduler", {}, "clip_sample"),
    "DDPM learned": ("DDPMScheduler", {"clip_sample": False, "variance_type": "learned_range"}, "learned_range"),
    "UnCLIP": ("UnCLIPScheduler", {}, "clip_sample"),
    "DPM++ threshold": ("DPMSolverMultistepScheduler", {"thresholding": True}, "thresholding"),
    "CM": ("CMStochasticIterativeScheduler", {}, "clip_denoised"),
}

# Classes without a configuration above, each with its reason.
ELSEWHERE = {
    "AmusedScheduler": "discrete tokens",
    "BlockRefinementScheduler": "discrete tokens",
    "DiscreteDDIMScheduler": "discrete tokens",
    "EntropyBoundScheduler": "discrete tokens",
    "VQDiffusionScheduler": "discrete tokens",
    "ScoreSdeVeScheduler": "no method step: a predictor and a norm-based corrector",
    "ScoreSdeVpScheduler": "no method step",
    "KarrasVeScheduler": "its step wants sigma_hat, which its pipeline makes",
    "RePaintScheduler": "its step wants the original image and a mask",
    "ConsistencyDecoderScheduler": "two fixed steps inside the consistency decoder",
    "SCMScheduler": "two fixed steps of a distilled model",
    "FlowMapEulerDiscreteScheduler": "distilled flow maps, whose steps want two times",
    "HeliosScheduler": "stages of its own pipeline",
    "HeliosDMDScheduler": "stages of its own pipeline",
    "MiniMaxH3Scheduler": "its sigmas come from its own pipeline",
    "PiflowScheduler": "outputs with more channels than the sample",
    "RFD4ProteinaScheduler": "its own pipeline steps structures, not images",
}


def scheduler_of(case, steps=12):
    name, config = case[:2]
    scheduler = getattr(diffusers.schedulers, name)(**config)
    scheduler.set_timesteps(steps)
    return scheduler


def timesteps_of(scheduler):
    listed = scheduler.timesteps
    return listed[:-1] if type(scheduler).__name__ == "DDPMWuerstchenScheduler" else listed


class Net:
    """A smooth network that means what the scheduler wants, whatever that is."""

    schedule, variance, modules = None, None, ()

    def __init__(self, form):
        self.form = form

    def __call__(self, x, t, sample=None):
        t = torch.as_tensor(t, dtype=torch.float64)
        phase = (t / 1000).to(x).reshape(-1, *(1,) * (x.ndim - 1))
        return 0.6 * torch.tanh(x) + 0.3 * torch.sin(x.flip(-1) + phase)


def own_loop(scheduler, timesteps, start, seed, arguments):
    """The loop of a pipeline."""
    live, net, x = replica(scheduler), Net(None), start
    names = inspect.signature(live.step).parameters
    options = dict(arguments)
    if "generator" in names:
        options["generator"] = torch.Generator().manual_seed(seed)
    carried, before = None, None
    for t in timesteps:
        scaled = live.scale_model_input(x, t) if hasattr(live, "scale_model_input") else x
        if "old_pred_original_sample" in names:
            options |= {"old_pred_original_sample": carried, "timestep_back": before}
        when = t.expand(len(x)) if type(live).__name__ == "DDPMWuerstchenScheduler" else t
        output = net(scaled, t.expand(len(x)))
        found = live.step(model_output=output, timestep=when, sample=x, **options)
        parts = found if isinstance(found, tuple) else tuple(found.values())
        x, carried, before = parts[0], parts[1] if len(parts) > 1 else None, t
    return x


def compare(case, steps=12, timesteps=None, scheduler=None, **options):
    scheduler = scheduler or scheduler_of(case, steps)
    arguments = case[2] if len(case) > 2 else {}
    timesteps = timesteps_of(scheduler) if timesteps is None else timesteps
    probed = pd.Probed(scheduler, timesteps=timesteps, arguments=arguments)
    table = probed.table()
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)) * table.start
    theirs = own_loop(scheduler, timesteps, start, 11, arguments)
    brownian = hasattr(scheduler, "noise_sampler")
    if brownian:
        generator = torch.Generator().manual_seed(11)
        extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        source = pd.Probed(scheduler, timesteps=timesteps, arguments=dict(arguments) | extra).noise(start)
        noise = {"noise": source}
    else:
        noise = {"generator": torch.Generator().manual_seed(11)}
    ours = pd.sample(Net(table.form), SHAPE, sampler=probed, start=start, **noise, **options)
    size = float(theirs.square().mean().sqrt())
    return float((ours.samples - theirs).abs().max()) / max(size, 1.0), table, ours


@pytest.mark.parametrize("name", AFFINE)
def test_its_table_reproduces_its_own_loop(name):
    gap, table, _ = compare(AFFINE[name], solver=pd.sequential())
    assert gap < 1e-5
    gap, _, ours = compare(AFFINE[name], window=pd.Whole(), tol=1e-6)
    assert gap < 2e-5
    assert ours.converged
    assert ours.stats.rounds <= table.nodes + 1


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_what_is_not_affine_is_refused_by_the_name_of_its_option(name):
    scheduler = scheduler_of(NOT_AFFINE[name])
    with pytest.raises(pd.NotAffineError, match=NOT_AFFINE[name][2]):
        pd.Probed(scheduler).table()


def test_every_scheduler_class_is_accounted_for():
    """A class that a new diffusers brings is neither affine here nor listed: this fails, and someone looks."""
    found = set()
    for name in dir(diffusers.schedulers):
        if name.endswith("Scheduler"):
            try:
                value = getattr(diffusers.schedulers, name)
            except AttributeError:  # a deprecated one that its module no longer exports
                found.add(name)
                continue
            if inspect.isclass(value) and (issubclass(value, SchedulerMixin) or hasattr(value, "from_config")):
                found.add(name)
    known = {case[0] for case in AFFINE.values()} | {case[0] for case in NOT_AFFINE.values()} | set(ELSEWHERE)
    assert found - known == set()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [7, 13, 60])
@pytest.mark.parametrize("name", ["DDIM eps", "DDPM small", "Euler", "DPM++ 2M", "UniPC"])
def test_every_spacing(name, steps, spacing):
    kind, config, *rest = AFFINE[name]
    gap, _, _ = compare((kind, config | {"timestep_spacing": spacing}, *rest), steps, solver=pd.sequential())
    assert gap < 1e-5


@pytest.mark.parametrize(
    "name", ["DDIM eps", "DDPM small", "Euler", "Heun", "DPM++ 2M", "DPMSDE", "UniPC", "DEIS", "LCM"]
)
def test_image_to_image_starts_in_the_middle(name):
    scheduler = scheduler_of(AFFINE[name])
    skipped = 5 * getattr(scheduler, "order", 1)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
        timesteps = scheduler.timesteps[skipped:]
        table = pd.Probed(scheduler).table()  # the live begin index says where
        assert table.t[table.evaluated].tolist() == timesteps.tolist()
    gap, table, _ = compare(AFFINE[name], scheduler=scheduler, timesteps=scheduler.timesteps[skipped:], tol=1e-6)
    assert table.nodes == len(scheduler.timesteps) - skipped
    assert gap < 2e-5


@pytest.mark.parametrize("name", ["DDPM small", "Euler", "DPM++ 2M", "LCM"])
def test_custom_timesteps(name):
    scheduler = getattr(diffusers.schedulers, AFFINE[name][0])(**AFFINE[name][1])
    custom = [999, 879, 759, 499, 259] if name == "LCM" else [950, 700, 420, 150, 30]
    scheduler.set_timesteps(timesteps=custom)
    gap, table, _ = compare(AFFINE[name], scheduler=scheduler, solver=pd.sequential())
    assert table.t[:-1].tolist() == custom
    assert gap < 1e-5


def test_the_live_object_is_read_not_its_config():
    """Pipelines patch the config of a live scheduler; one rebuilt with from_config forgets it."""
    scheduler = diffusers.schedulers.DDIMScheduler(clip_sample=False)
    patched = dict(scheduler.config) | {"steps_offset": 1}
    scheduler._internal_dict = type(scheduler.config)(patched)
    scheduler.set_timesteps(12)
    table = pd.Probed(scheduler).table()
    assert table.t[0] == scheduler.timesteps[0] == 914.0
    gap, _, _ = compare(AFFINE["DDIM eps"], scheduler=scheduler, solver=pd.sequential())
    assert gap < 1e-5


def test_reading_changes_nothing_and_is_remembered(monkeypatch):
    scheduler = scheduler_of(AFFINE["UniPC"])
    before = repr(vars(scheduler))
    first = pd.Probed(scheduler).table()
    assert repr(vars(scheduler)) == before
    assert pd.Probed(scheduler_of(AFFINE["UniPC"])).table() is first  # the same by value
    scheduler.sigmas = scheduler.sigmas * 0.9
    assert pd.Probed(scheduler).table() is not first


@pytest.mark.parametrize("steps", [12])
def test_it_is_the_same_sampler_as_ours(steps):
    """Two ways to the same numbers: the probed table, and the closed form."""
    scheduler = scheduler_of(AFFINE["DDPM small"], steps)
    schedule = pd.Discrete(scheduler.alphas_cumprod.double().tolist())
    times = [*scheduler.timesteps.tolist(), -1]
    probed = pd.Probed(scheduler).table().reform(Form.DATA)
    ours = pd.DDPM().tableau(schedule, np.array(times, float))
    for mine, theirs in zip(ours.gains(), probed.gains(), strict=True):
        assert float(np.abs(mine - theirs).max()) < 1e-5
    assert np.allclose(probed.alpha[:-1], ours.alpha[:-1], atol=1e-6)
    assert np.allclose(probed.sigma[:-1], ours.sigma[:-1], atol=1e-6)


@pytest.mark.parametrize("name", ["Euler", "Euler v", "DDIM v", "UniPC flow", "FlowMatchEuler", "Heun"])
def test_levels_make_gaussian_slopes_exact(name):
    """With the levels of each row known, a Gaussian model is solved in two sweeps: its slopes are guessed right."""
    scheduler = scheduler_of(AFFINE[name])
    table = pd.Probed(scheduler).table()
    nodes = np.flatnonzero(table.evaluated)
    level = {float(table.t[n]): (table.alpha[n] * table.scale[n], table.sigma[n] * table.scale[n]) for n in nodes}

    class Normal(Net):
        """Standard normal data: the prediction of the data is alpha x / (alpha^2 + sigma^2)."""

        variance = 1.0

        def __call__(self, x, t, sample=None):
            alpha, sigma = np.array([level[float(value)] for value in t]).T
            p, q = from_data(self.form, alpha, sigma)
            data = alpha / (alpha**2 + sigma**2)
            return x * torch.as_tensor(p + q * data).to(x).reshape(-1, 1, 1, 1)

    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * table.start
    solver = pd.Solver(window=pd.Whole(), slopes=pd.Reference(1.0), guess=pd.Coast(), stop=pd.Tolerance(1e-3), verify=0)
    ours = pd.sample(Normal(table.form), SHAPE, sampler=pd.Probed(scheduler), start=start, solver=solver)
    assert ours.stats.rounds <= 3


def test_the_generator_ends_where_the_loop_leaves_it():
    scheduler = scheduler_of(AFFINE["EulerAncestral"])
    generator, other = (torch.Generator().manual_seed(5) for _ in range(2))
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    pd.sample(Net(Form.NOISE), SHAPE, sampler=pd.Probed(scheduler), start=start, generator=generator)
    for _ in range(12):
        torch.randn(SHAPE, generator=other)
    assert torch.equal(generator.get_state(), other.get_state())


class Disguised(diffusers.schedulers.EulerDiscreteScheduler):
    """Passes every impulse: the correction is a product of two inputs that no impulse feeds together."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        found = super().step(model_output, timestep, sample, return_dict=False)[0]
        return (found + 0.1 * model_output * sample,)


def test_a_superposition_catches_what_impulses_miss():
    scheduler = Disguised()
    scheduler.set_timesteps(5)
    with pytest.raises(pd.NotAffineError, match=r"Disguised: a superposition of steps is off by"):
        pd.Probed(scheduler).table()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: diffusers.schedulers.DPMSolverMultistepScheduler(), "call set_timesteps"),
        (lambda: scheduler_of(("RePaintScheduler", {})), "original_image"),
        (lambda: diffusers.schedulers.ScoreSdeVeScheduler(), "found ScoreSdeVeScheduler: run its own loop"),
        (lambda: scheduler_of(AFFINE["DDPMWuerstchen"]), "give the timesteps= that its pipeline loops over"),
    ],
)
def test_bad_schedulers_get_one_sentence(make, sentence):
    with pytest.raises(pd.SpecError, match=sentence):
        pd.Probed(make()).table()


def test_a_scheduler_in_the_middle_of_its_loop_is_refused():
    scheduler = scheduler_of(AFFINE["Euler"])
    x = torch.zeros(SHAPE)
    scheduler.scale_model_input(x, scheduler.timesteps[0])
    scheduler.step(x, scheduler.timesteps[0], x)
    with pytest.raises(pd.SpecError, match="found one in use: call set_timesteps again"):
        pd.Probed(scheduler).table()


def test_wrong_arguments_are_named():
    with pytest.raises(pd.SpecError, match=r"expected arguments of DDIMScheduler.step, found \['etta'\]"):
        pd.Probed(scheduler_of(AFFINE["DDIM eps"]), arguments={"etta": 1.0}).table()
    with pytest.raises(pd.SpecError, match="expected a scheduler with a Brownian tree, found DDIMScheduler"):
        pd.Probed(scheduler_of(AFFINE["DDIM eps"])).noise(torch.zeros(SHAPE))
    with pytest.raises(pd.SpecError, match="expected no steps or times beside a sampler with a grid of its own"):
        pd.sample(Net(Form.NOISE), SHAPE, sampler=pd.Probed(scheduler_of(AFFINE["DDIM eps"])), steps=5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DDPM small", "DDIM eta", "EulerAncestral"])
def test_a_thousand_steps(name):
    gap, table, ours = compare(AFFINE[name], steps=1000, window=pd.Sliding(64), tol=1e-5)
    assert table.nodes == 1000
    assert ours.stats.rounds < 400
    assert gap < 1e-4
