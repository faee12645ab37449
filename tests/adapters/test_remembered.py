"""What adapters remember between calls is never what has changed in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift.adapters import conditioning as rules
from paradrift.adapters import denoiser
from paradrift.adapters.conditioning import Conditioning
from paradrift.adapters.modules import precision

HOST = torch.device("cpu")


class Nested(nn.Module):
    """Parameters at every depth, and parts without any."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = nn.Sequential(nn.SiLU(), nn.Sequential())
        self.register_parameter("none", None)
        self.absent = None
        self.whole = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
        self.deep = nn.Sequential(nn.Identity(), nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))


def first(module: nn.Module) -> torch.dtype | None:
    return next((weight.dtype for weight in module.parameters() if weight.is_floating_point()), None)


def test_the_precision_is_that_of_the_first_floating_parameter_now() -> None:
    net = Nested()
    assert precision(net) is first(net) is torch.float32
    assert precision(nn.SiLU()) is None
    for change in (
        net.half,
        net.double,
        net.deep.bfloat16,
        lambda: net.deep[1].__setitem__(0, nn.Linear(2, 2).half()),
        lambda: net.load_state_dict(Nested().double().state_dict(), assign=True),
        lambda: setattr(net, "early", nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))),
    ):
        change()
        assert precision(net) is first(net)
    assert precision(net) is torch.bfloat16  # a module's own parameters come before those of its parts


def test_a_network_cast_between_two_calls_is_called_in_its_precision() -> None:
    seen: list[torch.dtype] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            seen.extend([x.dtype, y.dtype])
            return self.linear(x + y)

    net = Net()
    model = denoiser(net, predicts="noise", schedule=pd.VP(), conditioning={"y": torch.ones(2, 3)})
    for cast in (torch.float32, torch.bfloat16, torch.float64):
        net.to(cast)
        model(torch.zeros(2, 3), torch.zeros(2), torch.tensor([0, 1]))
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2 + [torch.float64] * 2


def test_rows_follow_samples_that_change_in_place() -> None:
    entries = Conditioning({"y": torch.arange(6.0).reshape(3, 2)}, {"y": -torch.ones(1, 2)})
    sample = torch.tensor([0, 1])
    with torch.inference_mode():
        for change in ([0, 1], [2, 1], [~2, 1], [0, 1]):
            sample.copy_(torch.tensor(change))
            expected = [[-1.0, -1.0] if one < 0 else [2.0 * one, 2.0 * one + 1] for one in change]
            for _ in range(2):
                assert entries.rows(sample, HOST, None)["y"].tolist() == expected


def test_rows_that_a_network_has_written_to_are_made_anew() -> None:
    entries = Conditioning({"y": torch.ones(2, 2), "more": {"z": torch.ones(2, 1)}})
    sample = torch.tensor([0, 1])
    for mode in (True, False):
        with torch.inference_mode(mode):
            for _ in range(3):
                rows = entries.rows(sample, HOST, None)
                more = rows["more"]
                assert isinstance(more, dict)
                assert rows["y"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
                assert more["z"].tolist() == [[1.0], [1.0]]
                more.pop("z")
                more = entries.rows(sample, HOST, None)["more"]
                assert isinstance(more, dict)
                more.pop("z").add_(1)
                rows["y"][:1].mul_(3)


def test_rows_asked_for_in_inference_mode_may_enter_a_graph_later() -> None:
    entries, sample = Conditioning({"y": torch.ones(2, 2)}), torch.tensor([0, 1])
    with torch.inference_mode():
        entries.rows(sample, HOST, None)
    weight = torch.ones(2, requires_grad=True)
    (entries.rows(sample, HOST, None)["y"] * weight).sum().backward()
    assert weight.grad is not None


def test_the_same_rows_are_selected_once_and_large_ones_are_not_kept(monkeypatch) -> None:
    entries = Conditioning({"y": torch.ones(2, 2)})

    def asked() -> list[int]:
        return [entries.rows(torch.tensor([0, 1]), HOST, None)["y"].data_ptr() for _ in range(2)]

    once = asked()
    assert once[0] == once[1]
    kept = entries.rows(torch.tensor([0, 1]), HOST, None)["y"]
    monkeypatch.setattr(rules, "REMEMBERED", 3)
    other = entries.rows(torch.tensor([1, 0]), HOST, None)["y"]
    assert other.data_ptr() not in (kept.data_ptr(), entries.rows(torch.tensor([1, 0]), HOST, None)["y"].data_ptr())
