"""Plain Pyro programs beside the NumPyro twins that one would write by hand, with data, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import torch

from benchmarks.workloads import factor_data, gaussian_mixture_nuts


class Case(NamedTuple):
    program: Callable[..., Any]
    twin: Callable[..., Any]
    data: Mapping[str, Any]


def eight_schools(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(mu + tau * theta, sigma), obs=y)


def eight_schools_twin(y, sigma):
    mu = numpyro.sample("mu", ndist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", ndist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        theta = numpyro.sample("theta", ndist.Normal(0.0, 1.0))
        numpyro.sample("obs", ndist.Normal(mu + tau * theta, sigma), obs=y)


def mixture(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((3,), 2.0)))
    with pyro.plate("component", 3):
        loc = pyro.sample("loc", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(loc[z], scale[z]).to_event(1), obs=x)


def mixture_twin(x):
    weights = numpyro.sample("weights", ndist.Dirichlet(jnp.full(3, 2.0)))
    with numpyro.plate("component", 3):
        loc = numpyro.sample("loc", ndist.Normal(0.0, 5.0).expand([2]).to_event(1))
        scale = numpyro.sample("scale", ndist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
    parts = ndist.Normal(loc, scale).to_event(1)
    with numpyro.plate("data", len(x)):
        numpyro.sample("obs", ndist.MixtureSameFamily(ndist.Categorical(weights), parts), obs=x)


def ppca(x, q):
    d = x.shape[-1]
    loadings = pyro.sample("loadings", dist.Normal(torch.zeros(d, q), 1.0).to_event(2))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    rows = dist.LowRankMultivariateNormal(torch.zeros(d), loadings, noise**2 * torch.ones(d))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", rows, obs=x)


def ppca_twin(x, q):
    d = x.shape[-1]
    loadings = numpyro.sample("loadings", ndist.Normal(jnp.zeros((d, q)), 1.0).to_event(2))
    noise = numpyro.sample("noise", ndist.HalfNormal(1.0))
    rows = ndist.LowRankMultivariateNormal(jnp.zeros(d), loadings, noise**2 * jnp.ones(d))
    with numpyro.plate("data", len(x)):
        numpyro.sample("obs", rows, obs=x)


def ppca_explicit(x, q):
    d = x.shape[-1]
    loadings = pyro.sample("loadings", dist.Normal(torch.zeros(d, q), 1.0).to_event(2))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(q), 1.0).to_event(1))
        pyro.sample("obs", dist.Normal(z @ loadings.T, noise).to_event(1), obs=x)


def ppca_explicit_twin(x, q):
    d = x.shape[-1]
    loadings = numpyro.sample("loadings", ndist.Normal(jnp.zeros((d, q)), 1.0).to_event(2))
    noise = numpyro.sample("noise", ndist.HalfNormal(1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ndist.Normal(jnp.zeros(q), 1.0).to_event(1))
        numpyro.sample("obs", ndist.Normal(z @ loadings.T, noise).to_event(1), obs=x)


def logit(x, group, y):
    num_groups = 20
    beta = pyro.sample("beta", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("groups", num_groups):
        alpha = pyro.sample("alpha", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Bernoulli(logits=tau * alpha[group] + x @ beta), obs=y)


def logit_twin(x, group, y):
    beta = numpyro.sample("beta", ndist.Normal(jnp.zeros(x.shape[-1]), 1.0).to_event(1))
    tau = numpyro.sample("tau", ndist.HalfNormal(1.0))
    with numpyro.plate("groups", 20):
        alpha = numpyro.sample("alpha", ndist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", ndist.Bernoulli(logits=tau * alpha[group] + x @ beta), obs=y)


def hmm(x):
    k = 3
    start = pyro.sample("start", dist.Dirichlet(torch.ones(k)))
    transition = pyro.sample("transition", dist.Dirichlet(torch.ones(k, k)).to_event(1))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(k), 3.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(k)).to_event(1))
    with pyro.plate("sequences", len(x)):
        pyro.sample(
            "obs",
            dist.DiscreteHMM(start.log(), transition.log(), dist.Normal(loc, scale), duration=x.shape[1]),
            obs=x,
        )


def hmm_twin(x):
    k = 3
    start = numpyro.sample("start", ndist.Dirichlet(jnp.ones(k)))
    transition = numpyro.sample("transition", ndist.Dirichlet(jnp.ones((k, k))).to_event(1))
    loc = numpyro.sample("loc", ndist.Normal(jnp.zeros(k), 3.0).to_event(1))
    scale = numpyro.sample("scale", ndist.HalfNormal(jnp.ones(k)).to_event(1))
    log_obs = ndist.Normal(loc, scale).log_prob(x[..., None])
    log_transition = jnp.log(transition)

    def step(alpha: Any, own: Any) -> Any:
        return jax.nn.logsumexp(alpha[:, :, None] + log_transition, axis=1) + own, None

    # Pyro's DiscreteHMM moves before it observes, so that the start lies a step before the first datum
    begin = jnp.broadcast_to(jnp.log(start), (len(x), k))
    last, _ = jax.lax.scan(step, begin, jnp.moveaxis(log_obs, 1, 0))
    with numpyro.plate("sequences", len(x)):
        numpyro.factor("obs", jax.nn.logsumexp(last, axis=1))


def cases() -> dict[str, Case]:
    rng = np.random.default_rng(5)
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    x = rng.standard_normal((500, 4))
    group = rng.integers(0, 20, 500)
    chance = 1 / (1 + np.exp(-(x @ np.array([1.0, -0.5, 0.3, 0.0]) + 0.7 * rng.standard_normal(20)[group])))
    answers = (rng.random(500) < chance).astype(float)
    factors = {"x": factor_data(500, 10, 2), "q": 2}
    steps = np.cumsum(rng.standard_normal((8, 30)), 1)
    return {
        "eight_schools": Case(eight_schools, eight_schools_twin, {"y": y, "sigma": sigma}),
        "mixture": Case(mixture, mixture_twin, {"x": gaussian_mixture_nuts(500)["x"]}),
        "ppca": Case(ppca, ppca_twin, factors),
        "ppca_explicit": Case(ppca_explicit, ppca_explicit_twin, factors),
        "hierarchical_logit": Case(logit, logit_twin, {"x": x, "group": group, "y": answers}),
        "hmm": Case(hmm, hmm_twin, {"x": steps}),
    }
