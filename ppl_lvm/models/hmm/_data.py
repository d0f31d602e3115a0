"""Sequences in every form a user may have them, to one padded array (S, T, d) and lengths (S,)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.data import Data, check_names, from_tensor, is_dataframe, to_floats
from ppl_lvm.streams import where_bad

Array = np.ndarray


class Sequences(NamedTuple):
    """``x`` (S, T, d), NaN where missing and beyond the end; ``lengths`` (S,) at least 1."""

    x: Array
    lengths: Array
    columns: list[str] | None
    times: Any | None


def read_sequences(raw: Any) -> Sequences:
    """Raw data as padded sequences; the forms are listed in :class:`ppl_lvm.models.hmm.HMM`.

    Raises
    ------
    TypeError, ValueError
        If the values are not numbers, the shape or the lengths do not fit, or a sequence is empty.
    """
    lengths = None
    if isinstance(raw, Mapping):
        check_names(set(raw), {"x"}, {"x", "lengths"}, "an HMM")
        raw, lengths = raw["x"], raw.get("lengths")
    if _is_list_of_sequences(raw):
        if lengths is not None:
            raise ValueError(
                "lengths: x is a list of sequences, which has its own lengths; leave lengths out."
            )
        return _from_list(raw)
    columns, times = _labels(raw)
    array = _numbers("x", raw)
    if array.ndim not in (1, 2, 3):
        raise ValueError(
            f"x: expected one sequence (T, d) or (T,), or sequences (S, T, d), got shape {array.shape}."
        )
    array = array[:, None] if array.ndim == 1 else array
    if lengths is None:
        x = array[None] if array.ndim == 2 else array
        found = np.full(len(x), x.shape[1])
        return Sequences(x, found, columns, times if len(x) == 1 else None)
    found = _check_lengths(lengths)
    if array.ndim == 2:
        if found.sum() != len(array):
            raise ValueError(
                f"lengths: they add up to {int(found.sum())}, but x has {len(array)} rows; for sequences put "
                "one after the other they must agree."
            )
        return _pad(np.split(array, np.cumsum(found)[:-1]), columns)
    if len(found) != len(array) or found.max() > array.shape[1]:
        raise ValueError(
            f"lengths: expected {len(array)} numbers of at most {array.shape[1]} for x of shape "
            f"{array.shape}, got {len(found)} numbers, the largest {int(found.max())}."
        )
    return _pad([row[:size] for row, size in zip(array, found, strict=True)], columns)


def filled(data: Data, fill: float) -> dict[str, Any]:
    """The programs' arguments x, lengths and, where something is missing, seen (S, T, d)."""
    x, lengths = data.values["x"], data.values["lengths"]
    seen = ~np.isnan(x)
    inside = np.arange(x.shape[1]) < lengths[:, None]
    arguments = {"x": np.where(seen, x, fill), "lengths": lengths}
    if not seen[inside].all():
        arguments["seen"] = seen.astype(float)
    return arguments


def _is_list_of_sequences(raw: Any) -> bool:
    """A list of arrays or frames, or of lists of different lengths; a rectangular one is one array."""
    if not isinstance(raw, (list, tuple)) or not raw:
        return False
    if any(isinstance(v, np.ndarray) or hasattr(v, "detach") or hasattr(v, "to_numpy") for v in raw):
        return any(np.ndim(v) for v in raw)
    if not all(isinstance(v, (list, tuple)) for v in raw):
        return False
    if len(raw) > 1 and len({len(v) for v in raw}) == 1 and np.ndim(raw[0][:1]) == 1 and len(raw[0]) > 1:
        raise ValueError(
            "x: lists of equal length may be the rows of one sequence, or several sequences; pass "
            "np.array(x) for one sequence, [np.array(s) for s in x] for several."
        )
    return len({len(v) for v in raw}) > 1


def _from_list(raw: Any) -> Sequences:
    parts: list[Array] = []
    names = None
    for i, value in enumerate(raw):
        columns, _ = _labels(value)
        if np.size(value) == 0:
            raise ValueError(f"x: sequence {i} has length 0; leave it out.")
        array = _numbers(f"x[{i}]", value)
        if array.ndim not in (1, 2):
            raise ValueError(f"x[{i}]: expected a sequence (T, d) or (T,), got shape {array.shape}.")
        array = array[:, None] if array.ndim == 1 else array
        if parts and array.shape[1] != parts[0].shape[1]:
            raise ValueError(
                f"x[{i}]: expected {parts[0].shape[1]} columns as in the first sequence, got "
                f"{array.shape[1]}."
            )
        if names is not None and columns is not None and columns != names:
            raise ValueError(f"x[{i}]: its columns {columns} are not those of the first sequence, {names}.")
        names = names or columns
        parts.append(array)
    return _pad(parts, names)


def _labels(raw: Any) -> tuple[list[str] | None, Any | None]:
    """Column names and row labels of a frame; None for anything else."""
    if not is_dataframe(raw):
        return None, None
    columns = [str(c) for c in raw.columns]
    text = [str(c) for c, kind in raw.dtypes.items() if kind.kind not in "fiub"]
    if text:
        raise TypeError(f"x: expected numeric columns, but {', '.join(text)} are not; drop or encode them.")
    if len(set(columns)) < len(columns):
        raise ValueError("x: column names repeat; rename them.")
    return columns, np.asarray(raw.index)


def _numbers(name: str, raw: Any) -> Array:
    raw = from_tensor(raw)
    if hasattr(raw, "to_numpy"):  # a frame or a series, pandas' own NA too
        raw = raw.to_numpy(dtype=float, na_value=np.nan)
    array = to_floats(name, raw)
    bad = where_bad(array, np.isinf)
    if bad is not None:
        raise ValueError(f"{name}: infinite at index {bad[1]}; put NaN where a value is missing.")
    return array


def _check_lengths(lengths: Any) -> Array:
    array = np.asarray(lengths)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(f"lengths: expected a sequence of whole numbers, got {lengths!r}.")
    if array.min() < 1:
        raise ValueError(
            f"lengths: sequence {int(array.argmin())} has length {int(array.min())}; expected at least 1, "
            "leave empty sequences out."
        )
    return array.astype(np.int64)


def _pad(parts: list[Array], columns: list[str] | None) -> Sequences:
    lengths = np.array([len(p) for p in parts])
    x = np.full((len(parts), int(lengths.max()), parts[0].shape[1]), np.nan)
    for row, part in zip(x, parts, strict=True):
        row[: len(part)] = part
    return Sequences(x, lengths, columns, None)
