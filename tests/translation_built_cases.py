"""Cases of the automatic twin whose distributions need more than their parameters' shapes to be built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints as c
from translation_cases import Case

REAL, POSITIVE, UNIT, CORR = c.real, c.positive, c.unit_interval, c.interval(-0.9, 0.9)


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rows(*values: Any) -> Callable[[], torch.Tensor]:
    return lambda: tensor(*values)


def _normal(loc: torch.Tensor, scale: torch.Tensor) -> Any:
    return dist.Normal(loc, scale)


NORMAL = {"loc": (REAL, ()), "scale": (POSITIVE, ())}
NORMALS = {"loc": (REAL, (2,)), "scale": (POSITIVE, (2,))}


_TURN, _LOOK = tensor([0.9, 0.3], [-0.2, 0.8]), tensor([1.0], [0.5])


def _steps(scale: Any, drift: Any, noise: Any) -> tuple[Any, ...]:
    """Initial, transition and observation distributions: 2 hidden, 1 seen, 3 steps."""
    start = dist.MultivariateNormal(torch.zeros(2), scale_tril=torch.eye(2) * scale)
    move = dist.Normal(drift, scale).expand([3, 2]).to_event(1)
    see = dist.Normal(torch.zeros(1), noise).expand([3, 1]).to_event(1)
    return start, _TURN.to(scale), move, _LOOK.to(scale), see


def _gaussian_hmm(**p: Any) -> Any:
    return dist.GaussianHMM(*_steps(**p), duration=3)


def _gamma_hmm(df: Any, **p: Any) -> Any:
    start, turn, move, look, see = _steps(**p)
    moves, sees = (dist.MultivariateNormal(d.mean, scale_tril=d.stddev.diag_embed()) for d in (move, see))
    return dist.GammaGaussianHMM(dist.Gamma(df, df), start, turn, moves, look, sees, duration=3)


def _independent_hmm(scale: Any, noise: Any) -> Any:
    start = dist.MultivariateNormal(torch.zeros(2, 1), scale_tril=torch.eye(1) * scale)
    move = dist.Normal(torch.zeros(2, 3, 1), scale).to_event(1)
    see = dist.Normal(torch.zeros(2, 3, 1), noise).to_event(1)
    one = torch.ones(2, 1, 1, 1).to(scale)
    return dist.IndependentHMM(dist.GaussianHMM(start, 0.9 * one, move, one, see, duration=3))


def _with_gaps(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 90.0, torch.nan, x)


def _mrf(scale: Any, link: Any) -> Any:
    start = dist.MultivariateNormal(torch.zeros(1), scale_tril=torch.eye(1) * scale)
    joint = torch.stack([torch.stack([scale, link]), torch.stack([link, scale])]) + 2 * torch.eye(2)
    pair = dist.MultivariateNormal(torch.zeros(2), joint).expand([3])
    return dist.GaussianMRF(start, pair, pair)


def _discrete_hmm(start: Any, move: Any, loc: Any) -> Any:
    return dist.DiscreteHMM(start, move, dist.Normal(loc, 1.0), duration=4)


class _Proposal:
    """What Rejector takes: called for draws, and asked for their density."""

    def __init__(self, rate: Any) -> None:
        self.log_prob = dist.Exponential(rate).log_prob


def _rejector(rate: Any) -> Any:
    return dist.Rejector(_Proposal(rate), lambda x: -x, -rate, batch_shape=(), event_shape=())


def _coalescent(rate: Any) -> Any:
    return dist.CoalescentTimes(tensor(0.0, 0.1, 0.3), rate)


def _coalescent_grid(rate: Any) -> Any:
    return dist.CoalescentTimesWithRate(tensor(0.1, 0.7, 1.3), rate)


def _mixture(logits: Any, loc: Any, scale: Any) -> Any:
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, scale))


def _uniform(low: Any, width: Any) -> Any:
    return dist.Uniform(low, low + width)


def _symmetric(df: Any, tril: Any) -> Any:
    return dist.Wishart(df + 3.0, scale_tril=tril)


_WISHART = rows([[3.0, 0.4], [0.4, 2.0]], [[1.0, -0.2], [-0.2, 0.6]], [[5.0, 1.0], [1.0, 4.0]])
_SPHERE = rows([0.6, 0.8, 0.0], [0.0, 1.0, 0.0], [-0.48, 0.6, 0.64])
_ANGLES = {"phi_loc": (REAL, ()), "psi_loc": (REAL, ()), "phi_concentration": (POSITIVE, ())}
_STATE = {"scale": (POSITIVE, ()), "drift": (REAL, ()), "noise": (POSITIVE, ())}

BUILT = [
    Case(
        "Delta",
        lambda d: dist.Delta(tensor(0.1, 0.2, 0.3), d),
        {"d": (REAL, ())},
        latent=False,
        plate=False,
        data=rows(0.1, 0.2, 0.3),
    ),
    Case(
        "DiscreteHMM",
        _discrete_hmm,
        {"start": (REAL, (2,)), "move": (REAL, (2, 2)), "loc": (REAL, (2,))},
        plate=False,
    ),
    Case("FoldedDistribution", lambda **p: dist.FoldedDistribution(dist.Normal(**p)), NORMAL),
    Case(
        "ExpandedDistribution",
        lambda **p: dist.ExpandedDistribution(dist.Normal(**p), torch.Size([])),
        NORMAL,
    ),
    Case(
        "GammaGaussianHMM",
        _gamma_hmm,
        {**_STATE, "df": (POSITIVE, ())},
        plate=False,
        latent=False,
        data=rows([0.3], [1.0], [0.4]),
    ),
    Case("GaussianHMM", _gaussian_hmm, _STATE, plate=False),
    Case(
        "GaussianMRF",
        _mrf,
        {"scale": (POSITIVE, ()), "link": (c.interval(-1.0, 1.0), ())},
        plate=False,
        latent=False,
        data=rows([0.3], [1.0], [0.4]),
    ),
    Case(
        "GeneralizedPareto",
        lambda **p: dist.GeneralizedPareto(**p),
        {**NORMAL, "concentration": (POSITIVE, ())},
        data=rows(4.0, 5.0, 9.0),
        latent=False,
    ),
    Case(
        "GroupedNormalNormal",
        lambda prior_loc, prior_scale, obs_scale: dist.GroupedNormalNormal(
            prior_loc, prior_scale, obs_scale, torch.tensor([0, 1, 1])
        ),
        {"prior_loc": (REAL, (2,)), "prior_scale": (POSITIVE, (2,)), "obs_scale": (POSITIVE, (3,))},
        latent=False,
        plate=False,
        data=rows(0.1, 0.4, -0.3),
    ),
    Case(
        "ImproperUniform",
        lambda: dist.ImproperUniform(c.positive, (), (2,)),
        observed=False,
        dependent_support=True,
    ),
    Case("Independent", lambda **p: dist.Normal(**p).to_event(1), NORMALS),
    Case(
        "IndependentHMM",
        _independent_hmm,
        {"scale": (POSITIVE, ()), "noise": (POSITIVE, ())},
        plate=False,
        latent=False,
        data=rows([0.3, 0.5], [1.0, 0.1], [0.4, -0.3]),
    ),
    Case(
        "LKJ",
        lambda concentration: dist.LKJ(3, concentration),
        {"concentration": (POSITIVE, ())},
        plate=False,
    ),
    Case(
        "LKJCholesky",
        lambda concentration: dist.LKJCholesky(3, concentration),
        {"concentration": (POSITIVE, ())},
    ),
    Case("LKJCorrCholesky", lambda eta: dist.LKJCorrCholesky(3, eta), {"eta": (POSITIVE, ())}, plate=False),
    Case("MaskedDistribution", lambda **p: dist.Normal(**p).mask(torch.tensor(True)), NORMAL),
    Case(
        "MaskedMixture",
        lambda loc, scale: dist.MaskedMixture(
            torch.tensor([True, False]), dist.Normal(loc, scale), dist.Laplace(loc, scale)
        ).to_event(1),
        NORMALS,
    ),
    Case("MixtureSameFamily", _mixture, {"logits": (REAL, (2,)), **NORMALS}, latent=False),
    Case(
        "Multinomial logits",
        lambda logits: dist.Multinomial(5, logits=logits),
        {"logits": (REAL, (3,))},
        latent=False,
    ),
    Case(
        "NanMaskedNormal",
        lambda **p: dist.NanMaskedNormal(**p),
        NORMAL,
        latent=False,
        data=rows(0.3, 99.0, 1.0),
        observe=_with_gaps,
    ),
    Case(
        "NanMaskedMultivariateNormal",
        lambda loc, tril: dist.NanMaskedMultivariateNormal(loc, scale_tril=tril),
        {"loc": (REAL, (2,)), "tril": (c.lower_cholesky, (2, 2))},
        latent=False,
        data=rows([0.3, 1.0], [99.0, 1.0], [0.1, 0.2]),
        observe=_with_gaps,
    ),
    Case(
        "OneOneMatching",
        lambda logits: dist.OneOneMatching(logits),
        {"logits": (REAL, (3, 3))},
        latent=False,
        plate=False,
    ),
    Case(
        "OneTwoMatching",
        lambda logits: dist.OneTwoMatching(logits),
        {"logits": (REAL, (4, 2))},
        latent=False,
        plate=False,
    ),
    Case(
        "ProjectedNormal",
        lambda concentration: dist.ProjectedNormal(concentration),
        {"concentration": (REAL, (3,))},
        latent=False,
    ),
    Case(
        "ProjectedNormal 2",
        lambda concentration: dist.ProjectedNormal(concentration),
        {"concentration": (REAL, (2,))},
        latent=False,
    ),
    Case("Rejector", _rejector, {"rate": (POSITIVE, ())}, latent=False, plate=False, data=rows(0.2, 0.7)),
    Case(
        "SpanningTree",
        lambda edge_logits: dist.SpanningTree(edge_logits),
        {"edge_logits": (REAL, (3,))},
        latent=False,
        plate=False,
        data=lambda: torch.tensor([[0, 1], [0, 2]]),
    ),
    Case(
        "TransformedDistribution",
        lambda **p: dist.TransformedDistribution(dist.Normal(**p), [dist.transforms.ExpTransform()]),
        NORMAL,
    ),
    Case("TruncatedPolyaGamma", lambda: dist.TruncatedPolyaGamma(torch.ones(())), data=rows(0.2, 0.3, 0.5)),
    Case(
        "Uniform",
        _uniform,
        {"low": (REAL, ()), "width": (POSITIVE, ())},
        data=rows(1.0, 1.1, 1.2),
        dependent_support=True,
    ),
    Case(
        "Unit",
        lambda log_factor: dist.Unit(log_factor),
        {"log_factor": (REAL, ())},
        latent=False,
        data=lambda: torch.zeros(3, 1),
        observe=lambda x: x[:, :0],
    ),
    Case(
        "VonMises3D",
        lambda concentration: dist.VonMises3D(concentration),
        {"concentration": (REAL, (3,))},
        latent=False,
        data=_SPHERE,
    ),
    Case(
        "Wishart",
        lambda tril: dist.Wishart(5.0, scale_tril=tril),
        {"tril": (c.lower_cholesky, (2, 2))},
        latent=False,
        data=_WISHART,
    ),
    Case(
        "ZeroInflatedDistribution",
        lambda gate, rate: dist.ZeroInflatedDistribution(dist.Poisson(rate), gate=gate),
        {"gate": (UNIT, ()), "rate": (POSITIVE, ())},
        latent=False,
    ),
    Case("CoalescentTimes", _coalescent, {"rate": (POSITIVE, ())}, latent=False, plate=False),
    Case(
        "CoalescentTimesWithRate",
        _coalescent_grid,
        {"rate": (POSITIVE, (4,))},
        latent=False,
        plate=False,
        data=rows(-0.9, 0.2),
    ),
    Case(
        "Empirical",
        lambda w: dist.Empirical(tensor(0.1, 0.5, 0.5), w),
        {"w": (REAL, (3,))},
        latent=False,
        plate=False,
        data=lambda: torch.tensor(0.5),
    ),
]
