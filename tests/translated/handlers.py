"""Pyro's handlers and statements: mask, scale, condition, block, factor, param, improper priors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from translated._registry import enter, rng, zoo


def _points() -> dict[str, Any]:
    r = rng(45)
    return {"x": r.normal(size=6), "weight": r.uniform(0.5, 2.0, size=6), "keep": r.uniform(size=6) < 0.7}


@zoo(_points, "poutine.scale with weights by datum inside a plate, poutine.mask by boolean data, both nested")
def weighted_likelihood(x: Any, weight: Any, keep: Any) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with poutine.scale(scale=0.5):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)), poutine.scale(scale=weight), poutine.mask(mask=keep):
        pyro.sample("x", dist.Normal(loc, scale), obs=x)


@zoo(_points, "improper priors on the line, on the positive half and on an ordered vector")
def improper_priors(x: Any, weight: Any, keep: Any) -> None:
    del weight, keep
    real, positive = dist.constraints.real, dist.constraints.positive
    loc = pyro.sample("loc", dist.ImproperUniform(real, (), ()))
    scale = pyro.sample("scale", dist.ImproperUniform(positive, (), ()))
    cuts = pyro.sample("cuts", dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,)))
    pyro.factor("prior", -scale.log() - 0.5 * (cuts**2).sum() - scale)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc + cuts[0] * torch.sigmoid(cuts[1]), scale), obs=x)


@zoo(
    _points,
    "pyro.param held at its start, plain and constrained, beside latents",
    params={"shift": np.array(0.3), "spread": np.array([0.7, 1.4])},
)
def with_params(x: Any, weight: Any, keep: Any) -> None:
    del weight, keep
    shift = pyro.param("shift", torch.tensor(0.3))
    spread = pyro.param("spread", torch.tensor([0.7, 1.4]), constraint=dist.constraints.positive)
    loc = pyro.sample("loc", dist.Normal(shift, spread[0]))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, spread[1]), obs=x)


def _two_means(x: Any, weight: Any, keep: Any) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(a, b))
        pyro.sample("x", dist.Normal(z, weight), obs=x)
        pyro.sample("w", dist.Normal(z + keep, 1.0))


_FIXED = {"w": torch.tensor(np.linspace(-1, 1, 6)), "b": torch.tensor(1.5, dtype=torch.float64)}
enter(
    "conditioned",
    poutine.condition(_two_means, data=_FIXED),
    _points,
    "poutine.condition turns latents, one of them outside of the plate, into observations",
    by_datum=False,
)


@zoo(_points, "poutine.block hides a statement (of a Delta) from the density")
def blocked(x: Any, weight: Any, keep: Any) -> None:
    del weight, keep
    with poutine.block(hide=["hidden"]):
        hidden = pyro.sample("hidden", dist.Delta(torch.tensor(0.5)))
    loc = pyro.sample("loc", dist.Normal(hidden, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


@zoo(_points, "truncated normal: uniform on the cdf's range through icdf, and a density divided by its mass")
def truncated_normal(x: Any, weight: Any, keep: Any) -> None:
    del keep
    uniform = pyro.sample("uniform", dist.Uniform(0.0, 1.0))
    normal = dist.Normal(0.0, 1.0)
    low = normal.cdf(torch.tensor(-0.5))
    loc = pyro.deterministic("loc", normal.icdf((low + (1 - low) * uniform).clamp(1e-9, 1 - 1e-9)))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    above = dist.Normal(loc, scale)
    with pyro.plate("data", len(x)):
        pyro.factor("weight", above.log_prob(weight) - torch.log(1 - above.cdf(torch.tensor(0.4))))
        pyro.sample("x", dist.Normal(loc, 2.0), obs=x)


@zoo(_points, "nested dependent supports: each limit is another site", dependent=True)
def dependent_supports(x: Any, weight: Any, keep: Any) -> None:
    del weight, keep
    low = pyro.sample("low", dist.Normal(-2.0, 1.0))
    width = pyro.sample("width", dist.Gamma(3.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Uniform(low, low + width))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@zoo(_points, "static arguments steer the program: a flag, a name of a link, a number of loops")
def static_arguments(
    x: Any, weight: Any, keep: Any, link: str = "softplus", order: int = 3, robust: bool = True
) -> None:
    del keep
    weights = [pyro.sample(f"weight_{i}", dist.Normal(0.0, 1.0 / (1 + i))) for i in range(order)]
    loc = sum(w * x**i for i, w in enumerate(weights))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    loc = torch.nn.functional.softplus(loc) if link == "softplus" else torch.exp(loc)
    fn = dist.StudentT(5.0, loc, scale) if robust else dist.Normal(loc, scale)
    with pyro.plate("data", len(x)):
        pyro.sample("y", fn, obs=weight)


def _other_statics() -> dict[str, Any]:
    return {**_points(), "link": "exp", "order": 1, "robust": False}


enter("other_static_arguments", static_arguments, _other_statics, "the same program by its other branches")


def _lengths() -> dict[str, Any]:
    lengths = np.array([3, 5, 2])
    padded = rng(46).normal(size=(3, 6)) * (np.arange(6) < lengths[:, None])
    return {"y": padded, "lengths": lengths}


@zoo(
    _lengths, "padded rows cut at int(lengths.max()), a mask of row lengths in two plates", baked=("lengths",)
)
def ragged_rows(y: Any, lengths: Any) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    longest = int(lengths.max())
    y = y[:, :longest]
    with pyro.plate("rows", len(y), dim=-2):
        level = pyro.sample("level", dist.Normal(loc, spread))
        with (
            pyro.plate("columns", longest, dim=-1),
            poutine.mask(mask=torch.arange(longest) < lengths.unsqueeze(-1)),
        ):
            pyro.sample("y", dist.Normal(level, 1.0), obs=y)


@zoo(
    _lengths, "a Python loop over ragged rows by .tolist() of the lengths", baked=("lengths",), by_datum=False
)
def ragged_loop(y: Any, lengths: Any) -> None:
    with pyro.plate("rows", len(y)):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
    for i, n in enumerate(lengths.tolist()):
        with pyro.plate(f"row_{i}", n):
            pyro.sample(f"y_{i}", dist.Normal(level[i], 1.0), obs=y[i, :n])


@zoo(_lengths, "data through NumPy: the sizes of groups, counted outside of torch", baked=("lengths",))
def numpy_on_data(y: Any, lengths: Any) -> None:
    sizes = torch.tensor(np.sort(lengths.numpy())[::-1] / 2.0)
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level * sizes, 1.0), obs=y[:, 0])
