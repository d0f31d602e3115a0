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
from ppl_lvm.engines._jax_kernels import WHERE
from ppl_lvm.engines._jax_nuts import _program
from ppl_lvm.engines._jax_nuts_parts import DRAWS, WARMUP, ChainPart
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.engines._nuts_run import Arrays, Drawn, blocks

if TYPE_CHECKING:
    from ppl_lvm.engines.nuts import NUTS

_MOST = 512  # chains, over all data, in one program
_MOST_SCALED = 200


def by_datum_reason(problem: Problem) -> str | None:
    """Why chains cannot run by datum; None if they can."""
    if problem.model.numpyro is None:
        return f"{problem.model.describe()} has no NumPyro twin, which chains by datum need"
    return independence_reason(problem)


def sample_rows(engine: NUTS, problem: Problem, run: Run, params: Arrays) -> Drawn:
    """Draws by site (chain, draw, n, ...), and statistics (chain, draw, n).

    Raises
    ------
    KeyboardInterrupt
        In words, where the user stopped the run before all data had draws.
    """
    with jax_session(problem.dtype):
        held = {k: jnp.asarray(v, problem.dtype) for k, v in params.items()}
        rows = rows_of(problem, held)
        points = _points(engine, problem, run, rows, held)
        keys = jax.random.split(jax.random.key(run.word(23)), (rows.size, engine.num_chains))
        size = min(max(1, _MOST // engine.num_chains), rows.size)
        size = -(-rows.size // -(-rows.size // size))  # blocks of about one size: the least padding
        firsts = range(0, rows.size, size)
        total = (engine.num_warmup + engine.num_samples) * len(firsts)
        found, done = [], []
        with blocks(engine, problem, run, params, total) as plan:
            for first in firsts:
                take = np.arange(first, first + size).clip(max=rows.size - 1)
                block = _Block(engine, rows, rows.block(first, size), points[take], keys[take], held)
                done.append(plan.drive(block.part, plan.checkpoint(f"data_{first}")))
                found.append(block.found(plan.kept(done[-1]), min(size, rows.size - first)))
            _, length, stopped = plan.longest([min(done)] * engine.num_chains)
        cut = jax.tree_util.tree_map(lambda v: v[:, :, :length], [f[:2] for f in found])
        values, stats = jax.tree_util.tree_map(lambda *v: np.concatenate(v), *cut)
        spent = np.concatenate([f[2] for f in found]).sum(0)
    moved = {k: np.moveaxis(v[:, :, :, 0], 0, 2) for k, v in values.items()}  # (n, chain, draw, 1, ...)
    return Drawn(moved, {k: np.moveaxis(v, 0, 2) for k, v in stats.items()}, spent, stopped)


def _points(engine: NUTS, problem: Problem, run: Run, rows: Rows, held: Any) -> Any:
    """Starting points (n, chain, d): those of the problem as a whole, taken apart."""
    density, data = density_of(problem)
    flat = start_points(problem, run, density, data, held, engine.num_chains)
    parts = [density.unflatten(f) for f in flat]
    by_site = [jnp.stack([p[k] for p in parts]) for k in rows.density.shapes]  # (chain, n, ...)
    together = jnp.concatenate([v.reshape(*v.shape[:2], -1) for v in by_site], -1)
    return jnp.swapaxes(together, 0, 1)


class _Block:
    """The chains of a block of data: one map over all of them."""

    def __init__(self, engine: NUTS, rows: Rows, data: Any, points: Any, keys: Any, held: Any) -> None:
        start, advance, self._finish, curvature = _compiled(engine, rows, data, points, keys, held)
        scales = curvature(points[:, 0], data, rows.shared, held)
        self._chains = engine.num_chains
        each = jnp.repeat(jnp.arange(len(scales)), self._chains)
        self._scales = scales[each]
        self._given = ({**{k: v[each] for k, v in data.items()}, **rows.shared}, (held, self._scales))
        flat = (points / scales[:, None]).reshape(len(each), -1)
        programs = (start, advance, WHERE[engine.kernel])
        self.part = ChainPart(programs, flat, keys.reshape(-1), self._given, many=True)

    def found(self, count: int, size: int) -> tuple[Arrays, Arrays, np.ndarray]:
        """Values and statistics (row, chain, draw, ...) and warm-up's steps (row, chain) of ``size`` rows."""
        kept = self.part.kept(count)
        values = self._finish(jnp.asarray(kept.pop(DRAWS)) * self._scales[:, None], *self._given)
        apart = jax.tree_util.tree_map(
            lambda v: np.asarray(v).reshape(-1, self._chains, *v.shape[1:])[:size], (dict(values), kept)
        )
        spent = apart[1].pop(WARMUP)
        return apart[0], apart[1], spent


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
