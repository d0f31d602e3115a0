"""torch dtypes as JAX ones, and axes as torch gives them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

_DTYPES = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.complex128: np.complex128,
    torch.complex64: np.complex64,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.int8: np.int8,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


def has_jax_dtype(dtype: torch.dtype) -> bool:
    return dtype in _DTYPES


def jax_dtype(dtype: torch.dtype) -> Any:
    """The dtype that JAX has for a torch one, 32 bits where 64-bit mode is off."""
    if dtype not in _DTYPES:
        raise ValueError(f"dtype: {dtype} has no counterpart in JAX; use float64 or float32.")
    return jax.dtypes.canonicalize_dtype(_DTYPES[dtype])


def axes(dim: Any, ndim: int) -> tuple[int, ...]:
    """Torch's ``dim`` argument (None or [] mean all) as a tuple of axes from the front."""
    if dim is None:
        return tuple(range(ndim))
    listed = (dim,) if isinstance(dim, int) else tuple(dim)
    if not listed:
        return tuple(range(ndim))
    return tuple(d % ndim if ndim else 0 for d in listed) if ndim else ()


def with_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    """Torch takes ``dim=0`` of a tensor without axes, as if it had one of length 1."""

    @wraps(function)
    def apply(x: Any, *args: Any, **kwargs: Any) -> Any:
        if jnp.ndim(x):
            return function(x, *args, **kwargs)
        given = [v[None] if isinstance(v, jax.Array | np.ndarray) and jnp.ndim(v) == 0 else v for v in args]
        out = function(jnp.reshape(x, (1,)), *given, **kwargs)
        return jax.tree_util.tree_map(lambda v: jnp.reshape(v, ()), out)

    return apply


def size_of(requested: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape in which -1 (view) is worked out from the number of elements."""
    wanted = [int(s) for s in requested]
    if -1 in wanted:
        rest = int(np.prod([s for s in wanted if s != -1], dtype=np.int64))
        wanted[wanted.index(-1)] = int(np.prod(shape, dtype=np.int64)) // rest if rest else 0
    return tuple(wanted)


def absolute(x: Any) -> Any:
    """With derivative 0 at 0, as torch has it; JAX has 1 there."""
    size = jnp.abs(x)
    return jnp.where(size == 0, 0, jnp.abs(jnp.where(size == 0, 1, x))).astype(size.dtype)


def each(value: Any, count: int) -> tuple[int, ...]:
    """One number for every spatial axis, where torch gives one for all."""
    listed = (value,) if isinstance(value, int) else tuple(value)
    return listed * count if len(listed) == 1 else listed
