"""Modes of a log density by L-BFGS with restarts, and the Gaussian that the curvature there gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppl_lvm.engines._units import Units

_MOST_POLISHED = 500


class Surface(Protocol):
    """A log density of unconstrained coordinates (size,)."""

    size: int

    def value_and_gradient(self, flat: np.ndarray) -> tuple[float, np.ndarray]: ...
    def hessian(self, flat: np.ndarray) -> np.ndarray: ...
    def values(self, flat: np.ndarray) -> dict[str, np.ndarray]: ...


class Mode(NamedTuple):
    """The best of some searches: where (size,) and how high, the ends of all, and the best one's path."""

    point: np.ndarray
    log_density: float
    every: list[float]
    converged: bool
    steps: int
    path: list[float]


def find_mode(surface: Surface, starts: Sequence[np.ndarray], *, max_iter: int, units: Units) -> Mode:
    """L-BFGS (Byrd et al. 1995, by SciPy) from each start; the highest end is kept.

    Raises
    ------
    ValueError
        If no search ends at a finite log density: the density may have no mode (it may be unbounded).
    """
    found = units.each("search", len(starts), lambda i: _climb(surface, starts[i], max_iter))
    every = [float(f["log_density"]) for f in found]
    if not np.isfinite(every).any():
        raise ValueError(
            "mode: no search ended at a finite log density; pass init= with values that the data allow, or "
            "use SVI or NUTS."
        )
    best = found[int(np.argmax(np.where(np.isfinite(every), every, -np.inf)))]
    point, value = polished(surface, best["point"], float(best["log_density"]))
    steps = sum(int(f["steps"]) for f in found)
    return Mode(point, value, every, int(best["steps"]) < max_iter, steps, best["path"].tolist())


def _climb(surface: Surface, start: np.ndarray, max_iter: int) -> dict[str, Any]:
    """Where one search ends, how high, after how many steps, and the losses on its way."""
    from scipy.optimize import minimize

    path: list[float] = []

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = surface.value_and_gradient(flat)
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return np.inf, np.zeros_like(flat)  # the line search steps back
        path.append(-value)
        return -value, -slope

    found = minimize(
        loss, np.asarray(start, float), jac=True, method="L-BFGS-B",
        options={"maxiter": max_iter, "maxcor": 20, "ftol": 1e-14, "gtol": 1e-8, "maxfun": 20 * max_iter},
    )  # fmt: skip
    return {
        "point": found.x,
        "log_density": -float(found.fun),
        "steps": int(found.nit),
        "path": np.array(path),
    }


def polished(surface: Surface, point: np.ndarray, value: float, rounds: int = 3) -> tuple[np.ndarray, float]:
    """Newton's steps where they gain: L-BFGS stops when the value no longer shows the error of the point.

    Left out beyond ``_MOST_POLISHED`` coordinates, where a Hessian is large."""
    for _ in range(rounds if surface.size <= _MOST_POLISHED else 0):
        slope = surface.value_and_gradient(point)[1]
        try:
            moved = point - np.linalg.solve(surface.hessian(point), slope)
        except np.linalg.LinAlgError:
            break
        new, after = surface.value_and_gradient(moved)
        if not (np.isfinite(new) and new >= value - 1e-12 * abs(value)):
            break
        if not np.linalg.norm(after) < np.linalg.norm(slope):
            break
        point, value = moved, new
    return point, value


def curvature_root(surface: Surface, point: np.ndarray) -> np.ndarray:
    """The Cholesky factor (size, size) of the inverse of the negative Hessian at a mode.

    Raises
    ------
    ValueError
        If the Hessian is not negative definite: the point is no isolated maximum.
    """
    precision = -surface.hessian(point)
    precision = (precision + precision.T) / 2
    values = np.linalg.eigvalsh(precision) if np.isfinite(precision).all() else np.array([np.nan])
    if not values[0] > 1e-10 * values[-1]:
        raise ValueError(
            "laplace: the log density is not curved downwards in every direction at its mode (eigenvalues of "
            f"minus its Hessian from {values[0]:.3g} to {values[-1]:.3g}), so no Gaussian fits there: some "
            "direction is not identified, or the mode lies at infinity; use SVI(guide='full_rank') or NUTS."
        )
    return np.linalg.cholesky(np.linalg.inv(precision))
