"""Networks as denoisers: plain torch modules, EDM and k-diffusion networks, diffusers models."""

from __future__ import annotations

from paradrift.adapters.diffusers_models import diffusers_denoiser, from_scheduler
from paradrift.adapters.edm import edm_denoiser, edm_network
from paradrift.adapters.modules import ModuleDenoiser, denoiser

__all__ = ["ModuleDenoiser", "denoiser", "diffusers_denoiser", "edm_denoiser", "edm_network", "from_scheduler"]
