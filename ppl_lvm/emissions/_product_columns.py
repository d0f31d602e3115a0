"""Groups of columns of a product: their keys, checked, and their places among the data's columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.emissions._base import Emission, as_emission

Column = str | int
Key = tuple[Column, ...]


class Part(NamedTuple):
    """One emission, its columns, the label of its group, and the sites' own and public names."""

    emission: Emission
    columns: list[int]
    label: str
    names: dict[str, str]


def as_groups(parts: Any) -> tuple[tuple[Key, Emission], ...]:
    """The groups of a product as pairs; raises TypeError or ValueError where they cannot be."""
    pairs = parts.items() if isinstance(parts, Mapping) else parts
    try:
        made = tuple((_as_key(key), as_emission(part)) for key, part in pairs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"Product: {error}") from None
    if not made:
        raise ValueError("Product: expected at least one group of columns, got none.")
    given = [column for key, _ in made for column in key]
    if twice := [c for c, count in Counter(given).items() if count > 1]:
        raise ValueError(f"Product: column {twice[0]!r} is in two groups; name every column once.")
    labels = Counter(str(key[0]) for key, _ in made)
    if same := [label for label, count in labels.items() if count > 1]:
        raise ValueError(f"Product: two groups begin with a column {same[0]!r}, a name and an index.")
    return made


def find_columns(keys: Sequence[Key], columns: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The places of each group's columns; every one of ``columns`` must be in exactly one group."""
    found = tuple(tuple(_place(c, columns) for c in key) for key in keys)
    flat = [i for group in found for i in group]
    if twice := [i for i, count in Counter(flat).items() if count > 1]:
        raise ValueError(f"Product: column {columns[twice[0]]} is in two groups; name every column once.")
    if left := [name for i, name in enumerate(columns) if i not in flat]:
        raise ValueError(
            f"Product: columns {left} have no emission; add them to a group, or drop them from the data."
        )
    return found


def _as_key(key: Any) -> Key:
    """A key as a tuple of column names and indices."""
    key = tuple(key) if isinstance(key, (tuple, list)) else (key,)
    for column in key:
        whole = isinstance(column, (int, np.integer)) and not isinstance(column, bool) and column >= 0
        if not (whole or isinstance(column, str)):
            raise TypeError(f"expected column names or indices (0, 1, ...) as keys, got {column!r}.")
    if not key:
        raise ValueError("expected at least one column in every group, got an empty tuple.")
    return tuple(c if isinstance(c, str) else int(c) for c in key)


def _place(column: Column, columns: Sequence[str]) -> int:
    if isinstance(column, int):
        if column >= len(columns):
            raise ValueError(f"Product: column {column} is unknown; the data have {len(columns)} columns.")
        return column
    if column not in columns:
        raise ValueError(f"Product: column {column!r} is unknown; the columns are {list(columns)}.")
    return list(columns).index(column)
