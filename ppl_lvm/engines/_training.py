"""Which settings of SVI a training by epochs has, and why not where it cannot be had."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ppl_lvm.backends.amortised import amortised
from ppl_lvm.core import Problem
from ppl_lvm.engines._guide_checks import mirrors
from ppl_lvm.engines._rows import first_rows
from ppl_lvm.engines.objectives import ELBO

if TYPE_CHECKING:
    from ppl_lvm.engines.svi import SVI

_STEPS = 3000
_GUIDE = {"learning_rate": 0.03, "learning_rate_decay": 0.02}
_NETWORKS = {"learning_rate": 1e-3, "learning_rate_decay": 1.0}


def by_epochs(engine: SVI, problem: Problem) -> bool:
    """Whether the run is a training by epochs: an amortised model of ours, or any with ``num_epochs``."""
    if engine.guide is not None or not amortised(first_rows(engine, problem), engine.backend_for(problem)):
        return False
    return problem.model.trains_by_epochs or engine.num_epochs is not None


def settled(engine: SVI, problem: Problem) -> SVI:
    """The engine with the numbers filled in that depend on the kind of run."""
    epochs = by_epochs(engine, problem)
    if not epochs:
        engine = _settled_for_batches(engine, problem)
    values: dict[str, Any] = {
        k: v for k, v in (_NETWORKS if epochs else _GUIDE).items() if getattr(engine, k) is None
    }
    if epochs:
        n = problem.num_data or 1
        size = min(engine.batch_size or 128, max(1, round(n * (1 - engine.validation))))
        values["batch_size"] = size
        if engine.num_epochs is None:
            steps = engine.num_steps or _STEPS
            values |= {
                "num_steps": None,
                "num_epochs": -(-steps // max(1, round(n * (1 - engine.validation)) // size)),
            }
    return dataclasses.replace(engine, **values)


def _settled_for_batches(engine: SVI, problem: Problem) -> SVI:
    """What minibatches are fitted with by default: averaged params, and pairs of mirrored draws."""
    some = engine.batch_size is not None and engine.batch_size < (problem.num_data or 0)
    if engine.average is None:
        engine = dataclasses.replace(engine, average=some)
    objective = engine.objective
    if isinstance(objective, ELBO) and objective.mirrored is None:
        pairs = dataclasses.replace(objective, mirrored=some and mirrors(engine.guide))
        engine = dataclasses.replace(engine, objective=pairs)
    return engine


def training_reason(engine: SVI, problem: Problem) -> str | None:
    """Why settings of a training by epochs do not suit; None if they do."""
    only = problem.model.only_backend
    if only is not None and engine.backend_for(problem) != only:
        library = {"pyro": "torch", "numpyro": "equinox"}[only]
        return f"the networks are {library} modules, which have gradients with backend={only!r} only"
    if by_epochs(engine, problem):
        if "stream" in problem.notes:
            return (
                "a training by epochs takes rows in a random order of its own, and a stream has no random "
                "access; give an array"
            )
        if engine.average or engine.num_restarts > 1:
            return "average and num_restarts are for runs in steps, and this is a training by epochs"
        if getattr(engine.objective, "mirrored", None):
            return "mirrored is for runs in steps, and this is a training by epochs"
        if getattr(engine.objective, "estimator", "auto") == "enum":
            return "an amortised model has no discrete sites to enumerate; use estimator='auto'"
        if engine.patience is not None and not engine.validation:
            return "patience needs validation, the share of the data that is held out to see when to stop"
        return None
    asked = [f for f, off in _OFF.items() if getattr(engine, f) != off]
    asked += [] if engine.objective.plain else ["objective (its beta, free_bits or gradient)"]
    if not asked:
        return None
    return (
        f"{', '.join(asked)} belong to trainings by epochs: those of an amortised model (its own guide gives "
        "all its latents as a function of the data) with num_epochs"
    )


_OFF: dict[str, Any] = {
    "validation": 0.0,
    "patience": None,
    "warmup_steps": 0,
    "schedule": "exponential",
}
