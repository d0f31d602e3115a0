"""posteriordb's low_dim_gauss_mix as a plain Pyro function with a hand-written twin, and run by Pyro itself.

Through the automatic translation it is in test_translate_posteriordb.py; the rule is in
tests/posteriordb/_rule.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ppl_lvm as lvm
from tests.posteriordb._rule import check
from tests.posteriordb.low_dim_gauss_mix import CASE


def numpyro_program(y):
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    first = numpyro.sample("mu_low", dist.Normal(0.0, 2.0))
    gap = numpyro.sample("gap", dist.ImproperUniform(dist.constraints.positive, (), ()))
    numpyro.factor("mu_high_prior", dist.Normal(0.0, 2.0).log_prob(first + gap))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    mu = jnp.stack([first, first + gap])
    log_w = jnp.log(jnp.stack([theta, 1 - theta]))
    with numpyro.plate("data", len(y)):
        each = log_w[:, None] + dist.Normal(mu[:, None], sigma[:, None]).log_prob(y)
        numpyro.factor("y", jax.nn.logsumexp(each, axis=0))


def test_twin_on_jax_meets_the_rule(shared_data: Path) -> None:
    model = lvm.Model(CASE.function, numpyro=numpyro_program)
    engine = lvm.NUTS(backend="numpyro", num_warmup=1000, num_samples=2500)
    fit = lvm.fit(model, CASE.data(shared_data), engine, seed=0)
    assert fit.status.details["divergences"] == 0
    assert "translation" not in fit.meta
    check(CASE.quantities(fit.posterior), CASE.reference(shared_data), 4000)


@pytest.mark.slow
def test_pyro_agrees(shared_data: Path) -> None:
    engine = lvm.NUTS(backend="pyro", num_warmup=200, num_samples=350, num_chains=4)
    fit = lvm.fit(CASE.function, CASE.data(shared_data), engine, seed=0)
    check(CASE.quantities(fit.posterior), CASE.reference(shared_data), 400)


def test_without_a_twin_the_program_is_translated(shared_data: Path) -> None:
    """A plain function needs no twin on JAX: its own density is compiled, and compared with Pyro's."""
    engine = lvm.NUTS(backend="numpyro", num_warmup=200, num_samples=50, num_chains=2)
    fit = lvm.fit(CASE.function, CASE.data(shared_data), engine, seed=0)
    assert fit.backend == "numpyro"
    record = fit.meta["translation"]
    assert record["passed"]
    assert record["at_draws"]["passed"]
    assert np.isfinite(fit.posterior["theta"].values).all()
