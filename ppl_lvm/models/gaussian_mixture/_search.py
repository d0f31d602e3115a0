"""Runs of EM from single starts, their collapsed components, and the choice among runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ppl_lvm.models.gaussian_mixture._checks import Array, Values
from ppl_lvm.models.gaussian_mixture._density import log_prior
from ppl_lvm.models.gaussian_mixture._estep import EStep
from ppl_lvm.models.gaussian_mixture._mstep import (
    MaximumLikelihood,
    MaximumPosterior,
    MStep,
    SingularCovariance,
)
from ppl_lvm.models.gaussian_mixture._point import Point
from ppl_lvm.models.gaussian_mixture._start import Frame

_FLOOR_SHARE = 1e-6  # of the mean column variance
_SAME_OBJECTIVE = 1e-11  # relative difference of sums that rounding may explain
_DEGENERATE_CORRELATION = 1e-10  # least eigenvalue of a correlation matrix


@dataclass(frozen=True)
class Restart:
    """Where one start led: objective (nats), steps, whether it converged, and its collapsed components."""

    objective: float
    num_iter: int
    converged: bool
    collapsed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """One run of EM; `trace` holds the objective at every point it visited."""

    point: Point
    trace: list[float]
    converged: bool
    collapsed: tuple[int, ...]

    def summary(self) -> Restart:
        """What is kept of a run that was not chosen."""
        return Restart(self.trace[-1], len(self.trace) - 1, self.converged, self.collapsed)


@dataclass(frozen=True, eq=False)
class Search:
    """What all runs of a call share. Points are in `frame`; objectives and `floor` in the units of x."""

    frame: Frame
    prior: Values | None
    floor: float
    m_step: MStep
    log_units: float

    @classmethod
    def of(cls, frame: Frame, num_rows: int, prior: Values | None, variance_floor: float | None) -> Search:
        """The search for the posterior mode under `prior`, or, without one, for the maximum likelihood."""
        covariance = frame.covariance
        log_units = num_rows * float(np.log(frame.unit).sum())
        if prior is not None:
            return cls(frame, prior, 0.0, MaximumPosterior(covariance, prior, frame), log_units)
        mean_variance = float(frame.variance.mean())
        if mean_variance == 0.0 and not variance_floor:
            raise ValueError(
                "x: expected rows that differ, got identical ones, whose likelihood has no maximum; "
                "pass a positive variance_floor, or estimate='map'"
            )
        floor = _FLOOR_SHARE * mean_variance if variance_floor is None else float(variance_floor)
        return cls(frame, None, floor, MaximumLikelihood(covariance, floor / frame.unit**2), log_units)

    def run(
        self,
        e_step: EStep,
        point: Point,
        gain: float,
        max_iter: int,
        report: Callable[[int, float], None] | None,
    ) -> Run:
        """EM from `point` until a step changes the objective by at most `gain` nats."""
        trace: list[float] = []
        singular: tuple[int, ...] = ()
        while True:
            moments = e_step(point)
            objective = moments.log_likelihood - self.log_units + self._log_prior_at(point)
            trace.append(objective)
            if report is not None:
                report(len(trace) - 1, objective)
            converged = len(trace) > 1 and abs(objective - trace[-2]) <= gain
            if converged or len(trace) > max_iter:
                break
            try:
                point = self.m_step(moments, point)
            except SingularCovariance as error:
                singular = error.components
                break
        collapsed = {*singular, *self._collapsed(point, moments.count)}
        return Run(point, trace, converged, tuple(sorted(collapsed)))

    def choose(self, runs: list[Run]) -> tuple[Run, str | None]:
        """The best run without collapse, or the best of all where every run has one; and a note on that."""
        objectives = np.array([run.trace[-1] for run in runs])
        is_sound = np.array([not run.collapsed for run in runs])
        highest = _first_best(objectives)
        if not is_sound.any():
            simpler = "or covariance='diag'" if self.prior else "a simpler covariance, or estimate='map'"
            which = "the only start" if len(runs) == 1 else f"every one of {len(runs)} starts"
            return runs[highest], (
                f"{which} ended with collapsed components (here {list(runs[highest].collapsed)}): the "
                f"objective comes from a near-singularity, not from a fit; use fewer components, {simpler}"
            )
        best = _first_best(np.where(is_sound, objectives, -np.inf))
        if is_sound[highest]:
            return runs[best], None
        return runs[best], (
            f"start {highest} reached a higher objective ({objectives[highest]:.6g} against "
            f"{objectives[best]:.6g}) by collapsing components {list(runs[highest].collapsed)}; "
            "it was passed over"
        )

    def log_prior(self, values: Values) -> float:
        """0 for "ml"."""
        if self.prior is None:
            return 0.0
        return float(log_prior({name: value[None] for name, value in values.items()}, self.prior)[0])

    def log_likelihood(self, e_step: EStep, values: Values) -> float:
        """Total at `values`, which may differ from EM's own last point by the rounding of an offset."""
        point = self.frame.point({name: value[None] for name, value in values.items()})
        return e_step.log_likelihood(point) - self.log_units

    def _log_prior_at(self, point: Point) -> float:
        return 0.0 if self.prior is None else self.log_prior(self.frame.values(point))

    def _collapsed(self, point: Point, count: Array) -> list[int]:
        """Components whose covariance the data do not determine; the rule is in the docstring of `em`."""
        kind, unit = self.frame.covariance, self.frame.unit
        bad = np.zeros(len(count), dtype=bool)
        if kind in ("full", "tied"):
            scale = np.sqrt((point.factor**2).sum(-1, keepdims=True))
            bad |= least_variances(point.factor / scale, kind) < _DEGENERATE_CORRELATION
        if self.prior is None:
            by_unit = {"diag": unit, "spherical": unit[0]}.get(kind, unit[:, None])
            at_floor = least_variances(point.factor * by_unit, kind) < 2.0 * self.floor
            least_points = 1.0 if kind == "tied" else len(unit) + 1.0
            bad |= at_floor | (count < least_points)
        return [int(j) for j in np.flatnonzero(bad)]


def _first_best(objectives: Array) -> int:
    """The first of those that are the highest but for rounding, so that every machine picks the same."""
    top = objectives.max()
    return int(np.argmax(objectives >= top - _SAME_OBJECTIVE * abs(top)))


def least_variances(factor: Array, covariance: str) -> Array:
    """Least eigenvalue of each covariance: (k,), or () for tied."""
    if covariance in ("full", "tied"):
        return np.asarray(np.linalg.svd(factor, compute_uv=False)[..., -1] ** 2)
    return np.asarray((factor**2).reshape(len(factor), -1).min(1))
