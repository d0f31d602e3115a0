"""Data of the benchmarks: fixed seeds, so that every package sees the same numbers."""

from __future__ import annotations

import numpy as np


def gaussian_mixture_fit(
    num_rows: int = 100_000,
    num_features: int = 16,
    num_components: int = 8,
    seed: int = 0,
    spread: float = 0.5,
) -> dict[str, np.ndarray]:
    """W2: a full-covariance mixture whose components overlap, and a start that all packages share.

    `spread` scales the component means; at 2.0 EM ends in a few iterations, at 0.5 it needs dozens.

    Returns
    -------
    dict
        `x` (n, d); the truth `weights` (k,), `loc` (k, d), `covariance` (k, d, d); the start `init_loc`
        (k, d), centres of a short k-means on 5000 rows, and `init_covariance` (d, d), the covariance of
        all rows.
    """
    n, d, k = num_rows, num_features, num_components
    rng = np.random.default_rng(2000 + seed)
    weights = rng.dirichlet(np.full(k, 5.0))
    loc = spread * rng.standard_normal((k, d))
    root = rng.standard_normal((k, d, d)) / np.sqrt(d)
    covariance = root @ root.transpose(0, 2, 1) + 0.3 * np.eye(d)
    label = rng.choice(k, n, p=weights)
    tril = np.linalg.cholesky(covariance)
    x = loc[label] + np.einsum("nij,nj->ni", tril[label], rng.standard_normal((n, d)))
    rows = x[rng.choice(n, min(n, 5000), replace=False)]
    return {
        "x": x,
        "weights": weights,
        "loc": loc,
        "covariance": covariance,
        "init_loc": short_kmeans(rows, k, rng),
        "init_covariance": np.cov(x.T),
    }


def short_kmeans(
    rows: np.ndarray, num_clusters: int, rng: np.random.Generator, num_passes: int = 10
) -> np.ndarray:
    """Centres (k, d): k-means++ seeds from the first row on, then `num_passes` of Lloyd's algorithm."""
    centres = rows[:1]
    while len(centres) < num_clusters:
        nearest = squared_distances(rows, centres).min(1)
        seed = rows[rng.choice(len(rows), p=nearest / nearest.sum())]
        centres = np.concatenate([centres, seed[None]])
    for _ in range(num_passes):
        label = squared_distances(rows, centres).argmin(1)
        moved = [rows[label == j].mean(0) if (label == j).any() else centres[j] for j in range(num_clusters)]
        centres = np.stack(moved)
    return centres


def squared_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n, k)."""
    return ((rows[:, None] - centres[None]) ** 2).sum(-1)


def gaussian_mixture_nuts(num_rows: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """W1: a diagonal mixture of 3 components in 2 dimensions, moderately overlapping.

    Returns
    -------
    dict
        `x` (n, 2) and the truth `weights` (3,), `loc` (3, 2), `scale` (3, 2).
    """
    rng = np.random.default_rng(1000 + seed)
    weights = np.array([0.5, 0.3, 0.2])
    loc = np.array([[-2.5, 0.0], [0.5, 2.0], [3.0, -1.0]])
    scale = np.array([[1.0, 0.7], [0.8, 1.0], [0.7, 0.9]])
    labels = rng.choice(3, num_rows, p=weights)
    x = loc[labels] + scale[labels] * rng.standard_normal((num_rows, 2))
    return {"x": x, "weights": weights, "loc": loc, "scale": scale}
