"""Point estimates without a closed form: priors, masks, correlated factors. L-BFGS on the exact gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.models.factor_analysis._em import Moments
from ppl_lvm.models.factor_analysis._gaussian import Point, expect, solve
from ppl_lvm.models.factor_analysis._prior import gradient
from ppl_lvm.models.factor_analysis._sites import Values, assemble, loadings_gradient, point_at
from ppl_lvm.models.factor_analysis._structure import Structure

Array = np.ndarray
_LOGS = ("precision", "loadings_diag", "scale")  # positive sites, optimised on the log scale


@dataclass(frozen=True)
class Target:
    """Log likelihood plus, where ``use_prior``, log prior density in the space of the sites."""

    moments: Moments
    structure: Structure
    anchors: tuple[int, ...] | None
    fixed: float | None
    prior: Mapping[str, Any]
    use_prior: bool

    def __call__(self, values: Values) -> tuple[float, Values]:
        """The objective and its derivatives by site."""
        point = point_at(values, self.structure, self.anchors, self.fixed)[1][0]
        total, slopes = self._likelihood(values, point)
        if self.use_prior:
            density, more = gradient(values, self.prior, self.structure)
            total += density
            slopes = {k: slopes.get(k, 0.0) + more[k] for k in more}
        return total, slopes

    def _likelihood(self, values: Values, point: Point) -> tuple[float, Values]:
        """By Fisher's identity: that of the expected log likelihood of complete rows."""
        n = float(self.moments[0].sum())
        done = expect(point, *self.moments)
        step = done.mean - point.loc
        second = done.covariance + np.outer(step, step)
        solved = solve(point, np.ones((1, len(step))))
        across = solved.root[0] @ (point.loadings.T / point.scale**2)
        inverse = np.diag(1.0 / point.scale**2) - across.T @ across
        slope = 0.5 * n * (inverse @ second @ inverse - inverse)  # in the covariance
        tril = point.factor_tril
        in_loadings = 2.0 * slope @ point.loadings
        slopes: Values = {"loc": n * inverse @ step}
        whole = in_loadings if tril is None else in_loadings @ tril.T
        slopes |= loadings_gradient(whole, self.structure, self.anchors)
        if tril is not None:
            own = assemble(values, self.structure, self.anchors)
            slopes["factor_corr_tril"] = own.T @ in_loadings
        if not self.structure.fixed_scale:
            in_scale = 2.0 * slope.diagonal() * point.scale
            slopes["scale"] = np.asarray(in_scale.sum()) if self.structure.tied else in_scale
        return done.log_likelihood, slopes


