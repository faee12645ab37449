r"""The windows of all samples as one block of tensors.

Position ``p`` of sample ``s`` holds the absolute row ``front[s] - (H - 1) + p``: positions below ``H - 1`` are settled
history (as far back as the table reaches), ``H - 1`` is the front, and the W positions after it are being worked on.
Each node answers with a surrogate :math:`g(x) = f + s\,(x - x_{ref})`; its reference is its own last evaluation, or,
before the first, the continuation of the last node that has one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from paradrift.solvers.lowered import Lowered

Where = tuple[Tensor, ...] | tuple[slice, slice]  # positions and samples, scattered or a whole rectangle

STEEPEST = 0.95  # slopes of the data prediction above this are not extrapolated: the continuation divides by 1 - s


@dataclass(kw_only=True)
class State:
    """Everything that moves with the fronts; second dimension S = samples still active.

    Args:
        z: States, shape (B, S, D).
        f: Outputs at the references, shape (B, S, D).
        ref: Reference states, shape (B, S, D).
        out: Outputs that rows were last computed with, shape (B, S, D).
        noise: Noise terms of each row, shape (B, S, D).
        slope: Slopes, shape (B, S, 1), or (B, S, D) when secants are taken per group of elements.
        known: Whether a node has been evaluated, shape (B, S).
        rest: Measured part of the slope left unexplained, of D against x / alpha, shape (B, S); negative: unmeasured.
        front: First unsettled row, shape (S,), int64.
        steepest: Largest variance that the slopes of settled rows have shown, shape (S,); 0: none measured.
    """

    z: Tensor
    f: Tensor
    ref: Tensor
    out: Tensor
    noise: Tensor
    slope: Tensor
    known: Tensor
    rest: Tensor
    front: Tensor
    steepest: Tensor

    @staticmethod
    def begin(start: Tensor, history: int, width: int, per_element: bool) -> State:
        """Windows at the start of the chain.

        Args:
            start: Starting states, shape (S, D).
            history: Positions up to and including the front, H.
            width: Positions after the front, W.
            per_element: Whether slopes differ between elements.

        Returns:
            The state with row 0 at the front and empty windows.
        """
        size, (samples, elements) = history + width, start.shape
        block = start.new_zeros(size, samples, elements)
        z = block.clone()
        z[history - 1] = start
        return State(
            z=z,
            f=block.clone(),
            ref=block.clone(),
            out=block.clone(),
            noise=block.clone(),
            slope=start.new_zeros(size, samples, elements if per_element else 1),
            known=torch.zeros(size, samples, dtype=torch.bool, device=start.device),
            rest=start.new_full((size, samples), -1.0),
            front=torch.zeros(samples, dtype=torch.int64, device=start.device),
            steepest=start.new_zeros(samples),
        )

    def keep(self, which: Tensor) -> None:
        """Drop finished samples.

        Args:
            which: Indices of the samples that stay, int64.
        """
        for entry in fields(self):
            tensor = getattr(self, entry.name)
            setattr(self, entry.name, tensor[which] if tensor.ndim == 1 else tensor[:, which])

    def shift(self, count: Tensor, history: int) -> None:
        """Move every window forward by its own count.

        Args:
            count: Rows settled, shape (S,), int64.
            history: H.
        """
        size, samples = self.known.shape
        names = ("z", "f", "ref", "out", "noise", "slope", "known", "rest")
        least, most = int(count.min()), int(count.max())
        if least == most:  # all fronts move together: one copy a tensor
            for name in names:
                setattr(self, name, getattr(self, name).roll(-most, 0))
        else:
            index = (torch.arange(size, device=count.device)[:, None] + count).clamp_(max=size - 1)
            column = torch.arange(samples, device=count.device)
            for name in names:
                setattr(self, name, getattr(self, name)[index, column])
        entering = torch.arange(size, device=count.device)[:, None] >= size - count
        self.known &= ~entering
        self.rest = torch.where(entering, -1.0, self.rest)
        self.front = self.front + count


def rows_of(state: State, history: int) -> Tensor:
    """Absolute row of each position, possibly past the end, never negative.

    Args:
        state: The windows.
        history: H.

    Returns:
        Shape (B, S), int64.
    """
    offsets = torch.arange(len(state.known), device=state.front.device) - (history - 1)
    return (offsets[:, None] + state.front).clamp_(min=0)


def carry_slopes(state: State, table: Lowered, rows: Tensor, first: int) -> None:
    """Give every node without a measured slope that of the nearest measured node before it, as a Gaussian would.

    Slopes of the data prediction change quickly with the noise level, the variance that they imply does not.

    Args:
        state: The windows; slopes change in place.
        table: The lowered table.
        rows: Absolute rows, shape (B, S).
        first: First position that may change.
    """
    if not table.scheduled:
        return
    measured = state.rest >= 0
    positions = torch.arange(len(rows), device=rows.device)[:, None]
    nearest = torch.where(measured, positions, -1).cummax(0).values
    borrow = (state.known & ~measured & (nearest >= 0))[first:, :, None]
    p, q, alpha, ratio = (vector[rows][..., None] for vector in (table.p, table.q, table.alpha, table.ratio))
    steep = (alpha * (state.slope - p) / q).clamp(0.0, STEEPEST)
    variance = ratio.square() * steep / (1 - steep)
    index = nearest[first:].clamp(min=0)[..., None].expand(-1, -1, variance.shape[-1])
    variance = variance.gather(0, index)
    spread = ratio[first:].square() + variance
    slope = p[first:] + q[first:] / alpha[first:] * torch.where(spread > 0, variance / spread, 0.0)
    tensor = state.slope[first:]
    tensor.copy_(torch.where(borrow, slope, tensor))


def continue_references(state: State, table: Lowered, rows: Tensor, history: int, measured: bool, first: int) -> None:
    r"""Give every node that was never evaluated a surrogate: the continuation of the last node that was.

    The data prediction of one Gaussian is :math:`D_\rho(\bar x) = \mu + s_\rho (\bar x - \mu)` with
    :math:`s_\rho = v/(v+\rho^2)`, :math:`\bar x = x/\alpha`, :math:`\rho = \sigma/\alpha`. The last known node's
    prediction and slope determine :math:`\mu` and v, so they determine D at every other noise level: exact inside a
    Gaussian mode, and a second-order extrapolation elsewhere. With fixed slopes the data prediction is held instead.
    Where nothing is known yet, the data are taken to be centred, with the prior slope.

    Args:
        state: The windows; changed in place.
        table: The lowered table.
        rows: Absolute rows, shape (B, S).
        history: H.
        measured: Whether slopes are measured, so that they can be continued.
        first: First position that may need a surrogate.
    """
    positions = torch.arange(len(rows), device=rows.device)[:, None]
    unknown = (~state.known & (positions >= history - 1))[first:]
    last = torch.where(state.known, positions, -1).amax(0)
    column = torch.arange(rows.shape[1], device=rows.device)
    at = (last.clamp(min=0), column)
    row = rows[at]
    f, ref, slope = state.f[at], state.ref[at], state.slope[at]
    p, q, alpha = table.p[row][:, None], table.q[row][:, None], table.alpha[row][:, None]
    data, x = (f - p * ref) / q, ref / alpha
    late = rows[first:]
    p_new, q_new, alpha_new = (vector[late][..., None] for vector in (table.p, table.q, table.alpha))
    if not table.scheduled:  # nothing to continue with: hold the output and its slope
        reference, outputs, slopes = ref[None], f[None], slope[None] if measured else table.prior[late][..., None]
    elif measured:
        steep = (alpha * (slope - p) / q).clamp(0.0, STEEPEST)
        variance = table.ratio[row][:, None] ** 2 * steep / (1 - steep)
        spread = table.ratio[late][..., None] ** 2 + variance
        slopes = torch.where(spread > 0, variance / spread, steep)
        centre = data + steep / (1 - steep) * (data - x)
        reference = alpha_new * centre
        outputs = p_new * reference + q_new * centre
        slopes = p_new + q_new * slopes / alpha_new
    else:
        reference = alpha_new * x
        outputs = p_new * reference + q_new * data
        slopes = table.prior[late][..., None]
    some = last >= 0
    if bool((unknown & some).all()):  # the usual case: everything here is new
        state.ref[first:], state.f[first:], state.slope[first:] = reference, outputs, slopes
        return
    fresh = (unknown & some)[..., None]
    blank = (unknown & ~some)[..., None]
    for name, values in (("ref", reference), ("f", outputs), ("slope", slopes)):
        tensor = getattr(state, name)[first:]
        tensor.copy_(torch.where(fresh, values, tensor))
        if not bool(some.all()):
            tensor.copy_(torch.where(blank, table.prior[late][..., None] if name == "slope" else 0.0, tensor))


def march(state: State, table: Lowered, rows: Tensor, first: int, stop: int, entering: Tensor | None) -> None:
    """Forward substitution: compute rows in order, each from the rows and surrogate outputs before it.

    One fixed order of operations a row, whatever the window: this is what makes a window of one node and any other
    window agree to the last bit. Products and sums are separate operations on purpose: fused ones may round
    differently in vectorised and scalar code.

    Args:
        state: The windows; ``z`` and ``out`` change in place.
        table: The lowered table.
        rows: Absolute rows, shape (B, S).
        first: First position to compute.
        stop: Position after the last to compute.
        entering: First position that may change for each sample, shape (S,), or None for all.
    """
    weights = [(lag, vector[rows].unsqueeze(-1).unbind()) for lag, vector in table.a.items()]
    gains = [(lag, vector[rows].unsqueeze(-1).unbind()) for lag, vector in table.b.items()]
    z, out, noise = state.z.unbind(), state.out.unbind(), state.noise.unbind()
    f, ref, slope = state.f.unbind(), state.ref.unbind(), state.slope.unbind()
    for position in range(first, stop):
        # The surrogate's answer; the output itself where the state is the reference.
        answer = out[position - 1]
        torch.sub(z[position - 1], ref[position - 1], out=answer)
        answer.mul_(slope[position - 1]).add_(f[position - 1])
        value = z[position] if entering is None else torch.empty_like(z[position])
        if table.noisy:
            value.copy_(noise[position])
        else:
            value.zero_()
        for lag, weight in weights:
            value.add_(weight[position] * z[position - lag])
        for lag, gain in gains:
            value.add_(gain[position] * out[position - lag])
        if entering is not None:
            z[position].copy_(torch.where((entering <= position)[:, None], value, z[position]))
