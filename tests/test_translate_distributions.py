"""Every distribution and transform of Pyro through the automatic twin: it agrees, or is on the list.

Value and gradient to 1e-9 at 5 points in float64, against Pyro's own. The cases are in translation_cases.py,
translation_built_cases.py, translation_transforms.py; what is not taken, and why, in translation_refused.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints as c
from translation_built_cases import BUILT, tensor
from translation_cases import DECLARED, Case, float64
from translation_reference import assert_agrees
from translation_refused import REFUSED, WITHOUT, Refused
from translation_transforms import FLOWS, Flow

import ppl_lvm as lvm

CASES = [*DECLARED, *BUILT]
# Each of another kind: location-scale, special functions, simplex, matrices, counts, masks, series, flows.
USUAL = {
    "StudentT", "Beta", "Dirichlet", "MultivariateNormal precision", "LKJCholesky", "NegativeBinomial",
    "VonMises", "Multinomial", "OrderedLogistic", "MixtureSameFamily", "Uniform", "NanMaskedNormal", "Delta",
}  # fmt: skip
USUAL_FLOWS = {
    "AffineTransform",
    "StickBreakingTransform",
    "DiscreteCosineTransform",
    "LeakyReLUTransform",
    "planar",
}


def _marked(cases: list[Any], usual: set[str]) -> list[Any]:
    return [pytest.param(x, id=x.name, marks=() if x.name in usual else pytest.mark.slow) for x in cases]


@pytest.mark.parametrize("case", _marked(CASES, USUAL))
def test_distribution(case: Case) -> None:
    """As the prior of a latent site, and of observed values, with latent parameters."""
    assert_agrees(case.model, case.draw(), dependent_support=case.dependent_support)


@pytest.mark.parametrize("flow", _marked(FLOWS, USUAL_FLOWS))
def test_transform(flow: Flow) -> None:
    """Its value, log-Jacobian and inverse, at latent values and with a latent parameter or context."""
    model, x = flow.made()
    assert_agrees(model, x)


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_what_is_not_taken_says_why(refused: Refused) -> None:
    with pytest.raises(ValueError, match=refused.words):
        lvm.translate(refused.case.model, refused.case.draw())


def test_no_distribution_is_left_out() -> None:
    """All of pyro.distributions is tried above, refused with a reason, or has no density."""
    tried = {x.name.split()[0] for x in CASES}
    refused = {x.case.name.split()[0] for x in REFUSED}
    assert set(dist.__all__) <= tried | refused | set(WITHOUT)
    assert not set(WITHOUT) & tried
    assert len(CASES) == len({x.name for x in CASES})


def test_no_transform_is_left_out() -> None:
    """All of pyro.distributions.transforms; classes with weights are made by the helpers of their names."""
    others = {
        "AbsTransform": "FoldedDistribution",
        "ComposeTransformModule": "iterated",
        "Transform": "abstract",
    }

    def plain(name: str) -> str:
        return name.split()[0].replace("_", "").lower()

    tried = {plain(x.name) for x in (*FLOWS, *(r.case for r in REFUSED))}
    assert not {n for n in dist.transforms.__all__ if plain(n) not in tried and n not in others}


@pytest.mark.slow
def test_every_support_with_a_bijection() -> None:
    """A latent site on each, whose image of R^n comes from Pyro's ``biject_to``."""
    supports = {
        "real": (c.real, ()), "positive": (c.positive, ()), "nonnegative": (c.nonnegative, ()),
        "greater_than": (c.greater_than(-2.0), ()), "greater_than_eq": (c.greater_than_eq(3.0), ()),
        "less_than": (c.less_than(1.0), ()), "unit_interval": (c.unit_interval, ()),
        "interval": (c.interval(-1.0, 4.0), ()), "half_open": (c.half_open_interval(0.0, 2.0), ()),
        "simplex": (c.simplex, (3,)), "ordered": (c.ordered_vector, (3,)),
        "positive_ordered": (c.positive_ordered_vector, (3,)), "corr_cholesky": (c.corr_cholesky, (3, 3)),
        "corr_matrix": (c.corr_matrix, (3, 3)), "softplus_positive": (c.softplus_positive, ()),
        "independent": (c.independent(c.positive, 1), (2,)),
        "cat": (c.cat([c.positive, c.real], -1, [1, 2]), (3,)),
        "stack": (c.stack([c.positive, c.unit_interval], -1), (2,)),
    }  # fmt: skip

    def model(x: Any) -> None:
        for name, (support, shape) in supports.items():
            event = tuple(shape)
            z = pyro.sample(name, dist.ImproperUniform(support, torch.Size(), torch.Size(event)))
            pyro.factor(f"pull_{name}", -0.1 * ((z - x) ** 2).sum() + torch.sin(z).sum())

    assert_agrees(model, np.array(0.3), dependent_support=True)


def test_handlers_around_distributions() -> None:
    """mask, scale, to_event, expand and a transformed distribution conditioned on a latent context."""
    held = torch.tensor([True, False, True])

    def model(x: Any) -> None:
        a = pyro.sample("a", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
        with pyro.poutine.scale(scale=0.3), pyro.plate("n", 3):
            pyro.sample("x", dist.Normal(a[0], a[1]).expand([3]).mask(held), obs=x)
        with pyro.poutine.mask(mask=a[0] > 1.0):
            pyro.sample("y", dist.Gamma(a, a.flip(0)).to_event(1), obs=tensor(0.4, 2.0))
        pyro.sample("d", dist.Delta(tensor(0.5), log_density=a.log().sum()), obs=tensor(0.5))

    assert_agrees(model, np.array([0.3, 1.0, -0.4]))


def test_coalescent_rate_likelihood() -> None:
    """The function for pyro.factor that stands among the distributions."""
    with float64():
        likelihood = dist.CoalescentRateLikelihood(tensor(0.1, 0.7, 1.3), tensor(-0.9, 0.2), 3)

    def model(x: Any) -> None:
        rate = pyro.sample("rate", dist.LogNormal(torch.zeros(3), 1.0).to_event(1))
        pyro.factor("times", likelihood(rate * x).sum())

    assert_agrees(model, np.array(1.3))
