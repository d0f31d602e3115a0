"""What predictions start from: the problem at the rows, draws of the globals, observed values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Problem, as_model
from ppl_lvm.data import is_dataframe
from ppl_lvm.fitting import prepare
from ppl_lvm.result import Fit, flat_draws


def problem_at(fit: Fit, data: Any) -> Problem:
    """The fit's own problem, or the same model at new data."""
    if data is not None:
        data = _in_order(fit, data)
        return prepare(as_model(fit.model), data, dtype=fit.meta.get("dtype"), fitting=False)
    if fit.problem is None:
        raise ValueError("data: this fit was loaded without its data; pass the data to predict at.")
    return fit.problem


def _in_order(fit: Fit, data: Any) -> Any:
    """Columns of frames, by themselves, in a mapping or in a list, in the order of the fit's, by name."""
    columns = fit.meta.get("columns")
    if columns is None:
        return data
    if isinstance(data, Mapping):
        return {k: _in_order(fit, v) for k, v in data.items()}
    if isinstance(data, (list, tuple)) and any(is_dataframe(v) for v in data):
        return [_in_order(fit, v) for v in data]
    if not is_dataframe(data):
        return data
    names = [str(c) for c in data.columns]
    if names == columns:
        return data
    if sorted(names) != sorted(columns):
        raise ValueError(f"data: expected the columns {columns} of the fit, got {names}.")
    return data.iloc[:, [names.index(c) for c in columns]]


def observed_values(problem: Problem) -> dict[str, np.ndarray]:
    """Observed values by site: the model's own word (NaN where missing), else one run of the program."""
    own = problem.model.observations(problem.data)
    if own is not None:
        return own
    from ppl_lvm.backends._pyro_predict import observed
    from ppl_lvm.backends.session import torch_session

    with torch_session(0, problem.dtype):
        return observed(problem)


def global_values(fit: Fit) -> dict[str, np.ndarray]:
    """Values by site, (s, ...); a point is one draw."""
    if fit.is_point:
        return {k: np.asarray(v)[None] for k, v in fit.params.items()}
    return flat_draws(fit.posterior)


def draws_for(fit: Fit, problem: Problem, num: int, seed: int, *, same_rows: bool) -> dict[str, np.ndarray]:
    """``num`` draws by site, spread evenly over the posterior's (in random order where repeated)."""
    values = global_values(fit)
    size = len(next(iter(values.values())))
    rng = np.random.default_rng([seed, 6])
    rows = np.arange(size) if num == size else rng.choice(size, num, replace=num > size)
    keep = {
        k: v[rows]
        for k, v in values.items()
        if k in problem.sites
        and (problem.sites[k].kind == "latent" or k in _derived(problem))
        and not problem.sites[k].discrete
        and (same_rows or not problem.sites[k].local)
    }
    return keep


def _derived(problem: Problem) -> set[str]:
    """Deterministic sites that the model's closed forms take in place of what they are computed from."""
    if not hasattr(problem.model.exact, "deterministic"):
        return set()
    return {s.name for s in problem.sites.values() if s.kind == "deterministic"}


def params_of(fit: Fit) -> dict[str, np.ndarray]:
    return {**fit.params, **fit.model.fixed_params}  # a point's latent sites are no ``param`` statements


def generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


def check_draws(num: Any) -> None:
    if isinstance(num, bool) or not isinstance(num, (int, np.integer)) or num < 1:
        raise ValueError(f"num_draws: expected a positive integer, got {num!r}.")
