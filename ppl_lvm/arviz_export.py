"""Fits as ArviZ DataTrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.core import Problem
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import xarray as xr


def to_arviz(fit: Fit, *, log_likelihood: bool = True, posterior_predictive: bool = False) -> xr.DataTree:
    """A DataTree with posterior, sample_stats, log_likelihood, observed_data and constant_data.

    ``log_likelihood`` has one variable, named after the observed site, dims (chain, draw, data plate):
    per datum, marginal over all local latents. Points have ``point_estimate`` instead of a posterior
    and no ``log_likelihood``.
    """
    import xarray as xr

    groups: dict[str, Any] = {}
    if fit.is_point:
        groups["point_estimate"] = _point(fit)
    else:
        groups["posterior"] = fit.posterior
    if fit.sample_stats is not None:
        groups["sample_stats"] = fit.sample_stats
    for name, dataset in fit.groups.items():
        groups[name] = dataset
    if fit.problem is not None:
        if log_likelihood and not fit.is_point and fit.problem.num_data is not None:
            groups["log_likelihood"] = log_likelihood_group(fit)
        if posterior_predictive:
            groups["posterior_predictive"] = fit.sample_predictive()
        groups["observed_data"], groups["constant_data"] = data_groups(fit.problem)
    tree = xr.DataTree.from_dict({k: v for k, v in groups.items() if v is not None})
    tree.attrs.update(
        {"inference_library": "ppl_lvm", "model": fit.model.describe(), "engine": str(fit.engine)}
    )
    return tree


def log_likelihood_group(fit: Fit) -> xr.Dataset | None:
    """Pointwise marginal log likelihood at every draw; None where rows have no density of their own.

    Where local continuous latents had to be integrated by importance sampling, only part of the draws is
    used; the Dataset's attrs then say so.
    """
    import xarray as xr

    from ppl_lvm.predictive import pointwise_terms

    problem = fit.problem
    if problem is None:
        return None
    try:
        terms, how = pointwise_terms(fit, problem)
    except ValueError:
        return None  # no density per datum: the model says why when asked by log_predictive
    chains, size = fit.posterior.sizes["chain"], fit.posterior.sizes["draw"]
    shape = (chains, size) if len(terms) == chains * size else (1, len(terms))
    name = next(
        s.name
        for s in problem.sites.values()
        if s.kind == "observed" and s.name not in problem.model.held_sites
    )
    plate = problem.data_plate or "row"
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), plate: _rows(problem)}
    data = {name: (("chain", "draw", plate), terms.reshape(*shape, -1))}
    return xr.Dataset(data, coords, attrs={"marginal_over": "all local latents", "computed": how})


def _rows(problem: Problem) -> Any:
    labels = problem.coords.get(problem.data_plate or "")
    return labels if labels is not None else np.arange(problem.num_data or 0)


def _point(fit: Fit) -> xr.Dataset:
    import xarray as xr

    dims = fit.problem.dims if fit.problem is not None else fit.model.dims
    out = {}
    for name, value in fit.params.items():
        value = np.asarray(value)
        known = dims.get(name, ())
        names = known if len(known) == value.ndim else tuple(f"{name}_dim_{i}" for i in range(value.ndim))
        out[name] = (names, value)
    return xr.Dataset(out)


def data_groups(problem: Problem) -> tuple[xr.Dataset, xr.Dataset]:
    """(observed_data, constant_data): values at observed sites, and the program's array arguments."""
    import xarray as xr

    from ppl_lvm.predictive import observed_values

    seen = {}
    for name, value in observed_values(problem).items():
        dims = problem.dims.get(name, tuple(f"{name}_dim_{i}" for i in range(value.ndim)))
        seen[name] = xr.DataArray(value, dims=dims, coords=_coords(problem, dims, value.shape))
    constant = {}
    for name, value in problem.arguments.items():
        if isinstance(value, np.ndarray):
            dims = _argument_dims(problem, name, value)
            constant[name] = xr.DataArray(value, dims=dims, coords=_coords(problem, dims, value.shape))
    return xr.Dataset(seen), xr.Dataset(constant)


def _argument_dims(problem: Problem, name: str, value: np.ndarray) -> tuple[str, ...]:
    observed = next(
        (s for s in problem.sites.values() if s.kind == "observed" and s.shape == value.shape), None
    )
    if observed is not None:
        return problem.dims[observed.name]
    first = (problem.data_plate,) if name in problem.batched and problem.data_plate else ()
    return (*first, *(f"{name}_dim_{i}" for i in range(len(first), value.ndim)))


def _coords(problem: Problem, dims: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    found = {}
    for dim, size in zip(dims, shape, strict=True):
        labels = problem.coords.get(dim)
        if labels is not None and len(labels) == size:
            found[dim] = labels
    return found


__all__ = ["data_groups", "log_likelihood_group", "to_arviz"]
