"""Importance sampling on Pyro: draws of the prior or of a guide, weighed with labels summed out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine

from ppl_lvm.backends import _pyro_guide as guides
from ppl_lvm.backends._pyro_density import log_density
from ppl_lvm.backends._pyro_trace import HoldParams, to_torch
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._convergence import symmetrised_log_q
from ppl_lvm.engines._units import Units
from ppl_lvm.engines.importance import draw_in_blocks, stream

if TYPE_CHECKING:
    from ppl_lvm.engines.importance import ImportanceSampling

Weighed = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, str]


def weigh(
    engine: ImportanceSampling, problem: Problem, run: Run, params: dict[str, np.ndarray], units: Units
) -> Weighed:
    """Values (s, ...), log p, log q (both in constrained space) and a note on labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pyro warns about sites that we enumerate or hold on purpose
        if isinstance(engine.proposal, str):

            def weighed(block: int, num: int) -> Any:
                _seed(run, block)
                values = prior_draws(problem, params, num)
                log_p = log_density(problem, values, params)[0]
                return values, log_p, log_density(problem, values, params, prior=True)[0]

            return *draw_in_blocks(engine.num_samples, units, weighed), ""
        guide, held = rebuild_guide(problem, engine.proposal)

        def drawn(block: int, num: int) -> Any:
            _seed(run, block)
            values, log_q = guides.draw(problem, guide, held, num)
            return values, log_density(problem, values, {**held, **params})[0], log_q

        values, total, log_q = draw_in_blocks(engine.num_samples, units, drawn)
        log_q, note = symmetrised_log_q(
            problem, values, log_q, lambda v: guides.log_q_at(problem, guide, held, v)
        )
    return values, total, log_q, note


def _seed(run: Run, block: int) -> None:
    """The first block goes on from the session's seed; the others do not hang on what was drawn before."""
    if block:
        pyro.set_rng_seed(run.word(stream(20, block)))


def rebuild_guide(problem: Problem, fit: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """An SVI fit's guide, run once on the data (a fresh one has no state yet), and its parameters."""
    guide = guides.build_guide(problem, fit.engine.guide, {})
    with torch.no_grad():
        guide(**to_torch(problem.arguments))
        guides.load_params(problem, guide, fit.params)
    return guide, {**problem.model.fixed_params, **fit.params}


def prior_draws(problem: Problem, params: dict[str, np.ndarray], num: int) -> dict[str, np.ndarray]:
    """Draws of the continuous latents from the prior, (num, ...)."""
    args = to_torch(problem.arguments)
    names = [s.name for s in problem.latents(discrete=False)]
    rows = []
    with torch.no_grad(), HoldParams({**problem.model.fixed_params, **params}):
        for _ in range(num):
            nodes: Any = poutine.trace(problem.model.pyro.model).get_trace(**args).nodes
            rows.append({name: nodes[name]["value"] for name in names})
    return {name: torch.stack([r[name] for r in rows]).numpy() for name in names}
