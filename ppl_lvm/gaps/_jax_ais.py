"""Annealed importance sampling of every datum's latents at once: chains times data in one compiled program.

The path from a start r(z) to the joint density is geometric, r(z)^(1 - b) p(x, z)^b (Neal 2001, *Statistics
and Computing* 11), with temperatures b that are dense at both ends (Wu, Burda, Salakhutdinov and Grosse 2017,
ICLR, arXiv:1611.04273, appendix: a sigmoidal schedule). Each chain of each datum makes one Hamiltonian move
at each temperature and accepts or refuses it by itself; step sizes, one for each datum and temperature, come
from a pilot run of other chains and are held fixed, so that exp of a log weight has the mean p(x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._jax_rows import Rows
from ppl_lvm.backends._numpyro import cached, signature
from ppl_lvm.engines._jax_annealing import ACCEPT, Particles, hamiltonian, incremental
from ppl_lvm.progress import bar

Start = Literal["encoder", "prior"]
_PILOT = 8  # chains of a datum in the pilot run
_SPREAD = 50  # moves that carry a datum's reverse chains apart before they go back
_SHARP = 4.0  # of the sigmoid of the temperatures


class Base(NamedTuple):
    """Normals r of each datum's unconstrained latents: means (n, d), Cholesky factors (n, d, d)."""

    loc: np.ndarray
    tril: np.ndarray


class LogWeights(NamedTuple):
    """Log weights (n, chains), nats, and mean acceptance rates (n,)."""

    value: np.ndarray
    acceptance: np.ndarray


def temperatures(num: int) -> np.ndarray:
    """``num`` temperatures from above 0 to 1, along a sigmoid."""
    level = 1 / (1 + np.exp(-_SHARP * np.linspace(-1, 1, num + 1)))
    betas = (level - level[0]) / (level[-1] - level[0])
    betas[-1] = 1.0
    return betas[1:]


def anneal(
    rows: Rows,
    base: Base,
    params: Mapping[str, Any],
    *,
    chains: int,
    num_temperatures: int,
    start: Start,
    seed: int,
    block: int,
    truth: np.ndarray | None = None,
    progress: bool = False,
) -> LogWeights:
    """Forward log weights from draws of the start; reverse ones from exact posterior draws ``truth`` (n, d).

    At most ``block`` chains run at once, over all data; inside a session of the problem's dtype. exp(w) of
    forward chains has the mean p(x), exp(-w) of reverse chains the mean 1 / p(x).
    """
    size = min(max(1, block // max(chains, _PILOT)), rows.size)
    betas = jnp.asarray(temperatures(num_temperatures), base.loc.dtype)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    with bar(rows.size, "AIS" if truth is None else "reverse AIS", progress) as tick:
        for i, first in enumerate(range(0, rows.size, size)):
            take = np.arange(first, first + size).clip(max=rows.size - 1)
            given = (rows.block(first, size), jnp.asarray(base.loc[take]), jnp.asarray(base.tril[take]))
            held = (rows.shared, dict(params))
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), i), 3)
            sizes = _compiled("pilot", rows, start, _PILOT, given, held)(keys[0], betas, given, held)
            if truth is None:
                run = _compiled("forward", rows, start, chains, given, held)
                out = run(keys[1], betas, sizes, given, held)
            else:
                run = _compiled("reverse", rows, start, chains, given, held)
                out = run(keys[2], betas, sizes, given, held, jnp.asarray(truth[take], betas.dtype))
            kept = min(size, rows.size - first)
            found.append(tuple(np.asarray(v, np.float64)[:kept] for v in out))  # type: ignore[arg-type]  # two
            tick(kept)
    return LogWeights(*(np.concatenate(v) for v in zip(*found, strict=True)))


def _compiled(way: str, rows: Rows, start: Start, chains: int, given: Any, held: Any) -> Callable[..., Any]:
    build = {"pilot": _pilot, "forward": _forward, "reverse": _reverse}[way]
    key = ("ais rows", way, rows.density.key, start, chains, signature((given, held)))
    return cached(key, lambda: jax.jit(build(rows, start, chains)))


