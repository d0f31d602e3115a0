"""The M-step of Baum-Welch for start distribution and transition matrix. NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import xlogy

from ppl_lvm.models.hmm._layout import stationary

Array = np.ndarray
_STEPS = 50
_LEAST_LOGIT = 1e-12


def simplex_mode(counts: Array, concentration: Array | None, current: Array) -> Array:
    """Rows that maximise sum of (counts + concentration - 1) log p; where nothing is counted, the current."""
    total = counts if concentration is None else np.maximum(counts + concentration - 1.0, 0.0)
    norm = total.sum(-1, keepdims=True)
    return np.where(norm > 0.0, total / np.where(norm > 0.0, norm, 1.0), current)


def stationary_transition(first: Array, counts: Array, concentration: Array | None, current: Array) -> Array:
    r"""A transition matrix with no lower objective than the current, for a stationary start.

    The objective is :math:`\sum_i f_i \log \pi_i(A) + \sum_{ij} (N_{ij} + c_{ij} - 1) \log A_{ij}` with the
    expected first states f and transitions N. It has no closed form, so it is climbed by L-BFGS on logits
    from the better of the current matrix and the maximiser without the first term: a generalised EM step.
    With :math:`Z = (I - A + 1 \pi^\top)^{-1}` the derivative of the first term is
    :math:`\pi_i (Z v)_j`, :math:`v = f / \pi` (Schweitzer 1968, Journal of Applied Probability 5).
    """
    from scipy.optimize import minimize

    total = counts if concentration is None else np.maximum(counts + concentration - 1.0, 0.0)
    k = len(total)

    def objective(matrix: Array) -> float:
        return float(xlogy(first, stationary(matrix)).sum() + xlogy(total, matrix).sum())

    def loss(logits: Array) -> tuple[float, Array]:
        shifted = logits.reshape(k, k) - logits.reshape(k, k).max(1, keepdims=True)
        matrix = np.exp(shifted)
        matrix /= matrix.sum(1, keepdims=True)
        pi = stationary(matrix)
        fundamental = np.linalg.pinv(np.eye(k) - matrix + pi)
        slope = matrix * np.outer(pi, fundamental @ (first / pi)) + total
        slope -= matrix * slope.sum(1, keepdims=True)
        return -objective(matrix), -slope.ravel()

    starts = [current, simplex_mode(counts, concentration, current)]
    best = max(starts, key=objective)
    logits = np.log(np.maximum(best, _LEAST_LOGIT)).ravel()
    found = minimize(loss, logits, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x.reshape(k, k)
    climbed = np.exp(found - found.max(1, keepdims=True))
    climbed /= climbed.sum(1, keepdims=True)
    return climbed if objective(climbed) > objective(best) else best


def check_concentrations(prior: Mapping[str, Array], initial: str) -> None:
    """Posterior modes exist where every concentration is at least 1."""
    names = ["transition_concentration", *(["initial_concentration"] if initial == "free" else [])]
    for name in names:
        if np.min(prior[name]) < 1.0:
            raise ValueError(
                f"{name}: the posterior density has no maximum at a concentration under 1 (the least is "
                f"{np.min(prior[name]):g}); use estimate='ml', or a concentration of at least 1."
            )
