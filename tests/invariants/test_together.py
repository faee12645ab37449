"""Stages side by side: every round one request, answers to whom they belong, an interrupt to all."""

import torch

from paradrift.solvers.base import Interrupted, Request
from paradrift.solvers.together import Stage, together


def asking(name: int, sizes: list[int], heard: list[tuple[int, list[float]]], model: int = 0, later=()) -> Stage:
    """A stage of so many rows in each round."""
    try:
        for size in sizes:
            rows = torch.full((size, 1), float(name))
            index = torch.full((size,), name)
            answer = yield Request(x=rows, t=torch.zeros(size), sample=index, node=index, model=model)
            heard.append((name, answer.flatten().tolist()))
    except Interrupted:
        heard.append((name, []))
        return []
    return list(later)


def driven(stages: list[Stage]) -> tuple[list[list[int]], int]:
    """The samples of every request, each row answered with ten times itself; and how often a round was told."""
    told: list[Request | None] = []
    running, asked = together(stages, told.append), []
    try:
        request = next(running)
        while True:
            asked.append(request.sample.tolist())
            request = running.send(10 * request.x)
    except StopIteration:
        assert told[-1] is None
        return asked, len(told)


def test_requests_are_joined_and_answers_given_to_their_stages() -> None:
    heard: list[tuple[int, list[float]]] = []
    later = asking(3, [1], heard)
    asked, told = driven([asking(1, [2, 1], heard, later=[later]), asking(2, [1, 1, 1], heard)])
    assert asked == [[1, 1, 2], [1, 2], [3, 2]]
    assert told == 4
    assert heard == [(1, [10, 10]), (2, [20]), (1, [10]), (2, [20]), (3, [30]), (2, [20])]


def test_another_model_waits_for_a_round_of_its_own() -> None:
    heard: list[tuple[int, list[float]]] = []
    asked, _ = driven([asking(1, [1, 1], heard), asking(2, [1], heard, model=1)])
    assert asked == [[1], [2], [1]]


def test_an_interrupt_reaches_every_stage_and_begins_none() -> None:
    heard: list[tuple[int, list[float]]] = []
    running = together([asking(1, [1, 1], heard, later=[asking(3, [1], heard)]), asking(2, [1], heard)], lambda _: None)
    next(running)
    try:
        running.throw(Interrupted())
    except StopIteration:
        pass
    assert sorted(heard) == [(1, []), (2, [])]
