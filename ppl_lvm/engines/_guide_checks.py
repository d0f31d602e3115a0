"""Which guides a setting may name, and which models a guide cannot take. Each speaks in words."""

from __future__ import annotations

from typing import Any

from ppl_lvm.backends._encoder import feature_names
from ppl_lvm.core import Problem
from ppl_lvm.engines._checks import check_choice
from ppl_lvm.families import FAMILY_NAMES, Amortized, Flow, LowRank, is_amortized


def check_guide(guide: Any) -> None:
    """Raise if a setting is no guide."""
    if isinstance(guide, str):
        check_choice("guide", guide, FAMILY_NAMES)
    elif guide is not None and not isinstance(guide, (Flow, LowRank, Amortized)) and not callable(guide):
        raise TypeError(
            f"guide: expected None, one of {FAMILY_NAMES}, Flow(...), LowRank(...), Amortized(...) or a "
            f"callable, got {guide!r}."
        )


def is_gaussian(guide: Any, problem: Problem, backend: str) -> bool:
    """Whether the guide that a setting gives is a Gaussian by name, on unconstrained space."""
    program = problem.model.pyro if backend == "pyro" else problem.model.numpyro
    own = getattr(program, "guide", None) if guide is None else guide
    return not (callable(own) or isinstance(own, Flow) or own in ("delta", "laplace", "flow", "spline"))


def mirror_reason(engine: Any, problem: Problem, backend: str) -> str | None:
    """Why draws cannot come in mirrored pairs where that is asked for."""
    if not getattr(engine.objective, "mirrored", None) or is_gaussian(engine.guide, problem, backend):
        return None
    return (
        "mirrored=True is for Gaussian guides by name ('mean_field', 'full_rank', 'low_rank', 'structured', "
        f"'amortized'), and the guide is {engine.guide or 'the own one of the model'!r}; leave mirrored out"
    )


def amortized_reason(guide: Any, problem: Problem, backend: str, *, batches: bool) -> str | None:
    """Why an amortised guide by name cannot be had for a model; None if it can, or another is asked for."""
    if not is_amortized(guide):
        return None
    name, plate = problem.model.describe(), problem.data_plate
    local = [s for s in problem.latents(discrete=False) if s.local]
    if not local:
        discrete = [s.name for s in problem.latents(discrete=True) if s.local]
        what = f"only {discrete} inside it, discrete and summed out" if discrete else "none inside it"
        where = f"its data plate ({plate!r})" if plate else "a plate over data, and there is none"
        return (
            f"guide='amortized' is for continuous latents in {where}, and {name} has {what}; use "
            "guide='structured' or another family"
        )
    beside = [s.name for s in local if not any(p.name == plate and p.dim is not None for p in s.plates)]
    if beside:
        return (
            f"guide='amortized' takes all data at once, and the plate of {beside} is sequential; write it as "
            "`with pyro.plate(...)`, or use guide='structured'"
        )
    seen = [
        s for s in problem.sites.values() if s.kind == "observed" and s.name not in problem.model.held_sites
    ]
    if not any(s.local for s in seen):
        return (
            f"guide='amortized' makes latents a function of their datum, and the plate {plate!r} of "
            f"{[s.name for s in local]} has no observed site; use guide='structured'"
        )
    if not feature_names(problem):
        return (
            f"guide='amortized' finds no argument of {name} along its data plate; name them in "
            "Model(batched=(...))"
        )
    if batches and backend == "pyro":
        from ppl_lvm.backends._pyro_supports import supports_by_datum

        moving = supports_by_datum(problem, [s.name for s in local])
        if moving:
            return (
                f"the supports of {moving} differ between data, and on Pyro the guide keeps those of one "
                "batch; use backend='numpyro', or scale a site of fixed support"
            )
    return None
