"""The best normal distribution of each datum, from the encoder's on: semi-amortised, all data at once.

z = loc + A (delta + T eps), eps standard normal, A the encoder's scale, T lower triangular or diagonal. Adam
(Kingma and Ba 2015) climbs each datum's ELBO along the path derivative, which leaves the density's own
dependence on its parameters out (Roeder, Wu and Duvenaud 2017, NeurIPS): its noise goes as q nears the
posterior. Whether a datum still gains is judged on draws that stay the same, by paired differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._jax_rows import Rows
from ppl_lvm.backends._numpyro import cached, signature
from ppl_lvm.gaps._jax_ais import Base
from ppl_lvm.progress import bar

_STEPS = 100  # of Adam between two looks at the gain
_PAIRS = 8  # antithetic pairs of draws in a gradient
_LOOK = 128  # pairs of draws that judge the gain
_SMALL = 0.2  # gradients below this (nats per sd of the encoder) are followed in proportion, and die out
_RATE, _SLOWER, _SLOWEST = 0.05, 0.7, 0.002  # step sizes of Adam by look


class Normals(NamedTuple):
    """delta (n, d), log of T's diagonal (n, d), and T's entries below it (n, d, d)."""

    delta: Any
    log_diag: Any
    below: Any

    def root(self) -> Any:
        """T of one datum, (d, d)."""
        return jnp.diag(jnp.exp(self.log_diag)) + jnp.tril(self.below, -1)


class Refined(NamedTuple):
    """The distributions found (means (n, d), Cholesky factors (n, d, d)), the ELBO's gain in the last round
    of steps (n,), and whether it was below the tolerance or within two standard errors of it."""

    base: Base
    last_gain: np.ndarray
    converged: np.ndarray


def refine(
    rows: Rows,
    start: Base,
    params: Mapping[str, Any],
    *,
    full: bool,
    tolerance: float,
    max_rounds: int,
    seed: int,
    block: int,
    progress: bool = False,
) -> Refined:
    """Climb each datum's ELBO; inside a session of the problem's dtype."""
    size = min(max(1, block // (2 * _LOOK)), rows.size)
    scale = start.tril if full else diagonal(start.tril)
    parts = []
    with bar(rows.size, "refining", progress) as tick:
        for i, first in enumerate(range(0, rows.size, size)):
            take = np.arange(first, first + size).clip(max=rows.size - 1)
            given = (rows.block(first, size), jnp.asarray(start.loc[take]), jnp.asarray(scale[take]))
            held = (rows.shared, dict(params))
            key = jax.random.fold_in(jax.random.key(seed), i)
            found = _climb(rows, key, given, held, full, tolerance, max_rounds)
            kept = min(size, rows.size - first)
            parts.append(tuple(np.asarray(v)[:kept] for v in found))
            tick(kept)
    loc, tril, gain, done = (np.concatenate(v) for v in zip(*parts, strict=True))
    return Refined(Base(loc, tril), gain, done)


def diagonal(tril: np.ndarray) -> np.ndarray:
    """Diagonal factors whose variances are 1 / precision_ii, what is nearest to each normal in KL(q || p)."""
    precision = np.linalg.inv(tril @ np.swapaxes(tril, 1, 2))
    sd = 1 / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    return np.asarray(sd[:, :, None] * np.eye(tril.shape[-1]), tril.dtype)


def _climb(
    rows: Rows, key: Any, given: Any, held: Any, full: bool, tolerance: float, max_rounds: int
) -> tuple[Any, Any, Any, Any]:
    step, look, finish = _compiled(rows, given, held, full)
    b, d = given[1].shape
    zero = jnp.zeros((b, d), given[1].dtype)
    own = Normals(zero, zero, jnp.zeros((b, d, d), zero.dtype))
    carry = (own, *(jax.tree_util.tree_map(jnp.zeros_like, own) for _ in range(2)), jnp.zeros((), jnp.int32))
    fixed = jax.random.fold_in(key, 0)
    best, value = own, np.asarray(look(fixed, own, given, held), np.float64)  # (b, pairs)
    gain, done = np.full(b, np.nan), np.zeros(b, bool)
    for i in range(max_rounds):
        rate = jnp.asarray(max(_RATE * _SLOWER**i, _SLOWEST), zero.dtype)
        carry, candidate = step(jax.random.fold_in(key, i + 1), carry, rate, given, held)
        now = np.asarray(look(fixed, candidate, given, held), np.float64)
        difference = now - value
        gain, error = difference.mean(1), difference.std(1, ddof=1) / math.sqrt(difference.shape[1])
        better = gain > 0  # NaN is not
        best = _chosen(jnp.asarray(better), candidate, best)
        value = np.where(better[:, None], now, value)
        done = (gain < tolerance) | (gain < 2 * error)
        if done.all():
            break
    loc, tril = finish(best, given)
    return loc, tril, np.maximum(gain, 0.0), done


def _chosen(keep: Any, a: Normals, b: Normals) -> Normals:
    """The first where ``keep`` (n,), else the second."""
    return jax.tree_util.tree_map(lambda x, y: jnp.where(keep.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def _compiled(rows: Rows, given: Any, held: Any, full: bool) -> tuple[Callable, Callable, Callable]:
    def build() -> tuple[Callable, Callable, Callable]:
        log_joint = rows.log_joint()

        def log_weight(eps: Any, own: Normals, given: Any, held: Any) -> Any:
            """log p(x, z) - log q(z) at one draw of one datum; the derivative goes along z only."""
            row, loc, scale = given
            y = own.delta + own.root() @ eps
            still = jax.tree_util.tree_map(lax.stop_gradient, own)
            back = jax.scipy.linalg.solve_triangular(still.root(), y - still.delta, lower=True)
            log_det = still.log_diag.sum() + jnp.log(jnp.diagonal(scale)).sum()
            log_q = -0.5 * back @ back - 0.5 * len(eps) * math.log(2 * math.pi) - log_det
            return log_joint(loc + scale @ y, row, *held) - log_q

        many = jax.vmap(log_weight, in_axes=(0, None, None, None))
        all_data = jax.vmap(many, in_axes=(0, 0, 0, None))

        def bound(own: Normals, eps: Any, given: Any, held: Any) -> Any:
            return all_data(jnp.concatenate([eps, -eps], 1), own, given, held).mean(1).sum()

        def step(key: Any, carry: Any, rate: Any, given: Any, held: Any) -> Any:
            def once(carry: Any, key: Any) -> Any:
                own, first, second, count = carry
                eps = jax.random.normal(key, (given[1].shape[0], _PAIRS, given[1].shape[1]), rate.dtype)
                slope = jax.grad(bound)(own, eps, given, held)
                slope = slope if full else slope._replace(below=jnp.zeros_like(slope.below))
                slope = jax.tree_util.tree_map(jnp.nan_to_num, slope)
                count = count + 1
                first = jax.tree_util.tree_map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
                second = jax.tree_util.tree_map(lambda v, g: 0.999 * v + 0.001 * g**2, second, slope)
                one, two = 1 - 0.9**count, 1 - 0.999**count

                def moved(p: Any, m: Any, v: Any) -> Any:
                    return p + rate * (m / one) / (jnp.sqrt(v / two) + _SMALL)

                new = jax.tree_util.tree_map(moved, own, first, second)
                return (new, first, second, count), new

            carry, path = lax.scan(once, carry, jax.random.split(key, _STEPS))
            return carry, jax.tree_util.tree_map(lambda v: v[_STEPS // 2 :].mean(0), path)

        def look(key: Any, own: Normals, given: Any, held: Any) -> Any:
            eps = jax.random.normal(key, (given[1].shape[0], _LOOK, given[1].shape[1]), given[1].dtype)
            return 0.5 * (all_data(eps, own, given, held) + all_data(-eps, own, given, held))

        def finish(own: Normals, given: Any) -> tuple[Any, Any]:
            def one(own: Normals, loc: Any, scale: Any) -> tuple[Any, Any]:
                return loc + scale @ own.delta, scale @ own.root()

            return jax.vmap(one)(own, given[1], given[2])

        return jax.jit(step), jax.jit(look), jax.jit(finish)

    return cached(("refine", rows.density.key, full, signature((given, held))), build)


def log_weights(
    rows: Rows, bases: tuple[Base, ...], params: Mapping[str, Any], *, num: int, seed: int, block: int
) -> list[np.ndarray]:
    """log p(x, z) - log q(z) of ``num`` draws of each of several normals, (n, num): from the same eps."""
    size = min(max(1, block // num), rows.size)
    parts: list[list[np.ndarray]] = [[] for _ in bases]
    for i, first in enumerate(range(0, rows.size, size)):
        take = np.arange(first, first + size).clip(max=rows.size - 1)
        kept = min(size, rows.size - first)
        held = (rows.shared, dict(params))
        for part, base in zip(parts, bases, strict=True):
            given = (rows.block(first, size), jnp.asarray(base.loc[take]), jnp.asarray(base.tril[take]))
            run = _weights_compiled(rows, given, held, num)
            key = jax.random.fold_in(jax.random.key(seed), i)
            part.append(np.asarray(run(key, given, held), np.float64)[:kept])
    return [np.concatenate(p) for p in parts]


def _weights_compiled(rows: Rows, given: Any, held: Any, num: int) -> Callable[..., Any]:
    def build() -> Callable[..., Any]:
        log_joint = rows.log_joint()

        def one(eps: Any, given: Any, held: Any) -> Any:
            row, loc, tril = given
            log_q = (
                -0.5 * eps @ eps - 0.5 * len(eps) * math.log(2 * math.pi) - jnp.log(jnp.diagonal(tril)).sum()
            )
            return log_joint(loc + tril @ eps, row, *held) - log_q

        def run(key: Any, given: Any, held: Any) -> Any:
            eps = jax.random.normal(key, (given[1].shape[0], num, given[1].shape[1]), given[1].dtype)
            return jax.vmap(jax.vmap(one, in_axes=(0, None, None)), in_axes=(0, 0, None))(eps, given, held)

        return jax.jit(run)

    return cached(("normal weights", rows.density.key, num, signature((given, held))), build)


__all__ = ["Refined", "diagonal", "log_weights", "refine"]
