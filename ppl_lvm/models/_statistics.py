r"""Sufficient statistics of Gaussian rows, gathered in one pass, missing entries included.

Rows that miss the same entries share a *pattern*. Under a Gaussian the data matter only through every
pattern's number of rows, mean and scatter (sum of squares and products about that mean); moments of pieces
are merged by the updating formula of Chan, Golub and LeVeque (1983, *The American Statistician* 37), which
does not lose digits where means are large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ppl_lvm.models._threads import one_blas_thread

Array = np.ndarray
_CHUNK_BYTES = 2**20  # what stays in a processor's cache from the subtraction to the product


class Rows:
    """The rows behind the statistics, for closed forms that need them one by one; programs never look inside.

    All instances are equal and hash alike, so that a compiled program is not bound to one data set. ``x``
    (n, d) has NaN where missing; None where the data came as statistics.
    """

    __slots__ = ("x",)

    def __init__(self, x: Array | None) -> None:
        self.x = x

    def blank(self) -> Rows:
        """The same to a program, without the data."""
        return Rows(None)

    def __len__(self) -> int:
        return 0 if self.x is None else len(self.x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows)

    def __hash__(self) -> int:
        return 1983

    def __repr__(self) -> str:
        return "Rows(None)" if self.x is None else f"Rows({self.x.shape})"


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Counts, means and scatters by pattern of missing entries, in the units of the data.

    ``count`` (p,), ``mean`` (p, d), 0 where missing, ``seen`` (p, d), 1 where observed and 0 where missing,
    ``scatter`` (s, d, d) of the first s patterns; that of the others is zero. Complete data have p = s = 1.
    A pattern of few rows is stored row by row (count 1, no scatter), so that memory never exceeds
    that of the data by more than a small factor.
    """

    count: Array
    mean: Array
    scatter: Array
    seen: Array

    @classmethod
    def from_rows(cls, x: Any, *, chunk: int | None = None) -> SufficientStatistics:
        """From rows (n, d), NaN where missing, read ``chunk`` rows at a time (a memory map is never copied).

        ``chunk`` None: about a megabyte at a time.

        Raises
        ------
        ValueError
            If x is not a matrix with at least one row, or has infinite values.
        """
        if chunk is None:
            chunk = max(1, _CHUNK_BYTES // (8 * max(1, np.shape(x)[-1] if np.ndim(x) else 1)))
        if isinstance(chunk, bool) or not isinstance(chunk, (int, np.integer)) or chunk < 1:
            raise ValueError(f"chunk: expected a positive number of rows, got {chunk!r}.")
        if np.ndim(x) != 2:
            raise ValueError(f"x: expected shape (n, d), rows by features, got {np.shape(x)}.")
        with one_blas_thread(np.shape(x)[1]):
            return cls.from_chunks(x[i : i + chunk] for i in range(0, len(x), chunk))

    @classmethod
    def from_chunks(cls, chunks: Iterable[Any]) -> SufficientStatistics:
        """From an iterable of (m, d) arrays, each looked at once: data larger than memory.

        Raises
        ------
        TypeError, ValueError
            Naming the chunk, if it is not a numeric matrix, disagrees in its number of columns, or has
            infinite values; if there are no rows.
        """
        total = _Accumulator()
        for number, chunk in enumerate(chunks):
            total.add(_block(chunk, number, total.width))
        if total.width is None:
            raise ValueError("x: expected at least one row, got none.")
        return total.finish()

    @classmethod
    def from_arrays(cls, values: Mapping[str, Any]) -> SufficientStatistics:
        """The inverse of :meth:`arrays`."""
        return cls(**{name: np.asarray(values[name], float) for name in ("count", "mean", "scatter", "seen")})

    def arrays(self) -> dict[str, Array]:
        """The four arrays by name."""
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter, "seen": self.seen}

    @property
    def num_rows(self) -> int:
        return round(float(self.count.sum()))

    @property
    def num_columns(self) -> int:
        return self.mean.shape[1]

    @property
    def complete(self) -> bool:
        """Whether no entry is missing."""
        return bool((self.seen > 0).all())

    @property
    def num_observed(self) -> Array:
        """Observed entries of each column, (d,)."""
        return self.count @ self.seen

    @cached_property
    def column_mean(self) -> Array:
        """Mean of the observed entries of each column, (d,); 0 where there are none."""
        return (self.count @ self.mean) / np.maximum(self.num_observed, 1.0)

    @cached_property
    def column_variance(self) -> Array:
        """Variance (divisor: the number observed) of the observed entries of each column, (d,)."""
        away = (self.mean - self.column_mean) * self.seen
        total = np.einsum("pff->f", self.scatter) + self.count @ away**2
        return total / np.maximum(self.num_observed, 1.0)


