"""arma-arma11: a time series with one autoregressive and one moving-average term, errors by recursion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from tests.posteriordb._rule import Case


def arma11(y: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = pyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = pyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    errors = [y[0] - (mu + phi * mu)]
    for t in range(1, len(y)):
        errors.append(y[t] - (mu + phi * y[t - 1] + theta * errors[-1]))
    with pyro.plate("time", len(y)):
        # y_t given the past is Normal(y_t - error_t, sigma)
        pyro.sample("y", dist.Normal(y - torch.stack(errors), sigma), obs=y)


def _named(p: Any) -> dict[str, np.ndarray]:
    return {name: p[name].values for name in ("mu", "phi", "theta", "sigma")}


CASE = Case(
    name="arma-arma11",
    function=arma11,
    arguments=lambda d: {"y": np.asarray(d["y"], dtype=float)},
    quantities=_named,
    point={"mu": 0.1, "phi": 0.9, "theta": 0.1, "sigma": 0.2},
    log_joint=41.3615499164 + math.log(2),  # the published one takes the Cauchy un-truncated
)
