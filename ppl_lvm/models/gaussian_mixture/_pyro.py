"""The Gaussian mixture as a Pyro model and guide (the readable statement of the model)."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.ops.indexing import Vindex
from torch import Tensor


def has_correlation(covariance: str, num_features: int) -> bool:
    return covariance in ("full", "tied") and num_features > 1


def model(x: Tensor, prior: Mapping[str, Tensor], *, num_components: int, covariance: str) -> None:
    """Enumerated mixture; x (n, d), ``prior`` as in ``GaussianMixture.arguments``."""
    n, d = x.shape
    k = num_components
    component = [k] if covariance in ("full", "diag", "spherical") else []
    features = [] if covariance == "spherical" else [d]

    weights = pyro.sample("weights", dist.Dirichlet(prior["concentration"]))
    loc = pyro.sample("loc", dist.Normal(prior["loc_mean"], prior["loc_scale"]).expand([k, d]).to_event(2))
    scale = pyro.sample(
        "scale",
        dist.LogNormal(prior["scale_loc"], prior["scale_scale"])
        .expand(component + features)
        .to_event(len(component + features)),
    )
    if covariance == "spherical":
        tril = scale[..., None, None] * torch.eye(d)
    elif has_correlation(covariance, d):
        size = [k] if covariance == "full" else []
        corr_tril = pyro.sample(
            "corr_tril",
            dist.LKJCholesky(d, prior["corr_concentration"]).expand(size).to_event(len(size)),
        )
        tril = scale[..., None] * corr_tril
    else:
        tril = torch.diag_embed(scale)

    with pyro.plate("data", n):
        assignment = pyro.sample("assignment", dist.Categorical(weights), infer={"enumerate": "parallel"})
        own_tril = tril if covariance == "tied" else Vindex(tril)[..., assignment, :, :]
        own_loc = Vindex(loc)[..., assignment, :]
        pyro.sample("obs", dist.MultivariateNormal(own_loc, scale_tril=own_tril), obs=x)


def guide(
    x: Tensor,
    prior: Mapping[str, Tensor],
    init: Mapping[str, Tensor] | None = None,
    *,
    num_components: int,
    covariance: str,
) -> None:
    """Independent sites; within ``loc``, a full covariance over features for each component.

    ``init`` holds starting values by site; without it the guide starts at the prior's centre.
    """
    n, d = x.shape
    k = num_components
    start = dict(init) if init is not None else prior_centre(prior, d, k, covariance)

    concentration = pyro.param(
        "weights_concentration", 1.0 + n * start["weights"], constraint=constraints.positive
    )
    pyro.sample("weights", dist.Dirichlet(concentration))

    spread = (
        start["scale"].expand(k, d) if covariance != "spherical" else start["scale"][:, None].expand(k, d)
    )
    loc_loc = pyro.param("loc_loc", start["loc"].clone())
    loc_tril = pyro.param("loc_tril", torch.diag_embed(0.1 * spread), constraint=constraints.lower_cholesky)
    pyro.sample("loc", dist.MultivariateNormal(loc_loc, scale_tril=loc_tril).to_event(1))

    log_scale = pyro.param("scale_loc", start["scale"].log())
    width = pyro.param("scale_scale", torch.full_like(log_scale, 0.1), constraint=constraints.positive)
    pyro.sample("scale", dist.LogNormal(log_scale, width).to_event(log_scale.dim()))

    if has_correlation(covariance, d):
        transform = dist.transforms.CorrCholeskyTransform()
        corr_loc = pyro.param("corr_loc", transform.inv(start["corr_tril"]))
        corr_scale = pyro.param("corr_scale", torch.full_like(corr_loc, 0.1), constraint=constraints.positive)
        base = dist.Normal(corr_loc, corr_scale).to_event(1)
        flow = dist.TransformedDistribution(base, [transform])
        pyro.sample("corr_tril", flow.to_event(1) if covariance == "full" else flow)


def prior_centre(prior: Mapping[str, Tensor], d: int, k: int, covariance: str) -> dict[str, Tensor]:
    """Typical prior values, with the component means spread out so that components differ."""
    steps = torch.linspace(-1.0, 1.0, k)[:, None] if k > 1 else torch.zeros(1, 1)
    scale = prior["scale_loc"].exp()
    if covariance in ("full", "diag"):
        scale = scale.expand(k, d)
    elif covariance == "spherical":
        scale = scale.expand(k)
    start = {
        "weights": torch.full((k,), 1.0 / k),
        "loc": prior["loc_mean"] + steps * prior["loc_scale"],
        "scale": scale,
    }
    if has_correlation(covariance, d):
        shape = (k, d, d) if covariance == "full" else (d, d)
        start["corr_tril"] = torch.eye(d).expand(shape)
    return start
