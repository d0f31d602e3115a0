"""Modes of a scale, and of a whole covariance, under their priors given weighted moments of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import wrightomega

from ppl_lvm.emissions._priors import Array, lkj_exponents


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
