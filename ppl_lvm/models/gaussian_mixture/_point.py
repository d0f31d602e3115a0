"""The mixture's parameters while EM runs, and the two forms in which the E-step needs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppl_lvm.emissions._linalg import inverse_tril
from ppl_lvm.models.gaussian_mixture._checks import Array


@dataclass(frozen=True, eq=False)
class Point:
    """Parameters in the frame of `_start.Frame`.

    `weights` (k,); `loc` (k, d); `factor`, the Cholesky factors of the covariances, full (k, d, d) and
    tied (d, d), or standard deviations, diag (k, d) and spherical (k,).
    """

    weights: Array
    loc: Array
    factor: Array


def log_constants(point: Point, covariance: str) -> Array:
    """Log weight less the log normaliser of each component, (k,)."""
    k, d = point.loc.shape
    if covariance in ("full", "tied"):
        log_det = np.log(np.diagonal(point.factor, axis1=-2, axis2=-1)).sum(-1)
    else:
        log_det = np.broadcast_to(np.log(point.factor).reshape(k, -1), (k, d)).sum(1)
    return np.log(point.weights) - log_det - 0.5 * d * np.log(2.0 * np.pi)


def natural_parameters(point: Point, covariance: str) -> Array:
    """B (k, width) with log p(x, j) = B_j . phi(x); tied: less -x' P x / 2, which the components share."""
    loc, constant = point.loc, log_constants(point, covariance)
    k, d = loc.shape
    if covariance in ("full", "tied"):
        whiten = inverse_tril(point.factor)
        precision = np.swapaxes(whiten, -1, -2) @ whiten
        linear = np.matmul(precision, loc[:, :, None])[:, :, 0]
        lower = np.tril_indices(d)
        twice = np.where(lower[0] == lower[1], 1.0, 2.0)  # x_a x_b stands for both (a, b) and (b, a)
        quadratic = np.empty((k, 0))
        if covariance == "full":
            quadratic = -0.5 * precision[:, lower[0], lower[1]] * twice
    else:
        inverse = 1.0 / point.factor.reshape(k, -1) ** 2
        linear, quadratic = loc * inverse, -0.5 * inverse
    constant = constant - 0.5 * (loc * linear).sum(1)
    return np.concatenate([quadratic, linear, constant[:, None]], axis=1)


def condition(point: Point, covariance: str) -> float:
    """Size of the terms of B phi(x) near a component: second moment about the centre over least variance."""
    loc, factor = point.loc, point.factor
    if covariance in ("full", "tied"):
        spread = (loc**2).sum(1) + (factor**2).sum((-2, -1))
        return float((spread * (inverse_tril(factor) ** 2).sum((-2, -1))).max())
    if covariance == "diag":
        return float((1.0 + (loc / factor) ** 2).max())
    return float((loc.shape[1] + (loc**2).sum(1) / factor**2).max())
