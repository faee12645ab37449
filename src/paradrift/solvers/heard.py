"""What the nodes of a thinned chain have answered so far, in the form that is interpolated or averaged."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from paradrift.forms import Affine, Array
from paradrift.solvers.base import Outcome, Request
from paradrift.solvers.steepness import Steepness
from paradrift.tableau import Tableau


class Heard:
    """The newest state and output of each node, how often it was asked, and how steep it has shown itself.

    Args:
        table: The thinned chain, K nodes.
        measured: How outputs turn into the form: p times what the model sees, plus q times its output, shapes (K,).
        felt: What a unit error after each node does to the answer, for the variances of
            :func:`paradrift.growth.ladder`, shape (LEVELS, K).
        variance: Data variance per element, the bottom of the ladder.
        like: Starting states, shape (S, D).
    """

    def __init__(self, table: Tableau, measured: Affine, felt: Array, variance: float, like: Tensor) -> None:
        self.states, self.outputs, self._raw = (like.new_zeros(table.nodes, *like.shape) for _ in range(3))
        self.asked = torch.zeros(table.nodes, len(like), dtype=torch.int64, device=like.device)
        self.steepness = Steepness(table, felt, variance, len(like), like.device)
        self._levels = torch.as_tensor(np.stack([*measured, table.scale[:-1]])).to(like)

    def inherit(self, whole: Heard, which: Tensor) -> None:
        """Begin with what some samples of another one have answered.

        Args:
            whole: What all of them have.
            which: Which are these, bool.
        """
        self.states, self.outputs, self._raw = whole.states[:, which], whole.outputs[:, which], whole._raw[:, which]
        self.asked, self.steepness.slopes = whole.asked[:, which], whole.steepness.slopes[:, which.cpu().numpy()]

    def hear(self, request: Request, answer: Tensor) -> None:
        """Take in the outputs of a round.

        Args:
            request: What was asked: nodes are rows of the thinned chain.
            answer: Model outputs, shape (N, *shape).
        """
        self._enter(request.node, request.sample, request.x.flatten(1), answer.flatten(1).to(self.outputs))

    def take(self, outcome: Outcome) -> None:
        """Take the outputs that the settled rows were computed with, where they were kept.

        Args:
            outcome: The thinned chain's.
        """
        if outcome.outputs is None or outcome.trajectory is None:
            return
        states = outcome.trajectory[:, :-1].flatten(2).transpose(0, 1)
        outputs = outcome.outputs[:, :-1].flatten(2).transpose(0, 1)
        node, sample = torch.isfinite(outputs.sum(-1) + states.sum(-1)).nonzero(as_tuple=True)
        self._enter(node, sample, states[node, sample] * self._levels[2, node][:, None], outputs[node, sample])

    def _enter(self, node: Tensor, sample: Tensor, x: Tensor, output: Tensor) -> None:
        p, q, scale = self._levels[:, node, None]
        state, found = x / scale, p * x + q * output
        again = self.asked[node, sample] > 0
        if bool(again.any()):
            dx, df = state - self.states[node, sample], output - self._raw[node, sample]
            self.steepness.see(node, sample, dx, df, again)
        self.states[node, sample], self.outputs[node, sample], self._raw[node, sample] = state, found, output
        self.asked[node, sample] += 1
