"""The unit of work: parameters from the prior, data from the model, a fit, ranks; seeded by its number."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.calibration._quantities import compared_sites, derived
from ppl_lvm.core import AbstractModel, Engine, Problem
from ppl_lvm.fitting import fit_to_the_end, prepare
from ppl_lvm.predictive import effective_size, observed_values
from ppl_lvm.result import Fit, flat_draws

Array = np.ndarray
FEWEST_DRAWS = 9
"""Ranks among fewer draws say next to nothing; a chain of a smaller effective size gives that many."""
_MOST_FOR_ESS = 64


class NoDrawsError(ValueError):
    """The engine gives no draws, so that nothing can be ranked: no simulation can succeed."""


@dataclass(frozen=True)
class Task:
    """What all simulations share. ``observed`` maps observed sites to arguments, or makes these."""

    model: AbstractModel
    simulator: AbstractModel
    engine: Engine
    data: Any
    seed: int
    num_draws: int
    dtype: str | None
    init: Any
    observed: Mapping[str, str] | Callable[[dict[str, Array]], Mapping[str, Any]]


def simulate(task: Task, number: int) -> dict[str, Any]:
    """One simulation: ``rank``, ``pit`` and ``truth`` by quantity, and figures of the fit; or ``error``.

    Everything random comes from (seed, number), so that a simulation is the same in any process, and whatever
    else is run beside it.
    """
    started = time.perf_counter()
    words = seed_words(task, number)
    try:
        truth, raw = draw_truth(task, words[0])
        record = fit_and_rank(task, task.engine, truth, raw, words)
    except NoDrawsError:
        raise
    except Exception as error:  # whatever goes wrong in one simulation is reported, and the others go on
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.perf_counter() - started}
    return {**record, "error": "", "seconds": time.perf_counter() - started}


def seed_words(task: Task, number: int) -> list[int]:
    """Seeds of a simulation's truth, fit and ranks."""
    return [int(w) >> 1 for w in np.random.SeedSequence([task.seed, number]).generate_state(3)]


def fit_and_rank(
    task: Task, engine: Engine, truth: dict[str, Array], raw: Any, words: list[int]
) -> dict[str, Any]:
    """The record of one simulated data set."""
    settings = {"seed": words[1], "init": task.init, "dtype": task.dtype, "progress": False}
    found = fit_to_the_end(task.model, raw, engine, **settings)
    return _ranked(found, truth, task.num_draws, np.random.default_rng(words[2]))


def draw_truth(task: Task, seed: int) -> tuple[dict[str, Array], Any]:
    """Values by site from the prior, and data simulated from them in the form that ``fit`` takes."""
    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    problem = prepare(task.simulator, task.data, dtype=task.dtype)
    with torch_session(seed, problem.dtype):
        latent, seen = forward(problem, None, 1)
    exact: Any = problem.model.exact
    if hasattr(exact, "replicate"):
        seen = exact.replicate(latent, problem.arguments, np.random.default_rng([seed, 7]))
    values = {k: v[0] for k, v in latent.items() if v.dtype.kind == "f"}
    sites = {k: np.asarray(v)[0] for k, v in seen.items()}
    bad = [k for k, v in values.items() if not np.isfinite(v).all()]
    if bad:
        raise ValueError(f"the prior gave NaN or infinite values of {bad}; narrow it.")
    return values, _as_data(task, problem, sites)


def _as_data(task: Task, problem: Problem, sites: dict[str, Array]) -> Any:
    """Simulated observations put in the place of the given ones; what was missing is missing."""
    given = problem.data.values
    if problem.model.to_settings() is not None:
        own = observed_values(problem)["obs"]
        x = np.where(np.isnan(own), np.nan, sites["obs"]) if own.dtype.kind == "f" else sites["obs"]
        return {"x": x, "lengths": given["lengths"]} if "lengths" in given else x
    if callable(task.observed):
        return {**given, **task.observed(sites)}
    made = {argument: sites[site] for site, argument in task.observed.items()}
    return {**given, **{k: v.astype(np.asarray(given[k]).dtype) for k, v in made.items()}}


