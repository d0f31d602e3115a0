"""SVI on a :class:`Density`: compiled blocks of optimiser steps, particles by vmap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._jax_guide import Guide
from ppl_lvm.backends._jax_guides import build_guide, guide_key
from ppl_lvm.backends._jax_surface import JaxSurface
from ppl_lvm.backends._numpyro import arrays_of, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_blocks import batch_loss, draws_in_blocks, outer_draws, row_blocks
from ppl_lvm.engines._jax_start import start_points
from ppl_lvm.engines._jax_steps import JaxStepper, constrained
from ppl_lvm.engines._jax_weights import guide_functions, is_split
from ppl_lvm.engines._laplace import fit_at
from ppl_lvm.engines._rows import at_rows, blocks_for, first_rows, passes_for
from ppl_lvm.engines._sources import source_of
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
from ppl_lvm.families import is_amortized
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI


def run_svi(engine: SVI, problem: Problem, run: Run) -> Fit:
    """Optimise, then draw from the guide and weigh the draws."""
    with jax_session(problem.dtype):
        small = first_rows(engine, problem)
        density, few = density_of(small)
        source = source_of(problem, engine.batch_size or 1, run.seed)
        data = few if source is not None or small is problem else arrays_of(problem.arguments)
        num = engine.num_restarts
        starts = starting_values(problem, run, num)
        if is_amortized(engine.guide):  # an encoder has no params of one datum
            starts = [{k: v for k, v in start.items() if k not in density.local} for start in starts]
        begin = {name: jnp.asarray(param.start) for name, param in density.params.items()}
        points = start_points(problem, run, density, few, begin, num, starts)
        spec = "mode" if engine.guide == "laplace" else engine.guide
        bound = problem if source is None else small
        guides = [build_guide(bound, density, spec, s, p, data) for s, p in zip(starts, points, strict=True)]
        stepper = JaxStepper(engine, problem, run, density, guides, data, source)
        taken = take_steps(engine, problem, run, stepper, "NumPyro")
        fit = _weighed(engine, problem, run, density, guides[0], stepper, taken, few)
        return taken.record(fit)


def _weighed(
    engine: SVI,
    problem: Problem,
    run: Run,
    density: Density,
    guide: Guide,
    stepper: JaxStepper,
    taken: Taken,
    few: Any,
) -> Fit:
    """What a trained guide gives."""
    from ppl_lvm.engines.svi import Renyi

    status, losses, _ = taken
    params, data, source = stepper.params, stepper.data, stepper.source
    held = constrained(density, params.model)
    if engine.guide in ("delta", "laplace"):
        ours = {k: np.asarray(v) for k, v in held.items()}
        surface = JaxSurface(problem, ours, jacobian=engine.guide == "laplace")
        found = np.asarray(params.guide["loc"], dtype=float)
        return fit_at(engine, problem, run, "numpyro", surface, found, ours, status, losses)
    stored = {k: np.asarray(v) for k, v in {**guide.constrain(params.guide), **held}.items()}
    trained = Trained(engine, problem, "numpyro", stored, status, losses)
    passes = passes_for(engine, problem)
    if passes:
        loss = batch_loss(engine, problem, run, _density_at(engine, problem, density), guide, params)
        whole = row_blocks(problem, engine.batch_size or 1, data, source)
        bounds = run_passes(problem, passes, whole, loss)
        values = outer_draws(engine, problem, run, density, guide, params.guide, data, held)
        if is_amortized(engine.guide):
            few_rows = first_rows(engine, problem)
            told = {k: v for k, v in few_rows.notes.items() if k == "translation"}
            problem.notes.update(told, first_rows=few_rows)
        return svi_fit_in_passes(trained, bounds, values)
    blocks = blocks_for(engine, problem)
    if blocks is not None:
        whole = row_blocks(problem, blocks.size, data, source)
        drawn = draws_in_blocks(
            engine, problem, run, density, guide, params.guide, few, held, blocks.draws, whole
        )
        return svi_fit_in_blocks(trained, drawn)
    if is_amortized(engine.guide):
        density, data = density_of(problem)
    functions = guide_functions(guide_key(problem, engine.guide), density, guide, data, held)
    values, log_p, log_q, local = functions.draw(params.guide, run.word(24), engine.num_draws)
    split = is_split(problem, density, guide) and isinstance(engine.objective, Renyi) and local.shape[-1]
    drawn = Drawn(values, log_p, log_q, lambda v: functions.log_q_at(params.guide, v))
    return svi_fit(trained, local if split else log_p - log_q, drawn)


def _density_at(engine: SVI, problem: Problem, density: Density) -> Callable[[int], Density]:
    """The density of a number of rows: one for all, but where an encoder draws latents of each datum: these
    make a translated program another one for each shape."""
    if not is_amortized(engine.guide):
        return lambda rows: density
    small = first_rows(engine, problem)

    def at(rows: int) -> Density:
        if rows == small.num_data:
            return density
        return density_of(dataclasses.replace(at_rows(small, np.arange(rows)), notes={}))[0]

    return at
