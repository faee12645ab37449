"""Schedulers of diffusers as samplers."""

from __future__ import annotations

from paradrift.diffusers.probe import Probed

__all__ = ["Probed"]