def match_observed(problem: Problem) -> dict[str, str]:
    """The argument that each observed site takes its value from: the one of the same values.

    Raises
    ------
    ValueError
        Where none has them, or more than one; for a ``factor`` statement, which no data can be drawn from.
    """
    if problem.model.to_settings() is not None:
        return {}
    factors = [s.name for s in problem.sites.values() if s.is_factor]
    if factors:
        raise ValueError(
            f"model: no data can be simulated from the factor statement {factors[0]!r}; write its density as "
            "an observed site, or pass simulator= with a program that has one."
        )
    out: dict[str, str] = {}
    arrays = {k: v for k, v in problem.arguments.items() if isinstance(v, np.ndarray)}
    values = observed_values(problem)
    if not values:
        raise ValueError("model: it has no observed site, so there are no data to simulate and fit.")
    for site, value in values.items():
        fits = [k for k, v in arrays.items() if v.shape == value.shape and np.array_equal(v, value)]
        fits = [k for k in fits if k not in out.values()]
        if len(fits) != 1:
            raise ValueError(
                f"observed: cannot tell which argument site {site!r} takes its value from "
                f"({'several have' if fits else 'none has'} its values); pass observed={{{site!r}: "
                "'argument'}, or a function of the simulated sites that returns the arguments."
            )
        out[site] = fits[0]
    return out


def _ranked(found: Fit, truth: dict[str, Array], num_draws: int, rng: np.random.Generator) -> dict[str, Any]:
    if found.draws is None:
        raise NoDrawsError(
            f"engine: {type(found.engine).__name__} gives a point, and calibration is of posterior draws; "
            "use SVI, ImportanceSampling or NUTS."
        )
    draws = {k: v for k, v in flat_draws(found.draws).items() if k in truth and v.dtype.kind == "f"}
    if not draws or found.problem is None:
        raise NoDrawsError(
            f"engine: {type(found.engine).__name__} gives no draws of the sites {sorted(truth)}."
        )
    rows, ess = _thinned(found, draws, num_draws, rng)
    together = {k: np.concatenate([v[rows], truth[k][None]]) for k, v in draws.items()}
    record: dict[str, Any] = {"num_draws": len(rows), "ess": ess, "status": found.status.outcome.name}
    record |= {"rank": {}, "pit": {}, "truth": {}}
    for name, values in derived(found, together, compared_sites(found.problem), rng).items():
        rank = _rank(values, rng)
        record["rank"][name], record["truth"][name] = rank, np.asarray(values[-1], dtype=float)
        record["pit"][name] = (rank + rng.random(rank.shape)) / (len(rows) + 1)
    return record


def _rank(values: Array, rng: np.random.Generator) -> Array:
    """Rank, 0 to L, of the last of L + 1 values; among equal ones, any place with equal probability."""
    below = (values[:-1] < values[-1]).sum(0)
    equal = (values[:-1] == values[-1]).sum(0)
    return np.asarray(below + rng.integers(0, equal + 1))


def _thinned(
    found: Fit, draws: Mapping[str, Array], num: int, rng: np.random.Generator
) -> tuple[Array, float]:
    """Rows of at most ``num`` draws that are near independent, evenly spaced, and the effective size.

    Chains: no more rows than the least effective size of an entry, so that they lie about one autocorrelation
    time apart or more. Resampled draws: no more than the weights' effective size, duplicates and all.
    """
    posterior: Any = found.draws
    size, kind = len(next(iter(draws.values()))), posterior.attrs.get("draws", "chain")
    ess = float(size)
    if kind == "chain":
        ess = _least_ess(posterior[list(draws)])
    elif kind == "resampled":
        ess = effective_size(found, size)
    count = int(min(num, size, max(ess, FEWEST_DRAWS)))
    rows = np.floor((np.arange(count) + rng.random()) * size / count).astype(int)
    return (rng.permutation(size)[:count] if kind == "resampled" else rows), ess


def _least_ess(posterior: Any) -> float:
    """Least bulk effective size over the entries that vary (evenly chosen, where there are many)."""
    from arviz_stats.base import array_stats

    parts = [v.transpose("chain", "draw", ...).values for v in posterior.data_vars.values()]
    x = np.concatenate([p.reshape(*p.shape[:2], -1) for p in parts], axis=2)
    sd, mean = x.std((0, 1)), np.abs(x.mean((0, 1)))
    vary = np.flatnonzero(sd > 1e-12 * mean)
    if x.shape[1] < 4 or not vary.size:
        return float(x.shape[0] * x.shape[1])
    chosen = vary[np.linspace(0, vary.size - 1, min(vary.size, _MOST_FOR_ESS)).astype(int)]
    ess = np.asarray(array_stats.ess(x[:, :, chosen], chain_axis=0, draw_axis=1, method="bulk"))
    return float(np.nanmin(ess)) if np.isfinite(ess).any() else 1.0
