"""Unrolled recursions: SIR, predator and prey by Euler and Runge-Kutta steps, logistic growth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _epidemic() -> dict[str, Any]:
    return {"cases": np.array([1.0, 2.0, 4.0, 7.0, 9.0, 8.0]), "population": 60.0}


@zoo(_epidemic, "SIR by a Python loop over tensors, negative binomial counts of new cases")
def sir(cases: Any, population: float) -> None:
    contact = pyro.sample("contact", dist.LogNormal(0.0, 0.5))
    recovery = pyro.sample("recovery", dist.Beta(2.0, 3.0))
    size = pyro.sample("size", dist.Gamma(2.0, 0.2))
    susceptible, infected = torch.tensor(population - 1), torch.tensor(1.0)
    new_cases = []
    for _ in range(len(cases)):
        new = susceptible * (1 - torch.exp(-contact * infected / population))
        susceptible = susceptible - new
        infected = infected * (1 - recovery) + new
        new_cases.append(new)
    expected = torch.stack(new_cases) + 1e-3
    with pyro.plate("days", len(cases)):
        pyro.sample("cases", dist.NegativeBinomial(size, logits=expected.log() - size.log()), obs=cases)


def _populations() -> dict[str, Any]:
    r = rng(43)
    return {"y": np.exp(0.2 * r.normal(size=(5, 2))) * np.array([2.0, 1.0])}


@zoo(
    _populations,
    "predator and prey by Runge-Kutta steps on a vector state, LogNormal observations",
    quick=False,
)
def predator_prey(y: Any) -> None:
    rates = pyro.sample("rates", dist.LogNormal(torch.tensor([-0.7, -1.2, -0.7, -1.2]), 0.3).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    state = pyro.sample("start", dist.LogNormal(torch.tensor([0.7, 0.0]), 0.3).to_event(1))

    def slope(z: Any) -> Any:
        prey = (rates[0] - rates[1] * z[1]) * z[0]
        return torch.stack([prey, (rates[3] * z[0] - rates[2]) * z[1]])

    path = []
    for _ in range(len(y)):
        path.append(state)
        half = state + 0.25 * slope(state)
        state = state + 0.5 * slope(half)
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.LogNormal(torch.stack(path).log(), noise).to_event(1), obs=y)


def _growth() -> dict[str, Any]:
    t = np.arange(6.0)
    return {"t": t, "y": 10 / (1 + 9 * np.exp(-t)) + 0.2 * rng(44).normal(size=6)}


@zoo(
    _growth,
    "logistic growth in closed form, priors truncated by TransformedDistribution (sigmoid to an interval)",
    quick=False,
)
def logistic_growth(t: Any, y: Any) -> None:
    from pyro.distributions.transforms import AffineTransform, SigmoidTransform

    to_interval = [SigmoidTransform(), AffineTransform(5.0, 10.0)]
    capacity = pyro.sample("capacity", dist.TransformedDistribution(dist.Normal(0.0, 1.0), to_interval))
    rate = pyro.sample(
        "rate", dist.TransformedDistribution(dist.Normal(0.0, 1.0), [dist.transforms.ExpTransform()])
    )
    start = pyro.sample("start", dist.FoldedDistribution(dist.Normal(1.0, 1.0)))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    ratio = (capacity - start) / start
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(capacity / (1 + ratio * torch.exp(-rate * t)), sigma), obs=y)
