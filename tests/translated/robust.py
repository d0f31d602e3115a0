"""Heavy tails and sparsity: Student t, Laplace, von Mises, horseshoe, spike and slab."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _regression() -> dict[str, Any]:
    r = rng(33)
    x = r.normal(size=(9, 3))
    return {"x": x, "y": x[:, 0] + r.standard_t(3, size=9)}


@zoo(_regression, "StudentT with latent degrees of freedom (lgamma of a latent)")
def student_t_regression(x: Any, y: Any) -> None:
    df = pyro.sample("df", dist.Gamma(2.0, 0.1))
    slopes = pyro.sample("slopes", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfCauchy(1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.StudentT(df, x @ slopes, scale), obs=y)


@zoo(_regression, "quantile regression: AsymmetricLaplace, SoftLaplace prior, Logistic prior")
def quantile_regression(x: Any, y: Any) -> None:
    slopes = pyro.sample("slopes", dist.SoftLaplace(torch.zeros(3), 1.0).to_event(1))
    intercept = pyro.sample("intercept", dist.Logistic(0.0, 1.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.AsymmetricLaplace(intercept + x @ slopes, scale, 0.7), obs=y)


@zoo(_regression, "horseshoe: local and global half-Cauchy scales, non-centred")
def horseshoe(x: Any, y: Any) -> None:
    overall = pyro.sample("overall", dist.HalfCauchy(0.5))
    with pyro.plate("features", x.shape[1]):
        local = pyro.sample("local", dist.HalfCauchy(1.0))
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
    slopes = pyro.deterministic("slopes", overall * local * raw)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ slopes, 1.0), obs=y)


@zoo(_regression, "regularised horseshoe: slab by an InverseGamma, scales squared and shrunk", quick=False)
def regularised_horseshoe(x: Any, y: Any) -> None:
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    overall = pyro.sample("overall", dist.HalfCauchy(0.3)) * sigma
    slab = pyro.sample("slab", dist.InverseGamma(2.0, 8.0))
    with pyro.plate("features", x.shape[1]):
        local = pyro.sample("local", dist.HalfCauchy(1.0))
        shrunk = torch.sqrt(slab * local**2 / (slab + overall**2 * local**2))
        slope = pyro.sample("slope", dist.Normal(0.0, overall * shrunk))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ slope, sigma), obs=y)


@zoo(
    _regression,
    "spike and slab: inclusions enumerated one after another, outside of the data plate",
    enumerated=True,
    by_datum=False,
)
def spike_and_slab(x: Any, y: Any) -> None:
    share = pyro.sample("share", dist.Beta(1.0, 1.0))
    with pyro.plate("features", 2):
        slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    first = pyro.sample("first", dist.Bernoulli(share))
    second = pyro.sample("second", dist.Bernoulli(share))
    loc = (first * slope[0]).unsqueeze(-1) * x[:, 0] + (second * slope[1]).unsqueeze(-1) * x[:, 1]
    pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)


def _angles() -> dict[str, Any]:
    return {"angle": rng(34).vonmises(1.0, 2.0, size=8)}


@zoo(_angles, "von Mises: Bessel functions of a latent concentration, location by atan2")
def von_mises(angle: Any) -> None:
    direction = pyro.sample("direction", dist.Normal(torch.tensor([1.0, 0.5]), 1.0).to_event(1))
    concentration = pyro.sample("concentration", dist.Gamma(2.0, 1.0))
    loc = torch.atan2(direction[1], direction[0])
    with pyro.plate("data", len(angle)):
        pyro.sample("angle", dist.VonMises(loc, concentration), obs=angle)


@zoo(_angles, "a latent angle on the circle with a VonMises prior, wrapped through cos and sin")
def latent_angle(angle: Any) -> None:
    phase = pyro.sample("phase", dist.VonMises(0.5, 2.0))
    radius = pyro.sample("radius", dist.Kumaraswamy(2.0, 3.0))
    noise = pyro.sample("noise", dist.Exponential(2.0))
    with pyro.plate("data", len(angle)):
        loc = radius * torch.cos(torch.arange(len(angle)) * np.pi / 4 + phase)
        pyro.sample("angle", dist.Normal(loc, noise), obs=angle)
