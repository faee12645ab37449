r"""A sampler is a table, not a loop.

A *row* is a state :math:`z_m` of shape ``(*shape)``; a *node* is a row at which the model is evaluated. With the start
:math:`z_0`, the model outputs :math:`f_m = f(z_m, t_m)` and independent standard normal noises :math:`\xi_n`,

.. math:: z_m = \sum_{j<m} a_{mj} z_j + \sum_{j<m} b_{mj} f_j + \sum_{n\le m} c_{mn} \xi_n, \qquad m = 1 \dots R-1.

:math:`a, b` are strictly lower triangular. DDIM, DDPM, Euler, ancestral and exponential integrators have one entry a
row; multistep rules have more columns of :math:`b`; multistage rules have more nodes; a row that is not a node (the
output, a velocity, a state before churn) has an empty column of :math:`b`. Row 0 is the start, the last row is the
answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paradrift.errors import SpecError
from paradrift.forms import Array, Form, convert

_VECTORS = ("t", "evaluated", "alpha", "sigma", "scale", "draws")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tableau:
    """The table of one sampler on one grid: float64, on the host, immutable, checked when made.

    Args:
        t: Model time of each row, shape (R,); ignored where a row is not evaluated.
        a: Weights of earlier states, shape (R, R), strictly lower triangular.
        b: Weights of earlier model outputs, shape (R, R), strictly lower triangular, zero columns at rows that are not
            evaluated.
        c: Weights of the noises, shape (R, R), lower triangular, row 0 empty. Noise ``n`` is addressed by its column.
        form: What the model outputs in ``b`` mean.
        evaluated: Which rows are nodes, shape (R,), bool; never the last.
        alpha: Signal level of each row's state, shape (R,); None for tables without a noise schedule.
        sigma: Noise level of each row's state, shape (R,); None for tables without a noise schedule.
        scale: The model sees ``scale * z``, and its form speaks of that; shape (R,).
        start: Standard deviation of the starting noise at row 0.
        draws: Which noise columns the sequential sampler draws, shape (R,), bool: a superset of the columns in use,
            because some loops draw a noise and weight it with zero.

    Raises:
        SpecError: if a shape, the triangular structure, finiteness, or the last row is wrong.
    """

    t: Array
    a: Array
    b: Array
    c: Array
    form: Form
    evaluated: NDArray[np.bool_]
    alpha: Array | None = None
    sigma: Array | None = None
    scale: Array
    start: float = 1.0
    draws: NDArray[np.bool_]

    def __post_init__(self) -> None:
        rows = len(self.t)
        if rows < 2:
            raise SpecError(f"expected a table of at least 2 rows (a start and an answer), found {rows}")
        for name in ("a", "b", "c"):
            matrix = getattr(self, name)
            if matrix.shape != (rows, rows):
                raise SpecError(f"expected {name} of shape {(rows, rows)}, found {matrix.shape}")
        for name, (used, sources), least in zip("abc", self.entries, (1, 1, 0), strict=True):
            bad = ~np.isfinite(getattr(self, name)[used, sources])
            if np.any(bad):
                raise SpecError(f"expected finite {name}, found NaN or infinity in row {used[bad][0]}")
            later = used - sources < least
            if np.any(later):
                raise SpecError(
                    f"expected {name} to use earlier rows only, found a later entry in row {used[later][0]}"
                )
        for name in ("evaluated", "scale", "draws"):
            if getattr(self, name).shape != (rows,):
                raise SpecError(f"expected {name} of shape {(rows,)}, found {getattr(self, name).shape}")
        (_, _), (_, outputs), (noised, noises) = self.entries
        if np.any(noised == 0):
            raise SpecError("expected no noise in row 0, the start; scale it with start instead")
        if self.evaluated[-1] or not np.all(self.evaluated[outputs]):
            raise SpecError("expected b to use evaluated rows only, and the last row not to be evaluated")
        if not np.any(self.evaluated):
            raise SpecError("expected at least one evaluated row, found none")
        if not np.all(np.isfinite(self.t[self.evaluated])):
            raise SpecError("expected a finite model time at every evaluated row")
        if not np.all(self.draws[noises]):
            raise SpecError("expected every noise in use to be drawn")
        for array in (self.t, self.a, self.b, self.c, self.evaluated, self.scale, self.draws, self.alpha, self.sigma):
            if array is not None:
                array.setflags(write=False)

    @property
    def rows(self) -> int:
        """Number of rows R, start and answer included."""
        return len(self.t)

    @cached_property
    def nodes(self) -> int:
        """Number of nodes M: model evaluations of the sequential sampler."""
        return int(self.evaluated.sum())

    @cached_property
    def entries(self) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]:
        """Where a, b and c are not zero: rows and columns of each, in the order of rows."""
        found = [np.nonzero(matrix != 0) for matrix in (self.a, self.b, self.c)]  # of bools: much faster
        return tuple((used[0], used[1]) for used in found)

    @cached_property
    def lags(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The lags ``m - j`` that occur in a, in b and in c, each ascending."""
        a, b, c = (tuple(np.unique(rows - columns).tolist()) for rows, columns in self.entries)
        return a, b, c

    @cached_property
    def reach(self) -> int:
        """How many earlier rows a row may use: the memory that a window must keep behind its front."""
        return max([1, *self.lags[0], *self.lags[1]])

    @property
    def noise_reach(self) -> int:
        """How many noises before its own a row may use; 0 when each row has a noise of its own."""
        return max([0, *self.lags[2]])

    @property
    def noisy(self) -> bool:
        """Whether the sampler is stochastic after its start."""
        return bool(self.lags[2])

    def band(self, name: str, lag: int) -> Array:
        """The diagonal ``matrix[m, m - lag]`` as a vector over rows m, zero where ``m < lag``.

        Args:
            name: "a", "b" or "c".
            lag: How far behind the row, >= 0.

        Returns:
            Shape (R,), float64.
        """
        diagonal = np.zeros(self.rows)
        diagonal[lag:] = np.diagonal(getattr(self, name), -lag)
        return diagonal

    def packed(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The table as few numbers: vectors as they are, of each matrix the entries that are not zero.

        Returns:
            Arrays by name, and the rest as words and numbers; :meth:`unpacked` undoes it.
        """
        arrays = {name: getattr(self, name) for name in _VECTORS if getattr(self, name) is not None}
        for name, where in zip("abc", self.entries, strict=True):
            arrays |= {f"{name}.where": np.stack(where).astype(np.int64), name: getattr(self, name)[where]}
        return {name: array.copy() for name, array in arrays.items()}, {"form": self.form.value, "start": self.start}

    @staticmethod
    def unpacked(arrays: Mapping[str, NDArray[Any]], words: Mapping[str, Any]) -> Tableau:
        """The table that :meth:`packed` wrote.

        Args:
            arrays: Arrays by name.
            words: Words and numbers.

        Returns:
            The table, checked.
        """
        found: dict[str, Any] = {name: arrays[name] for name in _VECTORS if name in arrays}
        for name in "abc":
            found[name] = np.zeros((len(arrays["t"]),) * 2)
            found[name][tuple(arrays[f"{name}.where"])] = arrays[name]
        return Tableau(**found, form=Form(words["form"]), start=words["start"])

    def gains(self) -> tuple[Array, Array, Array]:
        """The closed loop ``z = u z0 + B f + C xi``: the table with its states eliminated.

        Returns:
            ``u`` of shape (R,), ``B`` and ``C`` of shape (R, R): what two samplers share when they are the same map,
            however their tables are written.
        """
        propagator = np.asarray(np.linalg.solve(np.eye(self.rows) - self.a, np.eye(self.rows)), np.float64)
        return propagator[:, 0], propagator @ self.b, propagator @ self.c

    def reform(self, form: Form) -> Tableau:
        """The same sampler written for model outputs of another form.

        With ``f_m = p_m z_m + q_m g_m``, ``a[m, j] + b[m, j] p_j`` and ``b[m, j] q_j`` replace a and b.

        Args:
            form: The form wanted.

        Returns:
            A table with the same answer for the same denoiser.

        Raises:
            SpecError: if the table has no noise schedule, or a conversion divides by zero.
        """
        if form is self.form:
            return self
        if self.alpha is None or self.sigma is None:
            raise SpecError(f"expected a table with a noise schedule to turn {self.form.value} into {form.value}")
        p, q = np.zeros(self.rows), np.ones(self.rows)
        nodes = self.evaluated
        scale = self.scale[nodes]  # forms speak of what the model sees
        p[nodes], q[nodes] = convert(form, self.form, self.alpha[nodes] * scale, self.sigma[nodes] * scale)
        p[nodes] *= scale
        a, b = self.a.copy(), np.zeros_like(self.b)
        used = self.entries[1]
        a[used] += self.b[used] * p[used[1]]
        b[used] = self.b[used] * q[used[1]]
        return dataclasses.replace(self, a=a, b=b, form=form)


@dataclass
class Rows:
    """A table under construction, row by row; see :class:`Tableau` for the meaning of each entry.

    Args:
        form: What the model outputs mean.
        start: Standard deviation of the starting noise.

    Example:
        >>> rows = Rows(form=Form.DATA)
        >>> first = rows.add(t=1.0, alpha=0.6, sigma=0.8)
        >>> last = rows.add(t=0.0, alpha=1.0, sigma=0.0, a={first: 0.0}, b={first: 1.0}, evaluated=False)
        >>> rows.build().nodes
        1
    """

    form: Form
    start: float = 1.0
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        *,
        t: float,
        alpha: float | None = None,
        sigma: float | None = None,
        a: Mapping[int, float] | None = None,
        b: Mapping[int, float] | None = None,
        c: Mapping[int, float] | float = 0.0,
        evaluated: bool = True,
        scale: float = 1.0,
        draw: bool | None = None,
    ) -> int:
        """Append one row.

        Args:
            t: Model time.
            alpha: Signal level, or None for tables without a noise schedule.
            sigma: Noise level, or None.
            a: Weight of each earlier state.
            b: Weight of each earlier model output.
            c: Weight of this row's own noise, or of several noises by column.
            evaluated: Whether the row is a node.
            scale: Input scaling of the model.
            draw: Whether the sequential sampler draws this row's noise; None: when its weight is not zero.

        Returns:
            The index of the new row.
        """
        noises = dict(c) if isinstance(c, Mapping) else {len(self._rows): float(c)}
        entry = dict(t=t, alpha=alpha, sigma=sigma, a=dict(a or {}), b=dict(b or {}), c=noises)
        self._rows.append(entry | dict(evaluated=evaluated, scale=scale, draw=draw))
        return len(self._rows) - 1

    def build(self) -> Tableau:
        """The finished table.

        Returns:
            A checked :class:`Tableau`.
        """
        size = len(self._rows)
        matrices = {name: np.zeros((size, size)) for name in "abc"}
        for row, entry in enumerate(self._rows):
            for name, matrix in matrices.items():
                for column, weight in entry[name].items():
                    matrix[row, column] += weight
        used = np.any(matrices["c"], axis=0)
        draws = [used[row] if entry["draw"] is None else bool(entry["draw"]) for row, entry in enumerate(self._rows)]
        levels = {
            name: None
            if any(entry[name] is None for entry in self._rows)
            else np.array([entry[name] for entry in self._rows], np.float64)
            for name in ("alpha", "sigma")
        }
        return Tableau(
            t=np.array([entry["t"] for entry in self._rows], np.float64),
            a=matrices["a"],
            b=matrices["b"],
            c=matrices["c"],
            alpha=levels["alpha"],
            sigma=levels["sigma"],
            form=self.form,
            evaluated=np.array([entry["evaluated"] for entry in self._rows], bool),
            scale=np.array([entry["scale"] for entry in self._rows], np.float64),
            start=self.start,
            draws=np.array(draws, bool),
        )
