"""Densities of the Gaussian mixture in NumPy: the prior, and the data given each component.

Internal to the mixture's exact part. Draw axes are flattened to one before anything is computed, so that
every array here is (draws, component, feature, row) or a reduction of it; the component-major layout lets
both the triangular products and the log-sum-exp run along contiguous rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import gammaln, xlogy

from ppl_lvm.emissions._linalg import inverse_tril
from ppl_lvm.emissions._priors import log_lkj_cholesky
from ppl_lvm.models.gaussian_mixture._checks import Array, Values

CHUNK_ELEMENTS = 2**19
"""Doubles in the largest temporary of a pass over draws x rows, however many (4 MiB: measured fastest)."""

_LOG_2PI = float(np.log(2.0 * np.pi))


def log_prior(flat: Values, prior: Values) -> Array:
    """Log density (draws,) of the continuous sites in constrained space, normalised."""
    alpha = prior["concentration"]
    total = xlogy(alpha - 1.0, flat["weights"]).sum(-1) + gammaln(alpha.sum()) - gammaln(alpha).sum()
    total = total + _log_normal(flat["loc"], prior["loc_mean"], prior["loc_scale"]).sum((-2, -1))
    log_scale = np.log(flat["scale"])
    terms = _log_normal(log_scale, prior["scale_loc"], prior["scale_scale"]) - log_scale
    total = total + terms.reshape(len(terms), -1).sum(-1)
    if "corr_tril" in flat:
        per_matrix = log_lkj_cholesky(flat["corr_tril"], float(prior["corr_concentration"]))
        total = total + per_matrix.reshape(len(total), -1).sum(-1)
    return total


def _log_normal(x: Array, mean: Array, sd: Array) -> Array:
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * _LOG_2PI


def log_joint_chunks(flat: Values, x: Array, covariance: str) -> Iterator[tuple[slice, slice, Array]]:
    """Yield (draws, rows, log p(x_row, assignment = j | draw)), the last of shape (draws, k, rows).

    x - loc is taken before any product: it is exact where it matters (near the component), however far from
    the origin the data sit. Chunks hold at most `CHUNK_ELEMENTS` doubles.
    """
    num_draws, k, d = flat["loc"].shape
    xt = np.ascontiguousarray(x.T)
    rows_step = min(len(x), max(1, CHUNK_ELEMENTS // (k * d)))
    draws_step = max(1, CHUNK_ELEMENTS // (k * d * max(rows_step, d)))
    for first in range(0, num_draws, draws_step):
        draws = slice(first, min(first + draws_step, num_draws))
        loc, scale, whiten, constant = _chunk_parameters(flat, draws, covariance)
        for start in range(0, len(x), rows_step):
            rows = slice(start, min(start + rows_step, len(x)))
            z = (xt[:, rows] - loc[..., None]) / scale[..., None]
            if whiten is not None:
                z = np.matmul(whiten, z)
            yield draws, rows, constant[..., None] - 0.5 * np.einsum("skdt,skdt->skt", z, z)


def _chunk_parameters(
    flat: Values, draws: slice, covariance: str
) -> tuple[Array, Array, Array | None, Array]:
    """loc (s, k, d); scale (s, k or 1, d or 1); inverse correlation factor; log weight - log normaliser."""
    loc, scale = flat["loc"][draws], flat["scale"][draws]
    d = loc.shape[-1]
    scale = {"tied": scale[:, None, :], "spherical": scale[..., None]}.get(covariance, scale)
    log_det = np.broadcast_to(np.log(scale), (*scale.shape[:-1], d)).sum(-1)
    whiten = None
    if "corr_tril" in flat:
        tril = flat["corr_tril"][draws]
        tril = tril[:, None] if covariance == "tied" else tril
        whiten = inverse_tril(tril)
        log_det = log_det + np.log(np.diagonal(tril, axis1=-2, axis2=-1)).sum(-1)
    with np.errstate(divide="ignore"):  # a weight of exactly 0 means log weight -inf, and no responsibility
        constant = np.log(flat["weights"][draws]) - log_det - 0.5 * d * _LOG_2PI
    return loc, scale, whiten, constant


def log_sum_exp(log_terms: Array) -> Array:
    """log sum_j exp(.) over axis 1 of (draws, k, rows)."""
    top = log_terms.max(1)
    return top + np.log(np.exp(log_terms - top[:, None]).sum(1))
