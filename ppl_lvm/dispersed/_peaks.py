"""Where the density is high in the range of the prior, before any chain has run.

A narrow mode catches few of the chains that start anywhere, but points near it stand out: none of their
neighbours has a higher density (Rodriguez and Laio 2014, *Science* 344, find centres of clusters so).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

_MORE = 4096  # points made of the prior's coordinates
_BLOCK = 512
_EIGHTH = 8
_NEIGHBOURS = 8
_JITTER = 0.2  # of a coordinate's spread


def peaks(
    prior: np.ndarray,
    log_p: Callable[[np.ndarray], np.ndarray],
    num: int,
    rng: np.random.Generator,
    seconds: float,
) -> np.ndarray:
    """Up to ``num`` points (., size) of high density, far from one another, the highest first.

    Candidates are the draws ``prior`` (n, size) and, as long as ``seconds`` allow, points whose coordinates
    are those of different draws, slightly moved. Of the eighth of highest density those are peaks that are no
    lower than their nearest neighbours.
    """
    points, level = _candidates(prior, log_p, rng, seconds)
    best = np.argsort(-level)[: max(len(points) // _EIGHTH, num)]
    points, level = points[best], level[best]
    scaled = points / (points.std(0) + 1e-12)
    chosen = _far_apart(scaled, np.flatnonzero(_tops(scaled, level)), num)
    return points[chosen]


def _candidates(
    prior: np.ndarray, log_p: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    began = time.perf_counter()
    points, levels = [prior], [log_p(prior)]
    low, high = np.quantile(prior, (0.25, 0.75), axis=0)
    for _ in range(_MORE // _BLOCK):
        if time.perf_counter() - began > seconds:
            break
        mixed = np.take_along_axis(prior, rng.integers(len(prior), size=(_BLOCK, prior.shape[1])), axis=0)
        points.append(mixed + _JITTER * (high - low) * rng.standard_normal(mixed.shape))
        levels.append(log_p(points[-1]))
    level = np.concatenate(levels)
    return np.concatenate(points), np.where(np.isnan(level), -np.inf, level)


def _tops(scaled: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Whether a point (n,) has no higher one among its nearest neighbours."""
    from scipy.spatial import cKDTree

    count = min(_NEIGHBOURS + 1, len(scaled))
    near = cKDTree(scaled).query(scaled, k=count)[1].reshape(len(scaled), count)
    out: np.ndarray = level >= level[near].max(1)
    return out


def _far_apart(scaled: np.ndarray, among: np.ndarray, num: int) -> np.ndarray:
    """Indices: the first of ``among``, then always the one farthest from those before."""
    points = scaled[among]
    chosen, distance = [0], ((points - points[0]) ** 2).sum(1)
    while len(chosen) < min(num, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return among[np.array(chosen)]


__all__ = ["peaks"]
