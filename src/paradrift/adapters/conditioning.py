"""What a network is conditioned on, one entry for each sample, selected row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from paradrift.errors import SpecError

Tree: TypeAlias = "Mapping[str, Tensor | Tree]"
Rows: TypeAlias = "dict[str, Tensor | Rows]"

REMEMBERED = 1 << 20  # elements of the rows that were asked for last, at most; for larger ones indexing costs nothing


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The rows that were asked for last.

    Args:
        samples: The samples that they belong to.
        device: Where they live.
        dtype: Their floating dtype.
        rows: The rows.
        leaves: The tensors in them, each with the version that it had: a network may write to what it is given.
    """

    samples: list[int]
    device: torch.device
    dtype: torch.dtype | None
    rows: Rows
    leaves: list[tuple[Tensor, int]]

    def fits(self, samples: list[int], device: torch.device, dtype: torch.dtype | None) -> bool:
        """Whether they are what is asked for now, unchanged."""
        return (
            self.samples == samples
            and self.device == device
            and self.dtype is dtype
            and all(leaf._version == version for leaf, version in self.leaves)
        )


class Conditioning:
    """Keyword tensors of a network, addressed by sample.

    Each tensor has one entry for each of S samples, or one that all share. Sample i >= 0 selects its conditional entry,
    ``~i`` its unconditional one (see :mod:`paradrift.denoisers`). Mappings may be nested, as ``added_cond_kwargs`` of
    some diffusers models are. Tensors are moved to a device once and kept there; small rows are kept from one call to
    the next, since a sequential sampler asks for the same ones at every step.

    Args:
        conditional: Tensors with first dimension S or 1, by keyword.
        unconditional: Tensors with first dimension S or 1 for the keywords that differ without conditioning; the other
            keywords keep their conditional entry. None: there is no unconditional model.

    Raises:
        SpecError: if lengths disagree, or an unconditional keyword is no conditional one.
    """

    def __init__(self, conditional: Tree | None = None, unconditional: Tree | None = None) -> None:
        conditional = {} if conditional is None else conditional
        self.guidable = unconditional is not None
        self.samples = _length(
            {
                **dict(_leaves(conditional)),
                **{f"unconditional {name}": leaf for name, leaf in _leaves(unconditional or {})},
            }
        )
        self._entries = _merge(conditional, unconditional or {}, max(1, self.samples))
        self._placed: dict[torch.device, Rows] = {}
        self._asked: _Asked | None = None

    def rows(self, sample: Tensor, device: torch.device, dtype: torch.dtype | None) -> Rows:
        """The keyword arguments of R rows.

        Args:
            sample: Sample indices, shape (R,), int64.
            device: Where the network lives.
            dtype: Floating dtype of the network; None: leave floating entries as they are.

        Returns:
            Tensors with first dimension R, by keyword.

        Raises:
            SpecError: if a sample has no entry, or no unconditional one (found where ``sample`` lies on the host).
        """
        if not sample.is_cpu:  # where they lie is not looked at: that would wait for the device
            return self._select(sample, device, dtype)
        samples, asked = sample.tolist(), self._asked
        if asked is None or not asked.fits(samples, device, dtype):
            if samples:
                self._check(min(samples), max(samples))
            if not self._entries:
                return {}
            with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which may be used in any mode
                rows = self._select(sample, device, dtype)
                leaves = [(leaf, leaf._version) for _, leaf in _leaves(rows)]
            asked = _Asked(samples=samples, device=device, dtype=dtype, rows=rows, leaves=leaves)
            self._asked = asked if sum(leaf.numel() for leaf, _ in leaves) <= REMEMBERED else None
        return _each(asked.rows, lambda leaf: leaf)

    def _select(self, sample: Tensor, device: torch.device, dtype: torch.dtype | None) -> Rows:
        """The rows themselves."""
        if not self._entries:
            return {}
        if device not in self._placed:
            self._placed[device] = _each(self._entries, lambda leaf: leaf.to(device))
        entry = torch.where(sample < 0, ~sample, sample) if self.samples > 1 else torch.zeros_like(sample)
        index = (entry + (sample < 0) * max(1, self.samples)).to(device)

        def select(leaf: Tensor) -> Tensor:
            chosen = leaf[index]
            return chosen.to(dtype) if dtype is not None and chosen.is_floating_point() else chosen

        return _each(self._placed[device], select)

    def _check(self, low: int, high: int) -> None:
        if low < 0 and not self.guidable:
            raise SpecError(
                "expected unconditional entries for guidance, found none: give the adapter unconditional={...}"
            )
        if self.samples > 1 and max(high, ~low) >= self.samples:
            raise SpecError(
                f"expected conditioning for sample {max(high, ~low)}, found {self.samples} entries: give one for each "
                "sample, or a single one for all"
            )


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _length(leaves: Mapping[str, Tensor]) -> int:
    """The number of samples: 0 without conditioning, 1 where all is shared."""
    for name, leaf in leaves.items():
        if not isinstance(leaf, Tensor) or leaf.ndim == 0 or len(leaf) == 0:
            found = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise SpecError(f"expected conditioning {name!r} to be a tensor with one entry a sample, found {found}")
    samples = max((len(leaf) for leaf in leaves.values()), default=0)
    for name, leaf in leaves.items():
        if len(leaf) not in (1, samples):
            raise SpecError(
                f"expected conditioning {name!r} with 1 entry or {samples}, one for each sample, found {len(leaf)}"
            )
    return samples


def _merge(conditional: Tree, unconditional: Tree, samples: int) -> Rows:
    """Conditional entries 0 .. S-1, then unconditional ones S .. 2S-1."""
    strange = sorted(set(unconditional) - set(conditional))
    if strange:
        raise SpecError(f"expected unconditional keywords among {sorted(conditional)}, found {strange}")
    merged: Rows = {}
    for name, value in conditional.items():
        other = unconditional.get(name, value)
        if isinstance(value, Mapping):
            merged[name] = _merge(value, other if isinstance(other, Mapping) else {}, samples)
        elif isinstance(other, Tensor) and other.shape[1:] == value.shape[1:]:
            both = (value, other.to(value.device, value.dtype))
            merged[name] = torch.cat([part.detach().expand(samples, *part.shape[1:]) for part in both])
        else:
            found = tuple(other.shape[1:]) if isinstance(other, Tensor) else type(other).__name__
            raise SpecError(f"expected unconditional {name!r} entries of shape {tuple(value.shape[1:])}, found {found}")
    return merged


def _each(tree: Rows, function: Callable[[Tensor], Tensor]) -> Rows:
    return {
        name: _each(value, function) if isinstance(value, dict) else function(value) for name, value in tree.items()
    }
