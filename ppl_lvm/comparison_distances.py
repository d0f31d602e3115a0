"""Differences of two one-dimensional samples beyond mean and sd: tails, and divergences both ways."""

from __future__ import annotations

import math

import numpy as np

_BINS = 20


def quantile_shift(
    a: np.ndarray, b: np.ndarray, ess_a: float, ess_b: float, prob: float, scale: float
) -> tuple[float, float]:
    """Difference of the quantiles of level ``prob`` in units of ``scale``, and its standard error.

    The error of a quantile is sqrt(p (1 - p) / n) / f(q); 1 / f is the slope of the quantile function there,
    by a difference over +- 0.025.
    """
    shift = float(np.quantile(a, prob) - np.quantile(b, prob)) / scale
    variance = 0.0
    for sample, ess in ((a, ess_a), (b, ess_b)):
        low, high = max(prob - 0.025, 0.0), min(prob + 0.025, 1.0)
        slope = float(np.quantile(sample, high) - np.quantile(sample, low)) / (high - low)
        variance += prob * (1 - prob) / max(ess, 1.0) * (slope / scale) ** 2
    return shift, math.sqrt(variance)


def kl_divergences(
    a: np.ndarray, reference: np.ndarray, ess_a: float, ess_ref: float
) -> tuple[float, float, float, float]:
    """KL(a || reference) and KL(reference || a) in nats over 20 bins, each followed by its standard error.

    Bins hold equal shares of the reference's draws. Over bins a divergence is no larger than over densities
    (data processing inequality), so both are lower bounds, without the trouble that tails give to estimates
    from distances. Counts are scaled to the effective sizes, half a draw is added to each bin, the bias
    (bins - 1) / 2 (1/n + 1/m) is taken off, and errors are by the delta method (Paninski 2003, *Neural
    Computation* 15). NaN where either effective size is below 50.
    """
    if min(ess_a, ess_ref) < 50:
        return (math.nan,) * 4
    inner = np.quantile(reference, np.arange(1, _BINS) / _BINS)
    p, q = (_shares(x, inner, ess) for x, ess in ((a, ess_a), (reference, ess_ref)))
    there, there_error = _divergence(p, q, ess_a, ess_ref)
    back, back_error = _divergence(q, p, ess_ref, ess_a)
    return there, there_error, back, back_error


def _shares(x: np.ndarray, inner: np.ndarray, ess: float) -> np.ndarray:
    counts = np.bincount(np.searchsorted(inner, x), minlength=_BINS) * (ess / len(x)) + 0.5
    return np.asarray(counts / counts.sum())


def _divergence(p: np.ndarray, q: np.ndarray, n: float, m: float) -> tuple[float, float]:
    log_ratio = np.log(p / q)
    value = float((p * log_ratio).sum())
    variance = (float((p * log_ratio**2).sum()) - value**2) / n + (float((p**2 / q).sum()) - 1.0) / m
    bias = (_BINS - 1) / 2 * (1 / n + 1 / m)
    least = math.sqrt((_BINS - 1) / 2) * (1 / n + 1 / m)  # where both are equal, the first order vanishes
    return max(value - bias, 0.0), math.hypot(math.sqrt(max(variance, 0.0)), least)
