"""Which way of fitting a point suits a factor model, and where chains start. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.models.factor_analysis._em import (
    EMResult,
    Found,
    Moments,
    Progress,
    column_variance,
    heywood_note,
    is_complete,
    maximum_likelihood,
    noise_floor,
    result,
)
from ppl_lvm.models.factor_analysis._gaussian import Point, expect
from ppl_lvm.models.factor_analysis._mode import Mode, Target, climb
from ppl_lvm.models.factor_analysis._sites import Values, point_at, to_sites

if TYPE_CHECKING:
    from ppl_lvm.models.factor_analysis._exact import FactorExact

Array = np.ndarray


def fit_point(
    exact: FactorExact,
    moments: Moments,
    prior: Mapping[str, Any],
    *,
    num_init: int,
    tol: float,
    max_iter: int,
    rng: np.random.Generator,
    start: Mapping[str, Any] | None,
    estimate: str,
    variance_floor: float | None,
    progress: Progress | None,
) -> EMResult:
    """Closed form, Newton or EM for ML without a mask; else L-BFGS. See ``FactorExact.em``."""
    structure = exact.structure
    if estimate not in ("ml", "map"):
        raise ValueError(f"estimate: expected 'ml' or 'map', got {estimate!r}.")
    if structure.degenerate and estimate == "map":
        raise ValueError("estimate: data without noise (scale=0.0) have no posterior; use estimate='ml'.")
    floor = noise_floor(moments, variance_floor, structure)
    use_prior = estimate == "map"
    if structure.form == "mask" or use_prior:
        return _by_gradient(
            exact, moments, prior, use_prior, num_init, tol, max_iter, rng, start, floor, progress
        )
    first = point_at(start, structure, exact.anchors, exact.fixed)[1][0] if start is not None else None
    found: list[Found] = []
    for restart in range(max(num_init, 1)):
        if restart and (start is not None or (structure.tied and is_complete(moments))):
            break  # the first start is all there is to it
        begin = first if restart == 0 else _scattered(exact, moments, rng)
        found.append(
            maximum_likelihood(
                moments, structure, exact.fixed,
                tol=tol, max_iter=max_iter, floor=floor, start=begin, progress=_tell(progress, restart),
            )
        )  # fmt: skip
        if progress is not None:
            progress(restart, len(found[-1].trace) - 1, found[-1].trace[-1])
    best = max(found, key=lambda f: f.trace[-1])
    point = best.point
    values = to_sites(point.loc, point.loadings, point.scale, structure, exact.anchors, prior)
    total = float("nan") if structure.degenerate else best.trace[-1]
    return result(found, values, total, heywood_note(best.bounded, structure))


def _scattered(exact: FactorExact, moments: Moments, rng: np.random.Generator) -> Point:
    """Noise variances of any share of the columns' variances, and loadings of the size that is left."""
    count, mean, _, seen = moments
    loc = (count @ mean) / np.maximum(count @ seen, 1.0)
    variance = column_variance(moments)
    share = rng.uniform(0.02, 0.98, len(loc))
    loadings = rng.standard_normal((len(loc), exact.structure.latent_dim))
    length = np.sqrt((1.0 - share) * variance / (loadings**2).sum(1))
    scale = np.sqrt(share * variance)
    if exact.structure.tied:
        scale = np.full_like(scale, np.sqrt((scale**2).mean()) if exact.fixed is None else exact.fixed)
    return Point(loc, loadings * length[:, None], scale)


def _tell(progress: Progress | None, restart: int) -> Callable[[int, float], None] | None:
    return None if progress is None else lambda step, value: progress(restart, step, value)


