"""Priors of an emission's parameters: one table that Pyro, NumPyro and the closed forms read alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, multigammaln, xlog1py, xlogy

Array = np.ndarray
_LOG_2PI = float(np.log(2.0 * np.pi))
_EVENT_DIMS = {"Dirichlet": 1, "LKJCholesky": 2}


@dataclass(frozen=True)
class Prior:
    """One parameter site: its shape and the family of its prior.

    Attributes
    ----------
    family
        Name of a distribution that Pyro and NumPyro share: "Normal" (mean, sd), "LogNormal" (mean and sd of
        the log), "Gamma" (shape, rate), "Beta", "Dirichlet" or "LKJCholesky" (concentration).
    arguments
        Names of the hyperparameters in the mapping ``prior``, in the family's order; each broadcasts to
        the batch shape.
    shape
        Shape of the whole site. Where ``per_state``, its first axis runs over the states (components).
    dims
        Names of the site's dimensions.
    """

    family: str
    arguments: tuple[str, ...]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    per_state: bool = True

    def build(self, dist: Any, prior: Mapping[str, Any]) -> Any:
        """The prior as a distribution of ``dist`` (``pyro.distributions`` or ``numpyro.distributions``)."""
        given = [prior[name] for name in self.arguments]
        if self.family == "LKJCholesky":
            base = dist.LKJCholesky(self.shape[-1], *given)
        else:
            base = getattr(dist, self.family)(*given)
        batch = self.shape[: len(self.shape) - _EVENT_DIMS.get(self.family, 0)]
        return base.expand(batch).to_event(len(batch))

    def log_density(self, value: Array, prior: Mapping[str, Any]) -> Array:
        """Log density (...) of values (..., *shape), normalised, nats."""
        given = [np.asarray(prior[name], dtype=float) for name in self.arguments]
        terms = _LOG_DENSITIES[self.family](np.asarray(value, dtype=float), *given)
        lead = np.ndim(value) - len(self.shape)
        return terms.reshape((*np.shape(value)[:lead], -1)).sum(-1)


def _normal(x: Array, mean: Array, sd: Array) -> Array:
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * _LOG_2PI


def _log_normal(x: Array, mean: Array, sd: Array) -> Array:
    return _normal(np.log(x), mean, sd) - np.log(x)


def _gamma(x: Array, shape: Array, rate: Array) -> Array:
    return xlogy(shape, rate) + xlogy(shape - 1.0, x) - rate * x - gammaln(shape)


def _beta(x: Array, a: Array, b: Array) -> Array:
    return xlogy(a - 1.0, x) + xlog1py(b - 1.0, -x) + gammaln(a + b) - gammaln(a) - gammaln(b)


def _dirichlet(x: Array, concentration: Array) -> Array:
    a = np.broadcast_to(concentration, np.broadcast_shapes(np.shape(concentration), x.shape[-1:]))
    return xlogy(a - 1.0, x).sum(-1) + gammaln(a.sum(-1)) - gammaln(a).sum(-1)


def log_lkj_cholesky(tril: Array, concentration: Any) -> Array:
    """Log density of LKJ(concentration) at the Cholesky factors (..., d, d) of correlation matrices.

    det(R)^(eta-1) is prod_i L_ii^(2 eta - 2), the Jacobian of L -> L L' adds L_ii^(d-i), and the
    normaliser is that of Lewandowski, Kurowicka and Joe (2009, Journal of Multivariate Analysis 100,
    section 3).
    """
    d = tril.shape[-1]
    if d == 1:
        return np.zeros(tril.shape[:-2])
    eta = float(concentration)
    diagonal = np.diagonal(tril, axis1=-2, axis2=-1)
    top = eta + 0.5 * (d - 1)
    normaliser = 0.5 * (d - 1) * np.log(np.pi) + multigammaln(top - 0.5, d - 1) - (d - 1) * gammaln(top)
    return (lkj_exponents(d, eta) * np.log(diagonal)).sum(-1) - normaliser


def lkj_exponents(num_features: int, concentration: float) -> Array:
    """Powers (d,) of the diagonal of the Cholesky factor in the LKJ density (the first entry is always 1)."""
    powers = 2.0 * (concentration - 1.0) + num_features - np.arange(1, num_features + 1)
    powers[0] = 0.0
    return powers


_LOG_DENSITIES: dict[str, Any] = {
    "Normal": _normal,
    "LogNormal": _log_normal,
    "Gamma": _gamma,
    "Beta": _beta,
    "Dirichlet": _dirichlet,
    "LKJCholesky": log_lkj_cholesky,
}
