"""Raw data to rows or sufficient statistics, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.data import Data, check_names, is_dataframe, to_array
from ppl_lvm.models._statistics import SufficientStatistics

Array = np.ndarray
_STATISTICS = {"count", "mean", "scatter", "seen"}


@dataclass(frozen=True)
class FactorData(Data):
    """Data with their sufficient statistics, gathered when they were bound."""

    statistics: SufficientStatistics | None = None


def bind(raw: Any) -> FactorData:
    """Rows as an array, frame, memory map or mapping {"x": ...}; statistics; or an iterator of chunks.

    Raises
    ------
    TypeError, ValueError
        If these are no numbers, no matrix, infinite, or without any row.
    """
    if isinstance(raw, FactorData):
        return raw
    if isinstance(raw, Data):  # from a saved fit
        return _from_mapping(raw.values, raw.coords, raw.row_labels)
    if isinstance(raw, SufficientStatistics):
        return _from_statistics(raw)
    if isinstance(raw, Mapping):
        return _from_mapping(raw, {}, None)
    if isinstance(raw, Iterator):
        return _from_statistics(SufficientStatistics.from_chunks(raw))
    columns, labels = None, None
    if is_dataframe(raw):
        columns, labels = _frame_labels(raw)
    coords = {} if columns is None else {"feature": columns}
    return _from_rows(to_rows(raw), coords, labels)


def _from_mapping(raw: Mapping[str, Any], coords: Mapping[str, Any], labels: Any) -> FactorData:
    if set(raw) == _STATISTICS:
        return _from_statistics(SufficientStatistics.from_arrays(raw), coords)
    check_names(set(raw), {"x"}, {"x"}, "the data")
    if is_dataframe(raw["x"]):
        columns, labels = _frame_labels(raw["x"])
        coords = {"feature": columns}
    return _from_rows(to_rows(raw["x"]), coords, labels)


def _from_statistics(statistics: SufficientStatistics, coords: Mapping[str, Any] | None = None) -> FactorData:
    return FactorData(statistics.arrays(), coords or {}, None, statistics)


def _from_rows(x: Array, coords: Mapping[str, Any], labels: Any) -> FactorData:
    return FactorData({"x": x}, coords, labels, SufficientStatistics.from_rows(x))


def _frame_labels(frame: Any) -> tuple[list[str], Array]:
    text = [str(c) for c, t in frame.dtypes.items() if t.kind not in "fiub"]
    if text:
        raise TypeError(f"x: expected numeric columns, but {', '.join(text)} are not; drop or encode them.")
    columns = [str(c) for c in frame.columns]
    if len(set(columns)) < len(columns):
        raise ValueError("x: column names repeat; rename them.")
    return columns, np.asarray(frame.index)


def to_rows(raw: Any) -> Array:
    """Rows (n, d) at float64 with NaN where missing; a memory map stays one, at its own dtype."""
    if isinstance(raw, np.memmap):
        if raw.dtype.kind not in "fiub":
            raise TypeError(f"x: expected numbers, got dtype {raw.dtype}; convert it first.")
        x: Array = raw
    else:
        if isinstance(raw, np.ma.MaskedArray):
            masked: Any = raw.astype(float)
            raw = masked.filled(np.nan)
        if is_dataframe(raw) and all(kind.kind in "fiub" for kind in raw.dtypes):
            raw = raw.to_numpy(dtype=float, na_value=np.nan)  # pandas' own NA too
        x = to_array("x", raw, allow_nan=True, dtype=np.float64)
    if x.ndim != 2:
        hint = "; for one feature pass x[:, None]" if x.ndim == 1 else ""
        raise ValueError(f"x: expected shape (n, d), rows by features, got {x.shape}{hint}.")
    if not len(x):
        raise ValueError(f"x: expected at least one row, got shape {x.shape}.")
    return x


def check_fit(data: FactorData, latent_dim: int, *, tied: bool) -> None:
    """What a fit needs of the data, beyond numbers.

    Raises
    ------
    ValueError
        For fewer than two rows, latent_dim >= d, a column without any value, a constant column (one noise sd
        for all columns can bear it, unless all are constant).
    """
    statistics = statistics_of(data)
    n, d = statistics.num_rows, statistics.num_columns
    if n < 2:
        raise ValueError(f"x: expected at least 2 rows, got {n}.")
    if latent_dim >= d:
        raise ValueError(
            f"latent_dim: expected fewer factors than the {d} columns of x, got {latent_dim}; lower it to "
            f"{d - 1} at most."
        )
    names = list(data.coords["feature"]) if "feature" in data.coords else list(range(d))
    empty = np.flatnonzero(statistics.num_observed == 0)
    if empty.size:
        raise ValueError(f"x: all values of column {names[int(empty[0])]} are missing; drop the column.")
    spread, size = statistics.column_variance, np.abs(statistics.column_mean)
    flat = np.sqrt(spread) <= 1e-12 * np.maximum(size, np.finfo(float).tiny)
    if flat.all() or (flat.any() and not tied):
        name = names[int(np.flatnonzero(flat)[0])]
        raise ValueError(
            f"x: column {name} is constant (or has one value only), so there is no variance to explain; drop "
            "the column."
        )


def statistics_of(data: Data) -> SufficientStatistics:
    """The statistics of bound data."""
    found = bind(data).statistics
    if found is None:
        raise ValueError("x: these data were not bound by the model; call model.bind(x).")
    return found
