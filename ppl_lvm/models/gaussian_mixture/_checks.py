"""Sites and data of the Gaussian mixture, checked: shapes and supports, with errors that name the fault."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Values = dict[str, Array]

COVARIANCES = ("full", "tied", "diag", "spherical")
_SUM_TOLERANCE = 1e-4  # a simplex or a unit row that went through float32 is off by about 1e-6


def has_correlations(covariance: str, num_features: int) -> bool:
    """Whether the model has the site `corr_tril`."""
    return covariance in ("full", "tied") and num_features > 1


def site_shapes(num_components: int, covariance: str, num_features: int) -> dict[str, tuple[int, ...]]:
    """Event shape of every continuous site."""
    k, d = num_components, num_features
    shapes: dict[str, tuple[int, ...]] = {"weights": (k,), "loc": (k, d)}
    shapes["scale"] = {"full": (k, d), "diag": (k, d), "tied": (d,), "spherical": (k,)}[covariance]
    if has_correlations(covariance, d):
        shapes["corr_tril"] = (k, d, d) if covariance == "full" else (d, d)
    return shapes


def check_x(data: Mapping[str, Any], num_components: int = 1) -> Array:
    """`data["x"]` as a finite (n, d) float64 array with at least `num_components` rows, or ValueError."""
    if "x" not in data:
        raise ValueError(
            f"data: expected the key 'x' with an (n, d) array, got keys {sorted(data)}; pass {{'x': x}}"
        )
    x = np.asarray(data["x"], dtype=np.float64)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(
            f"x: expected an (n, d) array with d >= 1, got shape {x.shape}; use x[:, None] for one feature"
        )
    if len(x) == 0:
        raise ValueError("x: expected at least one row, got none; check how the rows were selected")
    if len(x) < num_components:
        raise ValueError(
            f"x: expected at least one row per component ({num_components}), got {len(x)} (fewer rows than "
            "components); lower num_components"
        )
    if not np.isfinite(x).all():
        raise ValueError("x: expected finite numbers, got NaN or infinity; drop or impute those rows first")
    return x


def check_prior(data: Mapping[str, Any], num_components: int, covariance: str, num_features: int) -> Values:
    """`data["prior"]`, every hyperparameter at its full shape, or ValueError."""
    if data.get("prior") is None:
        raise ValueError(
            "data: expected the key 'prior' with the hyperparameters, got none; resolve the model on x first"
        )
    prior, d = data["prior"], num_features
    shapes = {
        "concentration": (num_components,),
        "loc_mean": (d,),
        "loc_scale": (d,),
        "scale_loc": () if covariance == "spherical" else (d,),
        "scale_scale": (),
    }
    if has_correlations(covariance, d):
        shapes["corr_concentration"] = ()
    full = {}
    for name, shape in shapes.items():
        if name not in prior:
            raise ValueError(f"prior: expected {name!r} of shape {shape}, got only {sorted(prior)}; add it")
        value = np.asarray(prior[name], dtype=np.float64)
        if value.ndim > len(shape) or value.shape not in ((), shape):
            raise ValueError(
                f"prior[{name!r}]: expected shape {shape}, got {value.shape}; pass one number for each entry"
            )
        positive = name not in ("loc_mean", "scale_loc")
        if not np.isfinite(value).all() or (positive and (value <= 0.0).any()):
            kind = "finite positive numbers" if positive else "finite numbers"
            raise ValueError(f"prior[{name!r}]: expected {kind}, got {value}; correct this hyperparameter")
        full[name] = np.broadcast_to(value, shape)
    return full


def check_values(
    values: Mapping[str, Any], num_components: int, covariance: str, num_features: int
) -> tuple[tuple[int, ...], Values]:
    """Lengths of the draw axes, and the sites with these axes flattened to one; or ValueError.

    Names that are no continuous site of the model are ignored, so that a whole posterior can be passed.
    """
    flat: Values = {}
    draws: tuple[int, ...] | None = None
    for name, event in site_shapes(num_components, covariance, num_features).items():
        if name not in values:
            raise ValueError(
                f"values: expected the site {name!r} (..., {event}), got only {sorted(values)}; add it"
            )
        value = np.asarray(values[name], dtype=np.float64)
        lead = value.shape[: value.ndim - len(event)]
        if value.shape[value.ndim - len(event) :] != event or value.ndim < len(event):
            raise ValueError(
                f"{name}: expected shape (..., {', '.join(map(str, event))}), got {value.shape}; "
                "put draw axes on the left"
            )
        if draws is not None and lead != draws:
            raise ValueError(
                f"{name}: expected draw axes {draws} as on the other sites, got {lead}; broadcast it first"
            )
        draws = lead
        flat[name] = value.reshape((math.prod(lead), *event))
    _check_supports(flat)
    return draws or (), flat


def _check_supports(flat: Values) -> None:
    weights, scale, corr = flat["weights"], flat["scale"], flat.get("corr_tril")
    if not ((weights >= 0.0).all() and (np.abs(weights.sum(-1) - 1.0) < _SUM_TOLERANCE).all()):
        raise ValueError(
            "weights: expected numbers >= 0 that sum to 1 on the last axis, got others; divide by their sum"
        )
    if not np.isfinite(flat["loc"]).all():
        raise ValueError(
            "loc: expected finite numbers, got NaN or infinity; check where the values come from"
        )
    if not (np.isfinite(scale) & (scale > 0.0)).all():
        raise ValueError(
            "scale: expected finite positive standard deviations, got others; check where they come from"
        )
    if corr is not None:
        unit = np.abs((corr * corr).sum(-1) - 1.0) < _SUM_TOLERANCE
        positive = np.diagonal(corr, axis1=-2, axis2=-1) > 0.0
        if not (unit.all() and positive.all() and not np.triu(corr, 1).any()):
            raise ValueError(
                "corr_tril: expected the lower Cholesky factor of a correlation matrix (rows of length 1, "
                "diagonal > 0), got another matrix; use numpy.linalg.cholesky(correlation)"
            )
