"""Operators that sum, compare or accumulate along axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import absolute, axes, with_axis
from ppl_lvm.backends.translate.rules.ordering import cast, pick


def _reducer(function: Any) -> Any:
    def reduce(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        x = cast(x, dtype)
        return function(x, axis=axes(dim, jnp.ndim(x)), keepdims=keepdim)

    return reduce


for _name, _function in {
    "sum": jnp.sum,
    "mean": jnp.mean,
    "nansum": jnp.nansum,
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


@rule("aten.max.dim")
def max_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    if jnp.ndim(x) == 0:
        return x, jnp.zeros((), int)
    return pick(x, jnp.argmax(x, dim, keepdims=True), dim, keepdim)


@rule("aten.min.dim")
def min_dim(x: Any, dim: int, keepdim: bool = False) -> Any:
    if jnp.ndim(x) == 0:
        return x, jnp.zeros((), int)
    return pick(x, jnp.argmin(x, dim, keepdims=True), dim, keepdim)


@rule("aten.argmax")
@with_axis
def argmax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.argmax(x, dim, keepdims=keepdim)


@rule("aten.argmin")
@with_axis
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
    variance = var(x, dim, unbiased, keepdim, correction=correction)
    zero = variance == 0  # torch's derivative there is 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, variance)))


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


@rule("aten.linalg_vector_norm", "aten.norm")
def vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    x, along = cast(x, dtype), axes(dim, jnp.ndim(x))
    if ord is None or ord == 2:
        total = jnp.sum(x * x, axis=along, keepdims=keepdim)
        zero = total == 0  # torch's derivative there is 0
        return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, total)))
    size = absolute(x)
    if np.isinf(ord):
        return (jnp.max if ord > 0 else jnp.min)(size, axis=along, keepdims=keepdim)
    if ord == 0:
        return jnp.sum(x != 0, axis=along, keepdims=keepdim).astype(x.dtype)
    if ord == 1:
        return jnp.sum(size, axis=along, keepdims=keepdim)
    zero = size == 0  # torch's derivative there is 0
    total = jnp.sum(jnp.where(zero, 0.0, jnp.where(zero, 1.0, size) ** ord), axis=along, keepdims=keepdim)
    zero = total == 0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, total) ** (1.0 / ord))


@rule("aten._softmax")
@with_axis
def softmax(x: Any, dim: int, *args: Any) -> Any:
    return jax.nn.softmax(x, dim)


@rule("aten._safe_softmax")
@with_axis
def safe_softmax(x: Any, dim: int, *args: Any) -> Any:
    """Zero where all are minus infinity, as attention has it for what sees nothing."""
    nothing = jnp.all(x == -jnp.inf, dim, keepdims=True)
    return jnp.where(nothing, 0.0, jax.nn.softmax(jnp.where(nothing, 0.0, x), dim))


@rule("aten._log_softmax")
@with_axis
def log_softmax(x: Any, dim: int, *args: Any) -> Any:
    return jax.nn.log_softmax(x, dim)


@rule("aten.trace")
def trace(x: Any) -> Any:
    return jnp.trace(x)
