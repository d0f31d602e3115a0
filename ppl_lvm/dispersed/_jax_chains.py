"""Short NUTS chains from dispersed starts, each within its share of a budget of seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.dispersed._peaks import peaks
from ppl_lvm.engines._jax_annealing import prior_particles
from ppl_lvm.engines._jax_nuts import _compiled, _constrain
from ppl_lvm.engines._jax_start import curvature_scales, start_points
from ppl_lvm.engines.nuts import NUTS
from ppl_lvm.evidence._jax_density import Points

if TYPE_CHECKING:
    from ppl_lvm.dispersed import SpotCheck
    from ppl_lvm.result import Fit

_BLOCK = 10  # iterations before the first look at the clock; more while they are quick
_LEAST = 50  # kept draws below which a chain counts as not finished
_PRIOR = 512  # draws of the prior to choose among
_SHARE = 0.05  # of the budget, that looking for peaks of the density may take
_WIDER = 3.0  # overdispersion of starts taken from a fit


@dataclass(frozen=True)
class Chains:
    """Values by site and statistics, (chain, draw, ...), of the chains that finished; how many began."""

    values: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    started: int
    seconds: float


def run_chains(
    problem: Problem, fits: Sequence[Fit], settings: SpotCheck, params: dict[str, np.ndarray]
) -> Chains:
    """Starts are, in turn, draws of the prior, the same mirrored about the prior's mean, peaks of the density
    among many points of the prior's range, draws of the fits three times as far from their means, and the
    engine's own starts. Chains that have not kept 50 draws when their time is up are left out."""
    engine = NUTS(
        num_warmup=settings.num_warmup,
        num_samples=settings.num_samples,
        num_chains=settings.num_chains,
        max_tree_depth=8,
    )
    run = Run(settings.seed)
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        points = _starts(problem, fits, run, density, data, params, settings)
        scales = np.ones(density.size, points.dtype)
        if density.size:
            scales = curvature_scales(density, points[-1], data, held)
        keys = jax.random.split(jax.random.key(run.word(61)), len(points))
        began = time.perf_counter()
        chains = _within(settings, engine, problem, density, data, (held, scales), points / scales, keys)
        seconds = time.perf_counter() - began
        kept = min((len(d) for d, _ in chains), default=0)
        if not chains:
            return Chains({}, {}, len(points), seconds)
        flat = jnp.asarray(np.stack([d[:kept] for d, _ in chains])) * scales
        values = _constrain(density, flat, data, held)
        stats = {k: np.stack([s[k][:kept] for _, s in chains]) for k in chains[0][1]}
    return Chains(values, stats, len(points), seconds)


