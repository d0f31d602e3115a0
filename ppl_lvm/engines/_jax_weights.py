"""Draws of a JAX guide with their log p and log q, in constrained space, compiled once a guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._jax_guide import Guide
from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem


class GuideFunctions(NamedTuple):
    """``draw(params, seed, num)`` -> (values, log p, log q, log weights by datum (s, n), (s, 0) where
    they do not split); ``log_q_at(params, values)`` -> (s,)."""

    draw: Callable[[Any, int, int], tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]]
    log_q_at: Callable[[Any, Mapping[str, np.ndarray]], np.ndarray]


def guide_functions(key: Any, density: Density, guide: Guide, data: Any, held: Any) -> GuideFunctions:
    """Functions over many draws; densities lose the Jacobian, to be comparable with Pyro's.

    ``key`` names the guide's structure: a guide of the same key and shapes is not compiled again. ``held``
    are the values of the model's params.
    """
    many, many_at = cached(("guide", density.key, key), lambda: _compile(density, guide))

    def draw(params: Any, seed: int, num: int) -> tuple[dict[str, np.ndarray], Any, Any, Any]:
        values, *figures = many(params, jax.random.split(jax.random.key(seed), num), data, held)
        log_p, log_q, local = (np.asarray(v) for v in figures)
        return {k: np.asarray(v) for k, v in values.items()}, log_p, log_q, local

    def log_q_at(params: Any, values: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(many_at(params, {k: jnp.asarray(v) for k, v in values.items()}, data, held))

    return GuideFunctions(draw, log_q_at)


def is_split(problem: Problem, density: Density, guide: Guide) -> bool:
    """Whether every latent is local and the guide is a program, so that each datum has its own weights."""
    return bool(density.shapes) and set(density.shapes) <= set(density.local) and guide.splits


def split_log_joint(density: Density) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """``density.log_joint`` with a second part for data whatever the source can split.

    Where it gives the total alone (labels summed out by enumeration), the data's part is what the total has
    beyond the prior, as one number. That needs latents that all lie outside the data plate.

    Raises
    ------
    ValueError
        If the density does not split and has continuous latents inside the plate.
    """

    def split(z: Any, data: Any, params: Any) -> tuple[Any, Any]:
        rest, per_datum = density.log_joint(z, data, params)
        if per_datum is not None:
            return rest, per_datum
        if density.local:
            raise ValueError(
                f"batch_size: the twin enumerates discrete sites beside {list(density.local)} inside the "
                "data plate, so that its density does not split over data; sum them out in one factor inside "
                "the plate, use backend='pyro', or leave out batch_size."
            )
        prior = density.log_prior(z, data, params)
        return prior, (rest - prior)[None]

    return split


def _compile(density: Density, guide: Guide) -> tuple[Callable, Callable]:
    def one(params: Any, key: Any, data: Any, held: Any) -> Any:
        z, (q_rest, q_local) = guide.draw(params, key, data)
        rest, per_datum = density.log_joint(z, data, held)
        jacobian = density.log_jacobian(z, data, held)
        log_p = rest if per_datum is None else rest + per_datum.sum()
        log_q = q_rest if q_local is None else q_rest + q_local.sum()
        local = jnp.zeros(0) if per_datum is None or q_local is None else per_datum - q_local
        return density.constrain(z, data, held), log_p - jacobian, log_q - jacobian, local

    def at(params: Any, values: Any, data: Any, held: Any) -> Any:
        z = density.unconstrain(values, data, held)
        return guide.log_prob(params, z, data) - density.log_jacobian(z, data, held)

    axes = (None, 0, None, None)
    return jax.jit(jax.vmap(one, in_axes=axes)), jax.jit(jax.vmap(at, in_axes=axes))
