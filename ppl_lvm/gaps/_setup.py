"""What every function here starts from: a trained fit at some data, one datum at a time on the JAX side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.amortised import at, is_amortised, rows_of
from ppl_lvm.backends.amortised import amortised
from ppl_lvm.core import Problem
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    from ppl_lvm.backends._jax_rows import Rows
    from ppl_lvm.backends._numpyro_evaluate import JaxEvaluator
    from ppl_lvm.gaps._jax_ais import Base

_DRAWS = 500  # of q, from which its mean and covariance come where it is not normal


@dataclass(frozen=True)
class Setup:
    """A problem with its evaluations and params on the JAX side; ``base`` is the encoder's q(z | x), or the
    normal distribution with its mean and covariance where q is not normal itself (``normal`` is False)."""

    problem: Problem
    of: JaxEvaluator
    params: Mapping[str, np.ndarray]
    rows: Rows
    base: Base
    normal: bool

    @property
    def arguments(self) -> dict[str, np.ndarray]:
        return dict(rows_of(self.problem))

    @property
    def held(self) -> dict[str, Any]:
        """The params as arrays of the problem's dtype; inside a session."""
        return {k: np.asarray(v, self.problem.dtype) for k, v in self.params.items()}


@contextmanager
def setup(what: str, fit: Any, data: Any, *, seed: int, block: int) -> Iterator[Setup]:
    """A :class:`Setup` of a fit at data (its own if None), inside a session of its dtype.

    Raises
    ------
    TypeError, ValueError
        For anything but a fit of a model with an encoder, which runs on JAX.
    """
    from ppl_lvm.backends._jax_rows import rows_of as rows_on_jax
    from ppl_lvm.backends._numpyro_evaluate import JaxEvaluator
    from ppl_lvm.backends.session import jax_session

    check_fit(what, fit)
    problem, _, params = at(fit, data)
    if not amortised(problem, "numpyro"):
        raise ValueError(
            f"{what}: {fit.model.describe()} has no program and guide on JAX, where chains of all data run "
            "at once; describe its networks with lvm.networks, or give equinox modules."
        )
    with jax_session(problem.dtype):
        of = JaxEvaluator(problem)
        rows = rows_on_jax(problem, {k: np.asarray(v, problem.dtype) for k, v in params.items()})
        base, normal = _base(of, problem, params, rows, seed, block)
        yield Setup(problem, of, params, rows, base, normal)


def check_fit(what: str, fit: Any) -> None:
    if not isinstance(fit, Fit):
        raise TypeError(f"{what}: expected a Fit, got {type(fit).__name__}.")
    if not is_amortised(fit):
        raise ValueError(
            f"{what}: expected a fit of a model with an encoder, such as lvm.fit(models.VAE(), x, SVI()), "
            f"got one of {fit.model.describe()} by {type(fit.engine).__name__}."
        )


def _base(
    of: JaxEvaluator, problem: Problem, params: Mapping[str, Any], rows: Rows, seed: int, block: int
) -> tuple[Base, bool]:
    """The encoder's normal distribution; moments of draws where it is none, or its sites are not all real."""
    from ppl_lvm.gaps._jax_ais import Base

    data = rows_of(problem)
    real = all(_real(s) for s in problem.latents())
    same = of.programs.latents == list(rows.density.shapes)
    found = of.gaussian(params, data, seed, block) if real and same else None
    if found is not None:
        return Base(*(np.asarray(v) for v in found)), True
    drawn = of.draw(params, data, _DRAWS, seed, block)
    flat = unconstrained(rows, drawn, params, problem.dtype)  # (n, s, d)
    loc = flat.mean(1)
    spread = flat - loc[:, None]
    covariance = np.einsum("nsi,nsj->nij", spread, spread) / (_DRAWS - 1)
    tiny = 1e-6 * np.trace(covariance, axis1=1, axis2=2)[:, None, None] / flat.shape[2]
    root = np.linalg.cholesky(covariance + tiny * np.eye(flat.shape[2]))
    return Base(loc.astype(problem.dtype), root.astype(problem.dtype)), False


def _real(site: Any) -> bool:
    import torch

    constraint = site.constraint
    if constraint is None:
        return False
    probe = torch.tensor([-1e3, 0.0, 1e3]).reshape(3, *[1] * len(site.shape)).expand(3, *site.shape)
    return bool(constraint.check(probe).all())


def unconstrained(
    rows: Rows, values: Mapping[str, np.ndarray], params: Mapping[str, Any], dtype: str
) -> np.ndarray:
    """Values (s, n, ...) by site as flat unconstrained points (n, s, d)."""
    import jax
    import jax.numpy as jnp

    from ppl_lvm.backends._numpyro import cached

    def one(values: Any, row: Any, shared: Any, params: Any) -> Any:
        own = {k: v[None] for k, v in values.items()}
        return rows.density.flatten(rows.density.unconstrain(own, {**row, **shared}, params))

    def build() -> Any:
        over_draws = jax.vmap(one, in_axes=(0, None, None, None))
        return jax.jit(jax.vmap(over_draws, in_axes=(1, 0, None, None)))

    both = cached(("unconstrain rows", rows.density.key), build)
    given = {k: jnp.asarray(v, dtype) for k, v in values.items()}
    held = {k: jnp.asarray(v, dtype) for k, v in params.items()}
    return np.asarray(both(given, rows.data, rows.shared, held))


__all__ = ["Setup", "check_fit", "setup", "unconstrained"]
