"""Langevin chains, parallel in time."""

from __future__ import annotations

from paradrift.langevin.chain import Chain as Chain
from paradrift.langevin.diagnostics import effective_size as effective_size
from paradrift.langevin.langevin import langevin as langevin
