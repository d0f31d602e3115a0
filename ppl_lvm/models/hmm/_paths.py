"""Paths of states: the best one (Viterbi), draws from their posterior, and simulation. NumPy only.

Shapes as in :mod:`._forward`: m draws, k states, T steps, S sequences.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def viterbi(log_start: Array, log_transition: Array, log_obs: Array, valid: Array) -> Array:
    """The path of greatest score (S, T), -1 where not ``valid`` (T, S) (Viterbi 1967, IEEE Trans. IT 13).

    ``log_start`` (k,), ``log_transition`` (k, k) and ``log_obs`` (k, T, S) are log potentials; among
    equals the lower state is taken.
    """
    k, num_steps, num_sequences = log_obs.shape
    best = log_start[:, None] + log_obs[:, 0]
    back = np.empty((num_steps, k, num_sequences), dtype=np.int32)
    for t in range(1, num_steps):
        scores = best[:, None, :] + log_transition[:, :, None]  # from, to, sequence
        back[t] = scores.argmax(0)
        step = np.take_along_axis(scores, back[t][None].astype(np.intp), axis=0)[0] + log_obs[:, t]
        best = np.where(valid[t], step, best)
    path = np.full((num_steps, num_sequences), -1)
    state, every = best.argmax(0), np.arange(num_sequences)
    for t in range(num_steps - 1, -1, -1):
        path[t] = np.where(valid[t], state, -1)
        state = np.where(valid[t], back[t, state, every], state) if t else state
    return path.T.copy()


def sample_paths(log_filtered: Array, transition: Array, valid: Array, rng: np.random.Generator) -> Array:
    """One path for every draw by forward filtering, backward sampling, (m, S, T); -1 beyond the end.

    p(z_t | z_{t+1}, x) is proportional to p(z_t | x_1..x_t) A[z_t, z_{t+1}] (Carter and Kohn 1994,
    Biometrika 81; Fruehwirth-Schnatter 1994, Journal of Time Series Analysis 15). ``log_filtered``
    (T, m, k, S), ``transition`` (m, k, k).
    """
    num_steps, num_draws, _, num_sequences = log_filtered.shape
    with np.errstate(divide="ignore"):
        log_into = np.swapaxes(np.log(transition), -1, -2)  # (m, to, from)
    path = np.empty((num_steps, num_draws, num_sequences), dtype=np.int64)
    path[-1] = categorical(log_filtered[-1].swapaxes(1, 2), rng)
    rows = np.arange(num_draws)[:, None]
    for t in range(num_steps - 2, -1, -1):
        here = log_filtered[t].swapaxes(1, 2)
        onwards = here + log_into[rows, path[t + 1]] * valid[t + 1][:, None]
        path[t] = categorical(np.where(valid[t + 1][:, None], onwards, here), rng)
    return np.where(valid[:, None, :], path, -1).transpose(1, 2, 0)


def simulate(start: Array, transition: Array, num: int, length: int, rng: np.random.Generator) -> Array:
    """``num`` new paths for every draw, (m, num, length); ``start`` is (m, k) or (m, num, k)."""
    m, k = transition.shape[:2]
    first = start[:, None] if start.ndim == 2 else start
    edges = np.cumsum(transition, -1)[..., :-1]
    path = np.empty((m, num, length), dtype=np.int64)
    uniform = rng.random((length, m, num, 1))
    path[..., 0] = (uniform[0] >= np.cumsum(np.broadcast_to(first, (m, num, k)), -1)[..., :-1]).sum(-1)
    rows = np.arange(m)[:, None]
    for t in range(1, length):
        path[..., t] = (uniform[t] >= edges[rows, path[..., t - 1]]).sum(-1)
    return path


def categorical(log_weights: Array, rng: np.random.Generator) -> Array:
    """One draw for each row of log weights (..., k)."""
    weights = np.exp(log_weights - log_weights.max(-1, keepdims=True))
    edges = np.cumsum(weights, -1)
    uniform = rng.random((*weights.shape[:-1], 1)) * edges[..., -1:]
    return np.asarray((uniform >= edges[..., :-1]).sum(-1))
