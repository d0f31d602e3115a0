"""M-steps of the Gaussian mixture: maximum likelihood in closed form, maximum posterior by blocks.

Both work in the frame of `_start.Frame`, on the moments of `_estep`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import wrightomega

from ppl_lvm.models.gaussian_mixture._checks import Array, Values
from ppl_lvm.models.gaussian_mixture._density import lkj_exponents
from ppl_lvm.models.gaussian_mixture._estep import SMALLEST_COUNT, Moments
from ppl_lvm.models.gaussian_mixture._point import Point
from ppl_lvm.models.gaussian_mixture._start import Frame

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
            factor = checked_cholesky(covariance, len(count))
        elif self._covariance == "tied":
            covariance = moments.scatter / total + np.diag(self._floor)
            factor = checked_cholesky(covariance[None], len(count))[0]
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
        unit = frame.unit[0] if covariance == "spherical" else frame.unit
        self._log_scale = prior["scale_loc"] - np.log(unit)
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
        count, d = moments.count, len(self._sd)
        a, b = self._log_scale, self._log_scale_sd
        if self._covariance == "diag":
            return np.exp(log_scale_mode(moments.scatter + count[:, None] * step**2, count[:, None], a, b))
        if self._covariance == "spherical":
            return np.exp(log_scale_mode(moments.scatter + count * (step**2).sum(1), count * d, a, b))
        outer = count[:, None, None] * step[:, :, None] * step[:, None, :]
        if self._covariance == "full":
            return self._dense_factors(moments.scatter + outer, count, current, len(step))
        scatter = moments.scatter + outer.sum(0)
        return self._dense_factors(scatter[None], count.sum(keepdims=True), current[None], len(step))[0]

    def _dense_factors(self, scatter: Array, count: Array, current: Array, num_components: int) -> Array:
        a, b = self._log_scale, self._log_scale_sd
        if scatter.shape[-1] == 1:
            return np.exp(log_scale_mode(scatter, count[:, None, None], a, b))
        mixed = scatter + current @ np.swapaxes(current, 1, 2)  # one pseudo-datum, for an empty component
        references = checked_cholesky(mixed / (count[:, None, None] + 1.0), num_components)
        factors = []
        for s, c, now, reference in zip(scatter, count, current, references, strict=True):
            factors.append(CovarianceMode(s, float(c), a, b, self._eta).solve(now, reference))
        return np.stack(factors)


def simplex(count: Array) -> Array:
    """Counts over their sum, kept off 0 (where a log is taken) by the least normal number."""
    raised = np.maximum(count, np.finfo(np.float64).tiny)
    return raised / raised.sum()


def checked_cholesky(covariance: Array, num_components: int) -> Array:
    """Cholesky factors of (k or, if shared, 1, d, d); SingularCovariance names components that have none."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(covariance)[:, 0]
        bad = np.flatnonzero(least <= least.min().clip(min=0.0))
        shared = len(covariance) < num_components
        raise SingularCovariance(tuple(range(num_components) if shared else map(int, bad))) from None


def check_spread(factor: Array, covariance: str, num_components: int) -> None:
    """SingularCovariance if a standard deviation or a conditional one is at rounding."""
    if covariance in ("full", "tied"):
        sd = np.sqrt((factor**2).sum(-1))
        singular = (np.diagonal(factor, axis1=-2, axis2=-1) < _LEAST_CONDITIONAL_SD * sd) | (sd < _LEAST_SD)
    else:
        singular = factor < _LEAST_SD
    if not singular.any():
        return
    if covariance == "tied":
        raise SingularCovariance(tuple(range(num_components)))
    per_component = singular.reshape(num_components, -1).any(1)
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


@dataclass(frozen=True, eq=False)
class CovarianceMode:
    """The mode of a covariance given loc, over its scales s > 0 and correlation factor C, L = diag(s) C, of

    -count log det L - tr(L^-1 scatter L^-T) / 2 + log LogNormal(s) + log LKJCholesky(C; eta).

    No Jacobian enters: the mode is that of the density of (s, C). The lower triangular L stands for both,
    since s_i is the length of its row i. L-BFGS runs over M = L0^-1 L, by the logs of its diagonal and the
    entries below it; L0 is the factor of about scatter / count, which makes the Hessian nearly a multiple of
    the identity however correlated the features are.
    """

    scatter: Array
    count: float
    prior_mean: Array
    prior_sd: float
    eta: float

    def solve(self, current: Array, reference: Array) -> Array:
        """L (d, d), at least as good as `current`; `reference` is L0."""
        d = len(current)
        lower = np.tril_indices(d, -1)

        def parameters(tril: Array) -> Array:
            relative = solve_triangular(reference, tril, lower=True)
            return np.concatenate([np.log(np.diagonal(relative)), relative[lower]])

        def factor(at: Array) -> tuple[Array, Array]:
            relative = np.diag(np.exp(at[:d]))
            relative[lower] = at[d:]
            return reference @ relative, relative

        def objective(at: Array) -> tuple[float, Array]:
            tril, relative = factor(at)
            value, slope = self.value_and_slope(tril)
            by_relative = reference.T @ slope
            by_log_diagonal = np.diagonal(by_relative) * np.diagonal(relative)
            return value, np.concatenate([by_log_diagonal, by_relative[lower]])

        start = min(parameters(current), np.zeros(d + len(lower[0])), key=lambda at: objective(at)[0])
        # far beyond any sound covariance: they keep a search towards a singular one within floating point
        bounds = [(-30.0, 30.0)] * d + [(-1e8, 1e8)] * len(lower[0])
        options = {"maxiter": 200, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 20}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        # a line search can end in rounding: never step back, nor to NaN
        better = found.fun <= self.value_and_slope(current)[0]
        return factor(found.x)[0] if better else current

    def value_and_slope(self, tril: Array) -> tuple[float, Array]:
        """Minus the objective per datum, less constants, and its derivative in the lower part of L."""
        diagonal, length2 = np.diagonal(tril), (tril**2).sum(1)
        log_scale, log_diagonal = 0.5 * np.log(length2), np.log(diagonal)
        exponents = lkj_exponents(len(tril), self.eta)
        half = solve_triangular(tril, self.scatter, lower=True, check_finite=False)
        white = solve_triangular(tril, half.T, lower=True, check_finite=False)
        from_mean = (log_scale - self.prior_mean) / self.prior_sd
        value = self.count * log_diagonal.sum() + 0.5 * np.trace(white)
        value += (0.5 * from_mean**2 + log_scale - exponents * (log_diagonal - log_scale)).sum()
        # d tr(L^-1 A L^-T) / 2 = -tr(white L^-1 dL)
        slope = -np.tril(solve_triangular(tril, white, lower=True, trans=1, check_finite=False))
        slope[np.diag_indices(len(tril))] += (self.count - exponents) / diagonal
        slope += ((from_mean / self.prior_sd + 1.0 + exponents) / length2)[:, None] * tril
        return value / (self.count + 1.0), slope / (self.count + 1.0)
