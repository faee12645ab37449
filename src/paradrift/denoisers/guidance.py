"""Classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.denoisers.base import Denoiser, Wrapper
from paradrift.errors import SpecError
from paradrift.forms import Form


@dataclass(frozen=True)
class Guided(Wrapper):
    r"""Classifier-free guidance, both halves in one call of 2R rows.

    .. math:: f = f_\varnothing + w\,(f_c - f_\varnothing)

    The weights sum to one, so guidance is the same function in every form. With ``rescale`` = phi the standard
    deviation over a row's elements is pulled back to that of the conditional half,
    :math:`f \leftarrow \phi f\,\mathrm{std}(f_c)/\mathrm{std}(f) + (1-\phi) f`, in the form of the denoiser.

    The unconditional half asks the denoiser for the samples ``~i``; see :mod:`paradrift.denoisers`.

    Args:
        denoiser: A denoiser that knows conditional and unconditional entries.
        scale: The weight w; 1 is the conditional model.
        rescale: phi between 0 (off, the default of the source's baseline) and 1; the source uses 0.7.

    Raises:
        SpecError: if rescale is not between 0 and 1.

    Cost: 2R rows, one call.
    Source: Ho and Salimans 2022 (arXiv 2207.12598); Lin et al. 2024 (arXiv 2305.08891), equations 14 to 16.
    """

    denoiser: Denoiser
    scale: float
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rescale <= 1:
            raise SpecError(f"expected rescale between 0 and 1, found {self.rescale}")

    @property
    def form(self) -> Form:
        """The form of the denoiser."""
        return self.denoiser.form

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate both halves and combine; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            Guided outputs, shape (R, *shape).
        """
        both = self.denoiser(torch.cat([x, x]), torch.cat([t, t]), torch.cat([sample, ~sample]))
        conditional, unconditional = both.chunk(2)
        guided = unconditional + self.scale * (conditional - unconditional)
        if self.rescale == 0:
            return guided
        axes = tuple(range(1, x.ndim))
        ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        return self.rescale * (guided * ratio) + (1 - self.rescale) * guided
