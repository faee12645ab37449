"""Tables are made once for what cannot change, and anew for what can."""

from __future__ import annotations

import numpy as np
import pytest

import paradrift as pd
from paradrift.forms import Form
from paradrift.tabulated import reformed, tabulated

SCHEDULE = pd.Discrete.linear(1000)
TIMES = pd.grids.default(SCHEDULE, 20)


class Changing:
    """A sampler that is no frozen dataclass."""

    def __init__(self) -> None:
        self.eta = 0.0

    def tableau(self, schedule: pd.Schedule, times: np.ndarray) -> pd.Tableau:
        return pd.DDIM(eta=self.eta).tableau(schedule, times)


def test_the_same_chain_has_the_same_table() -> None:
    table = tabulated(pd.DDIM(), SCHEDULE, TIMES)
    assert tabulated(pd.DDIM(), pd.Discrete.linear(1000), TIMES.copy()) is table
    assert reformed(table, Form.V) is reformed(table, Form.V)
    with pytest.raises(ValueError, match="read-only"):
        table.a[1, 0] = 0.0


def test_another_sampler_schedule_or_grid_has_its_own() -> None:
    table = tabulated(pd.DDIM(), SCHEDULE, TIMES)
    assert tabulated(pd.DDIM(eta=0.5), SCHEDULE, TIMES) is not table
    assert tabulated(pd.DDIM(eta=0.5), SCHEDULE, TIMES).noisy
    assert not np.array_equal(tabulated(pd.DDIM(), SCHEDULE, pd.grids.default(SCHEDULE, 25)).t, table.t)
    cosine = pd.Discrete(SCHEDULE.alphas_cumprod[::2])
    assert tabulated(pd.DDIM(), cosine, pd.grids.default(cosine, 20)) is not table


def test_what_may_change_is_asked_every_time() -> None:
    sampler = Changing()
    assert not tabulated(sampler, SCHEDULE, TIMES).noisy
    sampler.eta = 1.0
    assert tabulated(sampler, SCHEDULE, TIMES).noisy
