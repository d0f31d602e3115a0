"""M-steps of the Gaussian mixture: maximum likelihood in closed form, maximum posterior by blocks.

Both work in the frame of `_start.Frame`, on the moments of `_estep`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import wrightomega

from ._density import Array, Values, lkj_exponents
from ._estep import SMALLEST_COUNT, Moments, Point
from ._start import Frame

_LEAST_SD = 1e-12  # of the columns' spread; below, deviations from the mean are rounding
_LEAST_CONDITIONAL_SD = 1e-7  # of a feature given the others over its own; its square is at rounding


class SingularCovariance(ArithmeticError):
    """The M-step has no finite maximiser: some components' covariance is singular to rounding."""

    def __init__(self, components: tuple[int, ...]) -> None:
        super().__init__(f"singular covariance of components {components}")
        self.components = components


class MStep(Protocol):
    """Moments at a point -> the next point; SingularCovariance where there is none."""

    def __call__(self, moments: Moments, point: Point) -> Point: ...


class MaximumLikelihood:
    """The ordinary M-step, with `floor` (d,) added to the variances as scikit-learn's `reg_covar` is."""

    def __init__(self, covariance: str, floor: Array) -> None:
        self._covariance = covariance
        self._floor = floor

    def __call__(self, moments: Moments, point: Point) -> Point:
        count, d = moments.count, point.loc.shape[1]
        total = count.sum()
        alive = count > SMALLEST_COUNT
        safe = np.where(alive, count, 1.0)
        if self._covariance == "full":
            covariance = moments.scatter / safe[:, None, None] + np.diag(self._floor)
            covariance[~alive] = (point.factor @ np.swapaxes(point.factor, 1, 2))[~alive]
            factor = checked_cholesky(covariance)
        elif self._covariance == "tied":
            factor = checked_cholesky((moments.scatter / total + np.diag(self._floor))[None])[0]
        elif self._covariance == "diag":
            factor = np.sqrt(moments.scatter / safe[:, None] + self._floor)
            factor[~alive] = point.factor[~alive]
        else:
            factor = np.sqrt(moments.scatter / (safe * d) + self._floor[0])
            factor[~alive] = point.factor[~alive]
        check_spread(factor, self._covariance, len(count))
        return Point(simplex(count), moments.mean, factor)


class MaximumPosterior:
    """One ECM cycle (Meng and Rubin 1993, Biometrika 80) towards the mode of prior x likelihood.

    The density is that of the sites in their constrained space. Weights and loc have closed forms given the
    covariances; then scales and correlations are maximised given loc. Each step maximises the expected log
    posterior over its block, so the posterior density never falls.
    """

    def __init__(self, covariance: str, prior: Values, frame: Frame) -> None:
        self._covariance = covariance
        self._concentration = prior["concentration"]
        self._mean = frame.standardise(prior["loc_mean"])
        self._sd = prior["loc_scale"] / frame.unit
        self._log_scale = prior["scale_loc"] - np.log(
            frame.unit[0] if covariance == "spherical" else frame.unit
        )
        self._log_scale_sd = float(prior["scale_scale"])
        self._eta = float(prior.get("corr_concentration", np.ones(())))

    def __call__(self, moments: Moments, point: Point) -> Point:
        weights = self._weights(moments.count)
        step = self._step_from_mean(moments, point)
        factor = self._factor(moments, step, point.factor)
        check_spread(factor, self._covariance, len(weights))
        return Point(weights, moments.mean + step, factor)

    def _weights(self, count: Array) -> Array:
        pseudo = count + self._concentration - 1.0
        bad = np.flatnonzero((pseudo <= 0.0) & (self._concentration < 1.0))
        if bad.size:
            j = int(bad[0])
            raise ValueError(
                f"prior['concentration'][{j}]: expected at least 1 for a component that empties (it holds "
                f"{count[j]:.3g} data), got {self._concentration[j]:.3g}: the posterior density is "
                "infinite at weight 0; use concentration >= 1, fewer components, or estimate='ml'"
            )
        return simplex(pseudo)

    def _step_from_mean(self, moments: Moments, point: Point) -> Array:
        """loc less the weighted mean: (N I + Sigma S0^-1) step = Sigma S0^-1 (prior mean - mean).

        S0 is the prior's covariance. In this form neither covariance is inverted, and an empty component gets
        the prior mean.
        """
        pull, count = self._mean - moments.mean, moments.count
        if self._covariance in ("full", "tied"):
            shrink = (point.factor @ np.swapaxes(point.factor, -1, -2)) / self._sd**2
            system = count[:, None, None] * np.eye(pull.shape[1]) + shrink
            return np.linalg.solve(system, np.matmul(shrink, pull[:, :, None]))[:, :, 0]
        shrink = (point.factor.reshape(len(count), -1) / self._sd) ** 2
        return shrink * pull / (count[:, None] + shrink)

    def _factor(self, moments: Moments, step: Array, current: Array) -> Array:
        count, d = moments.count, step.shape[1]
        a, b = self._log_scale, self._log_scale_sd
        if self._covariance == "diag":
            return np.exp(log_scale_mode(moments.scatter + count[:, None] * step**2, count[:, None], a, b))
        if self._covariance == "spherical":
            return np.exp(log_scale_mode(moments.scatter + count * (step**2).sum(1), count * d, a, b))
        outer = count[:, None, None] * step[:, :, None] * step[:, None, :]
        if self._covariance == "tied":
            scatter, count, current = (
                (moments.scatter + outer.sum(0))[None],
                count.sum(keepdims=True),
                current[None],
            )
        else:
            scatter = moments.scatter + outer
        if d == 1:
            factor = np.exp(log_scale_mode(scatter, count[:, None, None], a, b))
        else:
            each = zip(scatter, count, current, strict=True)
            factor = np.stack([covariance_mode(s, float(c), a, b, self._eta, f) for s, c, f in each])
        return factor[0] if self._covariance == "tied" else factor


