"""Solves that did not happen: what the command line and the pictures are tested with."""

from collections.abc import Callable

import pytest
import torch

from paradrift.solution import Round, Solution, Stats, Status

NODES, WIDTH = 60, 16


def solve(
    shape: tuple[int, ...], width: int = WIDTH, status: Status = Status.CONVERGED, shift: float = 0.0
) -> Solution:
    axis = torch.linspace(-1, 1, shape[-1])
    image = 1 - 2 * ((axis[:, None] ** 2 + axis[None, :] ** 2).sqrt() - 0.6).abs().clamp(max=0.5) * 2
    rounds = -(-NODES // width) * 3
    return Solution(
        samples=image.expand(shape).clone() + shift,
        status=(status,) * shape[0],
        error=torch.full((shape[0],), 3e-3 if status is Status.CONVERGED else float("inf")),
        stats=Stats(
            rounds=rounds,
            evaluations=rounds * width * shape[0],
            nodes=NODES,
            sample_rounds=(rounds,) * shape[0],
            seconds=0.1 * rounds,
            model_seconds=0.09 * rounds,
            noise_seconds=0.0,
            planning_seconds=0.0,
            window=width,
            choice=f"sliding window of {width}, as given",
            predicted_sequential_seconds=6.0,
        ),
        certifiable=True,
    )


def replay(callback: Callable[[Round], None], shape: tuple[int, ...], width: int = WIDTH) -> None:
    """Call back as a sliding window would: the change falls by half each round, three rows settle a round."""
    front, index, age = 0, 0, torch.zeros(NODES + 1)
    while front < NODES:
        index += 1
        change = torch.full((shape[0], NODES + 1), float("nan"))
        inside = slice(front + 1, min(front + width, NODES) + 1)
        age[inside] += 1
        change[:, inside] = 0.5 ** age[inside] * torch.linspace(0.05, 1, NODES + 1)[inside]
        front = min(NODES, front + 3)
        preview = solve(shape).samples * front / NODES + torch.randn(shape) * (1 - front / NODES)
        callback(
            Round(
                index=index,
                evaluations=index * width * shape[0],
                settled=torch.full((shape[0],), front),
                nodes=NODES,
                change=change,
                preview=preview,
                answer=preview,
            )
        )


@pytest.fixture
def solved() -> Callable[..., Solution]:
    return solve


@pytest.fixture
def replayed() -> Callable[..., None]:
    return replay
