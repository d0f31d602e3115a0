"""Draws of local latents given the data, in the program or in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.families import family_of, is_amortized
from ppl_lvm.predictive._inputs import check_draws, draws_for, generator, params_of, problem_at
from ppl_lvm.result import Fit, chain_dataset

if TYPE_CHECKING:
    import xarray as xr


def latents(fit: Fit, data: Any, *, num_draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Draws of the local latents given the data and draws of the globals: never from the prior.

    Discrete sites are drawn from their conditional posterior with the continuous ones held at each
    draw (a sum-product pass backwards, as in Pyro's ``infer_discrete``). Continuous ones that the fit has no
    draws of are drawn by its amortised guide, where it has one.
    """
    from ppl_lvm import amortised
    from ppl_lvm.backends._pyro_predict import conditional_discrete
    from ppl_lvm.backends.session import torch_session

    check_draws(num_draws)
    if amortised.is_amortised(fit):
        return amortised.latents(fit, data, num_draws=num_draws, seed=seed)
    problem = problem_at(fit, data)
    values = draws_for(fit, problem, num_draws, seed, same_rows=data is None)
    own: Any = getattr(problem.model.exact, "latents", None)
    if own is not None:
        drawn = own(values, problem.arguments, generator(seed, 10))
        return chain_dataset(problem, {k: np.asarray(v)[None] for k, v in drawn.items()}, kind="independent")
    known = {k: v for k, v in values.items() if k in problem.sites and problem.sites[k].local}
    names = [s.name for s in problem.latents(discrete=True)]
    missing = [s.name for s in problem.latents(discrete=False) if s.name not in values]
    guide = getattr(fit.engine, "guide", None)
    if missing and is_amortized(guide):
        from ppl_lvm.backends._pyro_datum_guides import draws_at

        with torch_session(seed, problem.dtype):
            values = draws_at(problem, family_of(guide), params_of(fit), num_draws)
        known = {k: v for k, v in values.items() if problem.sites[k].local}
    elif missing:
        raise ValueError(
            f"latents: sites {missing} belong to the rows of the fit; at new data fit them again, or fit "
            "with guide='amortized'."
        )
    if not names and not known:
        raise ValueError(f"{fit.model.describe()} has no local latents.")
    out = dict(known)
    if names:
        with torch_session(seed, problem.dtype):
            out |= conditional_discrete(problem, values, params_of(fit), names)
    return chain_dataset(problem, {k: v[None] for k, v in out.items()}, kind="independent")
