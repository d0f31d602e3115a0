"""Sites of a program for many data, from traces at a few rows: what changes with the rows is their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import AbstractModel, Plate, Problem, Site
from ppl_lvm.streams import Stream

MANY = 20_000  # rows beyond which a program is not traced at all of them
_FEW = (31, 37)
Sites = dict[str, Site]
Trace = Callable[[Mapping[str, Any]], Sites]


def sites_from_few_rows(model: AbstractModel, arguments: Mapping[str, Any], trace: Trace) -> Sites | None:
    """The sites as at all rows; None where there are few rows, or two small traces do not tell.

    The rows are the leading axis of the arguments that ``model.batched`` names, or of all that share the
    longest one.
    """
    names = _along_rows(model, arguments)
    n = len(arguments[names[0]]) if names else 0
    if n <= MANY:
        return None
    try:
        small, large = (trace({k: v[:m] if k in names else v for k, v in arguments.items()}) for m in _FEW)
    except ValueError:  # a program that needs all rows; what is wrong with it shows there
        return None
    if list(small) != list(large):
        return None
    sites = {name: _scaled(small[name], large[name], n) for name in small}
    if None in sites.values() or not any(p.size == n for s in sites.values() if s for p in s.plates):
        return None
    return {name: site for name, site in sites.items() if site is not None}


def at_all_rows(first: Problem, stream: Stream) -> Problem:
    """The problem of a stream, from that at its first batch: sizes as of all data; ``notes`` hold both."""
    if first.num_data is None or not first.batched:
        raise ValueError(
            f"data: {first.model.describe()} has no data plate with arguments along it, which a stream needs."
        )
    n = stream.num_data
    if n < first.num_data:
        raise ValueError(f"num_data: {n} are fewer than the first batch has ({first.num_data}).")
    first.notes.update(stream=stream, first_rows=first)
    sites = {name: resized(site, str(first.data_plate), n) for name, site in first.sites.items()}
    return dataclasses.replace(first, sites=sites, num_data=n)


def without_rows(problem: Problem) -> Problem:
    """For what does not hang on the data: a minibatch run's problem at its first rows, where all are many."""
    few = problem.notes.get("first_rows")
    many = "stream" in problem.notes or (problem.num_data or 0) > MANY
    return few if few is not None and many else problem


def resized(site: Site, plate: str, count: int) -> Site:
    """A site with another number of data."""
    frame = next((p for p in site.plates if p.name == plate), None)
    if frame is None or frame.dim is None:
        return site
    plates = tuple(Plate(p.name, p.dim, count) if p.name == plate else p for p in site.plates)
    shape, at = list(site.shape), len(site.batch_shape) + frame.dim
    if at >= 0 and shape[at] == frame.size:
        shape[at] = count
    return dataclasses.replace(site, shape=tuple(shape), plates=plates)


def _along_rows(model: AbstractModel, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    if model.batched is not None:
        return tuple(k for k in model.batched if np.ndim(arguments.get(k, 0)))
    lengths = {k: len(v) for k, v in arguments.items() if np.ndim(v)}
    longest = max(lengths.values(), default=0)
    return tuple(k for k, size in lengths.items() if size == longest)


def _scaled(small: Site, large: Site, n: int) -> Site | None:
    """A site with the sizes that follow the rows put to ``n``; None where others differ."""
    alike = (small.kind, small.event_dim, small.support, len(small.shape), len(small.plates)) == (
        large.kind,
        large.event_dim,
        large.support,
        len(large.shape),
        len(large.plates),
    )
    if not alike:
        return None
    shape = [_size(a, b, n) for a, b in zip(small.shape, large.shape, strict=True)]
    sizes = [_size(a.size, b.size, n) for a, b in zip(small.plates, large.plates, strict=True)]
    if None in shape or None in sizes:
        return None
    plates = tuple(Plate(p.name, p.dim, int(s or 0)) for p, s in zip(small.plates, sizes, strict=True))
    return dataclasses.replace(small, shape=tuple(int(s or 0) for s in shape), plates=plates)


def _size(a: int, b: int, n: int) -> int | None:
    return a if a == b else n if (a, b) == _FEW else None
