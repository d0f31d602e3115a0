"""The NumPyro twin: the same continuous sites, the labels summed out by hand in one factor."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_lvm.emissions import Emission
from ppl_lvm.emissions._base import jax_library


def model(
    x: Array,
    prior: Mapping[str, Array],
    seen: Array | None = None,
    *,
    num_components: int,
    emission: Emission,
) -> None:
    """Marginal mixture; x (n, d), ``prior`` and ``seen`` (n, d) as in ``Mixture.arguments``."""
    n, d = x.shape
    weights = numpyro.sample("weights", dist.Dirichlet(prior["concentration"]))
    table = emission.sites(num_components, d)
    params = {name: numpyro.sample(name, site.build(dist, prior)) for name, site in table.items()}
    with numpyro.plate("data", n):
        log_joint = jnp.log(weights)[:, None] + emission.log_prob(jax_library(), params, x, seen)  # (k, n)
        numpyro.factor("obs", jax.nn.logsumexp(log_joint, axis=0))
