"""What a fit cost in evaluations of the log density: a measure that no machine and no compiler changes.

One evaluation is log p(x, z) of the whole data set at one z. A step on a minibatch of b of n rows counts b/n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ppl_lvm.result import Fit


@dataclass(frozen=True)
class Effort:
    """Evaluations with their gradient, and without; NaN where an engine has neither, or they are unknown.

    ``with_warmup`` is False for chains whose record of the warm-up is missing: ``gradients`` is then the
    number after it.
    """

    gradients: float
    densities: float
    with_warmup: bool = True


def effort_of(fit: Fit) -> Effort:
    """The evaluations that a fit took, from its own record (works on loaded fits).

    - NUTS, ChEES: leapfrog steps over all chains, warm-up included.
    - SVI: optimiser steps times particles (a mirrored pair is two); then one density for the weight of each
      draw of the guide.
    - ImportanceSampling: no gradient, one density for the weight of each draw.
    - SMC, AIS: gradients of all moves of all particles at all temperatures, without the pilot run (a move of
      L leapfrog steps takes L + 1); then one density for each particle.
    - EM and engines of others: NaN.
    """
    name = type(fit.engine).__name__
    return _WAYS[name](fit) if name in _WAYS else Effort(math.nan, math.nan)


def _nuts(fit: Fit) -> Effort:
    if fit.sample_stats is None or "n_steps" not in fit.sample_stats:
        return Effort(math.nan, 0.0, with_warmup=False)
    kept = float(fit.sample_stats["n_steps"].sum())
    warmup = fit.meta.get("warmup_steps")
    return Effort(kept + (warmup or 0), 0.0, with_warmup=warmup is not None)


def _svi(fit: Fit) -> Effort:
    history = fit.groups.get("optimization")
    if history is None:
        return Effort(math.nan, math.nan)
    batch, rows = getattr(fit.engine, "batch_size", None), fit.meta.get("num_data")
    share = batch / rows if batch and rows else 1.0
    particles = getattr(fit.engine, "objective").num_particles  # noqa: B009  (engines are not imported here)
    particles *= getattr(fit.engine, "num_restarts", 1) * (2 if fit.meta.get("mirrored") else 1)
    draws = 0 if fit.is_point else fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
    return Effort(float(np.size(history["loss"])) * particles * share, float(draws))


def _importance(fit: Fit) -> Effort:
    return Effort(0.0, float(getattr(fit.engine, "num_samples", math.nan)))


def _annealing(fit: Fit) -> Effort:
    """Particles times runs, temperatures, moves and steps of a move."""
    engine, details = fit.engine, fit.status.details
    size = getattr(engine, "num_particles", math.nan) * getattr(engine, "num_runs", 1)
    temperatures = details.get("num_temperatures", math.nan)
    moves = getattr(engine, "num_moves", 1) * fit.meta.get("gradients_per_move", math.nan)
    return Effort(float(size * temperatures * moves), float(size))


_WAYS = {
    "NUTS": _nuts,
    "ChEES": _nuts,
    "SVI": _svi,
    "ImportanceSampling": _importance,
    "SMC": _annealing,
    "AIS": _annealing,
}

__all__ = ["Effort", "effort_of"]
