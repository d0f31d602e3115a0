"""Checks of an HMM's settings and data, with errors in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def positive_integer(name: str, value: Any) -> int:
    """A positive whole number."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}.")
    return int(value)


def at_least_zero(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0.0 <= value < np.inf:
        raise ValueError(f"{name}: expected a number of at least 0, got {value!r}.")
    return float(value)


def concentration(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """A positive number, or as many as ``shape`` says; a float or nested tuples."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number or an array of shape {shape}, got {value!r}.") from None
    if isinstance(value, bool) or array.shape not in ((), shape):
        raise ValueError(f"{name}: expected one number or shape {shape}, got {value!r}.")
    if not np.isfinite(array).all() or (array <= 0).any():
        raise ValueError(f"{name}: expected positive numbers, got {value!r}.")
    if array.ndim == 2:
        return tuple(tuple(row) for row in array.tolist())
    return float(array) if array.ndim == 0 else tuple(array.tolist())


def exchangeable(initial: Any, transition: Any) -> bool:
    """Whether the prior is the same for every order of the states."""
    start, rows = np.ravel(initial), np.asarray(transition, dtype=float)
    if len(set(start.tolist())) > 1:
        return False
    if rows.ndim == 0:
        return True
    stay, leave = np.diagonal(rows), rows[~np.eye(len(rows), dtype=bool)]
    return len(set(stay.tolist())) == 1 and len(set(leave.tolist())) <= 1


def enough(rows: Array, num_states: int, columns: Sequence[str]) -> None:
    """At least as many steps as states, and a value in every column; ``rows`` (n, d), NaN where missing."""
    if len(rows) < num_states:
        raise ValueError(
            f"x: expected at least {num_states} steps for {num_states} states, got {len(rows)}; use fewer "
            "states."
        )
    empty = np.isnan(rows).all(0)
    if empty.any():
        name = columns[int(np.flatnonzero(empty)[0])]
        raise ValueError(f"x: all values of column {name} are missing; drop the column.")
