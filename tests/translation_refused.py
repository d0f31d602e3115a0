"""What of Pyro's distributions and transforms the automatic twin does not take, and why.

``REFUSED`` are cases that a test runs, with words of the message that they must get; ``WITHOUT`` are names
that have no density to translate. The table of docs/translation-support.md is generated from both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints as c
from pyro.distributions import transforms as t
from translation_built_cases import NORMAL, POSITIVE, REAL, rows
from translation_cases import Case


@dataclass(frozen=True)
class Refused:
    case: Case
    reason: str
    words: str  # of the message, a regular expression

    def __str__(self) -> str:
        return self.case.name


_BRANCH = "taken out of the graph"
_CONCENTRATIONS = {"phi_concentration": (POSITIVE, ()), "psi_concentration": (POSITIVE, ())}
_ANGLES = {
    "phi_loc": (REAL, ()),
    "psi_loc": (REAL, ()),
    **_CONCENTRATIONS,
    "correlation": (c.interval(-0.9, 0.9), ()),
}
_STABLE = {"stability": (c.interval(1.2, 1.8), ()), "scale": (POSITIVE, ())}
_NO_BIJECTION = "Pyro has no bijection onto its support, so that its own samplers do not take it either"


def _stable(kind: Any) -> Any:
    return lambda stability, scale: kind(stability, 0.1, scale)


def _scale_mixture(coord_scale: Any, component_logits: Any, component_scale: Any) -> Any:
    return dist.GaussianScaleMixture(coord_scale, component_logits, component_scale)


REFUSED = [
    Refused(
        Case("SineBivariateVonMises", lambda **p: dist.SineBivariateVonMises(**p), _ANGLES, latent=False),
        "its constructor asserts on the values of latent concentrations",
        _BRANCH,
    ),
    Refused(
        Case(
            "SineSkewed",
            lambda loc, scale, skew: dist.SineSkewed(dist.VonMises(loc, scale).to_event(1), skew),
            {"loc": (REAL, (1,)), "scale": (POSITIVE, (1,)), "skew": (c.interval(-1.0, 1.0), (1,))},
        ),
        "its constructor branches on the values of a latent skewness",
        _BRANCH,
    ),
    Refused(
        Case("StableWithLogProb", _stable(dist.StableWithLogProb), _STABLE, latent=False),
        "its numerical integral branches on how near values are to 0 and the stability to 1",
        _BRANCH,
    ),
    Refused(
        Case("Stable", _stable(dist.Stable), _STABLE, latent=False, data=rows(0.1, 0.2, 0.3)),
        "as StableWithLogProb (use poutine.reparam)",
        _BRANCH,
    ),
    Refused(
        Case(
            "LinearHMM",
            lambda scale: dist.LinearHMM(
                dist.Normal(torch.zeros(1), scale).to_event(1),
                torch.eye(1).to(scale),
                dist.Normal(torch.zeros(3, 1), scale).to_event(1),
                torch.eye(1).to(scale),
                dist.Normal(torch.zeros(3, 1), scale).to_event(1),
                duration=3,
            ),
            {"scale": (POSITIVE, ())},
            latent=False,
            plate=False,
            data=rows([0.3], [1.0], [0.4]),
        ),
        "it has no log_prob (use GaussianHMM, or poutine.reparam)",
        "log_prob",
    ),
    Refused(
        Case(
            "GaussianScaleMixture",
            _scale_mixture,
            {
                "coord_scale": (POSITIVE, (3,)),
                "component_logits": (REAL, (2,)),
                "component_scale": (POSITIVE, (2,)),
            },
            latent=False,
            plate=False,
        ),
        "Pyro's own gradient fails: its log_prob writes into what autograd needs",
        "gradient fails",
    ),
    Refused(
        Case("NanMaskedNormal latent", lambda **p: dist.NanMaskedNormal(**p), NORMAL, observed=False),
        "as a latent site: it branches on where values are NaN (observed data may be)",
        _BRANCH,
    ),
    Refused(
        Case(
            "Wishart df",
            lambda df: dist.Wishart(df + 3.0, scale_tril=torch.eye(2).to(df)),
            {"df": (POSITIVE, ())},
            latent=False,
            data=rows([[3.0, 0.4], [0.4, 2.0]], [[1.0, -0.2], [-0.2, 0.6]], [[5.0, 1.0], [1.0, 4.0]]),
        ),
        "with latent degrees of freedom: its constructor branches on their values (fixed ones translate)",
        _BRANCH,
    ),
    Refused(
        Case("Wishart latent", lambda: dist.Wishart(5.0, scale_tril=torch.eye(2)), observed=False),
        f"as a latent site: {_NO_BIJECTION} (use LKJCholesky with scales, or a latent factor)",
        "site 'z' has support .*PositiveDefinite.*no bijection",
    ),
    Refused(
        Case("ProjectedNormal latent", lambda: dist.ProjectedNormal(torch.ones(3)), observed=False),
        f"as a latent site: {_NO_BIJECTION} (use poutine.reparam)",
        "site 'z' has support .*Sphere.*no bijection",
    ),
    Refused(
        Case(
            "MixtureSameFamily latent",
            lambda: dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)),
            observed=False,
        ),
        f"as a latent site: {_NO_BIJECTION} (use a discrete site, which is summed out)",
        "site 'z' has support .*MixtureSameFamily.*no bijection",
    ),
    Refused(
        Case(
            "CoalescentTimes latent",
            lambda: dist.CoalescentTimes(torch.tensor([0.0, 0.1, 0.3])),
            observed=False,
        ),
        f"as a latent site: {_NO_BIJECTION}",
        "site 'z' has support .*alescentTimes.*no bijection",
    ),
    Refused(
        Case(
            "Normalize",
            lambda loc: dist.TransformedDistribution(dist.Normal(loc, 1.0).to_event(1), [t.Normalize()]),
            {"loc": (REAL, (3,))},
            latent=False,
            plate=False,
        ),
        "transform: it has no log-Jacobian, and branches on values",
        "",
    ),
]

WITHOUT = {
    "ComposeTransformModule": "a transform",
    "ConditionalDistribution": "an interface; what its condition(...) returns is translated",
    "ConditionalTransform": "an interface; what its condition(...) returns is translated",
    "ConditionalTransformModule": "an interface; what its condition(...) returns is translated",
    "ConditionalTransformedDistribution": "what its condition(...) returns is translated",
    "Distribution": "abstract",
    "ExponentialFamily": "abstract",
    "TorchDistribution": "abstract",
    "TransformModule": "a transform",
    "CoalescentRateLikelihood": "no distribution but a function for pyro.factor, which is translated",
    "constraints": "no distribution",
    "enable_validation": "no distribution",
    "is_validation_enabled": "no distribution",
    "kl": "no distribution",
    "transforms": "no distribution",
    "validation_enabled": "no distribution",
}
