"""NUTS for every datum on its own, where all latents are local: many posteriors in one compiled program.

One chain over all data has n q coordinates, one step size and trajectories as long as the worst datum needs.
Given the params the data are independent, so each datum's chains adapt by themselves: to its scales, with its
step size, its tree depths and divergences. Chains and data are vmapped, in blocks of bounded size; a block
waits at each iteration for its longest trajectory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._jax_rows import Rows, independence_reason, rows_of
from ppl_lvm.backends._numpyro import cached, density_of, signature
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_nuts import _program
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.progress import bar

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS

Arrays = dict[str, np.ndarray]
_MOST = 512  # chains, over all data, in one program
_MOST_SCALED = 200


def by_datum_reason(problem: Problem) -> str | None:
    """Why chains cannot run by datum; None if they can."""
    if problem.model.numpyro is None:
        return f"{problem.model.describe()} has no NumPyro twin, which chains by datum need"
    return independence_reason(problem)


def sample_rows(engine: NUTS, problem: Problem, run: Run, params: Arrays) -> tuple[Arrays, Arrays]:
    """Draws by site (chain, draw, n, ...), and statistics (chain, draw, n)."""
    with jax_session(problem.dtype):
        held = {k: jnp.asarray(v, problem.dtype) for k, v in params.items()}
        rows = rows_of(problem, held)
        points = _points(engine, problem, run, rows, held)
        keys = jax.random.split(jax.random.key(run.word(23)), (rows.size, engine.num_chains))
        size = min(max(1, _MOST // engine.num_chains), rows.size)
        size = -(-rows.size // -(-rows.size // size))  # blocks of about one size: the least padding
        total = (engine.num_warmup + engine.num_samples) * -(-rows.size // size)
        parts = []
        with bar(total, "NUTS", run.progress) as tick:
            for first in range(0, rows.size, size):
                take = np.arange(first, first + size).clip(max=rows.size - 1)
                part = _block(
                    engine, rows, rows.block(first, size), points[take], keys[take], held, tick, run
                )
                kept = min(size, rows.size - first)
                parts.append(jax.tree_util.tree_map(lambda v, kept=kept: np.asarray(v)[:kept], part))
        values, stats = jax.tree_util.tree_map(lambda *v: np.concatenate(v), *parts)
    moved = {k: np.moveaxis(v[:, :, :, 0], 0, 2) for k, v in values.items()}  # (n, chain, draw, 1, ...)
    return moved, {k: np.moveaxis(v, 0, 2) for k, v in stats.items()}


def _points(engine: NUTS, problem: Problem, run: Run, rows: Rows, held: Any) -> Any:
    """Starting points (n, chain, d): those of the problem as a whole, taken apart."""
    density, data = density_of(problem)
    flat = start_points(problem, run, density, data, held, engine.num_chains)
    parts = [density.unflatten(f) for f in flat]
    by_site = [jnp.stack([p[k] for p in parts]) for k in rows.density.shapes]  # (chain, n, ...)
    together = jnp.concatenate([v.reshape(*v.shape[:2], -1) for v in by_site], -1)
    return jnp.swapaxes(together, 0, 1)


def _block(
    engine: NUTS, rows: Rows, data: Any, points: Any, keys: Any, held: Any, tick: Callable, run: Run
) -> tuple[Arrays, Arrays]:
    start, advance, finish, curvature = _compiled(engine, rows, data, points, keys, held)
    scales = curvature(points[:, 0], data, rows.shared, held)
    chains_of = engine.num_chains
    each = jnp.repeat(jnp.arange(len(scales)), chains_of)  # one map over the chains of all data
    given = ({**{k: v[each] for k, v in data.items()}, **rows.shared}, (held, scales[each]))
    keys = keys.reshape(-1)
    chains = start((points / scales[:, None]).reshape(len(each), -1), keys, *given)
    total = engine.num_warmup + engine.num_samples
    step = max(1, total // 20) if run.progress else total
    for first in range(0, total, step):
        last = min(first + step, total)
        chains = advance(chains, np.int32(first), np.int32(last), keys, *given)
        jax.block_until_ready(chains.draws)
        tick(last - first)
    values = finish(chains.draws * scales[each][:, None], *given)
    found = (dict(values), dict(chains.stats))
    return jax.tree_util.tree_map(lambda v: v.reshape(-1, chains_of, *v.shape[1:]), found)


def _compiled(
    engine: NUTS, rows: Rows, data: Any, points: Any, keys: Any, held: Any
) -> tuple[Callable, Callable, Callable, Callable]:
    """(start, advance, finish) over all chains of all data, and curvature over data."""
    steps = (engine.num_warmup, engine.num_samples, engine.target_accept, engine.max_tree_depth)
    settings = (*steps, engine.dense_mass, engine.kernel)
    density = rows.density
    key = ("nuts rows", density.key, settings, signature((data, rows.shared, points, held)))

    def build() -> tuple[Callable, Callable, Callable, Callable]:
        start, advance = _program(engine, density)
        over = {**dict.fromkeys(data, 0), **dict.fromkeys(rows.shared)}
        start = jax.vmap(start, in_axes=(0, 0, over, (None, 0)))
        advance = jax.vmap(advance, in_axes=(0, None, None, 0, over, (None, 0)))

        def constrain(point: Any, data: Any, params: Any) -> Any:
            return density.constrain(density.unflatten(point), data, params[0])

        finish = jax.vmap(jax.vmap(constrain, in_axes=(0, None, None)), in_axes=(0, over, (None, 0)))
        return jax.jit(start), jax.jit(advance, donate_argnums=(0,)), jax.jit(finish), jax.jit(_scales(rows))

    return cached(key, build)


def _scales(rows: Rows) -> Callable[..., Any]:
    """Scales (n, d) in (0, 1] of the coordinates at points (n, d), by curvature, as for a single chain."""
    log_joint = rows.log_joint()

    def one(point: Any, row: Any, shared: Any, held: Any) -> Any:
        size = point.shape[0]
        if size > _MOST_SCALED:
            return jnp.ones_like(point)
        slope = jax.grad(lambda p: log_joint(p, row, shared, held))
        unit = jnp.eye(size, dtype=point.dtype)
        curvature = jax.vmap(lambda u: jax.jvp(slope, (point,), (u,))[1] @ u)(unit)
        curvature = jnp.where(jnp.isfinite(curvature), jnp.abs(curvature), 1.0)
        return 1.0 / jnp.sqrt(jnp.maximum(curvature, 1.0))

    return jax.vmap(one, in_axes=(0, 0, None, None))


def totals(stats: Arrays) -> Arrays:
    """Statistics of an iteration over all data (chain, draw): sums, means, and whether any datum diverged."""
    return {
        "lp": stats["lp"].sum(2),
        "energy": stats["energy"].sum(2),
        "acceptance_rate": stats["acceptance_rate"].mean(2),
        "step_size": stats["step_size"].mean(2),
        "diverging": stats["diverging"].any(2),
        "n_steps": stats["n_steps"].sum(2),
        "tree_depth": stats["tree_depth"].max(2),
    }


__all__ = ["by_datum_reason", "sample_rows", "totals"]
