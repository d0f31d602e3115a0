"""Baum-Welch: EM for a hidden Markov model, with restarts. NumPy only.

Sources: Baum, Petrie, Soules and Weiss (1970), *Annals of Mathematical Statistics* 41; Dempster, Laird and
Rubin (1977), *JRSS B* 39, for the posterior mode.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ppl_lvm.models._restarts import Recall, restart
from ppl_lvm.models.hmm import _start
from ppl_lvm.models.hmm._em_estep import Expected, e_step
from ppl_lvm.models.hmm._layout import Rows, emission_values, rows_of
from ppl_lvm.models.hmm._mstep import check_concentrations, simplex_mode, stationary_transition

if TYPE_CHECKING:
    from ppl_lvm.models.hmm._exact import HMMExact

Array = np.ndarray
Values = Mapping[str, Any]
Progress = Callable[[int, int, float], None]
_TYPICAL_STEPS = 50  # of one run, for judging whether compilation pays


@dataclass(frozen=True)
class Restart:
    """Where one start led: objective (nats), steps, whether it converged, and its collapsed states."""

    objective: float
    num_iter: int
    converged: bool
    collapsed: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EMResult:
    """A point estimate.

    ``values`` are the sites; ``log_likelihood`` is total log p(x | values), ``objective`` the same plus, for
    "map", log_prior(values), in nats; ``trace`` the objective before every step of the best run and at its
    end.
    ``collapsed`` names the states of ``values`` that the data do not determine; ``note`` is a sentence
    where that changed the choice among restarts, else None.
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


class _Run(NamedTuple):
    values: dict[str, Array]
    trace: list[float]
    log_likelihood: float
    converged: bool
    collapsed: tuple[int, ...]

    def summary(self) -> Restart:
        return Restart(self.trace[-1], len(self.trace) - 1, self.converged, self.collapsed)


def em(
    exact: HMMExact,
    data: Mapping[str, Any],
    *,
    num_init: int = 10,
    tol: float = 1e-6,
    max_iter: int = 1000,
    rng: np.random.Generator | None = None,
    start: Values | None = None,
    estimate: str = "ml",
    progress: Progress | None = None,
    recall: Recall | None = None,
) -> EMResult:
    """Maximise the likelihood ("ml") or the posterior density of the sites ("map") by Baum-Welch.

    Parameters
    ----------
    exact, data
        The model's closed forms and the program's arguments; "map" uses ``data["prior"]``.
    num_init, rng
        Number of starts (:mod:`._start`) and the generator that seeds them; not used with ``start``.
    tol
        A run has converged when a step gains at most this much, nats per step of all sequences.
    max_iter
        Most steps of a run.
    start
        One draw of site values: then a single run starts from it.
    estimate
        "ml", or "map": the mode of log_prior + log_likelihood in the constrained space of the sites.
    progress
        Called as progress(restart, iteration, objective) at every iteration.
    recall
        Called as recall(restart, run, make) in place of run(); ``make`` takes the fields of a run. None from
        it ends the restarts.

    Returns
    -------
    EMResult
        The best run without a collapsed state, if there is one. A state has collapsed if its
        responsibilities add up to less than one step, or the emission's spread in it lies at its lower bound.
        The objective never falls; with a stationary start the M-step of the transition matrix is
        numerical (:func:`._mstep.stationary_transition`), so that it is a generalised EM.

    Raises
    ------
    TypeError, ValueError
        For arguments out of range; for "map" if a concentration is under 1, where no mode exists.
    """
    _check_settings(num_init, tol, max_iter, estimate, rng, start)
    prior = {n: np.asarray(v, dtype=float) for n, v in data["prior"].items()} if estimate == "map" else None
    if prior is not None:
        check_concentrations(prior, exact.initial)
    runs_of = 1 if start is not None else num_init
    search = _Search(exact, data, rows_of(data), prior, runs_of * min(max_iter, _TYPICAL_STEPS))
    runs = []
    for number, point in enumerate(_starts(exact, data, num_init, rng, start)):
        go = functools.partial(search.run, point, tol, max_iter, number, progress)
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


