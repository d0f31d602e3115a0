r"""Rotation of factors: bring the loadings of every draw into one orientation.

The data see loadings W only through :math:`W W^\top` (plus noise), so draws of W may be turned against
each other by any matrix of the model's group: all orthogonal matrices, permutations of factors with signs,
or signs alone. Averages over draws that are turned against each other mean nothing. Each draw is therefore
turned to a common reference by the matrix of the group that brings it nearest in the Frobenius norm:

- orthogonal: :math:`R = U V^\top` from the singular value decomposition of :math:`W^\top W_0` (Schoenemann
  1966, *Psychometrika* 31);
- signed permutations: the assignment that maximises :math:`\sum_k |W_{\cdot j(k)}^\top W_{0 \cdot k}|`;
- signs: the sign of :math:`W_{\cdot k}^\top W_{0 \cdot k}`.

The reference is the mean of the turned draws, found by iteration (generalised Procrustes, Gower 1975,
*Psychometrika* 40). Its own orientation is a convention: varimax (Kaiser 1958, *Psychometrika* 23) where all
orthogonal matrices are allowed, factors in descending order of their sum of squares where they may be
permuted, and signs that make the sum of cubed loadings positive. Turned draws have the density of the draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Rotation
from ppl_lvm.rotation._varimax import find_varimax_turn

Array = np.ndarray
_ROUNDS = 20


def find_turns(loadings: Array, reference: Array, kind: str) -> Array:
    """Matrices (s, q, q) of the group that bring loadings (s, d, q) nearest to a reference (d, q)."""
    inner = np.swapaxes(loadings, -1, -2) @ reference
    if kind == "orthogonal":
        u, _, vt = np.linalg.svd(inner)
        return u @ vt
    q = reference.shape[-1]
    turns = np.zeros((len(loadings), q, q))
    if kind == "signs":
        turns[:, np.arange(q), np.arange(q)] = _sign(np.diagonal(inner, axis1=-2, axis2=-1))
        return turns
    from scipy.optimize import linear_sum_assignment

    for t, products in enumerate(inner):
        rows, columns = linear_sum_assignment(-np.abs(products))
        turns[t, rows, columns] = _sign(products[rows, columns])
    return turns


def column_sds(values: Mapping[str, Array], rotation: Rotation) -> Array:
    """Typical sd of each variable, (d,), by which loadings of different units are compared."""
    total = (np.asarray(values[rotation.by]) ** 2).sum(-1)
    if rotation.units is not None and rotation.units in values:
        noise = np.asarray(values[rotation.units])
        total = total + (noise**2 if noise.ndim == 2 else noise[:, None] ** 2)
    sds = np.sqrt(total.mean(0))
    return np.where(sds > 0, sds, 1.0)


def turn(values: Mapping[str, Array], rotation: Rotation, turns: Array) -> dict[str, Array]:
    """Values (s, ...) with every axis of factors turned by the draw's matrix (s, q, q)."""
    out = dict(values)
    for axes, matrices in ((rotation.axes, turns), (rotation.permuted, np.abs(turns))):
        for site in set(axes) & set(values):
            value = np.asarray(values[site])
            for axis in axes[site]:
                value = _turn_axis(value, matrices, axis + 1)
            out[site] = value
    return out


def _turn_axis(value: Array, matrices: Array, axis: int) -> Array:
    moved = np.moveaxis(value, axis, -1)
    flat = moved.reshape(len(moved), -1, moved.shape[-1]) @ matrices
    return np.moveaxis(flat.reshape(moved.shape), -1, axis)


def find_reference(loadings: Array, kind: str, pivot: int) -> Array:
    """The reference (d, q) of draws (s, d, q), starting from one draw's orientation."""
    reference = conventional(loadings[pivot], kind)
    for _ in range(_ROUNDS if len(loadings) > 1 else 0):
        turned = loadings @ find_turns(loadings, reference, kind)
        new = conventional(turned.mean(0), kind)
        if np.allclose(new, reference, rtol=1e-9, atol=1e-12):
            break
        reference = new
    return reference


def conventional(loadings: Array, kind: str) -> Array:
    """One matrix (d, q) in the conventional orientation of its group."""
    out = varimax(loadings) if kind == "orthogonal" else loadings
    if kind != "signs":
        out = out[:, np.argsort(-(out**2).sum(0), kind="stable")]
    return out * _sign((out**3).sum(0))


def varimax(loadings: Array, *, tol: float = 1e-12, max_iter: int = 1000) -> Array:
    """Loadings (d, q) turned to maximise the variance of their squares by column (Kaiser 1958).

    Rows are scaled to length 1 for the criterion (Kaiser's normalisation) and back. ``tol`` is the relative
    gain in the criterion that is not worth another step; :mod:`ppl_lvm.rotation._varimax` has the steps.
    """
    if loadings.shape[1] < 2:
        return loadings
    length = np.sqrt((loadings**2).sum(1, keepdims=True))
    rows = loadings / np.where(length > 0, length, 1.0)
    return loadings @ find_varimax_turn(rows, tol=tol, max_iter=max_iter)


def subspace_angles(loadings_a: Any, loadings_b: Any) -> Array:
    """Principal angles between the column spaces of loadings (..., d, q), radians, descending, (..., q).

    Cosines give large angles and sines small ones, each where it is accurate (Bjorck and Golub 1973,
    *Mathematics of Computation* 27).

    Raises
    ------
    ValueError
        If the loadings differ in their number of columns of the data or of factors.
    """
    a, b = np.asarray(loadings_a, float), np.asarray(loadings_b, float)
    if a.ndim < 2 or a.shape[-2:] != b.shape[-2:]:
        raise ValueError(f"loadings: expected two arrays (..., d, q), got shapes {a.shape} and {b.shape}.")
    qa, qb = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    inner = np.swapaxes(qa, -1, -2) @ qb
    cosine = np.linalg.svd(inner, compute_uv=False)[..., ::-1]
    sine = np.linalg.svd(qb - qa @ inner, compute_uv=False)
    small = cosine**2 > 0.5
    return np.where(small, np.arcsin(np.clip(sine, 0.0, 1.0)), np.arccos(np.clip(cosine, -1.0, 1.0)))


def _sign(x: Array) -> Array:
    return np.where(x < 0, -1.0, 1.0)
