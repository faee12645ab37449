"""Ordinary differential equations, parallel in time, with the interface of torchdiffeq."""

from __future__ import annotations

from paradrift.ode.odeint import odeint as odeint
from paradrift.ode.odeint import odeint_solution as odeint_solution
