r"""Algebra of one Gaussian with covariance W W' + Psi, by pattern of missing entries. NumPy only.

With R = diag(seen / scale^2) and M = I + W' R W, over the entries seen (Woodbury):

.. math:: C^{-1} = R - R W M^{-1} W' R, \qquad \log|C| = \log|M| + \sum_f 2 \log \mathrm{scale}_f, \qquad
   z \mid x \sim \mathrm{Normal}(M^{-1} W' R (x - \mathrm{loc}),\, M^{-1}).

Only q x q matrices are factorised. At noise 0 (ordinary PCA) the posterior of z is the least-squares fit,
without spread. Correlated factors enter as W L, where L L' is their correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
_BLOCK = 4096
LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True)
class Point:
    """One draw: loc (d,), loadings (d, q) of independent factors, noise sds (d,), factor_tril (q, q)."""

    loc: Array
    loadings: Array
    scale: Array
    factor_tril: Array | None = None

    @property
    def degenerate(self) -> bool:
        return bool((self.scale == 0).all())

    def covariance(self) -> Array:
        """W W' + Psi, (d, d)."""
        return self.loadings @ self.loadings.T + np.diag(self.scale**2)


@dataclass(frozen=True)
class Solved:
    """What a pattern's posterior of z needs, for patterns (p, ...).

    ``root`` (p, q, q) with root' root = M^-1, ``precision`` (p, d) the diagonal of R, ``log_det`` (p,) of C.
    """

    root: Array
    precision: Array
    log_det: Array


def solve(point: Point, seen: Array) -> Solved:
    """For patterns seen (p, d)."""
    w = point.loadings
    d, q = w.shape
    pairs = (w[:, :, None] * w[:, None, :]).reshape(d, q * q)
    if point.degenerate:
        gram = (seen @ pairs).reshape(-1, q, q)
        values, vectors = np.linalg.eigh(gram)  # directions that a row does not show get no part of it
        shown = values > 1e-12 * np.maximum(values[:, -1:], np.finfo(float).tiny)
        inverse_root = np.where(shown, 1.0 / np.sqrt(np.where(shown, values, 1.0)), 0.0)
        root = inverse_root[:, :, None] * np.swapaxes(vectors, 1, 2)
        return Solved(root, seen, np.full(len(seen), -np.inf))
    precision = seen / point.scale**2
    tril = np.linalg.cholesky(np.eye(q) + (precision @ pairs).reshape(-1, q, q))
    log_det = 2 * np.log(np.diagonal(tril, axis1=1, axis2=2)).sum(1) + 2 * seen @ np.log(point.scale)
    return Solved(np.linalg.inv(tril), precision, log_det)


class Patterns:
    """Rows (n, d), NaN where missing, sorted out by what they miss; reused for every draw."""

    def __init__(self, x: Array) -> None:
        self.x = x
        missing = np.isnan(x)
        if missing.any():
            bits = np.packbits(~missing, axis=1)
            _, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
            self.seen, self.which = (~missing[first]).astype(float), inverse.ravel()
        else:
            self.seen, self.which = np.ones((1, x.shape[1])), np.zeros(len(x), int)
        self.complete = not missing.any()

    def blocks(self) -> list[slice]:
        return [slice(i, i + _BLOCK) for i in range(0, len(self.x), _BLOCK)]

    def centred(self, loc: Array, rows: slice) -> Array:
        """x - loc with 0 where missing, (b, d)."""
        away = self.x[rows] - loc
        return away if self.complete else np.where(np.isnan(away), 0.0, away)

    def roots(self, solved: Solved, rows: slice) -> Array:
        """``root`` of each row, (b or 1, q, q)."""
        return solved.root if len(solved.root) == 1 else solved.root[self.which[rows]]

    def precisions(self, solved: Solved, rows: slice) -> Array:
        return solved.precision if len(solved.precision) == 1 else solved.precision[self.which[rows]]


