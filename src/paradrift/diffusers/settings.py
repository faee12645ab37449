"""How a program is replayed."""

from __future__ import annotations

from dataclasses import dataclass

from paradrift.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to replay.

    Args:
        tol: Tolerance of the final result, relative.
        window: Calls beyond the settled ones that are worked on; None to choose by their cost.
        secant: Whether stale calls are answered with secant slopes, or as they are.
        single: Whether every call is evaluated alone; with tol 0 the program's own bits.
        max_rows: Most calls in one batch.
        pad: Whether batches are filled up to one size.

    Raises:
        SpecError: if one of them is out of its range.
    """

    tol: float = 1e-3
    window: int | None = None
    secant: bool = True
    single: bool = False
    max_rows: int | None = None
    pad: bool = False

    def __post_init__(self) -> None:
        if not self.tol >= 0:
            raise SpecError(f"expected a tolerance of at least 0, found {self.tol}")
        if self.window is not None and self.window < 1:
            raise SpecError(f"expected a window of at least 1 call, found {self.window}")
        if self.max_rows is not None and self.max_rows < 1:
            raise SpecError(f"expected at least 1 call in a batch, found max_rows={self.max_rows}")
