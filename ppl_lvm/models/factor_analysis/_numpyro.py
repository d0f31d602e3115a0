"""The NumPyro twins: the same sites in the same order, the same statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.scipy.linalg import solve_triangular
from numpyro.distributions.transforms import PowerTransform

from ppl_lvm.models.factor_analysis._structure import Structure
from ppl_lvm.models.factor_analysis._words import NO_DENSITY


class Parameters(NamedTuple):
    """loc (d,), loadings (d, q), factor_tril (q, q) or None, noise sds (d,)."""

    loc: Array
    loadings: Array
    factor_tril: Array | None
    scale: Array


def model(
    count: Array,
    mean: Array,
    scatter: Array,
    seen: Array,
    place: Array,
    prior: Mapping[str, Array],
    x: Any = None,
    *,
    structure: Structure,
) -> None:
    """z integrated out: the likelihood of all rows from their statistics."""
    values = parameters(place, prior, structure)
    if structure.degenerate:
        numpyro.sample("obs", NoDensity(jnp.zeros(())), obs=jnp.empty(0))
        return
    numpyro.factor("obs", log_likelihood(count, mean, scatter, seen, values))


def explicit(
    x: Array,
    place: Array,
    prior: Mapping[str, Array],
    seen: Array | None = None,
    *,
    structure: Structure,
) -> None:
    """z as a site; x (n, d), and ``seen`` (n, d), 0 where an entry is missing (None: all are observed)."""
    loc, loadings, factor_tril, scale = parameters(place, prior, structure)
    with numpyro.plate("data", len(x)):
        if factor_tril is None:
            z = numpyro.sample("z", dist.Normal(jnp.zeros(structure.latent_dim), 1.0).to_event(1))
        else:
            origin = jnp.zeros(structure.latent_dim)
            z = numpyro.sample("z", dist.MultivariateNormal(origin, scale_tril=factor_tril))
        each = dist.Normal(loc + z @ loadings.T, scale)
        numpyro.sample("obs", (each if seen is None else each.mask(seen > 0)).to_event(1), obs=x)


def parameters(place: Array, prior: Mapping[str, Array], structure: Structure) -> Parameters:
    """The global sites; ``place`` (d,) says where each column stands when the anchors come first."""
    d, q = len(place), structure.latent_dim
    loc = numpyro.sample("loc", dist.Normal(prior["loc_mean"], prior["loc_scale"]).to_event(1))
    if structure.form == "ard":
        base = dist.Gamma(prior["ard_shape"], prior["ard_rate"]).expand([q])
        precision = numpyro.sample("precision", base.to_event(1))
        spread = prior["loadings_scale"][:, None] / jnp.sqrt(precision)
        loadings = numpyro.sample("loadings", dist.Normal(0.0, spread).to_event(2))
    elif structure.form == "mask":
        free = numpyro.sample("loadings_free", dist.Normal(0.0, prior["free_scale"]).to_event(1))
        whole = jnp.concatenate([free, jnp.zeros(1, free.dtype)])
        loadings = numpyro.deterministic("loadings", whole[structure.index(d)])
    else:
        diag = numpyro.sample("loadings_diag", chi(prior["diag_df"], prior["diag_scale"]).to_event(1))
        lower = numpyro.sample("loadings_lower", dist.Normal(0.0, prior["lower_scale"]).to_event(1))
        whole = jnp.concatenate([diag, lower, jnp.zeros(1, diag.dtype)])
        loadings = numpyro.deterministic("loadings", whole[structure.index(d)][place])
    factor_tril = None
    if structure.has_factor_corr:
        lkj = dist.LKJCholesky(q, prior["factor_corr_concentration"])
        factor_tril = numpyro.sample("factor_corr_tril", lkj)
        numpyro.deterministic("factor_corr", factor_tril @ factor_tril.T)
    if structure.fixed_scale:
        scale = prior["scale"]
    elif structure.tied:
        scale = numpyro.sample("scale", dist.LogNormal(prior["scale_loc"], prior["scale_scale"]))
    else:
        scale = numpyro.sample("scale", dist.LogNormal(prior["scale_loc"], prior["scale_scale"]).to_event(1))
    return Parameters(loc, loadings, factor_tril, jnp.broadcast_to(scale, (d,)))


def chi(df: Array, scale: Array) -> Any:
    """The root of scale^2 times a chi-squared variable with ``df`` degrees of freedom."""
    return dist.TransformedDistribution(dist.Gamma(0.5 * df, 0.5 / scale**2), [PowerTransform(0.5)])


def log_likelihood(count: Array, mean: Array, scatter: Array, seen: Array, values: Parameters) -> Array:
    """Log density of all rows, by pattern of missing entries; only (q, q) matrices are factorised."""
    loadings = values.loadings if values.factor_tril is None else values.loadings @ values.factor_tril
    d, q = loadings.shape
    precision = seen / values.scale**2
    pairs = (loadings[:, :, None] * loadings[:, None, :]).reshape(d, q * q)
    tril = jnp.linalg.cholesky(jnp.eye(q) + (precision @ pairs).reshape(-1, q, q))
    away = precision * (mean - values.loc)
    half = solve_triangular(tril, (away @ loadings)[..., None], lower=True)
    squares = count * ((away * (mean - values.loc)).sum(-1) - (half**2).sum((-1, -2)))
    log_det = 2 * jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)).sum(-1) + 2 * seen @ jnp.log(values.scale)
    total = (count * (seen.sum(-1) * math.log(2 * math.pi) + log_det) + squares).sum()
    dense = len(scatter)
    if dense:
        spread = (precision[:dense] * jnp.diagonal(scatter, axis1=-2, axis2=-1)).sum()
        across = solve_triangular(tril[:dense], precision[:dense, None, :] * loadings.T, lower=True)
        total = total + spread - ((across @ scatter) * across).sum()
    return -0.5 * total


class NoDensity(dist.Unit):
    """Stands where data without noise would be: whoever asks for their density is told that there is none."""

    def log_prob(self, value: Array) -> Array:
        raise ValueError(NO_DENSITY)