def _within(
    settings: SpotCheck,
    engine: NUTS,
    problem: Problem,
    density: Density,
    data: Any,
    params: Any,
    points: Any,
    keys: Any,
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """(draws, statistics) of the chains that finished. All of them run at once on an accelerator, else in
    threads, each with an equal share of the time."""
    together = jax.default_backend() != "cpu"
    start, advance = _compiled(engine, density, data, params, points, keys, together)
    workers = 1 if together else min(len(points), os.cpu_count() or 1)
    share = settings.budget_seconds * (1.0 if together else workers / len(points))
    total, warmup = engine.num_warmup + engine.num_samples, engine.num_warmup

    def one(point: Any, key: Any) -> tuple[Any, int]:
        with jax_session(problem.dtype):
            deadline = time.perf_counter() + share
            chain, done, block = start(point, key, data, params), 0, _BLOCK
            while done < total and (now := time.perf_counter()) < deadline:
                last = min(done + block, total)
                chain = advance(chain, np.int32(done), np.int32(last), key, data, params)
                jax.block_until_ready(chain.draws)
                done = last
                if time.perf_counter() - now < 0.05 * share:  # twice as many end soon enough
                    block *= 2
            return jax.tree_util.tree_map(np.asarray, (chain.draws, chain.stats)), done - warmup

    if together:
        (draws, stats), kept = one(points, keys)
        rows = [((draws[i], {k: v[i] for k, v in stats.items()}), kept) for i in range(len(points))]
    else:
        with ThreadPoolExecutor(workers) as pool:
            rows = list(pool.map(one, points, keys))
    least = min(_LEAST, settings.num_samples)
    return [
        (draws[:kept], {k: v[:kept] for k, v in stats.items()})
        for (draws, stats), kept in rows
        if kept >= least and np.isfinite(draws[:kept]).all()
    ]


# ---- starts --------------------------------------------------------------------------------------


def _starts(
    problem: Problem,
    fits: Sequence[Fit],
    run: Run,
    density: Density,
    data: Any,
    params: dict[str, np.ndarray],
    settings: SpotCheck,
) -> Any:
    """(num, size) unconstrained points of finite density and gradient."""
    num = settings.num_chains
    held = {k: jnp.asarray(v) for k, v in params.items()}
    prior = _prior(density, run, data, params, num)
    sources = []
    if len(prior):
        level = Points(problem, params).log_p
        found = peaks(prior, level, num, run.rng(67), _SHARE * settings.budget_seconds)
        sources = [prior[:num], 2 * prior.mean(0) - prior[:num], found]
    sources.append(_wider(problem, fits, run, density, params, num))
    sources.append(np.asarray(start_points(problem, run, density, data, held, -(-num // 4))))
    slope_at = cached(("slope", density.key), density.compile_slope)

    def usable(point: np.ndarray) -> bool:
        return bool(
            np.isfinite(point).all() and np.isfinite(float(slope_at(jnp.asarray(point), data, held)[0]))
        )

    good = [[p for p in source if usable(p)] for source in sources if len(source)]
    turns = [source[i % len(source)] for i in range(num) for source in good if source]
    return jnp.asarray(np.stack(turns[:num]), jnp.dtype(problem.dtype))


def _prior(density: Density, run: Run, data: Any, params: dict[str, np.ndarray], num: int) -> np.ndarray:
    if density.draw_prior is None and density.sample_prior is None:
        return np.empty((0, density.size))
    return np.asarray(prior_particles(density, run, 62, max(num, _PRIOR), data, params))


def _wider(
    problem: Problem, fits: Sequence[Fit], run: Run, density: Density, params: dict[str, np.ndarray], num: int
) -> np.ndarray:
    """Draws of the fits, three times as far from their means; around points, uniform within 2."""
    names, rng, rows = list(density.shapes), run.rng(63), []
    points = Points(problem, params)
    for fit in fits:
        free = free_points(points, fit, names)
        if free is None:
            continue
        if len(free) == 1:
            rows.append(free + rng.uniform(-2, 2, (num, density.size)))
        else:
            centre = free.mean(0)
            rows.append(centre + _WIDER * (free[rng.integers(len(free), size=num)] - centre))
    if not rows:
        return np.empty((0, density.size))
    return np.stack(rows, 1).reshape(-1, density.size)[:num]


def free_points(points: Points, fit: Fit, names: Sequence[str], most: int = 400) -> np.ndarray | None:
    """Unconstrained coordinates (s, size) of evenly spaced draws of a fit, or of a point; None if it lacks
    sites or lies on the boundary of a support."""
    source = fit.params if fit.is_point else fit.posterior
    if not set(names) <= set(source):
        return None
    if fit.is_point:
        values = {k: np.asarray(fit.params[k], dtype=float)[None] for k in names}
    else:
        flat = {k: fit.posterior[k].transpose("chain", "draw", ...).values for k in names}
        size = fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
        rows = np.linspace(0, size - 1, min(size, most)).astype(int)
        values = {k: v.reshape(size, *v.shape[2:])[rows] for k, v in flat.items()}
    free = points.free(values)
    free = free[np.isfinite(free).all(1)]
    return free if len(free) else None


__all__ = ["Chains", "free_points", "run_chains"]
