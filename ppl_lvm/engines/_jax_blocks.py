"""Draws of a JAX guide, weighed at all data in blocks of rows: memory does not grow with the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._jax_guide import Guide
from ppl_lvm.backends._jax_guides import guide_key
from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_steps import loss_of
from ppl_lvm.engines._jax_weights import split_log_joint
from ppl_lvm.engines._rows import take
from ppl_lvm.engines._sources import Source
from ppl_lvm.engines._svi_result import Drawn

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


def draws_in_blocks(
    engine: SVI,
    problem: Problem,
    run: Run,
    density: Density,
    guide: Guide,
    params: Any,
    few: Any,
    held: Any,
    num: int,
    blocks: Callable[[], Iterable[Any]],
) -> Drawn:
    """All draws with log q, the first ``num`` of them with log p."""
    key = ("blocks", density.key, guide_key(problem, engine.guide))
    draw, outside, inside, at = cached(key, lambda: _compile(density, guide))
    z, values, log_q = draw(
        params, jax.random.split(jax.random.key(run.word(24)), engine.num_draws), few, held
    )
    first = {k: v[:num] for k, v in z.items()}
    log_p = np.asarray(outside(first, few, held), dtype=float)
    for block in blocks():
        log_p = log_p + np.asarray(inside(first, block, held))

    def log_q_at(given: Any) -> np.ndarray:
        return np.asarray(at(params, {k: jnp.asarray(v) for k, v in given.items()}, few, held))

    return Drawn({k: np.asarray(v) for k, v in values.items()}, log_p, np.asarray(log_q), log_q_at)


def row_blocks(
    problem: Problem, size: int, data: Any, source: Source | None
) -> Callable[[], Iterable[dict[str, Any]]]:
    """Passes over all rows, as arguments of the programs on the device."""
    if source is None:
        n = problem.num_data or 0
        return lambda: (_slice(data, problem.batched, i, min(size, n - i)) for i in range(0, n, size))
    return lambda: (
        {**data, **{k: jnp.asarray(block[k]) for k in problem.batched}} for block in source.blocks(size)
    )


def _slice(data: Any, batched: tuple[str, ...], begin: int, count: int) -> dict[str, Any]:
    """Rows from ``begin`` on; a slice with a fixed start would be compiled again for each block."""
    return {k: lax.dynamic_slice_in_dim(v, begin, count) if k in batched else v for k, v in data.items()}


def batch_loss(
    engine: SVI,
    problem: Problem,
    run: Run,
    density_at: Callable[[int], Density],
    guide: Guide,
    params: Any,
) -> Callable[[int, int, Any], float]:
    """(number, rows, batch) -> the negative bound of all data from these, at trained params."""
    made: dict[int, Any] = {}
    key = jax.random.key(run.word(25))

    def loss(number: int, rows: int, batch: Any) -> float:
        if rows not in made:
            own = dataclasses.replace(engine, batch_size=rows)
            made[rows] = jax.jit(loss_of(own, problem, density_at(rows), guide))
        return float(made[rows](params, jax.random.fold_in(key, number), batch))

    return loss


def outer_draws(
    engine: SVI, problem: Problem, run: Run, density: Density, guide: Guide, params: Any, data: Any, held: Any
) -> dict[str, np.ndarray]:
    """Draws of the latents outside the data plate, from the guide at a few rows."""
    names = [n for n in density.shapes if n not in density.local]
    few = take(data, problem.batched, slice(0, engine.batch_size))

    def one(key: Any) -> Any:
        values = density.constrain(guide.draw(params, key, few)[0], few, held)
        return {n: values[n] for n in names}

    keys = jax.random.split(jax.random.key(run.word(24)), engine.num_draws)
    return {n: np.asarray(v) for n, v in jax.jit(jax.vmap(one))(keys).items()} if names else {}


def _compile(density: Density, guide: Guide) -> tuple[Any, Any, Any, Any]:
    split = split_log_joint(density)

    def draw(params: Any, key: Any, data: Any, held: Any) -> Any:
        z, (log_q, _) = guide.draw(params, key, data)
        return z, density.constrain(z, data, held), log_q - density.log_jacobian(z, data, held)

    def outside(z: Any, data: Any, held: Any) -> Any:
        return split(z, data, held)[0] - density.log_jacobian(z, data, held)

    def inside(z: Any, data: Any, held: Any) -> Any:
        return split(z, data, held)[1].sum()

    def at(params: Any, values: Any, data: Any, held: Any) -> Any:
        z = density.unconstrain(values, data, held)
        return guide.log_prob(params, z, data) - density.log_jacobian(z, data, held)

    return (
        jax.jit(jax.vmap(draw, in_axes=(None, 0, None, None))),
        jax.jit(jax.vmap(outside, in_axes=(0, None, None))),
        jax.jit(jax.vmap(inside, in_axes=(0, None, None))),
        jax.jit(jax.vmap(at, in_axes=(None, 0, None, None))),
    )
