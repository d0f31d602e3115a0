"""Categories: ordered logistic and probit, multinomial logit, binary probit by the Normal's cdf."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms

from translated._registry import rng, zoo


def _grades() -> dict[str, Any]:
    r = rng(30)
    return {"x": r.normal(size=9), "y": r.integers(0, 4, size=9)}


@zoo(_grades, "OrderedLogistic, cut points by an OrderedTransform")
def ordered_logistic(x: Any, y: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    base = dist.Normal(torch.zeros(3), 2.0).to_event(1)
    cuts = pyro.sample("cuts", dist.TransformedDistribution(base, transforms.OrderedTransform()))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.OrderedLogistic(slope * x, cuts), obs=y)


@zoo(_grades, "ordered probit with lapses: differences of cdfs padded at both ends, cuts by cumsum")
def ordered_probit(x: Any, y: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    low = pyro.sample("low", dist.Normal(-1.0, 1.0))
    gaps = pyro.sample("gaps", dist.Gamma(2.0, 2.0).expand([2]).to_event(1))
    cuts = torch.cat([low.unsqueeze(-1), low + gaps.cumsum(-1)])
    below = dist.Normal(0.0, 1.0).cdf(cuts - (slope * x).unsqueeze(-1))
    below = torch.nn.functional.pad(torch.nn.functional.pad(below, (1, 0), value=0.0), (0, 1), value=1.0)
    with pyro.plate("data", len(y)):
        probs = 0.95 * (below[:, 1:] - below[:, :-1]) + 0.05 / 4
        pyro.sample("y", dist.Categorical(probs=probs), obs=y)


def _choices() -> dict[str, Any]:
    r = rng(31)
    return {"x": r.normal(size=(8, 2)), "y": r.integers(0, 3, size=8)}


@zoo(_choices, "multinomial logit with a reference category (cat with zeros)")
def multinomial_logit(x: Any, y: Any) -> None:
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    logits = torch.cat([torch.zeros(len(x), 1), x @ weights], -1)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


@zoo(_choices, "probit: Bernoulli with probabilities of the Normal's cdf (erf)")
def probit(x: Any, y: Any) -> None:
    slopes = pyro.sample("slopes", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    intercept = pyro.sample("intercept", dist.StudentT(3.0, 0.0, 1.0))
    with pyro.plate("data", len(y)):
        probs = dist.Normal(0.0, 1.0).cdf(intercept + x @ slopes).clamp(1e-6, 1 - 1e-6)
        pyro.sample("y", dist.Bernoulli(probs), obs=(y > 0).to(x.dtype))


def _shares() -> dict[str, Any]:
    r = rng(32)
    return {
        "counts": r.multinomial(7, [0.2, 0.5, 0.3], size=5),
        "shares": r.dirichlet([2.0, 3.0, 4.0], size=5),
    }


@zoo(_shares, "DirichletMultinomial on integer counts, concentration by a simplex and a size", quick=False)
def dirichlet_multinomial(counts: Any, shares: Any) -> None:
    del shares
    mean = pyro.sample("mean", dist.Dirichlet(torch.ones(3)))
    size = pyro.sample("size", dist.LogNormal(1.0, 1.0))
    with pyro.plate("data", len(counts)):
        pyro.sample("counts", dist.DirichletMultinomial(mean * size, 7), obs=counts)


@zoo(_shares, "compositions observed: Dirichlet and Beta likelihoods with latent concentrations", quick=False)
def compositions(counts: Any, shares: Any) -> None:
    concentration = pyro.sample("concentration", dist.Gamma(2.0, 0.5).expand([3]).to_event(1))
    with pyro.plate("data", len(shares)):
        pyro.sample("shares", dist.Dirichlet(concentration), obs=shares)
        first = (counts[:, 0].to(shares.dtype) + 0.5) / 8
        pyro.sample("first", dist.Beta(concentration[0], concentration[1] + concentration[2]), obs=first)
