"""Sequential Monte Carlo and annealed importance sampling on a :class:`Density`, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_annealing import (
    LEAPFROG,
    PILOT,
    Particles,
    Schedule,
    evaluate,
    finer,
    flat_to_values,
    incremental,
    mover,
    pilot,
    prior_particles,
    resample,
)
from ppl_lvm.engines._units import Units

if TYPE_CHECKING:
    from ppl_lvm.engines.smc import AIS, SMC


class Annealed(NamedTuple):
    """Constrained values by site, (s, *shape), log p and log weights (s,), estimates of the evidence (r,).

    ``log_evidence`` has one entry a run (SMC) or a particle (AIS); the mean of their exponentials is
    unbiased. ``runs`` (s,) says which run a particle is of; None where particles are independent.
    """

    values: dict[str, np.ndarray]
    log_p: np.ndarray
    log_weights: np.ndarray
    log_evidence: np.ndarray
    runs: np.ndarray | None
    num_temperatures: int
    acceptance: float
    gradients_per_move: int = LEAPFROG + 1


LEAST_RUNS = 4  # for the error of their mean
LEAST_PARTICLES = 25  # for the tail of their weights


def smc(engine: SMC, problem: Problem, run: Run, params: dict[str, np.ndarray], units: Units) -> Annealed:
    """A pilot run that tunes, then independent runs of fixed settings."""
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        n, runs = engine.num_particles, engine.num_runs
        start = prior_particles(density, run, 41, n * (runs + 1), data, held).reshape(runs + 1, n, -1)
        settings: Any = {"ess": engine.ess, "moves": engine.num_moves}
        schedule = _tuned(units, lambda: pilot(density, problem, run, start[0], data, held, **settings))
        key = ("smc", density.key, engine.num_moves, n, len(schedule.betas))
        once = cached(key, lambda: jax.jit(_smc_run(density, engine.num_moves)))
        keys = jax.random.split(jax.random.key(run.word(42)), runs)

        def one_run(i: int) -> dict[str, Any]:
            return _named(once(keys[i], start[i + 1], schedule, data, held))

        found = units.each("run", runs, one_run, least=LEAST_RUNS)
        flat = jnp.concatenate([jnp.asarray(f["z"]) for f in found])
        log_z = _alive(np.array([float(f["log_z"]) for f in found]))
        values, log_p = flat_to_values(density, flat, data, held)
        rate = float(np.mean([float(f["rate"]) for f in found]))
    which = np.repeat(np.arange(len(found)), n)
    return Annealed(values, log_p, np.repeat(log_z, n), log_z, which, len(schedule.betas), rate)


def _tuned(units: Units, run_pilot: Callable[[], Schedule]) -> Schedule:
    found = units.one("pilot", lambda: run_pilot()._asdict())
    return Schedule(**{k: jnp.asarray(v) for k, v in found.items()})


def _named(ended: tuple[Any, Any, Any]) -> dict[str, Any]:
    """Where particles ended, log estimates or weights, and the acceptance rate."""
    return dict(zip(("z", "log_z", "rate"), ended, strict=True))


def _alive(log_z: np.ndarray) -> np.ndarray:
    """Estimates or weights with NaN as -inf; raise if none is above."""
    out = np.where(np.isnan(log_z), -np.inf, log_z)
    if not np.isfinite(out).any():
        raise ValueError(
            "every particle ended with weight zero: the likelihood is zero where the prior is; check "
            "supports and scales, or raise num_particles."
        )
    return out


def _smc_run(density: Density, num_moves: int) -> Any:
    at, move = jax.vmap(evaluate(density), in_axes=(0, None, None)), mover(density)

    def once(key: Any, start: Any, schedule: Schedule, data: Any, params: Any) -> tuple[Any, Any, Any]:
        def temper(carry: tuple, now: tuple) -> tuple:
            particles, log_z, before = carry
            key, beta, size, scales = now
            key, pick = jax.random.split(key)
            weights = incremental(beta - before, particles.log_like)
            log_z = log_z + jax.nn.logsumexp(weights) - jnp.log(weights.shape[0])
            particles = resample(pick, weights, particles)
            moves = jax.random.split(key, num_moves)
            moved: Any = lax.scan(
                lambda own, k: move(k, own, beta, size, scales, data, params), particles, moves
            )
            return (moved[0], log_z, beta), moved[1].mean()

        particles = Particles(start, *at(start, data, params))
        zero = jnp.zeros((), start.dtype)
        keys = jax.random.split(key, schedule.betas.shape[0])
        end: Any = lax.scan(temper, (particles, zero, zero), (keys, *schedule))
        (particles, log_z, _), rates = end
        return particles.z, log_z, rates.mean()

    return once


def ais(engine: AIS, problem: Problem, run: Run, params: dict[str, np.ndarray], units: Units) -> Annealed:
    """Independent particles along a finer version of the pilot's path, one move a temperature."""
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        n, first = engine.num_particles, min(engine.num_particles, PILOT)
        start = prior_particles(density, run, 41, first + n, data, held)
        settings: Any = {"ess": 0.5, "moves": 2}
        rough = _tuned(units, lambda: pilot(density, problem, run, start[:first], data, held, **settings))
        schedule, num = finer(rough, engine.num_temperatures), engine.num_temperatures
        groups = next(g for g in range(min(10, n), 0, -1) if n % g == 0)  # of one size, for the bar
        once = cached(("ais", density.key, n // groups, num), lambda: jax.jit(_ais_run(density)))
        keys = jax.random.split(jax.random.key(run.word(43)), groups)
        parts = start[first:].reshape(groups, n // groups, -1)

        def one_group(i: int) -> dict[str, Any]:
            return _named(once(keys[i], parts[i], schedule, data, held))

        least = -(-LEAST_PARTICLES // (n // groups))
        found = units.each("group of particles", groups, one_group, least=least)
        flat = jnp.concatenate([jnp.asarray(f["z"]) for f in found])
        log_w = _alive(np.concatenate([np.asarray(f["log_z"], dtype=float) for f in found]))
        rate = float(np.mean([float(f["rate"]) for f in found]))
        values, log_p = flat_to_values(density, flat, data, held)
    return Annealed(values, log_p, log_w, log_w, None, num, rate)


def _ais_run(density: Density) -> Any:
    at, move = jax.vmap(evaluate(density), in_axes=(0, None, None)), mover(density)

    def once(key: Any, start: Any, schedule: Schedule, data: Any, params: Any) -> tuple[Any, Any, Any]:
        def temper(carry: tuple, now: tuple) -> tuple:
            particles, log_w, before = carry
            key, beta, size, scales = now
            log_w = log_w + incremental(beta - before, particles.log_like)
            particles, rate = move(key, particles, beta, size, scales, data, params)
            return (particles, log_w, beta), rate

        particles = Particles(start, *at(start, data, params))
        begin = (particles, jnp.zeros(start.shape[0], start.dtype), jnp.zeros((), start.dtype))
        keys = jax.random.split(key, schedule.betas.shape[0])
        end: Any = lax.scan(temper, begin, (keys, *schedule))
        (particles, log_w, _), rates = end
        return particles.z, log_w, rates.mean()

    return once


def forward_ais(density: Density, key: Any, z: Any, schedule: Schedule, data: Any, params: Any) -> np.ndarray:
    """Log weights (n,) of chains from draws z (n, size) of the prior; exp of each has the mean p(x)."""
    compiled = cached(("ais", density.key, len(z), len(schedule.betas)), lambda: jax.jit(_ais_run(density)))
    return np.asarray(compiled(key, z, schedule, data, params)[1], dtype=float)


def reverse_ais(density: Density, key: Any, z: Any, schedule: Schedule, data: Any, params: Any) -> np.ndarray:
    """Log weights w (n,) of chains that run from exact posterior draws z (n, size) back to the prior.

    exp(-w) has the mean 1 / p(x), so that w, or minus the log mean of several exp(-w), is a stochastic upper
    bound of the log evidence (Grosse, Ghahramani and Adams 2015, arXiv:1511.02543).
    """
    at, move = jax.vmap(evaluate(density), in_axes=(0, None, None)), mover(density)

    def once(key: Any, z: Any, schedule: Schedule, data: Any, params: Any) -> Any:
        def cool(carry: tuple, now: tuple) -> tuple:
            particles, log_w = carry
            key, beta, size, scales, below = now
            particles, _ = move(key, particles, beta, size, scales, data, params)
            return (particles, log_w + incremental(beta - below, particles.log_like)), None

        particles = Particles(z, *at(z, data, params))
        below = jnp.concatenate([jnp.zeros(1, z.dtype), schedule.betas[:-1]])
        keys = jax.random.split(key, schedule.betas.shape[0])
        steps = (keys, *schedule, below)
        begin = (particles, jnp.zeros(z.shape[0], z.dtype))
        (_, log_w), _ = lax.scan(cool, begin, steps, reverse=True)
        return log_w

    compiled = cached(("reverse ais", density.key, z.shape, len(schedule.betas)), lambda: jax.jit(once))
    return np.asarray(compiled(key, z, schedule, data, params), dtype=float)
