"""Raw data to named, checked NumPy arrays."""

from __future__ import annotations

import contextlib
import gzip
import inspect
import math
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.streams import not_finite, where_bad

_MAPPED: ContextVar[bool] = ContextVar("mapped rows stay on disk", default=False)


@contextlib.contextmanager
def mapped_rows_kept(kept: bool) -> Iterator[None]:
    """Within, memory-mapped arrays are checked and passed on as they are, and not read into memory."""
    before = _MAPPED.set(kept)
    try:
        yield
    finally:
        _MAPPED.reset(before)


@dataclass(frozen=True)
class Data:
    """Checked data: values by argument name, and labels for dimensions.

    ``values`` holds NumPy arrays and static Python scalars or strings. ``coords`` holds labels by
    dimension name; ``row_labels`` those of the data plate, whose name only tracing can tell.
    """

    values: Mapping[str, Any]
    coords: Mapping[str, Any] = field(default_factory=dict)
    row_labels: Any | None = None


def is_dataframe(raw: Any) -> bool:
    """Whether raw is a pandas DataFrame, without importing pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(raw, pandas.DataFrame)


def to_array(
    name: str, value: Any, *, allow_nan: bool = False, dtype: type[np.floating] | None = None
) -> np.ndarray:
    """A numeric array in C order, checked: no objects, no NaN or infinity, at least one row.

    With ``allow_nan`` NaN stays, and masked entries become NaN. A ``dtype`` is that of the result. It is a
    copy, one whatever the dtype and layout were: later changes of the user's array are not ours.

    Raises
    ------
    TypeError
        If the values are not numbers.
    ValueError
        If there are NaN, infinite values or no rows.
    """
    if isinstance(value, np.memmap) and _MAPPED.get() and value.dtype.kind in "fiub" and value.size:
        return _mapped(name, value, allow_nan)
    if isinstance(value, np.ma.MaskedArray) and allow_nan:
        value = np.ma.filled(value.astype(float), np.nan)
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        masked = int(np.ma.getmaskarray(value).sum())
        raise ValueError(
            f"{name}: {masked} of {value.size} values are masked; drop or impute those rows first."
        )
    try:
        array = np.asarray(from_tensor(value))
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name}: expected numbers in a rectangular array ({error}).") from None
    if array.dtype == object:
        try:
            array = array.astype(float)
        except (ValueError, TypeError):
            raise TypeError(
                f"{name}: expected numbers, got objects such as {array.flat[0]!r}; "
                "encode categories as integers."
            ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got dtype {array.dtype}; convert it first.")
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one row, got shape {array.shape}.")
    bad = where_bad(array, not_finite) if array.dtype.kind == "f" and not allow_nan else None
    if bad is not None:
        raise ValueError(
            f"{name}: {bad[0]} of {array.size} values are NaN or infinite (the first at index "
            f"{bad[1][: array.ndim]}); drop or impute those rows first."
        )
    return np.array(array, dtype=array.dtype if dtype is None else dtype, order="C")


def to_floats(name: str, value: Any) -> np.ndarray:
    """:func:`to_array` at float64, NaN where missing; a mapped file is read."""
    array = to_array(name, value, allow_nan=True, dtype=np.float64)
    return np.array(array, dtype=np.float64, order="C") if isinstance(array, np.memmap) else array


def from_tensor(value: Any) -> Any:
    """A torch tensor's numbers as an array, of any layout and precision; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    if str(tensor.layout) != "torch.strided":
        tensor = tensor.to_dense()
    narrow = tensor.is_floating_point() and tensor.element_size() < 4  # NumPy has no bfloat16
    return (tensor.float() if narrow else tensor).numpy()


def _mapped(name: str, value: np.memmap, allow_nan: bool) -> np.ndarray:
    """A mapped array as it is, looked through in blocks."""
    bad = where_bad(value, not_finite) if value.dtype.kind == "f" and not allow_nan else None
    if bad is not None:
        raise ValueError(f"{name}: row {bad[1][0]} has NaN or infinite values; drop or impute it.")
    return value


def to_matrix(name: str, raw: Any) -> tuple[np.ndarray, Any, Any]:
    """A float (n, d) array, its column labels and its row labels (None where there are none)."""
    columns = rows = None
    if is_dataframe(raw):
        text = [str(c) for c, t in raw.dtypes.items() if t.kind not in "fiub"]
        if text:
            raise TypeError(
                f"{name}: expected numeric columns, but {', '.join(text)} are not; drop or encode them."
            )
        columns, rows = [str(c) for c in raw.columns], np.asarray(raw.index)
        if len(set(columns)) < len(columns):
            raise ValueError(f"{name}: column names repeat; rename them.")
    # one memory layout, so that an array and a frame of the same numbers give the same sums
    array = to_array(name, raw, dtype=np.float64)
    if array.ndim != 2:
        hint = f"; for one feature pass {name}[:, None]" if array.ndim == 1 else ""
        raise ValueError(f"{name}: expected shape (n, d), rows by features, got {array.shape}{hint}.")
    return array, columns, rows


