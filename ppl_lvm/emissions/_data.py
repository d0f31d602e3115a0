"""Rows of numbers in which entries may be missing, from arrays, frames and mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppl_lvm.data import Data, check_names, is_dataframe, to_floats
from ppl_lvm.emissions._priors import Array
from ppl_lvm.streams import where_bad


def rows_with_missing(name: str, raw: Any) -> tuple[Array, list[str] | None, Any]:
    """A float (n, d) array with NaN where an entry is missing, its column and its row labels (or None).

    NaN, pandas' NA and masked entries are missing; integers and booleans become floats.

    Raises
    ------
    TypeError
        If values are not numbers; the message names the columns of a frame.
    ValueError
        If there are infinite values or no rows, the array is not (n, d), or column names repeat.
    """
    columns = rows = None
    if is_dataframe(raw):
        text = [str(c) for c, t in raw.dtypes.items() if t.kind not in "fiub"]
        if text:
            raise TypeError(
                f"{name}: expected numeric columns, but {', '.join(text)} are not; drop them, or encode "
                "categories as integers 0, 1, ...."
            )
        columns, rows = [str(c) for c in raw.columns], np.asarray(raw.index)
        if len(set(columns)) < len(columns):
            raise ValueError(f"{name}: column names repeat; rename them.")
        raw = raw.to_numpy(dtype=float, na_value=np.nan)
    if isinstance(raw, np.ma.MaskedArray):
        raw = np.ma.filled(raw.astype(float), np.nan)
    array = to_floats(name, raw)
    if array.ndim != 2:
        hint = f"; for one feature pass {name}[:, None]" if array.ndim == 1 else ""
        raise ValueError(f"{name}: expected shape (n, d), rows by features, got {array.shape}{hint}.")
    bad = where_bad(array, np.isinf)
    if bad is not None:
        raise ValueError(
            f"{name}: infinite values (the first at index {bad[1]}); use NaN for missing entries."
        )
    return array, columns, rows


def bind_rows(
    raw: Any, *, argument: str = "x", min_rows: int = 1, why: str = "", fitting: bool = True
) -> Data:
    """The data of a model that takes one (n, d) matrix in which entries may be missing.

    Raises
    ------
    TypeError, ValueError
        As ``rows_with_missing``; for too few rows; and, where ``fitting``, for a row or a column without any
        observed entry, which would say nothing.
    """
    if isinstance(raw, Data):
        return raw
    if isinstance(raw, Mapping):
        check_names(set(raw), {argument}, {argument}, "the data")
        raw = raw[argument]
    array, columns, rows = rows_with_missing(argument, raw)
    if len(array) < min_rows:
        raise ValueError(f"{argument}: expected at least {min_rows} rows{why}, got {len(array)}.")
    if fitting and where_bad(array, np.isnan) is not None:
        missing = np.isnan(array)
        for axis, what in ((1, "row"), (0, "column")):
            empty = np.flatnonzero(missing.all(axis))
            if empty.size:
                label = columns[empty[0]] if columns is not None and axis == 0 else int(empty[0])
                raise ValueError(
                    f"{argument}: all values of {what} {label} are missing ({empty.size} such {what}s); drop "
                    "them."
                )
    return Data({argument: array}, {} if columns is None else {"feature": columns}, rows)


def column_names(data: Data, num_columns: int) -> list[str]:
    """The data's column names, or their numbers."""
    named: Sequence[Any] = data.coords.get("feature", range(num_columns))
    return [str(name) for name in named]


def fill_missing(x: Array, fill: float) -> tuple[Array, Array | None]:
    """x with NaN replaced, and 1 where it was observed, 0 where not (None where all was)."""
    if where_bad(x, np.isnan) is None:
        return x, None
    missing = np.isnan(x)
    return np.where(missing, fill, x), (~missing).astype(float)
