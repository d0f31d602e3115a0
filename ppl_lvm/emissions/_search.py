"""Maximising many functions of one variable at once, for M-steps without a closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppl_lvm.emissions._priors import Array

_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


def maximise(function: Callable[[Array], Array], low: Array, high: Array, *, num_grid: int = 15) -> Array:
    """Where each entry of ``function`` (arrays to arrays of one shape) is largest between low and high.

    A grid finds the interval (a function may have several maxima), golden sections narrow it to 1e-7 of
    the whole, where values agree to rounding.
    """
    grid = [low + share * (high - low) for share in np.linspace(0.0, 1.0, num_grid)]
    best = np.argmax(np.stack([function(at) for at in grid]), axis=0)
    step = (high - low) / (num_grid - 1)
    left = low + np.maximum(best - 1, 0) * step
    right = low + np.minimum(best + 1, num_grid - 1) * step
    a, b = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
    at_a, at_b = function(a), function(b)
    for _ in range(int(np.ceil(np.log(1e-7 * num_grid / 2.0) / np.log(_GOLDEN)))):
        lower = at_a >= at_b  # the maximum lies left of b
        left, right = np.where(lower, left, a), np.where(lower, b, right)
        fresh = np.where(lower, right - _GOLDEN * (right - left), left + _GOLDEN * (right - left))
        value = function(fresh)
        a, b, at_a, at_b = (
            np.where(lower, fresh, b),
            np.where(lower, a, fresh),
            np.where(lower, value, at_b),
            np.where(lower, at_a, value),
        )
    tried = np.stack([left, 0.5 * (left + right), right])  # a maximum at a bound is at the bound itself
    return np.take_along_axis(tried, np.argmax(np.stack([function(t) for t in tried]), axis=0)[None], axis=0)[
        0
    ]
