"""Factor analysis and PPCA as Pyro models (the readable statement of the models)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import PowerTransform
from torch import Tensor

from ppl_lvm.models.factor_analysis._structure import Structure
from ppl_lvm.models.factor_analysis._words import NO_DENSITY


class Parameters(NamedTuple):
    """loc (..., d), loadings (..., d, q), factor_tril (..., q, q) or None, noise sds (..., d)."""

    loc: Tensor
    loadings: Tensor
    factor_tril: Tensor | None
    scale: Tensor


def model(
    count: Tensor,
    mean: Tensor,
    scatter: Tensor,
    seen: Tensor,
    place: Tensor,
    prior: Mapping[str, Tensor],
    x: Any = None,
    *,
    structure: Structure,
) -> None:
    """z integrated out: the likelihood of all rows from their statistics.

    The arguments are those of ``FactorAnalysis.arguments``; ``x`` (the rows) is for closed forms only.
    """
    values = parameters(place, prior, structure)
    if structure.degenerate:
        pyro.sample("obs", NoDensity(torch.zeros(())), obs=torch.empty(0))
        return
    pyro.factor("obs", log_likelihood(count, mean, scatter, seen, values))


def explicit(
    x: Tensor,
    place: Tensor,
    prior: Mapping[str, Tensor],
    seen: Tensor | None = None,
    *,
    structure: Structure,
) -> None:
    """z as a site; x (n, d), and ``seen`` (n, d), 0 where an entry is missing (None: all are observed)."""
    loc, loadings, factor_tril, scale = parameters(place, prior, structure)
    with pyro.plate("data", len(x)):
        if factor_tril is None:
            z = pyro.sample("z", dist.Normal(torch.zeros(structure.latent_dim), 1.0).to_event(1))
        else:
            origin = torch.zeros(structure.latent_dim)
            z = pyro.sample("z", dist.MultivariateNormal(origin, scale_tril=factor_tril))
        each = dist.Normal(loc + (loadings @ z[..., None])[..., 0], scale)
        pyro.sample("obs", (each if seen is None else each.mask(seen > 0)).to_event(1), obs=x)


def parameters(place: Tensor, prior: Mapping[str, Tensor], structure: Structure) -> Parameters:
    """The global sites; ``place`` (d,) says where each column stands when the anchors come first."""
    d, q = len(place), structure.latent_dim
    loc = pyro.sample("loc", dist.Normal(prior["loc_mean"], prior["loc_scale"]).to_event(1))
    index = torch.as_tensor(structure.index(d)) if structure.form != "ard" else None
    if structure.form == "ard":
        base = dist.Gamma(prior["ard_shape"], prior["ard_rate"]).expand([q])
        precision = pyro.sample("precision", base.to_event(1))
        spread = prior["loadings_scale"][:, None] / precision[..., None, :].sqrt()
        loadings = pyro.sample("loadings", dist.Normal(0.0, spread).to_event(2))
    elif structure.form == "mask":
        free = pyro.sample("loadings_free", dist.Normal(0.0, prior["free_scale"]).to_event(1))
        whole = torch.cat([free, torch.zeros_like(free[..., :1])], -1)
        loadings = pyro.deterministic("loadings", whole[..., index], event_dim=2)
    else:
        diag = pyro.sample("loadings_diag", chi(prior["diag_df"], prior["diag_scale"]).to_event(1))
        lower = pyro.sample("loadings_lower", dist.Normal(0.0, prior["lower_scale"]).to_event(1))
        whole = torch.cat([diag, lower, torch.zeros_like(diag[..., :1])], -1)
        loadings = pyro.deterministic("loadings", whole[..., index][..., place, :], event_dim=2)
    factor_tril = None
    if structure.has_factor_corr:
        factor_tril = pyro.sample("factor_corr_tril", dist.LKJCholesky(q, prior["factor_corr_concentration"]))
        pyro.deterministic("factor_corr", factor_tril @ factor_tril.mT, event_dim=2)
    if structure.fixed_scale:
        scale = prior["scale"][..., None]
    elif structure.tied:
        scale = pyro.sample("scale", dist.LogNormal(prior["scale_loc"], prior["scale_scale"]))[..., None]
    else:
        scale = pyro.sample("scale", dist.LogNormal(prior["scale_loc"], prior["scale_scale"]).to_event(1))
    return Parameters(loc, loadings, factor_tril, scale.expand(*scale.shape[:-1], d))


def chi(df: Tensor, scale: Tensor) -> Any:
    """The root of scale^2 times a chi-squared variable with ``df`` degrees of freedom."""
    square = dist.Gamma(0.5 * df, 0.5 / scale**2)
    return dist.TransformedDistribution(square, [PowerTransform(torch.tensor(0.5))])


def log_likelihood(count: Tensor, mean: Tensor, scatter: Tensor, seen: Tensor, values: Parameters) -> Tensor:
    """Log density (...) of all rows, by pattern of missing entries.

    With R = diag(seen / scale^2), only M = I + W' R W (q, q) is factorised: the covariance's determinant is
    |M| / |R| and its inverse R - R W M^-1 W' R, over the entries that are seen.
    """
    loadings = values.loadings if values.factor_tril is None else values.loadings @ values.factor_tril
    q = loadings.shape[-1]
    precision = seen / values.scale[..., None, :] ** 2
    pairs = (loadings[..., :, None] * loadings[..., None, :]).flatten(-2)
    capacitance = torch.eye(q) + (precision @ pairs).unflatten(-1, (q, q))
    tril = torch.linalg.cholesky(capacitance)
    away = precision * (mean - values.loc[..., None, :])
    half = torch.linalg.solve_triangular(tril, (away @ loadings)[..., None], upper=False)[..., 0]
    squares = count * ((away * (mean - values.loc[..., None, :])).sum(-1) - (half**2).sum(-1))
    log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 2 * values.scale.log() @ seen.mT
    constant = count * (seen.sum(-1) * math.log(2 * math.pi) + log_det)
    total = (constant + squares).sum(-1)
    dense = len(scatter)
    if dense:
        spread = (precision[..., :dense, :] * scatter.diagonal(dim1=-2, dim2=-1)).sum((-1, -2))
        weighted = precision[..., :dense, None, :] * loadings.mT[..., None, :, :]
        across = torch.linalg.solve_triangular(tril[..., :dense, :, :], weighted, upper=False)
        total = total + spread - ((across @ scatter) * across).sum((-1, -2, -3))
    return -0.5 * total


class NoDensity(dist.Unit):
    """Stands where data without noise would be: whoever asks for their density is told that there is none."""

    def log_prob(self, value: Tensor) -> Tensor:
        raise ValueError(NO_DENSITY)

    def expand(self, batch_shape: Any, _instance: Any = None) -> NoDensity:
        return NoDensity(self.log_factor.expand(torch.Size(batch_shape)))
