"""Hierarchical regressions: linear, varying intercepts and slopes, crossed effects, binomial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _grouped(n: int = 12, groups: int = 3, seed: int = 0) -> dict[str, Any]:
    r = rng(seed)
    group, x = np.arange(n) % groups, r.normal(size=n)
    y = 1.0 + 0.5 * group + (0.8 - 0.3 * group) * x + 0.4 * r.normal(size=n)
    return {"group": group, "x": x, "y": y, "num_groups": groups}


def _linear() -> dict[str, Any]:
    r = rng(1)
    x = r.normal(size=(10, 3))
    return {"x": x, "y": 0.5 + x @ np.array([1.0, -0.5, 0.2]) + 0.3 * r.normal(size=10)}


@zoo(_linear, "vector coefficients by to_event, matrix-vector product, HalfCauchy")
def linear_regression(x: Any, y: Any) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 5.0))
    slopes = pyro.sample("slopes", dist.Normal(torch.zeros(x.shape[1]), 2.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(intercept + x @ slopes, sigma), obs=y)


@zoo(_grouped, "integer group index as data, two plates side by side, Exponential scales")
def varying_intercepts(group: Any, x: Any, y: Any, num_groups: int) -> None:
    centre = pyro.sample("centre", dist.Normal(0.0, 3.0))
    spread = pyro.sample("spread", dist.Exponential(1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.Exponential(1.0))
    with pyro.plate("groups", num_groups):
        level = pyro.sample("level", dist.Normal(centre, spread))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(level[group] + slope * x, sigma), obs=y)


@zoo(
    _grouped,
    "LKJCholesky, MultivariateNormal with scale_tril in a plate, columns of a latent matrix",
    quick=False,
)
def varying_slopes(group: Any, x: Any, y: Any, num_groups: int) -> None:
    centre = pyro.sample("centre", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    scales = pyro.sample("scales", dist.HalfNormal(torch.ones(2)).to_event(1))
    root = pyro.sample("root", dist.LKJCholesky(2, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    tril = scales.unsqueeze(-1) * root
    with pyro.plate("groups", num_groups):
        effect = pyro.sample("effect", dist.MultivariateNormal(centre, scale_tril=tril))
    with pyro.plate("data", len(y)):
        loc = effect[group, 0] + effect[group, 1] * x
        pyro.sample("y", dist.Normal(loc, sigma), obs=y)


def _crossed() -> dict[str, Any]:
    r = rng(2)
    rows, columns = np.divmod(np.arange(12), 4)
    y = 0.7 * rows - 0.4 * columns + 0.3 * r.normal(size=12)
    return {"row": rows, "column": columns, "y": y}


@zoo(
    _crossed,
    "crossed random effects, sizes of plates from the data (int(x.max()))",
    baked=("row", "column"),
)
def crossed_effects(row: Any, column: Any, y: Any) -> None:
    spreads = pyro.sample("spreads", dist.Gamma(2.0, 2.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.InverseGamma(3.0, 2.0))
    with pyro.plate("rows", int(row.max()) + 1):
        by_row = pyro.sample("by_row", dist.Normal(0.0, spreads[0]))
    with pyro.plate("columns", int(column.max()) + 1):
        by_column = pyro.sample("by_column", dist.Normal(0.0, spreads[1]))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(by_row[row] + by_column[column], sigma.sqrt()), obs=y)


def _trials() -> dict[str, Any]:
    r = rng(3)
    trials = r.integers(5, 12, size=6)
    return {"trials": trials, "x": r.normal(size=6), "successes": r.binomial(trials, 0.4)}


@zoo(_trials, "Binomial with logits and integer data, a latent for each datum inside the data plate")
def overdispersed_binomial(trials: Any, x: Any, successes: Any) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 1.5))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with pyro.plate("data", len(successes)):
        noise = pyro.sample("noise", dist.Normal(0.0, spread))
        logits = intercept + slope * x + noise
        pyro.sample("successes", dist.Binomial(trials, logits=logits), obs=successes)


def _nested_levels() -> dict[str, Any]:
    r = rng(4)
    return {"y": r.normal(size=(3, 2, 4)) + np.arange(3)[:, None, None]}


@zoo(_nested_levels, "three nested plates in dims -3, -2 and -1, each with its own level")
def nested_levels(y: Any) -> None:
    top = pyro.sample("top", dist.Normal(0.0, 3.0))
    spreads = pyro.sample("spreads", dist.LogNormal(torch.zeros(3), 0.5).to_event(1))
    schools, classes, pupils = y.shape
    with pyro.plate("school", schools, dim=-3):
        school = pyro.sample("school_mean", dist.Normal(top, spreads[0]))
        with pyro.plate("class", classes, dim=-2):
            room = pyro.sample("class_mean", dist.Normal(school, spreads[1]))
            with pyro.plate("pupil", pupils, dim=-1):
                pyro.sample("y", dist.Normal(room, spreads[2]), obs=y)
