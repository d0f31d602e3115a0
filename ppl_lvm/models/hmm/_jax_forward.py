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
change nothing. A step is a (k, k) by (k, S) product and one fused elementwise pass; it is scaled by the sum
of the step before, which the same pass can compute.

Range: a state's share of the others never falls under about the least transition probability, so that
nothing is lost unless that is under the square root of the dtype's smallest number (1e-19 in float32,
1e-154 in float64); beyond it the value can be minus infinity and the gradient NaN, which samplers
reject. Second derivatives and forward mode are not defined.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


class Smoothed(NamedTuple):
    """Both recursions at every step, time first.

    ``alpha`` (T, k, S), not normalised: its sums over states are the factors of the likelihood. ``ahead``
    (T, k, S), p(x_t, ..., x_T | z_t) up to a factor per step and sequence. ``density`` (k, S) is that of the
    first step, its largest at 1.
    """

    log_likelihood: Array
    alpha: Array
    ahead: Array
    density: Array


@jax.custom_vjp
def log_likelihood(start: Array, transition: Array, log_obs: Array, lengths: Array) -> Array:
    """log p(x_s) for every sequence, (S,), nats."""
    density, top = _densities(log_obs)
    turned = transition.T

    def step(alpha: Array, t: Array) -> tuple[Array, Array]:
        alpha = (turned @ alpha) * _at(density, t) / _total(alpha)
        return alpha, _total(alpha)

    first = start[:, None] * density[:, 0]
    _, scale = lax.scan(step, first, jnp.arange(1, log_obs.shape[1]))
    return jnp.log(scale).sum(0) + jnp.log(_total(first)) + top


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
    """Forward and backward recursions in one loop: a step of each is one batched product and one pass."""
    density, top = _densities(log_obs)
    num_steps = log_obs.shape[1]
    both_ways = jnp.stack([transition.T, transition])

    def step(carry: Array, t: Array) -> tuple[Array, Array]:
        own = jnp.stack([_at(density, t), _at(density, num_steps - 1 - t)])
        carry = (both_ways @ carry) * own / _total(carry.swapaxes(0, 1))[:, None]
        return carry, carry

    ends = jnp.stack([start[:, None] * density[:, 0], density[:, -1]])
    _, inner = lax.scan(step, ends, jnp.arange(1, num_steps))
    inner = jnp.concatenate([ends[None], inner])
    alpha, ahead, density = inner[:, 0], inner[::-1, 1], density[:, 0]
    # without the barrier, passes over these arrays are merged with their making and repeat exp and sums
    alpha, ahead, density = lax.optimization_barrier((alpha, ahead, density))
    return Smoothed(jnp.log(alpha.sum(1)).sum(0) + top, alpha, ahead, density)


def weighted_counts(
    transition: Array, found: Smoothed, lengths: Array, weight: Array
) -> tuple[Array, Array, Array]:
    """Derivatives of sum_s weight_s l_s by start (k,), transition (k, k) and log_obs (k, T, S)."""
    alpha, ahead = found.alpha, found.ahead
    num_steps = len(alpha)
    beta = jnp.concatenate([transition @ ahead[1:], jnp.ones_like(ahead[:1])])
    both = alpha * beta
    share = weight / both.sum(1)  # (T, S)
    states = (both * share[:, None]).transpose(1, 0, 2)
    # beta_{t-1} = A ahead_t, so that the pair (t-1, t) is alpha_{t-1} A ahead_t over the sum of alpha beta
    before = jnp.where(jnp.arange(1, num_steps)[:, None] < lengths, share[:-1], 0.0)
    pairs = ((alpha[:-1] * before[:, None]) @ ahead[1:].swapaxes(1, 2)).sum(0)
    first = (found.density * beta[0] * share[0]).sum(-1)
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
    log_obs = lax.optimization_barrier(log_obs)  # else made twice, for the largest and for the rest
    top = log_obs.max(0)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return jnp.exp(log_obs - top), top.sum(0)


def _at(density: Array, t: Array) -> Array:
    return lax.dynamic_index_in_dim(density, t, 1, keepdims=False)


def _total(rows: Array) -> Array:
    """Sums over states (S,); written out where they are few, so that they fuse with the step's pass."""
    if len(rows) > 16:
        return rows.sum(0)
    total = rows[0]
    for j in range(1, len(rows)):
        total = total + rows[j]
    return total
