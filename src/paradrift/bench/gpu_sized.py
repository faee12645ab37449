"""Networks of the size that pictures are made with, random weights, made on the device: what a call of R rows costs.

What a call costs depends on layers and shapes, not on what was learned, so nothing is downloaded. The configurations
are those of the published models, written out. diffusers repeats DiT's embeddings of time and class in every block:
its DiT-XL/2 has 750 million weights instead of 675, hardly any of which a call touches more than once.

Source: Peebles and Xie 2023, arXiv 2212.09748, table 1 (DiT-XL/2); Rombach et al. 2022, arXiv 2112.10752, and the
configuration published with Stable Diffusion 1.5.
"""

from __future__ import annotations

import functools
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift.bench.gpu_trained import clocked
from paradrift.bench.jobs import Job
from paradrift.bench.records import Record
from paradrift.bench.ways import Captured, Net, Way, run

ROWS = (1, 2, 4, 8, 16, 32, 64)
SPELL = 0.4  # seconds that one point is measured for, but at least three calls
NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A network by its size.

    Args:
        name: Word for records.
        make: Makes the module, random, on torch's default device.
        shape: Shape of one state.
        labels: Whether it is told a class, whole numbers below 1000.
        text: Shape of the text states that it is told; None for none.
        compiling: Seconds that compiling it may take.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    labels: bool = False
    text: tuple[int, ...] | None = None
    compiling: float = 0.0

    def conditioning(self, rows: int, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """What it is told beside state and time.

        Args:
            rows: Rows of a call.
            dtype: Of the weights.
            device: Where it runs.

        Returns:
            Keyword tensors, first dimension R.
        """
        given: dict[str, Tensor] = {}
        if self.labels:
            given["class_labels"] = torch.zeros(rows, dtype=torch.int64, device=device)
        if self.text is not None:
            given["encoder_hidden_states"] = torch.randn(rows, *self.text, dtype=dtype, device=device)
        return given


def dit(*, layers: int = 28, heads: int = 16, head: int = 72, size: int = 32) -> nn.Module:
    """DiT-XL/2 for pictures of 256 x 256, or a smaller one.

    Args:
        layers: Depth.
        heads: Of the attention.
        head: Width of a head.
        size: Of the latents.

    Returns:
        The module, weights as torch draws them.
    """
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head,
        in_channels=4,
        out_channels=8,
        num_layers=layers,
        norm_num_groups=32,
        attention_bias=True,
        sample_size=size,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
        norm_eps=1e-5,
    )


