"""Factorisations of matrices, and solves with them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import lax

from ppl_lvm.backends.translate.rules import rule


def _hermitian(x: Any, upper: bool = False) -> Any:
    """Torch reads one triangle, and gives the derivative with respect to the symmetric part."""
    mirrored = jnp.triu(x) + _adjoint(jnp.triu(x, 1)) if upper else jnp.tril(x) + _adjoint(jnp.tril(x, -1))
    part = (x + _adjoint(x)) / 2
    return part + lax.stop_gradient(mirrored - part)


def _adjoint(x: Any) -> Any:
    return jnp.conj(jnp.swapaxes(x, -1, -2))


@rule("aten.linalg_cholesky_ex")
def cholesky_ex(x: Any, *, upper: bool = False, check_errors: bool = False) -> Any:
    """NaN where the matrix is not positive definite (torch raises): a sampler sees a divergence."""
    factor = jnp.linalg.cholesky(_hermitian(x, upper), symmetrize_input=False)
    if upper:
        factor = jnp.swapaxes(factor, -1, -2)
    return factor, jnp.zeros(jnp.shape(x)[:-2], jnp.int32)


@rule("aten.cholesky")
def cholesky(x: Any, upper: bool = False) -> Any:
    return cholesky_ex(x, upper=upper)[0]


@rule("aten.cholesky_solve")
def cholesky_solve(b: Any, factor: Any, upper: bool = False) -> Any:
    return _solve_by_factor(b, _adjoint(factor) if upper else factor)


@jax.custom_jvp
def _solve_by_factor(b: Any, lower: Any) -> Any:
    half = triangular(lower, b, upper=False)
    return triangular(_adjoint(lower), half, upper=True)


@_solve_by_factor.defjvp
def _solve_by_factor_slope(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """That of the inverse of L L^T for any L, as in torch, though only the lower triangle is read."""
    (b, lower), (db, slope) = primals, tangents
    out = _solve_by_factor(b, lower)
    turn = slope @ _adjoint(lower)
    return out, _solve_by_factor(db - (turn + _adjoint(turn)) @ out, lower)


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


@rule("aten._linalg_solve_ex")
def solve_ex(a: Any, b: Any, *, left: bool = True, check_errors: bool = False) -> Any:
    vector = _vector_solve(a, b)
    right = b[..., None] if vector else b
    if left:
        out = jnp.linalg.solve(a, right)
    else:
        out = jnp.swapaxes(jnp.linalg.solve(jnp.swapaxes(a, -1, -2), jnp.swapaxes(right, -1, -2)), -1, -2)
    return out[..., 0] if vector else out, None, None, jnp.zeros((), jnp.int32)


@rule("aten.linalg_inv_ex")
def inv_ex(a: Any, *, check_errors: bool = False) -> Any:
    return jnp.linalg.inv(a), jnp.zeros(jnp.shape(a)[:-2], jnp.int32)


@rule("aten._linalg_slogdet")
def slogdet_parts(a: Any) -> Any:
    sign, logabs = jnp.linalg.slogdet(a)
    return sign, logabs, None, None


@rule("aten._linalg_det")
def det_parts(a: Any) -> Any:
    return jnp.linalg.det(a), None, None


@rule("aten._linalg_eigh")
def eigh(a: Any, uplo: str = "L", compute_v: bool = True) -> Any:
    return tuple(jnp.linalg.eigh(_hermitian(a, uplo == "U"), symmetrize_input=False))


@rule("aten._linalg_svd")
def svd(a: Any, full_matrices: bool = False, compute_uv: bool = True, *, driver: Any = None) -> Any:
    if not compute_uv:
        return None, jnp.linalg.svd(a, compute_uv=False), None
    square = jnp.shape(a)[-1] == jnp.shape(a)[-2]  # JAX has derivatives of the reduced form only
    return tuple(jnp.linalg.svd(a, full_matrices=full_matrices and not square))


@rule("aten.linalg_qr")
def qr(a: Any, mode: str = "reduced") -> Any:
    if mode == "r":
        return jnp.zeros((0,), a.dtype), jnp.linalg.qr(a, mode)
    return tuple(jnp.linalg.qr(a, mode))


@rule("aten.linalg_lu_factor_ex")
def lu_factor_ex(a: Any, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """Pivots count from 1, as LAPACK's."""
    factor, pivots, _ = lax.linalg.lu(a)
    return factor, pivots + 1, jnp.zeros(jnp.shape(a)[:-2], jnp.int32)


@rule("aten.lu_unpack")
def lu_unpack(factor: Any, pivots: Any, data: bool = True, use_pivots: bool = True) -> Any:
    """P, L, U with a = P L U."""
    rows, columns = jnp.shape(factor)[-2:]
    least = min(rows, columns)
    order = lax.linalg.lu_pivots_to_permutation(pivots - 1, rows)
    swaps = jnp.swapaxes(jnp.eye(rows, dtype=factor.dtype)[order], -1, -2)
    lower = jnp.tril(factor[..., :least], -1) + jnp.eye(rows, least, dtype=factor.dtype)
    return swaps, lower, jnp.triu(factor[..., :least, :])


@rule("aten.linalg_lu")
def lu(a: Any, *, pivot: bool = True) -> Any:
    return lu_unpack(*lu_factor_ex(a)[:2])


@rule("aten.linalg_lu_solve")
def lu_solve(factor: Any, pivots: Any, b: Any, *, left: bool = True, adjoint: bool = False) -> Any:
    swaps, lower, upper = lu_unpack(factor, pivots)
    matrix = swaps @ lower @ upper
    return solve_ex(_adjoint(matrix) if adjoint else matrix, b, left=left)[0]


@rule("aten.linalg_pinv")
def pinv(a: Any, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Any:
    """Singular values below max(atol, rtol times the largest) count as none."""
    if hermitian:  # torch reads a triangle, but takes the derivative as that of any matrix
        a = a + lax.stop_gradient(_hermitian(a) - a)
    if rtol is None:
        rtol = 0.0 if atol is not None else max(jnp.shape(a)[-2:]) * float(jnp.finfo(a.dtype).eps)
    if atol is not None:
        largest = lax.stop_gradient(jnp.linalg.svd(a, compute_uv=False)[..., 0])
        rtol = jnp.maximum(rtol, atol / jnp.where(largest > 0, largest, 1.0))
    return jnp.linalg.pinv(a, rtol=rtol)


@rule("aten.linalg_lstsq")
def lstsq(a: Any, b: Any, rcond: Any = None, *, driver: Any = None) -> Any:
    """The solution; ranks and singular values are not worked out."""
    rows, columns = jnp.shape(a)[-2:]
    right = b[..., None] if _vector_solve(a, b) else b
    out = jnp.linalg.pinv(a, rtol=rcond) @ right
    given = rows > columns and driver not in (None, "gelsy")
    rest = jnp.sum((a @ out - right) ** 2, -2) if given else jnp.zeros((0,), a.dtype)
    return out[..., 0] if right is not b else out, rest, None, None


@rule("aten.linalg_matrix_exp")
def matrix_exp(a: Any) -> Any:
    return jsl.expm(a) if jnp.ndim(a) == 2 else jnp.vectorize(jsl.expm, signature="(n,n)->(n,n)")(a)
