"""One-parameter posteriors that are not normal, by closed form or quadrature.

A gamma prior with Poisson counts (gamma posterior), a beta prior with Bernoulli trials (beta), a log-normal,
a location with Student-t noise and an outlier, an exponential one with its mode at the edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
from scipy import stats

import ppl_lvm as lvm
from ppl_lvm import SVI, ImportanceSampling

from .case import Case, Target, Truth, by_engine, exact_reference, moments_on_grid, sample_grid
from .gaussians import CHAINS, MEAN_FIELD, SHORT


def counts(y, shape):
    rate = pyro.sample("rate", dist.Gamma(shape, 0.1))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Poisson(rate), obs=y)


def trials(y):
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Bernoulli(p), obs=y)


def scale_of(y, scale):
    x = pyro.sample("x", dist.LogNormal(0.0, 3.0))
    pyro.sample("obs", dist.Normal(x.log(), scale), obs=y)


def location(y):
    x = pyro.sample("x", dist.Normal(0.0, 10.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.StudentT(3.0, x, 1.0), obs=y)


def _frozen(name: str, model: Any, data: dict[str, Any], site: str, posterior: Any) -> Target:
    def truth() -> Truth:
        return {site: (float(posterior.mean()), float(posterior.std()))}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        return {site: posterior.rvs(num, random_state=rng)}

    return Target(name, model, data, truth, exact_reference(model, data, sampler), "closed form")


def _on_grid(
    name: str, model: Any, data: dict[str, Any], grid: np.ndarray, log_density: np.ndarray
) -> Target:
    def truth() -> Truth:
        return moments_on_grid(log_density, {"x": grid})

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        return {"x": sample_grid(rng, num, grid, log_density)}

    return Target(name, model, data, truth, exact_reference(model, data, sampler), "quadrature")


def cases() -> list[Case]:
    few = np.array([0.0, 1.0])
    gamma = _frozen(
        "gamma of shape 3", counts, {"y": few, "shape": 2.0}, "rate", stats.gamma(3.0, scale=1 / 2.1)
    )
    edge = _frozen(
        "gamma of shape 0.6",
        counts,
        {"y": np.zeros(2), "shape": 0.6},
        "rate",
        stats.gamma(0.6, scale=1 / 2.1),
    )
    beta = _frozen("beta(1, 9)", trials, {"y": np.zeros(8)}, "p", stats.beta(1, 9))
    precision = 1 / 9 + 1 / 0.6**2
    centre, sd = 1.2 / 0.6**2 / precision, precision**-0.5
    lognormal = _frozen(
        "log-normal",
        scale_of,
        {"y": np.array(1.2), "scale": 0.6},
        "x",
        stats.lognorm(sd, scale=np.exp(centre)),
    )
    y = np.array([-0.3, 0.2, 0.5, 9.0])
    grid = np.linspace(-15, 20, 20001)
    student = stats.t(3).logpdf(y[:, None] - grid).sum(0) + stats.norm(0, 10).logpdf(grid)
    outlier = _on_grid("a location and an outlier", location, {"y": y}, grid, student)

    def case(name: str, target: Target, engine: lvm.Engine, expected: str, why: str, **more: Any) -> Case:
        return Case(name, target, by_engine(target, engine, **more), expected, why)

    far = SVI(backend="numpyro", num_steps=60, window=20, learning_rate=0.02)
    prior = ImportanceSampling(num_samples=2000, backend="numpyro")
    return [
        case("gamma, mean field", gamma, MEAN_FIELD, "means_and_spreads", "nearly normal in the log"),
        case("gamma, NUTS", gamma, CHAINS, "means_and_spreads", "unbiased"),
        case("gamma, prior weighed", gamma, prior, "short", "2000 draws of a wide prior: some 80 count"),
        case("gamma at the edge, mean field", edge, MEAN_FIELD, "varies", "long left tail of the log"),
        case("gamma at the edge, NUTS", edge, CHAINS, "means_and_spreads", "unbiased"),
        case("beta, mean field", beta, MEAN_FIELD, "means_and_spreads", "nearly normal in the logit"),
        case("log-normal, mean field", lognormal, MEAN_FIELD, "means_and_spreads", "exact in the log"),
        case("log-normal, unconverged", lognormal, far, "varies", "60 steps of 0.02"),
        case("log-normal, NUTS", lognormal, CHAINS, "means_and_spreads", "unbiased"),
        case("log-normal, NUTS too short", lognormal, SHORT, "short", "24 draws after a full warm-up"),
        case("outlier, mean field", outlier, MEAN_FIELD, "varies", "a shoulder at the outlier"),
        case("outlier, NUTS", outlier, CHAINS, "means_and_spreads", "unbiased"),
    ]