def unet(
    *, channels: tuple[int, ...] = (320, 640, 1280, 1280), layers: int = 2, text: int = 768, size: int = 64
) -> nn.Module:
    """The U-Net of Stable Diffusion 1.5 for pictures of 512 x 512, or a smaller one.

    Args:
        channels: At each resolution, all but the last with attention.
        layers: Residual blocks at each resolution.
        text: Width of the text states.
        size: Of the latents.

    Returns:
        The module, weights as torch draws them.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    plain = len(channels) - 1
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=4,
        out_channels=4,
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=("CrossAttnDownBlock2D",) * plain + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * plain,
        block_out_channels=channels,
        layers_per_block=layers,
        downsample_padding=1,
        mid_block_scale_factor=1,
        act_fn="silu",
        norm_num_groups=32,
        norm_eps=1e-5,
        cross_attention_dim=text,
        attention_head_dim=8,
    )


DIT = Sized(name="DiT-XL/2 at 256", make=dit, shape=(4, 32, 32), labels=True, compiling=60)
UNET = Sized(name="SD-1.5 U-Net at 512", make=unet, shape=(4, 64, 64), text=(77, 768), compiling=120)
TINY_DIT = Sized(
    name="tiny DiT",
    make=functools.partial(dit, layers=1, heads=2, head=8, size=8),
    shape=(4, 8, 8),
    labels=True,
)
TINY_UNET = Sized(
    name="tiny U-Net",
    make=functools.partial(unet, channels=(32, 32), layers=1, text=16, size=8),
    shape=(4, 8, 8),
    text=(5, 16),
)


@dataclass(eq=False)
class Bench:
    """A device that holds one of the large networks at a time.

    Args:
        device: The device.
    """

    device: torch.device
    held: tuple[Sized, torch.dtype] | None = None
    ways: dict[Way, Net] = field(default_factory=dict)
    net: Net | None = None

    def network(self, sized: Sized, dtype: torch.dtype, way: Way) -> Net:
        """A network, run in one way; another one that was held is let go.

        Args:
            sized: Which.
            dtype: Of its weights.
            way: How it is run.

        Returns:
            A function ``net(x, t, **conditioning)``.
        """
        net = self.net if self.held == (sized, dtype) else None
        if net is None:
            self.release()
            with self.device, torch.random.fork_rng(devices=[]):
                module = sized.make()
            module = nn.Module.to(module, self.device, dtype).eval().requires_grad_(False)
            made = pd.diffusers_denoiser(module, predicts="noise", schedule=pd.Discrete.linear(1000))
            net = made.net
            self.held, self.net = (sized, dtype), net
        if way not in self.ways:
            # compiled once, not once more for the graphs
            own = Captured(self.network(sized, dtype, Way.COMPILED)) if way is Way.BOTH else run(net, way)
            self.ways[way] = own
        return self.ways[way]

    def release(self) -> None:
        """Let the network go, with its graphs and what was compiled for it."""
        self.held, self.net = None, None
        self.ways.clear()
        if self.device.type == "cuda":
            torch.compiler.reset()
            gc.collect()
            torch.cuda.empty_cache()


def point(bench: Bench, sized: Sized, dtype: torch.dtype, way: Way, rows: int) -> list[Record]:
    """What a call of so many rows costs.

    Args:
        bench: The device.
        sized: The network.
        dtype: Of its weights and states.
        way: How it is run.
        rows: Rows of the call.

    Returns:
        One record, ``seconds`` the median of some calls. In ``extra``: ``least``; ``first``, seconds until the first
        call was back, compiling and capturing included; ``memory``, bytes allocated on the GPU at most, weights
        included.
    """
    device = bench.device
    begin = time.perf_counter()
    try:
        net = bench.network(sized, dtype, way)
        x = torch.randn(rows, *sized.shape, dtype=dtype, device=device)
        t = torch.full((rows,), 500.0, device=device)
        given = sized.conditioning(rows, dtype, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        taken: list[float] = []
        with torch.inference_mode():
            call = functools.partial(net, x, t, **given)
            clocked(call, device)
            first = time.perf_counter() - begin
            clocked(call, device)
            begin = time.perf_counter()
            while len(taken) < 3 or (time.perf_counter() - begin < SPELL and len(taken) < 50):
                taken.append(clocked(call, device))
    except RuntimeError:
        bench.release()  # what it has allocated so far is in the way of whatever comes next
        raise
    precision = NAMES[dtype]
    return [
        Record(
            problem=sized.name,
            method=f"{way.value}, {precision}",
            sampler="none",
            steps=1,
            window="none",
            tol=None,
            samples=rows,
            rounds_mean=1.0,
            rounds_max=1,
            evaluations=rows,
            seconds=statistics.median(taken),
            extra={
                "key": f"cost/{sized.name}/{precision}/{way.value}/{rows}",
                "way": way.value,
                "dtype": precision,
                "rows": rows,
                "least": min(taken),
                "calls": len(taken),
                "first": first,
                "memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            },
        )
    ]


def curve(bench: Bench, sized: Sized, dtype: torch.dtype, way: Way, rows: Sequence[int] = ROWS) -> Iterator[Job]:
    """The points of one curve.

    Args:
        bench: The device.
        sized: The network.
        dtype: Of its weights and states.
        way: How it is run.
        rows: Rows of the calls; two are compiled, one and any other number.

    Yields:
        Jobs, from few rows to many.
    """
    for count in rows:
        compiles = way in (Way.COMPILED, Way.BOTH) and count in rows[:2]
        yield Job(
            key=f"cost/{sized.name}/{NAMES[dtype]}/{way.value}/{count}",
            part="cost",
            problem=sized.name,
            method=f"{way.value}, {NAMES[dtype]}, {count} rows",
            steps=1,
            samples=count,
            run=functools.partial(point, bench, sized, dtype, way, count),
            needs=sized.compiling if compiles else 2.0,
        )
