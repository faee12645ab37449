r"""Plain torch networks as denoisers.

A network is called as ``net(x, t, **conditioning)`` with x of shape (R, *shape), t of shape (R,) and conditioning
tensors of first dimension R, and returns a tensor of the shape of x. Three rules hold for every adapter:

* states keep their dtype outside: they are cast to that of the network's parameters going in, and back coming out;
* times are exact: whole numbers (int64) where the network was trained at whole times, else float32 (float64 for a
  float64 network). They are never cast to half precision, whose eight bits merge neighbouring times: a network that
  feeds the bare time to a half-precision layer must cast it there;
* mode and gradients are the caller's: nothing is switched here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from paradrift.adapters.conditioning import Conditioning, Tree
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.schedules import Discrete, Schedule


@dataclass(frozen=True, eq=False)
class ModuleDenoiser:
    """A network with its form, schedule and conditioning; made by :func:`denoiser` and its relatives.

    Args:
        net: Called as ``net(x, t, **conditioning)``.
        form: What it predicts.
        schedule: The noise schedule it was trained with; None for a bare function of (x, t).
        variance: Data variance per element, None when unknown.
        conditioning: What the keywords of each sample are.
        whole: Whether times are passed as whole numbers.
        owner: The torch module behind ``net``, where ``net`` itself is none.
    """

    net: Callable[..., Tensor]
    form: Form
    schedule: Schedule | None
    variance: float | None = None
    conditioning: Conditioning = field(default_factory=Conditioning)
    whole: bool = False
    owner: nn.Module | None = None

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The torch module behind the network, if there is one."""
        found = self.owner if self.owner is not None else self.net
        return (found,) if isinstance(found, nn.Module) else ()

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Call the network; see :meth:`paradrift.denoisers.Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Times, shape (R,), on any device.
            sample: Sample indices, shape (R,), int64.

        Returns:
            Outputs, shape (R, *shape), in the dtype of the states.

        Raises:
            SpecError: if the network returns no tensor, or one of another shape.
        """
        found = self.owner if self.owner is not None else self.net
        dtype = precision(found) if isinstance(found, nn.Module) else None
        state = x if dtype is None or dtype is x.dtype else x.to(dtype)
        real = torch.float64 if state.dtype is torch.float64 else torch.float32
        time = t.round().to(x.device, torch.int64) if self.whole else t.to(x.device, real)
        output = self.net(state, time, **self.conditioning.rows(sample, x.device, dtype))
        if not isinstance(output, Tensor):
            raise SpecError(
                f"expected the network to return a tensor, found {type(output).__name__}: unwrap it in a function, or "
                "use diffusers_denoiser for a model of diffusers"
            )
        if output.shape != x.shape:
            raise SpecError(f"expected an output of shape {tuple(x.shape)}, found {tuple(output.shape)}")
        return output if output.dtype is x.dtype else output.to(x.dtype)


def precision(module: nn.Module) -> torch.dtype | None:
    """The dtype of the first floating parameter, in the order of ``module.parameters()``.

    It is asked at every call, because a network may be cast between two; ``parameters()`` would take ten times as long,
    which small networks feel.

    Args:
        module: A network.

    Returns:
        The dtype; None for a network without floating parameters.
    """
    for weight in module._parameters.values():  # pyright: ignore[reportPrivateUsage]
        if weight is not None and weight.is_floating_point():
            return weight.dtype
    for part in module._modules.values():  # pyright: ignore[reportPrivateUsage]
        found = None if part is None else precision(part)
        if found is not None:
            return found
    return None


def denoiser(
    net: Callable[..., Tensor],
    *,
    predicts: Form | str,
    schedule: Schedule | None,
    variance: float | None = None,
    conditioning: Tree | None = None,
    unconditional: Tree | None = None,
) -> ModuleDenoiser:
    """A torch network (or any function of tensors) as a denoiser.

    Args:
        net: Called as ``net(x, t, **conditioning)``, with whole times if the schedule is Discrete.
        predicts: What it returns: a form, or its name ("data", "noise", "v", "flow", "score", "residual", "value"). A
            velocity is "flow" where it means noise minus data, time running from data to noise.
        schedule: The noise schedule that it was trained with; None only for "value".
        variance: Data variance per element, the unit of tolerances; None: measured during the solve.
        conditioning: Keyword tensors with one entry for each sample, or one for all.
        unconditional: Keyword tensors of the unconditional model, for :class:`paradrift.denoisers.Guided`.

    Returns:
        The denoiser.

    Raises:
        SpecError: if the form is unknown, the schedule is missing, or the conditioning has the wrong length.

    Example:
        >>> from paradrift.schedules import Flow
        >>> net = lambda x, t: x / (1 + t[:, None])
        >>> model = denoiser(net, predicts="flow", schedule=Flow())
        >>> model(torch.ones(2, 3), torch.tensor([0.0, 1.0]), torch.tensor([0, 0]))[:, 0].tolist()
        [1.0, 0.5]
    """
    form = as_form(predicts)
    if schedule is None and form is not Form.VALUE:
        raise SpecError(f"expected a schedule for a network that predicts {form.value}, found None")
    return ModuleDenoiser(
        net,
        form,
        schedule,
        variance,
        Conditioning(conditioning, unconditional),
        whole=isinstance(schedule, Discrete),
    )


def as_form(predicts: Form | str) -> Form:
    """A form from its name.

    Args:
        predicts: A form or its value.

    Returns:
        The form.

    Raises:
        SpecError: if there is no such form; the message lists all.
    """
    try:
        return Form(predicts)
    except ValueError:
        choices = ", ".join(form.value for form in Form)
        raise SpecError(f"expected predicts to be one of {choices}, found {predicts!r}") from None
