"""Schedulers of diffusers as samplers, and pipelines parallel in time."""

from __future__ import annotations

from paradrift.diffusers.parallelize import Running, parallelize
from paradrift.diffusers.probe import Probed
from paradrift.diffusers.replay import replay
from paradrift.diffusers.stats import ReplayStats

__all__ = ["Probed", "ReplayStats", "Running", "parallelize", "replay"]
