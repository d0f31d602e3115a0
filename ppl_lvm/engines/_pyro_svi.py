"""SVI on Pyro: its ELBOs where they are right, our own Renyi bound, minibatches by the engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer import SVI as PyroSVI
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.guide import GuideMessenger

from ppl_lvm.backends import _pyro_guide as guides
from ppl_lvm.backends._pyro_density import EnumerateAll, log_density
from ppl_lvm.backends._pyro_mirror import Mirror
from ppl_lvm.backends._pyro_surface import PyroSurface
from ppl_lvm.backends._pyro_trace import HoldParams, ScalePlate, to_torch
from ppl_lvm.backends._pyro_weights import Weights, choose_weights
from ppl_lvm.core import Problem, Run, Status
from ppl_lvm.engines._laplace import fit_at
from ppl_lvm.engines._pyro_blocks import batch_loss, draws_in_blocks, outer_draws, row_blocks
from ppl_lvm.engines._pyro_particles import drawn_together, run_together, together
from ppl_lvm.engines._pyro_steps import PyroStepper, optimiser
from ppl_lvm.engines._rows import blocks_for, first_rows, passes_for
from ppl_lvm.engines._shares import num_shares
from ppl_lvm.engines._sources import Source, source_of
from ppl_lvm.engines._start import starting_values
from ppl_lvm.engines._steps import Taken, take_steps
from ppl_lvm.engines._svi_result import (
    Drawn,
    Trained,
    run_passes,
    svi_fit,
    svi_fit_in_blocks,
    svi_fit_in_passes,
)
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import ELBO, SVI


def run_svi(engine: SVI, problem: Problem, run: Run) -> Fit:
    """Optimise, then draw from the guide and weigh the draws."""
    from ppl_lvm.engines.svi import Renyi

    start = starting_values(problem, run)[0]
    few = first_rows(engine, problem)
    source = source_of(problem, engine.batch_size or 1, run.seed)
    spec = "mode" if engine.guide == "laplace" else engine.guide
    bound = problem if source is None else few
    guide = guides.build_guide(bound, spec, start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pyro warns about sites that we enumerate or hold on purpose
        _check_guide(engine, few, guide, to_torch(few.arguments))
        status, losses, _ = _optimise(engine, problem, guide, bound, run, source)
        params = {k: v.detach().numpy().copy() for k, v in pyro.get_param_store().items()}
        trained = Trained(engine, problem, "pyro", params, status, losses)
        guide_params = {**problem.model.fixed_params, **params}
        passes = passes_for(engine, problem)
        if passes:
            whole = row_blocks(problem, engine.batch_size or 1, source)
            loss = batch_loss(engine, problem, guide, pyro_svi)
            bounds = run_passes(problem, passes, whole, loss)
            values = outer_draws(engine, problem, guide, guide_params)
            return svi_fit_in_passes(trained, bounds, values)
        if not problem.latents(discrete=False):
            last = -np.array(losses[-engine.window :])
            return svi_fit(trained, last)
        if engine.guide in ("delta", "laplace"):
            return _at_point(engine, problem, run, guide, params, status, losses)
        blocks = blocks_for(engine, problem)
        if blocks is not None:
            drawn = draws_in_blocks(engine, problem, guide, guide_params, blocks, source)
            return svi_fit_in_blocks(trained, drawn)
        values, log_q = guides.draw(problem, guide, guide_params, engine.num_draws)
        total, _, per_datum = log_density(problem, values, guide_params)
    weights = total - log_q
    if isinstance(engine.objective, Renyi) and _all_local(problem) and per_datum is not None:
        weights = _per_datum_weights(problem, guide, guide_params, engine, to_torch(problem.arguments))
    drawn = Drawn(values, total, log_q, lambda v: guides.log_q_at(problem, guide, guide_params, v))
    return svi_fit(trained, weights, drawn)


def _at_point(
    engine: SVI, problem: Problem, run: Run, guide: Any, params: dict, status: Status, losses: list[float]
) -> Fit:
    """The point that the guide has come to, or the Gaussian there."""
    own = {k: v for k, v in params.items() if k in problem.params}
    with torch.no_grad():
        values = {k: v.numpy() for k, v in guide(**to_torch(problem.arguments)).items()}
    held = {**problem.model.fixed_params, **own}
    surface = PyroSurface(problem, held, jacobian=engine.guide == "laplace", begin=values)
    return fit_at(engine, problem, run, "pyro", surface, surface.start, own, status, losses)


def _all_local(problem: Problem) -> bool:
    return all(s.local for s in problem.latents())


def _per_datum_weights(problem: Problem, guide: Any, params: Any, engine: SVI, args: Any) -> np.ndarray:
    parts = []
    weigh = choose_weights(problem, guide, args)
    with torch.no_grad(), HoldParams(params):
        for _ in range(-(-engine.num_draws // engine.objective.num_particles)):
            terms = weigh(problem, guide, args, engine.objective.num_particles)
            parts.append(np.asarray(terms.per_datum))
    return np.concatenate(parts)


def _check_guide(engine: SVI, problem: Problem, guide: Callable[..., Any], args: Any) -> None:
    """Run the guide once: it must declare the model's continuous sites, reparametrised where needed."""
    from ppl_lvm.engines.svi import ELBO, Renyi

    if isinstance(guide, GuideMessenger) and problem.latents(discrete=True):
        raise ValueError(
            f"guide: {type(guide).__name__} is a messenger, which cannot be used while discrete sites are "
            "summed out; give a guide function, or a family by name."
        )
    with pyro.get_param_store().scope(), torch.no_grad():
        trace = _trace_of_guide(guide, args)
    declared = {n for n, s in trace.nodes.items() if s["type"] == "sample"}
    wanted = {s.name for s in problem.latents(discrete=False)}
    missing = sorted(wanted - declared)
    extra = sorted(
        n
        for n in declared - wanted
        if not trace.nodes[n]["infer"].get("is_auxiliary")
        and type(trace.nodes[n]["fn"]).__name__ != "_Subsample"
        and n not in problem.sites
    )
    if missing or extra:
        parts = ([f"lacks sites {missing}"] if missing else []) + (
            [f"has sites {extra} that the model lacks"] if extra else []
        )
        raise ValueError(
            f"guide: {' and '.join(parts)}; it must declare the model's latents {sorted(wanted)}."
        )
    for name in sorted(wanted):
        found, expected = tuple(trace.nodes[name]["value"].shape), problem.sites[name].shape
        if found != expected:
            raise ValueError(f"guide: site {name!r} has shape {found}, and {expected} in the model.")
    summed = sorted({s.name for s in problem.latents(discrete=True)} - declared)
    if (
        summed
        and isinstance(engine.objective, ELBO)
        and engine.objective.estimator in ("trace", "mean_field")
    ):
        raise ValueError(
            f"estimator={engine.objective.estimator!r} does not sum discrete sites out, and the guide lacks "
            f"{summed}; use estimator='auto' or 'enum'."
        )
    stuck = [n for n in wanted if not trace.nodes[n]["fn"].has_rsample]
    if stuck and isinstance(engine.objective, Renyi):
        raise ValueError(
            f"guide: sites {stuck} are not reparametrised, which the Renyi objective needs; use ELBO()."
        )


