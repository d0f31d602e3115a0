"""posteriordb's hmm_example as a plain Pyro function with a hand-written twin, against its reference draws.

Two states, normal observations of variance 1, ordered positive means; the start is uniform (the reference
sums over it with weight one, which is a constant). The rule is in tests/posteriordb/_rule.py; without a twin
the program is in test_translate_posteriordb.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import ppl_lvm as lvm
from tests.helpers import compilations
from tests.posteriordb._rule import check
from tests.posteriordb.hmm_example import CASE_BY_STATES as CASE


def numpyro_program(y):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    from ppl_lvm.models.hmm._jax_forward import log_likelihood

    theta = [numpyro.sample(name, dist.Dirichlet(jnp.ones(2))) for name in ("theta1", "theta2")]
    low = numpyro.sample("mu_low", dist.ImproperUniform(dist.constraints.positive, (), ()))
    gap = numpyro.sample("gap", dist.ImproperUniform(dist.constraints.positive, (), ()))
    numpyro.factor("mu_low_prior", dist.Normal(3.0, 1.0).log_prob(low))
    numpyro.factor("mu_high_prior", dist.Normal(10.0, 1.0).log_prob(low + gap))
    mu = jnp.stack([low, low + gap])
    log_obs = dist.Normal(mu[:, None], 1.0).log_prob(y)[:, :, None]
    each = log_likelihood(jnp.full(2, 0.5), jnp.stack(theta), log_obs, jnp.array([len(y)]))
    numpyro.factor("y", each.sum())


def test_densities_at_the_published_point(shared_data: Path) -> None:
    """Both programs at theta1 = (0.7, 0.3), theta2 = (0.1, 0.9), mu = (3, 9): values of the data's notes."""
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends.session import jax_session, torch_session
    from ppl_lvm.fitting import prepare

    y = CASE.data(shared_data)["y"]
    problem = prepare(lvm.Model(CASE.function, numpyro=numpyro_program), y)
    values = {
        "theta1": np.array([0.7, 0.3]),
        "theta2": np.array([0.1, 0.9]),
        "mu_low": np.array(3.0),
        "gap": np.array(6.0),
    }
    expected = -167.1297004473 - 2.3378770664  # to 10 decimals each
    with torch_session(0, "float64"):
        total = log_density(problem, {k: v[None] for k, v in values.items()}, {})[0]
    np.testing.assert_allclose(total, expected, atol=2e-10)
    with jax_session("float64"):
        density, data = density_of(problem)
        z = density.unconstrain(values, data, {})
        twin = float(density.total(z, data, {}) - density.log_jacobian(z, data, {}))
    np.testing.assert_allclose(twin, expected, atol=2e-10)


@pytest.mark.slow
def test_twin_on_jax_meets_the_rule(shared_data: Path) -> None:
    """Within the rule at 4 x 2,500 draws, and 4 x 1,000 in 60 s once the program is compiled."""
    y = CASE.data(shared_data)["y"]
    model = lvm.Model(CASE.function, numpyro=numpyro_program)
    engine = lvm.NUTS(backend="numpyro", num_warmup=1000, num_samples=1000, num_chains=4)
    lvm.fit(model, y, engine, seed=1)
    with compilations() as compiled:
        began = time.perf_counter()
        lvm.fit(model, y, engine, seed=0)
        seconds = time.perf_counter() - began
    assert not compiled
    assert seconds < 60
    long = lvm.NUTS(backend="numpyro", num_warmup=1000, num_samples=2500, num_chains=4)
    fit = lvm.fit(model, y, long, seed=0)
    assert fit.status.details["divergences"] == 0
    check(CASE.quantities(fit.posterior), CASE.reference(shared_data), 4000)
