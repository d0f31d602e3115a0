r"""The turn that maximises the varimax criterion. NumPy only.

For rows Y = X Q of d variables and q factors the criterion (Kaiser 1958, *Psychometrika* 23) is, up to a
factor,

.. math:: f(Q) = \tfrac14 \sum_j \Bigl[ \sum_i y_{ij}^4 - \tfrac1d \Bigl(\sum_i y_{ij}^2\Bigr)^2 \Bigr].

Two kinds of steps lead to its maximum over orthogonal matrices Q. *Projections* set Q to the orthogonal
matrix nearest to the gradient (Horst 1965, *Factor Analysis of Data Matrices*, chapter 18): they find the way
from almost anywhere, and crawl at the end where loadings have little structure. *Newton* steps go from Q to
Q exp(A) for the skew A that maximises the second-order expansion

.. math:: f + \langle M, A \rangle + \tfrac12 \sum_c A_{\cdot c}^\top
   \Bigl[ Y^\top \mathrm{diag}(3 y_{\cdot c}^2 - m_c) Y - \tfrac2d K_{\cdot c} K_{\cdot c}^\top
   - \tfrac12 (M + M^\top) \Bigr] A_{\cdot c},

where m are the mean squares by column, M = Y'[Y (Y^2 - m)] and K = Y'Y: three or four of them end where
hundreds of projections do. They are taken only where f is concave, so that they end at the maximum that
projections lead to.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

Array = np.ndarray
_PROJECTIONS = 8  # between attempts at a Newton step, which costs about as much as four of them
_MOST_FACTORS = 24  # above, the q (q - 1) / 2 angles are too many for Newton's linear system
_LARGEST_ANGLE = 1.0  # radians: the expansion says nothing about longer steps
_RIDGE = 1e-12  # of the largest curvature: angles that change nothing, as between two empty columns, stay


class _Here(NamedTuple):
    """A turn (q, q); rows turned by it (d, q), their squares, mean squares by column (q,), f."""

    turn: Array
    now: Array
    squares: Array
    mean: Array
    value: float


def find_varimax_turn(rows: Array, *, tol: float, max_iter: int) -> Array:
    """The orthogonal matrix (q, q), q at least 2, that brings rows (d, q) to a maximum of the criterion.

    Steps end where the criterion would rise by less than ``tol`` of itself, or after ``max_iter``
    projections.
    """
    here = _at(rows, np.eye(rows.shape[1]))
    for _ in range(max(1, max_iter // _PROJECTIONS)):
        before = here.value
        here = _project(rows, here, tol)
        if rows.shape[1] <= _MOST_FACTORS:
            here, done = _newton(rows, here, tol)
            if done:
                break
        if here.value <= before + _worth(here, tol):
            there = _climb(rows, here, tol) if rows.shape[1] <= _MOST_FACTORS else None
            if there is None:
                break
            here = there
    return _nearest(here.turn)  # rounding in the steps has taken it off the group


def _at(rows: Array, turn: Array) -> _Here:
    now = rows @ turn
    squares = now * now
    mean = squares.sum(0) / len(rows)
    value = 0.25 * float(np.vdot(squares, squares) - len(rows) * np.vdot(mean, mean))
    return _Here(turn, now, squares, mean, value)


def _nearest(matrix: Array) -> Array:
    u, _, vt = np.linalg.svd(matrix)
    nearest: Array = u @ vt
    return nearest


def _project(rows: Array, here: _Here, tol: float) -> _Here:
    """Projections, until they gain less than ``tol`` of the criterion."""
    shift = 0.0
    for _ in range(_PROJECTIONS):
        gradient = rows.T @ (here.now * (here.squares - here.mean))
        there = _at(rows, _nearest(gradient + shift * here.turn))
        if there.value < here.value:  # f is not quite convex: a shorter step rises
            shift = 2.0 * shift + float(np.linalg.norm(gradient))
            continue
        risen = there.value > here.value + _worth(here, tol)
        here = there
        if not risen:
            break
    return here


def _newton(rows: Array, here: _Here, tol: float) -> tuple[_Here, bool]:
    """Newton steps while f is concave and rises, and whether they came to rest at a maximum."""
    from scipy.linalg.lapack import dposv

    while True:
        slope, curvature = _expand(here)
        curvature.flat[:: len(slope) + 1] += _RIDGE * np.abs(curvature.diagonal()).max()
        _, angles, failed = dposv(curvature, slope)
        if failed or np.abs(angles).max() > _LARGEST_ANGLE:
            return here, False
        there = _turned(rows, here, angles)
        if slope @ angles <= _worth(here, tol):
            return there, True
        if there.value <= here.value:
            return here, False
        here = there


def _climb(rows: Array, here: _Here, tol: float) -> _Here | None:
    """A step up where projections and Newton steps fail; None at a maximum.

    Newton's step with every curvature taken as concave, and a push along the most convex direction: balanced
    loadings, such as two factors with entries 1 and -1 alone, are exactly at a minimum.
    """
    slope, curvature = _expand(here)
    values, vectors = np.linalg.eigh(curvature)
    size = np.abs(values)
    along = vectors.T @ slope
    step = along / np.maximum(size, max(1e-6 * size.max(), np.finfo(float).tiny))
    if values[0] < -1e-6 * size.max():
        step[0] += 0.1 if along[0] >= 0 else -0.1
    angles = vectors @ step
    angles *= min(1.0, _LARGEST_ANGLE / max(np.abs(angles).max(), np.finfo(float).tiny))
    for power in range(10):
        there = _turned(rows, here, 0.5**power * angles)
        if there.value > here.value + _worth(here, tol):
            return there
    return None


def _worth(here: _Here, tol: float) -> float:
    """The least rise that counts: a share of f, and more than rounding in its sums."""
    return tol * here.value + 1e-15 * len(here.now)


def _turned(rows: Array, here: _Here, angles: Array) -> _Here:
    """After a further turn by exp(A) in Cayley's form, which agrees to second order."""
    q = rows.shape[1]
    low, high, *_ = _places(q)
    half, eye = np.zeros((q, q)), np.eye(q)
    half[low, high], half[high, low] = 0.5 * angles, -0.5 * angles
    return _at(rows, here.turn @ np.linalg.solve(eye - half, eye + half))


def _expand(here: _Here) -> tuple[Array, Array]:
    """Slope and minus the second derivatives of f in the angles, the entries of A below the diagonal."""
    now, squares, mean = here.now, here.squares, here.mean
    d, q = now.shape
    inner, gram = now.T @ (now * (squares - mean)), now.T @ now
    pairs = (now[:, :, None] * now[:, None, :]).reshape(d, q * q)
    blocks = 3.0 * (squares.T @ pairs).reshape(q, q, q) - mean[:, None, None] * gram
    blocks -= (2.0 / d) * gram[:, :, None] * gram[:, None, :] + 0.5 * (inner + inner.T)
    full = np.zeros((q, q, q, q))  # (column, row) of A twice
    columns = np.arange(q)
    full[columns, :, columns, :] = blocks
    matrix = full.reshape(q * q, q * q)
    low, high, below, above = _places(q)
    rows = matrix[above] - matrix[below]
    return (inner - inner.T)[low, high], rows[:, below] - rows[:, above]


@lru_cache(maxsize=64)
def _places(q: int) -> tuple[Array, Array, Array, Array]:
    """Rows and columns below the diagonal; places of these entries, and of those across, in A' laid flat."""
    low, high = np.tril_indices(q, -1)
    return low, high, high * q + low, low * q + high
