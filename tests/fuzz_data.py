"""What the fuzz of runs does to data: forms that mean the same numbers, and what is odd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from fuzz_models import Source

Change = Callable[[np.ndarray], Any]


def _set(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x.reshape(-1)[x.size // 2] = value
    return x


def _constant(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[..., -1] = 1.0
    return x


def _strided(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 2, axis=0)[::-2][::-1]


def _read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def _pandas(x: np.ndarray) -> Any:
    return pd.Series(x) if x.ndim == 1 else pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])])


# The same numbers in another form: models take all of these.
FORMS: dict[str, Change] = {
    "as it is": lambda x: x,
    "Fortran order": np.asfortranarray,
    "read-only": _read_only,
    "strided": _strided,
    "list": lambda x: x.tolist(),
    "tensor": torch.tensor,
    "tensor with gradients": lambda x: torch.tensor(x, requires_grad=True),
    "pandas": _pandas,
    "float32": lambda x: x.astype(np.float32),
    "big-endian": lambda x: x.astype(">f8"),
    "objects": lambda x: x.astype(object),
    "long double": lambda x: x.astype(np.longdouble),
    "half precision": lambda x: x.astype(np.float16),
    "masked, none missing": lambda x: np.ma.array(x, mask=False),
    "subclass": lambda x: np.asmatrix(x) if x.ndim == 2 else x.view(np.recarray),
}
# Of counts and bits only.
WHOLE: dict[str, Change] = {
    "int64": lambda x: x.astype(np.int64),
    "uint8": lambda x: x.astype(np.uint8),
    "pandas Int64": lambda x: _pandas(x).astype("Int64"),
}
BITS: dict[str, Change] = {"bool": lambda x: x.astype(bool), "tensor of bool": lambda x: torch.tensor(x > 0)}
# Right or wrong by model: a result or our words.
ODD: dict[str, Change] = {
    "NaN": lambda x: _set(x, np.nan),
    "infinite": lambda x: _set(x, np.inf),
    "masked": lambda x: np.ma.array(x, mask=np.arange(x.size).reshape(x.shape) == 1),
    "all NaN": lambda x: np.full_like(x, np.nan),
    "None inside": lambda x: _set(x, np.nan).astype(object),
    "empty": lambda x: x[:0],
    "no columns": lambda x: x[..., :0],
    "one row": lambda x: x[:1],
    "two rows": lambda x: x[:2],
    "fewer rows than components": lambda x: x[:1],
    "one column": lambda x: x[..., :1],
    "a number": lambda x: float(x.reshape(-1)[0]),
    "zero-dimensional": lambda x: np.array(float(x.reshape(-1)[0])),
    "one dimension more": lambda x: x[None],
    "flat": lambda x: x.reshape(-1),
    "constant column": _constant,
    "all the same": np.ones_like,
    "all zero": np.zeros_like,
    "duplicates": lambda x: np.repeat(x[:3], 4, axis=0)[: len(x)],
    "negative": lambda x: -np.abs(x) - 1.0,
    "a fraction": lambda x: _set(x, 0.5),
    "1e-8": lambda x: 1e-8 * x,
    "1e8": lambda x: 1e8 * x,
    "1e-300": lambda x: 1e-300 * x,
    "1e300": lambda x: 1e300 * x,
    "far away": lambda x: x + 1e8,
    "an outlier": lambda x: _set(x, 1e6),
    "integers": lambda x: np.round(10 * x).astype(int),
    "bool": lambda x: x > 0,
    "text": lambda x: np.full(x.shape, "a"),
    "numbers as text": lambda x: x.astype(str),
    "complex": lambda x: x + 1j,
    "dates": lambda x: np.full(x.shape, np.datetime64("2020-01-01")),
    "ragged": lambda x: [[1.0, 2.0], [3.0]],
    "nothing": lambda x: None,
    "a dictionary": lambda x: {"z": x},
    "a set": lambda x: {1.0, 2.0},
    "a string": lambda x: "data",
    "frame with text": lambda x: pd.DataFrame({"a": np.ones(len(x)), "b": ["x"] * len(x)}),
    "complex tensor": lambda x: torch.tensor(x).to(torch.complex128),
    "bfloat16 tensor": lambda x: torch.tensor(x).to(torch.bfloat16),
    "sparse tensor": lambda x: torch.tensor(x).to_sparse(),
    "generator": lambda x: (row for row in x),
}


def forms_of(source: Source) -> dict[str, Change]:
    """What means the same numbers to this model; lists of an HMM are sequences."""
    whole, bits = source.kind in ("count", "bit"), source.kind == "bit"
    found = FORMS | (WHOLE if whole else {}) | (BITS if bits else {})
    return {k: v for k, v in found.items() if k != "list" or not source.sequences}
