"""The prior's log density by site, and its derivatives, in the space of the sites. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ppl_lvm.emissions._priors import log_lkj_cholesky
from ppl_lvm.models.factor_analysis._gaussian import LOG_2PI
from ppl_lvm.models.factor_analysis._structure import Structure

Array = np.ndarray
Term = tuple[str, Array, Array]  # site, log density of each entry, its derivative


def log_prior(values: Mapping[str, Any], prior: Mapping[str, Any], structure: Structure) -> Array:
    """Log density (...) of the global sites, normalised, nats."""
    total: Any = 0.0
    for name, density, _ in terms(values, prior, structure):
        lead = np.ndim(values[name]) - _event_dims(name, structure)
        total = total + density.reshape((*np.shape(values[name])[:lead], -1)).sum(-1)
    return np.asarray(total)


def gradient(
    values: Mapping[str, Any], prior: Mapping[str, Any], structure: Structure
) -> tuple[float, dict[str, Array]]:
    """Log density and its derivatives by site, at one draw."""
    total, slopes = 0.0, {}
    for name, density, slope in terms(values, prior, structure):
        total += float(np.sum(density))
        slopes[name] = slope
    if structure.form == "ard":  # the loadings' term depends on the precisions too
        w, tau = np.asarray(values["loadings"]), np.asarray(values["precision"])
        ratio = (w / prior["loadings_scale"][:, None]) ** 2
        slopes["precision"] = slopes["precision"] + 0.5 * (1.0 / tau - ratio).sum(0)
    return total, slopes


def _event_dims(name: str, structure: Structure) -> int:
    if name == "scale":
        return 0 if structure.tied else 1
    return 2 if name in ("loadings", "factor_corr_tril") else 1


def terms(values: Mapping[str, Any], prior: Mapping[str, Any], structure: Structure) -> Iterator[Term]:
    """Each site with its log density and derivative; sites are independent but for ARD loadings."""
    value = {name: np.asarray(v, float) for name, v in values.items()}
    yield "loc", *_normal(value["loc"], prior["loc_mean"], prior["loc_scale"])
    if structure.form == "ard":
        tau = value["precision"]
        yield "precision", *_gamma(tau, prior["ard_shape"], prior["ard_rate"])
        spread = prior["loadings_scale"][:, None] / np.sqrt(tau)[..., None, :]
        yield "loadings", *_normal(value["loadings"], 0.0, spread)
    elif structure.form == "mask":
        yield "loadings_free", *_normal(value["loadings_free"], 0.0, prior["free_scale"])
    else:
        yield "loadings_diag", *_chi(value["loadings_diag"], prior["diag_df"], prior["diag_scale"])
        yield "loadings_lower", *_normal(value["loadings_lower"], 0.0, prior["lower_scale"])
    if structure.has_factor_corr:
        yield "factor_corr_tril", *_lkj(value["factor_corr_tril"], float(prior["factor_corr_concentration"]))
    if not structure.fixed_scale:
        yield "scale", *_log_normal(value["scale"], prior["scale_loc"], prior["scale_scale"])


def _normal(x: Array, mean: Any, sd: Any) -> tuple[Array, Array]:
    away = (x - mean) / sd
    return -0.5 * away**2 - np.log(sd) - 0.5 * LOG_2PI, -away / sd


def _log_normal(x: Array, mean: Any, sd: Any) -> tuple[Array, Array]:
    density, slope = _normal(np.log(x), mean, sd)
    return density - np.log(x), (slope - 1.0) / x


def _gamma(x: Array, shape: Any, rate: Any) -> tuple[Array, Array]:
    from scipy.special import gammaln

    density = shape * np.log(rate) + (shape - 1.0) * np.log(x) - rate * x - gammaln(shape)
    return density, (shape - 1.0) / x - rate


def _chi(x: Array, df: Any, scale: Any) -> tuple[Array, Array]:
    from scipy.special import gammaln

    ratio = x / scale
    constant = (0.5 * df - 1.0) * np.log(2.0) + gammaln(0.5 * df) + np.log(scale)
    return (df - 1.0) * np.log(ratio) - 0.5 * ratio**2 - constant, (df - 1.0) / x - ratio / scale


def _lkj(tril: Array, concentration: float) -> tuple[Array, Array]:
    q = tril.shape[-1]
    powers = 2.0 * (concentration - 1.0) + q - np.arange(1, q + 1)
    powers[0] = 0.0
    slope = np.zeros_like(tril)
    diagonal = np.diagonal(tril, axis1=-2, axis2=-1)
    slope[..., np.arange(q), np.arange(q)] = powers / diagonal
    return log_lkj_cholesky(tril, np.asarray(concentration))[..., None], slope
