"""The recursions in log space, for what the scaled ones cannot represent: slower, and never underflowing.

Shapes: p pairs of a draw and a sequence, k states, T steps; ``start`` (p, k), ``transition`` (p, k, k),
``log_obs`` (p, k, T).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def log_sum_exp(terms: Array, axis: int) -> Array:
    """log sum exp along an axis; minus infinity where all terms are."""
    top = terms.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.squeeze(top, axis) + np.log(np.exp(terms - top).sum(axis)))


def forward(start: Array, transition: Array, log_obs: Array) -> tuple[Array, Array]:
    """Log filtered probabilities (T, p, k) and log likelihoods (p,)."""
    joint = _joint(start, transition, log_obs)
    total = log_sum_exp(joint, 2)
    with np.errstate(invalid="ignore"):
        return joint - total[..., None], total[-1]


def smooth(start: Array, transition: Array, log_obs: Array, valid: Array) -> tuple[Array, Array, Array]:
    """Log likelihoods (p,), states (p, k, T), and transitions (p, k, k) over valid (p, T - 1) steps."""
    with np.errstate(divide="ignore"):
        log_a = np.log(transition)
    joint = _joint(start, transition, log_obs)
    total = log_sum_exp(joint[-1], 1)
    num_steps = len(joint)
    states = np.empty((*start.shape, num_steps))
    pairs = np.zeros_like(transition)
    beta = np.zeros_like(start)
    with np.errstate(invalid="ignore"):
        for t in range(num_steps - 1, -1, -1):
            states[:, :, t] = np.exp(joint[t] + beta - total[:, None])
            if t:
                ahead = log_obs[:, :, t] + beta
                both = joint[t - 1][:, :, None] + log_a + ahead[:, None, :] - total[:, None, None]
                pairs += valid[:, t - 1, None, None] * np.exp(both)
                beta = log_sum_exp(log_a + ahead[:, None, :], 2)
    return total, states, pairs


def _joint(start: Array, transition: Array, log_obs: Array) -> Array:
    """log p(z_t, x_1..x_t), (T, p, k)."""
    with np.errstate(divide="ignore"):
        log_a, here = np.log(transition), np.log(start) + log_obs[:, :, 0]
    joint = [here]
    for t in range(1, log_obs.shape[2]):
        here = log_sum_exp(here[:, :, None] + log_a, 1) + log_obs[:, :, t]
        joint.append(here)
    return np.stack(joint)
