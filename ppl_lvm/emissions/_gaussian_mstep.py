"""M-steps of normal emissions: maximum likelihood above a floor, and the posterior mode by blocks."""

from __future__ import annotations

import numpy as np

from ppl_lvm.emissions._base import Values
from ppl_lvm.emissions._gaussian_moments import (
    FLOOR_SHARE,
    Moments,
    column_moments,
    dense_moments,
    diagonal_moments,
    factors,
)
from ppl_lvm.emissions._priors import Array

_LEAST_COUNT = 1e-10  # a state with less data than this keeps its parameters


def m_step(
    x: Array,
    seen: Array | None,
    weights: Array,
    prior: Values | None,
    current: Values | None,
    covariance: str,
) -> dict[str, Array]:
    """Next parameters; see ``Emission.m_step``.

    Maximum likelihood is exact where rows are complete or columns independent: the weighted moments, with
    variances (eigenvalues of the covariance in units of the column sds) held at or above 1e-6 of the
    column's. With missing coordinates, and for the posterior mode, it is one step of EM and ECM (Meng and
    Rubin 1993, Biometrika 80), which never lowers the objective.
    """
    dense = covariance in ("full", "tied") and x.shape[1] > 1
    before = dict(current) if current is not None else _start(x, seen, len(weights), covariance, dense)
    if dense:
        tril = factors(before, covariance)
        moments = dense_moments(x, seen, weights, np.asarray(before["loc"]), tril)
    else:
        moments = diagonal_moments(x, seen, weights)
    if prior is not None:
        return _mode(moments, prior, before, covariance, dense)
    return _maximum_likelihood(moments, column_moments(x, seen)[1], before, covariance, dense)


def at_floor(params: Values, x: Array, seen: Array | None, covariance: str) -> Array:
    """States (k,) whose least variance is within a factor of two of the floor."""
    tril = factors(params, covariance) / np.sqrt(column_moments(x, seen)[1])[:, None]
    least = np.linalg.svd(tril, compute_uv=False)[:, -1] ** 2
    return np.asarray(least < 2.0 * FLOOR_SHARE)


def _start(x: Array, seen: Array | None, k: int, covariance: str, dense: bool) -> dict[str, Array]:
    """The columns' own mean and spread for every state."""
    mean, variance = column_moments(x, seen)
    d = len(mean)
    scale = {"tied": np.sqrt(variance), "spherical": np.full(k, np.sqrt(variance.mean()))}
    start = {
        "loc": np.tile(mean, (k, 1)),
        "scale": scale.get(covariance, np.tile(np.sqrt(variance), (k, 1))),
    }
    if dense:
        start["corr_tril"] = np.eye(d) if covariance == "tied" else np.tile(np.eye(d), (k, 1, 1))
    return start


# ---- maximum likelihood ----------------------------------------------------------------------------


def _maximum_likelihood(
    moments: Moments, variance: Array, before: Values, covariance: str, dense: bool
) -> dict[str, Array]:
    alive = moments.count > _LEAST_COUNT
    safe = np.where(alive, moments.count, 1.0)
    loc = np.where(alive, moments.mean, before["loc"])
    floor = FLOOR_SHARE * variance
    if dense and covariance == "full":
        raw = moments.scatter / safe[:, :1, None]
        tril = np.stack(
            [
                _raised_factor(each, variance)
                for each in np.where(alive[..., None], raw, np.eye(len(variance)))
            ]
        )
        tril = np.where(alive[..., None], tril, factors(before, covariance))
        return {"loc": loc, **_parts(tril)}
    if dense:
        tril = _raised_factor(moments.scatter.sum(0) / moments.count[:, 0].sum(), variance)
        return {"loc": loc, **_parts(tril)}
    if covariance == "tied":
        scale = np.sqrt(np.maximum(moments.scatter.sum(0) / moments.count.sum(0), floor))
    elif covariance == "spherical":
        total = moments.count.sum(1)
        full = total > _LEAST_COUNT
        each = np.sqrt(np.maximum(moments.scatter.sum(1) / np.where(full, total, 1.0), floor.mean()))
        scale = np.where(full, each, before["scale"])
    else:
        scale = np.where(alive, np.sqrt(np.maximum(moments.scatter / safe, floor)), before["scale"])
    return {"loc": loc, "scale": scale}


