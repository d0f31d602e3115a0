"""The automatic twin: any Pyro program as a :class:`Density` on JAX. See docs/translation.

A Pyro model is run once under torch's tracer at unconstrained values of its latent sites, with discrete
sites enumerated; the recorded ATen operators are replayed by jax.numpy rules. Every use of a translation
compares its value and gradient with Pyro's own first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._numpyro import cached, signature, split_arguments
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


@dataclass(frozen=True, eq=False)
class Translation:
    """A Pyro program as compiled JAX functions of unconstrained values, and how well they agree with Pyro.

    Attributes
    ----------
    density
        Prior, global and per-datum terms, constraints: what every engine on the JAX side runs on.
    check
        The comparison with Pyro's value and gradient that was made for these data.
    num_ops
        Number of torch operators in the graph that depend on latents, data or params.
    operators
        How often each occurs.
    baked
        Arguments whose values decide the course of the program (lengths, masks): data in which they differ
        are translated again.
    """

    model: str
    dtype: str
    density: Density
    check: Check
    num_ops: int
    operators: Mapping[str, int]
    baked: tuple[str, ...]
    _data: Mapping[str, Any] = field(repr=False)
    _params: Mapping[str, Any] = field(repr=False)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Unconstrained shapes by site."""
        return self.density.shapes

    def log_density(self, z: Mapping[str, Any]) -> float:
        """log p(x, values of z) plus the log-Jacobian, nats, at unconstrained values by site."""
        return self.value_and_gradient(z)[0]

    def gradient(self, z: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The gradient of :meth:`log_density`, by site."""
        return self.value_and_gradient(z)[1]

    def value_and_gradient(self, z: Mapping[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
        """Both at once.

        Raises
        ------
        ValueError
            If sites are missing or have another shape than :attr:`shapes`.
        """
        wrong = {k: np.shape(z[k]) if k in z else None for k, s in self.shapes.items()
                 if k not in z or np.shape(z[k]) != tuple(s)}  # fmt: skip
        if wrong:
            raise ValueError(f"z: expected unconstrained shapes {dict(self.shapes)}, got {wrong}.")
        with jax_session(self.dtype):
            return _evaluate(self.density, z, self._data, self._params)

    def __str__(self) -> str:
        baked = f"; rests on the values of {', '.join(self.baked)}" if self.baked else ""
        return f"{self.model}: {self.num_ops} operators; {self.check}{baked}"


def translate(
    model: Any, data: Any, *, params: Mapping[str, Any] | None = None, dtype: str | None = None
) -> Translation:
    """Translate a Pyro model with its data to JAX, and compare the two.

    Parameters
    ----------
    model, data
        As for :func:`ppl_lvm.fit`: a plain Pyro function and its arguments.
    params
        Values of ``pyro.param`` statements, by name; those left out start as the program says.
    dtype
        "float64" (default) or "float32".

    Raises
    ------
    ValueError
        (``TranslationError``) with model, site, source line and way out, if the program cannot be translated
        or the translation disagrees with Pyro.
    """
    from ppl_lvm.backends.session import random_states_restored
    from ppl_lvm.fitting import prepare

    with random_states_restored():
        problem = prepare(model, data, dtype=dtype)
        with jax_session(problem.dtype):
            translated = _translated(problem)
            given = _params(translated, params or {})
            translated, found = _checked(problem, translated, given)
            arrays, _ = split_arguments(problem.arguments)
            return Translation(
                problem.model.describe(), problem.dtype, translated.density(), found, translated.plan.num_ops,
                Counter(translated.plan.operators), _baked_names(translated), arrays, given,
            )  # fmt: skip


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
                translated = _translated(problem)
                translated, found = _checked(problem, translated, _params(translated, {}))
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


def _translated(problem: Problem) -> Translated:
    """Recorded now, or taken from an earlier fit of the same function to data of the same shapes."""
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


def _checked(problem: Problem, translated: Translated, params: Mapping[str, Any]) -> tuple[Translated, Check]:
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
    arrays, _ = split_arguments(problem.arguments)
    held = {k: jnp.asarray(np.asarray(v)) for k, v in params.items()}
    return lambda point: _evaluate(density, point, arrays, held)


def _evaluate(
    density: Density, z: Mapping[str, Any], data: Any, params: Any
) -> tuple[float, dict[str, np.ndarray]]:
    flat = density.flatten({k: jnp.asarray(z[k]) for k in density.shapes})
    value, slope = value_and_slope(density)(flat, data, params)
    return float(value), {k: np.asarray(v) for k, v in density.unflatten(np.asarray(slope)).items()}


def value_and_slope(density: Density) -> Any:
    """Compiled (flat, data, params) -> (log density, gradient)."""
    return cached(("slope", density.key), density.compile_slope)


def _params(translated: Translated, given: Mapping[str, Any]) -> dict[str, Any]:
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


def _baked_names(translated: Translated) -> tuple[str, ...]:
    import jax

    names = jax.tree_util.tree_unflatten(translated.layout.data, list(range(translated.layout.num_data)))
    paths = jax.tree_util.tree_leaves_with_path(names)
    return tuple(
        ".".join(str(getattr(k, "key", k)) for k in path) for path, i in paths if i in translated.baked
    )


def _record(translated: Translated, found: Check) -> dict[str, Any]:
    return {"num_ops": translated.plan.num_ops, "baked": list(_baked_names(translated)), **_figures(found)}


def _figures(found: Check) -> dict[str, Any]:
    return {
        "num_points": found.num_points,
        "value_error": found.value_error,
        "gradient_error": found.gradient_error,
        "passed": found.passed,
    }


__all__ = ["Check", "Translation", "TranslationError", "register_rule", "translate"]
