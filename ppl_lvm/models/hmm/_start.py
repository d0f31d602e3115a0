"""Where chains, guides and Baum-Welch start: states from k-means on the rows. NumPy; scikit-learn inside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.emissions import Emission
from ppl_lvm.models.hmm._layout import Rows, rows_of

Array = np.ndarray
_ROWS = 20_000  # more say little more about k centres
_STAY = 0.5
_SURE = 0.9


def starting_point(
    num_states: int,
    emission: Emission,
    initial: str,
    data: Mapping[str, Any],
    rng: np.random.Generator,
    number: int,
) -> dict[str, Array]:
    """Start ``number``: 0 is k-means run to its end, others stop it early from random rows.

    Rows get 0.9 of their responsibility from their cluster and share the rest, so that states differ and no
    parameter lies on the edge of its support. The emission's parameters are its M-step under the prior;
    the transition matrix is half the identity and half the clusters' own transitions (one added to each
    count); the start distribution is uniform.
    """
    k, rows = num_states, rows_of(data)
    labels = _cluster(rows, k, rng, number)
    inside = rows.valid.ravel()
    weights = np.full((k, len(labels)), (1.0 - _SURE) / k)
    weights[labels, np.arange(len(labels))] += _SURE
    seen = None if rows.seen is None else rows.seen[inside]
    params = emission.m_step(rows.x[inside], seen, weights, data["prior"], None)
    path = np.full(rows.valid.shape, -1)
    path[rows.valid] = labels
    counts = np.ones((k, k))
    follows = rows.valid[1:]
    np.add.at(counts, (path[:-1][follows], path[1:][follows]), 1.0)
    transition = _STAY * np.eye(k) + (1.0 - _STAY) * counts / counts.sum(1, keepdims=True)
    start = {"initial": np.full(k, 1.0 / k)} if initial == "free" else {}
    return start | {"transition": transition} | params


def _cluster(rows: Rows, k: int, rng: np.random.Generator, number: int) -> Array:
    """Labels of all valid rows; missing entries stand at their column's mean."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    inside = rows.valid.ravel()
    x = rows.x[inside].copy()
    if rows.seen is not None:
        there = rows.seen[inside] > 0
        mean = np.where(there, x, 0.0).sum(0) / np.maximum(there.sum(0), 1)
        x = np.where(there, x, mean)
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, 1.0)
    some = x if len(x) <= _ROWS else x[rng.choice(len(x), _ROWS, replace=False)]
    if len(some) < k:
        return np.arange(len(x)) % k
    settings: dict[str, Any] = (
        {"n_init": 2} if number == 0 else {"n_init": 1, "init": "random", "max_iter": 2}
    )
    with warnings.catch_warnings():  # few distinct rows, and runs that are stopped early, are as wanted
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(k, random_state=int(rng.integers(2**31 - 1)), **settings).fit(some)
    return np.asarray(found.predict(x))
