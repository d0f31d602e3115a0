"""Operators that only rearrange."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules._types import axes, size_of


@rule("aten.view", "aten.view_copy", "aten._unsafe_view", "aten._reshape_alias")
def view(x: Any, size: Any, *args: Any) -> Any:
    return jnp.reshape(x, size_of(size, jnp.shape(x)))


@rule("aten.expand", "aten.expand_copy")
def expand(x: Any, size: Any, implicit: bool = False) -> Any:
    shape = (1,) * (len(size) - jnp.ndim(x)) + jnp.shape(x)
    full = tuple(own if wanted == -1 else wanted for own, wanted in zip(shape, size, strict=True))
    return jnp.broadcast_to(x, full)


@rule("aten.permute", "aten.permute_copy")
def permute(x: Any, dims: Any) -> Any:
    return jnp.transpose(x, axes(dims, jnp.ndim(x))) if dims else x


@rule("aten.transpose", "aten.transpose_copy")
def transpose(x: Any, a: int, b: int) -> Any:
    return jnp.swapaxes(x, a, b) if jnp.ndim(x) else x


@rule("aten.t", "aten.t_copy")
def t(x: Any) -> Any:
    return jnp.transpose(x)


@rule("aten.squeeze", "aten.squeeze_copy")
def squeeze(x: Any, dim: Any = None) -> Any:
    shape = jnp.shape(x)
    if not shape:
        return x
    chosen = [a for a in axes(dim, len(shape)) if shape[a] == 1] if dim != [] else []
    return jnp.squeeze(x, tuple(chosen))


@rule("aten.unsqueeze", "aten.unsqueeze_copy")
def unsqueeze(x: Any, dim: int) -> Any:
    return jnp.expand_dims(x, dim)


@rule("aten.cat")
def cat(tensors: Any, dim: int = 0) -> Any:
    kept = [v for v in tensors if jnp.shape(v) != (0,)]  # torch lets the empty vector stand for any shape
    return jnp.concatenate(kept or list(tensors), dim)


@rule("aten.stack")
def stack(tensors: Any, dim: int = 0) -> Any:
    return jnp.stack(tensors, dim)


@rule(
    "aten.split",
    "aten.split_copy",
    "aten.split_with_sizes",
    "aten.split_with_sizes_copy",
    "aten.unsafe_split",
    "aten.unsafe_split_with_sizes",
)
def split(x: Any, size: Any, dim: int = 0) -> Any:
    length = jnp.shape(x)[dim]
    sizes = list(size) if not isinstance(size, int) else [size] * (-(-length // size) if size else 1)
    ends, at = [], 0
    for s in sizes[:-1]:
        at += s
        ends.append(at)
    return tuple(jnp.split(x, ends, dim))


@rule("aten.unbind", "aten.unbind_copy")
def unbind(x: Any, dim: int = 0) -> Any:
    moved = jnp.moveaxis(x, dim, 0)
    return tuple(moved[i] for i in range(moved.shape[0]))


@rule("aten.repeat")
def repeat(x: Any, repeats: Any) -> Any:
    shape = (1,) * (len(repeats) - jnp.ndim(x)) + jnp.shape(x)
    return jnp.tile(jnp.reshape(x, shape), tuple(repeats))


@rule("aten.flip")
def flip(x: Any, dims: Any) -> Any:
    return jnp.flip(x, tuple(dims))


@rule("aten.roll")
def roll(x: Any, shifts: Any, dims: Any = ()) -> Any:
    if not dims:
        return jnp.reshape(jnp.roll(jnp.ravel(x), shifts[0]), jnp.shape(x))
    return jnp.roll(x, tuple(shifts), tuple(dims))


@rule("aten.rot90")
def rot90(x: Any, k: int = 1, dims: Any = (0, 1)) -> Any:
    return jnp.rot90(x, k, tuple(dims))


@rule("aten.diagonal", "aten.diagonal_copy")
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return jnp.diagonal(x, offset, dim1, dim2)


@rule("aten.view_as_complex", "aten.view_as_complex_copy")
def view_as_complex(x: Any) -> Any:
    return x[..., 0] + 1j * x[..., 1]


@rule("aten.view_as_real", "aten.view_as_real_copy")
def view_as_real(x: Any) -> Any:
    return jnp.stack([jnp.real(x), jnp.imag(x)], -1)
