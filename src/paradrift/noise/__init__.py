r"""Noise is addressed, not drawn.

A parallel solver meets the same noise many times, in an order that depends on its window, and for samples that advance
at different speeds. So a noise source answers *which standard normal belongs to (sample, column)* of the table (see
:mod:`paradrift.tableau`), whatever was asked before:

==========  ====================================================  =====================================
source      value of (sample, column)                             for
==========  ====================================================  =====================================
Philox      a counter-based function of (seed, sample, column)    the default
Drawn       what a sequential loop would draw from a generator    equality with an existing loop
Given       an entry of a ready tensor                            tests, replays
Brownian    a scaled increment of a Brownian path                 coarse and fine grids on one path
Gathered    a weighted sum of the noises of another source        steps that stand for several
Chosen      that of another source, for some of its samples       parts of a batch
==========  ====================================================  =====================================

The start is a noise of its own, beside all columns.
"""

from __future__ import annotations

from paradrift.noise.base import Chosen, Given, Noise
from paradrift.noise.brownian import Brownian
from paradrift.noise.drawn import Drawn
from paradrift.noise.gathered import Gathered, gather
from paradrift.noise.philox import Buffered, Philox

__all__ = ["Brownian", "Buffered", "Chosen", "Drawn", "Gathered", "Given", "Noise", "Philox", "gather"]
