"""Survival with right censoring: Weibull by torch.where and by masks with a factor, log-normal, cure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from translated._registry import rng, zoo


def _times() -> dict[str, Any]:
    r = rng(26)
    x = r.normal(size=8)
    time = np.exp(0.3 * x) * r.weibull(1.3, size=8)
    return {"x": x, "time": np.minimum(time, 1.2), "event": time < 1.2}


@zoo(_times, "censoring by torch.where on boolean data, hazard and survivor function by hand")
def weibull_where(x: Any, time: Any, event: Any) -> None:
    shape = pyro.sample("shape", dist.Gamma(4.0, 4.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    scale = torch.exp(level + slope * x)
    density = dist.Weibull(scale, shape).log_prob(time)
    survivor = -((time / scale) ** shape)
    with pyro.plate("data", len(time)):
        pyro.factor("time", torch.where(event, density, survivor))


@zoo(_times, "censoring by poutine.mask around the density and around a factor")
def weibull_masked(x: Any, time: Any, event: Any) -> None:
    shape = pyro.sample("shape", dist.LogNormal(0.0, 0.5))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    scale = torch.exp(slope * x)
    with pyro.plate("data", len(time)):
        with poutine.mask(mask=event):
            pyro.sample("time", dist.Weibull(scale, shape), obs=time)
        with poutine.mask(mask=~event):
            pyro.factor("survivor", -((time / scale) ** shape))


@zoo(_times, "accelerated failure times: LogNormal density, survivor by torch.special.log_ndtr")
def log_normal_survival(x: Any, time: Any, event: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    z = (time.log() - slope * x) / scale
    survivor = torch.special.log_ndtr(-z)
    density = dist.LogNormal(slope * x, scale).log_prob(time)
    with pyro.plate("data", len(time)):
        pyro.factor("time", torch.where(event, density, survivor))


@zoo(_times, "cure: an enumerated Bernoulli that switches the hazard off", enumerated=True)
def cure(x: Any, time: Any, event: Any) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
    logits = pyro.sample("logits", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(time)):
        cured = pyro.sample("cured", dist.Bernoulli(logits=logits[0] + logits[1] * x))
        density = torch.where(cured > 0.5, torch.tensor(-40.0), dist.Exponential(rate).log_prob(time))
        survivor = torch.where(cured > 0.5, torch.tensor(0.0), -rate * time)
        pyro.factor("time", torch.where(event, density, survivor))


@zoo(_times, "piecewise constant hazard: searchsorted of the data, cumulative hazard by a matrix product")
def piecewise_hazard(x: Any, time: Any, event: Any) -> None:
    edges = torch.tensor([0.0, 0.4, 0.8])
    hazard = pyro.sample("hazard", dist.Gamma(1.0, 1.0).expand([3]).to_event(1))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    widths = torch.tensor([0.4, 0.4, 10.0])
    exposure = (time.unsqueeze(-1) - edges).clamp(min=0.0).minimum(widths)
    place = torch.bucketize(time, edges[1:])
    tilt = torch.exp(slope * x)
    with pyro.plate("data", len(time)):
        log_hazard = hazard[place].log() + slope * x
        pyro.factor("time", event * log_hazard - tilt * (exposure @ hazard))
