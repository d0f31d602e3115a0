"""EM for the Gaussian mixture: restarts, convergence, and an honest account of collapsed components.

Sources: Dempster, Laird and Rubin (1977); Meng and Rubin (1993) for the posterior mode; McLachlan and Peel (2000),
sections 3.8 to 3.10, on singularities and spurious maximisers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._density import Array, Values, check_prior, check_values, check_x, log_joint_chunks, log_prior, log_sum_exp
from ._estep import EStep, Moments, Point
from ._mstep import MaximumLikelihood, MaximumPosterior, MStep, SingularCovariance
from ._start import Frame, column_variances, kmeans_values

Progress = Callable[[int, int, float], None]

_FLOOR_SHARE = 1e-6  # of the mean column variance
_DEGENERATE_VARIANCE = 1e-10  # least eigenvalue of a covariance, in units of the columns' variances


@dataclass(frozen=True)
class Restart:
    """Where one start led: its objective (nats), steps taken, whether it converged, and its collapsed components."""

    objective: float
    num_iter: int
    converged: bool
    collapsed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EMResult:
    """A point estimate.

    `values`: the sites (see `GaussianMixtureExact`). `log_likelihood`: total log p(x | values), nats. `objective`: that,
    plus log_prior(values) for "map". `trace`: the objective before every step of the best run and at its end
    (num_iter + 1 numbers). `converged`: whether its last gain per datum was within `tol`. `restarts`: every start's
    end. `collapsed`: components of `values` whose covariance the data do not determine (see `em`). `note`: a sentence
    where collapse changed or tainted the choice among restarts, else None.
    """

    values: Values
    log_likelihood: float
    objective: float
    trace: Array
    num_iter: int
    converged: bool
    restarts: tuple[Restart, ...]
    collapsed: tuple[int, ...]
    note: str | None


@dataclass(frozen=True, eq=False)
class _Run:
    point: Point
    trace: list[float]
    converged: bool
    collapsed: tuple[int, ...]

    def summary(self) -> Restart:
        return Restart(self.trace[-1], len(self.trace) - 1, self.converged, self.collapsed)


def em(
    data: Mapping[str, Any],
    num_components: int,
    covariance: str,
    *,
    num_init: int = 10,
    tol: float = 1e-6,
    max_iter: int = 1000,
    rng: np.random.Generator | None = None,
    start: Mapping[str, Any] | None = None,
    estimate: str = "ml",
    variance_floor: float | None = None,
    progress: Progress | None = None,
) -> EMResult:
    """Maximise the likelihood ("ml") or the posterior density of the sites ("map").

    Parameters
    ----------
    data
        `x` (n, d), n >= num_components; for "map" also `prior`.
    num_init, rng
        Number of k-means starts and the generator that seeds them; not used with `start`.
    tol
        A run has converged when a step changes the objective by at most this many nats per datum.
    max_iter
        Most steps of a run.
    start
        One draw of site values: then a single run starts from it.
    estimate
        "ml": ordinary EM. "map": the mode of log_prior + log_likelihood in the constrained space of the sites, by ECM
        (the objective never falls).
    variance_floor
        "ml" only: added to every variance at every step (units of x squared), as scikit-learn's `reg_covar`, against the
        likelihood's singularities. None: 1e-6 times the mean column variance of x. 0.0 is allowed: a run that reaches a
        singularity then stops before it.
    progress
        Called as progress(restart, iteration, objective) at every iteration.

    Returns
    -------
    EMResult
        The best run whose components are all sound, if there is one. For "ml", a component is reported as collapsed if
        at least half of its least variance is the floor, or if its responsibilities add up to fewer than d + 1 points
        (tied: 1 point; the covariance is shared). For either estimate also if its least variance, in any direction, is
        under 1e-10 of the columns' variances.

    Raises
    ------
    ValueError
        For arguments out of range; for "map" if a component empties whose prior concentration is under 1.
    """
    x = check_x(data, num_components)
    _check_settings(num_init, tol, max_iter, estimate, variance_floor)
    if rng is None and start is None:
        raise ValueError("rng: expected a numpy Generator to seed the k-means starts, got None; pass rng or start")
    search = _Search.of(x, data, num_components, covariance, estimate, variance_floor)
    runs = []
    with EStep(search.frame.standardise(x), num_components, covariance) as e_step:
        for restart, values in enumerate(_starts(x, num_components, covariance, num_init, rng, start)):
            report = None if progress is None else functools.partial(progress, restart)
            runs.append(search.run(e_step, values, tol * len(x), max_iter, report))
    return search.result(runs, x)


def _starts(
    x: Array,
    num_components: int,
    covariance: str,
    num_init: int,
    rng: np.random.Generator | None,
    start: Mapping[str, Any] | None,
) -> Iterator[Values]:
    if start is not None:
        draws, flat = check_values(start, num_components, covariance, x.shape[1])
        if draws:
            raise ValueError(f"start: expected one draw of every site, got draw axes {draws}; pick one draw")
        yield {name: value[0] for name, value in flat.items()}
    elif rng is not None:
        for number in range(num_init):
            yield kmeans_values(x, num_components, covariance, rng, number)


@dataclass(frozen=True)
class _Search:
    """What every run of one call shares. Points are in `frame`, objectives in the units of x."""

    covariance: str
    frame: Frame
    prior: Values | None
    floor: float
    m_step: MStep

    @classmethod
    def of(
        cls, x: Array, data: Mapping[str, Any], k: int, covariance: str, estimate: str, variance_floor: float | None
    ) -> _Search:
        frame = Frame.of(x, covariance)
        if estimate == "map":
            prior = check_prior(data, k, covariance, x.shape[1])
            return cls(covariance, frame, prior, 0.0, MaximumPosterior(covariance, prior, frame))
        mean_variance = float(column_variances(x).mean())
        if mean_variance == 0.0 and not variance_floor:
            raise ValueError(
                "x: expected rows that differ, got identical ones, whose likelihood has no maximum; "
                "pass a positive variance_floor, or estimate='map'"
            )
        floor = _FLOOR_SHARE * mean_variance if variance_floor is None else float(variance_floor)
        return cls(covariance, frame, None, floor, MaximumLikelihood(covariance, floor / frame.unit**2))

    def run(
        self, e_step: EStep, start: Values, gain: float, max_iter: int, report: Callable[[int, float], None] | None
    ) -> _Run:
        """EM from `start` until a step changes the objective by at most `gain` nats."""
        point = self.frame.point({name: value[None] for name, value in start.items()})
        trace: list[float] = []
        singular: tuple[int, ...] = ()
        converged = False
        while True:
            moments = e_step(point)
            trace.append(self._objective(point, moments))
            if report is not None:
                report(len(trace) - 1, trace[-1])
            converged = len(trace) > 1 and abs(trace[-1] - trace[-2]) <= gain
            if converged or len(trace) > max_iter:
                break
            try:
                point = self.m_step(moments, point)
            except SingularCovariance as error:
                singular = error.components
                break
        collapsed = set(singular) | set(self._collapsed(point, moments.count))
        return _Run(point, trace, converged, tuple(sorted(collapsed)))

    def _objective(self, point: Point, moments: Moments) -> float:
        total = moments.log_likelihood - moments.count.sum() * float(np.log(self.frame.unit).sum())
        return total if self.prior is None else total + _log_prior(self.frame.values(point), self.prior)

    def _collapsed(self, point: Point, count: Array) -> list[int]:
        """Components whose covariance the data do not determine; the rule is in the docstring of `em`."""
        variances = least_variances(point.factor, self.covariance)
        bad = np.broadcast_to(variances < _DEGENERATE_VARIANCE, count.shape)
        if self.prior is None:
            unit = self.frame.unit
            dense = self.covariance in ("full", "tied")
            in_x = point.factor * (unit[:, None] if dense else unit[0] if self.covariance == "spherical" else unit)
            points = 1.0 if self.covariance == "tied" else point.loc.shape[1] + 1.0
            bad = bad | (least_variances(in_x, self.covariance) < 2.0 * self.floor) | (count < points)
        return [int(j) for j in np.flatnonzero(bad)]

    def result(self, runs: list[_Run], x: Array) -> EMResult:
        """The best sound run, or the best of all where none is."""
        first = max(runs, key=lambda run: run.trace[-1])
        sound = [run for run in runs if not run.collapsed]
        best = max(sound, key=lambda run: run.trace[-1]) if sound else first
        values = self.frame.values(best.point)
        flat = {name: value[None] for name, value in values.items()}
        chunks = log_joint_chunks(flat, x, self.covariance)
        log_likelihood = float(sum(log_sum_exp(terms).sum() for _, _, terms in chunks))
        added = 0.0 if self.prior is None else _log_prior(values, self.prior)
        return EMResult(
            values=values,
            log_likelihood=log_likelihood,
            objective=log_likelihood + added,
            trace=np.array(best.trace),
            num_iter=len(best.trace) - 1,
            converged=best.converged,
            restarts=tuple(run.summary() for run in runs),
            collapsed=best.collapsed,
            note=_note(runs, best, first),
        )


def _log_prior(values: Values, prior: Values) -> float:
    return float(log_prior({name: value[None] for name, value in values.items()}, prior)[0])


def least_variances(factor: Array, covariance: str) -> Array:
    """Least eigenvalue of each covariance: (k,), or () for tied."""
    if covariance in ("full", "tied"):
        return np.linalg.svd(factor, compute_uv=False)[..., -1] ** 2
    result: Array = (factor**2).reshape(len(factor), -1).min(1)
    return result


def _note(runs: list[_Run], best: _Run, first: _Run) -> str | None:
    if best.collapsed:
        which = "the start" if len(runs) == 1 else f"every one of the {len(runs)} starts"
        return (
            f"{which} ended with a collapsed component (here {list(best.collapsed)}): this likelihood comes from its "
            "singularity, not from a fit; use fewer components, a simpler covariance, or estimate='map'"
        )
    if first is not best:
        return (
            f"start {runs.index(first)} reached a higher objective ({first.trace[-1]:.6g} against {best.trace[-1]:.6g}) "
            f"by collapsing components {list(first.collapsed)}, and was passed over"
        )
    return None


def _check_settings(num_init: int, tol: float, max_iter: int, estimate: str, variance_floor: float | None) -> None:
    for name, value in (("num_init", num_init), ("max_iter", max_iter)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}; use at least 1")
    if not (math.isfinite(tol) and tol >= 0.0):
        raise ValueError(f"tol: expected nats per datum >= 0, got {tol!r}; 1e-6 is the default")
    if estimate not in ("ml", "map"):
        raise ValueError(f"estimate: expected 'ml' or 'map', got {estimate!r}; 'map' uses the prior, 'ml' does not")
    if variance_floor is None:
        return
    if estimate == "map":
        raise ValueError("variance_floor: expected None with estimate='map', whose prior takes its place; leave it out")
    if not (math.isfinite(variance_floor) and variance_floor >= 0.0):
        raise ValueError(f"variance_floor: expected a variance >= 0, got {variance_floor!r}; 0.0 means none")
