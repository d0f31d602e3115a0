"""Importance sampling on the JAX side: draws of the prior or of a fitted guide, by vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl_lvm.backends._jax_guides import build_guide, guide_key
from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._convergence import symmetrised_log_q
from ppl_lvm.engines._jax_weights import guide_functions
from ppl_lvm.engines._units import Units
from ppl_lvm.engines.importance import draw_in_blocks, stream

if TYPE_CHECKING:
    from ppl_lvm.engines.importance import ImportanceSampling

Weighed = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, str]


def weigh(
    engine: ImportanceSampling, problem: Problem, run: Run, params: dict[str, np.ndarray], units: Units
) -> Weighed:
    """Values (s, ...), log p, log q (both in constrained space) and a note on labels."""
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        if isinstance(engine.proposal, str):
            weigh_at = _mapped(("prior", density.key), _weigh_prior(density))

            def weighed(block: int, num: int) -> Any:
                z = _prior_draws(density, run.word(stream(20, block)), num, data, params)
                return weigh_at(z, data, held)

            return *draw_in_blocks(engine.num_samples, units, weighed), ""
        fit = engine.proposal
        guide = build_guide(problem, density, fit.engine.guide, {}, jnp.zeros(density.size))
        own = {k: jnp.asarray(v) for k, v in fit.params.items() if k not in density.params}
        free = guide.unconstrain(own)
        functions = guide_functions(guide_key(problem, fit.engine.guide), density, guide, data, held)

        def drawn(block: int, num: int) -> Any:
            return functions.draw(free, run.word(stream(24, block)), num)[:3]

        values, log_p, log_q = draw_in_blocks(engine.num_samples, units, drawn)
        log_q, note = symmetrised_log_q(problem, values, log_q, lambda v: functions.log_q_at(free, v))
        return values, log_p, log_q, note


def _prior_draws(density: Density, seed: int, num: int, data: Any, params: dict[str, np.ndarray]) -> Any:
    """Unconstrained draws of the prior, leading axis ``num``."""
    if density.draw_prior is not None:
        return {k: jnp.asarray(v) for k, v in density.draw_prior(seed, num, params).items()}
    if density.sample_prior is None:
        raise ValueError("ImportanceSampling: the prior cannot be drawn from; use a fit as proposal.")
    draw = _mapped(("prior draws", density.key), density.sample_prior)
    keys = jax.random.split(jax.random.key(seed), num)
    return draw(keys, data, {k: jnp.asarray(v) for k, v in params.items()})


def _mapped(key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled once a key, and mapped over the first argument."""
    return cached(key, lambda: jax.jit(jax.vmap(function, in_axes=(0, None, None))))


def _weigh_prior(density: Density) -> Any:
    def one(z: Any, data: Any, params: Any) -> Any:
        jacobian = density.log_jacobian(z, data, params)
        log_p = density.total(z, data, params) - jacobian
        log_q = density.log_prior(z, data, params) - jacobian
        return density.constrain(z, data, params), log_p, log_q

    return one
