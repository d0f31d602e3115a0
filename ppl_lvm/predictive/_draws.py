"""Draws of the prior and of replicated data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.fitting import prepare
from ppl_lvm.predictive._inputs import check_draws, draws_for, generator, params_of, problem_at
from ppl_lvm.result import Fit, chain_dataset

if TYPE_CHECKING:
    import xarray as xr


def sample_prior(model: Any, data: Any, *, num_draws: int = 500, seed: int = 0) -> xr.DataTree:
    """Draws of the prior and of the data that it predicts, in the shapes of ``data``.

    Returns a DataTree with groups ``prior`` and ``prior_predictive``, dims (chain, draw, ...).

    Raises
    ------
    ValueError
        If a prior is improper, so that it cannot be drawn from.
    """
    import xarray as xr

    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    check_draws(num_draws)
    problem = prepare(model, data)
    with torch_session(seed, problem.dtype):
        latent, observed = forward(problem, None, num_draws)
    if hasattr(problem.model.exact, "replicate"):
        observed = _replicated(problem, latent, seed)
    groups = {
        "prior": chain_dataset(problem, {k: v[None] for k, v in latent.items()}, kind="independent"),
        "prior_predictive": chain_dataset(
            problem, {k: v[None] for k, v in observed.items()}, kind="independent"
        ),
    }
    return xr.DataTree.from_dict(groups)


def sample_predictive(fit: Fit, data: Any = None, *, num_draws: int = 500, seed: int = 0) -> xr.Dataset:
    """Replicated observations, dims (chain, draw, ...), one for each of ``num_draws`` draws.

    Sites in the posterior take its draws; local sites that are not in it, or that belong to other
    rows when ``data`` are new, are drawn anew from the model given the globals. A point predicts at its
    parameters.
    """
    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    check_draws(num_draws)
    problem = problem_at(fit, data)
    values = draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    if hasattr(problem.model.exact, "replicate"):
        observed = _replicated(problem, values, seed)
    else:
        with torch_session(seed, problem.dtype):
            _, observed = forward(problem, values, num_draws, params=params_of(fit))
    return chain_dataset(problem, {k: v[None] for k, v in observed.items()}, kind="independent")


def _replicated(problem: Problem, values: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """New data in the shape of the observed by the model's closed form, one set for each draw (s, ...)."""
    exact: Any = problem.model.exact
    return {
        k: np.asarray(v) for k, v in exact.replicate(values, problem.arguments, generator(seed, 7)).items()
    }
