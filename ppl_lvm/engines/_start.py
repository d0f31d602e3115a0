"""Where an engine starts: values by site, from the user, a fit, or the model's own start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._rows import take
from ppl_lvm.streams import in_memory

Start = dict[str, np.ndarray]
ENOUGH = 20_000  # rows that a model's own start looks at


def starting_values(problem: Problem, run: Run, num: int = 1) -> list[Start]:
    """``num`` sets of starting values; sites that nothing is known of are left out.

    ``run.init`` is a mapping by site (one value for all, or one per start as a leading dimension),
    a fit (a point, or distinct draws of its posterior), or None: the model's own exact start (for
    mixtures, k-means from different seeds).
    """
    own = _from_model(problem, run, num)
    given = _given(problem, run, num)
    return [{**a, **b} for a, b in zip(own, given, strict=True)]


def _from_model(problem: Problem, run: Run, num: int) -> list[Start]:
    exact = problem.model.exact
    make = getattr(exact, "initial_values", None)
    if make is None or _covers_all(problem, run.init):
        return [{} for _ in range(num)]
    return [make(_some_rows(problem, run), run.rng(1000 + i)) for i in range(num)]


def _some_rows(problem: Problem, run: Run) -> Mapping[str, Any]:
    """The arguments at rows enough for a start: clustering millions would take longer than the fit."""
    n = problem.num_data
    if n is None or n <= ENOUGH or not problem.batched or "stream" in problem.notes:
        return in_memory(problem.arguments, problem.dtype)  # of a stream, the first batch
    rows = np.sort(run.rng(998).choice(n, ENOUGH, replace=False))
    return in_memory(take(problem.arguments, problem.batched, rows), problem.dtype)


def _covers_all(problem: Problem, init: Any) -> bool:
    names = {s.name for s in problem.latents(discrete=False)}
    return isinstance(init, Mapping) and names <= set(init)


def _given(problem: Problem, run: Run, num: int) -> list[Start]:
    init = run.init
    if init is None:
        return [{} for _ in range(num)]
    if isinstance(init, Mapping):
        return _from_mapping(problem, init, num)
    return _from_fit(problem, init, run, num)


def _from_mapping(problem: Problem, init: Mapping[str, Any], num: int) -> list[Start]:
    sites = {s.name: s for s in problem.latents(discrete=False)}
    unknown = sorted(set(init) - set(sites) - set(problem.params))
    if unknown:
        raise ValueError(f"init: unknown sites {unknown}; the latent sites are {sorted(sites)}.")
    starts: list[Start] = [{} for _ in range(num)]
    for name in set(init) & set(sites):
        value, shape = _number(name, init[name]), sites[name].shape
        if value.shape not in (shape, (num, *shape)):
            raise ValueError(
                f"init: site {name!r} has shape {shape} (or {(num, *shape)} for one value per chain), "
                f"got {value.shape}."
            )
        if not np.isfinite(value).all():
            raise ValueError(f"init: site {name!r} has NaN or infinite values.")
        if not _in_support(sites[name].constraint, value):
            raise ValueError(f"init: site {name!r} has values outside its support ({sites[name].support}).")
        for i, start in enumerate(starts):
            start[name] = value if value.shape == shape else value[i]
    return starts


def _number(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"init: site {name!r}: expected numbers, got {value!r}.") from None


def _in_support(constraint: Any, value: np.ndarray) -> bool:
    import torch

    return constraint is None or bool(constraint.check(torch.from_numpy(np.array(value))).all())


def _from_fit(problem: Problem, fit: Any, run: Run, num: int) -> list[Start]:
    if not hasattr(fit, "draws"):
        raise TypeError(f"init: expected values by site name or a Fit, got {type(fit).__name__}.")
    sites = problem.latents(discrete=False)
    if fit.draws is None:
        point = {s.name: np.asarray(fit.params[s.name]) for s in sites if s.name in fit.params}
        return _from_mapping(problem, point, num)
    flat = draws_of(problem, fit)
    if not flat:
        return [{} for _ in range(num)]
    distinct = _distinct(flat)  # resampled draws repeat
    size = len(distinct)
    rows = distinct[run.rng(999).choice(size, num, replace=size < num)]
    return [_from_mapping(problem, {k: v[i] for k, v in flat.items()}, 1)[0] for i in rows]


def draws_of(problem: Problem, init: Any) -> Start:
    """Draws (m, *shape) of the latent sites that a fit has draws of; none of a point or plain values."""
    draws = getattr(init, "draws", None)
    if draws is None:
        return {}
    found = {s.name: draws[s.name].values for s in problem.latents(discrete=False) if s.name in draws}
    return {k: v.reshape(-1, *v.shape[2:]) for k, v in found.items() if v.size}


def _distinct(flat: Start) -> np.ndarray:
    """Rows that differ from all before them, in order."""
    rows = np.concatenate([v.reshape(len(v), -1) for v in flat.values()], 1)
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


_MOST_DRAWS = 2000


def thinned(draws: Start) -> Start:
    """At most ``_MOST_DRAWS`` of the draws, evenly spaced: enough for a mass matrix."""
    size = len(next(iter(draws.values()), ()))
    rows = np.unique(np.linspace(0, size - 1, min(size, _MOST_DRAWS)).astype(int))
    return {k: v[rows] for k, v in draws.items()}


def shrunk_correlation(standard: np.ndarray) -> np.ndarray:
    """Correlations (d, d) of standardised draws (m, d), shrunk towards the identity by as much as their noise
    asks for (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    return np.asarray(ledoit_wolf(standard)[0])
