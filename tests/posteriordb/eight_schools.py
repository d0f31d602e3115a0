"""eight_schools-eight_schools_noncentered: a normal hierarchy with known observation scales."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from tests.posteriordb._rule import Case, scalars


def eight_schools(y: torch.Tensor, sigma: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def _named(p: Any) -> dict[str, np.ndarray]:
    return {"mu": p["mu"].values, "tau": p["tau"].values, **scalars("theta", p["theta"].values)}


CASE = Case(
    name="eight_schools-eight_schools_noncentered",
    function=eight_schools,
    arguments=lambda d: {k: np.asarray(d[k], dtype=float) for k in ("y", "sigma")},
    quantities=_named,
    point={"mu": 4.0, "tau": 3.0, "z": np.linspace(-1.0, 1.0, 8)},
    log_joint=-45.2168983202 + math.log(2),  # the published one takes the Cauchy un-truncated
)
