"""M-steps of the Gaussian mixture: maximum likelihood in closed form, maximum posterior by blocks.

Both work in the frame of `_start.Frame`, on the moments of `_estep`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ppl_lvm.emissions._modes import CovarianceMode, log_scale_mode
from ppl_lvm.models.gaussian_mixture._checks import Array, Values
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
