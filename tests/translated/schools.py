"""Eight schools: centred, non-centred by hand, and by Pyro's reparametrisation handlers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam, TransformReparam

from translated._registry import enter, zoo


def schools() -> dict[str, Any]:
    """Rubin (1981): effects of coaching and their standard errors, points."""
    effects = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return {"y": effects, "errors": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])}


@zoo(schools, "local latents inside the data plate")
def schools_centred(y: Any, errors: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, errors), obs=y)


@zoo(schools, "pyro.deterministic inside a plate and outside of it")
def schools_noncentred(y: Any, errors: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    pyro.deterministic("log_tau", tau.log())
    with pyro.plate("school", len(y)):
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * raw)
        pyro.sample("obs", dist.Normal(theta, errors), obs=y)


def _affine(y: Any, errors: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.LogNormal(1.0, 1.0))
    shift = dist.transforms.AffineTransform(mu, tau)
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.TransformedDistribution(dist.Normal(mu * 0.0, 1.0), [shift]))
        pyro.sample("obs", dist.Normal(theta, errors), obs=y)


enter(
    "schools_loc_scale",
    poutine.reparam(schools_centred, config={"theta": LocScaleReparam(0.0)}),
    schools,
    "poutine.reparam with LocScaleReparam(0): theta becomes deterministic",
)
enter(
    "schools_partly_centred",
    poutine.reparam(schools_centred, config={"theta": LocScaleReparam(0.4)}),
    schools,
    "LocScaleReparam with a fixed degree of centring",
)
enter(
    "schools_transform_reparam",
    poutine.reparam(_affine, config={"theta": TransformReparam()}),
    schools,
    "TransformReparam of a TransformedDistribution whose transform depends on latents",
)
