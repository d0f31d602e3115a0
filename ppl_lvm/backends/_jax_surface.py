"""A translated or hand-written density as a function of a flat NumPy vector, with gradient and Hessian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem


class JaxSurface:
    """The log density over unconstrained coordinates (size,); use it inside a JAX session.

    ``jacobian=False`` leaves the transforms' Jacobians out: the density of the constrained values.
    """

    def __init__(self, problem: Problem, held: Mapping[str, np.ndarray], *, jacobian: bool) -> None:
        self.density, self.data = density_of(problem)
        self.held = {k: jnp.asarray(v) for k, v in held.items()}
        self.size = self.density.size
        self._functions = cached(
            ("surface", self.density.key, jacobian), lambda: _compile(self.density, jacobian)
        )

    def value_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = self._functions["slope"](jnp.asarray(flat), self.data, self.held)
        return float(value), np.asarray(slope, dtype=float)

    def hessian(self, flat: np.ndarray) -> np.ndarray:
        return np.asarray(self._functions["hessian"](jnp.asarray(flat), self.data, self.held), dtype=float)

    def values(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Constrained values by site of coordinates (size,)."""
        found = self._functions["values"](jnp.asarray(flat), self.data, self.held)
        return {k: np.asarray(v) for k, v in found.items()}


def _compile(density: Density, jacobian: bool) -> dict[str, Any]:
    def log_p(flat: Any, data: Any, held: Any) -> Any:
        z = density.unflatten(flat)
        total = density.total(z, data, held)
        return total if jacobian else total - density.log_jacobian(z, data, held)

    def values(flat: Any, data: Any, held: Any) -> Any:
        return density.constrain(density.unflatten(flat), data, held)

    made = {"slope": jax.value_and_grad(log_p), "hessian": jax.hessian(log_p), "values": values}
    return {name: jax.jit(function) for name, function in made.items()}