class _Path:
    """The path of all data: positions u (b, c, d), z = loc + tril u; ``given`` is (row, loc, tril)."""

    def __init__(self, rows: Rows, start: Start) -> None:
        self.density, self.log_joint, self.start = rows.density, rows.log_joint(), start
        chain = (0, None, None)
        self.at = jax.vmap(jax.vmap(self._one, in_axes=chain), in_axes=(0, 0, None))
        move = jax.vmap(hamiltonian(self._one), in_axes=(0, 0, None, None, None, None, None))
        self._move = jax.vmap(move, in_axes=(0, 0, None, 0, None, 0, None))

    def _one(self, u: Any, given: Any, held: Any) -> tuple[Any, Any]:
        """log r(u), and log p(x, z) + log |tril| - log r(u)."""
        row, loc, tril = given
        shared, params = held
        z = loc + tril @ u
        joint = self.log_joint(z, row, shared, params) + jnp.log(jnp.diagonal(tril)).sum()
        if self.start == "prior":
            base = self.density.log_prior(self.density.unflatten(z), {**row, **shared}, params)
            base = base + jnp.log(jnp.diagonal(tril)).sum()
        else:
            base = -0.5 * u @ u - 0.5 * len(u) * math.log(2 * math.pi)
        rest = joint - base
        return base, jnp.where(jnp.isnan(rest), -jnp.inf, rest)

    def begin(self, key: Any, chains: int, given: Any, held: Any) -> Any:
        """Draws of the start, (b, c, d)."""
        loc = given[1]
        shape = (loc.shape[0], chains, loc.shape[1])
        if self.start == "encoder":
            return jax.random.normal(key, shape, loc.dtype)

        def draw(key: Any, given: Any) -> Any:
            row, loc, tril = given
            z = self.density.sample_prior(key, {**row, **held[0]}, held[1])  # type: ignore[misc]  # proper, checked
            return jax.scipy.linalg.solve_triangular(tril, self.density.flatten(z) - loc, lower=True)

        keys = jax.random.split(key, shape[:2])
        return jax.vmap(jax.vmap(draw, in_axes=(0, None)))(keys, given)

    def particles(self, u: Any, given: Any, held: Any) -> Particles:
        return Particles(u, *self.at(u, given, held))

    def move(
        self, key: Any, own: Particles, beta: Any, sizes: Any, given: Any, held: Any
    ) -> tuple[Particles, Any]:
        """One move of every chain; acceptance rates by datum, (b,)."""
        keys = jax.random.split(key, own.z.shape[:2])
        moved, rates = self._move(keys, own, beta, sizes, jnp.ones(own.z.shape[-1], own.z.dtype), given, held)
        return moved, rates.mean(1)


def _pilot(rows: Rows, start: Start, chains: int) -> Callable[..., Any]:
    """Step sizes (t, b) that accept about ``ACCEPT`` of the moves."""
    path = _Path(rows, start)

    def run(key: Any, betas: Any, given: Any, held: Any) -> Any:
        def temper(carry: tuple, now: tuple) -> tuple:
            particles, sizes = carry
            key, beta = now
            particles, rates = path.move(key, particles, beta, sizes, given, held)
            return (particles, jnp.clip(sizes * jnp.exp(rates - ACCEPT), 1e-4, 2.0)), sizes

        first, *keys = jax.random.split(key, 2)
        begin = path.particles(path.begin(first, chains, given, held), given, held)
        sizes = jnp.full(given[1].shape[0], 0.5, betas.dtype)
        return lax.scan(temper, (begin, sizes), (jax.random.split(keys[0], len(betas)), betas))[1]

    return run


def _forward(rows: Rows, start: Start, chains: int) -> Callable[..., Any]:
    path = _Path(rows, start)

    def run(key: Any, betas: Any, sizes: Any, given: Any, held: Any) -> tuple[Any, Any]:
        def temper(carry: tuple, now: tuple) -> tuple:
            particles, log_w, before = carry
            key, beta, size = now
            log_w = log_w + incremental(beta - before, particles.log_like)
            particles, rates = path.move(key, particles, beta, size, given, held)
            return (particles, log_w, beta), rates

        first, *keys = jax.random.split(key, 2)
        particles = path.particles(path.begin(first, chains, given, held), given, held)
        zero = jnp.zeros(particles.z.shape[:2], betas.dtype)
        steps = (jax.random.split(keys[0], len(betas)), betas, sizes)
        end: Any = lax.scan(temper, (particles, zero, jnp.zeros((), betas.dtype)), steps)
        (_, log_w, _), rates = end
        return log_w, rates.mean(0)

    return run


def _reverse(rows: Rows, start: Start, chains: int) -> Callable[..., Any]:
    """From exact draws of the posterior, moved apart at temperature 1 first, which leaves each exact."""
    path = _Path(rows, start)

    def run(key: Any, betas: Any, sizes: Any, given: Any, held: Any, truth: Any) -> tuple[Any, Any]:
        _, loc, tril = given
        u = jax.vmap(lambda t, z: jax.scipy.linalg.solve_triangular(t, z, lower=True))(tril, truth - loc)
        u = jnp.broadcast_to(u[:, None], (u.shape[0], chains, u.shape[1]))

        def again(particles: Particles, key: Any) -> tuple[Particles, None]:
            return path.move(key, particles, betas[-1], sizes[-1], given, held)[0], None

        def cool(carry: tuple, now: tuple) -> tuple:
            particles, log_w = carry
            key, beta, below, size = now
            particles, rates = path.move(key, particles, beta, size, given, held)
            return (particles, log_w + incremental(beta - below, particles.log_like)), rates

        first, second = jax.random.split(key)
        begin = path.particles(u, given, held)
        apart = lax.scan(again, begin, jax.random.split(first, _SPREAD))[0]
        below = jnp.concatenate([jnp.zeros(1, betas.dtype), betas[:-1]])
        steps = (jax.random.split(second, len(betas)), betas, below, sizes)
        begun = (apart, jnp.zeros(u.shape[:2], betas.dtype))
        end: Any = lax.scan(cool, begun, steps, reverse=True)
        (_, log_w), rates = end
        return log_w, rates.mean(0)

    return run


__all__ = ["Base", "LogWeights", "Start", "anneal", "temperatures"]
