r"""Log densities of all steps under all states in JAX, with a gradient made of matrix products for normals.

For :math:`Q_{jn} = \sum_f ((x_{nf} - \mu_{jf}) / \sigma_{jf})^2` and cotangents g (k, n), derivatives are
those of weighted moments about the column means c, :math:`S_r = \sum_n g_{jn} (x_n - c)^r`, r = 0, 1, 2:
products of (k, n) with (n, d). Correlated columns go likewise, with W (x - mu) for a triangular W. Automatic
differentiation would pass over arrays (k, d, n) several times and sum them one by one: several times the cost
of the whole recursion at k = 8, d = 4, n = 32768. The values themselves keep x - mu, which is exact near a
state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ppl_lvm.emissions import Emission, Gaussian
from ppl_lvm.emissions._base import jax_library
from ppl_lvm.emissions._linalg import inverse_factor

_MOST_COLUMNS = 32  # columns written out one by one
_MOST_PRODUCTS = 8  # columns of which all pairs are


def log_densities(
    emission: Emission, params: Mapping[str, Array], rows: Array, seen: Array | None, valid: Array
) -> Array:
    """log p(x_t | state j), (k, T, S), zero where not ``valid`` (T, S); ``rows`` (T S, d) are time-major."""
    normal = isinstance(emission, Gaussian) and rows.shape[1] <= _MOST_COLUMNS
    if normal and "corr_tril" not in params:
        found = _independent_normal(params, rows, seen, emission.covariance)  # type: ignore[attr-defined]
    elif normal and seen is None:
        found = _dense_normal(params, rows)
    else:
        found = emission.log_prob(jax_library(), params, rows, seen)
    return jnp.where(valid, found.reshape(found.shape[0], *valid.shape), 0.0)


def time_major(x: Array) -> Array:
    """(S, T, d) -> (T S, d)."""
    return x.swapaxes(0, 1).reshape(-1, x.shape[-1])


def _independent_normal(params: Mapping[str, Array], x: Array, seen: Array | None, covariance: str) -> Array:
    loc, scale = params["loc"], params["scale"]
    by_state = scale[:, None] if covariance == "spherical" else scale
    scale = jnp.broadcast_to(by_state, loc.shape)
    constant = jnp.log(scale) + 0.5 * math.log(2.0 * math.pi)
    squares = _squares(loc, 1.0 / scale, x, seen)
    if seen is None:
        return -0.5 * squares - constant.sum(1)[:, None]
    return -0.5 * squares - constant @ seen.T


def _dense_normal(params: Mapping[str, Array], x: Array) -> Array:
    loc = params["loc"]
    k, d = loc.shape
    tril = params["scale"][..., None] * params["corr_tril"]
    constant = jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)).sum(-1) + 0.5 * d * math.log(2.0 * math.pi)
    whiten = jnp.broadcast_to(inverse_factor(jnp, tril), (k, d, d))
    return -0.5 * _dense_squares(loc, whiten, x) - jnp.broadcast_to(constant, (k,))[:, None]


@jax.custom_vjp
def _squares(loc: Array, inverse: Array, x: Array, seen: Array | None) -> Array:
    """Sum over observed columns of ((x - loc) * inverse)^2, (k, n).

    Columns are written out, so that they fuse into one pass over the rows. States go through a loop: its
    result is stored, where a fused one would be made again by every pass that reads it.
    """

    def one_state(of: tuple[Array, Array]) -> Array:
        own, width = of
        total: Any = 0.0
        for f in range(x.shape[1]):
            z = (x[:, f] - own[f]) * width[f]
            total = total + (z * z if seen is None else z * z * seen[:, f])
        return total

    return lax.map(one_state, (loc, inverse))


def _squares_forward(loc: Array, inverse: Array, x: Array, seen: Array | None) -> tuple[Array, Any]:
    return _squares(loc, inverse, x, seen), (loc, inverse, x, seen)


def _squares_backward(saved: Any, slope: Array) -> tuple[Array, Array, None, None]:
    """Data have no derivative: they are what is observed."""
    loc, inverse, x, seen = saved
    centre = x.mean(0)
    away, gap = x - centre, loc - centre
    if seen is None:
        zeroth, first, second = slope.sum(1)[:, None], slope @ away, slope @ (away * away)
    else:
        zeroth, first, second = slope @ seen, slope @ (away * seen), slope @ (away * away * seen)
    by_loc = -2.0 * inverse**2 * (first - gap * zeroth)
    by_inverse = 2.0 * inverse * (second - 2.0 * gap * first + gap * gap * zeroth)
    return by_loc, by_inverse, None, None


_squares.defvjp(_squares_forward, _squares_backward)


@jax.custom_vjp
def _dense_squares(loc: Array, whiten: Array, x: Array) -> Array:
    """|W_j (x_n - loc_j)|^2, (k, n), for lower triangular ``whiten`` (k, d, d)."""
    d = x.shape[1]

    def one_state(of: tuple[Array, Array]) -> Array:
        own, w = of
        if d > _MOST_PRODUCTS:
            return (((x - own) @ w.T) ** 2).sum(1)
        away = [x[:, f] - own[f] for f in range(d)]
        total: Any = 0.0
        for f in range(d):
            z = sum(w[f, g] * away[g] for g in range(f + 1))
            total = total + z * z
        return total

    return lax.map(one_state, (loc, whiten))


def _dense_forward(loc: Array, whiten: Array, x: Array) -> tuple[Array, Any]:
    return _dense_squares(loc, whiten, x), (loc, whiten, x)


def _dense_backward(saved: Any, slope: Array) -> tuple[Array, Array, None]:
    loc, whiten, x = saved
    centre = x.mean(0)
    away, gap = x - centre, loc - centre
    zeroth, raw = slope.sum(1)[:, None], slope @ away
    second = lax.map(lambda own: (away * own[:, None]).T @ away, slope)
    cross = gap[:, :, None] * raw[:, None, :]
    second = second - cross - cross.swapaxes(1, 2) + gap[:, :, None] * gap[:, None, :] * zeroth[..., None]
    first = raw - gap * zeroth
    by_loc = -2.0 * (whiten.swapaxes(1, 2) @ (whiten @ first[..., None]))[..., 0]
    return by_loc, 2.0 * whiten @ second, None


_dense_squares.defvjp(_dense_forward, _dense_backward)
