r"""What a model is to this library: rows in, rows out.

A denoiser maps R noisy states at R times, belonging to R (not necessarily different) samples, to R outputs. Rows are
independent: no row's output may depend on another row of the same call, which is what allows many time steps, samples
and guidance halves to share one batch.

``sample`` selects the conditioning. The index i >= 0 asks for sample i under its conditioning; the index ``~i`` (that
is, -1 - i) asks for sample i under the *unconditional* entry. So the two halves of classifier-free guidance are 2R rows
of one call of any denoiser, however it is wrapped.

Wrappers compose: ``Counted(Clipped(Guided(denoiser, 3.0)))``. Each passes on ``variance`` and ``modules``, the torch
modules behind it, which the caller may switch to evaluation mode. Times may stay on the host, where schedules live:
a wrapper that needs alpha(t) then waits for no device.
"""

from __future__ import annotations

from paradrift.denoisers.base import Denoiser, column, levels, modules
from paradrift.denoisers.clipping import Clipped
from paradrift.denoisers.counting import Counted
from paradrift.denoisers.genie import GENIE
from paradrift.denoisers.guidance import Guided
from paradrift.denoisers.reform import Reform
from paradrift.denoisers.value import Value

__all__ = ["GENIE", "Clipped", "Counted", "Denoiser", "Guided", "Reform", "Value", "column", "levels", "modules"]
