"""Covariance matrices: LKJ with scales, LKJ itself, Wishart-like by Bartlett, factor analysis, precision."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _vectors() -> dict[str, Any]:
    return {"x": rng(16).normal(size=(6, 3)) @ rng(17).normal(size=(3, 3))}


@zoo(
    _vectors,
    "LKJCholesky with scales, torch.diag_embed, scale_tril, covariance as deterministic",
    quick=False,
)
def lkj_covariance(x: Any) -> None:
    dim = x.shape[1]
    scales = pyro.sample("scales", dist.HalfCauchy(torch.ones(dim)).to_event(1))
    root = pyro.sample("root", dist.LKJCholesky(dim, 1.0))
    tril = torch.mm(scales.diag(), root)
    pyro.deterministic("covariance", tril @ tril.t())
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(dim), scale_tril=tril), obs=x)


@zoo(_vectors, "LKJ on correlation matrices: the Cholesky transform in its support's bijection", quick=False)
def lkj_correlation(x: Any) -> None:
    dim = x.shape[1]
    correlation = pyro.sample("correlation", dist.LKJ(dim, 2.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(x)):
        cov = scale**2 * correlation + 1e-3 * torch.eye(dim)
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(dim), cov), obs=x)


@zoo(_vectors, "inverse Wishart by Bartlett's factor: writes into a lower triangle, triangular solve")
def inverse_wishart(x: Any) -> None:
    dim, freedom = x.shape[1], 6.0
    chi = pyro.sample("chi", dist.Chi2(freedom - torch.arange(dim)).to_event(1))
    below = pyro.sample("below", dist.Normal(torch.zeros(dim * (dim - 1) // 2), 1.0).to_event(1))
    bartlett = torch.zeros(dim, dim)
    rows, columns = torch.tril_indices(dim, dim, -1)
    bartlett[rows, columns] = below
    bartlett = bartlett + chi.sqrt().diag()
    inverse = torch.linalg.solve_triangular(bartlett, torch.eye(dim), upper=False)
    pyro.deterministic("covariance", inverse.T @ inverse)
    with pyro.plate("data", len(x)):
        precision = bartlett @ bartlett.T
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(dim), precision_matrix=precision), obs=x)


@zoo(_vectors, "MultivariateNormal latents with a known scale_tril, MultivariateStudentT observations")
def known_scale_tril(x: Any) -> None:
    root = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.9, 0.0], [-0.2, 0.3, 0.8]])
    loc = pyro.sample("loc", dist.MultivariateNormal(torch.zeros(3), scale_tril=root))
    df = pyro.sample("df", dist.Gamma(2.0, 0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MultivariateStudentT(df + 1, loc, root), obs=x)


@zoo(_vectors, "factor analysis with latent scores: matrix product of two latents in a plate")
def factor_analysis(x: Any) -> None:
    dim = x.shape[1]
    loadings = pyro.sample("loadings", dist.Normal(torch.zeros(2, dim), 1.0).to_event(2))
    noise = pyro.sample("noise", dist.HalfNormal(torch.ones(dim)).to_event(1))
    with pyro.plate("data", len(x)):
        scores = pyro.sample("scores", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(scores @ loadings, noise).to_event(1), obs=x)


@zoo(_vectors, "matrix-normal by hand: slogdet and solve of a latent matrix in a factor", by_datum=False)
def slogdet_factor(x: Any) -> None:
    dim = x.shape[1]
    with pyro.plate("diagonal", dim):
        weights = pyro.sample("weights", dist.Gamma(3.0, 2.0))
    coupling = pyro.sample("coupling", dist.Uniform(-0.4, 0.4))
    matrix = weights.diag() + coupling * torch.ones(dim, dim)
    _, log_det = torch.linalg.slogdet(matrix)
    quadratic = (x.t() * torch.linalg.solve(matrix, x.t())).sum()
    pyro.factor("likelihood", -0.5 * quadratic - 0.5 * len(x) * log_det)