class Coordinates:
    """Sites as one real vector: logs of positive ones, others in units of the prior; rows of L normalised."""

    def __init__(self, values: Values, structure: Structure, prior: Mapping[str, Any]) -> None:
        skip = {"loadings"} if structure.form != "ard" else set()
        self.names = [k for k in values if k not in skip]
        self.shapes = {k: np.shape(values[k]) for k in self.names}
        self.structure = structure
        spread = {"loc": "loc_scale", "loadings_lower": "lower_scale", "loadings_free": "free_scale"}
        self.units = {k: np.asarray(prior[v]) for k, v in spread.items() if v in prior}
        if structure.form == "ard":
            self.units["loadings"] = np.asarray(prior["loadings_scale"])[:, None]
        self.below = np.tril_indices(structure.latent_dim, -1)

    def pack(self, values: Values) -> Array:
        return np.concatenate([np.ravel(self._free(k, np.asarray(values[k]))) for k in self.names])

    def _free(self, name: str, value: Array) -> Array:
        if name in _LOGS:
            return np.log(value)
        if name == "factor_corr_tril":
            return (value / value.diagonal()[:, None])[self.below]
        return value / self.units[name]

    def unpack(self, free: Array) -> Values:
        values, at = {}, 0
        for name in self.names:
            shape = self.shapes[name]
            size = len(self.below[0]) if name == "factor_corr_tril" else int(np.prod(shape))
            part, at = free[at : at + size], at + size
            if name in _LOGS:
                values[name] = np.exp(part).reshape(shape)
            elif name == "factor_corr_tril":
                values[name] = self._rows(part)[0]
            else:
                values[name] = self.units[name] * part.reshape(shape)
        return values

    def _rows(self, part: Array) -> tuple[Array, Array]:
        rows = np.eye(self.structure.latent_dim)
        rows[self.below] = part
        length = np.sqrt((rows**2).sum(1))
        return rows / length[:, None], length

    def slope(self, free: Array, values: Values, slopes: Values) -> Array:
        """Derivatives by site as derivatives in the vector."""
        parts, at = [], 0
        for name in self.names:
            given = np.asarray(slopes[name])
            if name in _LOGS:
                part = np.ravel(given * values[name])
            elif name == "factor_corr_tril":
                size = len(self.below[0])
                tril, length = self._rows(free[at : at + size])
                across = given - (given * tril).sum(1, keepdims=True) * tril
                part = (across / length[:, None])[self.below]
            else:
                part = np.ravel(self.units[name] * given)
            parts.append(part)
            at += len(part)
        return np.concatenate(parts)

    def bounds(self, values: Values, low: Array) -> list[tuple[float | None, float | None]]:
        """The noise stays above its floor ``low`` (d,), variances."""
        out: list[tuple[float | None, float | None]] = []
        for name in self.names:
            size = len(np.ravel(self._free(name, np.asarray(values[name]))))
            if name == "scale":
                least = 0.5 * np.log(np.maximum(low, np.finfo(float).tiny))
                out += [(float(v), None) for v in (least if size > 1 else least[:1])]
            else:
                out += [(-30.0, 30.0) if name in _LOGS else (None, None)] * size
        return out


@dataclass(frozen=True)
class Mode:
    """Where a search ended: values by site, the objective's history, and whether it came to rest."""

    values: Values
    trace: tuple[float, ...]
    converged: bool
    bounded: tuple[int, ...]


def climb(
    target: Target,
    start: Values,
    *,
    floor: Array,
    tol: float,
    max_iter: int,
    progress: Callable[[int, float], None] | None = None,
) -> Mode:
    """L-BFGS (Byrd, Lu, Nocedal and Zhu 1995, SIAM Journal on Scientific Computing 16) from ``start``."""
    from scipy.optimize import minimize

    n = max(float(target.moments[0].sum()), 1.0)
    coordinates = Coordinates(start, target.structure, target.prior)

    def loss(free: Array) -> tuple[float, Array]:
        values = _with_loadings(coordinates.unpack(free), target)
        total, slopes = target(values)
        return -total / n, -coordinates.slope(free, values, slopes) / n

    trace: list[float] = []

    def record(intermediate_result: Any) -> None:
        trace.append(-n * float(intermediate_result.fun))
        if progress is not None:
            progress(len(trace), trace[-1])

    bounds = coordinates.bounds(start, floor)
    low = np.array([-np.inf if b[0] is None else b[0] for b in bounds])
    first = np.maximum(coordinates.pack(start), low)
    begun = -n * loss(first)[0]
    options = {"maxiter": max_iter, "ftol": 1e-4 * min(tol, 1e-6), "gtol": 1e-9, "maxcor": 30, "maxls": 40}
    end = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options, callback=record)
    values = coordinates.unpack(end.x)
    bounded: tuple[int, ...] = ()
    if "scale" in values:
        least = np.sqrt(floor) if np.ndim(values["scale"]) else np.sqrt(floor[:1])
        bounded = tuple(int(f) for f in np.flatnonzero(np.atleast_1d(values["scale"]) <= least * (1 + 1e-9)))
    # status 2 is a line search that rounding stopped: there is nothing left to gain
    return Mode(_with_loadings(values, target), (begun, *trace), end.status in (0, 2), bounded)


def _with_loadings(values: Values, target: Target) -> Values:
    return {**values, "loadings": assemble(values, target.structure, target.anchors)}
