"""The NumPyro twin: the same continuous sites, states summed out by the forward recursion in one factor."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_lvm.emissions import Emission
from ppl_lvm.models.hmm._jax_densities import log_densities, time_major
from ppl_lvm.models.hmm._jax_forward import log_likelihood, stationary
from ppl_lvm.models.hmm._layout import site_table


def model(
    x: Array,
    lengths: Array,
    prior: Mapping[str, Array],
    seen: Array | None = None,
    *,
    num_states: int,
    emission: Emission,
    initial: str,
) -> None:
    """Marginal HMM; x (S, T, d) and the other arguments as in ``HMM.arguments``."""
    table = site_table(num_states, x.shape[-1], emission, initial)
    values = {name: numpyro.sample(name, site.build(dist, prior)) for name, site in table.items()}
    transition = values.pop("transition")
    if initial == "free":
        start = values.pop("initial")
    elif initial == "stationary":
        start = stationary(transition)
    else:
        start = jnp.full(num_states, 1.0 / num_states, transition.dtype)
    valid = jnp.arange(x.shape[1])[:, None] < lengths
    own_seen = None if seen is None else time_major(seen)
    log_obs = log_densities(emission, values, time_major(x), own_seen, valid)
    with numpyro.plate("sequence", x.shape[0]):
        numpyro.factor("obs", log_likelihood(start, transition, log_obs, lengths))
