"""Starting values of a mixture: a clustering of the rows, then one M-step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.emissions._priors import Array

if TYPE_CHECKING:
    from ppl_lvm.models.mixture._exact import MixtureExact

_KMEANS_ROWS = 20_000  # k-means sees at most this many random rows; EM sees them all
_SHARED = 0.1  # of every row, spread over the components, so that no parameter starts at a bound


def start_values(
    exact: MixtureExact,
    data: Mapping[str, Any],
    prior: Mapping[str, Array] | None,
    rng: np.random.Generator,
    number: int = 0,
) -> dict[str, Array]:
    """Weights (summed responsibilities + 1) / (n + k), and the parameters of one M-step."""
    x, seen, k = np.asarray(data["x"], dtype=float), data.get("seen"), exact.num_components
    shares = responsibilities(x, seen, k, rng, number)
    params = exact.emission.m_step(x, seen, shares, prior, None)
    return {"weights": (shares.sum(1) + 1.0) / (len(x) + k), **params}


def responsibilities(
    x: Array, seen: Array | None, num_components: int, rng: np.random.Generator, number: int
) -> Array:
    """Shares (k, n) of each row, summing to 1 over components.

    By ``number`` modulo 3: k-means on the standardised columns, missing entries at the column mean; the
    nearest of k random distinct rows; and at random, from Dirichlet(1), as is usual for latent classes.
    """
    n, k = len(x), num_components
    if number % 3 == 2:
        hard = rng.dirichlet(np.ones(k), n).T
    else:
        z = _standardised(x, seen)
        labels = _kmeans(z, k, rng) if number % 3 == 0 else _nearest_rows(z, k, rng)
        hard = np.equal.outer(np.arange(k), labels).astype(float)
    # the shared part is random, so that components which begin with the same rows part
    return (1.0 - _SHARED) * hard + _SHARED * rng.dirichlet(np.ones(k), n).T


def _standardised(x: Array, seen: Array | None) -> Array:
    share = np.ones_like(x) if seen is None else seen
    count = np.maximum(share.sum(0), 1.0)
    away = (x - (x * share).sum(0) / count) * share
    sd = np.sqrt((away**2).sum(0) / count)
    return away / np.where(sd > 0.0, sd, 1.0)


def _nearest_rows(z: Array, k: int, rng: np.random.Generator) -> Array:
    distinct = np.unique(z, axis=0)
    centres = distinct[rng.choice(len(distinct), k, replace=len(distinct) < k)]
    gap = (centres**2).sum(1) - 2.0 * z @ centres.T  # squared distance, less a term that rows share
    return np.asarray(gap.argmin(1))


def _kmeans(z: Array, k: int, rng: np.random.Generator) -> Array:
    from sklearn.cluster import KMeans  # slow to import, and only starts need it
    from sklearn.exceptions import ConvergenceWarning

    rows = z if len(z) <= _KMEANS_ROWS else z[rng.choice(len(z), _KMEANS_ROWS, replace=False)]
    kmeans = KMeans(k, n_init=1, random_state=int(rng.integers(2**31 - 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than components
        kmeans.fit(rows)
    return np.asarray(kmeans.predict(z))
