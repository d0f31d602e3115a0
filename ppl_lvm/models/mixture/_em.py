"""EM for mixtures of any emission (Dempster, Laird and Rubin 1977, JRSS B 39), with restarts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from ppl_lvm.emissions._base import numpy_library
from ppl_lvm.emissions._priors import Array
from ppl_lvm.models._restarts import Recall, restart
from ppl_lvm.models.mixture._start import start_values

if TYPE_CHECKING:
    from ppl_lvm.models.mixture._exact import MixtureExact

Progress = Callable[[int, int, float], None]
_SAME_OBJECTIVE = 1e-11  # relative difference of sums that rounding may explain
_LEAST_COUNT = 1.0  # data; a component of a maximum likelihood estimate with fewer has collapsed


@dataclass(frozen=True)
class Restart:
    """Where one start led: objective (nats), steps, whether it converged, and its collapsed components."""

    objective: float
    num_iter: int
    converged: bool
    collapsed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EMResult:
    """The best point: ``values`` by site, and ``trace``, the objective (nats) at every point visited.

    ``objective`` is the log likelihood plus, for "map", the log prior density. ``collapsed`` lists components
    whose spread lies at its floor or that hold less than one datum (maximum likelihood only).
    """

    values: dict[str, Array]
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
    values: dict[str, Array]
    log_likelihood: float
    trace: list[float]
    converged: bool
    collapsed: tuple[int, ...]

    def summary(self) -> Restart:
        return Restart(self.trace[-1], len(self.trace) - 1, self.converged, self.collapsed)


def em(
    exact: MixtureExact,
    data: Mapping[str, Any],
    *,
    num_init: int,
    tol: float,
    max_iter: int,
    rng: np.random.Generator,
    start: Mapping[str, Any] | None,
    estimate: str,
    progress: Progress | None,
    recall: Recall | None,
) -> EMResult:
    """The best of ``num_init`` runs, or the one from ``start``; the objective never falls within a run.

    A run stops when the objective gains at most ``tol`` nats per datum, or after ``max_iter`` steps. Runs
    with collapsed components are passed over where another has none. ``recall(number, run, make)`` is called
    in place of ``run()``, where ``make`` takes the fields of a run; None from it ends the restarts.

    Raises
    ------
    ValueError
        For an unknown ``estimate``, and for "map" where a component empties under a concentration below 1,
        so that the posterior density is infinite.
    """
    if estimate not in ("ml", "map"):
        raise ValueError(f"estimate: expected 'ml' or 'map', got {estimate!r}.")
    prior = data["prior"] if estimate == "map" else None
    runs = []
    for number in range(num_init if start is None else 1):
        values = start_values(exact, data, prior, rng, number) if start is None else _own(exact, data, start)

        def report(iteration: int, objective: float, number: int = number) -> None:
            if progress is not None:
                progress(number, iteration, objective)

        go = functools.partial(_run, exact, data, prior, values, tol, max_iter, report)
        run = restart(recall, number, go, lambda fields: _Run(**fields))
        if run is None:
            break
        runs.append(run)
    best, note = _choose(runs)
    return EMResult(
        values=best.values,
        log_likelihood=best.log_likelihood,
        objective=best.trace[-1],
        trace=np.array(best.trace),
        num_iter=len(best.trace) - 1,
        converged=best.converged,
        restarts=tuple(run.summary() for run in runs),
        collapsed=best.collapsed,
        note=note,
    )


def _own(exact: MixtureExact, data: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Array]:
    params = exact.params(start, np.shape(data["x"])[1])
    return {"weights": np.asarray(start["weights"], dtype=float), **params}


def _run(
    exact: MixtureExact,
    data: Mapping[str, Any],
    prior: Mapping[str, Array] | None,
    values: dict[str, Array],
    tol: float,
    max_iter: int,
    report: Callable[[int, float], None],
) -> _Run:
    x, seen = np.asarray(data["x"], dtype=float), data.get("seen")
    trace: list[float] = []
    while True:
        params = {name: value for name, value in values.items() if name != "weights"}
        log_joint = exact.emission.log_prob(numpy_library(), params, x, seen)
        log_joint = log_joint + np.log(np.maximum(values["weights"], np.finfo(float).tiny))[:, None]
        each = logsumexp(log_joint, axis=0)
        log_likelihood = float(each.sum())
        trace.append(log_likelihood + (0.0 if prior is None else float(exact.log_prior(values, data))))
        report(len(trace) - 1, trace[-1])
        shares = np.exp(log_joint - each)
        converged = len(trace) > 1 and abs(trace[-1] - trace[-2]) <= tol * len(x)
        if converged or len(trace) > max_iter:
            break
        weights = _weights(shares.sum(1), prior)
        values = {"weights": weights, **exact.emission.m_step(x, seen, shares, prior, params)}
    collapsed: tuple[int, ...] = ()
    if prior is None:
        bad = exact.emission.collapsed(params, x, seen) | (shares.sum(1) < _LEAST_COUNT)
        collapsed = tuple(int(j) for j in np.flatnonzero(bad))
    return _Run(values, log_likelihood, trace, converged, collapsed)


def _weights(count: Array, prior: Mapping[str, Array] | None) -> Array:
    """The weights' maximiser: counts, or with a prior the mode of a Dirichlet density, over their sum."""
    if prior is not None:
        alpha = prior["concentration"]
        count = count + alpha - 1.0
        bad = np.flatnonzero((count <= 0.0) & (alpha < 1.0))
        if bad.size:
            raise ValueError(
                f"concentration: expected at least 1 for component {int(bad[0])}, which empties, got "
                f"{alpha[bad[0]]:.3g}: the posterior density is infinite at weight 0; use concentration "
                ">= 1, fewer components, or estimate='ml'."
            )
    raised = np.maximum(count, np.finfo(float).tiny)
    return raised / raised.sum()


def _choose(runs: list[_Run]) -> tuple[_Run, str | None]:
    """The best run without collapse, or the best of all where every run has one; and a note on that."""
    objectives = np.array([run.trace[-1] for run in runs])
    sound = np.array([not run.collapsed for run in runs])
    highest = _first_best(objectives)
    if not sound.any():
        which = "the only start" if len(runs) == 1 else f"every one of {len(runs)} starts"
        return runs[highest], (
            f"{which} ended with collapsed components (here {list(runs[highest].collapsed)}); use fewer "
            "components, a simpler emission, or estimate='map'"
        )
    best = _first_best(np.where(sound, objectives, -np.inf))
    if sound[highest]:
        return runs[best], None
    return runs[best], (
        f"start {highest} reached a higher objective ({objectives[highest]:.6g} against "
        f"{objectives[best]:.6g}) by collapsing components {list(runs[highest].collapsed)}; it was passed "
        "over"
    )


def _first_best(objectives: Array) -> int:
    """The first of those that are the highest but for rounding, so that every machine picks the same."""
    top = objectives.max()
    if not np.isfinite(top):
        return int(np.argmax(objectives))
    return int(np.argmax(objectives >= top - _SAME_OBJECTIVE * abs(top)))
