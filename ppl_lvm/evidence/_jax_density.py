"""A fit's log density at many points of unconstrained space, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem

_BATCH = 256  # points at a time: memory grows with them times the data


class Points:
    """log p(z, x), constraint and Jacobian at points (s, size) of unconstrained space.

    To be used inside of ``jax_session(problem.dtype)``. ``params`` are the values at which the model's params
    are held.
    """

    def __init__(self, problem: Problem, params: Mapping[str, np.ndarray]) -> None:
        self.density, self.data = density_of(problem)
        self.held = {k: jnp.asarray(v) for k, v in params.items()}
        self._functions = cached(("points", self.density.key), lambda: _compiled(self.density))
        self._dtype = jnp.dtype(problem.dtype)

    def log_p(self, free: np.ndarray) -> np.ndarray:
        """log p(z, x) with respect to unconstrained z, (s,), -inf where it is not a number."""
        found = self._run("log_p", jnp.asarray(free, self._dtype))
        return np.where(np.isnan(found), -np.inf, found)

    def log_jacobian(self, free: np.ndarray) -> np.ndarray:
        """log absolute determinant of the map from z to the values, (s,)."""
        return self._run("log_jacobian", jnp.asarray(free, self._dtype))

    def values(self, free: np.ndarray) -> dict[str, np.ndarray]:
        """Constrained values by latent site, (s, *shape)."""
        found = self._run("values", jnp.asarray(free, self._dtype))
        return {k: found[k] for k in self.density.shapes}

    def free(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Unconstrained points (s, size) of values by site."""
        own = {k: jnp.asarray(values[k], self._dtype) for k in self.density.shapes}
        return self._run("free", own)

    def _run(self, name: str, points: Any) -> Any:
        found = self._functions[name](points, self.data, self.held)
        return jax.tree_util.tree_map(lambda v: np.asarray(v, dtype=float), found)


def _compiled(density: Density) -> dict[str, Any]:
    def log_p(flat: Any, data: Any, params: Any) -> Any:
        return density.total(density.unflatten(flat), data, params)

    def log_jacobian(flat: Any, data: Any, params: Any) -> Any:
        return density.log_jacobian(density.unflatten(flat), data, params)

    def values(flat: Any, data: Any, params: Any) -> Any:
        return density.constrain(density.unflatten(flat), data, params)

    def free(own: Any, data: Any, params: Any) -> Any:
        return density.flatten(density.unconstrain(own, data, params))

    def over(function: Any) -> Any:
        def many(points: Any, data: Any, params: Any) -> Any:
            return lax.map(lambda p: function(p, data, params), points, batch_size=_BATCH)

        return jax.jit(many)

    return {f.__name__: over(f) for f in (log_p, log_jacobian, values, free)}


__all__ = ["Points"]
