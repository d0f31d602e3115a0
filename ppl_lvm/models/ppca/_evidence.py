"""Minka's approximate evidence for the number of principal components. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_lvm.models._statistics import SufficientStatistics


def laplace_evidence(statistics: Any, latent_dim: int) -> float:
    r"""Log evidence of PPCA with ``latent_dim`` components by Laplace's method, nats, up to one constant.

    Minka (2000, *Automatic choice of dimensionality for PCA*): the subspace is integrated out around its
    maximum, under a prior that is uniform over subspaces and vague in the variances. Values are comparable
    over ``latent_dim`` for the same data, and with nothing else.

    Parameters
    ----------
    statistics
        :class:`SufficientStatistics` of complete data, or the rows (n, d) themselves.
    latent_dim
        q from 1 to d - 1; fewer than the rank of the data.

    Raises
    ------
    ValueError
        If entries are missing, or latent_dim lies outside its range.
    """
    from scipy.special import gammaln

    own = (
        statistics
        if isinstance(statistics, SufficientStatistics)
        else SufficientStatistics.from_rows(statistics)
    )
    if not own.complete:
        raise ValueError(
            "statistics: this evidence needs complete data; impute them, or compare by BIC or LOO."
        )
    n, d, k = own.num_rows, own.num_columns, latent_dim
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k < d:
        raise ValueError(f"latent_dim: expected an integer from 1 to {d - 1}, got {k!r}.")
    values = np.linalg.eigvalsh(own.scatter[0] / n)[::-1]
    if values[k] <= 1e-15 * values[0]:
        raise ValueError(f"latent_dim: the data have no variance left after {k} components; lower it.")
    noise = values[k:].mean()
    sizes = d - np.arange(k)
    subspace = (gammaln(0.5 * sizes) - 0.5 * sizes * np.log(np.pi)).sum() - k * np.log(2.0)
    fit = -0.5 * n * (np.log(values[:k]).sum() + (d - k) * np.log(noise))
    smoothed = np.concatenate([values[:k], np.full(d - k, noise)])
    curvature = 0.0
    for i in range(k):
        others = slice(i + 1, None)
        gaps = (1.0 / smoothed[others] - 1.0 / smoothed[i]) * (values[i] - values[others])
        curvature += (np.log(np.maximum(gaps, np.finfo(float).tiny)) + np.log(n)).sum()
    free = d * k - 0.5 * k * (k + 1)
    volume = 0.5 * (free + k) * np.log(2.0 * np.pi) - 0.5 * curvature - 0.5 * k * np.log(n)
    return float(subspace + fit + volume)