class _Search:
    """What all runs of a call share."""

    def __init__(
        self,
        exact: HMMExact,
        data: Mapping[str, Any],
        rows: Rows,
        prior: dict[str, Array] | None,
        num_steps: int,
    ) -> None:
        self.exact, self.data, self.rows, self.prior = exact, data, rows, prior
        given = exact.emission, exact.initial, rows
        compiled = exact.compiled_e_step
        self.e_step = e_step(*given) if compiled is None else compiled(*given, num_steps)
        self.x, self.seen = rows.x, rows.seen
        if rows.padded:
            inside = rows.valid.ravel()
            self.x = np.asfortranarray(rows.x[inside])
            self.seen = None if rows.seen is None else np.asfortranarray(rows.seen[inside])
        self.x = self.x.view()
        self.x.flags.writeable = False  # moments of what cannot change are computed once

    def run(
        self, values: dict[str, Array], tol: float, max_iter: int, number: int, progress: Progress | None
    ) -> _Run:
        found = self.e_step(values)
        trace, converged = [self.objective(values, found)], False
        while len(trace) <= max_iter and not converged:
            values = self.m_step(values, found)
            found = self.e_step(values)
            trace.append(self.objective(values, found))
            if progress is not None:
                progress(number, len(trace) - 1, trace[-1])
            if not np.isfinite(trace[-1]):
                break
            converged = trace[-1] - trace[-2] <= tol * len(self.x)
        return _Run(values, trace, found.log_likelihood, converged, self.collapsed(values, found))

    def objective(self, values: Values, found: Expected) -> float:
        if self.prior is None:
            return found.log_likelihood
        return found.log_likelihood + float(self.exact.log_prior(values, self.data))

    def m_step(self, values: Values, found: Expected) -> dict[str, Array]:
        prior = self.prior or {}
        initial, transition = prior.get("initial_concentration"), prior.get("transition_concentration")
        new: dict[str, Array] = {}
        if self.exact.initial == "free":
            new["initial"] = simplex_mode(found.first, initial, values["initial"])
        current = np.asarray(values["transition"])
        if self.exact.initial == "stationary":
            new["transition"] = stationary_transition(found.first, found.pairs, transition, current)
        else:
            new["transition"] = simplex_mode(found.pairs, transition, current)
        params = emission_values(values)
        return new | self.exact.emission.m_step(self.x, self.seen, found.states, self.prior, params)

    def collapsed(self, values: Values, found: Expected) -> tuple[int, ...]:
        empty = found.states.sum(1) < 1.0
        if self.prior is not None:  # the prior determines what the data do not
            return ()
        params = emission_values(values)
        narrow = self.exact.emission.collapsed(params, self.x, self.seen)
        return tuple(int(j) for j in np.flatnonzero(empty | np.asarray(narrow)))


def _starts(
    exact: HMMExact,
    data: Mapping[str, Any],
    num_init: int,
    rng: np.random.Generator | None,
    start: Values | None,
) -> Iterator[dict[str, Array]]:
    if start is not None:
        if np.ndim(start["transition"]) != 2:
            raise ValueError("start: expected one draw of every site, got draw axes; pick one draw.")
        yield {n: np.asarray(v, dtype=float) for n, v in start.items()}
        return
    for number in range(num_init):
        yield _start.starting_point(
            exact.num_states,
            exact.emission,
            exact.initial,
            data,
            rng,  # type: ignore[arg-type]  # checked before
            number,
        )


def _choose(runs: list[_Run]) -> tuple[_Run, str | None]:
    """The best run whose states all stand, else the best of all."""
    finite = [run for run in runs if np.isfinite(run.trace[-1])] or runs
    sound = [run for run in finite if not run.collapsed]
    best = max(sound or finite, key=lambda run: run.trace[-1])
    top = max(finite, key=lambda run: run.trace[-1])
    if not sound:
        return (
            best,
            f"all {len(runs)} starts ended with a collapsed state; use fewer states, or estimate='map'",
        )
    if top is not best and top.trace[-1] > best.trace[-1]:
        gain = top.trace[-1] - best.trace[-1]
        return best, f"a start with a collapsed state reached {gain:.3g} nats more and was set aside"
    return best, None


def _check_settings(
    num_init: int, tol: float, max_iter: int, estimate: str, rng: Any, start: Values | None
) -> None:
    for name, value in (("num_init", num_init), ("max_iter", max_iter)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}; use at least 1.")
    if not (math.isfinite(tol) and tol >= 0.0):
        raise ValueError(f"tol: expected nats per step >= 0, got {tol!r}; 1e-6 is the default.")
    if estimate not in ("ml", "map"):
        raise ValueError(
            f"estimate: expected 'ml' or 'map', got {estimate!r}; 'map' uses the prior, 'ml' does not."
        )
    if start is None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy Generator to seed the starts, got {rng!r}; or pass start.")
