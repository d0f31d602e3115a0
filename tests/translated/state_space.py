"""Continuous states in time: local level and trend, random walk by cumsum, volatility, GaussianHMM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _series(n: int = 8, seed: int = 18) -> dict[str, Any]:
    r = rng(seed)
    return {"y": np.cumsum(0.5 * r.normal(size=n)) + 0.2 * r.normal(size=n)}


@zoo(_series, "a loop in pyro.markov over continuous states, sites by f-string", by_datum=False)
def local_level(y: Any) -> None:
    drift = pyro.sample("drift", dist.HalfNormal(1.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    state = pyro.sample("state_0", dist.Normal(0.0, 2.0))
    for t in pyro.markov(range(len(y))):
        if t > 0:
            state = pyro.sample(f"state_{t}", dist.Normal(state, drift))
        pyro.sample(f"y_{t}", dist.Normal(state, noise), obs=y[t])


@zoo(_series, "level and slope in one loop, lists of latents stacked afterwards", quick=False)
def local_trend(y: Any) -> None:
    scales = pyro.sample("scales", dist.HalfNormal(torch.ones(3)).to_event(1))
    level, slope = (
        pyro.sample("level_0", dist.Normal(0.0, 2.0)),
        pyro.sample("slope_0", dist.Normal(0.0, 0.5)),
    )
    levels = [level]
    for t in range(1, len(y)):
        level = pyro.sample(f"level_{t}", dist.Normal(level + slope, scales[0]))
        slope = pyro.sample(f"slope_{t}", dist.Normal(slope, scales[1]))
        levels.append(level)
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(torch.stack(levels), scales[2]), obs=y)


@zoo(_series, "Gaussian random walk by cumsum of increments")
def random_walk(y: Any) -> None:
    spread = pyro.sample("spread", dist.Exponential(1.0))
    steps = pyro.sample("steps", dist.Normal(torch.zeros(len(y)), 1.0).to_event(1))
    path = pyro.deterministic("path", torch.cumsum(spread * steps, -1))
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(path, 0.5), obs=y)


@zoo(_series, "stochastic volatility: a density of shifted slices, correlated increments", quick=False)
def stochastic_volatility(y: Any) -> None:
    mean = pyro.sample("mean", dist.Cauchy(0.0, 2.0))
    persistence = pyro.sample("persistence", dist.Uniform(-1.0, 1.0))
    spread = pyro.sample("spread", dist.HalfCauchy(1.0))
    raw = pyro.sample("raw", dist.Normal(torch.zeros(len(y)), 1.0).to_event(1))
    logs = [mean + spread * raw[0] / torch.sqrt(1 - persistence**2)]
    for t in range(1, len(y)):
        logs.append(mean + persistence * (logs[-1] - mean) + spread * raw[t])
    h = torch.stack(logs)
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(0.0, torch.exp(h / 2)), obs=y)


def _track() -> dict[str, Any]:
    return {"y": np.cumsum(rng(19).normal(size=(6, 1)), axis=0)}


@zoo(
    _track,
    "GaussianHMM: the states integrated out by a parallel scan inside the distribution",
    by_datum=False,
    quick=False,
)
def gaussian_hmm(y: Any) -> None:
    drift = pyro.sample("drift", dist.LogNormal(0.0, 0.5))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 0.5))
    start = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    moves = dist.Normal(torch.zeros(1), drift.unsqueeze(-1)).to_event(1)
    reads = dist.Normal(torch.zeros(1), noise.unsqueeze(-1)).to_event(1)
    fn = dist.GaussianHMM(start, torch.eye(1), moves, torch.eye(1), reads, duration=len(y))
    pyro.sample("y", fn, obs=y)
