"""Draws of a Pyro guide, weighed at all data in blocks of rows: memory does not grow with the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.backends import _pyro_guide as guides
from ppl_lvm.backends._few_rows import resized
from ppl_lvm.backends._pyro_density import log_density
from ppl_lvm.backends._pyro_trace import to_torch
from ppl_lvm.core import Problem
from ppl_lvm.engines._rows import Blocks, first_rows, take
from ppl_lvm.engines._sources import Source
from ppl_lvm.engines._svi_result import Drawn

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


def row_blocks(problem: Problem, size: int, source: Source | None) -> Callable[[], Iterable[dict[str, Any]]]:
    """Passes over all rows, as arguments of the programs."""
    if source is not None:
        return lambda: source.blocks(size)
    begins = range(0, problem.num_data or 0, size)
    return lambda: (take(problem.arguments, problem.batched, slice(i, i + size)) for i in begins)


def batch_loss(
    engine: SVI, problem: Problem, guide: Any, build: Callable[..., Any]
) -> Callable[[int, int, Any], float]:
    """(number, rows, batch) -> the negative bound of all data from these; ``build`` makes Pyro's SVI."""
    made: dict[int, Any] = {}

    def loss(number: int, rows: int, batch: Any) -> float:
        del number  # randomness goes on by itself
        if rows not in made:
            own = dataclasses.replace(engine, batch_size=rows, distributed=False)
            made[rows] = build(own, problem, guide)
        return float(made[rows].evaluate_loss(**to_torch(batch)))

    return loss


def outer_draws(
    engine: SVI, problem: Problem, guide: Any, params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Draws of the latents outside the data plate, from the guide at a few rows."""
    names = [s.name for s in problem.latents(discrete=False) if not s.local]
    if not names:
        return {}
    few = _at_block(problem, next(iter(row_blocks(problem, engine.batch_size or 1, None)())))
    few = first_rows(engine, problem) if "first_rows" in problem.notes else few
    values, _ = guides.draw(few, guide, params, engine.num_draws)
    return {name: values[name] for name in names}


def draws_in_blocks(
    engine: SVI,
    problem: Problem,
    guide: Any,
    params: Mapping[str, Any],
    blocks: Blocks,
    source: Source | None,
) -> Drawn:
    """Draws of the guide, the first of them weighed at all data in blocks of rows."""
    few = first_rows(engine, problem)
    values, log_q = guides.draw(few, guide, params, engine.num_draws)
    some = {k: v[: blocks.draws] for k, v in values.items()}
    log_p = np.zeros(blocks.draws)
    for i, block in enumerate(row_blocks(problem, blocks.size, source)()):
        total, rest, per_datum = log_density(_at_block(problem, block), some, params)
        log_p += total if rest is None or per_datum is None or not i else per_datum.sum(-1)
    return Drawn(values, log_p, log_q, lambda v: guides.log_q_at(few, guide, params, v))


def _at_block(problem: Problem, block: Mapping[str, Any]) -> Problem:
    count = len(block[problem.batched[0]])
    sites = {name: resized(site, str(problem.data_plate), count) for name, site in problem.sites.items()}
    return dataclasses.replace(problem, arguments=block, sites=sites, num_data=count)
