"""What a callback sees of a solve in stages: each stage reports its own samples and rows, the callback all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from paradrift.solution import Round
from paradrift.tableau import Tableau


class Progress:
    """The newest report of every sample.

    Args:
        table: The whole chain, all of whose rows but the last are nodes.
        start: Starting states, shape (S, *shape).
        observe: Who is told; None for no one.
    """

    def __init__(self, table: Tableau, start: Tensor, observe: Callable[[Round], None] | None) -> None:
        self._observe, self._nodes, self._fresh = observe, table.nodes, False
        self._settled = torch.zeros(len(start), dtype=torch.int64)
        self._change = start.new_full((len(start), table.rows), torch.nan, device="cpu")
        self._preview, self._answer = start.clone(), torch.full_like(start, torch.nan)

    def of(self, samples: Tensor, rows: Tensor) -> Callable[[Round], None] | None:
        """What a stage reports to.

        Args:
            samples: Its samples, shape (N,).
            rows: Its rows in the whole chain, ascending, shape (K + 1,).

        Returns:
            A function of its reports; None where no one is told.
        """
        if self._observe is None:
            return None
        host, every = samples.cpu(), torch.arange(self._nodes + 1)
        of_row = torch.searchsorted(rows.cpu(), every)  # a skipped row shows the change of the kept one after it

        def see(seen: Round) -> None:
            self._settled[host] = rows.cpu()[seen.settled.clamp(max=len(rows) - 1)]
            self._change[host] = seen.change[:, of_row]
            self._preview[samples], self._answer[samples] = seen.preview, seen.answer
            self._fresh = True

        return see

    def tell(self, index: int, evaluations: int) -> None:
        """Pass on what was reported since the last time.

        Args:
            index: Round number, from 1.
            evaluations: Rows evaluated so far.
        """
        if self._observe is None or not self._fresh:
            return
        self._fresh = False
        self._observe(
            Round(
                index=index,
                evaluations=evaluations,
                settled=self._settled.clone(),
                nodes=self._nodes,
                change=self._change.clone(),
                preview=self._preview.clone(),
                answer=self._answer.clone(),
            )
        )