def _block(chunk: Any, number: int, width: int | None) -> Array:
    where = f"x: chunk {number}"
    try:
        block = np.asarray(chunk)
        block = block if block.dtype == np.float64 else block.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: expected numbers in a rectangular array ({error}).") from None
    if block.ndim != 2 or (width is not None and block.shape[1] != width):
        wanted = "(m, d)" if width is None else f"(m, {width})"
        raise ValueError(f"{where}: expected shape {wanted}, rows by features, got {block.shape}.")
    return block


class _Accumulator:
    """Moments by pattern, patterns keyed by their bits."""

    def __init__(self) -> None:
        self.width: int | None = None
        self.cells: dict[bytes, _Cell] = {}

    def add(self, block: Array) -> None:
        if not len(block):
            return
        self.width = block.shape[1]
        with one_blas_thread(self.width):
            self._add(block)

    def _add(self, block: Array) -> None:
        mean = np.full(len(block), 1.0 / len(block)) @ block  # a product: four times as fast as block.mean(0)
        if np.isfinite(mean).all():
            self._cell(np.ones(block.shape[1], bool)).merge(block, mean)
            return
        if np.isinf(block).any():
            row, column = (int(i) for i in np.argwhere(np.isinf(block))[0])
            raise ValueError(
                f"x: row {row} of a chunk is infinite in column {column}; mark missing entries as NaN."
            )
        for seen, rows in _groups(block):
            self._cell(seen).add(np.where(seen, rows, 0.0))

    def _cell(self, seen: Array) -> _Cell:
        key = np.packbits(seen).tobytes()
        if key not in self.cells:
            few = 0 if seen.all() else max(1, len(seen) // 4)
            self.cells[key] = _Cell(seen, few)
        return self.cells[key]

    def finish(self) -> SufficientStatistics:
        cells = [self.cells[key] for key in sorted(self.cells, reverse=True)]  # the complete rows first
        dense, sparse = [c for c in cells if c.scatter is not None], [c for c in cells if c.scatter is None]
        singles = [row for c in sparse for row in c.rows()]
        d = int(self.width or 0)
        return SufficientStatistics(
            count=np.array([c.count for c in dense] + [1.0] * len(singles)),
            mean=np.array([c.mean for c in dense] + singles).reshape(-1, d),
            scatter=np.array([c.scatter for c in dense]).reshape(-1, d, d),
            seen=np.array([c.seen for c in dense] + [c.seen for c in sparse for _ in c.rows()], float),
        )


class _Cell:
    """One pattern: its rows while they are few, then their moments."""

    def __init__(self, seen: Array, few: int) -> None:
        self.seen, self.few = seen, few
        self.count = 0.0
        self.mean = np.zeros(len(seen))
        self.scatter: Array | None = None
        self._kept: list[Array] = []
        self._far = False  # a mean is so large that squares about 0 would lose digits

    def add(self, rows: Array) -> None:
        kept = sum(map(len, self._kept))
        if self.scatter is None and kept + len(rows) <= self.few:
            self._kept.append(rows)
            return
        if self._kept:
            rows, self._kept = np.concatenate([*self._kept, rows]), []
        self.merge(rows, rows.mean(0))

    def merge(self, rows: Array, mean: Array) -> None:
        """Chan, Golub and LeVeque (1983): two sets' moments to those of their union."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite where squares are too large for floats
            scatter = self._about(rows, mean)
        if self.scatter is None:
            self.count, self.mean, self.scatter = float(len(rows)), mean, scatter
            return
        total = self.count + len(rows)
        step = mean - self.mean
        self.scatter = self.scatter + scatter + np.outer(step, step) * (self.count * len(rows) / total)
        self.mean = self.mean + step * (len(rows) / total)
        self.count = total

    def _about(self, rows: Array, mean: Array) -> Array:
        """Squares and products about the mean; about 0 and corrected while that costs four bits at most."""
        if not self._far:
            products = rows.T @ rows
            squares, shift = products.diagonal(), len(rows) * mean * mean
            if (squares <= 16.0 * (squares - shift)).all() and np.isfinite(squares).all():
                return products - len(rows) * np.outer(mean, mean)
            self._far = True
        away = rows - mean
        return away.T @ away

    def rows(self) -> Array:
        return np.concatenate(self._kept)


def _groups(block: Array) -> Iterator[tuple[Array, Array]]:
    """Rows of a block by what they miss."""
    seen = ~np.isnan(block)
    _, first, inverse = np.unique(np.packbits(seen, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    edges = np.cumsum(np.bincount(inverse.ravel()))[:-1]
    for index, rows in zip(first, np.split(order, edges), strict=True):
        yield seen[index], block[rows]
