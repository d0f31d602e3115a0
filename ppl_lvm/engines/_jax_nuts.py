"""NUTS on a :class:`Density`: one compiled program a chain, run in threads, in turn or vmapped.

Warm-up and sampling are one loop, so that the kernel is compiled once. The loop runs between two
iteration numbers that are arguments: the same program serves a run in one go and a run in blocks
with a progress bar, and since random keys come from the iteration number, both give the same draws.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._numpyro import cached, density_of, signature
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_kernels import KERNELS
from ppl_lvm.engines._jax_start import curvature_scales, start_points
from ppl_lvm.progress import bar

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS


class Chain(NamedTuple):
    """What a chain carries: the kernel's state, the buffers of kept draws and statistics, and the number of
    leapfrog steps that warm-up took."""

    state: Any
    draws: Any
    stats: Any
    warmup_steps: Any


def sample(
    engine: NUTS, problem: Problem, run: Run, params: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draws by site and statistics, each (chain, draw, ...); ``warmup_steps`` among them is (chain,)."""
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        num_starts = engine.num_starts or engine.num_chains
        points = start_points(problem, run, density, data, held, num_starts)
        points = jnp.tile(
            points, (engine.num_chains // num_starts, 1)
        )  # chain i begins at i modulo their number
        scales = curvature_scales(density, points[0], data, held)
        keys = jax.random.split(jax.random.key(run.word(23)), engine.num_chains)
        chains = _run_chains(
            engine, problem, density, data, (held, scales), points / scales, keys, run.progress
        )
        flat = jnp.asarray(np.stack([np.asarray(c.draws) for c in chains])) * scales
        stats = {k: np.stack([np.asarray(c.stats[k]) for c in chains]) for k in chains[0].stats}
        stats["warmup_steps"] = np.array([int(c.warmup_steps) for c in chains])
        values = _constrain(density, flat, data, held)
    return values, stats


def _run_chains(
    engine: NUTS,
    problem: Problem,
    density: Density,
    data: Any,
    params: Any,
    points: Any,
    keys: Any,
    progress: bool,
) -> list[Chain]:
    method = engine.chain_method
    if method == "auto":
        method = "threads" if jax.default_backend() == "cpu" else "vectorized"
    start, advance = _compiled(engine, density, data, params, points, keys, method == "vectorized")
    if method == "vectorized":
        with bar(engine.num_warmup + engine.num_samples, "NUTS", progress) as tick:
            chain = _drive(
                engine, start(points, keys, data, params), advance, keys, data, params, tick, progress
            )
        whole = jax.tree_util.tree_map(np.asarray, chain._replace(state=None))
        return [jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], whole) for i in range(len(keys))]

    lock = threading.Lock()
    total = (engine.num_warmup + engine.num_samples) * engine.num_chains
    with bar(total, "NUTS", progress) as tick:

        def safe_tick(steps: int) -> None:
            with lock:
                tick(steps)

        def one(i: int) -> Chain:
            with jax_session(problem.dtype):
                chain = start(points[i], keys[i], data, params)
                return _drive(engine, chain, advance, keys[i], data, params, safe_tick, progress)

        workers = 1 if method == "sequential" else min(engine.num_chains, os.cpu_count() or 1)
        if workers == 1:
            return [one(i) for i in range(engine.num_chains)]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, range(engine.num_chains)))


def _drive(
    engine: NUTS,
    chain: Chain,
    advance: Callable,
    key: Any,
    data: Any,
    params: Any,
    tick: Callable,
    progress: bool,
) -> Chain:
    total = engine.num_warmup + engine.num_samples
    block = max(1, total // 20) if progress else total
    for first in range(0, total, block):
        last = min(first + block, total)
        chain = advance(chain, np.int32(first), np.int32(last), key, data, params)
        jax.block_until_ready(chain.draws)
        tick(last - first)
    return chain


def _compiled(
    engine: NUTS, density: Density, data: Any, params: Any, points: Any, keys: Any, vectorized: bool
) -> tuple[Callable, Callable]:
    """(start, advance) compiled ahead of time, so that threads share one executable."""
    steps = (engine.num_warmup, engine.num_samples, engine.target_accept, engine.max_tree_depth)
    layout = engine.num_chains if vectorized else 0
    settings = (*steps, engine.dense_mass, engine.kernel, layout)
    key = ("nuts", density.key, settings, signature((data, params)))

    def build() -> tuple[Callable, Callable]:
        start, advance = _program(engine, density)
        if vectorized:
            start = jax.vmap(start, in_axes=(0, 0, None, None))
            advance = jax.vmap(advance, in_axes=(0, None, None, 0, None, None))
        point, chain_key = (points, keys) if vectorized else (points[0], keys[0])
        begin = jax.jit(start).lower(point, chain_key, data, params).compile()
        chain = jax.eval_shape(start, point, chain_key, data, params)
        step = np.int32(0)
        go = jax.jit(advance, donate_argnums=(0,)).lower(chain, step, step, chain_key, data, params).compile()
        return begin, go

    return cached(key, build)


def _program(engine: NUTS, density: Density) -> tuple[Callable, Callable]:
    def log_density(flat: Any, data: Any, params: Any) -> Any:
        held, scales = params
        return density.total(density.unflatten(flat * scales), data, held)

    kernel = KERNELS[engine.kernel](engine, log_density)
    warmup, num_samples = engine.num_warmup, engine.num_samples

    def start(point: Any, key: Any, data: Any, params: Any) -> Chain:
        state = kernel.init(point, key, data, params)
        zero = kernel.stats_like(point.dtype)
        stats = {k: jnp.zeros(num_samples, v.dtype) for k, v in zero.items()}
        draws = jnp.zeros((num_samples, *point.shape), point.dtype)
        return Chain(state, draws, stats, jnp.zeros((), zero["n_steps"].dtype))

    def advance(chain: Chain, first: Any, last: Any, key: Any, data: Any, params: Any) -> Chain:
        def body(i: Any, chain: Chain) -> Chain:
            state, point, stats = kernel.step(i, jax.random.fold_in(key, i), chain.state, data, params)
            slot = jnp.maximum(i - warmup, 0)  # warm-up overwrites slot 0 until the first kept draw does
            draws = lax.dynamic_update_index_in_dim(chain.draws, point, slot, 0)
            kept = {
                k: lax.dynamic_update_index_in_dim(v, jnp.asarray(stats[k], v.dtype), slot, 0)
                for k, v in chain.stats.items()
            }
            spent = jnp.where(i < warmup, jnp.asarray(stats["n_steps"], chain.warmup_steps.dtype), 0)
            return Chain(state, draws, kept, chain.warmup_steps + spent)

        return lax.fori_loop(first, last, body, chain)

    return start, advance


def _constrain(density: Density, flat: Any, data: Any, params: Any) -> dict[str, np.ndarray]:
    """(chain, draw, size) -> values by site, (chain, draw, *shape)."""

    def build() -> Callable:
        def one(point: Any, data: Any, params: Any) -> Any:
            return density.constrain(density.unflatten(point), data, params)

        return jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, None, None)), in_axes=(0, None, None)))

    values = cached(("constrain", density.key), build)(flat, data, params)
    return {k: np.asarray(v) for k, v in values.items()}