def _by_gradient(
    exact: FactorExact,
    moments: Moments,
    prior: Mapping[str, Any],
    use_prior: bool,
    num_init: int,
    tol: float,
    max_iter: int,
    rng: np.random.Generator,
    start: Mapping[str, Any] | None,
    floor: Array,
    progress: Progress | None,
) -> EMResult:
    structure = exact.structure
    target = Target(moments, structure, exact.anchors, exact.fixed, prior, use_prior)
    num = 1 if start is not None or structure.form == "rotation" else max(num_init, 1)
    modes: list[Mode] = []
    for restart in range(num):
        if start is not None:
            first = {k: np.asarray(v, float) for k, v in start.items() if k != "z"}
        else:
            first = starting_sites(exact, moments, prior, rng if restart else None)
        tell = _tell(progress, restart)
        modes.append(climb(target, first, floor=floor, tol=tol, max_iter=max_iter, progress=tell))
    best = max(modes, key=lambda m: m.trace[-1])
    values = best.values
    point = point_at(values, structure, exact.anchors, exact.fixed)[1][0]
    found = [Found(point, m.trace, m.converged, m.bounded) for m in modes]
    total = expect(point, *moments).log_likelihood
    return result(found, values, total, heywood_note(best.bounded, structure))


def starting_sites(
    exact: FactorExact, moments: Moments, prior: Mapping[str, Any], rng: np.random.Generator | None
) -> Values:
    """Sites near maximum likelihood; with ``rng`` moved by a fifth of a column's sd."""
    structure = exact.structure
    spread = np.sqrt(column_variance(moments))
    if structure.form == "mask":
        point = _masked_start(exact, moments)
    else:
        floor = noise_floor(moments, None, structure)
        ml = maximum_likelihood(moments, structure, exact.fixed, tol=1e-4, max_iter=50, floor=floor).point
        low = 0.05 * (np.full_like(spread, np.sqrt((spread**2).mean())) if structure.tied else spread)
        scale = np.maximum(ml.scale, low) if exact.fixed is None else ml.scale
        point = dataclasses.replace(ml, scale=scale)
    loadings = point.loadings
    if rng is not None:
        loadings = loadings + 0.2 * spread[:, None] * rng.standard_normal(loadings.shape)
        if structure.form == "mask":
            loadings = loadings * np.asarray(structure.mask)
    return to_sites(point.loc, loadings, point.scale, structure, exact.anchors, prior)


def _masked_start(exact: FactorExact, moments: Moments) -> Point:
    """Each factor is the first principal axis of the (standardised) columns that load on it."""
    mask = np.asarray(exact.structure.mask, bool)
    count, mean, _, seen = moments
    spread = np.sqrt(column_variance(moments))
    loc = (count @ mean) / np.maximum(count @ seen, 1.0)
    blank = Point(loc, np.zeros(mask.shape), spread)
    covariance = expect(blank, *moments).covariance
    corr = covariance / np.outer(spread, spread)
    loadings = np.zeros(mask.shape)
    for j, rows in enumerate(mask.T):
        values, vectors = np.linalg.eigh(corr[np.ix_(rows, rows)])
        axis = vectors[:, -1] * (1.0 if vectors[:, -1].sum() >= 0 else -1.0)
        loadings[rows, j] = axis * np.sqrt(0.7 * values[-1] / max(1.0, float(mask[rows].sum(1).mean())))
    share = np.clip(1.0 - (loadings**2).sum(1), 0.3, 1.0)
    scale = spread * np.sqrt(share) if exact.fixed is None else np.full(len(loc), exact.fixed)
    return Point(loc, loadings * spread[:, None], scale)


def initial_values(
    exact: FactorExact, moments: Moments, prior: Mapping[str, Any], rng: np.random.Generator
) -> Values:
    """A start about two posterior sds from maximum likelihood, so that chains begin apart from each other."""
    values = starting_sites(exact, moments, prior, None)
    values.pop("loadings") if exact.structure.form != "ard" else None
    n = max(float(moments[0].sum()), 4.0)
    width = 2.0 / np.sqrt(n)
    spread = np.sqrt(column_variance(moments))
    typical = float(np.sqrt((spread**2).mean()))
    for name, value in values.items():
        noise = width * rng.standard_normal(np.shape(value))
        if name in ("scale", "precision", "loadings_diag"):
            values[name] = value * np.exp(np.clip(noise, -1.0, 1.0))
        elif name == "loc":
            values[name] = value + spread * noise
        elif name == "loadings":
            values[name] = value + spread[:, None] * noise
        elif name != "factor_corr_tril":
            unit = prior["lower_scale"] if name == "loadings_lower" else prior["free_scale"]
            values[name] = value + np.minimum(unit, typical) * noise
    return values
