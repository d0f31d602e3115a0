"""Operators that make tensors. (With constant arguments they are evaluated once, by torch.)"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import torch

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import jax_dtype


def _dtype(dtype: Any, like: Any = None) -> Any:
    if dtype is not None:
        return jax_dtype(dtype)
    return jnp.asarray(like).dtype if like is not None else jax_dtype(torch.get_default_dtype())


@rule("aten.zeros")
def zeros(size: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.zeros(tuple(size), _dtype(dtype))


@rule("aten.ones")
def ones(size: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.ones(tuple(size), _dtype(dtype))


@rule("aten.full")
def full(size: Any, value: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.full(tuple(size), value, None if dtype is None else jax_dtype(dtype))


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


@rule("aten.empty", "aten.empty.memory_format")
def empty(size: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.zeros(tuple(size), _dtype(dtype))


@rule("aten.empty_like")
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


@rule("aten.scalar_tensor")
def scalar_tensor(value: Any, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.asarray(value, None if dtype is None else jax_dtype(dtype))


@rule("aten.arange")
def arange(*args: Any, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.arange(*args, dtype=None if dtype is None else jax_dtype(dtype))


@rule("aten.linspace")
def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.linspace(start, end, steps, dtype=_dtype(dtype))


@rule("aten.eye")
def eye(n: int, m: int | None = None, *, dtype: Any = None, **kwargs: Any) -> Any:
    return jnp.eye(n, m, dtype=_dtype(dtype))
