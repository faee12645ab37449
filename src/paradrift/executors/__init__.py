"""Executors: where rows are evaluated. One process and one device for now."""

from __future__ import annotations

from paradrift.executors.local import Executor as Executor
from paradrift.executors.local import Local as Local
from paradrift.executors.several import Several as Several
