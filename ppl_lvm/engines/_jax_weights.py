"""Draws of a JAX guide with their log p and log q, in constrained space, compiled once a guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._jax_guides import Guide
from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density


class GuideFunctions(NamedTuple):
    """``draw(params, seed, num)`` -> (values, log p, log q); ``log_q_at(params, values)`` -> (s,)."""

    draw: Callable[[Any, int, int], tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]
    log_q_at: Callable[[Any, Mapping[str, np.ndarray]], np.ndarray]


def guide_functions(key: Any, density: Density, guide: Guide, data: Any) -> GuideFunctions:
    """Functions over many draws; densities lose the Jacobian, to be comparable with Pyro's.

    ``key`` names the guide's structure: a guide of the same key and shapes is not compiled again.
    """
    many, many_at = cached(("guide", density.key, key), lambda: _compile(density, guide))

    def draw(params: Any, seed: int, num: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        values, log_p, log_q = many(params, jax.random.split(jax.random.key(seed), num), data)
        return {k: np.asarray(v) for k, v in values.items()}, np.asarray(log_p), np.asarray(log_q)

    def log_q_at(params: Any, values: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(many_at(params, {k: jnp.asarray(v) for k, v in values.items()}, data))

    return GuideFunctions(draw, log_q_at)


def _compile(density: Density, guide: Guide) -> tuple[Callable, Callable]:
    def one(params: Any, key: Any, data: Any) -> Any:
        z, log_q = guide.draw(params, key, data)
        jacobian = density.log_jacobian(z, data, {})
        return density.constrain(z, data, {}), density.total(z, data, {}) - jacobian, log_q - jacobian

    def at(params: Any, values: Any, data: Any) -> Any:
        z = density.unconstrain(values, data, {})
        return guide.log_prob(params, z, data) - density.log_jacobian(z, data, {})

    axes = (None, 0, None)
    return jax.jit(jax.vmap(one, in_axes=axes)), jax.jit(jax.vmap(at, in_axes=axes))
