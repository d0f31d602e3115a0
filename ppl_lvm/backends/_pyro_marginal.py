"""Per-datum log likelihoods with all local latents integrated out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.distributions.transforms import biject_to

from ppl_lvm.backends._pyro_density import broadcasts, gather, log_density, particle_plate, spread
from ppl_lvm.backends._pyro_trace import HoldParams, to_torch
from ppl_lvm.core import Problem, Site

MAX_DRAWS = 200
PROPOSALS = 200
_WIDER = 1.5
Sampler = Callable[..., dict[str, torch.Tensor]]
_WITHOUT_GLOBALS = 50  # independent estimates where there are no draws of globals to average over


def per_datum_terms(
    problem: Problem, values: Mapping[str, np.ndarray], params: Mapping[str, Any]
) -> tuple[np.ndarray, str]:
    """log p(x_i | globals) for each draw, (s, n), and "exact" or "estimate".

    Discrete local latents are summed out. Continuous ones are integrated by importance sampling with
    a defensive mixture: half from their prior given the globals, half from a normal (in unconstrained
    space) fitted to their posterior draws and widened by half; then at most ``MAX_DRAWS`` draws of the
    globals are used.

    Raises
    ------
    ValueError
        If a discrete site outside the data plate ties the rows together.
    """
    local = [s for s in problem.latents(discrete=False) if s.local]
    if not local:
        _, _, per_datum = log_density(problem, values, params)
        return _split_or_raise(problem, per_datum), "exact"
    shared = {k: v for k, v in values.items() if k in problem.sites and not problem.sites[k].local}
    own = {s.name: values[s.name] for s in local if s.name in values}
    count = len(next(iter(values.values()))) if values else _WITHOUT_GLOBALS
    rows = np.unique(np.linspace(0, count - 1, min(count, MAX_DRAWS)).astype(int))
    normal = {s.name: _fit_normal(problem, s, own[s.name]) for s in local} if len(own) == len(local) else None
    sampler = _prior_sampler(problem, {k: v[rows[0]] for k, v in shared.items()}, local, params)
    terms = [
        _integrate(problem, {k: v[i] for k, v in shared.items()}, local, normal, params, sampler)
        for i in rows
    ]
    return np.stack(terms), "estimate"


def _split_or_raise(problem: Problem, per_datum: np.ndarray | None) -> np.ndarray:
    if per_datum is None:
        raise ValueError(
            f"{problem.model.describe()}: a discrete site outside the data plate ties rows together, so "
            "there is no density per datum."
        )
    return per_datum


def _fit_normal(problem: Problem, site: Site, draws: np.ndarray) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """(transform, mean, sd) of a local site's draws in unconstrained space."""
    with torch.no_grad(), HoldParams(problem.model.fixed_params):
        nodes: Any = poutine.trace(problem.model.pyro.model).get_trace(**to_torch(problem.arguments)).nodes
    transform = biject_to(nodes[site.name]["fn"].support)
    free = transform.inv(to_torch(np.asarray(draws)))
    return transform, free.mean(0), _WIDER * free.std(0) + 1e-8


def _integrate(
    problem: Problem,
    shared: Mapping[str, np.ndarray],
    local: list[Site],
    normal: Any,
    params: Mapping[str, Any],
    from_prior: Sampler,
) -> np.ndarray:
    """log of the mean weight over proposals, (n,), at one draw of the globals."""
    half = PROPOSALS // 2 if normal is not None else PROPOSALS
    parts = [from_prior(problem, shared, local, half, params)]
    if normal is not None:
        parts.append({name: t(m + s * torch.randn((half, *m.shape))) for name, (t, m, s) in normal.items()})
    drawn = {s.name: torch.cat([p[s.name] for p in parts]).numpy() for s in local}
    total = len(next(iter(drawn.values())))
    full = {k: np.broadcast_to(v, (total, *np.shape(v))) for k, v in shared.items()} | drawn
    _, _, joint = log_density(problem, full, params)
    _, _, prior = log_density(problem, full, params, prior=True)
    joint, log_q = _split_or_raise(problem, joint), _split_or_raise(problem, prior)
    if normal is not None:
        fitted = sum(_normal_log_prob(problem, s, normal[s.name], drawn[s.name]) for s in local)
        log_q = np.logaddexp(log_q, fitted) - np.log(2)
    weights = joint - log_q
    top = weights.max(0)
    return np.asarray(top + np.log(np.exp(weights - top).mean(0)))


def _prior_sampler(
    problem: Problem, shared: Mapping[str, np.ndarray], local: list[Site], params: Mapping[str, Any]
) -> Sampler:
    """All draws in one run if the program broadcasts, seen by two draws and their densities."""
    try:
        drawn = _together(problem, shared, local, 2, params)
        values = {
            k: to_torch(np.broadcast_to(v, (2, *np.shape(v))).copy()) for k, v in shared.items()
        } | drawn
        fits = broadcasts(problem, to_torch(problem.arguments), values, params, prior=True)
    except Exception:  # a program that does not broadcast over a plate: any error can come out of it
        fits = False
    return _together if fits else _one_by_one


def _together(
    problem: Problem, shared: Mapping[str, np.ndarray], local: list[Site], num: int, params: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Draws of the local sites from their prior, (num, ...)."""
    nesting = problem.max_plate_nesting
    several = {k: to_torch(np.asarray(v)).expand(num, *np.shape(v)) for k, v in shared.items()}
    placed = {k: spread(v, problem.sites[k], nesting) for k, v in several.items()}
    fixed = poutine.condition(problem.model.pyro.model, data=placed)
    held = HoldParams({**problem.model.fixed_params, **params})
    with torch.no_grad(), held, poutine.trace() as seen, particle_plate(problem, num):
        fixed(**to_torch(problem.arguments))
    nodes: Any = seen.trace.nodes
    drawn = {s.name: gather(nodes[s.name]["value"], s, nesting) for s in local}
    if any(v.shape != (num, *problem.sites[k].shape) for k, v in drawn.items()):
        raise ValueError("local sites do not broadcast over draws.")
    return drawn


def _one_by_one(
    problem: Problem, shared: Mapping[str, np.ndarray], local: list[Site], num: int, params: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    args = to_torch(problem.arguments)
    fixed = poutine.condition(
        problem.model.pyro.model, data={k: to_torch(np.asarray(v)) for k, v in shared.items()}
    )
    rows = []
    with torch.no_grad(), HoldParams({**problem.model.fixed_params, **params}):
        for _ in range(num):
            nodes: Any = poutine.trace(fixed).get_trace(**args).nodes
            rows.append({s.name: nodes[s.name]["value"] for s in local})
    return {s.name: torch.stack([r[s.name] for r in rows]) for s in local}


def _normal_log_prob(problem: Problem, site: Site, normal: Any, values: np.ndarray) -> np.ndarray:
    """Density of the fitted normal at constrained values, per particle and datum (s, n)."""
    transform, mean, sd = normal
    value = to_torch(values)
    free = transform.inv(value)
    term = torch.distributions.Normal(mean, sd).log_prob(free)
    jacobian = transform.log_abs_det_jacobian(free, value)
    batch = 1 + len(site.batch_shape)
    term = term.reshape((*term.shape[:batch], -1)).sum(-1)
    jacobian = jacobian.reshape((*jacobian.shape[:batch], -1)).sum(-1)
    axis = next(p.dim for p in site.plates if p.name == problem.data_plate)
    per_site = (term - jacobian).movedim(axis, -1)
    return per_site.reshape(len(value), -1, per_site.shape[-1]).sum(1).numpy()