def log_likelihood(point: Point, patterns: Patterns) -> Array:
    """Log density of each row over its observed entries, (n,); 0 for a row without any."""
    solved = solve(point, patterns.seen)
    constant = (solved.log_det + patterns.seen.sum(1) * LOG_2PI)[patterns.which]
    out = np.empty(len(patterns.x))
    for rows in patterns.blocks():
        away = patterns.centred(point.loc, rows)
        weighted = patterns.precisions(solved, rows) * away
        half = apply(patterns.roots(solved, rows), weighted @ point.loadings)
        out[rows] = -0.5 * ((weighted * away).sum(1) - (half**2).sum(1) + constant[rows])
    return out


def apply(matrices: Array, vectors: Array, transpose: bool = False) -> Array:
    """matrices (b or 1, r, c) times vectors (b, c), row by row."""
    matrices = np.swapaxes(matrices, 1, 2) if transpose else matrices
    if len(matrices) == 1:
        return vectors @ matrices[0].T
    return np.matmul(matrices, vectors[..., None])[..., 0]


def posterior_mean(point: Point, patterns: Patterns, solved: Solved, rows: slice) -> Array:
    """E[z | x] of independent factors for a block of rows, (b, q)."""
    weighted = patterns.precisions(solved, rows) * patterns.centred(point.loc, rows)
    roots = patterns.roots(solved, rows)
    return apply(roots, apply(roots, weighted @ point.loadings), transpose=True)


def posterior_variance(point: Point, solved: Solved) -> Array:
    """Posterior variances of z by pattern, (p, q), correlated factors included."""
    if point.degenerate:
        return np.zeros(solved.root.shape[:2])
    root = solved.root if point.factor_tril is None else solved.root @ point.factor_tril.T
    return (root**2).sum(1)


def turn(point: Point, z: Array) -> Array:
    """Independent factors (..., q) as the model's own, which may be correlated."""
    return z if point.factor_tril is None else z @ point.factor_tril.T


@dataclass(frozen=True)
class Completed:
    """Expected complete data: log likelihood of the observed, mean (d,) and covariance (d, d) of the rows."""

    log_likelihood: float
    mean: Array
    covariance: Array


def expect(point: Point, count: Array, mean: Array, scatter: Array, seen: Array) -> Completed:
    """The E-step on sufficient statistics, missing entries (not z) being the complete data's hidden part."""
    total, solved = count.sum(), solve(point, seen)
    w = point.loadings
    away = (mean - point.loc) * seen
    weighted = solved.precision * away
    half = apply(solved.root, weighted @ w)
    z = apply(solved.root, half, transpose=True)
    squares = count * ((weighted * away).sum(1) - (half**2).sum(1))
    dense = len(scatter)
    filled = away + (1.0 - seen) * (z @ w.T)
    shift = count @ filled / total
    second = (filled * count[:, None]).T @ filled
    spread = 0.0
    complete = bool((seen > 0).all())
    for p in range(dense):
        across = solved.root[p] @ (w.T * solved.precision[p])
        spread += (solved.precision[p] * scatter[p].diagonal()).sum() - ((across @ scatter[p]) * across).sum()
        if complete:
            second += scatter[p]
            continue
        fill = np.diag(seen[p]) + ((1.0 - seen[p])[:, None] * w) @ (solved.root[p].T @ across)
        second += fill @ scatter[p] @ fill.T
    if not complete:
        hidden = np.sqrt(count)[:, None] * (1.0 - seen)
        if not point.degenerate:
            for block in (slice(i, i + _BLOCK) for i in range(0, len(seen), _BLOCK)):
                parts = hidden[block][:, :, None] * np.matmul(w[None], np.swapaxes(solved.root[block], 1, 2))
                parts = np.moveaxis(parts, 0, 1).reshape(len(w), -1)
                second += parts @ parts.T
        second += np.diag((hidden**2).sum(0) * point.scale**2)
    if point.degenerate:  # no density: the objective is minus the squared distance to the plane
        value = -0.5 * (squares.sum() + spread)
    else:
        constant = count @ (solved.log_det + seen.sum(1) * LOG_2PI)
        value = -0.5 * (constant + squares.sum() + spread)
    covariance = second / total - np.outer(shift, shift)
    return Completed(float(value), point.loc + shift, 0.5 * (covariance + covariance.T))
