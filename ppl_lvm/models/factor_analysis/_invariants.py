"""Quantities of factor models that no turn of the factors changes. NumPy only."""

from __future__ import annotations

import numpy as np

from ppl_lvm.models.factor_analysis._gaussian import Point

Array = np.ndarray
MOST_COLUMNS = 12  # a covariance matrix of more columns would swamp every table


def invariants(points: list[Point], tied: bool) -> dict[str, Array]:
    """``communality`` (s, d), ``singular_values`` (s, q) and, up to 12 columns, ``implied_cov`` (s, d, d).

    The communality is the share of a column's variance that the factors explain; singular values are those
    of the loadings (of independent factors), descending, in units of the data; the implied covariance is
    W R W' + Psi, squared units.
    """
    loadings = np.array([p.loadings for p in points])
    noise = np.array([p.scale for p in points]) ** 2
    common = (loadings**2).sum(-1)
    total = common + noise
    out = {
        "communality": np.divide(common, total, out=np.zeros_like(common), where=total > 0),
        "singular_values": np.linalg.svd(loadings, compute_uv=False),
    }
    d = loadings.shape[1]
    if d <= MOST_COLUMNS:
        cov = loadings @ np.swapaxes(loadings, 1, 2)
        cov[:, np.arange(d), np.arange(d)] += noise
        out["implied_cov"] = cov
    return out
