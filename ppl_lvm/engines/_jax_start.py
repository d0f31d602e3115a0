"""Starting points in unconstrained space on the JAX side, checked to have a finite density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import cached
from ppl_lvm.backends.density import Density
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._start import starting_values

_TRIES = 100
_MOST_SCALED = 500
_HOPELESS = 1e9  # nats


def start_points(
    problem: Problem,
    run: Run,
    density: Density,
    data: Any,
    params: Any,
    num: int,
    starts: Sequence[Mapping[str, Any]] | None = None,
) -> np.ndarray:
    """(num, size) unconstrained points: known values mapped, the rest uniform on (-2, 2).

    ``starts`` are the known values, by default :func:`starting_values`.

    A random point is passed over, if another can be had, where the log density is beyond ``_HOPELESS`` (an
    explosive recursion gets to -1e60): so far out its rounding errors are nats, or warm-up ends before the
    chain has come in. If there is none, the highest of those tried is taken.

    Raises
    ------
    ValueError
        If no point with a finite log density and gradient was found.
    """
    unconstrain, slope_at = cached(("start", density.key), lambda: _functions(density))
    starts = starting_values(problem, run, num) if starts is None else starts
    points = []
    for i, start in enumerate(starts):
        rng = run.rng(2000 + i)
        best, highest = None, -np.inf
        for _ in range(_TRIES):
            free = {k: rng.uniform(-2, 2, s).astype(problem.dtype) for k, s in density.shapes.items()}
            point = density.flatten({**free, **_mapped(start, free, unconstrain, data, params)})
            value = float(slope_at(point, data, params)[0])
            if np.isfinite(value) and value > highest:
                best, highest = point, value
            if len(start) == len(density.shapes) or highest > -_HOPELESS:
                break
        if best is None:
            given = len(start) == len(density.shapes)
            what = "the given starting values" if given else f"{_TRIES} random starting points"
            raise ValueError(_message(problem, what))
        points.append(best)
    return np.stack([np.asarray(point) for point in points])


def curvature_scales(density: Density, point: Any, data: Any, params: Any) -> np.ndarray:
    """Scales (size,) in (0, 1] of the coordinates, 1 / sqrt(|curvature|) at a point, and at most 1.

    Warm-up shrinks its mass matrix towards the identity with a weight of about 1e-3 (as Stan does), which is
    no small thing where posterior variances are 1e-6, as with many data. In coordinates divided by these
    scales they are about 1. Coordinates are never widened: far from the posterior that could be wrong.
    Curvatures are differences of gradients; more than ``_MOST_SCALED`` coordinates are left as they are.
    """
    size = density.size
    if size > _MOST_SCALED:
        return np.ones(size, point.dtype)
    _, slope_at = cached(("start", density.key), lambda: _functions(density))
    base = np.asarray(slope_at(point, data, params)[1], dtype=float)
    origin = np.asarray(point)
    step = 1e-4 if origin.dtype == np.float64 else 1e-2
    curvature = np.zeros(size)
    for j in range(size):
        moved = origin.copy()
        moved[j] += step
        curvature[j] = (base[j] - float(slope_at(moved, data, params)[1][j])) / step
    curvature = np.where(
        np.isfinite(curvature), np.abs(curvature), 1.0
    )  # at a saddle, its size is what counts
    return (1.0 / np.sqrt(np.maximum(curvature, 1.0))).astype(point.dtype)


def _message(problem: Problem, what: str) -> str:
    return (
        f"{problem.model.describe()}: the log density or its gradient is not finite at {what}; check "
        "supports and scales, or pass init= with values that the data allow."
    )


def _mapped(start: Mapping[str, Any], free: dict, unconstrain: Any, data: Any, params: Any) -> dict[str, Any]:
    if not start:
        return {}
    known = {k: jnp.asarray(np.asarray(v, free[k].dtype)) for k, v in start.items() if k in free}
    full = unconstrain(known, free, data, params)
    return {k: full[k] for k in known}


def _functions(density: Density) -> tuple[Any, Any]:
    def unconstrain(known: dict, free: dict, data: Any, params: Any) -> Any:
        values = {**density.constrain(free, data, params), **known}
        return density.unconstrain(values, data, params)

    return jax.jit(unconstrain), cached(("slope", density.key), density.compile_slope)