def bind_matrix(raw: Any, *, argument: str = "x", min_rows: int = 1, why: str = "") -> Data:
    """The data of a zoo model that takes one (n, d) matrix, from an array, a frame or a mapping."""
    if isinstance(raw, Data):
        return raw
    if isinstance(raw, Mapping):
        check_names(set(raw), {argument}, {argument}, "the data")
        raw = raw[argument]
    array, columns, rows = to_matrix(argument, raw)
    if len(array) < min_rows:
        raise ValueError(f"{argument}: expected at least {min_rows} rows{why}, got {len(array)}.")
    return Data({argument: array}, {} if columns is None else {"feature": columns}, rows)


def bind_arguments(raw: Any, function: Callable[..., Any], *, name: str) -> Data:
    """The data of a plain function: a mapping by argument name, a frame, or the sole argument."""
    if isinstance(raw, Data):
        return raw
    required, optional = argument_names(function)
    rows = None
    if is_dataframe(raw):
        rows = np.asarray(raw.index)
        raw = {str(c): raw[c].to_numpy() for c in raw.columns if str(c) in required | optional}
    elif raw is None:
        raw = {}
    elif not isinstance(raw, Mapping):
        if len(required) != 1:
            raise TypeError(
                f"data: a bare array goes to the sole required argument, but {name} requires "
                f"{sorted(required) or 'none'}; pass a mapping of named arrays."
            )
        raw = {next(iter(required)): raw}
    check_names(set(raw), required, required | optional, name)
    return Data({k: _argument(k, v) for k, v in raw.items()}, row_labels=rows)


def argument_names(function: Callable[..., Any]) -> tuple[set[str], set[str]]:
    """Names of the required and of the optional arguments of a program."""
    try:
        # a module's __call__ takes anything; what it hands its arguments to says what they are
        target = getattr(function, "forward", function)
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(f"model: the signature of {function!r} cannot be read.") from None
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name for p in named if p.default is p.empty}, {
        p.name for p in named if p.default is not p.empty
    }


def check_names(given: set[str], required: set[str], known: set[str], owner: str) -> None:
    """Raise in words when an argument is missing or unknown."""
    missing, unknown = sorted(required - given), sorted(given - known)
    if missing or unknown:
        parts = ([f"missing {missing}"] if missing else []) + ([f"unknown {unknown}"] if unknown else [])
        raise ValueError(f"data: {' and '.join(parts)}; {owner} takes {sorted(known)}.")


def _argument(name: str, value: Any) -> Any:
    """Numbers in arrays are data; Python scalars, strings and None are static settings."""
    if value is None or isinstance(value, (bool, int, float, str)):
        if isinstance(value, float) and not np.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}.")
        return value
    return to_array(name, value)


def cast(value: Any, dtype: str) -> Any:
    """Floats of a (nested) argument at the fit's dtype; integers, booleans and statics as they are."""
    if isinstance(value, Mapping):
        return {k: cast(v, dtype) for k, v in value.items()}
    if isinstance(value, np.memmap):  # at the dtype when its rows are read
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f":
        return np.asarray(value, dtype=dtype)
    return value


def read_only(value: Any) -> Any:
    """Arrays of a (nested) argument made read-only: programs are given copies, never the data."""
    if isinstance(value, dict):
        return {k: read_only(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    return value


# ---- MNIST -----------------------------------------------------------------------------------------

_IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


class Images(NamedTuple):
    """Grey levels x (n, height, width) in [0, 1], float32, and labels y (n,), for training and for test."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load_mnist(path: str | Path) -> Images:
    """MNIST (or a set in its format) from files that you have: nothing is downloaded.

    ``path`` is an npz file with arrays x_train, y_train, x_test, y_test, or a folder with the four IDX files
    (``train-images-idx3-ubyte`` and so on, plain or .gz).

    Raises
    ------
    ValueError
        If there is no such file, or it is damaged.
    """
    where = Path(path)
    if where.is_file():
        arrays = _read_npz(where)
    elif where.is_dir():
        arrays = {key: _read_idx(where, name) for key, name in _IDX.items()}
    else:
        raise ValueError(
            f"path: no file or folder {where}; give mnist.npz (arrays {', '.join(_IDX)}), or a folder with "
            "the four IDX files of MNIST, which its distributors and many libraries' data tools provide."
        )
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.ndim != 3 or y.shape != x.shape[:1]:
            raise ValueError(
                f"{where}: x_{part} has shape {x.shape} and y_{part} {y.shape}; expected (n, h, w), (n,)."
            )
        if x.dtype == np.uint8:
            arrays[f"x_{part}"] = (x / np.float32(255)).astype(np.float32)
    return Images(**arrays)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            held = sorted(file.files)
            found = {key: file[key] for key in _IDX if key in held}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged or not an npz file ({type(error).__name__}).") from None
    missing = sorted(set(_IDX) - set(found))
    if missing:
        raise ValueError(f"{path}: has no arrays {missing}; it holds {held}.")
    return found


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """An array of bytes: a magic number with the number of dimensions, the sizes, the values."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.is_file() and not packed.is_file():
        raise ValueError(
            f"path: {folder} has no file {name} (or {name}.gz); the four IDX files are {list(_IDX.values())}."
        )
    source = plain if plain.is_file() else packed
    try:
        content = plain.read_bytes() if plain.is_file() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{source}: damaged ({type(error).__name__}).") from None
    rank = content[3] if len(content) > 3 else 0
    header = 4 + 4 * rank
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    if content[:3] != b"\x00\x00\x08" or not rank or len(content) != header + math.prod(shape):
        raise ValueError(f"{source}: damaged or not an IDX file of bytes; get it again.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
