"""Gaussian processes by Cholesky: marginal regression, latent Poisson rates, low-rank features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _curve() -> dict[str, Any]:
    r = rng(14)
    x = np.linspace(0, 3, 7)
    return {"x": x, "y": np.sin(x) + 0.1 * r.normal(size=7)}


def _counts() -> dict[str, Any]:
    r = rng(15)
    x = np.linspace(0, 3, 6)
    return {"x": x, "y": r.poisson(np.exp(np.sin(x)))}


def _squared_exponential(x: Any, amplitude: Any, length: Any) -> Any:
    gap = (x.unsqueeze(-1) - x) / length
    return amplitude**2 * torch.exp(-0.5 * gap**2)


@zoo(
    _curve,
    "MultivariateNormal with a covariance matrix: its Cholesky factor inside the distribution",
    by_datum=False,
)
def gp_regression(x: Any, y: Any) -> None:
    amplitude = pyro.sample("amplitude", dist.HalfNormal(1.0))
    length = pyro.sample("length", dist.InverseGamma(3.0, 3.0))
    noise = pyro.sample("noise", dist.HalfNormal(0.5))
    cov = _squared_exponential(x, amplitude, length) + (noise**2 + 1e-6) * torch.eye(len(x))
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), covariance_matrix=cov), obs=y)


@zoo(_counts, "torch.linalg.cholesky times standard normals, Poisson observations by datum", quick=False)
def gp_poisson(x: Any, y: Any) -> None:
    amplitude = pyro.sample("amplitude", dist.HalfNormal(1.0))
    length = pyro.sample("length", dist.Gamma(3.0, 2.0))
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    gap = (x.unsqueeze(-1) - x).abs()
    root = torch.linalg.cholesky(amplitude**2 * torch.exp(-gap / length) + 1e-6 * torch.eye(len(x)))
    raw = pyro.sample("raw", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1))
    rate = pyro.deterministic("rate", torch.exp(level + root @ raw))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


@zoo(
    _curve,
    "LowRankMultivariateNormal with random Fourier features of a latent length",
    by_datum=False,
    quick=False,
)
def gp_features(x: Any, y: Any) -> None:
    length = pyro.sample("length", dist.LogNormal(0.0, 0.5))
    noise = pyro.sample("noise", dist.HalfNormal(0.5))
    frequencies = torch.tensor([0.5, 1.3]) / length
    phase = x.unsqueeze(-1) * frequencies
    factor = torch.cat([phase.cos(), phase.sin()], -1)
    diagonal = (noise**2 + 1e-3).expand(len(x))
    pyro.sample("y", dist.LowRankMultivariateNormal(torch.zeros(len(x)), factor, diagonal), obs=y)
