"""NUTS on a :class:`Density`: one compiled program a chain, run in threads, in turn or vmapped.

Warm-up and sampling are one loop, so that the kernel is compiled once. The loop runs between two
iteration numbers that are arguments: the same program serves a run in one go and a run in blocks, and since
random keys come from the iteration number, both give the same draws.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ppl_lvm.backends._numpyro import cached, density_of, signature
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_devices import all_split, chain_mesh, copied, placed, shaped, split
from ppl_lvm.engines._jax_kernels import KERNELS, WHERE
from ppl_lvm.engines._jax_metric import starting_metric
from ppl_lvm.engines._jax_nuts_parts import DRAWS, WARMUP, Chain, ChainPart, by_chain
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.engines._jax_transport import transported
from ppl_lvm.engines._nuts_run import Arrays, Drawn, blocks

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS


def sample(engine: NUTS, problem: Problem, run: Run, params: dict[str, np.ndarray]) -> Drawn:
    """Draws by site and statistics, each (chain, draw, ...)."""
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        num_starts = engine.num_starts or engine.num_chains
        if engine.transport:
            density, held, points = transported(problem, run, density, data, held, num_starts)
            metric: tuple[Any, ...] = (jnp.ones(density.size, points.dtype),)
        else:
            points = start_points(problem, run, density, data, held, num_starts)
            metric = starting_metric(problem, run, density, data, held, points[0], engine.dense_mass)
        scales = np.asarray(metric[0])
        points = np.tile(points, (engine.num_chains // num_starts, 1))  # chain i begins at i modulo them
        keys = _keys(run.word(23), engine.num_chains)
        found = _run_chains(
            engine, problem, run, density, data, (held, *metric), points / scales, keys, params
        )
        flat = np.asarray(found.values[""]) * scales
        return found._replace(values=_constrain(density, flat, data, held))


def _keys(word: int, count: int) -> Any:
    """A key for each chain, by one compiled program in place of several small ones."""

    def build() -> Callable:
        return jax.jit(lambda seed: jax.random.split(jax.random.key(seed), count))

    return cached(("chain_keys", count), build)(np.int32(word))


def _run_chains(
    engine: NUTS,
    problem: Problem,
    run: Run,
    density: Density,
    data: Any,
    params: tuple[Any, ...],
    points: Any,
    keys: Any,
    held: Arrays,
) -> Drawn:
    """Scaled unconstrained draws, under the name "", and statistics."""
    method = engine.chain_method
    if method == "auto":
        method = "threads" if jax.default_backend() == "cpu" else "vectorized"
    together = method == "vectorized"
    mesh = chain_mesh(engine.num_chains) if together else None
    if mesh is not None:
        points, keys = placed((points, keys), split(mesh))
        data, params = placed((data, params), copied(mesh))
    start, advance = _compiled(engine, density, data, params, points, keys, together, mesh)
    programs, given, count = (start, advance, WHERE[engine.kernel]), (data, params), engine.num_chains
    total = (engine.num_warmup + engine.num_samples) * (1 if together else count)
    with blocks(engine, problem, run, held, total) as plan:
        if together:
            part = ChainPart(programs, points, keys, given, many=True)
            at = plan.drive(part, plan.checkpoint("chains"))
            parts, done = by_chain(part.kept(plan.kept(at)), count), [at] * count
        else:
            places = [plan.checkpoint(f"chain_{i}") for i in range(count)]

            def one(i: int) -> tuple[Arrays, int]:
                with jax_session(problem.dtype):
                    part = ChainPart(programs, points[i], keys[i], given)
                    at = plan.drive(part, places[i])
                    return part.kept(plan.kept(at)), at

            parts, done = map(list, zip(*_in_threads(one, count, method), strict=True))
        chains, length, stopped = plan.longest(done)
    cut = {k: np.stack([parts[i][k][:length] for i in chains]) for k in parts[0] if k != WARMUP}
    spent = np.array([int(parts[i][WARMUP]) for i in chains])
    return Drawn({"": cut.pop(DRAWS)}, cut, spent, stopped)


def _in_threads(one: Callable[[int], Any], count: int, method: str) -> list[Any]:
    workers = 1 if method == "sequential" else min(count, os.cpu_count() or 1)
    if workers == 1:
        return [one(i) for i in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(count)))


def _compiled(
    engine: NUTS,
    density: Density,
    data: Any,
    params: Any,
    points: Any,
    keys: Any,
    vectorized: bool,
    mesh: Mesh | None = None,
) -> tuple[Callable, Callable]:
    """(start, advance) compiled ahead of time, so that threads share one executable."""
    steps = (engine.num_warmup, engine.num_samples, engine.target_accept, engine.max_tree_depth)
    layout = (engine.num_chains if vectorized else 0, mesh)
    settings = (*steps, engine.dense_mass, engine.kernel, layout)
    key = ("nuts", density.key, settings, signature((data, params)))

    def build() -> tuple[Callable, Callable]:
        start, advance = _program(engine, density, informed=len(params) > 2)
        if vectorized:
            start = jax.vmap(start, in_axes=(0, 0, None, None))
            advance = jax.vmap(advance, in_axes=(0, None, None, 0, None, None))
        if mesh is not None:
            start, advance = _on_devices(start, advance, mesh)
        point, chain_key = (points, keys) if vectorized else (points[0], keys[0])
        begin = jax.jit(start).lower(point, chain_key, data, params).compile()
        chain = jax.eval_shape(start, point, chain_key, data, params)
        if mesh is not None:
            chain = shaped(chain, all_split(chain, mesh))
        step = np.int32(0)
        go = jax.jit(advance, donate_argnums=(0,)).lower(chain, step, step, chain_key, data, params).compile()
        return begin, go

    return cached(key, build)


def _on_devices(start: Callable, advance: Callable, mesh: Mesh) -> tuple[Callable, Callable]:
    """Programs of chains along a leading axis, each device with its own: none waits for another's trees."""
    own, whole = split(mesh).spec, copied(mesh).spec
    begin = jax.shard_map(start, mesh=mesh, in_specs=(own, own, whole, whole), out_specs=own, check_vma=False)
    specs = (own, whole, whole, own, whole, whole)
    return begin, jax.shard_map(advance, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)


def _program(engine: NUTS, density: Density, *, informed: bool = False) -> tuple[Callable, Callable]:
    """``start`` and ``advance`` of a chain; ``params`` are (held params, scales, and if ``informed`` the
    inverse mass matrix to begin with)."""

    @jax.jit  # the kernel asks for it and its gradient in many places: traced and lowered once for all
    def log_density(flat: Any, data: Any, params: Any) -> Any:
        held, scales = params[:2]
        return density.total(density.unflatten(flat * scales), data, held)

    kernel = KERNELS[engine.kernel](engine, log_density, informed)
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
