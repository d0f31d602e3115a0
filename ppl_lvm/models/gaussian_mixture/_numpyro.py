"""The NumPyro twin: the same continuous sites, the labels summed out by hand in one factor."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints


def has_correlation(covariance: str, num_features: int) -> bool:
    return covariance in ("full", "tied") and num_features > 1


def model(x: Array, prior: Mapping[str, Array], *, num_components: int, covariance: str) -> None:
    """Marginal mixture; x (n, d), ``prior`` as in ``GaussianMixture.arguments``."""
    n, d = x.shape
    k = num_components
    component = [k] if covariance in ("full", "diag", "spherical") else []
    features = [] if covariance == "spherical" else [d]

    weights = numpyro.sample("weights", dist.Dirichlet(prior["concentration"]))
    loc = numpyro.sample("loc", dist.Normal(prior["loc_mean"], prior["loc_scale"]).expand([k, d]).to_event(2))
    scale = numpyro.sample(
        "scale",
        dist.LogNormal(prior["scale_loc"], prior["scale_scale"])
        .expand(component + features)
        .to_event(len(component + features)),
    )
    corr_tril = None
    if has_correlation(covariance, d):
        size = [k] if covariance == "full" else []
        corr_tril = numpyro.sample(
            "corr_tril",
            dist.LKJCholesky(d, prior["corr_concentration"]).expand(size).to_event(len(size)),
        )

    with numpyro.plate("data", n):
        log_joint = jnp.log(weights)[:, None] + log_components(x, loc, scale, corr_tril, covariance)
        numpyro.factor("obs", jax.nn.logsumexp(log_joint, axis=0))


def log_components(x: Array, loc: Array, scale: Array, corr_tril: Array | None, covariance: str) -> Array:
    """log Normal(x_i; mu_j, Sigma_j), (k, n).

    Data run along the last axis, where compiled loops are long (twice the speed of (n, k) at k = 3);
    each covariance factor is inverted once, then multiplied.
    """
    d = x.shape[1]
    centred = x.T[None] - loc[:, :, None]
    if covariance == "spherical":
        squares = (centred**2).sum(1) / scale[:, None] ** 2
        log_det = d * jnp.log(scale)
    elif corr_tril is None:
        squares = ((centred / scale[..., None]) ** 2).sum(1)
        log_det = jnp.log(scale).sum(-1)
    else:
        tril = scale[..., None] * corr_tril
        eye = jnp.broadcast_to(jnp.eye(d, dtype=x.dtype), tril.shape)
        inverse = jax.scipy.linalg.solve_triangular(tril, eye, lower=True)
        squares = ((inverse @ centred) ** 2).sum(1)
        log_det = jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)).sum(-1)
    return -0.5 * (squares + d * jnp.log(2 * jnp.pi)) - jnp.broadcast_to(log_det, (len(loc),))[:, None]


def guide(
    x: Array,
    prior: Mapping[str, Array],
    init: Mapping[str, Array] | None = None,
    *,
    num_components: int,
    covariance: str,
) -> None:
    """Independent sites; within ``loc``, a full covariance over features for each component."""
    n, d = x.shape
    k = num_components
    start = dict(init) if init is not None else prior_centre(prior, d, k, covariance)

    concentration = numpyro.param(
        "weights_concentration", 1.0 + n * start["weights"], constraint=constraints.positive
    )
    numpyro.sample("weights", dist.Dirichlet(concentration))

    spread = start["scale"][:, None] if covariance == "spherical" else start["scale"]
    widths = 0.1 * jnp.broadcast_to(spread, (k, d))
    loc_loc = numpyro.param("loc_loc", start["loc"])
    loc_tril = numpyro.param("loc_tril", jax.vmap(jnp.diag)(widths), constraint=constraints.lower_cholesky)
    numpyro.sample("loc", dist.MultivariateNormal(loc_loc, scale_tril=loc_tril).to_event(1))

    log_scale = numpyro.param("scale_loc", jnp.log(start["scale"]))
    width = numpyro.param("scale_scale", jnp.full_like(log_scale, 0.1), constraint=constraints.positive)
    numpyro.sample("scale", dist.LogNormal(log_scale, width).to_event(log_scale.ndim))

    if has_correlation(covariance, d):
        transform = dist.transforms.CorrCholeskyTransform()
        corr_loc = numpyro.param("corr_loc", transform.inv(start["corr_tril"]))
        corr_scale = numpyro.param(
            "corr_scale", jnp.full_like(corr_loc, 0.1), constraint=constraints.positive
        )
        base = dist.Normal(corr_loc, corr_scale).to_event(1)
        flow = dist.TransformedDistribution(base, [transform])
        numpyro.sample("corr_tril", flow.to_event(1) if covariance == "full" else flow)


def prior_centre(prior: Mapping[str, Array], d: int, k: int, covariance: str) -> dict[str, Array]:
    """Typical prior values, with the component means spread out so that components differ."""
    steps = jnp.linspace(-1.0, 1.0, k)[:, None] if k > 1 else jnp.zeros((1, 1))
    shapes = {"full": (k, d), "diag": (k, d), "tied": (d,), "spherical": (k,)}
    start = {
        "weights": jnp.full(k, 1.0 / k),
        "loc": prior["loc_mean"] + steps * prior["loc_scale"],
        "scale": jnp.broadcast_to(jnp.exp(prior["scale_loc"]), shapes[covariance]),
    }
    if has_correlation(covariance, d):
        shape = (k, d, d) if covariance == "full" else (d, d)
        start["corr_tril"] = jnp.broadcast_to(jnp.eye(d), shape)
    return start
