"""Records of arrays and plain values as arrays by name, for checkpoints, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_KINDS: dict[str, type] = {"list": list, "tuple": tuple, "float": float, "int": int, "bool": bool, "str": str}


def plain(record: Any) -> dict[str, Any]:
    """A dataclass or a named tuple as a dictionary, records within it too."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return dataclasses.asdict(record)
    return dict(record._asdict())


def packed(values: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays by ``name`` and ``name:kind``, the second for numbers, texts, and lists or tuples of numbers.

    Entries that are None are left out.
    """
    found: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= packed(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            found[f"{prefix}{name}:str"] = np.frombuffer(value.encode(), np.uint8)
        elif value is not None:
            kind = next((k for k, t in _KINDS.items() if type(value) is t), "")
            found[f"{prefix}{name}:{kind}".removesuffix(":")] = np.asarray(value)
    return found


def unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What :func:`packed` was given, but for entries that were None."""
    found: dict[str, Any] = {}
    for key, array in arrays.items():
        path, _, kind = key.partition(":")
        *outer, name = path.split(".")
        place = found
        for part in outer:
            place = place.setdefault(part, {})
        if kind == "str":
            place[name] = array.tobytes().decode()
        else:
            place[name] = _KINDS[kind](array.tolist()) if kind else array
    return found
