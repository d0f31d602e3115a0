"""Dirichlet processes by stick-breaking, with labels enumerated and with the mixture in the distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _points() -> dict[str, Any]:
    r = rng(35)
    return {"x": np.concatenate([r.normal(-2, 0.4, 4), r.normal(2, 0.4, 4)])}


def _sticks(parts: Any) -> Any:
    left = torch.cumprod(1 - parts, -1)
    one = torch.ones(1)
    return torch.cat([parts, one]) * torch.cat([one, left])


@zoo(_points, "sticks by cumprod, a latent concentration, enumerated labels", enumerated=True)
def dirichlet_process(x: Any) -> None:
    concentration = pyro.sample("concentration", dist.Gamma(2.0, 1.0))
    with pyro.plate("sticks", 3):
        parts = pyro.sample("parts", dist.Beta(1.0, concentration))
    with pyro.plate("atoms", 4):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    weights = pyro.deterministic("weights", _sticks(parts))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], 0.5), obs=x)


@zoo(_points, "the same by logsumexp in a factor, sticks through Pyro's StickBreakingTransform")
def stick_breaking_factor(x: Any) -> None:
    sticks = pyro.sample("sticks", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    weights = dist.transforms.StickBreakingTransform()(sticks)
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-2.0, 0.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        terms = weights.log() + dist.Normal(loc, 0.5).log_prob(x.unsqueeze(-1))
        pyro.factor("x", torch.logsumexp(terms, -1))
