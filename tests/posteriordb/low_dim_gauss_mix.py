"""low_dim_gauss_mix-low_dim_gauss_mix: two normal components with ordered means, the label summed out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from tests.posteriordb._rule import Case, scalars


def gauss_mix(y: torch.Tensor) -> None:
    """mu is ordered: its prior is the un-truncated product, so the density differs by a constant only."""
    first = pyro.sample("mu_low", dist.Normal(0.0, 2.0))
    gap = pyro.sample("gap", dist.ImproperUniform(dist.constraints.positive, (), ()))
    pyro.factor("mu_high_prior", dist.Normal(0.0, 2.0).log_prob(first + gap))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    mu = torch.stack([first, first + gap], -1)
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.stack([theta, 1 - theta], -1)))
        pyro.sample("y", dist.Normal(mu[z], sigma[z]), obs=y)


def _named(p: Any) -> dict[str, np.ndarray]:
    means = {"mu[1]": p["mu_low"].values, "mu[2]": (p["mu_low"] + p["gap"]).values}
    return {"theta": p["theta"].values, **means, **scalars("sigma", p["sigma"].values)}


CASE = Case(
    name="low_dim_gauss_mix-low_dim_gauss_mix",
    function=gauss_mix,
    arguments=lambda d: {"y": np.asarray(d["y"], dtype=float)},
    quantities=_named,
    point={"mu_low": -2.7, "gap": 5.6, "sigma": np.ones(2), "theta": 0.6},
    log_joint=-2106.7206884363 + 2 * math.log(2),  # the published one takes sigma's Normals un-truncated
)
