"""From the prior to the posterior in small steps: the tempered path, its moves, and a pilot that tunes them.

The path is log p_b(z) = log prior(z) + b log likelihood(z), 0 <= b <= 1, in unconstrained space, from exact
draws of the prior. Moves are Hamiltonian (Neal 2011, *Handbook of MCMC* 5), a diagonal mass from the
particles; each leaves p_b as it is and is reversible, so that it serves a path in either direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem, Run
from ppl_lvm.progress import bar

LEAPFROG = 8
PILOT = 500  # the most particles of a pilot run, the same everywhere: it is compiled for their number
ACCEPT = 0.8  # step sizes are tuned towards this acceptance rate
_MOST_TEMPERATURES = 500


class Schedule(NamedTuple):
    """Temperatures (t,), increasing from 0 (excluded) to 1, with step sizes (t,) and scales (t, size)."""

    betas: Any
    step_sizes: Any
    scales: Any


class Particles(NamedTuple):
    """Positions (n, size), and log prior and log likelihood there, (n,)."""

    z: Any
    log_prior: Any
    log_like: Any


def prior_particles(density: Density, run: Run, stream: int, num: int, data: Any, params: Any) -> Any:
    """Flat unconstrained draws (num, size) of the prior.

    Raises
    ------
    ValueError
        If the prior is improper.
    """
    seed = run.word(stream)
    if density.draw_prior is not None:
        drawn = density.draw_prior(seed, num, {k: np.asarray(v) for k, v in params.items()})
        z = {k: jnp.asarray(v) for k, v in drawn.items()}
    elif density.sample_prior is not None:
        draw = cached(("prior draws", density.key), lambda: _mapped(density.sample_prior))
        z = draw(jax.random.split(jax.random.key(seed), num), data, params)
    else:
        raise ValueError("the path starts from draws of the prior, and a prior here is improper; use NUTS.")
    return jnp.concatenate([z[name].reshape(num, -1) for name in density.shapes], axis=1)


def _mapped(function: Any) -> Any:
    return jax.jit(jax.vmap(function, in_axes=(0, None, None)))


def evaluate(density: Density) -> Callable[..., tuple[Any, Any]]:
    """(flat, data, params) -> (log prior, log likelihood), the second -inf where it is not a number."""

    def at(flat: Any, data: Any, params: Any) -> tuple[Any, Any]:
        z = density.unflatten(flat)
        prior = density.log_prior(z, data, params)
        like = density.total(z, data, params) - prior
        return prior, jnp.where(jnp.isnan(like), -jnp.inf, like)

    return at


def incremental(step: Any, log_like: Any) -> Any:
    """Log weights of a step of the path; where two temperatures round to the same, none."""
    return jnp.where(step > 0, step * log_like, 0.0)


def hamiltonian(at: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Particles, Any]]:
    """A move of one particle that leaves exp(a + beta b) as it is, (a, b) = ``at(flat, data, params)``.

    (key, particle, beta, step size, scales, data, params) -> (particle, acceptance probability).
    """

    def slope(flat: Any, beta: Any, data: Any, params: Any) -> Any:
        def tempered(f: Any) -> tuple[Any, tuple[Any, Any]]:
            prior, like = at(f, data, params)
            return prior + beta * like, (prior, like)

        return jax.value_and_grad(tempered, has_aux=True)(flat)

    def one(key: Any, own: Particles, beta: Any, size: Any, scales: Any, data: Any, params: Any) -> Any:
        key_jitter, key_momentum, key_accept = jax.random.split(key, 3)
        step = size * jax.random.uniform(key_jitter, minval=0.7, maxval=1.3) * scales
        momentum = jax.random.normal(key_momentum, own.z.shape, own.z.dtype)

        def leap(i: int, state: tuple) -> tuple:
            """Half a kick first and last, else a whole one; then a drift: one gradient in the program."""
            z, p, *_ = state
            (value, parts), gradient = slope(z, beta, data, params)
            ends = (i == 0) | (i == LEAPFROG)
            p = p + jnp.where(ends, 0.5, 1.0) * step * gradient
            z = jnp.where(i == LEAPFROG, z, z + step * p)
            return z, p, value, parts

        start = own.log_prior + beta * own.log_like
        begin = (own.z, momentum, start, (own.log_prior, own.log_like))
        z, p, value, parts = lax.fori_loop(0, LEAPFROG + 1, leap, begin)
        gain = value - start - 0.5 * (p @ p - momentum @ momentum)
        rate = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(gain), -jnp.inf, gain), 0.0))
        accept = jax.random.uniform(key_accept) < rate
        moved = Particles(z, *parts)
        return jax.tree_util.tree_map(lambda new, old: jnp.where(accept, new, old), moved, own), rate

    return one


def mover(density: Density) -> Callable[..., tuple[Particles, Any]]:
    """(key, particles, beta, step size, scales, data, params) -> (particles, mean acceptance rate)."""
    one = hamiltonian(evaluate(density))

    def many(
        key: Any, particles: Particles, beta: Any, size: Any, scales: Any, data: Any, params: Any
    ) -> Any:
        keys = jax.random.split(key, len(particles.z))
        moved, rates = jax.vmap(one, in_axes=(0, 0, None, None, None, None, None))(
            keys, particles, beta, size, scales, data, params
        )
        return moved, rates.mean()

    return many


def resample(key: Any, log_weights: Any, particles: Particles) -> Particles:
    """Systematic resampling of the particles by log weights (n,)."""
    n = log_weights.shape[0]
    weights = jax.nn.softmax(log_weights)
    points = (jnp.arange(n) + jax.random.uniform(key)) / n
    index = jnp.minimum(jnp.searchsorted(jnp.cumsum(weights), points), n - 1)
    return jax.tree_util.tree_map(lambda v: v[index], particles)


def pilot(
    density: Density,
    problem: Problem,
    run: Run,
    start: Any,
    data: Any,
    params: Any,
    *,
    ess: float,
    moves: int,
) -> Schedule:
    """An adaptive run that finds temperatures (each keeps ``ess`` of the particles), step sizes and scales.

    Del Moral, Doucet and Jasra (2012), *Statistics and Computing* 22, for the choice of temperatures. What it
    finds is held fixed afterwards, so that estimates of the evidence are unbiased.

    Raises
    ------
    ValueError
        If no particle has a finite likelihood, or the path takes more than 500 temperatures.
    """
    at, move, again = _compiled(density)
    particles = Particles(start, *at(start, data, params))
    if not np.isfinite(np.asarray(particles.log_like)).any():
        raise ValueError(
            f"{problem.model.describe()}: the likelihood is zero at all {len(start)} draws of the prior; "
            "check supports and scales, or raise num_particles."
        )
    key = jax.random.key(run.word(40))
    beta, size = 0.0, 0.5
    found: list[tuple[float, float, np.ndarray]] = []
    with bar(100, "pilot", run.progress) as tick:
        while beta < 1.0:
            if len(found) == _MOST_TEMPERATURES:
                raise ValueError(
                    f"{problem.model.describe()}: the path from prior to posterior takes more than "
                    f"{_MOST_TEMPERATURES} temperatures; the prior is very far from the posterior: narrow it."
                )
            log_like = np.asarray(particles.log_like, dtype=float)
            step = _next_step(log_like, 1.0 - beta, ess)
            before, beta = beta, min(beta + step, 1.0)
            key, pick, *own = jax.random.split(key, 2 + moves)
            particles = again(pick, jnp.asarray(step * log_like, start.dtype), particles)
            scales = np.maximum(np.asarray(particles.z, dtype=float).std(0), 1e-6)
            for k in own:
                particles, rate = move(
                    k, particles, beta, size, jnp.asarray(scales, start.dtype), data, params
                )
                size = float(np.clip(size * np.exp(float(rate) - ACCEPT), 1e-4, 2.0))
            found.append((beta, size, scales))
            tick(int(100 * beta) - int(100 * before), f"temperature {beta:.3g}")
    betas, sizes, widths = zip(*found, strict=True)
    arrays = (jnp.asarray(np.array(v), start.dtype) for v in (betas, sizes, widths))
    return Schedule(*arrays)


def _next_step(log_like: np.ndarray, most: float, ess: float) -> float:
    """The largest step, by bisection, whose incremental weights keep ``ess`` of the particles."""

    def kept(step: float) -> float:
        w = step * log_like
        w = np.exp(w - w.max())
        return float(w.sum() ** 2 / (w**2).sum() / len(w))

    if kept(most) >= ess:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(middle) >= ess else (low, middle)
    return max(low, 1e-12)


def finer(schedule: Schedule, num: int) -> Schedule:
    """The same path in ``num`` temperatures, evenly between the pilot's; settings are interpolated."""
    betas = np.concatenate([[0.0], np.asarray(schedule.betas, dtype=float)])
    place = np.linspace(0, len(betas) - 1, num + 1)[1:]
    own = np.arange(len(betas))
    fine = np.interp(place, own, betas)
    fine[-1] = 1.0
    sizes = np.interp(place, own[1:], np.asarray(schedule.step_sizes, dtype=float))
    scales = np.asarray(schedule.scales, dtype=float)
    widths = np.stack([np.interp(place, own[1:], scales[:, j]) for j in range(scales.shape[1])], 1)
    dtype = schedule.betas.dtype
    return Schedule(*(jnp.asarray(v, dtype) for v in (fine, sizes, widths)))


def _compiled(density: Density) -> tuple[Callable, Callable, Callable]:
    def build() -> tuple[Callable, Callable, Callable]:
        at = jax.jit(jax.vmap(evaluate(density), in_axes=(0, None, None)))
        return at, jax.jit(mover(density)), jax.jit(resample)

    return cached(("annealing", density.key), build)


def flat_to_values(
    density: Density, flat: Any, data: Any, params: Any
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Particles (s, size) as constrained values by site, (s, *shape), and log p of those values, (s,)."""

    def one(point: Any, data: Any, params: Any) -> Any:
        z = density.unflatten(point)
        log_p = density.total(z, data, params) - density.log_jacobian(z, data, params)
        return density.constrain(z, data, params), log_p

    many = cached(("constrain one", density.key), lambda: jax.jit(jax.vmap(one, in_axes=(0, None, None))))
    values, log_p = many(flat, data, params)
    return {k: np.asarray(v) for k, v in values.items()}, np.asarray(log_p)
