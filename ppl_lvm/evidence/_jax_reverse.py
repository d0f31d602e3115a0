"""The compiled part of :func:`ppl_lvm.sandwich`: annealing forwards from the prior, backwards from a draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl_lvm.backends._numpyro import cached, density_of
from ppl_lvm.backends.density import Density
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Problem, Run
from ppl_lvm.engines._jax_annealing import (
    PILOT,
    Particles,
    Schedule,
    evaluate,
    finer,
    mover,
    pilot,
    prior_particles,
)
from ppl_lvm.engines._jax_smc import forward_ais, reverse_ais
from ppl_lvm.progress import bar

_SPREAD = 50  # moves that carry the chains apart before they go back


class Weights(NamedTuple):
    """Log weights (runs, particles) of forward and of reverse annealing."""

    forward: np.ndarray
    reverse: np.ndarray


def both_ways(
    problem: Problem,
    run: Run,
    params: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    *,
    runs: int,
    particles: int,
    temperatures: int,
) -> Weights:
    """Anneal from draws of the prior to the posterior, and back from the exact draw ``truth`` of it.

    The path is tuned on particles of its own, which know nothing of ``truth``: given the data it is fixed, as
    the bounds need it. The reverse chains first move ``_SPREAD`` times at temperature 1, which leaves each an
    exact draw of the posterior.
    """
    with jax_session(problem.dtype):
        density, data = density_of(problem)
        held = {k: jnp.asarray(v) for k, v in params.items()}
        start = prior_particles(density, run, 41, PILOT + runs * particles, data, held)
        rough = pilot(density, problem, run, start[:PILOT], data, held, ess=0.5, moves=2)
        schedule = finer(rough, temperatures)
        own = {k: jnp.asarray(v, start.dtype) for k, v in truth.items()}
        exact = density.flatten(density.unconstrain(own, data, held))
        own_starts = start[PILOT:].reshape(runs, particles, -1)
        keys = jax.random.split(jax.random.key(run.word(53)), (runs, 3))
        there, back = [], []
        with bar(2 * runs, "sandwich", run.progress) as tick:
            for key, begin in zip(keys, own_starts, strict=True):
                there.append(forward_ais(density, key[0], begin, schedule, data, held))
                tick(1)
                same = jnp.broadcast_to(exact, begin.shape)
                apart = _spread(density, key[1], same, schedule, data, held)
                back.append(reverse_ais(density, key[2], apart, schedule, data, held))
                tick(1)
    return Weights(np.stack(there), np.stack(back))


def _spread(density: Density, key: Any, z: Any, schedule: Schedule, data: Any, params: Any) -> Any:
    """Points z (n, size) after Hamiltonian moves that leave the posterior as it is."""
    at, move = jax.vmap(evaluate(density), in_axes=(0, None, None)), mover(density)

    def once(key: Any, z: Any, last: Schedule, data: Any, params: Any) -> Any:
        def again(particles: Particles, key: Any) -> tuple[Particles, None]:
            return move(key, particles, *last, data, params)[0], None

        begin = Particles(z, *at(z, data, params))
        return lax.scan(again, begin, jax.random.split(key, _SPREAD))[0].z

    last = Schedule(*(v[-1] for v in schedule))
    compiled = cached(("spread", density.key, z.shape), lambda: jax.jit(once))
    return compiled(key, z, last, data, params)


__all__ = ["Weights", "both_ways"]
