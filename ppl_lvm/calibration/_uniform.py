r"""Are n numbers draws of the uniform distribution on (0, 1)? Four tests, and simultaneous bands.

- The ECDF test of Saeilynoja, Buerkner and Vehtari (2022, *Statistics and Computing* 32). At the points
  z_i = i/K, i = 1..K-1, the count c_i of numbers up to z_i is Binomial(n, z_i). The statistic is the least
  two-sided tail probability,

  .. math:: \gamma = \min_i 2 \min\{P(B_i \le c_i),\ P(B_i \ge c_i)\},

  and its p value P(least tail probability <= gamma) is computed, not simulated: the counts are a Markov
  chain, c_{i+1} - c_i given c_i being Binomial(n - c_i, 1/(K - i)), so that the probability of staying where
  every tail probability exceeds gamma is a product of matrices (their section 3). The same walk gives the
  gamma whose bands hold a whole ECDF with a given probability.
- Pearson's chi-square over equal bins.
- The mean against 1/2: its variance is 1/(12 n).
- The spread, mean((u - 1/2)^2) against 1/12: its variance is 1/(180 n).

p values are combined by the Cauchy rule (Liu and Xie 2020, *JASA* 115), which allows for their dependence.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray
_NEGLIGIBLE = 1e-15


class Bands(NamedTuple):
    """Simultaneous bands of an ECDF at the points ``z`` (k,): it lies between ``low`` and ``high`` (k,)."""

    z: Array
    low: Array
    high: Array


def num_bins(n: int) -> int:
    """Bins of a histogram of n numbers: at least ten expected in each, but five to 20 bins."""
    return int(np.clip(n // 10, 5, 20))


def num_points(n: int) -> int:
    """Intervals between the points at which an ECDF of n numbers is looked at."""
    return int(np.clip(n, 20, 100 if n <= 2000 else 50))


def counts_in_bins(u: Array) -> Array:
    """Counts (bins,) of numbers in equal bins of (0, 1)."""
    bins = num_bins(len(u))
    return np.bincount(np.minimum((u * bins).astype(int), bins - 1), minlength=bins)


def chi_square_p(u: Array) -> float:
    """p value of Pearson's chi-square for equal bins."""
    from scipy.stats import chisquare

    return float(chisquare(counts_in_bins(u)).pvalue)


def histogram_band(n: int, probability: float) -> tuple[float, float]:
    """Counts between which all bins of a histogram lie with at least this probability (Bonferroni)."""
    from scipy.stats import binom

    bins = num_bins(n)
    tail = (1 - probability) / (2 * bins)
    return float(binom.ppf(tail, n, 1 / bins)), float(binom.isf(tail, n, 1 / bins))


def mean_p(u: Array) -> float:
    """p value of the mean against 1/2, by its normal distribution."""
    return _two_sided((float(u.mean()) - 0.5) * math.sqrt(12 * len(u)))


def spread_p(u: Array) -> float:
    """p value of the mean square distance from 1/2 against 1/12."""
    return _two_sided((float(((u - 0.5) ** 2).mean()) - 1 / 12) * math.sqrt(180 * len(u)))


def symmetry_p(u: Array) -> float:
    """p value of symmetry about 1/2 (Wilcoxon's signed-rank test), whatever the shape."""
    from scipy.stats import wilcoxon

    if not np.any(u != 0.5):
        return 1.0
    return float(wilcoxon(u - 0.5).pvalue)


def ecdf_p(u: Array) -> float:
    """p value of the ECDF test."""
    walk = _walk(len(u), num_points(len(u)))
    counts = np.searchsorted(np.sort(u), walk.z, side="right")
    return walk.p_value(min(tail[c] for tail, c in zip(walk.tails, counts, strict=True)))


@functools.lru_cache(maxsize=32)
def ecdf_bands(n: int, probability: float) -> Bands:
    """Bands that hold the whole ECDF of n uniform numbers with at least this probability."""
    walk = _walk(n, num_points(n))
    low, high = -30.0, 0.0  # of log gamma: outside prob. below and above what is wanted
    for _ in range(40):
        middle = (low + high) / 2
        if walk.p_value(math.exp(middle)) <= 1 - probability:
            low = middle
        else:
            high = middle
    allowed = [np.flatnonzero(tail > math.exp(low)) for tail in walk.tails]
    return Bands(walk.z, np.array([a[0] for a in allowed]) / n, np.array([a[-1] for a in allowed]) / n)


def combined_p(p_values: Array) -> float:
    """One p value from dependent ones by the Cauchy rule."""
    p = np.clip(np.asarray(p_values, float), 1e-300, 0.99)  # a p value of 1 must not outweigh the others
    tiny = p < 1e-15  # where tan loses all digits
    terms = np.where(tiny, 1 / (p * np.pi), np.tan((0.5 - np.where(tiny, 0.5, p)) * np.pi))
    total = float(terms.mean())
    return 1 / (np.pi * total) if total > 1e15 else 0.5 - math.atan(total) / math.pi


def holm(p_values: Array) -> Array:
    """p values adjusted for their number (Holm 1979)."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    out = np.empty(len(p_values))
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


class _Walk:
    """The counts of n uniform numbers up to i/K, i = 1..K-1, as a Markov chain."""

    def __init__(self, n: int, points: int) -> None:
        from scipy.stats import binom

        self.z = np.arange(1, points) / points
        every = np.arange(n + 1)
        self.tails = [2 * np.minimum(binom.cdf(every, n, z), binom.sf(every - 1, n, z)) for z in self.z]
        self.kept = [np.flatnonzero(tail > _NEGLIGIBLE) for tail in self.tails]
        self.first = binom.pmf(self.kept[0], n, self.z[0])
        self.moves = [
            binom.pmf(b[None, :] - a[:, None], n - a[:, None], 1 / (points - i))
            for i, (a, b) in enumerate(zip(self.kept[:-1], self.kept[1:], strict=True), start=1)
        ]

    def p_value(self, gamma: float) -> float:
        """Probability that some count's tail probability is at most gamma."""
        if gamma <= _NEGLIGIBLE:
            return _NEGLIGIBLE
        mass = self.first * (self.tails[0][self.kept[0]] > gamma)
        for move, kept, tail in zip(self.moves, self.kept[1:], self.tails[1:], strict=True):
            mass = (mass @ move) * (tail[kept] > gamma)
        return float(np.clip(1 - mass.sum(), _NEGLIGIBLE, 1.0))


@functools.lru_cache(maxsize=8)
def _walk(n: int, points: int) -> _Walk:
    return _Walk(n, points)
