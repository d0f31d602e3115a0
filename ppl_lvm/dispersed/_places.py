r"""Where chains settled, and how much of the posterior lies there.

Two groups of draws are at one *place* if the log density along the straight line between some of their draws
(the nearest pairs) nowhere falls more than ``BARRIER`` below the lower end. On a log-concave density it
never falls at all, however slowly chains mix; between separated modes it falls on every line. Groups are
first made of draws with their nearest neighbours, so that a chain that crossed over on its way does not join
two modes.

The log mass of a place is, for draws of p restricted to it,

.. math:: \log Z_k = E[\log p(z, x)] + H, \qquad H \le \tfrac12 \log\det(2 \pi e S_k),

the second the entropy of a normal with the draws' covariance S_k. It starts from this and is corrected by
bridge sampling with that normal, where there are draws enough (:mod:`ppl_lvm.evidence`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ppl_lvm.evidence._optimal import solve

BARRIER = 2.0  # nats
_PAIRS = 6
_STEPS = 7
_DRAWS = 100  # of each group, to look for near pairs among
_NODES = 8  # of each chain
_NEIGHBOURS = 4
_MOST_GROUPS = 30
_FLOOR = 0.3  # nats, of the error of a log mass that one chain saw; less by the root of their number

LogDensity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Cloud:
    """Points (chain, draw, size) of one place with their log densities, and a normal like them."""

    free: np.ndarray
    log_p: np.ndarray
    mean: np.ndarray
    root: np.ndarray

    @property
    def level(self) -> float:
        return float(self.log_p.mean())

    def log_normal(self, points: np.ndarray) -> np.ndarray:
        """Log density (n,) of the normal at points (n, size)."""
        from scipy.linalg import solve_triangular

        scaled = solve_triangular(self.root, (points - self.mean).T, lower=True)
        constant = np.log(np.diag(self.root)).sum() + 0.5 * len(self.mean) * math.log(2 * math.pi)
        out: np.ndarray = -0.5 * (scaled**2).sum(0) - constant
        return out


def cloud(free: np.ndarray, log_p: np.ndarray) -> Cloud:
    """The normal's covariance is shrunk to its diagonal as far as draws are few for their dimension."""
    flat = free.reshape(-1, free.shape[-1])
    mean, size = flat.mean(0), flat.shape[1]
    centred = flat - mean
    cov = centred.T @ centred / max(len(flat) - 1, 1)
    share = min(1.0, size / len(flat))
    variance = np.maximum(np.diag(cov), 1e-12)
    cov = (1 - share) * cov + share * np.diag(variance) + 1e-9 * np.diag(variance)
    return Cloud(free, log_p, mean, np.linalg.cholesky(cov))


def barriers(chains: list[np.ndarray], levels: list[np.ndarray], log_p: LogDensity) -> np.ndarray:
    """(m, m): the smallest fall of the log density, nats, on lines between near draws of each two groups.

    ``chains`` are points (n, size), ``levels`` their log densities (n,).
    """
    few = [np.unique(np.linspace(0, len(c) - 1, min(len(c), _DRAWS)).astype(int)) for c in chains]
    points = [c[rows] for c, rows in zip(chains, few, strict=True)]
    heights = [v[rows] for v, rows in zip(levels, few, strict=True)]
    scale = np.sqrt(np.mean([p.var(0) for p in points], axis=0)) + 1e-12
    count = len(chains)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    lines, ends = [], []
    for i, j in pairs:
        rows, columns = _near(points[i] / scale, points[j] / scale)
        share = (np.arange(_STEPS) + 1) / (_STEPS + 1)
        a, b = points[i][rows], points[j][columns]
        lines.append((a[:, None] + share[:, None] * (b - a)[:, None]).reshape(-1, a.shape[1]))
        ends.append(np.minimum(heights[i][rows], heights[j][columns]))
    out = np.zeros((count, count))
    if not pairs:
        return out
    found = log_p(np.concatenate(lines)).reshape(len(pairs), _PAIRS, _STEPS).min(2)
    for (i, j), end, low in zip(pairs, ends, found, strict=True):
        out[i, j] = out[j, i] = float((end - low).min())
    return out


