"""The E-step of Baum-Welch compiled by JAX: what :func:`._em_estep.e_step` computes, several times faster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ppl_lvm.backends.session import jax_session
from ppl_lvm.emissions import Emission
from ppl_lvm.models.hmm._em_estep import EStep, Expected
from ppl_lvm.models.hmm._forward import LEAST_STATE, LEAST_TRANSITION
from ppl_lvm.models.hmm._jax_densities import log_densities
from ppl_lvm.models.hmm._jax_forward import smooth, sum_states, weighted_counts
from ppl_lvm.models.hmm._layout import Rows, emission_values, start_distribution

_LOG_ZERO = -1e30  # stands for minus infinity where that would give NaN derivatives


def e_step(emission: Emission, initial: str, rows: Rows) -> EStep:
    """A function of values, in float64; the compiled programs are shared by emissions of one structure."""
    with jax_session("float64"):
        held = tuple(None if v is None else jnp.asarray(v) for v in (rows.x, rows.seen, rows.valid))
    scaled, in_logs = _programs(_Structure(emission))
    inside = rows.valid.ravel() if rows.padded else None

    def run(values: Mapping[str, np.ndarray]) -> Expected:
        transition = np.asarray(values["transition"], dtype=float)
        start = start_distribution(values, initial)
        params = emission_values(values)
        with jax_session("float64"):
            sparse = bool(transition.min() < LEAST_TRANSITION)
            found = scaled(start, transition, params, *held, sparse)
            if not np.isfinite(float(found[0])) or (sparse and float(found[4]) < LEAST_STATE):
                found = in_logs(start, transition, params, *held)
            total, states, first, pairs = float(found[0]), *(np.asarray(v) for v in found[1:4])
        states = states.reshape(len(states), -1)
        return Expected(total, states if inside is None else states[:, inside], first, pairs)

    return run


class _Structure:
    """An emission that compares by its structure: hyperparameters do not enter the programs."""

    def __init__(self, emission: Emission) -> None:
        self.emission = emission

    def __hash__(self) -> int:
        return hash(self.emission.structure)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self.emission.structure == other.emission.structure


@functools.lru_cache(maxsize=32)
def _programs(structure: _Structure) -> tuple[Callable[..., Any], Callable[..., Any]]:
    emission = structure.emission

    def scaled(
        start: Array, transition: Array, params: Any, x: Array, seen: Array, valid: Array, sparse: bool
    ) -> Any:
        found = smooth(start, transition, log_densities(emission, params, x, seen, valid))
        first, pairs, states = weighted_counts(transition, found, valid.sum(0), jnp.ones(valid.shape[1]))
        least = (found.alpha / sum_states(found.alpha)).min() if sparse else 1.0
        return found.log_likelihood.sum(), states, start * first, transition * pairs, least

    def in_logs(start: Array, transition: Array, params: Any, x: Array, seen: Array, valid: Array) -> Any:
        log_obs = log_densities(emission, params, x, seen, valid)
        logs = [jnp.maximum(jnp.log(v), _LOG_ZERO) for v in (start, transition)]
        total, slopes = jax.value_and_grad(_log_space, (0, 1, 2))(
            *logs, jnp.maximum(log_obs, _LOG_ZERO), valid
        )
        return total, slopes[2], slopes[0], slopes[1]

    return jax.jit(scaled, static_argnums=6), jax.jit(in_logs)


def _log_space(log_start: Array, log_transition: Array, log_obs: Array, valid: Array) -> Array:
    """Log likelihood of all sequences, never underflowing; its derivatives are the expected counts."""

    def step(here: Array, at: Any) -> tuple[Array, None]:
        own, there = at
        ahead = jax.nn.logsumexp(here[:, None] + log_transition[:, :, None], axis=0) + own
        return jnp.where(there, ahead, here), None

    first = log_start[:, None] + log_obs[:, 0]
    last, _ = lax.scan(step, first, (log_obs[:, 1:].transpose(1, 0, 2), valid[1:]))
    return jax.nn.logsumexp(last, axis=0).sum()
