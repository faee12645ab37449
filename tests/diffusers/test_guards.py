"""Guards: what is set on a network while a program runs is found, what is harmless passes, step caches are named."""

import time
from functools import partial

import diffusers
import pytest
import torch
from diffusers import hooks as dh
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.models import attention_processor as processors
from torch import nn

from paradrift.diffusers.guards import Guards, refuse_caches, settings
from paradrift.errors import Refused

pytestmark = pytest.mark.filterwarnings("ignore:__array", "ignore::FutureWarning")


class Net(nn.Module):
    """A toy with parts, called with a time."""

    def __init__(self, parts=3):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(parts))

    def forward(self, x, timestep):
        for block in self.blocks:
            x = block(x)
        return x


class Passing(ModelHook):
    """A hook of diffusers that does nothing."""


class Counting(ModelHook):
    """A hook of a user's own that keeps something from call to call, and says so."""

    _is_stateful = True


class Foreign(processors.AttnProcessor):
    """An attention processor that diffusers does not know."""


class LoRALinear(nn.Module):
    """A layer around another, as adapters put it there."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(4, 1)

    def forward(self, x):
        return self.base(x) + self.down(x)


def flux():
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=[4, 4, 8],
    ).eval()


def wan():
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=8,
        num_layers=2,
        rope_max_seq_len=32,
    ).eval()


def unet():
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        layers_per_block=1,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def another(bound):
    """Another function that does the same."""
    return lambda *args, **kwargs: bound(*args, **kwargs)


def with_hook(net):
    net.blocks[1].register_forward_hook(lambda *_: None)


def with_pre_hook(net):
    net.register_forward_pre_hook(lambda *_: None)


def with_registered_hook(net):
    HookRegistry.check_if_exists_or_initialize(net.blocks[2]).register_hook(Passing(), "passing")


def with_registered_hook_outside(net):
    HookRegistry.check_if_exists_or_initialize(net).register_hook(Passing(), "passing")


def with_patched_forward(net):
    net.blocks[0].forward = another(net.blocks[0].forward)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (with_hook, r"no hooks .* while the program runs, found a change of forward hooks on net\.blocks\.1:"),
        (
            with_pre_hook,
            r"found a change of forward pre hooks on net: what it sees or changes would be that of a batch",
        ),
        (
            with_registered_hook,
            r"found a change of 'passing' of diffusers on net\.blocks\.2: .*; run the program plain",
        ),
        (with_registered_hook_outside, r"found a change of 'passing' of diffusers on net: "),
        (with_patched_forward, r"to keep their forward while the program runs, found another on net\.blocks\.0: "),
    ],
)
def test_what_is_set_while_the_program_runs_is_refused_and_named(act, sentence):
    net = Net()
    guards = Guards.take({"other": Net(), "net": net})
    guards.check()
    act(net)
    for _ in range(2):  # and it stays refused
        with pytest.raises(Refused, match=sentence):
            guards.check()
    Guards.take({"net": net}).check()  # what was there before is not the program's
    guards.put_back()
    guards.check()
    x = torch.ones(1, 4)
    assert torch.equal(net(x, 0), net.blocks[2](net.blocks[1](net.blocks[0](x))))
    act(net)  # and could be set again
    guards.put_back()


def test_what_was_there_before_is_put_back_too():
    net = Net()
    seen, more = [], []
    with_registered_hook(net)
    with_patched_forward(net)
    forwards = [vars(block).get("forward") for block in net.blocks]
    handle = net.blocks[1].register_forward_hook(lambda *_: seen.append(1))
    guards = Guards.take({"net": net})
    handle.remove()
    net.blocks[1].register_forward_hook(lambda *_: more.append(1))
    HookRegistry.check_if_exists_or_initialize(net.blocks[2]).register_hook(Passing(), "another")
    with_patched_forward(net)
    guards.put_back()
    net(torch.ones(1, 4), 0)
    assert (seen, more) == ([1], [])
    assert [vars(block).get("forward") for block in net.blocks] == forwards
    assert list(net.blocks[2]._diffusers_hook.hooks) == ["passing"]


def test_a_hook_on_all_modules_is_found():
    guards = Guards.take({"net": Net()})
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(Refused, match=r"found a global one of torch\.nn"):
            guards.check()
    finally:
        handle.remove()
    guards.check()


def test_one_hook_in_place_of_another_is_a_change():
    net = Net()
    handle = net.blocks[1].register_forward_hook(lambda *_: None)
    guards = Guards.take({"net": net})
    guards.check()
    handle.remove()
    net.blocks[1].register_forward_hook(lambda *_: None)
    with pytest.raises(Refused, match=r"forward hooks on net\.blocks\.1"):
        guards.check()


def test_a_hook_of_diffusers_taken_off_is_a_change():
    net = Net()
    with_registered_hook(net)
    guards = Guards.take({"net": net})
    net.blocks[2]._diffusers_hook.remove_hook("passing")
    with pytest.raises(Refused, match="'passing'"):
        guards.check()


def test_the_forward_of_a_network_itself_is_free_to_be_patched():
    net = Net()
    guards = Guards.take({"net": net})
    net.forward = another(net.forward)
    guards.check()
    del net.forward
    guards.check()


def test_an_empty_registry_is_none():
    """Pipelines open cache contexts in every step, which make one."""
    net = flux()
    guards = Guards.take({"transformer": net})
    with net.cache_context("cond"):
        guards.check()
    assert hasattr(net, "_diffusers_hook")
    guards.check()


class _Offload:
    """What accelerate leaves on a module, as far as anybody can see from outside."""


def offloaded(part):
    part._hf_hook, part._old_forward = _Offload(), part.forward
    part.forward = another(part.forward)


@pytest.mark.parametrize("before", [True, False])
def test_hooks_that_offload_may_come_and_go(before):
    net = Net()
    if before:
        offloaded(net.blocks[0])
    guards = Guards.take({"net": net})
    for _ in range(2):  # as they do at the end of a pipeline
        offloaded(net.blocks[0])
        guards.check()
    with_patched_forward(net)
    guards.check()  # under an offload hook a patch cannot be told from the hook's own
    net.blocks[1].forward = another(net.blocks[1].forward)
    with pytest.raises(Refused, match=r"net\.blocks\.1"):
        guards.check()


def test_group_offloading_and_layerwise_casting_are_harmless():
    net = unet()
    registry = HookRegistry.check_if_exists_or_initialize(net.down_blocks[0])
    registry.register_hook(Passing(), "layer_execution_tracker")
    dh.apply_layerwise_casting(net, storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    refuse_caches({"unet": net})
    guards = Guards.take({"unet": net})
    net(torch.zeros(1, 4, 8, 8), torch.tensor(1), torch.zeros(1, 2, 8))
    guards.check()
    registry.remove_hook("layer_execution_tracker")  # offloading does so after the first call
    guards.check()
    registry.register_hook(Passing(), "lazy_prefetch_group_offloading")
    guards.check()


def test_adapters_put_in_before_are_part_of_the_network():
    net = Net()
    net.blocks[1] = LoRALinear(net.blocks[1])
    guards = Guards.take({"net": net})
    guards.check()
    net.blocks[1].base.register_forward_hook(lambda *_: None)
    with pytest.raises(Refused, match=r"net\.blocks\.1\.base"):
        guards.check()


def test_processors_of_diffusers_may_be_swapped_and_others_may_not():
    net = unet()
    mine = Foreign()
    attention = net.mid_block.attentions[0].transformer_blocks[0].attn1
    attention.set_processor(mine)
    guards = Guards.take({"unet": net})
    attention.set_processor(processors.PAGCFGIdentitySelfAttnProcessor2_0())  # as guided by perturbed attention
    guards.check()
    attention.set_processor(processors.IPAdapterAttnProcessor(8, 8))  # a module, kept elsewhere by torch
    guards.check()
    attention.set_processor(mine)
    guards.check()  # back to what it was
    attention.set_processor(Foreign())
    sentence = r"attention processors of diffusers\.models .*, found Foreign of .*test_guards on unet\.mid_block\.atte"
    with pytest.raises(Refused, match=sentence):
        guards.check()


def test_a_network_under_two_names_is_looked_at_once():
    net = Net()
    guards = Guards.take({"one": net, "two": net})
    assert guards.names == ("one", "one.blocks", "one.blocks.0", "one.blocks.1", "one.blocks.2")


def test_a_check_of_a_large_network_costs_little():
    net = Net(2000)
    for part in net.blocks[::10]:
        part.processor = processors.AttnProcessor()
    for part in net.blocks[::7]:
        HookRegistry.check_if_exists_or_initialize(part).register_hook(Passing(), "group_offloading")
    guards = Guards.take({"net": net})
    costs = []
    for _ in range(20):
        begin = time.perf_counter()
        guards.check()
        costs.append(time.perf_counter() - begin)
    assert min(costs) < 1e-3


CACHES = {
    "pyramid": partial(
        dh.PyramidAttentionBroadcastConfig,
        spatial_attention_block_skip_range=2,
        current_timestep_callback=lambda: 1,
        spatial_attention_block_identifiers=("transformer_blocks",),
    ),
    "faster": partial(
        dh.FasterCacheConfig,
        spatial_attention_block_skip_range=2,
        current_timestep_callback=lambda: 1,
        is_guidance_distilled=True,
        spatial_attention_block_identifiers=("transformer_blocks",),
    ),
    "first-block": partial(dh.FirstBlockCacheConfig, threshold=0.1),
    "magnitude": partial(dh.MagCacheConfig, num_inference_steps=4, mag_ratios=torch.ones(4)),
    "taylor": partial(dh.TaylorSeerCacheConfig, cache_interval=2),
    "text": dh.TextKVCacheConfig,
    "spectral": partial(dh.SeaCacheConfig, threshold=0.1),
}


def cached(name):
    """A network that the cache fits."""
    return wan() if name == "spectral" else flux()


@pytest.mark.parametrize("name", CACHES)
def test_each_step_cache_is_refused_before_the_run(name):
    net = cached(name)
    refuse_caches({"transformer": net})
    net.enable_cache(CACHES[name]())
    sentence = (
        r"expected transformer without a step cache, found one: call disable_cache\(\), which takes off \w+Config"
    )
    with pytest.raises(Refused, match=sentence):
        refuse_caches({"transformer": net})
    net._cache_config = None  # as if it had been applied by hand: the hooks alone tell
    with pytest.raises(Refused, match=r"take off the hook '\w+' of its HookRegistry"):
        refuse_caches({"transformer": net})


@pytest.mark.parametrize("name", CACHES)
def test_each_step_cache_is_found_when_it_comes_while_the_program_runs(name):
    net = cached(name)
    guards = Guards.take({"transformer": net})
    net.enable_cache(CACHES[name]())
    with pytest.raises(Refused, match=r"found a change of '\w+' of diffusers on transformer"):
        guards.check()


@pytest.mark.parametrize("name", CACHES)
def test_what_a_step_cache_leaves_behind_is_harmless(name):
    net = cached(name)
    net.enable_cache(CACHES[name]())
    net.disable_cache()
    refuse_caches({"transformer": net})
    Guards.take({"transformer": net}).check()


def test_every_step_cache_of_diffusers_is_known():
    """A new one must be refused too: by its name, or because it says that it keeps a state."""
    found = {name for name in vars(dh) if name.endswith("CacheConfig") or name == "PyramidAttentionBroadcastConfig"}
    used = {getattr(make, "func", make).__name__ for make in CACHES.values()}
    assert found == used


def test_the_hooks_of_a_cache_are_known_by_name():
    """Some keep their state elsewhere, and do not say that they have one."""
    net = Net()
    HookRegistry.check_if_exists_or_initialize(net.blocks[0]).register_hook(Passing(), "sea_cache_post_norm")
    with pytest.raises(Refused, match=r"expected net\.blocks\.0 without a step cache.*'sea_cache_post_norm'"):
        refuse_caches({"net": net})


def test_a_hook_that_says_it_keeps_a_state_is_a_cache():
    net = Net()
    HookRegistry.check_if_exists_or_initialize(net.blocks[0]).register_hook(Counting(), "mine")
    with pytest.raises(Refused, match="take off the hook 'mine'"):
        refuse_caches({"net": net})


def test_skipped_layers_are_found_when_they_come_and_kept_when_they_were_there():
    net = flux()
    config = dh.LayerSkipConfig(indices=[0], fqn="transformer_blocks")
    guards = Guards.take({"transformer": net})
    dh.apply_layer_skip(net, config)
    with pytest.raises(Refused, match=r"'layer_skip_hook' of diffusers on transformer\.transformer_blocks\.0"):
        guards.check()
    refuse_caches({"transformer": net})
    Guards.take({"transformer": net}).check()


def scaled_adapter(net):
    net.mid_block.attentions[0].transformer_blocks[0].attn2.processor.scale[0] = 0.0


def scaled_plain_processor(net):
    net.mid_block.attentions[0].transformer_blocks[0].attn1.processor.strength = 0.5


def scaled_layer(net):
    net.mid_block.resnets[0].scaling["mine"] = 0.5


def other_weights(net):
    net.conv_in.weight.mul_(2.0)


def other_layer(net):
    net.conv_out = nn.Conv2d(8, 4, 3, padding=1)


def trained(net):
    net.mid_block.train()


@pytest.mark.parametrize(
    "act", [scaled_adapter, scaled_plain_processor, scaled_layer, other_weights, other_layer, trained]
)
@torch.no_grad()
def test_settings_tell_when_a_network_was_changed(act):
    net = unet()
    attention = net.mid_block.attentions[0].transformer_blocks[0]
    attention.attn1.set_processor(Foreign())
    attention.attn1.processor.strength = 1.0
    attention.attn2.set_processor(processors.IPAdapterAttnProcessor(16, 8, scale=1.0))
    net.mid_block.resnets[0].scaling = {"mine": 1.0}  # as layers of adapters have it
    arguments = torch.zeros(1, 4, 8, 8), torch.tensor(1), torch.zeros(1, 2, 8)
    before = settings({"unet": net})
    if act is not scaled_adapter:  # whose processor wants pictures too
        attention.attn2.set_processor(processors.AttnProcessor())
        before = settings({"unet": net})
        net(*arguments)
        assert settings({"unet": net}) == before, "evaluating it changes nothing"
    act(net)
    assert settings({"unet": net}) != before
