"""Models of the zoo, translated, beside Pyro's own answers at the same points."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from translated import ZOO
from translated.oracle import Oracle, Point, torch_settings

import ppl_lvm as lvm

NUM_POINTS = 5


def error(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    assert ours.shape == theirs.shape
    if not np.isfinite(ours).all():
        return np.inf
    return float(np.max(np.abs(ours - theirs), initial=0.0) / (1.0 + np.max(np.abs(theirs), initial=0.0)))


def points_of(oracle: Oracle, count: int = NUM_POINTS) -> list[Point]:
    """Random unconstrained points at which Pyro's log density is finite, nearer to 0 after others."""
    r = np.random.default_rng(4711)
    found: list[Point] = []
    for attempt in range(20 * count):
        reach = 1.5 * 0.95**attempt
        z = {k: r.uniform(-reach, reach, s).astype(oracle.dtype) for k, s in oracle.shapes.items()}
        value, slopes = oracle.value_and_gradient(z)
        if np.isfinite(value) and all(np.isfinite(g).all() for g in slopes.values()):
            found.append(z)
        if len(found) == count:
            return found
    raise AssertionError(f"Pyro's log density of the zoo's model is finite at {len(found)} points only")


@dataclass
class Case:
    """A translated model, its oracle, points, and everything of its density at the first of them."""

    name: str
    translation: Any
    oracle: Oracle
    points: list[Point]
    parts: Mapping[str, Any]

    def worst(self, points: list[Point]) -> tuple[float, float]:
        """Largest errors of value and of gradient."""
        values, slopes = [0.0], [0.0]
        with torch_settings(self.oracle.dtype):
            for z in points:
                value, slope = self.oracle.value_and_gradient(z)
                own_value, own_slope = self.translation.value_and_gradient(z)
                values.append(error(own_value, value))
                slopes += [error(own_slope[k], slope[k]) for k in slope]
        return max(values), max(slopes)


def data_of(name: str, dtype: str = "float64") -> dict[str, Any]:
    """Array arguments for a density's functions."""
    arrays = {k: v for k, v in ZOO[name].data().items() if isinstance(v, np.ndarray)}
    return {k: jnp.asarray(v.astype(dtype) if v.dtype.kind == "f" else v) for k, v in arrays.items()}


def parts_of(name: str, density: Any, z: Point, params: Mapping[str, Any]) -> dict[str, Any]:
    def evaluate(z: Any, data: Any, params: Any) -> dict[str, Any]:
        rest, per_datum = density.log_joint(z, data, params)
        values = density.constrain(z, data, params)
        sites = {k: values[k] for k in density.shapes}
        return {
            "rest": rest,
            "per_datum": per_datum,
            "prior": density.log_prior(z, data, params),
            "values": values,
            "jacobians": density.site_jacobians(z, data, params),
            "jacobian": density.log_jacobian(z, data, params),
            "back": density.unconstrain(sites, data, params),
        }

    with jax.enable_x64(True):
        z = {k: jnp.asarray(v) for k, v in z.items()}
        return jax.tree_util.tree_map(np.asarray, jax.jit(evaluate)(z, data_of(name), params))


@functools.cache
def made(name: str) -> Case:
    entry = ZOO[name]
    translation = lvm.translate(entry.function, entry.data())
    with torch_settings("float64"):
        oracle = Oracle(entry)
        points = points_of(oracle)
    parts = parts_of(name, translation.density, points[0], entry.params)
    return Case(name, translation, oracle, points, parts)
