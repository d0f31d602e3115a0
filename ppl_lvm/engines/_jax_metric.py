"""The coordinates and the mass matrix that chains on JAX begin with."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_start import curvature_scales
from ppl_lvm.engines._start import draws_of, shrunk_correlation, thinned


def starting_metric(
    problem: Problem, run: Run, density: Density, data: Any, held: Any, point: Any, dense: bool
) -> tuple[Any, ...]:
    """Scales (size,) that coordinates are divided by, and the inverse mass matrix in scaled coordinates.

    Where ``run.init`` is a fit with draws: their standard deviations in unconstrained space, and ones (their
    correlations, shrunk, where ``dense``); sites that it has no draws of are scaled by curvature. Else
    scales by curvature alone, and chains begin with the identity.
    """
    scales = curvature_scales(density, point, data, held)
    known = {k: v for k, v in draws_of(problem, run.init).items() if k in density.shapes}
    flat = _unconstrained(density, data, held, point, known) if known else np.zeros((0, density.size))
    spread = flat.std(0, ddof=1) if len(flat) > 2 else np.zeros(density.size)
    own = spread > 1e-10 * (1.0 + np.abs(np.asarray(point)))  # of coordinates that vary
    if not own.any():
        return (scales,)
    scales = np.where(own, spread.astype(scales.dtype), scales)
    inverse = np.eye(density.size) if dense else np.ones(density.size)
    if dense and own.sum() > 1:
        inverse[np.ix_(own, own)] = shrunk_correlation(flat[:, own] / spread[own])
    return scales, inverse.astype(scales.dtype)


def _unconstrained(density: Density, data: Any, held: Any, point: Any, known: Any) -> np.ndarray:
    """Draws in unconstrained space (m, size), without those at infinity; other sites stay as at ``point``."""

    def build() -> Any:
        def one(values: Any, point: Any, data: Any, held: Any) -> Any:
            full = {**density.constrain(density.unflatten(point), data, held), **values}
            return density.flatten(density.unconstrain(full, data, held))

        return jax.jit(jax.vmap(one, in_axes=(0, None, None, None)))

    values = {k: jnp.asarray(v, point.dtype) for k, v in thinned(known).items()}
    flat = cached(("unconstrained", density.key), build)(values, point, data, held)
    found = np.asarray(flat, dtype=float)
    return found[np.isfinite(found).all(1)]
