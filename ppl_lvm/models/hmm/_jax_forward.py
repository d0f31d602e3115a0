r"""The likelihood of sequences in JAX, with its gradient from the smoother instead of from the tape.

By Fisher's identity the derivatives of the log likelihood are expected counts given the data,

.. math::

    \frac{\partial \ell}{\partial \log p(x_t \mid j)} = p(z_t = j \mid x), \qquad
    A_{ij} \frac{\partial \ell}{\partial A_{ij}} = \sum_t p(z_{t-1} = i, z_t = j \mid x)

(Cappe, Moulines and Ryden, *Inference in Hidden Markov Models* (2005), section 10.1). They take a backward
recursion, which does not need the forward one's results when each has its own scaling; so both run in one
loop, and nothing is stored for reverse differentiation but the two arrays of probabilities.

Shapes: k states, T steps, S sequences; ``start`` (k,), ``transition`` (k, k) with rows that sum to one,
``log_obs`` (k, T, S), zero where nothing was observed and beyond a sequence's end. There the recursions then
change nothing. A step is a (k, k) by (k, S) product, scaled by the sum of the step before, which the same
pass can compute. On a CPU the number of kernels a step launches decides: with few states the product is
written out, so that a step is one kernel, and the smoother's loop writes into the arrays that it returns.

Range: a state's share of the others never falls under about the least transition probability, so that
nothing is lost unless that is under the square root of the dtype's smallest number (1e-19 in float32,
1e-154 in float64); beyond it the value can be minus infinity and the gradient NaN, which samplers
reject. Second derivatives and forward mode are not defined.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ppl_lvm.models.hmm import _jax_associative

_MOST_WRITTEN_OUT = 12  # states; beyond, the library's product is faster
_FEW_SEQUENCES, _MOST_FOR_FEW = 8, 16  # but not for narrow ones
_MOST_STATES = 64  # whose sums and maxima are written out


class Smoothed(NamedTuple):
    """Both recursions at every step, all (k, T, S), each column up to a factor.

    ``alpha`` is p(z_t, x_1..x_t), not normalised: its sums over states are the factors of the likelihood.
    ``after`` at t is p(x_{t+1}, ..., x_T | z_{t+1}), and 1 at the last step. ``density`` (k, S) is that of
    the first step, its largest at 1.
    """

    log_likelihood: Array
    alpha: Array
    after: Array
    density: Array


@jax.custom_vjp
def log_likelihood(start: Array, transition: Array, log_obs: Array, lengths: Array) -> Array:
    """log p(x_s) for every sequence, (S,), nats."""
    density, top = _densities(log_obs)
    if _jax_associative.preferred(log_obs):
        alpha = _jax_associative.filtered(start, transition, density)
        return jnp.log(sum_states(alpha)).sum(0) + top
    mixing = _mixing(transition.T, log_obs.shape[2])

    def step(alpha: Array, t: Array) -> tuple[Array, Array]:
        mixed, scale = _mixed(mixing, alpha)
        return mixed * _at(density, t) / scale, scale

    first = start[:, None] * density[:, 0]
    last, scale = lax.scan(step, first, jnp.arange(1, log_obs.shape[1]))
    return jnp.log(scale).sum(0) + jnp.log(sum_states(last)) + top


def _forward(start: Array, transition: Array, log_obs: Array, lengths: Array) -> tuple[Array, Any]:
    found = smooth(start, transition, log_obs)
    return found.log_likelihood, (transition, found, lengths)


def _backward(saved: Any, slope: Array) -> tuple[Array, Array, Array, None]:
    """Cotangents from expected counts, each sequence weighted by its cotangent (S,)."""
    transition, found, lengths = saved
    first, pairs, states = weighted_counts(transition, found, lengths, slope)
    return first, pairs, states, None


log_likelihood.defvjp(_forward, _backward)


def smooth(start: Array, transition: Array, log_obs: Array) -> Smoothed:
    """Forward and backward recursions in one loop, T - 1 steps of each; or as associative scans."""
    density, top = _densities(log_obs)
    if _jax_associative.preferred(log_obs):
        alpha = _jax_associative.filtered(start, transition, density)
        behind = _jax_associative.after(transition, density)
        return Smoothed(jnp.log(sum_states(alpha)).sum(0) + top, alpha, behind, density[:, 0])
    _, num_steps, num_sequences = log_obs.shape
    forward, backward = (_mixing(matrix, num_sequences) for matrix in (transition.T, transition))

    def step(t: Array, both: tuple[Array, Array]) -> tuple[Array, Array]:
        alpha, after = both
        back = num_steps - t
        ahead = _scaled(forward, _at(alpha, t - 1)) * _at(density, t)
        behind = _scaled(backward, _at(after, back)) * _at(density, back)
        return _put(alpha, ahead, t), _put(after, behind, back - 1)

    nothing = jnp.zeros_like(density)
    ends = nothing.at[:, 0].set(start[:, None] * density[:, 0]), nothing.at[:, -1].set(1.0)
    alpha, after = lax.fori_loop(1, num_steps, step, ends)
    return Smoothed(jnp.log(sum_states(alpha)).sum(0) + top, alpha, after, density[:, 0])


def weighted_counts(
    transition: Array, found: Smoothed, lengths: Array, weight: Array
) -> tuple[Array, Array, Array]:
    """Derivatives of sum_s weight_s l_s by start (k,), transition (k, k) and log_obs (k, T, S)."""
    alpha, after = found.alpha, found.after
    k, num_steps, _ = alpha.shape
    beta = (transition @ after.reshape(k, -1)).reshape(after.shape)  # 1 at the last step, as rows sum to 1
    share = lax.optimization_barrier(weight / sum_states(alpha * beta))  # (T, S)
    states = alpha * beta * share
    # the pair (t, t+1) is alpha_t A after_t over the sum of alpha beta
    before = jnp.where(jnp.arange(1, num_steps + 1)[:, None] < lengths, share, 0.0)
    pairs = (alpha * before).reshape(k, -1) @ after.reshape(k, -1).T
    first = (found.density * beta[:, 0] * share[0]).sum(-1)
    return first, pairs, states


def stationary(transition: Array) -> Array:
    """The distribution pi = pi A, by pi (I - A + 1 1') = 1'."""
    k = transition.shape[-1]
    found = jnp.linalg.solve(
        (jnp.eye(k, dtype=transition.dtype) - transition + 1.0).T, jnp.ones(k, transition.dtype)
    )
    found = jnp.maximum(found, jnp.finfo(transition.dtype).tiny)
    return found / found.sum()


def _densities(log_obs: Array) -> tuple[Array, Array]:
    """exp(log_obs - top) with the largest of each step at 1, and the sums of top (S,)."""
    log_obs = lax.optimization_barrier(log_obs)  # else made twice, for the largest and for the rest
    top = functools.reduce(jnp.maximum, log_obs) if len(log_obs) <= _MOST_STATES else log_obs.max(0)
    top = lax.optimization_barrier(jnp.where(jnp.isfinite(top), top, 0.0))  # else found for every state
    return jnp.exp(log_obs - top), top.sum(0)


def _at(rows: Array, t: Array) -> Array:
    return lax.dynamic_index_in_dim(rows, t, 1, keepdims=False)


def _put(rows: Array, new: Array, t: Array) -> Array:
    return lax.dynamic_update_index_in_dim(rows, new, t, 1)


def _mixing(matrix: Array, num_sequences: int) -> Array:
    """What :func:`_mixed` multiplies by: the matrix, with a row of ones below for the library's product."""
    most = _MOST_FOR_FEW if num_sequences <= _FEW_SEQUENCES else _MOST_WRITTEN_OUT
    if len(matrix) <= most:
        return matrix
    return jnp.concatenate([matrix, jnp.ones_like(matrix[:1])])


def _mixed(mixing: Array, rows: Array) -> tuple[Array, Array]:
    """The matrix times rows (k, S), and the sums of the rows over states (S,)."""
    if len(mixing) > len(rows):
        found = mixing @ rows
        return found[:-1], found[-1]
    mixed = mixing[:, :1] * rows[0]
    for j in range(1, len(rows)):
        mixed = mixed + mixing[:, j : j + 1] * rows[j]
    return mixed, sum_states(rows)


def _scaled(mixing: Array, rows: Array) -> Array:
    mixed, scale = _mixed(mixing, rows)
    return mixed / scale


def sum_states(rows: Array) -> Array:
    """Sums over states, the first axis; written out where those are few, which takes a tenth of the time."""
    if len(rows) > _MOST_STATES:
        return rows.sum(0)
    return functools.reduce(jnp.add, rows)
