"""Point estimates: closed forms, Newton steps, EM for missing entries. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.models._threads import one_blas_thread
from ppl_lvm.models.factor_analysis._gaussian import Completed, Point, expect
from ppl_lvm.models.factor_analysis._profile import maximise, principal, smc_start
from ppl_lvm.models.factor_analysis._structure import Structure

Array = np.ndarray
Progress = Callable[[int, int, float], None]
Moments = tuple[Array, Array, Array, Array]  # count, mean, scatter, seen


@dataclass(frozen=True)
class EMResult:
    """A point estimate.

    ``values`` are the sites and ``loadings``; ``objective`` is ``log_likelihood`` (total, nats), plus the
    prior's log density for "map"; ``trace`` holds it before every step and at the end; ``restarts`` the end
    of every start. ``note`` says what is unusual, such as a Heywood case. Ordinary PCA (noise 0) has no
    likelihood (NaN): its objective is minus half the squared distances of the data to the plane.
    """

    values: dict[str, Array]
    log_likelihood: float
    objective: float
    trace: Array
    num_iter: int
    converged: bool
    restarts: tuple[float, ...]
    collapsed: tuple[int, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Found:
    """The end of one start: the point, the objective's history, columns whose noise stopped at its floor."""

    point: Point
    trace: tuple[float, ...]
    converged: bool
    bounded: tuple[int, ...] = ()


def noise_floor(moments: Moments, variance_floor: float | None, structure: Structure) -> Array:
    """Least noise variance of each column, (d,): 1e-6 of its variance (PPCA: of the mean), unless given."""
    if variance_floor is not None:
        return np.full(moments[1].shape[1], float(variance_floor))
    spread = column_variance(moments)
    spread = np.full_like(spread, spread.mean()) if structure.tied else spread
    return 1e-6 * spread


def column_variance(moments: Moments) -> Array:
    """Variances of the observed entries by column, (d,)."""
    count, mean, scatter, seen = moments
    number = np.maximum(count @ seen, 1.0)
    away = (mean - (count @ mean) / number) * seen
    return (np.einsum("pff->f", scatter) + count @ away**2) / number


def maximum_likelihood(
    moments: Moments,
    structure: Structure,
    fixed: float | None,
    *,
    tol: float,
    max_iter: int,
    floor: Array,
    start: Point | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Found:
    """ML of the model without a mask, from ``start`` (complete data take its noise only) or the usual one."""
    with one_blas_thread(len(floor)):
        if is_complete(moments):
            noise = None if start is None else start.scale**2
            return _complete(moments, structure, fixed, tol=tol, max_iter=max_iter, floor=floor, noise=noise)
        return _missing(moments, structure, fixed, tol, max_iter, floor, start, progress)


def is_complete(moments: Moments) -> bool:
    """Whether no entry is missing."""
    return len(moments[0]) == 1 and bool((moments[3] > 0).all())


def _complete(
    moments: Moments,
    structure: Structure,
    fixed: float | None,
    *,
    tol: float,
    max_iter: int,
    floor: Array,
    noise: Array | None,
) -> Found:
    count, mean, scatter, _ = moments
    n, d, q = float(count[0]), mean.shape[1], structure.latent_dim
    covariance = scatter[0] / n
    if structure.tied:
        point, bounded = _closed_form(mean[0], covariance, q, fixed, floor)
        return Found(point, (expect(point, *moments).log_likelihood,), True, bounded)
    first = smc_start(covariance, q) if noise is None else noise
    fit = maximise(covariance, q, first, floor=floor, tol=0.1 * min(tol, 1e-6), max_iter=max_iter)
    trace = tuple(-0.5 * n * (d * np.log(2 * np.pi) + f) for f in fit.trace)
    point = Point(mean[0], fit.loadings, np.sqrt(fit.variance))
    return Found(point, trace, fit.converged, tuple(int(f) for f in fit.bounded))


def _closed_form(
    mean: Array, covariance: Array, q: int, fixed: float | None, floor: Array
) -> tuple[Point, tuple[int, ...]]:
    """Tipping and Bishop (1999), equations 7 and 8."""
    loadings, variance = principal(covariance, q, None if fixed is None else fixed**2)
    low = fixed is None and variance < floor[0]
    if low:
        loadings, variance = principal(covariance, q, float(floor[0]))
    point = Point(mean, loadings, np.full(len(mean), np.sqrt(variance)))
    return point, tuple(range(len(mean))) if low else ()


def _missing(
    moments: Moments,
    structure: Structure,
    fixed: float | None,
    tol: float,
    max_iter: int,
    floor: Array,
    start: Point | None,
    progress: Callable[[int, float], None] | None,
) -> Found:
    """EM with the missing entries as hidden data: z is never imputed, so that few steps are needed.

    The M-step is the ML fit to the completed covariance: closed for PPCA, Newton steps for factor analysis.
    """
    n = float(moments[0].sum())
    point = start or _blank(moments, structure, fixed)
    trace: list[float] = []
    converged = False
    bounded: tuple[int, ...] = ()
    for step in range(max_iter + 1):
        done = expect(point, *moments)
        trace.append(done.log_likelihood)
        if progress is not None:
            progress(step, done.log_likelihood)
        gain = trace[-1] - trace[-2] if step else np.inf
        if gain < tol * n * (1.0 if not point.degenerate else column_variance(moments).mean()):
            converged = True
            break
        if step < max_iter:
            point, bounded = _m_step(done, point, structure, fixed, floor)
    return Found(point, tuple(trace), converged, bounded)


def _blank(moments: Moments, structure: Structure, fixed: float | None) -> Point:
    """No factors yet: column means and sds."""
    count, mean, _, seen = moments
    loc = (count @ mean) / np.maximum(count @ seen, 1.0)
    scale = np.sqrt(column_variance(moments))
    if structure.tied:
        scale = np.full_like(scale, np.sqrt((scale**2).mean()) if fixed is None else fixed)
    return Point(loc, np.zeros((len(loc), structure.latent_dim)), scale)


def _m_step(
    done: Completed, point: Point, structure: Structure, fixed: float | None, floor: Array
) -> tuple[Point, tuple[int, ...]]:
    if structure.tied:
        return _closed_form(done.mean, done.covariance, structure.latent_dim, fixed, floor)
    first = np.minimum(point.scale**2, done.covariance.diagonal())
    if not point.loadings.any():
        first = smc_start(done.covariance, structure.latent_dim)
    fit = maximise(done.covariance, structure.latent_dim, first, floor=floor, tol=1e-12, max_iter=20)
    bounded = tuple(int(f) for f in fit.bounded)
    return Point(done.mean, fit.loadings, np.sqrt(fit.variance)), bounded


def heywood_note(bounded: tuple[int, ...], structure: Structure) -> str | None:
    """A sentence on noise that went to its floor."""
    if not bounded:
        return None
    if structure.tied:
        return "the noise went to its floor: the factors explain the data entirely; use fewer factors"
    return (
        f"Heywood case: the noise of columns {list(bounded)} went to its floor (the likelihood is highest "
        "without any); use fewer factors, or estimate='map'"
    )


def result(
    found: list[Found], values: Mapping[str, Any], log_likelihood: float, note: str | None
) -> EMResult:
    """The best of several ends; ``values`` are its sites."""
    best = max(found, key=lambda f: f.trace[-1])
    return EMResult(
        values=dict(values),
        log_likelihood=log_likelihood,
        objective=best.trace[-1],
        trace=np.array(best.trace),
        num_iter=max(len(best.trace) - 1, 1),
        converged=best.converged,
        restarts=tuple(f.trace[-1] for f in found),
        note=note,
    )