def _raised_factor(covariance: Array, variance: Array) -> Array:
    """Cholesky factor of the likeliest covariance with eigenvalues, in column sds, at the floor or above."""
    sd = np.sqrt(variance)
    relative = covariance / (sd[:, None] * sd)
    values, vectors = np.linalg.eigh(relative)
    if values[0] < FLOOR_SHARE:
        root = vectors * np.sqrt(np.maximum(values, FLOOR_SHARE))
        relative = root @ root.T
    return sd[:, None] * np.linalg.cholesky(relative)


def _parts(tril: Array) -> dict[str, Array]:
    """``scale`` and ``corr_tril`` of Cholesky factors (..., d, d)."""
    scale = np.sqrt((tril**2).sum(-1))
    return {"scale": scale, "corr_tril": tril / scale[..., None]}


# ---- posterior mode --------------------------------------------------------------------------------


def _mode(moments: Moments, prior: Values, before: Values, covariance: str, dense: bool) -> dict[str, Array]:
    """loc given the covariances, then these given loc: each the maximiser over its block."""
    from ppl_lvm.emissions._modes import log_scale_mode  # scipy.optimize is slow to load

    step = _step_from_mean(moments, prior, before, covariance, dense)
    loc, count = moments.mean + step, moments.count
    a, b = prior["scale_loc"], float(prior["scale_scale"])
    if dense:
        scatter = moments.scatter + count[:, :1, None] * step[:, :, None] * step[:, None, :]
        tril = factors(before, covariance)
        if covariance == "tied":
            found = _dense_mode(scatter.sum(0), float(count[:, 0].sum()), prior, tril[0])
        else:
            each = zip(scatter, count[:, 0], tril, strict=True)
            found = np.stack([_dense_mode(s, float(c), prior, now) for s, c, now in each])
        return {"loc": loc, **_parts(found)}
    scatter = moments.scatter + count * step**2
    if covariance == "tied":
        scatter, count = scatter.sum(0), count.sum(0)
    elif covariance == "spherical":
        scatter, count = scatter.sum(1), count.sum(1)
    return {"loc": loc, "scale": np.exp(log_scale_mode(scatter, count, a, b))}


def _step_from_mean(moments: Moments, prior: Values, before: Values, covariance: str, dense: bool) -> Array:
    """loc less the weighted mean: (N I + Sigma S0^-1) step = Sigma S0^-1 (prior mean - mean).

    S0 is the prior's covariance. No covariance is inverted, and an empty state gets the prior mean.
    """
    pull, count = prior["loc_mean"] - moments.mean, moments.count
    if dense:
        tril = factors(before, covariance)
        shrink = (tril @ np.swapaxes(tril, -1, -2)) / prior["loc_scale"] ** 2
        system = count[:, :, None] * np.eye(pull.shape[1]) + shrink
        return np.linalg.solve(system, (shrink @ pull[:, :, None]))[:, :, 0]
    scale = np.asarray(before["scale"])
    scale = {"tied": scale[None], "spherical": scale[:, None]}.get(covariance, scale)
    shrink = (scale / prior["loc_scale"]) ** 2
    return shrink * pull / (count + shrink)


def _dense_mode(scatter: Array, count: float, prior: Values, current: Array) -> Array:
    from ppl_lvm.emissions._modes import CovarianceMode

    a, b = prior["scale_loc"], float(prior["scale_scale"])
    mixed = scatter + current @ current.T  # one pseudo-datum, for an empty state
    reference = np.linalg.cholesky(mixed / (count + 1.0))
    return CovarianceMode(scatter, count, a, b, float(prior["corr_concentration"])).solve(current, reference)
