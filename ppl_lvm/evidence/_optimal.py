r"""The optimal bridge between two densities (Meng and Wong 1996, *Statistica Sinica* 6).

With p(z) the joint density of unconstrained z and the data, q a normalised density, and r = p(x),

.. math:: r = \frac{E_q[h\, p]}{E_{post}[h\, q]}, \qquad h \propto \frac{1}{s_1 p / r + s_2 q},

where the bridge function h is the optimal one, for shares s_1 of the posterior's and s_2 of the proposal's
draws. As h contains r, the equation is solved for r: its root is the fixed point of Meng and Wong's iteration
(Gronau et al. 2017, *Journal of Mathematical Psychology* 81), and it is unique, since one side
falls in r and the other rises.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Bridged(NamedTuple):
    """log r, its standard error, and the effective number of the posterior's terms."""

    log_r: float
    std_error: float
    num_effective: float


def solve(ratio_post: np.ndarray, ratio_drawn: np.ndarray) -> Bridged:
    """log r from log p / q at draws of the posterior (chain, draw) and of the proposal (n,).

    Raises
    ------
    ValueError
        If a draw of the posterior has density zero, or all of the proposal's have.
    """
    if not np.isfinite(ratio_post).all() or not np.isfinite(ratio_drawn).any():
        raise ValueError(
            "fit: the density is zero at draws of the posterior or at all of the proposal's; the fit's draws "
            "are not of this model and data, or its chains have not converged."
        )
    effective = float(ratio_post.size)
    for _ in range(2):  # the shares depend on the autocorrelation of terms, which depend on the shares
        log_r, post, drawn = _solve(ratio_post, ratio_drawn, effective)
        effective = _effective(post)
    error = math.sqrt(_relative(drawn) / drawn.size + _relative(post) / effective)
    return Bridged(log_r, error, effective)


def _solve(
    ratio_post: np.ndarray, ratio_drawn: np.ndarray, effective: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """log r, and the terms f_2 (chain, draw) and f_1 (n,) up to constants."""
    from scipy.optimize import brentq
    from scipy.special import expit

    shift = math.log(effective / ratio_drawn.size)  # log s_1 / s_2

    def imbalance(log_r: float) -> float:
        drawn = expit(ratio_drawn - log_r + shift).mean()  # s_1 E_q[p / r (...)]
        post = expit(log_r - shift - ratio_post).mean()  # s_2 E_post[q (...)]
        return (
            float(math.log(drawn) - shift - math.log(post)) if drawn > 0 and post > 0 else _one_sided(drawn)
        )

    finite = ratio_drawn[np.isfinite(ratio_drawn)]
    low = min(finite.min(), ratio_post.min()) - 50.0 - abs(shift)
    high = max(finite.max(), ratio_post.max()) + 50.0 + abs(shift)
    log_r = float(brentq(imbalance, low, high, xtol=1e-10))
    return log_r, expit(log_r - shift - ratio_post), expit(ratio_drawn - log_r + shift)


def _one_sided(drawn: float) -> float:
    """The sign of an imbalance with one side that underflows."""
    return -1e3 if drawn <= 0 else 1e3


def _relative(terms: np.ndarray) -> float:
    return float(terms.var(ddof=1) / terms.mean() ** 2)


def _effective(terms: np.ndarray) -> float:
    """Effective number of correlated terms (chain, draw), at most their number."""
    from arviz_stats.base import array_stats

    if np.ptp(terms) <= 1e-12 * terms.max():
        return float(terms.size)
    found = float(array_stats.ess(terms, chain_axis=0, draw_axis=1, method="mean"))
    return min(max(found, 1.0), float(terms.size)) if math.isfinite(found) else float(terms.size)


__all__ = ["Bridged", "solve"]
