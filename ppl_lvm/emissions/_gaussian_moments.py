"""Weighted moments of rows by state, complete or with missing coordinates; what M-steps of normals need."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.emissions._base import Values
from ppl_lvm.emissions._priors import Array

FLOOR_SHARE = 1e-6
"""Least variance of a maximum likelihood estimate, as a share of the column's variance."""

_LEAST_LEFT = 1e-4  # of a sum of squares after subtraction: 12 digits of 16


@dataclass(frozen=True, eq=False)
class Moments:
    """Summed weights ``count`` (k, d), weighted means (k, d), and scatter about them: (k, d, d) or (k, d)."""

    count: Array
    mean: Array
    scatter: Array


_LAST: list[Any] = []  # a weak reference to the last array that cannot change, and its moments


def column_moments(x: Array, seen: Array | None) -> tuple[Array, Array]:
    """Mean and variance (d,) of the observed entries; a constant column gets the mean variance, or 1.

    Iterations ask for those of the same array again and again: they are kept for the last one that is
    read-only.
    """
    if x.flags.writeable:
        return _column_moments(x, seen)
    if not _LAST or _LAST[0]() is not x or _LAST[1] is not seen:
        _LAST[:] = [weakref.ref(x), seen, _column_moments(x, seen)]
    found: tuple[Array, Array] = _LAST[2]
    return found


def _column_moments(x: Array, seen: Array | None) -> tuple[Array, Array]:
    share = np.ones_like(x) if seen is None else seen
    count = np.maximum(share.sum(0), 1.0)
    mean = (x * share).sum(0) / count
    away = (x - mean) * share
    variance = (away**2).sum(0) / count
    sound = variance > 1e-24 * np.abs(x).max(0) ** 2
    typical = variance[sound].mean() if sound.any() else 1.0
    return mean, np.where(sound, variance, typical)


def diagonal_moments(x: Array, seen: Array | None, weights: Array) -> Moments:
    """Of each column by itself, over its observed entries.

    By two matrix products: moments about the column means, less the square of a state's distance from there.
    Where that leaves too few digits of a scatter, it is summed anew about the state's own mean.
    """
    d = x.shape[1]
    centre, _ = column_moments(x, seen)
    away = x - centre if seen is None else (x - centre) * seen
    count = np.repeat(weights.sum(1)[:, None], d, axis=1) if seen is None else weights @ seen
    first, scatter = weights @ away, weights @ (away * away)
    shift = first / np.maximum(count, np.finfo(float).tiny)
    scatter -= shift * first
    for j in np.flatnonzero((scatter < _LEAST_LEFT * shift * first).any(1)):
        each = (away - shift[j]) ** 2
        scatter[j] = weights[j] @ (each if seen is None else each * seen)
    return Moments(count, centre + shift, scatter)


def dense_moments(x: Array, seen: Array | None, weights: Array, loc: Array, tril: Array) -> Moments:
    """Of whole rows; missing coordinates enter by their conditional moments at loc (k, d), tril (k, d, d).

    Those are the expected sufficient statistics of Dempster, Laird and Rubin (1977, JRSS B 39, section 4.1):
    a step that uses them never lowers the likelihood of what was observed.
    """
    k, d = len(weights), x.shape[1]
    total = weights.sum(1)
    count = np.maximum(total, np.finfo(float).tiny)[:, None]
    centre, _ = column_moments(x, seen)
    mean, scatter = np.empty((k, d)), np.empty((k, d, d))
    groups = [] if seen is None else _patterns(seen)
    for j in range(k):
        away = x - centre
        spare = np.zeros((d, d))
        for here, rows in groups:
            away[rows], left = _conditional(away[rows], here, loc[j] - centre, tril[j])
            spare += weights[j, rows].sum() * left
        shift = weights[j] @ away / count[j]
        away -= shift
        mean[j] = centre + shift
        scatter[j] = (away * weights[j][:, None]).T @ away + spare
    return Moments(np.repeat(total[:, None], d, axis=1), mean, scatter)


def _patterns(seen: Array) -> list[tuple[Array, Array]]:
    """Patterns of observed coordinates that leave some out, and the rows of each."""
    patterns, index = np.unique(seen > 0, axis=0, return_inverse=True)
    return [(p, np.flatnonzero(index.ravel() == i)) for i, p in enumerate(patterns) if not p.all()]


def _conditional(rows: Array, here: Array, loc: Array, tril: Array) -> tuple[Array, Array]:
    """Rows with the missing coordinates at their conditional means, and these' conditional covariance."""
    covariance, away = tril @ tril.T, ~here
    filled, left = rows.copy(), np.zeros_like(covariance)
    slope = np.zeros((int(away.sum()), int(here.sum())))
    if here.any():
        slope = np.linalg.solve(covariance[np.ix_(here, here)], covariance[np.ix_(here, away)]).T
    filled[:, away] = loc[away] + (rows[:, here] - loc[here]) @ slope.T
    part = covariance[np.ix_(away, away)] - slope @ covariance[np.ix_(here, away)]
    left[np.ix_(away, away)] = 0.5 * (part + part.T)
    return filled, left


def factors(params: Values, covariance: str) -> Array:
    """Cholesky factors (k, d, d) of the states' covariances."""
    k, d = np.shape(params["loc"])
    scale = np.asarray(params["scale"])
    scale = {"tied": scale[None], "spherical": scale[:, None]}.get(covariance, scale)
    corr = params.get("corr_tril", np.eye(d))
    return np.broadcast_to(np.broadcast_to(scale, (len(scale), d))[..., None] * corr, (k, d, d))
