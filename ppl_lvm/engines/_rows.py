"""A problem at some of its rows: what engines that take minibatches build programs and weights from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_lvm.backends._few_rows import resized
from ppl_lvm.core import Engine, Problem
from ppl_lvm.engines._sources import streamed
from ppl_lvm.families import is_amortized
from ppl_lvm.streams import in_memory

AT_ONCE = 20_000_000  # draws times rows: beyond, densities of draws are summed over blocks of rows
BUDGET = 100_000_000  # beyond, fewer draws are weighed
_PASSES = 20
LEAST = 40  # draws that are weighed, however many rows there are
SMALLEST = 100  # rows of a block
_BYTES = 2**24  # of a block
_BLOCK = 1_000_000  # draws times rows of a block


class Blocks(NamedTuple):
    """How many draws are weighed, and at how many rows at a time."""

    draws: int
    size: int


def blocks_for(engine: Any, problem: Problem) -> Blocks | None:
    """How a minibatch run weighs its draws; None: all at once, as other runs do."""
    n, num = problem.num_data, engine.num_draws
    if engine.batch_size is None or n is None or _has_local(problem):
        return None
    if n * num <= AT_ONCE and not streamed(problem):
        return None
    draws = min(num, max(LEAST, BUDGET // n))
    row = sum(problem.arguments[k].nbytes // len(problem.arguments[k]) for k in problem.batched)
    return Blocks(draws, min(n, max(min(_BLOCK // draws, _BYTES // max(row, 1)), SMALLEST)))


def passes_for(engine: Any, problem: Problem) -> int:
    """How many times a minibatch run evaluates its objective over all data; 0 where draws are weighed.

    That is where latents have a value per datum and draw, too many to keep; without latents one value is
    exact, and a second one says that it has no error.
    """
    n = problem.num_data
    if engine.batch_size is None or n is None:
        return 0
    if not problem.latents(discrete=False):
        return 2
    many = n * engine.num_draws > AT_ONCE or streamed(problem)
    return _PASSES if _has_local(problem) and many else 0


def first_rows(engine: Engine, problem: Problem) -> Problem:
    """The problem at its first batch, for a minibatch run; else the problem itself.

    ``notes`` are shared, so that what is translated and checked there counts for the problem.
    """
    if "stream" in problem.notes:
        return problem.notes["first_rows"]
    size = getattr(engine, "batch_size", None)
    if size is None or not problem.batched or problem.num_data is None or size >= problem.num_data:
        return problem
    if _has_local(problem) and not streamed(problem):
        # guides of one's own may have the shapes of all data
        return _rows_alone(problem, size) if is_amortized(getattr(engine, "guide", None)) else problem
    if "first_rows" not in problem.notes:
        problem.notes["first_rows"] = at_rows(problem, np.arange(size))
    return problem.notes["first_rows"]


def _rows_alone(problem: Problem, size: int) -> Problem:
    """The first rows with ``notes`` of their own: with latents by datum, other rows are another density."""
    if "rows_alone" not in problem.notes:
        found = dataclasses.replace(at_rows(problem, np.arange(size)), notes={})
        problem.notes["rows_alone"] = found
    alone: Problem = problem.notes["rows_alone"]
    return alone


def _has_local(problem: Problem) -> bool:
    return any(s.local for s in problem.latents(discrete=False))


def at_rows(problem: Problem, rows: np.ndarray | slice) -> Problem:
    """The same model bound to some rows of the data."""
    arguments = in_memory(take(problem.arguments, problem.batched, rows), problem.dtype)
    count = len(range(problem.num_data or 0)[rows]) if isinstance(rows, slice) else len(rows)
    plate = str(problem.data_plate)
    sites = {name: resized(site, plate, count) for name, site in problem.sites.items()}
    return dataclasses.replace(problem, arguments=arguments, sites=sites, num_data=count)


def take(arguments: Mapping[str, Any], batched: tuple[str, ...], rows: Any) -> dict[str, Any]:
    """Arguments at some rows."""
    return {k: v[rows] if k in batched else v for k, v in arguments.items()}
