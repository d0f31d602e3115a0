"""gp_pois_regr-gp_pois_regr: Poisson counts, log rates from a Gaussian process by its Cholesky factor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from tests.posteriordb._rule import Case, scalars


def gp_poisson(x: torch.Tensor, k: torch.Tensor) -> None:
    n = len(x)
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    gap = (x[:, None] - x) / rho
    covariance = alpha**2 * torch.exp(-0.5 * gap**2) + 1e-10 * torch.eye(n)
    with pyro.plate("place", n):
        g = pyro.sample("g", dist.Normal(0.0, 1.0))
        f = pyro.deterministic("f", torch.linalg.cholesky(covariance) @ g)
        pyro.sample("k", dist.Poisson(f.exp()), obs=k)


def _named(p: Any) -> dict[str, np.ndarray]:
    return {"rho": p["rho"].values, "alpha": p["alpha"].values, **scalars("f", p["f"].values)}


CASE = Case(
    name="gp_pois_regr-gp_pois_regr",
    function=gp_poisson,
    arguments=lambda d: {k: np.asarray(d[k], dtype=float) for k in ("x", "k")},
    quantities=_named,
    point={"rho": 6.0, "alpha": 2.0, "g": 0.1 * np.arange(1.0, 12.0)},
    log_joint=-470.28041244 + math.log(2),  # the published one takes alpha's Normal un-truncated
)
