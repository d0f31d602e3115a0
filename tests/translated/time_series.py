"""Recursions in observations: AR by slices, ARMA and GARCH by loops, vector autoregression."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _series() -> dict[str, Any]:
    return {"y": rng(20).normal(size=9).cumsum() * 0.5}


@zoo(_series, "AR(2) by slices of the data, lags as a static argument of a comprehension")
def autoregression(y: Any, lags: int = 2) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
    weights = pyro.sample("weights", dist.Normal(torch.zeros(lags), 0.5).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    loc = intercept + sum(weights[i] * y[lags - 1 - i : len(y) - 1 - i] for i in range(lags))
    with pyro.plate("time", len(y) - lags):
        pyro.sample("y", dist.Normal(loc, sigma), obs=y[lags:])


@zoo(_series, "ARMA(1, 1): errors by a loop over the data, one observed statement at the end", quick=False)
def arma(y: Any) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    phi = pyro.sample("phi", dist.Uniform(-1.0, 1.0))
    theta = pyro.sample("theta", dist.Normal(0.0, 0.5))
    sigma = pyro.sample("sigma", dist.HalfCauchy(1.0))
    expected = [mean]
    error = y[0] - mean
    for t in range(1, len(y)):
        expected.append(mean + phi * (y[t - 1] - mean) + theta * error)
        error = y[t] - expected[-1]
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(torch.stack(expected), sigma), obs=y)


@zoo(
    _series,
    "GARCH(1, 1): variances by a recursion, a support that depends on another site",
    dependent=True,
    by_datum=False,
)
def garch(y: Any) -> None:
    level = pyro.sample("level", dist.HalfNormal(1.0))
    first = pyro.sample("first", dist.Uniform(0.0, 1.0))
    second = pyro.sample("second", dist.Uniform(0.0, 1.0 - first))
    variance = level + 0.1
    total = 0.0
    for t in range(1, len(y)):
        variance = level + first * y[t - 1] ** 2 + second * variance
        total = total + dist.Normal(0.0, variance.sqrt()).log_prob(y[t])
    pyro.factor("likelihood", total)


def _vectors() -> dict[str, Any]:
    return {"y": rng(21).normal(size=(7, 2))}


@zoo(_vectors, "VAR(1): rows regressed on the rows before, coefficient matrix as one latent")
def vector_autoregression(y: Any) -> None:
    matrix = pyro.sample("matrix", dist.Normal(torch.zeros(2, 2), 0.5).to_event(2))
    scales = pyro.sample("scales", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("time", len(y) - 1):
        pyro.sample("y", dist.Normal(y[:-1] @ matrix.T, scales).to_event(1), obs=y[1:])
