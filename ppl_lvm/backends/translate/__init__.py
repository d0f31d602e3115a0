"""The automatic twin: any Pyro program as a :class:`Density` on JAX. See docs/translation.

A Pyro model is run once under torch's tracer at unconstrained values of its latent sites, with discrete
sites enumerated; the recorded ATen operators are replayed by jax.numpy rules. Every use of a translation
compares its value and gradient with Pyro's own first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import arrays_of, cached, signature, split_arguments
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session, torch_session
from ppl_lvm.backends.translate._check import Check, check, compare_at, disagreement
from ppl_lvm.backends.translate._density import Translated
from ppl_lvm.backends.translate._errors import TranslationError
from ppl_lvm.backends.translate.rules import register_rule, user_rules
from ppl_lvm.core import Problem

_RECENT: OrderedDict[Any, Translated] = OrderedDict()
_MOST_RECENT = 16  # each keeps its data alive
NUM_DRAWS_CHECKED = 20


def translated_density(problem: Problem) -> Density:
    """The density of a problem's Pyro program, checked against Pyro; the record is left in ``problem.notes``.

    Raises
    ------
    TranslationError
        If it cannot be translated, or disagrees with Pyro.
    """
    found = problem.notes.get("translated")
    if found is None:
        reason = translation_reason(problem)
        if reason is not None:
            raise TranslationError(reason)
        found = problem.notes["translated"]
    return found.density()


def translation_reason(problem: Problem) -> str | None:
    """Why a problem's Pyro program cannot run on JAX; None if it can (then the work is done and kept)."""
    notes = problem.notes
    if "refused" not in notes and "translated" not in notes:
        try:
            with jax_session(problem.dtype):
                translated = translated_program(problem)
                translated, found = checked(problem, translated, params_at(translated, {}))
            notes["translated"] = translated
            notes["translation"] = _record(translated, found)
        except TranslationError as error:
            notes["refused"] = str(error).rstrip(".")
            notes["translation"] = {"refused": notes["refused"]}
    return notes.get("refused")


def check_draws(problem: Problem, draws: Mapping[str, np.ndarray], params: Mapping[str, Any]) -> Check | None:
    """The comparison again at posterior draws (s, *site); None where nothing was translated."""
    translated = problem.notes.get("translated")
    if translated is None:
        return None
    rest = _rest(translated, params)
    sites = translated.layout.sites
    with torch_session(0, problem.dtype):
        import torch

        points = []
        for i in range(len(draws[sites[0]])):
            values = [torch.as_tensor(np.array(draws[n][i], dtype=problem.dtype)) for n in sites]
            with torch.no_grad():
                free = translated.program.unconstrain((*values, *rest))
            points.append({n: free[f"free:{n}"].numpy() for n in sites})
    with jax_session(problem.dtype):
        found = compare_at(translated.program, points, rest, _ours(translated, problem, params))
    problem.notes["translation"] = {**problem.notes["translation"], "at_draws": _figures(found)}
    return found


def translated_program(problem: Problem) -> Translated:
    """Recorded now, or taken from an earlier fit of the same function to data of the same shapes."""
    endless = [s.name for s in problem.latents(discrete=True) if not s.enumerable]
    if endless:
        raise TranslationError(
            f"{problem.model.describe()}: discrete sites are summed out, and {endless} have infinite "
            "support; truncate them (a Categorical over the likely values) or marginalise them in the model."
        )
    key = _key(problem)
    if key in _RECENT:
        again = _RECENT[key].rebound(problem)
        if again is not None:
            _RECENT.move_to_end(key)
            return again
    return _fresh(problem, key)


def _fresh(problem: Problem, key: Any) -> Translated:
    made = _RECENT[key] = Translated(problem)
    while len(_RECENT) > _MOST_RECENT:
        _RECENT.popitem(last=False)
    return made


def _key(problem: Problem) -> Any:
    arrays, statics = split_arguments(problem.arguments)
    model = problem.model
    held = tuple((k, np.asarray(v).shape) for k, v in sorted(model.fixed_params.items()))
    rules = tuple(sorted((k, id(v)) for k, v in user_rules().items()))
    try:
        hash(statics)
    except TypeError:
        statics = (repr(statics),)
    return model.pyro.model, statics, problem.data_plate, problem.dtype, held, signature(arrays), rules


def checked(problem: Problem, translated: Translated, params: Mapping[str, Any]) -> tuple[Translated, Check]:
    """The translation with its check; one from an earlier fit that fails it is made anew first."""
    seed = 0
    found = _check(problem, translated, params, seed)
    if not found.passed:
        translated = _fresh(problem, _key(problem))
        found = _check(problem, translated, params, seed)
    if not found.passed:
        _RECENT.pop(_key(problem), None)
        raise disagreement(problem.model.describe(), found)
    return translated, found


def _check(problem: Problem, translated: Translated, params: Mapping[str, Any], seed: int) -> Check:
    ours = _ours(translated, problem, params)
    return check(translated.program, translated.shapes, _rest(translated, params), ours, seed)


def _ours(translated: Translated, problem: Problem, params: Mapping[str, Any]) -> Any:
    density = translated.density()
    arrays = arrays_of(problem.arguments)
    held = {k: jnp.asarray(np.asarray(v)) for k, v in params.items()}
    return lambda point: evaluate(density, point, arrays, held)


def evaluate(
    density: Density, z: Mapping[str, Any], data: Any, params: Any
) -> tuple[float, dict[str, np.ndarray]]:
    flat = density.flatten({k: np.asarray(z[k]) for k in density.shapes})
    value, slope = value_and_slope(density)(flat, data, params)
    return float(value), {k: np.asarray(v) for k, v in density.unflatten(np.asarray(slope)).items()}


def value_and_slope(density: Density) -> Any:
    """Compiled (flat, data, params) -> (log density, gradient)."""
    return cached(("slope", density.key), density.compile_slope)


def params_at(translated: Translated, given: Mapping[str, Any]) -> dict[str, Any]:
    names = translated.layout.params
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"params: unknown names {unknown}; the program's params are {list(names)}.")
    if not names:
        return {}
    with torch_session(0, translated.problem.dtype):
        start = dict(zip(names, (v.numpy() for v in translated.param_tensors()), strict=True))
    return {n: jnp.asarray(np.asarray(given.get(n, start[n]))) for n in names}


def _rest(translated: Translated, params: Mapping[str, Any]) -> list[Any]:
    import torch

    held = [torch.as_tensor(np.array(params[n])) for n in translated.layout.params]
    return [*translated.tensors(translated.examples), *held]


def baked_names(translated: Translated) -> tuple[str, ...]:
    import jax

    names = jax.tree_util.tree_unflatten(translated.layout.data, list(range(translated.layout.num_data)))
    paths = jax.tree_util.tree_leaves_with_path(names)
    return tuple(
        ".".join(str(getattr(k, "key", k)) for k in path) for path, i in paths if i in translated.baked
    )


def _record(translated: Translated, found: Check) -> dict[str, Any]:
    return {"num_ops": translated.plan.num_ops, "baked": list(baked_names(translated)), **_figures(found)}


def _figures(found: Check) -> dict[str, Any]:
    return {
        "num_points": found.num_points,
        "value_error": found.value_error,
        "gradient_error": found.gradient_error,
        "tolerance": found.tolerance,
        "passed": found.passed,
    }


__all__ = ["Check", "TranslationError", "register_rule", "translated_density", "translation_reason"]
