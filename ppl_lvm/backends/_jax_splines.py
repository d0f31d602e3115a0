"""Monotone rational-quadratic splines on JAX (Durkan et al. 2019, equations 4 to 8).

A spline of k bins maps [-b, b] onto itself and is the identity outside; it has 3 k - 1 free numbers a
coordinate: k widths, k heights, k - 1 slopes at the inner knots. All are zero for the identity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LEAST = 1e-3  # of a bin's width and height, as a part of the interval, and of a slope


class Knots(NamedTuple):
    """Knots (..., k + 1) of both axes, and slopes there."""

    x: Any
    y: Any
    slope: Any


def num_free(num_bins: int) -> int:
    return 3 * num_bins - 1


def knots(free: Any, bound: float) -> Knots:
    """The spline (..., k + 1) that free numbers (..., 3 k - 1) describe."""
    k = (free.shape[-1] + 1) // 3
    x, y = _cumulated(free[..., :k], bound), _cumulated(free[..., k : 2 * k], bound)
    shift = np.log(np.expm1(1 - _LEAST))  # softplus of it plus the least slope is 1
    inner = _LEAST + jax.nn.softplus(free[..., 2 * k :] + shift)
    ends = jnp.ones((*free.shape[:-1], 1), free.dtype)
    return Knots(x, y, jnp.concatenate([ends, inner, ends], -1))


def _cumulated(free: Any, bound: float) -> Any:
    k = free.shape[-1]
    parts = _LEAST + (1 - _LEAST * k) * jax.nn.softmax(free, -1)
    inner = -bound + 2 * bound * jnp.cumsum(parts, -1)[..., :-1]
    end = jnp.full((*free.shape[:-1], 1), bound, free.dtype)
    return jnp.concatenate([-end, inner, end], -1)


def forward(spline: Knots, x: Any) -> tuple[Any, Any]:
    """(y, log dy/dx) of x (...), each coordinate by its own spline."""
    bound = spline.x[..., -1]
    inside = jnp.abs(x) < bound
    safe = jnp.where(inside, x, 0.0)  # so that gradients of the branch not taken are finite
    x0, width, y0, height, d0, d1 = _bin(spline, spline.x, safe)
    s, t = height / width, (safe - x0) / width
    bend = d1 + d0 - 2 * s
    below = s + bend * t * (1 - t)
    y = y0 + height * (s * t**2 + d0 * t * (1 - t)) / below
    slope = s**2 * (d1 * t**2 + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2) / below**2
    return jnp.where(inside, y, x), jnp.where(inside, jnp.log(slope), 0.0)


def inverse(spline: Knots, y: Any) -> tuple[Any, Any]:
    """(x, log dx/dy) of y (...): the root of a quadratic in the bin."""
    bound = spline.y[..., -1]
    inside = jnp.abs(y) < bound
    safe = jnp.where(inside, y, 0.0)
    x0, width, y0, height, d0, d1 = _bin(spline, spline.y, safe)
    s, gap = height / width, safe - y0
    bend = d1 + d0 - 2 * s
    a, b, c = gap * bend + height * (s - d0), height * d0 - gap * bend, -s * gap
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0))
    x = x0 + width * jnp.clip(2 * c / (-b - root), 0.0, 1.0)
    log_slope = forward(spline, x)[1]
    return jnp.where(inside, x, y), jnp.where(inside, -log_slope, 0.0)


def _bin(spline: Knots, edges: Any, at: Any) -> tuple[Any, ...]:
    """Of the bin that ``at`` lies in: left end, width, lower end, height, slopes at both ends."""
    k = edges.shape[-1] - 1
    index = jnp.clip((at[..., None] >= edges).sum(-1) - 1, 0, k - 1)[..., None]

    def take(values: Any, step: int = 0) -> Any:
        return jnp.take_along_axis(values, index + step, -1)[..., 0]

    x0, y0 = take(spline.x), take(spline.y)
    ends = take(spline.slope), take(spline.slope, 1)
    return x0, take(spline.x, 1) - x0, y0, take(spline.y, 1) - y0, *ends
