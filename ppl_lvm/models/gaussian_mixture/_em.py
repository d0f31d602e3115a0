"""EM for the Gaussian mixture: restarts, convergence, and an honest account of collapsed components.

Sources: Dempster, Laird and Rubin (1977); Meng and Rubin (1993) for the posterior mode; McLachlan and Peel
(2000), chapter 3, on singularities and spurious maximisers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.models._restarts import Recall, restart
from ppl_lvm.models.gaussian_mixture._checks import Array, Values, check_prior, check_values, check_x
from ppl_lvm.models.gaussian_mixture._estep import EStep
from ppl_lvm.models.gaussian_mixture._point import Point
from ppl_lvm.models.gaussian_mixture._search import Restart, Run, Search
from ppl_lvm.models.gaussian_mixture._start import Frame, kmeans_point

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, eq=False)
class EMResult:
    """A point estimate.

    - `values`: the sites, as `GaussianMixtureExact` describes them.
    - `log_likelihood`: total log p(x | values) in nats.
    - `objective`: `log_likelihood`, plus log_prior(values) for "map".
    - `trace`: the objective before every step of the best run and at its end, num_iter + 1 numbers.
    - `num_iter`, `converged`: steps of the best run, and whether its last one was within `tol`.
    - `restarts`: the end of every start, in order.
    - `collapsed`: components of `values` whose covariance the data do not determine (the rule is in `em`).
    - `note`: a sentence where collapse changed or tainted the choice among restarts, else None.
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
    recall: Recall | None = None,
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
        "ml": ordinary EM. "map": the mode of log_prior + log_likelihood in the constrained space of the
        sites, by ECM (the objective never falls).
    variance_floor
        "ml" only: added to every variance at every step (units of x squared), as scikit-learn's
        `reg_covar` is, against the likelihood's singularities. None: 1e-6 times the mean column variance
        of x. 0.0 is allowed: a run that meets a singularity then stops before it.
    progress
        Called as progress(restart, iteration, objective) at every iteration.
    recall
        Called as recall(restart, run, make) in place of run(); `make` takes the fields of a run. None from it
        ends the restarts.

    Returns
    -------
    EMResult
        The best run without a collapsed component, if there is one. For "ml", a component is reported as
        collapsed if the floor makes up half of its least variance, or if its responsibilities add up to
        fewer than d + 1 points (tied: 1 point, since the covariance is shared). For either estimate, also
        if the least eigenvalue of its correlation matrix is under 1e-10, or its next step had no finite
        maximum.

    Raises
    ------
    TypeError, ValueError
        For arguments out of range; for "map" if a component empties whose prior concentration is under 1.
    """
    x = check_x(data, num_components)
    _check_settings(num_init, tol, max_iter, estimate, variance_floor)
    prior = check_prior(data, num_components, covariance, x.shape[1]) if estimate == "map" else None
    frame, z = Frame.of(x, covariance)
    search = Search.of(frame, len(x), prior, variance_floor)
    starts = _starts(frame, z, num_components, num_init, rng, start)
    runs = []
    with EStep(z, num_components, covariance) as e_step:
        for number, point in enumerate(starts):
            report = None if progress is None else functools.partial(progress, number)
            go = functools.partial(search.run, e_step, point, tol * len(x), max_iter, report)
            run = restart(recall, number, go, _made)
            if run is None:
                break
            runs.append(run)
        best, note = search.choose(runs)
        values = frame.values(best.point)
        log_likelihood = search.log_likelihood(e_step, values)
    return EMResult(
        values=values,
        log_likelihood=log_likelihood,
        objective=log_likelihood + search.log_prior(values),
        trace=np.array(best.trace),
        num_iter=len(best.trace) - 1,
        converged=best.converged,
        restarts=tuple(run.summary() for run in runs),
        collapsed=best.collapsed,
        note=note,
    )


def _made(fields: dict[str, Any]) -> Run:
    return Run(**{**fields, "point": Point(**fields["point"])})


def _starts(
    frame: Frame,
    z: Array,
    num_components: int,
    num_init: int,
    rng: np.random.Generator | None,
    start: Mapping[str, Any] | None,
) -> Iterator[Point]:
    if start is not None:
        draws, flat = check_values(start, num_components, frame.covariance, len(frame.unit))
        if draws:
            raise ValueError(f"start: expected one draw of every site, got draw axes {draws}; pick one draw")
        yield frame.point(flat)
        return
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng: expected a numpy Generator to seed k-means, got {rng!r}; pass one, or pass start"
        )
    for number in range(num_init):
        yield kmeans_point(frame, z, num_components, rng, number)


def _check_settings(
    num_init: int, tol: float, max_iter: int, estimate: str, variance_floor: float | None
) -> None:
    for name, value in (("num_init", num_init), ("max_iter", max_iter)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}; use at least 1")
    if not (math.isfinite(tol) and tol >= 0.0):
        raise ValueError(f"tol: expected nats per datum >= 0, got {tol!r}; 1e-6 is the default")
    if estimate not in ("ml", "map"):
        raise ValueError(
            f"estimate: expected 'ml' or 'map', got {estimate!r}; 'map' uses the prior, 'ml' does not"
        )
    if variance_floor is None:
        return
    if estimate == "map":
        raise ValueError(
            "variance_floor: expected None with estimate='map', whose prior takes its place; leave it out"
        )
    if not (math.isfinite(variance_floor) and variance_floor >= 0.0):
        raise ValueError(f"variance_floor: expected a variance >= 0, got {variance_floor!r}; 0.0 means none")
