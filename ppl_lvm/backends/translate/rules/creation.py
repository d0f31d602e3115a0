"""Operators that make tensors like another. (Those with constant arguments torch evaluates, once.)"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import jax_dtype


def _dtype(dtype: Any, like: Any) -> Any:
    return jnp.asarray(like).dtype if dtype is None else jax_dtype(dtype)


@rule("aten.zeros_like")
def zeros_like(x: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.zeros(jnp.shape(x), _dtype(dtype, x))


@rule("aten.ones_like")
def ones_like(x: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.ones(jnp.shape(x), _dtype(dtype, x))


@rule("aten.full_like")
def full_like(x: Any, value: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.full(jnp.shape(x), value, _dtype(dtype, x))


@rule("aten.new_zeros", "aten.new_empty")
def new_zeros(x: Any, size: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.zeros(tuple(size), _dtype(dtype, x))


@rule("aten.empty_like", "aten.zero")
def empty_like(x: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return zeros_like(x, dtype=dtype)


@rule("aten.new_ones")
def new_ones(x: Any, size: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.ones(tuple(size), _dtype(dtype, x))


@rule("aten.new_full")
def new_full(x: Any, size: Any, value: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.full(tuple(size), value, _dtype(dtype, x))


@rule("aten.fill")
def fill(x: Any, value: Any) -> Any:
    return jnp.full(jnp.shape(x), value, jnp.asarray(x).dtype)
