r"""Forward and backward recursions of hidden Markov models in NumPy, for many draws and sequences at once.

Probabilities are scaled at every step (Rabiner 1989, Proceedings of the IEEE 77, section V.A), after each
step's densities are divided by their largest. Shapes: m draws, k states, T steps, S sequences; ``start``
(m, k), ``transition`` (m, k, k), ``log_obs`` (m, k, T, S) with zeros where nothing was observed and beyond
the end. Since the rows of a transition matrix sum to one, steps beyond the end then change nothing.

Scaling loses states whose probability, relative to the others, falls under the smallest number. They cannot
come back later in weight, unless the transition matrix has (almost) zeros: from any state s, every state
keeps a share of at least min A. So where min A is under ``LEAST_TRANSITION`` and a state got lost,
the recursion is repeated in log space (:mod:`._log_space`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ppl_lvm.models.hmm import _log_space

Array = np.ndarray
LEAST_TRANSITION = 1e-100
LEAST_STATE = 1e-250


class Forward(NamedTuple):
    """``log_likelihood`` (m, S), nats, and ``log_filtered`` (T, m, k, S), log p(z_t | x_1..x_t)."""

    log_likelihood: Array
    log_filtered: Array


class Smoothed(NamedTuple):
    """``log_likelihood`` (m, S); ``states`` (m, k, T, S), p(z_t | x); ``pairs`` (m, k, k), transitions."""

    log_likelihood: Array
    states: Array
    pairs: Array


def forward(start: Array, transition: Array, log_obs: Array) -> Forward:
    """Likelihood and filtered probabilities."""
    alpha, log_likelihood = _scaled_forward(start, transition, log_obs)
    draw, sequence = _lost(transition, alpha, log_likelihood)
    with np.errstate(divide="ignore"):
        log_filtered = np.log(alpha)
    if len(draw):
        log_alpha, found = _log_space.forward(start[draw], transition[draw], log_obs[draw, :, :, sequence])
        log_filtered[:, draw, :, sequence] = np.moveaxis(log_alpha, 1, 0)
        log_likelihood[draw, sequence] = found
    return Forward(log_likelihood, log_filtered)


def log_likelihood(start: Array, transition: Array, log_obs: Array) -> Array:
    """log p(x_s | draw), (m, S)."""
    alpha, found = _scaled_forward(start, transition, log_obs)
    draw, sequence = _lost(transition, alpha, found)
    if len(draw):
        found[draw, sequence] = _log_space.forward(
            start[draw], transition[draw], log_obs[draw, :, :, sequence]
        )[1]
    return found


def smooth(start: Array, transition: Array, log_obs: Array, valid: Array) -> Smoothed:
    """Smoothed states, and transitions summed over the steps t >= 1 that are ``valid`` (T, S)."""
    alpha, log_likelihood = _scaled_forward(start, transition, log_obs)
    beta, ahead = _scaled_backward(transition, log_obs)
    states = alpha * beta
    norm = states.sum(2, keepdims=True)
    draw, sequence = _lost(transition, alpha, log_likelihood)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        states /= norm
        share = alpha[:-1] / norm[:-1]
    # ahead[t] = e_t beta_t / scale, so that A ahead[t] = beta_{t-1}: the pair is alpha A ahead / norm
    share *= valid[1:, None, None, :]
    if len(draw):
        share[:, draw, :, sequence] = ahead[1:][:, draw, :, sequence] = 0.0
    pairs = transition * np.einsum("tmis,tmjs->mij", share, ahead[1:], optimize=True)
    states = np.moveaxis(states, 0, 2)
    if len(draw):
        found = _log_space.smooth(
            start[draw], transition[draw], log_obs[draw, :, :, sequence], valid[1:, sequence].T
        )
        log_likelihood[draw, sequence] = found[0]
        states[draw, :, :, sequence] = found[1]
        np.add.at(pairs, draw, found[2])
    return Smoothed(log_likelihood, states, pairs)


def _lost(transition: Array, alpha: Array, log_likelihood: Array) -> tuple[Array, Array]:
    """Draws and sequences for which scaling may have lost a state that matters."""
    sparse = transition.min((-1, -2)) < LEAST_TRANSITION
    bad = ~np.isfinite(log_likelihood)
    if sparse.any():
        bad = bad | (sparse[:, None] & (alpha.min((0, 2)) < LEAST_STATE))
    draw, sequence = np.nonzero(bad)
    return draw, sequence


def scaled_densities(log_obs: Array) -> tuple[Array, Array]:
    """exp(log_obs - top) (T, m, k, S) with the largest of each step at 1, and the sums of top (m, S)."""
    top = log_obs.max(1)
    top = np.where(np.isfinite(top), top, 0.0)
    return np.ascontiguousarray(np.moveaxis(np.exp(log_obs - top[:, None]), 2, 0)), top.sum(1)


def _scaled_forward(start: Array, transition: Array, log_obs: Array) -> tuple[Array, Array]:
    density, total = scaled_densities(log_obs)
    turned = np.ascontiguousarray(np.swapaxes(transition, -1, -2))
    alpha = np.empty_like(density)
    scale = np.empty((len(density), *total.shape))
    with np.errstate(divide="ignore", invalid="ignore"):
        for t, own in enumerate(density):
            here = alpha[t]
            if t:
                np.matmul(turned, alpha[t - 1], out=here)
                here *= own
            else:
                np.multiply(start[:, :, None], own, out=here)
            np.sum(here, axis=1, out=scale[t])
            here /= scale[t][:, None]
        return alpha, total + np.log(scale).sum(0)


def _scaled_backward(transition: Array, log_obs: Array) -> tuple[Array, Array]:
    """beta (T, m, k, S) up to a scale of each step, and what was carried a step back to make it."""
    ahead, _ = scaled_densities(log_obs)
    beta = np.empty_like(ahead)
    beta[-1] = 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for t in range(len(beta) - 1, 0, -1):
            ahead[t] *= beta[t]
            ahead[t] /= ahead[t].max(1, keepdims=True)
            np.matmul(transition, ahead[t], out=beta[t - 1])
    return beta, ahead