def _near(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest pairs of points, each of ``a`` at most once (repeated where there are few)."""
    from scipy.spatial.distance import cdist

    distance = cdist(a, b)
    columns = distance.argmin(1)
    rows = np.argsort(distance[np.arange(len(a)), columns])
    rows = np.resize(rows[:_PAIRS], _PAIRS)
    return rows, columns[rows]


def _joined(apart: np.ndarray) -> np.ndarray:
    """Labels of connected groups of those with a barrier of at most ``BARRIER`` between them."""
    from scipy.sparse.csgraph import connected_components

    return np.asarray(connected_components(apart <= BARRIER, directed=False)[1])


def falls(a: np.ndarray, b: np.ndarray, ends: np.ndarray, log_p: LogDensity) -> np.ndarray:
    """How far the log density falls below ``ends`` (n,) on the lines from a (n, size) to b (n, size)."""
    share = (np.arange(_STEPS) + 1) / (_STEPS + 1)
    lines = a[:, None] + share[:, None] * (b - a)[:, None]
    found = log_p(lines.reshape(-1, a.shape[1])).reshape(len(a), _STEPS).min(1)
    out: np.ndarray = ends - found
    return out


def neighbours(points: np.ndarray, among: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Indices (n, k) of the nearest of ``among`` to each point, in units of ``scale``."""
    from scipy.spatial import cKDTree

    count = min(_NEIGHBOURS + 1, len(among))
    return np.asarray(cKDTree(among / scale).query(points / scale, k=count)[1]).reshape(len(points), count)


def places_of(free: np.ndarray, level: np.ndarray, log_p: LogDensity) -> tuple[np.ndarray, np.ndarray]:
    """The place (chain, draw) of every draw in ``free`` (chain, draw, size), largest first, and scales
    (size,)."""
    chains, draws, size = free.shape
    rows = np.unique(np.linspace(0, draws - 1, _NODES).astype(int))
    nodes, heights = free[:, rows].reshape(-1, size), level[:, rows].reshape(-1)
    scale = np.sqrt(free.var(1).mean(0)) + 1e-12
    near = neighbours(nodes, nodes, scale)[:, 1:]
    a = np.repeat(np.arange(len(nodes)), near.shape[1])
    b = near.reshape(-1)
    fall = falls(nodes[a], nodes[b], np.minimum(heights[a], heights[b]), log_p)
    apart = np.full((len(nodes), len(nodes)), np.inf)
    apart[a, b] = fall
    label = _joined(np.minimum(apart, apart.T))
    label = _merged(label, nodes, heights, log_p)
    order = np.argsort(-np.bincount(label), kind="stable")
    label = np.argsort(order)[label]
    nearest = neighbours(free.reshape(-1, size), nodes, scale)[:, 0]
    return label[nearest].reshape(chains, draws), scale


def _merged(label: np.ndarray, nodes: np.ndarray, heights: np.ndarray, log_p: LogDensity) -> np.ndarray:
    """Groups without a barrier between them become one; beyond the largest thirty they stay as they are."""
    names = np.argsort(-np.bincount(label), kind="stable")[:_MOST_GROUPS]
    if len(names) < 2:
        return label
    apart = barriers([nodes[label == k] for k in names], [heights[label == k] for k in names], log_p)
    joined = _joined(apart)
    out = label.copy()
    for k, group in zip(names, joined, strict=True):
        out[label == k] = names[int(np.flatnonzero(joined == group)[0])]
    return np.unique(out, return_inverse=True)[1]


def log_mass(
    own: Cloud, others: list[Cloud], log_p: LogDensity, inside: LogDensity, seed: int
) -> tuple[float, float]:
    """Log mass of a place in nats, and its error.

    Proposals nearer to another place, or where ``inside`` is -inf (another copy under the model's
    symmetries), do not count.
    """
    size, draws = own.free.shape[-1], own.free.shape[0] * own.free.shape[1]
    normal = own.level + np.log(np.diag(own.root)).sum() + 0.5 * size * math.log(2 * math.pi * math.e)
    rough = float(normal), 1.0 + 0.1 * size
    if draws < 4 * size + 50 or own.free.shape[1] < 8:
        return rough
    rng = np.random.default_rng([seed, 64])
    half = own.free.shape[1] // 2
    fitted = cloud(own.free[:, :half], own.log_p[:, :half])
    rest, level = own.free[:, half:], own.log_p[:, half:]
    drawn = fitted.mean + rng.standard_normal((1024, size)) @ fitted.root.T
    found = log_p(drawn) + inside(drawn)
    if others:
        mine = own.log_normal(drawn)
        elsewhere = np.max([o.log_normal(drawn) for o in others], axis=0) > mine
        found = np.where(elsewhere, -np.inf, found)
    flat = rest.reshape(-1, size)
    try:
        bridged = solve(
            level - fitted.log_normal(flat).reshape(level.shape), found - fitted.log_normal(drawn)
        )
    except ValueError:  # the normal and the place do not meet: the rough figure stands
        return rough
    if not (math.isfinite(bridged.log_r) and math.isfinite(bridged.std_error)):
        return rough
    return bridged.log_r, math.hypot(bridged.std_error, _FLOOR / math.sqrt(own.free.shape[0]))


__all__ = ["BARRIER", "Cloud", "barriers", "cloud", "falls", "log_mass", "neighbours", "places_of"]
