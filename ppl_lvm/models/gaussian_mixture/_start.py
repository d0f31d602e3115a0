"""Units in which EM works, and starting values from k-means."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ppl_lvm.models.gaussian_mixture._checks import Array, Values, has_correlations
from ppl_lvm.models.gaussian_mixture._point import Point

_KMEANS_ROWS = 20_000  # k-means sees at most this many random rows; EM sees them all


@dataclass(frozen=True)
class Frame:
    """x = centre + unit * (what EM sees), column by column.

    The centre takes away an offset before anything is squared; units are powers of two near the column
    sds (one for all columns if spherical), so that changing to them and back rounds nothing. A constant
    column, which has no spread of its own, gets the root mean variance of the columns, or 1.
    """

    covariance: str
    centre: Array
    unit: Array
    variance: Array
    """Of the columns, in squared units of x; exactly 0 where a column is constant."""

    @classmethod
    def of(cls, x: Array, covariance: str) -> tuple[Frame, Array]:
        """The frame of x (n, d), and x in it."""
        centre = x.mean(0)
        away = x - centre
        constant = (x == x[0]).all(0)  # its mean may round, which would make a variance of rounding errors
        variance = np.where(constant, 0.0, np.einsum("nd,nd->d", away, away) / len(x))
        typical = variance.mean() or 1.0
        spread = np.where(variance > 0.0, variance, typical)
        if covariance == "spherical":
            spread = np.full_like(spread, typical)
        unit = np.exp2(np.round(0.5 * np.log2(spread)))
        away /= unit
        return cls(covariance, centre, unit, variance), away

    def standardise(self, x: Array) -> Array:
        """Positions (..., d) in this frame."""
        return (x - self.centre) / self.unit

    def point(self, flat: Values) -> Point:
        """Values with one draw (on a leading axis of length 1) as EM's parameters."""
        scale = flat["scale"][0] / (self.unit[0] if self.covariance == "spherical" else self.unit)
        factor = scale
        if self.covariance in ("full", "tied"):
            factor = scale[..., None] * (flat["corr_tril"][0] if "corr_tril" in flat else np.ones((1, 1)))
        weights = np.maximum(flat["weights"][0], np.finfo(np.float64).tiny)
        return Point(weights / weights.sum(), self.standardise(flat["loc"][0]), factor)

    def values(self, point: Point) -> Values:
        """EM's parameters as site values in the units of x."""
        values = {"weights": point.weights, "loc": self.centre + self.unit * point.loc}
        if self.covariance in ("full", "tied"):
            length = np.sqrt((point.factor**2).sum(-1))
            values["scale"] = length * self.unit
            if has_correlations(self.covariance, len(self.unit)):
                values["corr_tril"] = point.factor / length[..., None]
        else:
            values["scale"] = point.factor * (self.unit[0] if self.covariance == "spherical" else self.unit)
        return values


def kmeans_values(x: Array, num_components: int, covariance: str, rng: np.random.Generator) -> Values:
    """Starting values from one run of k-means, by the rule of `kmeans_point`."""
    frame, z = Frame.of(x, covariance)
    return frame.values(kmeans_point(frame, z, num_components, rng))


def kmeans_point(
    frame: Frame, z: Array, num_components: int, rng: np.random.Generator, number: int = 0
) -> Point:
    """A start from one run of k-means on the standardised data z (n, d), seeded from `rng`.

    Weights are (size of the cluster + 1) / (n + k) and loc the cluster means. Covariances are the
    clusters' scatter plus one pseudo-observation of the pooled within-cluster variances, which themselves
    hold one of the columns' own variances; so every value is strictly inside its support however few or
    alike the points of a cluster are. An empty cluster starts at a random row.

    Restarts differ by more than the seed, or most would end in one place: by `number` modulo 4, k-means
    sees the columns at unit spread (0, 1) or as they are (2, 3), and runs to its end (0, 2) or for one
    pass (1, 3).
    """
    (n, k), covariance = (len(z), num_components), frame.covariance
    labels = _kmeans_labels(z if number % 4 < 2 else z * frame.unit, k, rng, 300 if number % 2 == 0 else 1)
    size = np.bincount(labels, minlength=k)
    loc, scatter = _cluster_moments(z, labels, size, rng, covariance)
    sums = np.diagonal(scatter, axis1=-2, axis2=-1) if scatter.ndim == 3 else scatter
    column = np.maximum(frame.variance / frame.unit**2, 2.0**-20)  # a constant column has none of its own
    pooled = (sums.sum(0) + column) / (n + 1.0)
    count = size[:, None] + 1.0
    if covariance == "full":
        factor = np.linalg.cholesky((scatter + np.diag(pooled)) / count[:, :, None])
    elif covariance == "tied":
        factor = np.linalg.cholesky((scatter.sum(0) + np.diag(column)) / (n + 1.0))
    elif covariance == "diag":
        factor = np.sqrt((sums + pooled) / count)
    else:
        factor = np.sqrt((sums.mean(1) + pooled.mean()) / count[:, 0])
    return Point((size + 1.0) / (n + k), loc, factor)


def _cluster_moments(
    z: Array, labels: np.ndarray, size: np.ndarray, rng: np.random.Generator, covariance: str
) -> tuple[Array, Array]:
    """Means (k, d) and scatter about them, (k, d, d) or its diagonal (k, d)."""
    k, d = len(size), z.shape[1]
    dense = covariance in ("full", "tied")
    loc, scatter = np.empty((k, d)), np.zeros((k, d, d) if dense else (k, d))
    for j in range(k):
        rows = z[labels == j] if size[j] else z[[rng.integers(len(z))]]
        loc[j] = rows.mean(0)
        away = rows - loc[j]
        scatter[j] = away.T @ away if dense else (away * away).sum(0)
    return loc, scatter


def _kmeans_labels(z: Array, num_components: int, rng: np.random.Generator, max_iter: int) -> np.ndarray:
    from sklearn.cluster import KMeans  # slow to import, and only starts need it
    from sklearn.exceptions import ConvergenceWarning

    rows = z if len(z) <= _KMEANS_ROWS else z[rng.choice(len(z), _KMEANS_ROWS, replace=False)]
    seed = int(rng.integers(2**31 - 1))
    kmeans = KMeans(num_components, n_init=1, max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # fewer distinct rows than components: handled above
        kmeans.fit(rows)
    labels: np.ndarray = kmeans.predict(z)
    return labels
