"""Checks that emissions share, each with an error in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_lvm.emissions._priors import Array
from ppl_lvm.streams import column_moments


def check_hyper(owner: Any, name: str, *, positive: bool, optional: bool = True) -> None:
    """A hyperparameter: a number, numbers by column or, where ``optional``, None; stored as plain floats."""
    value = getattr(owner, name)
    if value is None and optional:
        return
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number or a sequence of numbers, got {value!r}.") from None
    if (
        isinstance(value, bool)
        or array.ndim > 1
        or not array.size
        or not np.isfinite(array).all()
        or (positive and (array <= 0).any())
    ):
        kind = "positive numbers" if positive else "finite numbers"
        raise ValueError(f"{name}: expected {kind}, got {value!r}.")
    plain = float(array) if array.ndim == 0 else tuple(float(v) for v in array)
    object.__setattr__(owner, name, plain)


def column_values(name: str, value: Any, num_columns: int) -> Array:
    """A hyperparameter as one number per column, (d,)."""
    if value is None:
        raise ValueError(f"{name}: has no value yet; call model.resolve(data) first.")
    if isinstance(value, tuple) and len(value) != num_columns:
        raise ValueError(f"{name}: expected one number or {num_columns} (one per column), got {len(value)}.")
    return np.broadcast_to(np.asarray(value, dtype=float), (num_columns,)).copy()


def column_spread(x: Array, fields: str) -> Array:
    """Standard deviations (d,) of the observed entries, which the rule of a prior is scaled to."""
    _, spread, largest = column_moments(x)
    flat = np.flatnonzero(spread <= 1e-12 * largest)
    if flat.size:
        raise ValueError(
            f"x: column {int(flat[0])} is constant, so the prior cannot be scaled to it; drop the column, or "
            f"give {fields}."
        )
    return spread


def check_codes(x: Array, columns: Sequence[str], num: int | None, who: str, advice: str) -> None:
    """Observed entries are whole numbers 0..num-1 (None: at least 0)."""
    wanted = "0, 1, 2, ..." if num is None else "0 and 1" if num == 2 else f"0..{num - 1}"
    for f, name in enumerate(columns):
        column = x[:, f][~np.isnan(x[:, f])]
        wrong = (column < 0) | (column != np.round(column))
        if num is not None:
            wrong |= column >= num
        if wrong.any():
            raise ValueError(
                f"x: column {name} has the value {column[wrong][0]:g}, and {who} takes the codes {wanted}; "
                f"recode the column, or {advice}."
            )


def check_counts(x: Array, columns: Sequence[str], who: str) -> None:
    """Observed entries are whole numbers of at least 0."""
    for f, name in enumerate(columns):
        column = x[:, f][~np.isnan(x[:, f])]
        if (column < 0).any():
            raise ValueError(
                f"x: column {name} has negative values (the least is {column.min():g}), and {who} takes "
                "counts 0, 1, 2, ...; use emissions.Gaussian for real numbers."
            )
        if (column != np.round(column)).any():
            raise ValueError(
                f"x: column {name} has values that are not whole numbers, and {who} takes counts "
                "0, 1, 2, ...; round them, or use emissions.Gaussian."
            )
