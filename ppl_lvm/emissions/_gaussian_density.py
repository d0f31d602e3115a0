"""Log densities of rows under normal distributions, complete or with missing coordinates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppl_lvm.emissions._base import Library, Values
from ppl_lvm.emissions._linalg import inverse_factor, inverse_tril
from ppl_lvm.emissions._priors import Array

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def by_column(scale: Any, covariance: str) -> Any:
    """``scale`` with an axis of states and one of columns, either of which may have length 1."""
    return {"tied": scale[..., None, :], "spherical": scale[..., None]}.get(covariance, scale)


def log_prob(lib: Library, params: Values, x: Any, seen: Any | None, covariance: str) -> Any:
    """log Normal(observed entries of x_i; state j), (..., k, n).

    x - loc is taken before any product: it is exact near a state, however far from the origin the data lie.
    Data run along the last axis, where compiled loops are long; each factor is inverted once.
    """
    xp = lib.xp
    if seen is not None and "corr_tril" in params:
        return _log_prob_missing(lib, params, x, seen, covariance)
    loc, scale = params["loc"], by_column(params["scale"], covariance)
    z = (x.T - loc[..., None]) / scale[..., None]
    log_sd = xp.broadcast_to(xp.log(scale), (*scale.shape[:-1], x.shape[1]))
    if "corr_tril" in params:
        corr = params["corr_tril"]
        corr = corr[..., None, :, :] if covariance == "tied" else corr
        z = inverse_factor(xp, corr) @ z
        log_sd = log_sd + xp.log(xp.diagonal(corr, axis1=-2, axis2=-1))
    if seen is None:
        return -0.5 * (z**2).sum(-2) - (log_sd + _HALF_LOG_2PI).sum(-1)[..., None]
    return -0.5 * ((z * seen.T) ** 2).sum(-2) - (log_sd + _HALF_LOG_2PI) @ seen.T


def padded(loc: Any, covariance: Any, seen: Any) -> tuple[Any, Any]:
    """Mean and covariance of a row whose missing coordinates were replaced by independent ones.

    These have mean 0 and variance 1 / (2 pi), so that their density is 1 at 0, the value that fills a missing
    entry: the density of the whole row is that of the observed coordinates.
    """
    both = seen[..., :, None] * seen[..., None, :]
    spare = (1.0 - seen) / (2.0 * math.pi)
    return loc * seen, covariance * both + spare[..., None] * _eye_like(covariance)


def _eye_like(matrix: Any) -> Any:
    d = matrix.shape[-1]
    if isinstance(matrix, np.ndarray):
        return np.eye(d)
    if hasattr(matrix, "new_zeros"):  # a torch tensor
        import torch

        return torch.eye(d, dtype=matrix.dtype, device=matrix.device)
    import jax.numpy as jnp

    return jnp.eye(d, dtype=matrix.dtype)


def _log_prob_missing(lib: Library, params: Values, x: Any, seen: Any, covariance: str) -> Any:
    tril = params["scale"][..., None] * params["corr_tril"]
    tril = tril[..., None, :, :] if covariance == "tied" else tril
    if lib.xp is np:
        return _by_pattern(params["loc"], tril, x, seen)
    return _by_row(lib.xp, params["loc"], tril, x, seen)


def _by_pattern(loc: Array, tril: Array, x: Array, seen: Array) -> Array:
    """In NumPy: rows with the same coordinates missing share one factor of what is left."""
    out = np.zeros((*loc.shape[:-1], len(x)))
    patterns, index = np.unique(seen > 0, axis=0, return_inverse=True)
    for p, here in enumerate(patterns):
        if not here.any():
            continue
        rows = np.flatnonzero(index.ravel() == p)
        factor = tril
        if not here.all():
            part = tril[..., here, :]
            factor = np.linalg.cholesky(part @ np.swapaxes(part, -1, -2))
        z = inverse_tril(factor) @ (x[rows][:, here].T - loc[..., here, None])
        log_det = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
        out[..., rows] = -0.5 * (z**2).sum(-2) - (log_det + here.sum() * _HALF_LOG_2PI)[..., None]
    return out


def _by_row(xp: Any, loc: Any, tril: Any, x: Any, seen: Any) -> Any:
    """Under a compiler patterns are not known: every row has a factor of its own, (..., k, n, d, d)."""
    import jax.scipy.linalg

    full = (tril @ xp.swapaxes(tril, -1, -2))[..., None, :, :]
    mean, covariance = padded(loc[..., None, :], full, seen)
    factor = xp.linalg.cholesky(covariance)
    z = jax.scipy.linalg.solve_triangular(factor, (x * seen - mean)[..., None], lower=True)[..., 0]
    log_det = xp.log(xp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    return -0.5 * (z**2).sum(-1) - log_det - x.shape[1] * _HALF_LOG_2PI
