"""Which columns anchor the turn of the factors."""

from __future__ import annotations

import numpy as np

from ppl_lvm.models._statistics import SufficientStatistics
from ppl_lvm.models._threads import one_blas_thread
from ppl_lvm.models.factor_analysis._gaussian import Point, expect


def choose_anchors(statistics: SufficientStatistics, latent_dim: int) -> tuple[int, ...]:
    """q columns whose loadings point in directions as different as can be.

    By pivoted QR of the first principal axes of the correlation matrix (missing entries at the column means).
    Which columns these are changes nothing of the posterior; good ones keep the diagonal of the triangular
    loadings away from 0.
    """
    from scipy.linalg.lapack import dgeqp3

    spread = np.sqrt(statistics.column_variance)
    unit = np.where(spread > 0, spread, 1.0)
    if statistics.complete:
        covariance = statistics.scatter[0] / statistics.num_rows
    else:
        blank = Point(statistics.column_mean, np.zeros((len(spread), latent_dim)), unit)
        covariance = expect(blank, *statistics.arrays().values()).covariance
    with one_blas_thread(len(unit)):
        values, vectors = np.linalg.eigh(covariance / np.outer(unit, unit))
        axes = vectors[:, -latent_dim:] * np.sqrt(np.maximum(values[-latent_dim:], 0.0))
        pivots = dgeqp3(axes.T)[1] - 1  # LAPACK counts from 1
    return tuple(int(f) for f in pivots[:latent_dim])
