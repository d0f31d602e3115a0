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


@dataclass
class _Unit:
    """One chain (on an accelerator all of them together), paused between blocks of iterations."""

    point: Any
    key: Any
    chain: Any = None
    done: int = 0
    block: int = _BLOCK
    seconds: float = 0.0


class Runner:
    """The chains of a search, which can be paused and go on.

    Starts are, in turn, draws of the prior, the same mirrored about the prior's mean, peaks of the density
    among many points of the prior's range, draws of the fits three times as far from their means, and the
    engine's own starts. All chains run at once on an accelerator, else in threads, each with an equal share
    of the budget of seconds.
    """

    def __init__(
        self, problem: Problem, fits: Sequence[Fit], settings: SpotCheck, params: dict[str, np.ndarray]
    ) -> None:
        self.problem, self.settings, self.seconds = problem, settings, 0.0
        engine = NUTS(
            num_warmup=settings.num_warmup,
            num_samples=settings.most,
            num_chains=settings.num_chains,
            max_tree_depth=8,
        )
        run = Run(settings.seed)
        with jax_session(problem.dtype):
            self.density, self.data = density_of(problem)
            self.held = {k: jnp.asarray(v) for k, v in params.items()}
            points = _starts(problem, fits, run, self.density, self.data, params, settings)
            self.scales = np.ones(self.density.size, points.dtype)
            if self.density.size:
                self.scales = curvature_scales(self.density, points[-1], self.data, self.held)
            keys = jax.random.split(jax.random.key(run.word(61)), len(points))
            self.started, self._together = len(points), jax.default_backend() != "cpu"
            self._given = (self.data, (self.held, self.scales))
            begin = points / self.scales
            self._start, self._advance = _compiled(
                engine, self.density, *self._given, begin, keys, self._together
            )
        self._workers = 1 if self._together else min(self.started, os.cpu_count() or 1)
        self._units = [_Unit(begin, keys)] if self._together else list(map(_Unit, begin, keys))

    def draw(self, num_samples: int) -> Chains:
        """The chains with as many kept draws, or as many as their time allows; those that have not kept 50
        then are left out."""
        began = time.perf_counter()
        with ThreadPoolExecutor(self._workers) as pool:
            rows = list(pool.map(lambda unit: self._until(unit, num_samples), self._units))
        self.seconds += time.perf_counter() - began
        if self._together:
            (draws, stats) = rows[0]
            rows = [(draws[i], {k: v[i] for k, v in stats.items()}) for i in range(self.started)]
        least = min(_LEAST, self.settings.num_samples)
        chains = [(d, s) for d, s in rows if len(d) >= least and np.isfinite(d).all()]
        if not chains:
            return Chains({}, {}, self.started, self.seconds)
        kept = min(len(d) for d, _ in chains)
        with jax_session(self.problem.dtype):
            flat = np.stack([d[:kept] for d, _ in chains]) * self.scales
            values = _constrain(self.density, flat, self.data, self.held)
        stats = {k: np.stack([s[k][:kept] for _, s in chains]) for k in chains[0][1]}
        return Chains(values, stats, self.started, self.seconds)

    def _until(self, unit: _Unit, num_samples: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Copies of a chain's kept draws and statistics, once there are so many or its time is up."""
        warmup = self.settings.num_warmup
        share = self.settings.budget_seconds * self._workers / len(self._units)
        with jax_session(self.problem.dtype):
            while unit.done < warmup + num_samples and unit.seconds < share:
                began = time.perf_counter()
                if unit.chain is None:
                    unit.chain = self._start(unit.point, unit.key, *self._given)
                last = min(unit.done + unit.block, warmup + num_samples)
                span = np.int32(unit.done), np.int32(last)
                unit.chain = self._advance(unit.chain, *span, unit.key, *self._given)
                jax.block_until_ready(unit.chain.draws)
                took, unit.done = time.perf_counter() - began, last
                unit.seconds += took
                if took < 0.05 * share:  # twice as many end soon enough
                    unit.block *= 2
            if unit.chain is None:
                return np.empty((0, self.density.size)), {}
            cut = (slice(None),) * self._together + (slice(0, max(unit.done - warmup, 0)),)
            copied: tuple[np.ndarray, dict[str, np.ndarray]] = jax.tree_util.tree_map(
                lambda x: np.array(np.asarray(x)[cut]), (unit.chain.draws, unit.chain.stats)
            )
            return copied


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


__all__ = ["Chains", "Runner", "free_points"]
