"""Operators that sum, compare or accumulate along axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import axes, jax_dtype


def _cast(x: Any, dtype: Any) -> Any:
    return x if dtype is None else jnp.asarray(x).astype(jax_dtype(dtype))


def _reducer(function: Any) -> Any:
    def reduce(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        x = _cast(x, dtype)
        return function(x, axis=axes(dim, jnp.ndim(x)), keepdims=keepdim)

    return reduce


for _name, _function in {
    "sum": jnp.sum,
    "mean": jnp.mean,
    "nansum": jnp.nansum,
    "nanmean": jnp.nanmean,
    "prod": jnp.prod,
    "amax": jnp.max,
    "amin": jnp.min,
    "any": jnp.any,
    "all": jnp.all,
    "count_nonzero": jnp.count_nonzero,
}.items():
    rule(f"aten.{_name}")(_reducer(_function))


@rule("aten.logsumexp")
def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """As torch: minus infinity where all are, with a zero derivative there."""
    along = axes(dim, jnp.ndim(x))
    top = jnp.max(x, axis=along, keepdims=True)
    top = lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    total = jnp.sum(jnp.exp(x - top), axis=along, keepdims=True)
    empty = total == 0
    out = jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1.0, total))) + top
    return out if keepdim else jnp.squeeze(out, along)


@rule("aten.max.default")
def max_all(x: Any) -> Any:
    return jnp.max(x)


@rule("aten.min.default")
def min_all(x: Any) -> Any:
    return jnp.min(x)


@rule("aten.max.other")
def max_other(x: Any, y: Any) -> Any:
    return jnp.maximum(x, y)


@rule("aten.min.other")
def min_other(x: Any, y: Any) -> Any:
    return jnp.minimum(x, y)


def _pick(x: Any, index: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
    value = jnp.take_along_axis(x, index, dim)
    return (value, index) if keepdim else (jnp.squeeze(value, dim), jnp.squeeze(index, dim))


@rule("aten.max.dim")
def max_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    if jnp.ndim(x) == 0:
        return x, jnp.zeros((), jnp.int_)
    return _pick(x, jnp.argmax(x, dim, keepdims=True), dim, keepdim)


@rule("aten.min.dim")
def min_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    if jnp.ndim(x) == 0:
        return x, jnp.zeros((), jnp.int_)
    return _pick(x, jnp.argmin(x, dim, keepdims=True), dim, keepdim)


@rule("aten.argmax")
def argmax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.argmax(x, dim, keepdims=keepdim)


@rule("aten.argmin")
def argmin(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.argmin(x, dim, keepdims=keepdim)


def _variance(x: Any, dim: Any, correction: Any, keepdim: bool) -> Any:
    along = axes(dim, jnp.ndim(x))
    return jnp.var(x, axis=along, ddof=1 if correction is None else correction, keepdims=keepdim)


@rule("aten.var")
def var(
    x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    return _variance(x, *_old_style(dim, unbiased, correction), keepdim)


@rule("aten.std")
def std(
    x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    return jnp.sqrt(var(x, dim, unbiased, keepdim, correction=correction))


@rule("aten.var_mean")
def var_mean(
    x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    where, ddof = _old_style(dim, unbiased, correction)
    mean = jnp.mean(x, axis=axes(where, jnp.ndim(x)), keepdims=keepdim)
    return _variance(x, where, ddof, keepdim), mean


def _old_style(dim: Any, unbiased: Any, correction: Any) -> tuple[Any, Any]:
    """``var(x, unbiased)`` and ``var(x, dim, unbiased)`` are overloads of ``var(x, dim, correction=...)``."""
    if isinstance(dim, bool):
        return None, int(dim)
    if isinstance(unbiased, bool) and correction is None:
        return dim, int(unbiased)
    return dim, correction


@rule("aten.cumsum")
def cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    return jnp.cumsum(_cast(x, dtype), dim) if jnp.ndim(x) else x


@rule("aten.cumprod")
def cumprod(x: Any, dim: int, *, dtype: Any = None) -> Any:
    return jnp.cumprod(_cast(x, dtype), dim) if jnp.ndim(x) else x


@rule("aten.logcumsumexp")
def logcumsumexp(x: Any, dim: int) -> Any:
    return lax.cumlogsumexp(x, dim % jnp.ndim(x)) if jnp.ndim(x) else x


@rule("aten.cummax")
def cummax(x: Any, dim: int) -> Any:
    return _running(x, dim, jnp.greater_equal)


@rule("aten.cummin")
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


@rule("aten.diff")
def diff(x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    return jnp.diff(x, n, dim, prepend, append)


@rule("aten.sort", "aten.sort.stable")
def sort(x: Any, dim: Any = -1, descending: bool = False, *, stable: Any = None) -> Any:
    order = jnp.argsort(x, dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, order, dim), order


@rule("aten.sort.stable")
def sort_stable(x: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:
    return sort(x, dim, descending)


@rule("aten.argsort")
def argsort(x: Any, dim: int = -1, descending: bool = False) -> Any:
    return jnp.argsort(x, dim, stable=True, descending=descending)


@rule("aten.topk")
def topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    value, order = sort(x, dim, largest)
    return lax.slice_in_dim(value, 0, k, axis=dim % x.ndim), lax.slice_in_dim(order, 0, k, axis=dim % x.ndim)


@rule("aten.median.default")
def median(x: Any) -> Any:
    flat = jnp.ravel(x)
    return jnp.sort(flat)[(flat.size - 1) // 2]


@rule("aten.median.dim")
def median_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    order = jnp.argsort(x, dim, stable=True)
    middle = lax.slice_in_dim(order, (x.shape[dim] - 1) // 2, (x.shape[dim] - 1) // 2 + 1, axis=dim % x.ndim)
    return _pick(x, middle, dim, keepdim)


@rule("aten.linalg_vector_norm", "aten.norm")
def vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    x, along = _cast(x, dtype), axes(dim, jnp.ndim(x))
    if ord is None or ord == 2:
        total = jnp.sum(x * x, axis=along, keepdims=keepdim)
        zero = total == 0  # torch's derivative there is 0
        return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, total)))
    size = jnp.abs(x)
    if np.isinf(ord):
        return (jnp.max if ord > 0 else jnp.min)(size, axis=along, keepdims=keepdim)
    if ord == 0:
        return jnp.sum(x != 0, axis=along, keepdims=keepdim).astype(x.dtype)
    return jnp.sum(size**ord, axis=along, keepdims=keepdim) ** (1.0 / ord)


@rule("aten._softmax", "aten.softmax")
def softmax(x: Any, dim: int, *args: Any) -> Any:
    return jax.nn.softmax(x, dim)


@rule("aten._log_softmax", "aten.log_softmax")
def log_softmax(x: Any, dim: int, *args: Any) -> Any:
    return jax.nn.log_softmax(x, dim)


@rule("aten.trace")
def trace(x: Any) -> Any:
    return jnp.trace(x)


@rule("aten.equal")
def equal(x: Any, y: Any) -> Any:
    return jnp.array_equal(x, y)
