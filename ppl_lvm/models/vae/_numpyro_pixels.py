"""The log density of many Bernoulli pixels at once, in the order of operations that a CPU is quick at."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

_LANES = 16  # partial sums side by side: a sum along the last axis alone is one addition after another
_FACTORS = 64  # each is at most 2, and 2^64 is within float32


class Pixels(dist.Independent):
    """Independent Bernoulli over the last ``num_event_dims`` axes of ``logits``."""

    def __init__(self, logits: Any, num_event_dims: int) -> None:
        super().__init__(dist.Bernoulli(logits=logits), num_event_dims)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        del intermediates
        logits, value = jnp.broadcast_arrays(self.base_dist.logits, value)
        lead = logits.shape[: logits.ndim - self.reinterpreted_batch_ndims]
        flat = logits.reshape(*lead, -1)
        return log_density(flat, value.reshape(*lead, -1).astype(flat.dtype))


@jax.custom_jvp
def log_density(logits: Any, value: Any) -> Any:
    """sum over d of x l - log(1 + exp l), (..., d) each -> (...).

    log(1 + exp l) = max(l, 0) + log(1 + exp -|l|), and of the second terms the product is summed up, 64 at a
    time: one logarithm for 64 pixels.
    """
    linear = _folded(logits * value - jnp.maximum(logits, 0.0), 0.0).sum((-3, -2, -1))
    factors = _folded(1.0 + jnp.exp(-jnp.abs(logits)), 1.0).prod(-2)
    return linear - jnp.log(factors).sum((-2, -1))


@log_density.defjvp
def _slope(primals: Any, tangents: Any) -> Any:
    logits, value = primals
    slope = (value - jax.nn.sigmoid(logits)) * tangents[0] + logits * tangents[1]
    return log_density(logits, value), slope.sum(-1)


def _folded(terms: Any, neutral: float) -> Any:
    """(..., d) -> (..., products, at most 64 factors, lanes), filled up with what changes no result."""
    size = terms.shape[-1]
    rows = -(-size // _LANES)
    products = -(-rows // _FACTORS)
    factors = -(-rows // products)
    missing = products * factors * _LANES - size
    if missing:
        edges = [(0, 0)] * (terms.ndim - 1) + [(0, missing)]
        terms = jnp.pad(terms, edges, constant_values=neutral)
    return terms.reshape(*terms.shape[:-1], products, factors, _LANES)
