"""Longer programs as people write them: varying effects, ODEs by RK4, filters, change points, copulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex

from translated._registry import rng, zoo


def _radon() -> dict[str, Any]:
    r = rng(70)
    county = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3, 3])
    return {
        "floor": r.integers(0, 2, 10).astype(float),
        "county": county,
        "uranium": r.normal(size=4),
        "y": r.normal(1.3, 0.8, 10),
    }


@zoo(_radon, "radon: intercepts and slopes correlated over counties by an LKJ factor", quick=False)
def radon(floor: Any, county: Any, uranium: Any, y: Any) -> None:
    num = len(uranium)
    gamma = pyro.sample("gamma", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    scales = pyro.sample("scales", dist.Exponential(torch.ones(2)).to_event(1))
    corr = pyro.sample("corr", dist.LKJCholesky(2, 2.0))
    with pyro.plate("counties", num):
        raw = pyro.sample("raw", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    design = torch.stack([torch.ones(num), uranium], -1)
    effects = design @ gamma + raw @ (scales.diag() @ corr).T
    sigma = pyro.sample("sigma", dist.HalfCauchy(1.0))
    with pyro.plate("homes", len(y)):
        mean = pyro.deterministic("mean", effects[county, 0] + effects[county, 1] * floor)
        pyro.sample("obs", dist.Normal(mean, sigma), obs=y)


def _pelts() -> dict[str, Any]:
    return {"y": np.exp(rng(71).normal(1.0, 0.4, (6, 2))), "start": np.array([3.0, 1.5])}


def _rates(state: Any, theta: Any) -> Any:
    u, v = state[..., 0], state[..., 1]
    alpha, beta, gamma, delta = theta.unbind(-1)
    return torch.stack([(alpha - beta * v) * u, (-gamma + delta * u) * v], -1)


@zoo(_pelts, "Lotka and Volterra by fixed steps of RK4 in two nested loops, log-normal noise", quick=False)
def lotka_volterra(y: Any, start: Any, substeps: int = 3) -> None:
    loc = torch.tensor([1.0, 0.05, 1.0, 0.05]).log()
    theta = pyro.sample("theta", dist.LogNormal(loc, 0.3).to_event(1))
    first = pyro.sample("first", dist.LogNormal(start.log(), 0.5).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(torch.full((2,), -1.0), 0.5).to_event(1))
    state, path, h = first, [first], 1.0 / substeps
    for _ in range(len(y) - 1):
        for _ in range(substeps):
            k1 = _rates(state, theta)
            k2 = _rates(state + 0.5 * h * k1, theta)
            k3 = _rates(state + 0.5 * h * k2, theta)
            k4 = _rates(state + h * k3, theta)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(state)
    with pyro.plate("years", len(y)):
        pyro.sample("obs", dist.LogNormal(torch.stack(path).log(), sigma).to_event(1), obs=y)


def _returns() -> dict[str, Any]:
    return {"r": rng(72).standard_t(5, 12) * 0.8}


@zoo(
    _returns,
    "GARCH(1, 1) with t innovations, variances written into a buffer in a loop, persistence by Beta",
    quick=False,
)
def garch_t(r: Any) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    persistence = pyro.sample("persistence", dist.Beta(8.0, 2.0))
    share = pyro.sample("share", dist.Beta(2.0, 8.0))
    level = pyro.sample("level", dist.InverseGamma(3.0, 2.0))
    nu = pyro.sample("nu", dist.Gamma(2.0, 0.1))
    alpha, beta = persistence * share, persistence * (1 - share)
    h = torch.empty(len(r))
    h[0] = level
    for t in range(1, len(r)):
        h[t] = level * (1 - persistence) + alpha * (r[t - 1] - mean) ** 2 + beta * h[t - 1].clone()
    with pyro.plate("days", len(r)):
        pyro.sample("obs", dist.StudentT(nu + 2, mean, h.sqrt()), obs=r)


def _curve() -> dict[str, Any]:
    x = np.linspace(-1, 1, 9)
    return {"x": x, "y": rng(73).poisson(np.exp(1 + np.sin(3 * x))).astype(float)}


@zoo(
    _curve,
    "a GP by Hilbert-space basis functions of the Laplacian and their spectral density, Poisson counts",
)
def hilbert_gp(x: Any, y: Any, num_basis: int = 6, edge: float = 1.5) -> None:
    level = pyro.sample("level", dist.Normal(0.0, 2.0))
    amplitude = pyro.sample("amplitude", dist.HalfNormal(1.0))
    length = pyro.sample("length", dist.InverseGamma(5.0, 2.0))
    frequency = math.pi * torch.arange(1, num_basis + 1) / (2 * edge)
    basis = torch.sin(frequency * (x.unsqueeze(-1) + edge)) / math.sqrt(edge)
    density = amplitude**2 * math.sqrt(2 * math.pi) * length * torch.exp(-0.5 * (length * frequency) ** 2)
    weights = pyro.sample("weights", dist.Normal(torch.zeros(num_basis), 1.0).to_event(1))
    field = pyro.deterministic("field", (basis * density.sqrt()) @ weights)
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Poisson((level + field).exp()), obs=y)


@zoo(
    _curve,
    "a GP on inducing points: Cholesky, triangular solve, low-rank normal with the exact diagonal",
    by_datum=False,
    quick=False,
)
def inducing_gp(x: Any, y: Any) -> None:
    length = pyro.sample("length", dist.LogNormal(-1.0, 0.3))
    variance = pyro.sample("variance", dist.HalfNormal(2.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    grid = torch.linspace(-1.0, 1.0, 4)

    def kernel(a: Any, b: Any) -> Any:
        return variance * torch.exp(-0.5 * (torch.cdist(a[:, None], b[:, None]) / length) ** 2)

    root = torch.linalg.cholesky(kernel(grid, grid) + 1e-6 * torch.eye(4))
    factor = torch.linalg.solve_triangular(root, kernel(grid, x), upper=False).T
    rest = variance - (factor**2).sum(-1)
    pyro.sample(
        "y", dist.LowRankMultivariateNormal(torch.zeros(len(x)), factor, rest.clamp(min=0) + noise**2), obs=y
    )


def _answers() -> dict[str, Any]:
    r = rng(74)
    pairs = np.array([(p, i) for p in range(4) for i in range(3) if (p, i) != (2, 1)])
    return {"person": pairs[:, 0], "item": pairs[:, 1], "y": r.integers(0, 2, len(pairs)).astype(float)}


@zoo(
    _answers,
    "2PL with guessing: long format, a hierarchical prior of items by a Cholesky factor, log space",
    baked=("person", "item"),
    quick=False,
)
def three_parameter_items(person: Any, item: Any, y: Any) -> None:
    num_people, num_items = int(person.max()) + 1, int(item.max()) + 1
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.0, 0.0]), 1.0).to_event(1))
    root = pyro.sample("root", dist.LKJCholesky(2, 1.5))
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("items", num_items):
        both = pyro.sample("both", dist.MultivariateNormal(mean, scale_tril=scale.unsqueeze(-1) * root))
        guess = pyro.sample("guess", dist.Beta(5.0, 17.0))
    with pyro.plate("people", num_people):
        ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
    eta = both[item, 0].exp() * (ability[person] - both[item, 1])
    log_right = torch.logaddexp(
        guess[item].log(), torch.log1p(-guess[item]) + torch.nn.functional.logsigmoid(eta)
    )
    log_wrong = torch.log1p(-guess[item]) + torch.nn.functional.logsigmoid(-eta)
    with pyro.plate("answers", len(y)):
        pyro.factor("obs", torch.where(y > 0.5, log_right, log_wrong))


def _clusters() -> dict[str, Any]:
    r = rng(75)
    return {"x": r.normal(size=(10, 2)), "y": r.normal(size=10)}


@zoo(
    _clusters,
    "a mixture of regressions whose weights depend on covariates (experts), coefficients by Vindex",
    enumerated=True,
    quick=False,
)
def experts(x: Any, y: Any, k: int = 3) -> None:
    gate = pyro.sample("gate", dist.Normal(torch.zeros(2, k), 1.0).to_event(2))
    with pyro.plate("component", k):
        beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(logits=x @ gate))
        mean = (Vindex(beta)[z] * x).sum(-1)
        pyro.sample("obs", dist.Normal(mean, Vindex(sigma)[z]), obs=y)


def _visits() -> dict[str, Any]:
    r = rng(76)
    return {"x": r.normal(size=(12, 2)), "y": r.poisson(1.2, 12) * r.integers(0, 2, 12)}


@zoo(
    _visits,
    "zero-inflated negative binomial with regressions in both parts, dispersion by its logarithm",
    quick=False,
)
def zero_inflated_regression(x: Any, y: Any) -> None:
    a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    b = pyro.sample("b", dist.Laplace(torch.zeros(2), 1.0).to_event(1))
    size = pyro.sample("size", dist.LogNormal(0.0, 1.0))
    rate = (x @ b).clamp(-10, 10).exp()
    with pyro.plate("data", len(y)):
        pyro.sample(
            "obs",
            dist.ZeroInflatedNegativeBinomial(
                total_count=size, logits=rate.log() - size.log(), gate_logits=x @ a
            ),
            obs=y,
        )


def _ranks() -> dict[str, Any]:
    r = rng(77)
    return {"x": r.normal(size=(9, 2)), "group": np.arange(9) % 3, "y": r.integers(0, 4, 9)}


@zoo(
    _ranks,
    "ordered probit with group effects: cutpoints by cumulated increments, differences of erf",
    quick=False,
)
def grouped_probit(x: Any, group: Any, y: Any) -> None:
    beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    first = pyro.sample("first", dist.Normal(-1.0, 1.0))
    steps = pyro.sample("steps", dist.Gamma(torch.full((2,), 2.0), 2.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    with pyro.plate("groups", 3):
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    eta = x @ beta + spread * effect[group]
    cuts = first + torch.cat([torch.zeros(1), steps.cumsum(0)])
    below = 0.5 * (1 + torch.erf((cuts - eta.unsqueeze(-1)) / math.sqrt(2)))
    edges = torch.nn.functional.pad(below, (1, 0), value=0.0)
    edges = torch.cat([edges, torch.ones(len(y), 1)], -1)
    probs = edges.diff(dim=-1)
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Categorical(probs=probs), obs=y)


def _river() -> dict[str, Any]:
    r = rng(78)
    y = r.normal(size=10).cumsum() + 5
    return {"y": np.where(np.arange(10) % 4 == 2, 0.0, y), "seen": np.arange(10) % 4 != 2}


@zoo(
    _river,
    "a local linear trend by a Kalman filter of 2 x 2 matrices in a loop, missing rows by torch.where",
    by_datum=False,
    quick=False,
)
def kalman_trend(y: Any, seen: Any) -> None:
    sds = pyro.sample("sds", dist.HalfNormal(torch.ones(3)).to_event(1))
    move = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    noise = torch.diag_embed(sds[:2] ** 2)
    mean, cov, total = torch.stack([y[0], torch.zeros(())]), 10.0 * torch.eye(2), 0.0
    look = torch.tensor([1.0, 0.0])
    for t in range(len(y)):
        mean, cov = move @ mean, move @ cov @ move.T + noise
        scale = cov[0, 0] + sds[2] ** 2
        gain = cov @ look / scale
        error = y[t] - mean[0]
        term = -0.5 * (error**2 / scale + torch.log(2 * math.pi * scale))
        total = total + torch.where(seen[t], term, torch.zeros_like(term))
        mean = torch.where(seen[t], mean + gain * error, mean)
        cov = torch.where(seen[t], cov - torch.outer(gain, look @ cov), cov)
    pyro.factor("likelihood", total)


def _mines() -> dict[str, Any]:
    return {"y": rng(79).poisson(np.r_[np.full(5, 5.0), np.full(6, 2.0)]).astype(float)}


@zoo(
    _mines,
    "a change point: a label over all years outside the plate, rates by comparison with a range",
    enumerated=True,
    by_datum=False,
    quick=False,
)
def change_point(y: Any) -> None:
    early = pyro.sample("early", dist.Gamma(2.0, 1.0))
    late = pyro.sample("late", dist.Gamma(2.0, 1.0))
    when = pyro.sample("when", dist.Categorical(torch.ones(len(y)) / len(y)))
    years = torch.arange(len(y))
    with pyro.plate("years", len(y)):
        rate = torch.where(years < when, early, late)
        pyro.sample("obs", dist.Poisson(rate), obs=y)


def _pairs() -> dict[str, Any]:
    return {"y": np.exp(rng(80).normal(size=(8, 2)))}


@zoo(_pairs, "a Gaussian copula of Weibull margins: icdf of cdfs, quadratic forms by einsum", quick=False)
def copula(y: Any) -> None:
    shape = pyro.sample("shape", dist.LogNormal(torch.zeros(2), 0.5).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(2), 0.5).to_event(1))
    root = pyro.sample("root", dist.LKJCholesky(2, 1.0))
    margins = dist.Weibull(scale, shape)
    u = (1 - torch.exp(-((y / scale) ** shape))).clamp(1e-6, 1 - 1e-6)
    normal = dist.Normal(0.0, 1.0)
    z = normal.icdf(u)
    inverse = torch.linalg.inv(root @ root.T)
    quadratic = torch.einsum("ni,ij,nj->n", z, inverse - torch.eye(2), z)
    with pyro.plate("pairs", len(y)):
        dependence = -0.5 * quadratic - root.diagonal().log().sum()
        pyro.factor("copula", dependence + margins.log_prob(y).sum(-1))


def _choices() -> dict[str, Any]:
    r = rng(81)
    return {"x": r.normal(size=(8, 3, 2)), "who": np.arange(8) // 2, "y": r.integers(0, 3, 8)}


@zoo(
    _choices,
    "mixed logit: tastes of people by a non-centred normal, utilities by batched products",
    quick=False,
)
def mixed_logit(x: Any, who: Any, y: Any) -> None:
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    spread = pyro.sample("spread", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("people", 4):
        raw = pyro.sample("raw", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    tastes = mean + spread * raw
    utility = torch.bmm(x, tastes[who].unsqueeze(-1)).squeeze(-1)
    with pyro.plate("choices", len(y)):
        pyro.sample("obs", dist.Categorical(logits=utility), obs=y)


def _prices() -> dict[str, Any]:
    return {"y": 0.5 * rng(82).normal(size=8)}


@zoo(
    _prices,
    "stochastic volatility: a site for each step in a Python loop, each given the one before",
    quick=False,
)
def volatility(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(-1.0, 1.0))
    phi = pyro.sample("phi", dist.Beta(20.0, 1.5)) * 2 - 1
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    h = pyro.sample("h_0", dist.Normal(mu, sigma / (1 - phi**2).sqrt()))
    states = [h]
    for t in range(1, len(y)):
        h = pyro.sample(f"h_{t}", dist.Normal(mu + phi * (h - mu), sigma))
        states.append(h)
    with pyro.plate("time", len(y)):
        pyro.sample("obs", dist.Normal(0.0, (torch.stack(states) / 2).exp()), obs=y)