def simplex(count: Array) -> Array:
    """Counts over their sum, kept off 0 (where a log is taken) by the least normal number."""
    raised = np.maximum(count, np.finfo(np.float64).tiny)
    return raised / raised.sum()


def checked_cholesky(covariance: Array) -> Array:
    """Cholesky factors of (k, d, d); SingularCovariance names those that have none."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(covariance)[:, 0]
        bad = np.flatnonzero(least <= least.min().clip(min=0.0))
        raise SingularCovariance(tuple(int(j) for j in bad)) from None


def check_spread(factor: Array, covariance: str, num_components: int) -> None:
    """SingularCovariance if a standard deviation or a conditional one is at rounding."""
    if covariance in ("full", "tied"):
        sd = np.sqrt((factor**2).sum(-1))
        singular = (np.diagonal(factor, axis1=-2, axis2=-1) < _LEAST_CONDITIONAL_SD * sd) | (sd < _LEAST_SD)
    else:
        singular = factor < _LEAST_SD
    if singular.any():
        shared = covariance == "tied"
        per_component = (
            singular.reshape(num_components, -1).any(1) if not shared else np.ones(num_components, bool)
        )
        raise SingularCovariance(tuple(int(j) for j in np.flatnonzero(per_component)))


def log_scale_mode(scatter: Array, count: Array, prior_mean: Array, prior_sd: float) -> Array:
    """u = log s maximising -count u - scatter e^(-2u) / 2 + log LogNormal(e^u; prior_mean, prior_sd).

    The objective is concave in u, so count + 1 + (u - a) / b^2 = scatter e^(-2u) has one root. In terms
    of w = 2 b^2 (count + 1) + 2 (u - a) it reads w + log w = z, which Wright's omega function solves
    (Corless and Jeffrey 2002). For large b^2 count that loses digits; Newton's steps restore them.
    """
    a, variance = prior_mean, prior_sd**2
    shift = variance * (count + 1.0)
    with np.errstate(divide="ignore"):  # no scatter: log 0 = -inf, omega = 0, and u = a - shift
        log_scatter = np.log(scatter)
    u = a - shift + 0.5 * wrightomega(log_scatter + np.log(2.0 * variance) - 2.0 * a + 2.0 * shift)
    for _ in range(3):
        pressure = np.exp(log_scatter - 2.0 * u)
        slope = pressure - (count + 1.0) - (u - a) / variance
        u = u + slope / (2.0 * pressure + 1.0 / variance)
    return u


def covariance_mode(
    scatter: Array, count: float, prior_mean: Array, prior_sd: float, eta: float, current: Array
) -> Array:
    """Cholesky factor L = diag(s) C (d, d) of a covariance: the mode over s > 0 and correlation factors C of

    -count log det L - tr(L^-1 scatter L^-T) / 2 + log LogNormal(s) + log LKJCholesky(C; eta).

    L-BFGS over log s and the strictly lower part of Y, unit lower triangular, with C = Y / (row lengths
    of Y): a bijection without constraints, and no Jacobian since the mode is that of the density of (s,
    C).
    """
    d = len(scatter)
    lower = np.tril_indices(d, -1)
    exponents = lkj_exponents(d, eta)
    size = count + 1.0

    def objective(parameters: Array) -> tuple[float, Array]:
        u, y = parameters[:d], np.eye(d)
        y[lower] = parameters[d:]
        length2 = (y**2).sum(1)
        log_diagonal = u - 0.5 * np.log(length2)
        tril = np.exp(log_diagonal)[:, None] * y
        half = solve_triangular(tril, scatter, lower=True, check_finite=False)
        white = solve_triangular(tril, half.T, lower=True, check_finite=False)
        value = count * log_diagonal.sum() + 0.5 * np.trace(white)
        value += (0.5 * ((u - prior_mean) / prior_sd) ** 2 + u + 0.5 * exponents * np.log(length2)).sum()
        # derivative with respect to L, times L's rows: d tr(L^-1 A L^-T) / 2 = -tr(white L^-1 dL)
        by_tril = -np.tril(solve_triangular(tril, white, lower=True, trans=1, check_finite=False))
        by_tril[np.diag_indices(d)] += count / np.diagonal(tril)
        by_log_diagonal = (by_tril * tril).sum(1)
        by_u = by_log_diagonal + (u - prior_mean) / prior_sd**2 + 1.0
        by_y = (
            by_tril * np.exp(log_diagonal)[:, None] + ((exponents - by_log_diagonal) / length2)[:, None] * y
        )
        return value / size, np.concatenate([by_u, by_y[lower]]) / size

    start_y = current / np.diagonal(current)[:, None]
    start = np.concatenate([0.5 * np.log((current**2).sum(1)), start_y[lower]])
    # far beyond any sound covariance: they keep a line search towards a singular one within floating point
    bounds = [(v - 40.0, v + 40.0) for v in start[:d]] + [(-1e8, 1e8)] * (len(start) - d)
    options = {"maxiter": 200, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if not found.fun <= objective(start)[0]:  # a line search can end in rounding; never step back, nor to NaN
        return current
    y = np.eye(d)
    y[lower] = found.x[d:]
    return (np.exp(found.x[:d]) / np.sqrt((y**2).sum(1)))[:, None] * y