def _trace_of_guide(guide: Callable[..., Any], args: Any) -> Any:
    try:
        return poutine.trace(guide).get_trace(**args)
    except Exception as error:  # the user's own code: anything can come out of it
        if isinstance(guide, AutoGuide):
            raise
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"guide: it failed when run once on the data, with the model's arguments ({reason})."
        ) from error


def _optimise(
    engine: SVI, problem: Problem, guide: Callable[..., Any], bound: Problem, run: Run, source: Source | None
) -> Taken:
    if not isinstance(guide, AutoGuide):
        with torch.no_grad():  # params that start by the number of data start by that of all data
            guide(**to_torch(bound.arguments))
    svi = pyro_svi(engine, problem, guide)
    return take_steps(engine, problem, run, PyroStepper(engine, problem, run, svi, source), "Pyro")


def pyro_svi(engine: SVI, problem: Problem, guide: Callable[..., Any]) -> PyroSVI:
    """Pyro's SVI of batches: discrete sites summed out, params held, sites of the data plate scaled."""
    from ppl_lvm.engines.svi import Renyi

    fixed = problem.model.fixed_params
    model = HoldParams(fixed)(EnumerateAll()(problem.model.pyro.model))
    if fixed:  # what is held is not the optimiser's to see
        model = poutine.block(model, hide_fn=lambda msg: msg["type"] == "param" and msg["name"] in fixed)
    adam = optimiser(engine, engine.steps_for(problem), guide)
    objective, few = engine.objective, first_rows(engine, problem)
    if isinstance(objective, Renyi):
        with pyro.get_param_store().scope():
            loss = _renyi(engine, problem, choose_weights(few, guide, to_torch(few.arguments)))
        return PyroSVI(model, guide, adam, loss=loss)
    kind = _estimator(objective, problem, guide, to_torch(few.arguments))
    count = objective.num_particles * (2 if objective.mirrored else 1)
    at_once = count > 1 and run_together(few, guide, to_torch(few.arguments))
    shared = engine.batch_size is not None or engine.distributed
    if shared and problem.data_plate is not None:
        rows = (engine.batch_size or problem.num_data) // (num_shares(engine) if engine.distributed else 1)  # type: ignore[operator]  # set with the plate
        factor = problem.num_data / rows  # type: ignore[operator]
        model, guide = (
            ScalePlate(problem.data_plate, factor)(model),
            ScalePlate(problem.data_plate, factor)(guide),
        )
    if at_once:
        model = together(problem, model, count)
        guide = drawn_together(problem, guide, count, mirrored=bool(objective.mirrored))
    elif objective.mirrored:
        guide = Mirror()(guide)
    nesting = problem.max_plate_nesting
    loss = kind(max_plate_nesting=nesting + 1) if at_once else kind(count, max_plate_nesting=nesting)
    return PyroSVI(model, guide, adam, loss=loss)


