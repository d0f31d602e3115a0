"""Targets of the unseen cases whose posteriors are known by quadrature over a fine grid of few coordinates.

Regressions of counts, a separable logistic regression, an ordinal one, length scales of a Gaussian process, a
ring, a square root of unknown sign, a location with two-dimensional Student-t noise, and rates of six groups
(given the hyperparameters these are beta variables, so that two coordinates suffice).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy import special, stats

from .case import Target, Truth, exact_reference, moments_on_grid


def _target(
    name: str,
    model: Any,
    data: Mapping[str, Any],
    axes: list[np.ndarray],
    log_density: Callable[..., np.ndarray],
    sites: Callable[..., dict[str, np.ndarray]],
) -> Target:
    """``log_density`` of coordinates, Jacobians included; ``sites``: values of the sites at coordinates."""
    mesh = [m.reshape(-1) for m in np.meshgrid(*axes, indexing="ij")]
    log_p = log_density(*mesh)
    mass = np.exp(log_p - special.logsumexp(log_p))
    steps = [axis[1] - axis[0] for axis in axes]

    def truth() -> Truth:
        values: dict[str, np.ndarray] = {}
        for site, value in sites(*mesh).items():
            if value.ndim == 1:
                values[site] = value
            else:
                values |= {f"{site}[{i}]": value[:, i] for i in range(value.shape[1])}
        return moments_on_grid(log_p, values)

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        at = rng.choice(len(mass), num, p=mass)
        return sites(*(m[at] + (rng.random(num) - 0.5) * step for m, step in zip(mesh, steps, strict=True)))

    return Target(name, model, data, truth, exact_reference(model, data, sampler), "quadrature")


# ---- regressions ----------------------------------------------------------------------------------


def counts_on_line(x, y):
    a = pyro.sample("a", dist.Normal(0.0, 3.0))
    b = pyro.sample("b", dist.Normal(0.0, 3.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Poisson((a + b * x).exp()), obs=y)


def spread_counts(y):
    level = pyro.sample("level", dist.Normal(0.0, 2.0))
    shape = pyro.sample("shape", dist.Gamma(2.0, 0.5))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.GammaPoisson(shape, shape / level.exp()), obs=y)


def separable(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Bernoulli(logits=w[0] + w[1] * x), obs=y)


def grades(group, y):
    first = pyro.sample("first", dist.Normal(0.0, 3.0))
    gap = pyro.sample("gap", dist.LogNormal(0.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    with pyro.plate("row", len(y)):
        low = torch.sigmoid(first - slope * group)
        high = torch.sigmoid(first + gap - slope * group)
        pyro.sample("obs", dist.Categorical(torch.stack([low, high - low, 1 - high], -1)), obs=y)


def poisson() -> Target:
    rng = np.random.default_rng(31)
    x = np.linspace(-1.5, 1.5, 25)
    y = rng.poisson(np.exp(0.8 + 0.6 * x)).astype(float)

    def log_density(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        eta = a[:, None] + b[:, None] * x
        return eta @ y - np.exp(eta).sum(1) - (a**2 + b**2) / 18

    axes = [np.linspace(-0.6, 1.8, 301), np.linspace(-0.6, 1.8, 301)]
    return _target(
        "Poisson regression",
        counts_on_line,
        {"x": x, "y": y},
        axes,
        log_density,
        lambda a, b: {"a": a, "b": b},
    )


def negative_binomial() -> Target:
    y = np.array([0, 3, 1, 12, 2, 0, 5, 7, 1, 0, 2, 4], dtype=float)

    def log_density(level: np.ndarray, log_shape: np.ndarray) -> np.ndarray:
        shape, mean = np.exp(log_shape)[:, None], np.exp(level)[:, None]
        p = stats.nbinom.logpmf(y, shape, shape / (shape + mean)).sum(1)
        return p - level**2 / 8 + 2 * log_shape - 0.5 * np.exp(log_shape)

    axes = [np.linspace(-2, 5, 301), np.linspace(-4, 4, 301)]
    sites = lambda level, log_shape: {"level": level, "shape": np.exp(log_shape)}  # noqa: E731
    return _target("negative binomial", spread_counts, {"y": y}, axes, log_density, sites)


def separable_classes() -> Target:
    x = np.array([-1.6, -1.1, -0.7, -0.3, 0.4, 0.8, 1.2, 2.0])
    y = (x > 0).astype(float)

    def log_density(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        eta = (a[:, None] + b[:, None] * x) * (2 * y - 1)
        return -np.logaddexp(0, -eta).sum(1) - (a**2 + b**2) / 50

    axes = [np.linspace(-15, 15, 401), np.linspace(-6, 30, 401)]
    sites = lambda a, b: {"w": np.stack([a, b], -1)}  # noqa: E731
    return _target("separable classes", separable, {"x": x, "y": y}, axes, log_density, sites)


def ordinal() -> Target:
    group = np.repeat([0.0, 1.0], 12)
    y = np.array([0] * 6 + [1] * 4 + [2] * 2 + [0] * 2 + [1] * 3 + [2] * 7)

    def log_density(first: np.ndarray, log_gap: np.ndarray, slope: np.ndarray) -> np.ndarray:
        total = -(first**2) / 18 - log_gap**2 / 2 - slope**2 / 8
        for g in (0.0, 1.0):
            low, high = special.expit(first - slope * g), special.expit(first + np.exp(log_gap) - slope * g)
            n = np.bincount(y[group == g], minlength=3)
            total = total + n[0] * np.log(low) + n[1] * np.log(high - low + 1e-300) + n[2] * np.log1p(-high)
        return total

    axes = [np.linspace(-4, 4, 91), np.linspace(-3, 3, 91), np.linspace(-3, 7, 91)]
    sites = lambda f, g, s: {"first": f, "gap": np.exp(g), "slope": s}  # noqa: E731
    return _target("ordinal regression", grades, {"group": group, "y": y}, axes, log_density, sites)


# ---- a Gaussian process, a ring, a root, heavy tails ----------------------------------------------


def process(gaps, y):
    length = pyro.sample("length", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
    cov = (-0.5 * (gaps / length**2).sum(-1)).exp() + 0.09 * torch.eye(len(y))
    pyro.sample("obs", dist.MultivariateNormal(torch.zeros_like(y), cov), obs=y)


def ring(y):
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    pyro.sample("obs", dist.Normal((x**2).sum().sqrt(), 0.4), obs=y)


def root(y):
    x = pyro.sample("x", dist.Normal(0.8, 3.0))
    pyro.sample("obs", dist.Normal(x**2, 1.5), obs=y)


def heavy(y, tril):
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 20.0).to_event(1))
    pyro.sample("obs", dist.MultivariateStudentT(5.0, x, tril), obs=y)


def two_lengths() -> Target:
    rng = np.random.default_rng(34)
    at = rng.uniform(-2, 2, (20, 2))
    gaps = (at[:, None] - at[None]) ** 2
    y = np.sin(2 * at[:, 0]) + 0.3 * at[:, 1] + 0.3 * rng.standard_normal(20)

    def log_density(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        out = np.empty(len(first))
        for block in np.array_split(np.arange(len(first)), 20):
            scale = np.exp(-2 * np.stack([first[block], second[block]], -1))
            cov = np.exp(-0.5 * np.einsum("ijd,bd->bij", gaps, scale)) + 0.09 * np.eye(len(y))
            chol = np.linalg.cholesky(cov)
            half = np.linalg.solve(chol, np.broadcast_to(y[:, None], (len(block), len(y), 1)))[..., 0]
            out[block] = -0.5 * (half**2).sum(1) - np.log(np.diagonal(chol, axis1=1, axis2=2)).sum(1)
        return out - (first**2 + second**2) / 2

    axes = [np.linspace(-4, 4, 161), np.linspace(-4, 4.5, 161)]
    sites = lambda a, b: {"length": np.exp(np.stack([a, b], -1))}  # noqa: E731
    return _target("two length scales", process, {"gaps": gaps, "y": y}, axes, log_density, sites)


def ring_of_radius_3() -> Target:
    def log_density(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return -((3 - np.hypot(a, b)) ** 2) / 0.32 - (a**2 + b**2) / 50

    axes = [np.linspace(-6, 6, 401), np.linspace(-6, 6, 401)]
    sites = lambda a, b: {"x": np.stack([a, b], -1)}  # noqa: E731
    return _target("ring", ring, {"y": np.array(3.0)}, axes, log_density, sites)


def two_roots() -> Target:
    def log_density(x: np.ndarray) -> np.ndarray:
        return -((9 - x**2) ** 2) / 4.5 - (x - 0.8) ** 2 / 18

    return _target(
        "two roots", root, {"y": np.array(9.0)}, [np.linspace(-7, 7, 14001)], log_density, lambda x: {"x": x}
    )


def heavy_location() -> Target:
    tril, y = np.array([[1.0, 0.0], [0.8, 0.6]]), np.array([1.0, -2.0])

    def log_density(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        shift = np.linalg.solve(tril, np.stack([y[0] - a, y[1] - b]))
        return -3.5 * np.log1p((shift**2).sum(0) / 5) - (a**2 + b**2) / 800

    axes = [np.linspace(-50, 52, 1021), np.linspace(-52, 50, 1021)]
    sites = lambda a, b: {"x": np.stack([a, b], -1)}  # noqa: E731
    return _target("heavy-tailed location", heavy, {"y": y, "tril": tril}, axes, log_density, sites)


# ---- rates of six groups --------------------------------------------------------------------------


def groups(y, trials):
    m = pyro.sample("m", dist.Beta(2.0, 2.0))
    kappa = pyro.sample("kappa", dist.Gamma(2.0, 0.1))
    with pyro.plate("group", len(y)):
        theta = pyro.sample("theta", dist.Beta(m * kappa, (1 - m) * kappa))
        pyro.sample("obs", dist.Binomial(trials, theta), obs=y)


def six_groups() -> Target:
    y, trials = np.array([3.0, 5.0, 1.0, 8.0, 4.0, 2.0]), np.array([10.0, 12.0, 9.0, 14.0, 10.0, 11.0])
    axes = [np.linspace(-4, 3, 301), np.linspace(-3, 6, 401)]
    logit, log_kappa = (g.reshape(-1) for g in np.meshgrid(*axes, indexing="ij"))
    m, kappa = special.expit(logit), np.exp(log_kappa)
    a, b = (m * kappa)[:, None], ((1 - m) * kappa)[:, None]
    log_p = (special.betaln(a + y, b + trials - y) - special.betaln(a, b)).sum(1)
    log_p += 2 * np.log(m) + 2 * np.log1p(-m) + 2 * log_kappa - 0.1 * kappa
    mass = np.exp(log_p - special.logsumexp(log_p))
    data = {"y": y, "trials": trials}

    def truth() -> Truth:
        found = dict(moments_on_grid(log_p, {"m": m, "kappa": kappa}))
        mean = (a + y) / (a + b + trials)
        second = mean * (a + y + 1) / (a + b + trials + 1)
        for j in range(len(y)):
            first = float(mass @ mean[:, j])
            found[f"theta[{j}]"] = (first, float(np.sqrt(mass @ second[:, j] - first**2)))
        return found

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        at = rng.choice(len(mass), num, p=mass)
        steps = [axis[1] - axis[0] for axis in axes]
        part = special.expit(logit[at] + (rng.random(num) - 0.5) * steps[0])
        size = np.exp(log_kappa[at] + (rng.random(num) - 0.5) * steps[1])
        theta = rng.beta((part * size)[:, None] + y, ((1 - part) * size)[:, None] + trials - y)
        return {"m": part, "kappa": size, "theta": theta}

    return Target("six groups", groups, data, truth, exact_reference(groups, data, sampler), "quadrature")
