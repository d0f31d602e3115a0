"""Checks that engines share: of their settings, and of what they can take. Each speaks in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppl_lvm.core import Problem, Run

_LOG = logging.getLogger("ppl_lvm")
NUMBER = (int, float, np.integer, np.floating)


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{field}: expected one of {choices}, got {value!r}.")


def check_count(field: str, value: Any, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{field}: expected an integer of at least {least}, got {value!r}.")


def check_flag(field: str, value: Any) -> None:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{field}: expected True or False, got {value!r}.")


def check_positive(field: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, NUMBER) or not 0 < value < np.inf:
        raise ValueError(f"{field}: expected a positive number, got {value!r}.")


def check_fraction(field: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, NUMBER) or not 0 < value < 1:
        raise ValueError(f"{field}: expected a number between 0 and 1, got {value!r}.")


def check_folder(field: str, value: Any) -> str:
    """The folder's name as text."""
    if not isinstance(value, (str, Path)):
        raise TypeError(f"{field}: expected the name of a folder, got {value!r}.")
    name = str(value)
    if not name.strip() or "\0" in name:  # an empty name would be the current folder
        raise ValueError(f"{field}: expected the name of a folder, got {name!r}; give one, such as 'run-1'.")
    return name


def settle_folder(engine: Any) -> None:
    """Check a frozen engine's ``checkpoint``, and keep it as text."""
    if engine.checkpoint is not None:
        object.__setattr__(engine, "checkpoint", check_folder("checkpoint", engine.checkpoint))


def backend_or_reason(backend: str, problem: Problem) -> str | None:
    """Why the asked backend cannot run the model: on JAX a program without a twin is translated."""
    if backend != "numpyro" or problem.model.numpyro is not None:
        return None
    from ppl_lvm.backends.translate import translation_reason

    return translation_reason(problem)


def twin_or_translation(problem: Problem) -> str:
    """What "auto" means where JAX is faster: NumPyro with a twin or a translation, else Pyro, with a word."""
    if problem.model.numpyro is not None:
        return "numpyro"
    from ppl_lvm.backends.translate import translation_reason

    told = "refused" in problem.notes
    reason = translation_reason(problem)
    if reason is not None and not told:
        _LOG.warning("%s; it runs on Pyro", reason)
    return "numpyro" if reason is None else "pyro"


def no_continuous_latents(engine: str, problem: Problem) -> str | None:
    if not problem.latents(discrete=False):
        return (
            f"{engine} needs continuous latent sites, and {problem.model.describe()} has none; "
            "fit.latents gives draws of discrete ones"
        )
    return None


def unsummable(engine: str, problem: Problem) -> str | None:
    """Discrete latent sites that enumeration cannot sum out."""
    names = [s.name for s in problem.latents(discrete=True) if not s.enumerable]
    if names:
        return (
            f"{engine} sums discrete sites out, and {names} have infinite support; truncate them "
            "(a Categorical over the likely values) or marginalise them in the model"
        )
    return None


def fixed_supports(engine: str, problem: Problem, backend: str) -> str | None:
    """On Pyro the transform of a site's support is that of one run of the program."""
    if backend != "pyro":
        return None
    from ppl_lvm.backends._pyro_supports import moving_supports

    names = moving_supports(problem)
    if names:
        return (
            f"the support of {names} depends on other sites, and {engine} on Pyro would keep that of one "
            "run; use backend='numpyro', or scale a site of fixed support (b = a * u with u in (0, 1))"
        )
    return None


def no_observed(engine: str, problem: Problem) -> str | None:
    held = problem.model.held_sites
    if not any(s.kind == "observed" and s.name not in held for s in problem.sites.values()):
        return f"{engine} needs observed data, and {problem.model.describe()} observes nothing"
    return None


def params_without_values(engine: str, problem: Problem, run: Run) -> dict[str, np.ndarray]:
    """Values at which the model's ``pyro.param`` statements are held during sampling.

    Raises
    ------
    ValueError
        If the model has params and nothing says at which values to hold them.
    """
    given: Mapping[str, Any] = getattr(run.init, "params", {}) or {}
    fixed = {**given, **problem.model.fixed_params}
    missing = [name for name in problem.params if name not in fixed]
    if missing:
        raise ValueError(
            f"{engine} holds params fixed and {missing} have no values yet: train them with SVI first, "
            "then pass init=that_fit or lvm.condition(model, that_fit)."
        )
    return {name: np.asarray(fixed[name]) for name in problem.params}


def check_number(field: str, value: Any, *, least: float = -np.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, NUMBER) or not least <= value < np.inf:
        bound = "" if least == -np.inf else f" of at least {least:g}"
        raise ValueError(f"{field}: expected a finite number{bound}, got {value!r}.")
