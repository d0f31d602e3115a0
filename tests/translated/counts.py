"""Counts: Poisson and negative binomial regressions, zero inflation three ways, hurdle, beta-binomial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _counts() -> dict[str, Any]:
    r = rng(12)
    x = r.normal(size=9)
    y = r.poisson(np.exp(0.5 + 0.4 * x)) * (r.uniform(size=9) < 0.6)
    return {"x": x, "y": y}


@zoo(_counts, "Poisson with a log link and an offset, integer data")
def poisson_regression(x: Any, y: Any) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
    slope = pyro.sample("slope", dist.Laplace(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson((intercept + slope * x + np.log(2.0)).exp()), obs=y)


@zoo(_counts, "ZeroInflatedPoisson with a gate in logits")
def zero_inflated_poisson(x: Any, y: Any) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.ZeroInflatedPoisson(rate * (slope * x).exp(), gate=gate), obs=y)


@zoo(_counts, "zero inflation by an enumerated Bernoulli", enumerated=True)
def zero_inflated_enumerated(x: Any, y: Any) -> None:
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        present = pyro.sample("present", dist.Bernoulli(logits=slope * x))
        pyro.sample("y", dist.Poisson(rate * present + 1e-6), obs=y)


@zoo(_counts, "NegativeBinomial by total_count and logits")
def negative_binomial(x: Any, y: Any) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    size = pyro.sample("size", dist.Gamma(2.0, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.NegativeBinomial(size, logits=intercept + slope * x - size.log()), obs=y)


@zoo(_counts, "ZeroInflatedNegativeBinomial with gate logits by datum", quick=False)
def zero_inflated_negative_binomial(x: Any, y: Any) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
    size = pyro.sample("size", dist.Exponential(0.5))
    gate = pyro.sample("gate", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        fn = dist.ZeroInflatedNegativeBinomial(
            size, logits=intercept.expand(x.shape), gate_logits=gate[0] + gate[1] * x
        )
        pyro.sample("y", fn, obs=y)


@zoo(_counts, "GammaPoisson: the negative binomial by shape and rate")
def gamma_poisson(x: Any, y: Any) -> None:
    shape = pyro.sample("shape", dist.Gamma(2.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.GammaPoisson(shape, (slope * x).exp()), obs=y)


@zoo(_counts, "hurdle: torch.where between two log densities in a factor by datum")
def hurdle(x: Any, y: Any) -> None:
    prob = pyro.sample("prob", dist.Beta(2.0, 2.0))
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        positive = dist.Poisson(rate).log_prob(y) - torch.log1p(-torch.exp(-rate)) + torch.log(prob)
        pyro.factor("y", torch.where(y > 0, positive, torch.log1p(-prob)))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def _trials() -> dict[str, Any]:
    r = rng(13)
    trials = r.integers(4, 10, size=6)
    return {"trials": trials, "y": r.binomial(trials, 0.3)}


@zoo(_trials, "BetaBinomial, its two shapes by mean and size", quick=False)
def beta_binomial(trials: Any, y: Any) -> None:
    mean = pyro.sample("mean", dist.Uniform(0.0, 1.0))
    size = pyro.sample("size", dist.Pareto(1.0, 1.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.BetaBinomial(mean * size, (1 - mean) * size, trials), obs=y)


@zoo(
    _trials,
    "probabilities on a bounded interval: Uniform(0.1, 0.9), Geometric and Binomial together",
    quick=False,
)
def bounded_probability(trials: Any, y: Any) -> None:
    prob = pyro.sample("prob", dist.Uniform(0.1, 0.9))
    with pyro.plate("data", len(y)):
        pyro.sample("waits", dist.Geometric(prob), obs=trials)
        pyro.sample("y", dist.Binomial(trials, prob), obs=y)
