"""Products, factorisations and solves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np

from ppl_lvm.backends.translate.rules import rule
from ppl_lvm.backends.translate.rules.reduction import vector_norm

_SMALL = 4


@rule("aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot")
def matmul(x: Any, y: Any) -> Any:
    if jnp.ndim(x) > 2 and jnp.shape(x)[-2] == jnp.shape(y)[-1] == 1:  # inner products, as in contractions
        return (x * jnp.swapaxes(y, -1, -2)).sum(-1, keepdims=True)
    if jnp.ndim(x) > 2 and jnp.ndim(y) > 2 and max(*jnp.shape(x)[-2:], jnp.shape(y)[-1]) <= _SMALL:
        return (x[..., :, :, None] * y[..., None, :, :]).sum(-2)  # a library's call each costs more
    return jnp.matmul(x, y)


@rule("aten.addmm", "aten.addmv", "aten.baddbmm")
def addmm(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    product = jnp.matmul(x, y)
    return (c if beta == 1 else beta * c) + (product if alpha == 1 else alpha * product)


@rule("aten.addbmm")
def addbmm(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return beta * c + alpha * jnp.matmul(x, y).sum(0)


@rule("aten.linalg_cross")
def cross(x: Any, y: Any, *, dim: int = -1) -> Any:
    return jnp.cross(x, y, axis=dim)


def _distance(difference: Any, p: float) -> Any:
    return vector_norm(difference, float(p), -1)


@rule("aten._cdist_forward")
def cdist(x: Any, y: Any, p: float, mode: Any = None) -> Any:
    return _distance(x[..., :, None, :] - y[..., None, :, :], p)


@rule("aten._pdist_forward")
def pdist(x: Any, p: float = 2) -> Any:
    rows, columns = np.triu_indices(jnp.shape(x)[0], 1)
    return _distance(x[rows] - x[columns], p)


@rule("aten._euclidean_dist")
@jax.custom_jvp
def euclidean_dist(x: Any, y: Any) -> Any:
    """By products of matrices as in torch, rounding of near points included; the derivative at 0 is 0."""
    products = jnp.matmul(x, jnp.swapaxes(y, -1, -2))
    squares = jnp.sum(x * x, -1)[..., :, None] + jnp.sum(y * y, -1)[..., None, :]
    return jnp.sqrt(jnp.maximum(squares - 2 * products, 0.0))


@euclidean_dist.defjvp
def _euclidean_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    (x, y), (dx, dy) = primals, tangents
    out = euclidean_dist(x, y)
    zero = out == 0
    along = jnp.sum(x * dx, -1)[..., :, None] + jnp.sum(y * dy, -1)[..., None, :]
    along -= jnp.matmul(x, jnp.swapaxes(dy, -1, -2)) + jnp.matmul(dx, jnp.swapaxes(y, -1, -2))
    return out, jnp.where(zero, 0.0, along / jnp.where(zero, 1.0, out))


@rule("aten.tril")
def tril(x: Any, diagonal: int = 0) -> Any:
    return jnp.tril(x, diagonal)


@rule("aten.triu")
def triu(x: Any, diagonal: int = 0) -> Any:
    return jnp.triu(x, diagonal)


@rule("aten.diag_embed")
def diag_embed(x: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    n = jnp.shape(x)[-1] + abs(offset)
    rows = jnp.arange(jnp.shape(x)[-1]) + max(-offset, 0)
    columns = jnp.arange(jnp.shape(x)[-1]) + max(offset, 0)
    out = jnp.zeros((*jnp.shape(x)[:-1], n, n), jnp.asarray(x).dtype).at[..., rows, columns].set(x)
    return jnp.moveaxis(out, (-2, -1), (dim1, dim2))


@rule("aten.block_diag")
def block_diag(tensors: Any) -> Any:
    return jsl.block_diag(*[jnp.atleast_2d(t) for t in tensors])
