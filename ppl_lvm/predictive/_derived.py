"""Sites that follow from the others, put into a fit: deterministic ones, and local latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.backends._few_rows import without_rows
from ppl_lvm.predictive._inputs import params_of
from ppl_lvm.predictive._latents import latents
from ppl_lvm.result import Fit, chain_dataset, flat_draws

if TYPE_CHECKING:
    import xarray as xr


def with_deterministic(fit: Fit) -> Fit:
    """The fit with the program's deterministic sites computed at every draw (of the proposal too)."""
    problem = fit.problem
    names = [s.name for s in problem.sites.values() if s.kind == "deterministic"] if problem else []
    if problem is not None and without_rows(problem) is not problem:  # a value per datum and draw is too much
        names = [n for n in names if not problem.sites[n].local]
    if problem is None or not names or (fit.draws is not None and set(names) <= set(fit.draws.data_vars)):
        return fit
    if fit.draws is None:
        one = {k: np.asarray(v)[None] for k, v in fit.params.items()}
        own: Any = getattr(fit.model.exact, "deterministic", None)
        if set(names) <= set(one):
            return fit
        found = own(one, problem.arguments) if own is not None else _deterministic_at(fit, one)
        return dataclasses.replace(
            fit, params={**fit.params, **{k: np.asarray(v)[0] for k, v in found.items()}}
        )
    groups = dict(fit.groups)
    if "proposal" in groups:
        groups["proposal"] = _add_deterministic(fit, groups["proposal"], names)
    return dataclasses.replace(fit, draws=_add_deterministic(fit, fit.draws, names), groups=groups)


def _deterministic_at(fit: Fit, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Deterministic sites (1, ...) at a point of the program's sites."""
    from ppl_lvm.backends._pyro_predict import forward
    from ppl_lvm.backends.session import torch_session

    problem: Any = fit.problem
    sites = {k: v for k, v in values.items() if k in problem.sites and problem.sites[k].kind == "latent"}
    with torch_session(0, problem.dtype):
        found, _ = forward(problem, sites, 1, params=params_of(fit))
    return {k: v for k, v in found.items() if problem.sites[k].kind == "deterministic"}


def _add_deterministic(fit: Fit, draws: xr.Dataset, names: list[str]) -> xr.Dataset:
    from ppl_lvm.backends._pyro_predict import deterministic
    from ppl_lvm.backends.session import torch_session

    problem: Any = without_rows(fit.problem)  # type: ignore[arg-type]  # with draws there is one
    chains, size = draws.sizes["chain"], draws.sizes["draw"]
    own, values = getattr(fit.model.exact, "deterministic", None), flat_draws(draws)
    if own is not None:
        found = own(values, problem.arguments)
    else:
        with torch_session(0, problem.dtype):
            found = deterministic(problem, values, params_of(fit))
    added = {k: np.asarray(found[k]).reshape(chains, size, *np.shape(found[k])[1:]) for k in names}
    return draws.merge(chain_dataset(problem, added, kind="derived"))


def with_latents(fit: Fit) -> Fit:
    """Zoo models: local latents left out of the posterior, or (``keep_latents``) a draw of each put in."""
    if fit.draws is None or fit.problem is None or fit.model.to_settings() is None:
        return fit
    if not fit.model.keep_latents:
        local = [s.name for s in fit.problem.latents() if s.local and s.name in fit.draws]
        again = hasattr(fit.model.exact, "latents")  # they can be drawn again given the rest
        return dataclasses.replace(fit, draws=fit.draws.drop_vars(local)) if again else fit
    chains, size = fit.draws.sizes["chain"], fit.draws.sizes["draw"]
    drawn = latents(fit, None, num_draws=chains * size, seed=int(fit.meta.get("seed", 0)))
    added = {
        k: (("chain", "draw", *v.dims[2:]), v.values.reshape(chains, size, *v.shape[2:]))
        for k, v in drawn.data_vars.items()
        if k not in fit.draws
    }
    return dataclasses.replace(fit, draws=fit.draws.assign(added))
