"""Products, factorisations and solves."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import lax

from ppl_lvm.backends.translate.rules import rule


@rule("aten.mm", "aten.bmm", "aten.mv", "aten.matmul", "aten.dot", "aten.vdot", "aten.linalg_matmul")
def matmul(x: Any, y: Any) -> Any:
    return jnp.matmul(x, y)


@rule("aten.addmm", "aten.addmv", "aten.baddbmm")
def addmm(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    product = jnp.matmul(x, y)
    return (c if beta == 1 else beta * c) + (product if alpha == 1 else alpha * product)


@rule("aten.addbmm")
def addbmm(c: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return beta * c + alpha * jnp.matmul(x, y).sum(0)


@rule("aten.outer", "aten.ger")
def outer(x: Any, y: Any) -> Any:
    return jnp.outer(x, y)


@rule("aten.linalg_cross")
def cross(x: Any, y: Any, *, dim: int = -1) -> Any:
    return jnp.cross(x, y, axis=dim)


@rule("aten.kron")
def kron(x: Any, y: Any) -> Any:
    return jnp.kron(x, y)


@rule("aten.einsum")
def einsum(equation: str, tensors: Any, path: Any = None) -> Any:
    return jnp.einsum(equation, *tensors)


@rule("aten.linalg_cholesky_ex")
def cholesky_ex(x: Any, *, upper: bool = False, check_errors: bool = False) -> Any:
    """NaN where the matrix is not positive definite (torch raises): a sampler sees a divergence."""
    factor = jnp.linalg.cholesky(jnp.tril(x) + jnp.swapaxes(jnp.tril(x, -1), -1, -2))
    if upper:
        factor = jnp.swapaxes(factor, -1, -2)
    return factor, jnp.zeros(jnp.shape(x)[:-2], jnp.int32)


@rule("aten.cholesky", "aten.linalg_cholesky")
def cholesky(x: Any, upper: bool = False) -> Any:
    return cholesky_ex(x, upper=upper)[0]


@rule("aten._linalg_check_errors")
def check_errors(*args: Any, **kwargs: Any) -> None:
    return None


@rule("aten.cholesky_solve")
def cholesky_solve(b: Any, factor: Any, upper: bool = False) -> Any:
    lower = jnp.swapaxes(factor, -1, -2) if upper else factor
    half = triangular(lower, b, upper=False)
    return triangular(jnp.swapaxes(lower, -1, -2), half, upper=True)


@rule("aten.cholesky_inverse")
def cholesky_inverse(factor: Any, upper: bool = False) -> Any:
    eye = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    return cholesky_solve(eye, factor, upper)


@rule("aten.linalg_solve_triangular")
def triangular(a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    shape = jnp.broadcast_shapes(jnp.shape(a)[:-2], jnp.shape(b)[:-2])
    a = jnp.broadcast_to(a, shape + jnp.shape(a)[-2:])
    b = jnp.broadcast_to(b, shape + jnp.shape(b)[-2:])
    return lax.linalg.triangular_solve(
        a, b, left_side=left, lower=not upper, transpose_a=False, unit_diagonal=unitriangular
    )


@rule("aten.triangular_solve")
def triangular_solve(
    b: Any, a: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    matrix = jnp.swapaxes(a, -1, -2) if transpose else a
    out = triangular(matrix, b, upper=upper != transpose, unitriangular=unitriangular)
    return out, a


def _vector_solve(a: Any, b: Any) -> bool:
    """Torch takes b as a batch of vectors where its shape is that of a without the last axis."""
    return jnp.ndim(b) == 1 or (jnp.ndim(a) - 1 == jnp.ndim(b) and jnp.shape(b) == jnp.shape(a)[:-1])


@rule("aten._linalg_solve_ex", "aten.linalg_solve_ex")
def solve_ex(a: Any, b: Any, *, left: bool = True, check_errors: bool = False) -> Any:
    vector = _vector_solve(a, b)
    right = b[..., None] if vector else b
    if left:
        out = jnp.linalg.solve(a, right)
    else:
        out = jnp.swapaxes(jnp.linalg.solve(jnp.swapaxes(a, -1, -2), jnp.swapaxes(right, -1, -2)), -1, -2)
    return out[..., 0] if vector else out, None, None, jnp.zeros((), jnp.int32)


@rule("aten.linalg_solve")
def solve(a: Any, b: Any, *, left: bool = True) -> Any:
    return solve_ex(a, b, left=left)[0]


@rule("aten.linalg_inv_ex")
def inv_ex(a: Any, *, check_errors: bool = False) -> Any:
    return jnp.linalg.inv(a), jnp.zeros(jnp.shape(a)[:-2], jnp.int32)


@rule("aten.inverse", "aten.linalg_inv")
def inverse(a: Any) -> Any:
    return jnp.linalg.inv(a)


@rule("aten._linalg_slogdet")
def slogdet_parts(a: Any) -> Any:
    sign, logabs = jnp.linalg.slogdet(a)
    return sign, logabs, None, None


@rule("aten.linalg_slogdet", "aten.slogdet")
def slogdet(a: Any) -> Any:
    return tuple(jnp.linalg.slogdet(a))


@rule("aten._linalg_det")
def det_parts(a: Any) -> Any:
    return jnp.linalg.det(a), None, None


@rule("aten.linalg_det", "aten.det")
def det(a: Any) -> Any:
    return jnp.linalg.det(a)


@rule("aten._linalg_eigh")
def eigh(a: Any, uplo: str = "L", compute_v: bool = True) -> Any:
    symmetric = jnp.tril(a) + jnp.swapaxes(jnp.tril(a, -1), -1, -2)
    if uplo == "U":
        symmetric = jnp.triu(a) + jnp.swapaxes(jnp.triu(a, 1), -1, -2)
    values, vectors = jnp.linalg.eigh(symmetric, symmetrize_input=False)
    return values, vectors


@rule("aten._linalg_svd")
def svd(a: Any, full_matrices: bool = False, compute_uv: bool = True, *, driver: Any = None) -> Any:
    if not compute_uv:
        return None, jnp.linalg.svd(a, compute_uv=False), None
    return tuple(jnp.linalg.svd(a, full_matrices=full_matrices))


@rule("aten.linalg_qr")
def qr(a: Any, mode: str = "reduced") -> Any:
    return tuple(jnp.linalg.qr(a, mode))


@rule("aten.linalg_matrix_exp")
def matrix_exp(a: Any) -> Any:
    return jsl.expm(a) if jnp.ndim(a) == 2 else jnp.vectorize(jsl.expm, signature="(n,n)->(n,n)")(a)


@rule("aten.tril")
def tril(x: Any, diagonal: int = 0) -> Any:
    return jnp.tril(x, diagonal)


@rule("aten.triu")
def triu(x: Any, diagonal: int = 0) -> Any:
    return jnp.triu(x, diagonal)


@rule("aten.diag")
def diag(x: Any, diagonal: int = 0) -> Any:
    return jnp.diag(x, diagonal)


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
