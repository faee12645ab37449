"""How a network is run on a GPU: as it is, compiled, as CUDA graphs, or compiled and as graphs.

A small network on a large GPU spends its time on launching kernels, not in them. A CUDA graph launches all kernels of a
call at once; compiling merges them. Whoever wants a loop to be fast does both, so both sides of a comparison get both.

A graph has fixed shapes and fixed memory. So calls are padded to the next of a few numbers of rows, 1, 2, 3, 4, 6, 8,
12, 16, ..., each captured when it is first asked for: at most a third of the rows is padding, and few graphs cover all
that a solver asks for.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import paradrift as pd
from paradrift.adapters.modules import ModuleDenoiser
from paradrift.denoisers import Clipped, Guided
from paradrift.errors import SpecError

Net = Callable[..., Tensor]  # net(x, t, **conditioning), as in paradrift.adapters.modules


class Way(enum.Enum):
    """One way to run a network."""

    EAGER = "eager"
    COMPILED = "compiled"
    GRAPHS = "CUDA graphs"
    BOTH = "compiled, CUDA graphs"

    @property
    def captured(self) -> bool:
        """Whether calls are CUDA graphs."""
        return self in (Way.GRAPHS, Way.BOTH)


def run(net: Net, way: Way) -> Net:
    """A network, run in one way.

    Args:
        net: Called as ``net(x, t, **conditioning)``.
        way: The way; all but the first are for a GPU.

    Returns:
        A function called the same.
    """
    if way in (Way.COMPILED, Way.BOTH):
        net = compiled(net)
    return Captured(net) if way.captured else net


def compiled(net: Net, backend: str = "inductor") -> Net:
    """A network, compiled once for one row and once for any other number of them.

    What was compiled before is forgotten (and compiled again if it is called), for torch compiles a function only so
    often, and then runs it uncompiled without a word: large networks are to be looked at one after the other.

    Args:
        net: Called as ``net(x, t, **conditioning)``.
        backend: Of torch.compile.

    Returns:
        A function called the same.
    """

    def call(x: Tensor, t: Tensor, **given: Tensor) -> Tensor:
        return net(x, t, **given)

    torch.compiler.reset()
    return torch.compile(call, dynamic=True, backend=backend)


def padded(rows: int) -> int:
    """The number of rows that a call is padded to.

    Args:
        rows: Rows asked for, at least 1.

    Returns:
        The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below.

    Example:
        >>> [padded(rows) for rows in (1, 2, 3, 5, 7, 13, 33, 64, 65)]
        [1, 2, 3, 6, 8, 16, 48, 64, 96]
    """
    power = 1 << (rows - 1).bit_length()
    return 3 * power // 4 if power >= 4 and rows <= 3 * power // 4 else power


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A call of fixed shape in fixed memory.

    Args:
        inputs: What to fill: states, times, conditioning in order.
        output: Where the result lies after a replay.
        replay: Runs the call.
        graph: What is replayed, with the memory that it was captured in.
    """

    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], object]
    graph: torch.cuda.CUDAGraph | None = None


def capture(net: Net, inputs: tuple[Tensor, ...], names: tuple[str, ...], beside: Fixed | None) -> Fixed:
    """Capture a call as a CUDA graph.

    Args:
        net: The network.
        inputs: Tensors on the GPU that it reads, which a caller fills before each replay.
        names: Keywords of the inputs after states and times.
        beside: A call to share memory with: neither output outlasts the replay of the other.

    Returns:
        The call.

    Source: the pattern of ``torch.cuda.graph``: some calls on a stream beside, so that nothing is set up, tuned or
    compiled while the graph is captured.
    """
    given = dict(zip(names, inputs[2:], strict=True))
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                net(inputs[0], inputs[1], **given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=None if beside is None or beside.graph is None else beside.graph.pool()):
            output = net(inputs[0], inputs[1], **given)
    return Fixed(inputs=inputs, output=output, replay=graph.replay, graph=graph)


@dataclass(eq=False)
class Captured:
    """A network whose calls are replayed, one graph for each number of rows.

    Args:
        net: The network; its inputs must all be tensors with one entry a row.
        capture: Makes a call of fixed shape: see :func:`capture`.
    """

    net: Net
    capture: Callable[[Net, tuple[Tensor, ...], tuple[str, ...], Fixed | None], Fixed] = capture
    calls: dict[tuple[object, ...], Fixed] = field(default_factory=dict)

    def __call__(self, x: Tensor, t: Tensor, **given: Tensor) -> Tensor:
        """Fill the inputs, replay, and copy the answer out.

        Args:
            x: States, shape (R, *shape).
            t: Times, shape (R,).
            **given: Conditioning, each with first dimension R.

        Returns:
            Outputs, shape (R, *shape).
        """
        inputs, rows = (x, t, *given.values()), len(x)
        key = (padded(rows), *given, *((value.dtype, value.shape[1:]) for value in inputs))
        if key not in self.calls:
            with torch.inference_mode(False):  # filled in any mode
                # the rows asked for, repeated: whatever they are, the network has an answer for them
                index = torch.arange(padded(rows), device=x.device) % rows
                held = tuple(value.clone()[index] for value in inputs)
            beside = next(iter(self.calls.values()), None)
            self.calls[key] = self.capture(self.net, held, tuple(given), beside)
        fixed = self.calls[key]
        for held, value in zip(fixed.inputs, inputs, strict=True):
            held[:rows].copy_(value)
        fixed.replay()
        return fixed.output[:rows].clone()  # the next replay writes there again


def rebuilt(model: pd.Denoiser, change: Callable[[Net], Net]) -> pd.Denoiser:
    """A model around another network.

    Args:
        model: A network of :func:`paradrift.denoiser`, perhaps guided, perhaps clipped.
        change: Makes the network from the one that it has.

    Returns:
        The same model, with the network changed.

    Raises:
        SpecError: if it is another kind of model.
    """
    if isinstance(model, ModuleDenoiser):
        owner = model.modules[0] if model.modules else None
        return dataclasses.replace(model, net=change(model.net), owner=owner)
    if isinstance(model, Guided):
        return dataclasses.replace(model, denoiser=rebuilt(model.denoiser, change))
    if isinstance(model, Clipped):
        return Clipped(rebuilt(model.denoiser, change), model.bound, model.quantile, model.ceiling)
    raise SpecError(f"expected a network, perhaps guided or clipped, found {type(model).__name__}: it has none to run")
