"""Diagnostics of the chains of each datum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.diagnostics import chain_moments

if TYPE_CHECKING:
    import xarray as xr


def per_datum(problem: Problem, draws: xr.Dataset, stats: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Figures of each datum (n,): R-hat and effective sizes, worst over its latents, and its chains' own.

    ``draws`` (chain, draw, n, ...), ``stats`` (chain, draw, n).
    """
    import xarray as xr

    figures = chain_moments(draws)
    plate = problem.data_plate or "data"

    def worst(name: str, pick: Callable[..., Any]) -> np.ndarray:
        each = [pick(f[name].reshape(len(f[name]), -1), axis=1) for f in figures.values()]
        return np.asarray(pick(np.stack(each, 1), axis=1))

    found = {
        "r_hat": worst("r_hat", np.max),
        "ess_bulk": worst("ess_bulk", np.min),
        "ess_tail": worst("ess_tail", np.min),
        "divergences": stats["diverging"].sum((0, 1)),
        "acceptance_rate": stats["acceptance_rate"].mean((0, 1)),
        "step_size": stats["step_size"].mean((0, 1)),
        "n_steps": stats["n_steps"].mean((0, 1)),
    }
    labels = problem.coords.get(plate)
    size = len(found["r_hat"])
    index = labels if labels is not None and len(labels) == size else np.arange(size)
    return xr.Dataset({k: (plate, v) for k, v in found.items()}, {plate: index})


__all__ = ["per_datum"]
