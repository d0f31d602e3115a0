"""Mixtures with enumerated labels: shared and nested plates, several sites, labels of the whole data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate

from translated._registry import rng, zoo


def _points() -> dict[str, Any]:
    r = rng(8)
    return {"x": np.concatenate([r.normal(-2, 0.5, 5), r.normal(1, 0.8, 4)]), "k": 2}


@zoo(_points, "one enumerated site in the data plate, components indexed by it", enumerated=True)
def gaussian_mixture(x: Any, k: int) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(k)))
    with pyro.plate("components", k):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


@zoo(_points, "MixtureSameFamily: the sum over labels in the distribution itself, logits as latents")
def mixture_same_family(x: Any, k: int) -> None:
    logits = pyro.sample("logits", dist.Normal(torch.zeros(k), 1.0).to_event(1))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(k), 3.0).to_event(1))
    with pyro.plate("data", len(x)):
        parts = dist.Normal(loc, torch.ones(k))
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(logits=logits), parts), obs=x)


def _grouped() -> dict[str, Any]:
    r = rng(9)
    return {"x": r.normal(size=(3, 4)) + np.array([-1.5, 1.5])[r.integers(0, 2, size=(3, 4))]}


@zoo(_grouped, "labels in nested plates, weights by group, shared components", enumerated=True)
def grouped_mixture(x: Any) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("groups", x.shape[0], dim=-2):
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        with pyro.plate("members", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Bernoulli(share), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc[z.long()], 0.7), obs=x)


@zoo(
    _grouped,
    "a label for each group over a nested data plate: products inside the sum",
    enumerated=True,
    quick=False,
)
def clustered_groups(x: Any) -> None:
    share = pyro.sample("share", dist.Dirichlet(torch.tensor([2.0, 1.0, 1.0])))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("groups", x.shape[0], dim=-2):
        z = pyro.sample("z", dist.Categorical(share))
        with pyro.plate("members", x.shape[1], dim=-1):
            pyro.sample("x", dist.Normal(loc[z], scale), obs=x)


@zoo(_points, "two enumerated sites of which the second depends on the first", enumerated=True)
@config_enumerate
def two_labels(x: Any, k: int) -> None:
    first = pyro.sample("first", dist.Dirichlet(torch.ones(k)))
    second = pyro.sample("second", dist.Beta(torch.ones(k), 2.0).to_event(1))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(k, 2), 2.0).to_event(2))
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Categorical(first))
        b = pyro.sample("b", dist.Bernoulli(second[a]))
        pyro.sample("x", dist.Normal(loc[a, b.long()], 1.0), obs=x)


def _answers() -> dict[str, Any]:
    return {"y": rng(10).integers(0, 2, size=(6, 4)).astype(float)}


@zoo(
    _answers,
    "latent classes: a label outside of a plate of items, probabilities in a matrix",
    enumerated=True,
)
def latent_classes(y: Any) -> None:
    share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("classes", 2, dim=-2), pyro.plate("features", y.shape[1], dim=-1):
        prob = pyro.sample("prob", dist.Beta(1.5, 1.5))
    with pyro.plate("persons", y.shape[0]):
        z = pyro.sample("z", dist.Categorical(share))
        pyro.sample("y", dist.Bernoulli(prob[z]).to_event(1), obs=y)


@zoo(
    _answers,
    "vectors in a mixture: MultivariateNormal with a scale_tril by component",
    enumerated=True,
    quick=False,
)
def multivariate_mixture(y: Any) -> None:
    dim = y.shape[1]
    with pyro.plate("components", 2):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        scale = pyro.sample("scale", dist.HalfNormal(torch.ones(dim)).to_event(1))
        root = pyro.sample("root", dist.LKJCholesky(dim, 1.5))
    tril = (scale + 0.1).unsqueeze(-1) * root
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.MultivariateNormal(loc[z], scale_tril=tril[z]), obs=y)


@zoo(
    _points,
    "a label outside of the data plate ties all data: no terms by datum",
    enumerated=True,
    by_datum=False,
)
def model_choice(x: Any, k: int) -> None:
    which = pyro.sample("which", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    scale = torch.tensor([0.5, 1.0, 2.0 * k])[which]
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, scale), obs=x)


def _pairs() -> dict[str, Any]:
    r = rng(11)
    x = r.normal(size=8)
    return {"x": x, "y": np.where(r.uniform(size=8) < 0.5, 1 + x, -1 - 0.5 * x) + 0.3 * r.normal(size=8)}


@zoo(
    _pairs,
    "mixture of regressions by Vindex, and gating logits that depend on the data",
    enumerated=True,
    quick=False,
)
def mixture_of_experts(x: Any, y: Any) -> None:
    from pyro.ops.indexing import Vindex

    gate = pyro.sample("gate", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("experts", 2):
        coefficients = pyro.sample("coefficients", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(logits=gate[0] + gate[1] * x)).long()
        loc = Vindex(coefficients)[z, 0] + Vindex(coefficients)[z, 1] * x
        pyro.sample("y", dist.Normal(loc, Vindex(scale)[z]), obs=y)
