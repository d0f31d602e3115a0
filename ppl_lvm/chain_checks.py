"""Figures that show whether chains did their work, as plain functions of arrays."""

from __future__ import annotations

import numpy as np


def nested_r_hat(draws: np.ndarray, start: np.ndarray) -> np.ndarray:
    r"""Nested R-hat of draws (chain, draw, ...), whose chains began at points numbered ``start`` (chain,).

    Chains from one point form a superchain. With means :math:`\bar\theta_k` of the K superchains,

    .. math:: \hat R_\nu = \sqrt{1 + \hat B / \hat W}, \quad
              \hat B = \frac{1}{K - 1} \sum_k (\bar\theta_k - \bar\theta)^2,

    and W the mean over superchains of the variance between their chains' means plus the mean variance within
    chains (Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman 2024, Bayesian Analysis,
    definition 3.1). As chains are averaged before they are compared, many short ones can show that their
    starts are forgotten, where the variance of a single short chain's mean would raise the ordinary R-hat.

    Returns
    -------
    ndarray
        Of the trailing shape; NaN where nothing varies.

    Raises
    ------
    ValueError
        For fewer than two starts, or superchains of different sizes.
    """
    labels, sizes = np.unique(start, return_counts=True)
    if len(start) != len(draws) or len(labels) < 2 or sizes.min() != sizes.max():
        raise ValueError(
            f"start: expected a number for each of the {len(draws)} chains, two or more different ones and "
            f"each as often as the others, got {dict(zip(labels.tolist(), sizes.tolist(), strict=True))}."
        )
    num, size = draws.shape[1], int(sizes[0])
    means = draws.mean(1)
    grouped = np.stack([means[start == k] for k in labels])  # (superchain, chain, ...)
    within = draws.var(1, ddof=1).mean(0) if num > 1 else np.zeros(draws.shape[2:])
    between = grouped.var(1, ddof=1).mean(0) if size > 1 else 0.0
    with np.errstate(all="ignore"):
        ratio = grouped.mean(1).var(0, ddof=1) / (within + between)
        return np.asarray(np.sqrt(1 + ratio))


def energy_fractions(energy: np.ndarray) -> np.ndarray:
    """Fraction of missing information of energies (chain, draw): (chain,), NaN for constant ones.

    The mean squared change of the energy between draws over its variance (Betancourt 2016, arXiv:1604.00695,
    section 3): about 1 where momenta carry a chain over the whole range of energies in one
    draw; below 0.3 tails are explored slowly.
    """
    energy = np.asarray(energy, dtype=float)
    with np.errstate(all="ignore"):
        return np.asarray((np.diff(energy, axis=1) ** 2).mean(1) / energy.var(1))


def moved(draws: np.ndarray) -> np.ndarray:
    """Share (chain,) of transitions at which a chain left its place, of draws (chain, draw, size).

    One for a chain of one draw, which has made no transition.
    """
    if draws.shape[1] < 2:
        return np.ones(len(draws))
    return np.asarray((np.diff(draws, axis=1) != 0).any(2).mean(1))


__all__ = ["energy_fractions", "moved", "nested_r_hat"]
