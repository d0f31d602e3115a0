"""Checks of hyperparameters, each with an error in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_lvm.models.factor_analysis._structure import Mask

Array = np.ndarray


def check_count(owner: Any, name: str) -> None:
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}.")
    object.__setattr__(owner, name, int(value))


def check_number(owner: Any, name: str, *, positive: bool) -> None:
    """None, a number or numbers by column; stored as a float or a tuple of floats."""
    value = getattr(owner, name)
    if value is None:
        return
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number or a sequence of numbers, got {value!r}.") from None
    bad = isinstance(value, bool) or array.ndim > 1 or not np.isfinite(array).all()
    if bad or (positive and (array <= 0).any()):
        kind = "positive numbers" if positive else "finite numbers"
        raise ValueError(f"{name}: expected {kind}, got {value!r}.")
    object.__setattr__(owner, name, float(array) if array.ndim == 0 else tuple(array.tolist()))


def check_scalar(owner: Any, *names: str) -> None:
    """These are one number, not one per column."""
    for name in names:
        if isinstance(getattr(owner, name), tuple):
            raise ValueError(f"{name}: expected one number, got {len(getattr(owner, name))}.")


def check_anchors(owner: Any, allowed: bool) -> None:
    """q different columns, or None."""
    value = owner.anchors
    if value is None:
        return
    if not allowed:
        raise ValueError("anchors: loadings with ard or a mask have none; leave it out.")
    wanted = f"expected {owner.latent_dim} different columns (integers from 0), got {value!r}"
    try:
        columns = tuple(int(v) for v in value)
    except (TypeError, ValueError):
        raise TypeError(f"anchors: {wanted}.") from None
    if len(columns) != owner.latent_dim or len(set(columns)) < len(columns) or min(columns) < 0:
        raise ValueError(f"anchors: {wanted}.")
    object.__setattr__(owner, "anchors", columns)


def check_mask(mask: Any, latent_dim: int) -> Mask:
    """(d, q) booleans, True where a column may load on a factor, as a tuple of tuples.

    Raises
    ------
    TypeError, ValueError
        If these are not booleans, of another number of factors, or leave a factor without any column.
    """
    try:
        array = np.asarray(mask)
    except ValueError:
        array = np.asarray(0)
    if array.ndim != 2 or array.shape[1] != latent_dim:
        raise ValueError(
            f"mask: expected shape (d, {latent_dim}), columns of x by factors, got {array.shape}."
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise TypeError(f"mask: expected True or False, got dtype {array.dtype}.")
    array = array.astype(bool)
    empty = np.flatnonzero(~array.any(0))
    if empty.size:
        raise ValueError(f"mask: no column may load on factor {int(empty[0])}; lower latent_dim.")
    return tuple(tuple(bool(v) for v in row) for row in array)


def per_column(name: str, value: Any, num_columns: int | None) -> Array:
    """A hyperparameter as one number per column, (d,)."""
    if value is None:
        raise ValueError(f"{name}: has no value yet; call model.resolve(data) first.")
    if num_columns is None:
        return np.atleast_1d(np.asarray(value, dtype=float))
    if isinstance(value, tuple) and len(value) != num_columns:
        raise ValueError(f"{name}: expected one number or {num_columns} (one per column), got {len(value)}.")
    return np.broadcast_to(np.asarray(value, dtype=float), (num_columns,)).copy()
