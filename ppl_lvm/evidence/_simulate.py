"""Data simulated from a model's prior, in the shapes of given data, with the values that made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.fitting import prepare


def simulated(
    problem: Problem, params: Mapping[str, np.ndarray], seed: int
) -> tuple[Problem, dict[str, np.ndarray]]:
    """The model bound to data of its own, and the values by continuous latent site that they came from.

    The values are an exact draw of the posterior given these data. Entries that miss in the given data miss
    in the simulated ones.

    Raises
    ------
    ValueError
        If a prior is improper, or the observed sites are not arguments of the program as they stand.
    """
    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    model: Any = problem.model
    with torch_session(seed, problem.dtype):
        latent, drawn = forward(problem, None, 1, params)
    by_rows = hasattr(model.exact, "replicate")  # the zoo's models, which take one array
    if by_rows:
        drawn = model.exact.replicate(latent, problem.arguments, np.random.default_rng([seed, 52]))
    if not drawn:
        raise ValueError(
            f"model: {model.describe()} observes its data in a factor, which cannot be simulated; observe "
            "them in a sample statement."
        )
    found = {k: np.asarray(v)[0] for k, v in drawn.items()}
    data = _zoo_data(problem, found) if by_rows else _plain_data(problem, found)
    names = [s.name for s in problem.latents(discrete=False)]
    lacks = [n for n in names if n not in latent]
    if lacks:
        raise ValueError(f"model: running {model.describe()} gave no value of {lacks}; the prior lacks them.")
    return prepare(model, data, dtype=problem.dtype), {n: latent[n][0] for n in names}


def _zoo_data(problem: Problem, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Models of the zoo take one array of rows or sequences; what the data miss stays missing."""
    (value,) = found.values()
    own = (problem.model.observations(problem.data) or {}).get(next(iter(found)))
    if own is None or own.shape != value.shape:
        return value
    return np.where(np.isnan(np.asarray(own, dtype=float)), np.nan, value)


def _plain_data(problem: Problem, found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A function's arguments, with those that are observed replaced."""
    from ppl_lvm.backends._pyro_predict import observed
    from ppl_lvm.backends.session import torch_session

    with torch_session(0, problem.dtype):
        own = observed(problem)
    data = dict(problem.data.values)
    for site, value in found.items():
        name = _argument(problem, site, own[site])
        before = np.asarray(data[name])
        data[name] = value.astype(before.dtype) if before.dtype.kind in "iub" else value
    return data


def _argument(problem: Problem, site: str, value: np.ndarray) -> str:
    """The argument that a site observes: the one of equal shape and values."""
    arrays = {k: v for k, v in problem.arguments.items() if isinstance(v, np.ndarray)}
    equal = [k for k, v in arrays.items() if v.shape == value.shape and np.array_equal(v, value)]
    if len(equal) != 1:
        what = f"{equal} are equal" if equal else "none has its values"
        raise ValueError(
            f"data: site {site!r} should observe one argument as it stands, and of {sorted(arrays)} {what}; "
            "transform data before they are passed to the model."
        )
    return equal[0]


__all__ = ["simulated"]
