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


def factor_data(num_rows: int = 10_000, num_features: int = 64, num_factors: int = 8) -> np.ndarray:
    """W4: rows (n, d) of a factor model with standard normal loadings and uneven noise variances."""
    rng = np.random.default_rng(4000)
    loadings = rng.standard_normal((num_features, num_factors))
    variance = rng.uniform(0.2, 2.0, num_features)
    mean = rng.standard_normal(num_features)
    factors = rng.standard_normal((num_rows, num_factors))
    return mean + factors @ loadings.T + np.sqrt(variance) * rng.standard_normal((num_rows, num_features))


def hidden_markov(
    num_sequences: int = 64, length: int = 512, num_states: int = 8, num_features: int = 4
) -> dict[str, np.ndarray]:
    """W3: sequences of a sticky HMM with diagonal Gaussian emissions, and a perturbed start for EM.

    Returns
    -------
    dict
        `x` (s, t, d); the truth `initial` (k,), `transition` (k, k), `loc` and `scale` (k, d); the start
        under the same names with `init_` in front.
    """
    rng = np.random.default_rng(3000)
    s, t, k, d = num_sequences, length, num_states, num_features
    initial = rng.dirichlet(np.full(k, 5.0))
    transition = np.stack([rng.dirichlet(1.0 + 20.0 * (np.arange(k) == j)) for j in range(k)])
    loc, scale = 2.0 * rng.standard_normal((k, d)), rng.uniform(0.5, 1.5, (k, d))
    state = np.empty((s, t), dtype=int)
    state[:, 0] = rng.choice(k, s, p=initial)
    for i in range(1, t):
        edges = transition.cumsum(1)[state[:, i - 1]]
        state[:, i] = np.minimum((rng.random(s)[:, None] > edges).sum(1), k - 1)
    return {
        "x": loc[state] + scale[state] * rng.standard_normal((s, t, d)),
        "initial": initial,
        "transition": transition,
        "loc": loc,
        "scale": scale,
        "init_initial": np.full(k, 1.0 / k),
        "init_transition": np.full((k, k), 0.3 / k) + 0.7 * np.eye(k),
        "init_loc": loc + 0.5 * rng.standard_normal((k, d)),
        "init_scale": np.full((k, d), 1.5),
    }
