"""Measurement error, missing values three ways, copula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _noisy() -> dict[str, Any]:
    r = rng(38)
    x = r.normal(size=7)
    return {"seen": x + 0.3 * r.normal(size=7), "y": 2 * x + 0.2 * r.normal(size=7)}


@zoo(_noisy, "measurement error: a latent covariate by datum with two observations of it", quick=False)
def measurement_error(seen: Any, y: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    noise = pyro.sample("noise", dist.HalfNormal(0.5))
    with pyro.plate("data", len(y)):
        x = pyro.sample("x", dist.Normal(0.0, spread))
        pyro.sample("seen", dist.Normal(x, 0.3), obs=seen)
        pyro.sample("y", dist.Normal(slope * x, noise), obs=y)


def _holes() -> dict[str, Any]:
    r = rng(39)
    x = r.normal(size=8)
    where = np.array([1, 4, 6])
    return {
        "x": np.where(np.isin(np.arange(8), where), 0.0, x),
        "where": where,
        "y": x + 0.2 * r.normal(size=8),
    }


@zoo(_holes, "missing covariates: latents written into a copy of the data at given places (index_put)")
def imputation(x: Any, where: Any, y: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    missing = pyro.sample("missing", dist.Normal(torch.zeros(len(where)), 1.0).to_event(1))
    full = x.clone()
    full[where] = missing
    with pyro.plate("data", len(y)):
        pyro.sample("full", dist.Normal(0.0, 1.0).mask(~torch.isin(torch.arange(len(y)), where)), obs=x)
        pyro.sample("y", dist.Normal(slope * full, 0.5), obs=y)


@zoo(_holes, "the same by torch.scatter, an affine prior on the missing values by index_add")
def imputation_scatter(x: Any, where: Any, y: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    with pyro.plate("holes", len(where)):
        missing = pyro.sample("missing", dist.StudentT(4.0, 0.0, 1.0))
    full = x.scatter(0, where, missing).index_add(0, where, torch.full(where.shape, 0.1).to(x.dtype))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(slope * full, 0.5), obs=y)


def _partly() -> dict[str, Any]:
    r = rng(40)
    return {"y": r.normal(size=6), "known": np.array([True, True, False, True, False, True])}


@zoo(_partly, "obs_mask: a statement that is observed in part and latent in the rest")
def partly_observed(y: Any, known: Any) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(y)):
        full = pyro.sample("y", dist.Normal(loc, scale), obs=y, obs_mask=known)
        pyro.sample("twice", dist.Normal(2 * full, 1.0), obs=2 * y)


@zoo(_partly, "a boolean mask of data picks the observed rows", baked=("known",))
def complete_cases(y: Any, known: Any) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    kept = y[known]
    with pyro.plate("data", len(kept)):
        pyro.sample("y", dist.Normal(loc, scale), obs=kept)


def _waits() -> dict[str, Any]:
    return {"x": rng(41).exponential(size=(6, 2)) + 0.1}


@zoo(_waits, "Gaussian copula: Weibull margins to normal scores by icdf (erfinv), LKJ dependence")
def gaussian_copula(x: Any) -> None:
    shape = pyro.sample("shape", dist.Gamma(8.0, 8.0).expand([2]).to_event(1))
    root = pyro.sample("root", dist.LKJCholesky(2, 2.0))
    margins = dist.Weibull(torch.ones(2), shape)
    uniform = (1 - torch.exp(-(x**shape))).clamp(1e-9, 1 - 1e-9)
    normal = dist.Normal(torch.zeros(2), 1.0)
    scores = normal.icdf(uniform)
    with pyro.plate("data", len(x)):
        joint = dist.MultivariateNormal(torch.zeros(2), scale_tril=root).log_prob(scores)
        alone = normal.log_prob(scores).sum(-1)
        pyro.factor("x", joint - alone + margins.log_prob(x).sum(-1))
