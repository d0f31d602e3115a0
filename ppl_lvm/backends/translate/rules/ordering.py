"""Operators that accumulate along an axis, or put it in order."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import jax_dtype, with_axis


def cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else jnp.asarray(x).astype(jax_dtype(dtype))


def pick(x: Any, index: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
    value = jnp.take_along_axis(x, index, dim)
    return (value, index) if keepdim else (jnp.squeeze(value, dim), jnp.squeeze(index, dim))


@rule("aten.cumsum")
def cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    return jnp.cumsum(cast(x, dtype), dim) if jnp.ndim(x) else x


@rule("aten.cumprod")
def cumprod(x: Any, dim: int, *, dtype: Any = None) -> Any:
    return jnp.cumprod(cast(x, dtype), dim) if jnp.ndim(x) else x


@rule("aten.logcumsumexp")
def logcumsumexp(x: Any, dim: int) -> Any:
    return lax.cumlogsumexp(x, dim % jnp.ndim(x)) if jnp.ndim(x) else x


@rule("aten.cummax")
@with_axis
def cummax(x: Any, dim: int) -> Any:
    return _running(x, dim, jnp.greater_equal)


@rule("aten.cummin")
@with_axis
def cummin(x: Any, dim: int) -> Any:
    return _running(x, dim, jnp.less_equal)


def _running(x: Any, dim: int, better: Any) -> tuple[Any, Any]:
    moved = jnp.moveaxis(x, dim, 0)
    place = jnp.broadcast_to(jnp.arange(moved.shape[0]).reshape((-1,) + (1,) * (moved.ndim - 1)), moved.shape)

    def choose(a: tuple, b: tuple) -> tuple:
        later = better(b[0], a[0])
        return jnp.where(later, b[0], a[0]), jnp.where(later, b[1], a[1])

    value, index = lax.associative_scan(choose, (moved, place))
    return jnp.moveaxis(value, 0, dim), jnp.moveaxis(index, 0, dim)


@rule("aten.sort")
@with_axis
def sort(x: Any, dim: Any = -1, descending: bool = False, *, stable: Any = None) -> Any:
    order = jnp.argsort(x, dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, order, dim), order


@rule("aten.sort.stable")
def sort_stable(x: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
    return sort(x, dim, descending)


@rule("aten.topk")
@with_axis
def topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    value, order = sort(x, dim, largest)
    return lax.slice_in_dim(value, 0, k, axis=dim % x.ndim), lax.slice_in_dim(order, 0, k, axis=dim % x.ndim)


@rule("aten.median.default")
def median(x: Any) -> Any:
    """Of an even number the lower one; ties share the derivative."""
    held = lax.stop_gradient(jnp.sort(jnp.ravel(x))[(jnp.size(x) - 1) // 2])
    ties = x == held
    return held + jnp.sum(jnp.where(ties, x - held, 0.0)) / jnp.sum(ties)


@rule("aten.median.dim")
def median_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    return kthvalue(x, (jnp.shape(x)[dim] + 1) // 2 if jnp.ndim(x) else 1, dim, keepdim)


@rule("aten.kthvalue")
@with_axis
def kthvalue(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    order = jnp.argsort(x, dim, stable=True)
    return pick(x, lax.slice_in_dim(order, k - 1, k, axis=dim % x.ndim), dim, keepdim)
