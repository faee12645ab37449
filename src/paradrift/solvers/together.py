"""Several solves at once: the requests of a round become one request."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

import torch
from torch import Tensor

from paradrift.solvers.base import Interrupted, Request

Stage = Generator[Request, Tensor, "list[Stage]"]  # a part of a solve; what it returns begins where it ends


def together(  # noqa: DOC403
    stages: Iterable[Stage], told: Callable[[Request | None], None]
) -> Generator[Request, Tensor, None]:
    """Run stages side by side, each round of all of them as one request, and what they return after them.

    Requests to another model than the first stage's wait for the next round. An interrupt is passed on to every stage
    that is running; none is begun afterwards.

    Args:
        stages: The stages, not yet started.
        told: Called with each request before it is made, and with None at the end.

    Yields:
        Requests, one a round.
    """
    running: list[tuple[Stage, Request]] = []

    def begin(stage: Stage) -> None:
        try:
            running.append((stage, next(stage)))
        except StopIteration as end:
            for later in end.value:
                begin(later)

    for stage in stages:
        begin(stage)
    while running:
        served = [entry for entry in running if entry[1].model == running[0][1].model]
        running = [entry for entry in running if entry[1].model != served[0][1].model]
        request = joined([request for _, request in served])
        told(request)
        try:
            answers = yield request
        except (Interrupted, KeyboardInterrupt):
            for stage, _ in served + running:
                try:
                    stage.throw(Interrupted())
                except StopIteration:
                    continue
                raise RuntimeError("expected an interrupted stage to return") from None
            break
        for (stage, _), answer in zip(served, answers.split([len(one.t) for _, one in served]), strict=True):
            try:
                running.append((stage, stage.send(answer)))
            except StopIteration as end:
                for later in end.value:
                    begin(later)
    told(None)


def joined(requests: list[Request]) -> Request:
    """Several requests of one model as one.

    Args:
        requests: At least one.

    Returns:
        All their rows, in this order.
    """
    if len(requests) == 1:
        return requests[0]
    parts = {name: torch.cat([getattr(one, name) for one in requests]) for name in ("x", "t", "sample", "node")}
    return Request(**parts, model=requests[0].model)
