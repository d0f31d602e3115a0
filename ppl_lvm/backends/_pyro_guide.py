"""Guides of the Pyro backend: building them, drawing from them, evaluating their density."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from pyro import poutine
from pyro.distributions.transforms import biject_to
from pyro.infer import autoguide
from pyro.infer.autoguide.initialization import init_to_value

from ppl_lvm.backends._pyro_datum_guides import DatumGuide
from ppl_lvm.backends._pyro_density import gather, particle_plate, spread
from ppl_lvm.backends._pyro_flow import AutoFlow
from ppl_lvm.backends._pyro_trace import HoldParams, ImproperOrigin, to_torch
from ppl_lvm.core import Problem
from ppl_lvm.families import Flow, LowRank, by_datum, family_of

FAMILIES: dict[str, Callable[..., Any]] = {
    "mean_field": autoguide.AutoNormal,
    "full_rank": autoguide.AutoMultivariateNormal,
    "laplace": autoguide.AutoMultivariateNormal,  # found otherwise
    "delta": autoguide.AutoDelta,
    "mode": autoguide.AutoLaplaceApproximation,  # a point in unconstrained space, Jacobians included
}


def build_guide(problem: Problem, spec: Any, init: Mapping[str, np.ndarray]) -> Callable[..., Any]:
    """The guide that a setting asks for, started at ``init`` (values by site name).

    ``spec`` is None (the model's own guide, else mean field), a family by name or settings, or a callable.
    """
    own = problem.model.pyro.guide if spec is None else spec
    if isinstance(own, torch.nn.Module):
        return _copied(own).to(getattr(torch, problem.dtype))  # training must not touch the user's
    if callable(own):
        return _with_init(own, init)
    if not problem.latents(discrete=False):
        return _empty_guide
    hidden = [s.name for s in problem.latents(discrete=True)]
    start = {k: to_torch(np.asarray(v, dtype=problem.dtype)) for k, v in init.items()}
    if by_datum(own):
        return DatumGuide(problem, family_of(own), start)
    model = poutine.block(ImproperOrigin()(problem.model.pyro.model), hide=hidden)
    return _autoguide(family_of(own), model, init_to_value(values=start), problem)


def _copied(guide: torch.nn.Module) -> torch.nn.Module:
    """A copy; copying takes an autoguide's model from both, which one that was not run yet needs."""
    if not isinstance(guide, autoguide.AutoGuide):
        return copy.deepcopy(guide)
    model = guide.__dict__["_model"]
    own = copy.deepcopy(guide)
    for each in (guide, own):
        each.__dict__["_model"] = model
    return own


def _autoguide(family: Any, model: Any, begin: Callable[..., Any], problem: Problem) -> Any:
    if isinstance(family, Flow):
        return AutoFlow(model, begin, family)
    if isinstance(family, LowRank):
        rank = None if family.rank is None else family.rank_for(_unconstrained_size(problem))
        return autoguide.AutoLowRankMultivariateNormal(model, init_loc_fn=begin, rank=rank)
    return FAMILIES[family](model, init_loc_fn=begin)


def _unconstrained_size(problem: Problem) -> int:
    nodes: Any = (
        poutine.trace(ImproperOrigin()(problem.model.pyro.model))
        .get_trace(**to_torch(problem.arguments))
        .nodes
    )
    names = [s.name for s in problem.latents(discrete=False)]
    return sum(biject_to(nodes[n]["fn"].support).inv(nodes[n]["value"]).numel() for n in names)


def _empty_guide(**kwargs: Any) -> None:
    """The guide of a model whose continuous unknowns are all params."""


def load_params(problem: Problem, guide: Any, params: Mapping[str, Any]) -> None:
    """Set a module guide's parameters to constrained values by full name; it must have run once.

    A plain function's params are held by name instead: a module reads its own ``nn.Parameter``s and
    never asks the parameter store for them.
    """
    if not isinstance(guide, torch.nn.Module):
        return
    prefix = f"{guide._pyro_name}." if getattr(guide, "_pyro_name", "") else ""
    for full, value in params.items():
        if full in problem.params or not full.startswith(prefix):
            continue  # the model's own, held by name
        path = full.removeprefix(prefix).replace("$$$", ".").split(".")
        owner: Any = guide
        for part in path[:-1]:
            owner = getattr(owner, part)
        tensor = torch.as_tensor(np.array(value))  # a copy: what comes from files cannot be written to
        if path[-1] in getattr(owner, "_pyro_params", {}):
            setattr(owner, path[-1], tensor)
        else:
            getattr(owner, path[-1]).data.copy_(tensor)


def _with_init(guide: Callable[..., Any], init: Mapping[str, np.ndarray]) -> Callable[..., Any]:
    try:
        wants = "init" in inspect.signature(guide).parameters
    except (TypeError, ValueError):
        wants = False
    if not wants or not init:
        return guide
    start = {k: to_torch(np.asarray(v)) for k, v in init.items()}

    def started(**kwargs: Any) -> Any:
        return guide(**kwargs, init=start)

    return started


def draw_trace(
    problem: Problem, guide: Callable[..., Any], args: Mapping[str, Any], num_particles: int
) -> Any:
    """One trace of the guide under the particle plate, log probabilities computed."""
    plate = particle_plate(problem, num_particles)

    def program(**kwargs: Any) -> Any:
        with plate:
            return guide(**kwargs)

    trace = poutine.trace(program).get_trace(**args)
    trace.compute_log_prob()
    return trace


def log_q_of(trace: Any, problem: Problem, num_particles: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Guide density per particle: (outside the data plate (s,), inside it (s, n) or None).

    ``num_particles=0`` means a trace without the particle plate: (), and (n,).
    """
    head = (num_particles,) if num_particles else ()
    rest: torch.Tensor = torch.zeros(head)
    local: torch.Tensor | None = None
    for node in trace.nodes.values():
        if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample":
            continue
        term = node["log_prob"]
        frames = {f.name: f for f in node["cond_indep_stack"]}
        if num_particles:
            lowest = (num_particles,) + (1,) * problem.max_plate_nesting
            term = term.expand(torch.broadcast_shapes(term.shape, lowest))
        if problem.data_plate in frames:
            size = frames[problem.data_plate].size
            ours = term.movedim(frames[problem.data_plate].dim, -1)
            flat = ours.reshape((*head, -1, size)).sum(-2)
            local = flat if local is None else local + flat
        else:
            rest = rest + term.reshape((*head, -1)).sum(-1)
    return rest, local


def values_of(trace: Any, problem: Problem) -> dict[str, torch.Tensor]:
    """Values (s, *site.shape) of the model's continuous latent sites in a guide's trace."""
    nesting = problem.max_plate_nesting
    return {s.name: gather(trace.nodes[s.name]["value"], s, nesting) for s in problem.latents(discrete=False)}


def draw(
    problem: Problem, guide: Callable[..., Any], params: Mapping[str, Any], num: int, chunk: int = 500
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Independent draws of the guide: values (num, *site.shape) and their log density (num,)."""
    args = to_torch(problem.arguments)
    with torch.no_grad(), HoldParams(params):
        try:
            sizes = [min(chunk, num - first) for first in range(0, num, chunk)]
            parts = [_draw_chunk(problem, guide, args, size) for size in sizes]
        except Exception:  # a guide that does not broadcast over a plate: any error can come out of it
            parts = [_draw_one(problem, guide, args) for _ in range(num)]
    values = {k: torch.cat([p[0][k] for p in parts]).numpy() for k in parts[0][0]}
    return values, torch.cat([p[1] for p in parts]).numpy()


def _draw_chunk(problem: Problem, guide: Any, args: dict, size: int) -> tuple[dict, torch.Tensor]:
    trace = draw_trace(problem, guide, args, size)
    rest, local = log_q_of(trace, problem, size)
    values = values_of(trace, problem)
    for name, value in values.items():
        if value.shape != (size, *problem.sites[name].shape):
            raise ValueError(f"guide: site {name!r} does not broadcast over draws.")
    return values, rest if local is None else rest + local.sum(-1)


def _draw_one(problem: Problem, guide: Any, args: dict) -> tuple[dict, torch.Tensor]:
    trace = poutine.trace(guide).get_trace(**args)
    values = {s.name: trace.nodes[s.name]["value"][None] for s in problem.latents(discrete=False)}
    return values, trace.log_prob_sum()[None]


def log_q_at(
    problem: Problem,
    guide: Callable[..., Any],
    params: Mapping[str, Any],
    values: Mapping[str, np.ndarray],
    chunk: int = 500,
) -> np.ndarray:
    """The guide's log density (s,) at given constrained values (s, *site.shape)."""
    args = to_torch(problem.arguments)
    tensors = {k: to_torch(np.asarray(v)) for k, v in values.items()}
    num = len(next(iter(tensors.values())))
    out = []
    with torch.no_grad(), HoldParams(params):
        for start in range(0, num, chunk):
            part = {k: v[start : start + chunk] for k, v in tensors.items()}
            size = len(next(iter(part.values())))
            fixed = poutine.condition(guide, data=_base_values(problem, guide, part, args))
            trace = draw_trace(problem, fixed, args, size)
            rest, local = log_q_of(trace, problem, size)
            out.append(rest if local is None else rest + local.sum(-1))
    return torch.cat(out).numpy()


def _base_values(
    problem: Problem, guide: Any, values: dict[str, torch.Tensor], args: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Values of the sites that a guide really draws: autoguides draw auxiliary unconstrained ones."""
    if isinstance(guide, DatumGuide):
        return guide.noise_at(values, args)
    nesting = problem.max_plate_nesting
    sites = {s.name: s for s in problem.latents(discrete=False)}
    placed = {k: spread(v, sites[k], nesting) for k, v in values.items()}
    if not isinstance(guide, autoguide.AutoGuide):
        return placed
    nodes = dict(cast(Any, guide.prototype_trace).iter_stochastic_nodes())
    free = {k: biject_to(nodes[k]["fn"].support).inv(v) for k, v in placed.items()}
    if isinstance(guide, autoguide.AutoNormal):
        return {f"{k}_unconstrained": v for k, v in free.items()}
    num = len(next(iter(values.values())))
    flat = torch.cat([free[name].reshape(num, -1) for name in nodes], dim=-1)
    return {f"_{guide._pyro_name}_latent": flat.reshape((num,) + (1,) * nesting + flat.shape[-1:])}
