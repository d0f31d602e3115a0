"""``translate``: the automatic twin of a Pyro model as an object (:mod:`ppl_lvm.backends.translate`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.backends.session import jax_session, random_states_restored
from ppl_lvm.core import Problem
from ppl_lvm.fitting import prepare

if TYPE_CHECKING:
    from ppl_lvm.backends.density import Density
    from ppl_lvm.backends.translate import Check


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
    operators: Counter[str]
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
        from ppl_lvm.backends.translate import evaluate

        given = {k: np.shape(v) for k, v in z.items()}
        wrong = [k for k, shape in self.shapes.items() if given.get(k) != tuple(shape)]
        if wrong:
            raise ValueError(
                f"z: expected unconstrained shapes {dict(self.shapes)}, got {given} (wrong: {wrong})."
            )
        with jax_session(self.dtype):
            return evaluate(self.density, z, self._data, self._params)

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
        "float64" or "float32"; None: float32 where the program has networks, else float64.

    Raises
    ------
    ValueError
        (``TranslationError``) with model, site, source line and way out, if the program cannot be translated
        or the translation disagrees with Pyro.
    """
    with random_states_restored():
        problem = prepare(model, data, dtype=dtype)
        with jax_session(problem.dtype):
            return _translation(problem, params or {})


def _translation(problem: Problem, params: Mapping[str, Any]) -> Translation:
    from ppl_lvm.backends._numpyro import arrays_of
    from ppl_lvm.backends.translate import baked_names, checked, params_at, translated_program

    translated = translated_program(problem)
    given = params_at(translated, params)
    translated, found = checked(problem, translated, given)
    arrays = arrays_of(problem.arguments)
    return Translation(
        model=problem.model.describe(),
        dtype=problem.dtype,
        density=translated.density(),
        check=found,
        num_ops=translated.plan.num_ops,
        operators=Counter(translated.plan.operators),
        baked=baked_names(translated),
        _data=arrays,
        _params=given,
    )
