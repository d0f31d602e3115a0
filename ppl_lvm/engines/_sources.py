"""Batches of a run whose data are not in memory: rows of mapped files, or a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.data import cast
from ppl_lvm.engines._batches import Batches
from ppl_lvm.streams import at_dtype, in_memory, let_go, named_batch, rows_at

Batch = dict[str, Any]


class Source(Protocol):
    """Batches as arguments of the programs, NumPy arrays at the fit's dtype."""

    def batch(self, step: int) -> Batch:
        """What step ``step`` takes; steps are asked for in order."""

    def blocks(self, size: int) -> Iterator[Batch]:
        """All rows once, ``size`` at a time (or as the source has them)."""


def source_of(problem: Problem, size: int, seed: int) -> Source | None:
    """Where batches come from if not from memory; None for arrays in memory."""
    if "stream" in problem.notes:
        return StreamSource(problem, size)
    if any(isinstance(problem.arguments[k], np.memmap) for k in problem.batched):
        return MappedSource(problem, size, seed)
    return None


def streamed(problem: Problem) -> bool:
    """Whether the data are not in memory."""
    return source_of(problem, 1, 0) is not None


class MappedSource:
    """Rows of memory-mapped arrays in random order."""

    def __init__(self, problem: Problem, size: int, seed: int) -> None:
        self.problem, self.order = problem, Batches(seed, problem.num_data or 0, size)

    def batch(self, step: int) -> Batch:
        rows = self.order.rows(step, 1)[0]
        return self._with({k: rows_at(v, rows) for k, v in self._batched().items()})

    def blocks(self, size: int) -> Iterator[Batch]:
        for begin in range(0, self.problem.num_data or 0, size):
            yield self._with({k: np.array(v[begin : begin + size]) for k, v in self._batched().items()})
            for value in self._batched().values():
                let_go(value)

    def _batched(self) -> dict[str, Any]:
        return {k: self.problem.arguments[k] for k in self.problem.batched}

    def _with(self, rows: Batch) -> Batch:
        read = {k: at_dtype(v, self.problem.dtype) for k, v in rows.items()}
        return {**self.problem.arguments, **read}


class StreamSource:
    """Batches in the stream's own order, one pass after another."""

    def __init__(self, problem: Problem, size: int) -> None:
        self.problem, self.size = problem, size
        self.passing: Iterator[Batch] = iter(())

    def batch(self, step: int) -> Batch:
        for fresh in (False, True):
            if fresh:
                self.passing = self.blocks(self.size)
            for found in self.passing:
                rows = self._rows(found)
                if rows == self.size:
                    return found
                self._check_last(rows)
        raise ValueError(f"data: no batch of the stream has batch_size={self.size} rows.")

    def blocks(self, size: int) -> Iterator[Batch]:
        del size  # as the stream has them
        problem, seen = self.problem, 0
        for raw in problem.notes["stream"].batches:
            bound = problem.model.bind(named_batch(raw, problem.model), fitting=False)
            found = cast(in_memory(problem.model.arguments(bound), problem.dtype), problem.dtype)
            seen += self._rows(found)
            yield found
        if seen != problem.num_data:
            raise ValueError(
                f"data: a pass over the stream gave {seen} rows, and num_data says {problem.num_data}; give "
                "the number of rows of all batches together."
            )

    def _rows(self, batch: Batch) -> int:
        return len(batch[self.problem.batched[0]])

    def _check_last(self, rows: int) -> None:
        """A batch of another size is the last of its pass."""
        if next(self.passing, None) is not None:
            raise ValueError(
                f"data: a batch of the stream has {rows} rows, and batch_size is {self.size}; make them "
                "equal (the last one may have fewer)."
            )
