"""posteriordb's low_dim_gauss_mix as a plain Pyro function, against its long-run reference draws.

The rule: R-hat <= 1.01, the asked effective sizes, and mean, log sd, 5 % and 95 % quantiles each within four
combined standard errors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import ppl_lvm as lvm

NAME = "low_dim_gauss_mix-low_dim_gauss_mix"


@pytest.fixture(scope="module")
def case(shared_data: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    folder = shared_data / "posteriordb" / NAME
    y = np.asarray(json.loads((folder / "data.json").read_text())["y"], dtype=float)
    with np.load(folder / "reference_draws.npz") as stored:
        draws = {k: stored[k] for k in stored.files}
    return y, draws


def pyro_program(y):
    """mu is ordered: its prior is the un-truncated product, so the density differs by a constant only."""
    import pyro
    import pyro.distributions as dist
    import torch

    first = pyro.sample("mu_low", dist.Normal(0.0, 2.0))
    gap = pyro.sample("gap", dist.ImproperUniform(pyro.distributions.constraints.positive, (), ()))
    pyro.factor("mu_high_prior", dist.Normal(0.0, 2.0).log_prob(first + gap))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    mu = torch.stack([first, first + gap], -1)
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.stack([theta, 1 - theta], -1)))
        pyro.sample("y", dist.Normal(mu[z], sigma[z]), obs=y)


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


def named(fit: lvm.Fit) -> dict[str, np.ndarray]:
    """Draws (chain, draw) by the reference's parameter names."""
    p = fit.posterior
    return {
        "theta": p["theta"].values,
        "mu[1]": p["mu_low"].values,
        "mu[2]": (p["mu_low"] + p["gap"]).values,
        "sigma[1]": p["sigma"].values[..., 0],
        "sigma[2]": p["sigma"].values[..., 1],
    }


def reference(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out = {}
    for name, value in draws.items():
        if value.ndim == 2:
            out[name] = value
        else:
            out |= {f"{name}[{i + 1}]": value[..., i] for i in range(value.shape[-1])}
    return out


def check(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], least_ess: float) -> None:
    from arviz_stats.base import array_stats

    def errors(x: np.ndarray) -> dict[str, tuple[float, float]]:
        def mcse(method: str, **more: float) -> float:
            return float(array_stats.mcse(x, chain_axis=0, draw_axis=1, method=method, **more))

        sd = x.std(ddof=1)
        return {
            "mean": (x.mean(), mcse("mean")),
            "log sd": (math.log(sd), mcse("sd") / sd),
            "5 %": (np.quantile(x, 0.05), mcse("quantile", prob=0.05)),
            "95 %": (np.quantile(x, 0.95), mcse("quantile", prob=0.95)),
        }

    assert set(ours) == set(theirs)
    for name in ours:
        x = ours[name]
        for method, more in (("bulk", {}), ("tail", {"prob": (0.05, 0.95)})):
            ess = float(array_stats.ess(x, chain_axis=0, draw_axis=1, method=method, **more))
            assert ess >= least_ess, (name, method, ess)
        assert float(array_stats.rhat(x, chain_axis=0, draw_axis=1)) <= 1.01, name
        mine, other = errors(x), errors(theirs[name])
        for what in mine:
            gap = mine[what][0] - other[what][0]
            error = math.hypot(mine[what][1], other[what][1])
            assert abs(gap) < 4 * error, (name, what, gap, error)


def test_twin_on_jax_meets_the_rule(case) -> None:
    y, draws = case
    model = lvm.Model(pyro_program, numpyro=numpyro_program)
    fit = lvm.fit(model, y, lvm.NUTS(backend="numpyro", num_warmup=1000, num_samples=2500), seed=0)
    assert fit.status.details["divergences"] == 0
    check(named(fit), reference(draws), 4000)


@pytest.mark.slow
def test_pyro_agrees(case) -> None:
    y, draws = case
    engine = lvm.NUTS(backend="pyro", num_warmup=200, num_samples=350, num_chains=4)
    fit = lvm.fit(pyro_program, y, engine, seed=0)
    check(named(fit), reference(draws), 400)


def test_without_a_twin_numpyro_is_refused_in_words(case) -> None:
    y, _ = case
    with pytest.raises(ValueError, match=r"no NumPyro twin.*numpyro=twin"):
        lvm.fit(pyro_program, y, lvm.NUTS(backend="numpyro"))
