"""Data that are never in memory as a whole: memory-mapped arrays, and batches that come one after another."""

from __future__ import annotations

import contextlib
import inspect
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Stream:
    """Batches of data, in an order of their own, for ``SVI(batch_size=...)``.

    Parameters
    ----------
    batches
        What gives the batches each time it is iterated (a list, a torch ``DataLoader``, an object with
        ``__iter__``; not a generator, which can be iterated once). A batch is what ``lvm.fit`` takes as data:
        an array, or a mapping of named arrays; a tuple or list has the program's arguments in their order.
    num_data
        Rows of all batches together: what one pass amounts to. The bound is of that many data.

    All batches have ``batch_size`` rows; a last one that has fewer is left out of training, and part of the
    bound at the end. Whether their order is random is the stream's own affair: sorted data give biased steps.
    Priors that follow the data by a rule follow the first batch.
    """

    batches: Iterable[Any]
    num_data: int

    def __post_init__(self) -> None:
        if isinstance(self.num_data, bool) or not isinstance(self.num_data, (int, np.integer)):
            raise TypeError(f"num_data: expected an integer, got {self.num_data!r}.")
        if self.num_data < 1:
            raise ValueError(f"num_data: expected a positive integer, got {self.num_data}.")
        if not isinstance(self.batches, Iterable):
            raise TypeError(f"batches: expected an iterable, got {type(self.batches).__name__}.")
        if isinstance(self.batches, Iterator):
            raise TypeError(
                f"batches: a {type(self.batches).__name__} can be iterated once, and training takes several "
                "passes; give a list, a DataLoader, or an object whose __iter__ starts again."
            )

    def first(self) -> Any:
        """The first batch of a pass."""
        for batch in self.batches:
            return batch
        raise ValueError("batches: the stream is empty.")


def as_stream(data: Any) -> Stream | None:
    """A stream as it is, or that of a torch ``DataLoader``; None for anything else."""
    if isinstance(data, Stream):
        return data
    if not type(data).__module__.startswith("torch.utils.data"):
        return None
    try:
        size = len(data.dataset)
    except (TypeError, AttributeError):
        raise TypeError(
            f"data: a {type(data).__name__} whose number of rows is not known; give lvm.Stream(loader, "
            "num_data=...)."
        ) from None
    return Stream(data, size)


def named_batch(batch: Any, model: Any) -> Any:
    """A batch as ``lvm.fit`` takes data: tuples and lists of arrays by the arguments of the program."""
    if not isinstance(batch, (tuple, list)):
        return batch
    if len(batch) == 1:
        return batch[0]
    program = model.pyro.model
    names = list(inspect.signature(getattr(program, "forward", program)).parameters)
    if len(batch) > len(names):
        raise ValueError(f"batches: a batch has {len(batch)} parts, and the program takes {names}.")
    return dict(zip(names, batch, strict=False))


class NotKept(Mapping[str, Any]):
    """What a fit has in place of data that came as a stream."""

    _WORDS = "data: those of this fit came as a stream and are not kept; pass data to it (save: data=False)."

    def __getitem__(self, name: str) -> Any:
        raise ValueError(self._WORDS)

    def __iter__(self) -> Iterator[str]:
        raise ValueError(self._WORDS)

    def __len__(self) -> int:
        raise ValueError(self._WORDS)

    def __repr__(self) -> str:
        return "NotKept()"


# ---- arrays of many rows, in memory or mapped --------------------------------------------------------

BLOCK = 2**21  # bytes that are looked at together where all rows are looked through


def in_blocks(array: np.ndarray, size: int | None = None) -> Iterator[np.ndarray]:
    """Blocks of rows of about ``size`` bytes: views of what is in memory, copies of what is mapped.

    Pages of a file are let go behind them.
    """
    size = BLOCK if size is None else size
    mapped = isinstance(array, np.memmap)
    row = max(1, array.nbytes // max(1, len(array)))
    step = max(1, size // row)
    for begin in range(0, len(array), step):
        block = array[begin : begin + step]
        yield np.array(block) if mapped else block
        let_go(array)


def where_bad(
    array: np.ndarray, is_bad: Callable[[np.ndarray], np.ndarray]
) -> tuple[int, tuple[int, ...]] | None:
    """How many entries are bad, and the index of the first (0 of a number); None if none is.

    In blocks, so that there is no mask of the array's size.
    """
    count, begin = 0, 0
    first: tuple[int, ...] = ()
    for block in in_blocks(np.atleast_1d(array)):
        found = is_bad(block)
        if found.any():
            at = np.unravel_index(int(found.argmax()), found.shape)
            first = first if count else (begin + int(at[0]), *map(int, at[1:]))
            count += int(found.sum())
        begin += len(block)
    return (count, first) if count else None


def not_finite(block: np.ndarray) -> np.ndarray:
    return ~np.isfinite(block)


def rows_at(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``array[rows]`` in memory, read in the order in which a file holds them."""
    flat = np.asarray(rows).ravel()
    order = np.argsort(flat, kind="stable")
    out = np.empty((len(flat), *array.shape[1:]), array.dtype)
    out[order] = array[flat[order]]
    let_go(array)
    return out.reshape(*np.shape(rows), *array.shape[1:])


def let_go(array: np.ndarray) -> None:
    """Tell the system that the pages of a mapped file are not needed (they count as ours till then)."""
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):
            mapped.madvise(mmap.MADV_DONTNEED)


def column_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, sds and largest absolute values of the columns of x (n, d), in blocks of rows; NaN is missing.

    Sums of squares about the blocks' own means are merged by Chan, Golub and LeVeque (1983, *The American
    Statistician* 37, equations 2.1).
    """
    count, mean, squares, largest = (np.zeros(x.shape[1]) for _ in range(4))
    with np.errstate(over="ignore", invalid="ignore"):  # an sd may be too large for floats
        for raw in in_blocks(x):
            block = np.asarray(raw, dtype=float)
            seen = ~np.isnan(block)
            own = seen.sum(0)
            away = np.where(seen, block, 0.0).sum(0) / np.maximum(own, 1)
            squares += (np.where(seen, block - away, 0.0) ** 2).sum(0)
            away -= mean
            count += own
            share = own / np.maximum(count, 1)
            squares += away**2 * (count - own) * share
            mean += away * share
            largest = np.fmax(largest, np.fmax(np.fmax.reduce(block), -np.fmin.reduce(block)))
    return mean, np.sqrt(squares / np.maximum(count, 1)), largest


def in_memory(arguments: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Arguments with mapped arrays read, at the fit's dtype."""
    return {k: at_dtype(np.array(v), dtype) if isinstance(v, np.memmap) else v for k, v in arguments.items()}


def at_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    """Floats at a dtype; integers and booleans as they are."""
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array