def _estimator(objective: ELBO, problem: Problem, guide: Callable[..., Any], args: dict) -> Any:
    """The class of Pyro's bound."""
    kind = objective.estimator
    if kind == "auto":
        discrete = bool(problem.latents(discrete=True))
        kind = "enum" if discrete else "mean_field" if _same_order(problem, guide, args) else "trace"
    return {"trace": Trace_ELBO, "mean_field": TraceMeanField_ELBO, "enum": TraceEnum_ELBO}[kind]


def _same_order(problem: Problem, guide: Callable[..., Any], args: dict) -> bool:
    """Whether analytic KL terms are valid: a hand-written guide with the model's sites in its order."""
    if isinstance(guide, AutoGuide):
        return False
    with pyro.get_param_store().scope(), torch.no_grad():
        trace = poutine.trace(guide).get_trace(**args)
    names = [n for n, s in trace.nodes.items() if s["type"] == "sample"]
    return names == [s.name for s in problem.latents(discrete=False)]


def _renyi(engine: SVI, problem: Problem, weigh: Weights) -> Callable[..., torch.Tensor]:
    """The negative Renyi bound as a differentiable loss on marginalised weights.

    Under minibatches all latents are local (checked before): the bound is taken for each datum without
    the plate's scale, and n/b multiplies the sum of the bounds (inside the logarithm it would be no bound).
    """
    objective, local = engine.objective, _all_local(problem)
    count, power = objective.num_particles, 1.0 - objective.alpha  # type: ignore[union-attr]  # a Renyi

    def loss(model: Any, guide: Any, **args: Any) -> torch.Tensor:
        del model
        terms = weigh(problem, guide, args, count)
        if local and terms.per_datum is not None:
            each = torch.logsumexp(power * terms.per_datum, 0) - np.log(count)
            shared = 0.0 if terms.rest is None else terms.rest[0]
            size = terms.per_datum.shape[-1]
            return -(each.sum() / power * (problem.num_data / size) + shared)  # type: ignore[operator]  # known under batches
        return -(torch.logsumexp(power * terms.total, 0) - np.log(count)) / power

    return loss
