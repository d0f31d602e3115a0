"""From sites to loadings and back. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.models.factor_analysis._gaussian import Point
from ppl_lvm.models.factor_analysis._structure import Structure

Array = np.ndarray
Values = dict[str, Array]


def row_order(anchors: tuple[int, ...], num_columns: int) -> Array:
    """Columns of the data with the anchors first, (d,)."""
    first = set(anchors)
    rest = [f for f in range(num_columns) if f not in first]
    return np.array([*anchors, *rest])


def assemble(values: Mapping[str, Any], structure: Structure, anchors: tuple[int, ...] | None) -> Array:
    """Loadings (..., d, q): the site where there is one (turned or not), else put together."""
    if "loadings" in values:
        return np.asarray(values["loadings"], float)
    d = np.shape(values["loc"])[-1]
    names = ("loadings_free",) if structure.form == "mask" else ("loadings_diag", "loadings_lower")
    missing = [n for n in names if n not in values]
    if structure.form == "ard" or missing:
        raise ValueError(
            f"values: expected the sites {missing or ['loadings']}; pass all sites of the model."
        )
    parts = [np.asarray(values[n], float) for n in names]
    whole = np.concatenate([*parts, np.zeros((*parts[0].shape[:-1], 1))], axis=-1)
    table = whole[..., structure.index(d)]
    if structure.form == "mask":
        return table
    if anchors is None:
        raise ValueError("anchors: have no value yet; call model.resolve(data) first.")
    return table[..., np.argsort(row_order(anchors, d)), :]


def loadings_gradient(slope: Array, structure: Structure, anchors: tuple[int, ...] | None) -> Values:
    """A derivative in the loadings (d, q) as derivatives in the sites that make them up."""
    if structure.form == "ard":
        return {"loadings": slope}
    if structure.form == "mask":
        return {"loadings_free": slope[structure.free()]}
    slope = slope[row_order(anchors or (), len(slope))]
    return {"loadings_diag": slope.diagonal().copy(), "loadings_lower": slope[structure.lower(len(slope))]}


def to_lower(loadings: Array, anchors: tuple[int, ...]) -> tuple[Array, Array]:
    """Loadings (d, q) turned so that the anchors' rows are lower triangular with a positive diagonal.

    Returns the diagonal (q,), and the loadings with the anchors' rows first (d, q).
    """
    ordered = loadings[row_order(anchors, len(loadings))]
    q = loadings.shape[1]
    turn, upper = np.linalg.qr(ordered[:q].T)
    signs = np.where(upper.diagonal() < 0, -1.0, 1.0)
    turned = ordered @ (turn * signs)
    turned[:q][np.triu_indices(q, 1)] = 0.0
    return turned[:q].diagonal().copy(), turned


def to_sites(
    loc: Array,
    loadings: Array,
    scale: Array,
    structure: Structure,
    anchors: tuple[int, ...] | None,
    prior: Mapping[str, Any],
    factor_tril: Array | None = None,
) -> Values:
    """A point as values of all sites (and ``loadings``), strictly inside their supports."""
    values: Values = {"loc": np.array(loc)}
    if structure.form == "ard":
        loadings = _principal_axes(loadings, scale)
        values["precision"] = conditional_precision(loadings, prior)
        values["loadings"] = loadings
    elif structure.form == "mask":
        values["loadings_free"] = loadings[structure.free()]
        values["loadings"] = loadings
    else:
        diag, turned = to_lower(loadings, anchors or ())
        floor = 1e-6 * np.maximum(np.abs(loadings).max(), np.asarray(prior["diag_scale"]))
        values["loadings_diag"] = np.maximum(diag, floor)
        values["loadings_lower"] = turned[structure.lower(len(loadings))]
        values["loadings"] = assemble(values, structure, anchors)
    if structure.has_factor_corr:
        values["factor_corr_tril"] = np.eye(structure.latent_dim) if factor_tril is None else factor_tril
    if not structure.fixed_scale:
        values["scale"] = np.asarray(scale[0]) if structure.tied else np.array(scale)
    return values


def conditional_precision(loadings: Array, prior: Mapping[str, Any]) -> Array:
    """Mean of the ARD precisions given the loadings (d, q), (q,)."""
    ratio = (loadings / prior["loadings_scale"][:, None]) ** 2
    return (prior["ard_shape"] + 0.5 * len(loadings)) / (prior["ard_rate"] + 0.5 * ratio.sum(0))


def _principal_axes(loadings: Array, scale: Array) -> Array:
    """The turn in which W' Psi^-1 W is diagonal, strongest factor first: where ARD columns can vanish."""
    weighted = loadings / np.where(scale > 0, scale, 1.0)[:, None]
    turn = np.linalg.svd(weighted, full_matrices=False)[2]
    return loadings @ turn.T


def point_at(
    values: Mapping[str, Any], structure: Structure, anchors: tuple[int, ...] | None, fixed: float | None
) -> tuple[tuple[int, ...], list[Point]]:
    """The draws' shape, and every draw as a :class:`Point`."""
    loc = np.asarray(values["loc"], float)
    draws, d = loc.shape[:-1], loc.shape[-1]
    own = assemble(values, structure, anchors).reshape(-1, d, structure.latent_dim)
    if fixed is None:
        scale = np.asarray(values["scale"], float)
        scale = np.broadcast_to(scale[..., None], loc.shape) if structure.tied else scale
    else:
        scale = np.full(loc.shape, fixed)
    loc, scale = loc.reshape(-1, d), scale.reshape(-1, d)
    if not structure.has_factor_corr:
        return draws, [Point(*p) for p in zip(loc, own, scale, strict=True)]
    q = structure.latent_dim
    tril = np.asarray(values["factor_corr_tril"], float).reshape(-1, q, q)
    return draws, [Point(m, w @ t, s, t) for m, w, s, t in zip(loc, own, scale, tril, strict=True)]
