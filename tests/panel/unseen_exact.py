"""Targets of the unseen cases whose posteriors are known in closed form, or by one integral.

A random walk, a regression (normal-gamma: Bishop 2006, section 3.3), counts in classes (Dirichlet), a change
point (a mixture of gammas), three modes, a banana (Haario, Saksman and Tamminen 1999) and a horseshoe
(Carvalho, Polson and Scott 2010), whose entries are independent given the global scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from scipy import special

from .case import Target, Truth, exact_reference

# ---- random walk, and regression of unknown precision ---------------------------------------------


def walk(y, cov):
    x = pyro.sample("x", dist.MultivariateNormal(torch.zeros_like(y), cov))
    pyro.sample("obs", dist.Normal(x, 1.0).to_event(1), obs=y)


def noisy_line(features, y):
    precision = pyro.sample("precision", dist.Gamma(2.0, 2.0))
    b = pyro.sample("b", dist.Normal(torch.zeros_like(features[0]), 2 / precision.sqrt()).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(features @ b, precision.rsqrt()), obs=y)


def random_walk() -> Target:
    rng = np.random.default_rng(21)
    n = 24
    cov = 0.5 * np.minimum.outer(np.arange(1, n + 1), np.arange(1, n + 1)).astype(float)
    y = np.linalg.cholesky(cov) @ rng.standard_normal(n) + rng.standard_normal(n)
    gain = cov @ np.linalg.inv(cov + np.eye(n))
    mean, spread = gain @ y, cov - gain @ cov
    root = np.linalg.cholesky(spread)
    data = {"y": y, "cov": cov}

    def truth() -> Truth:
        return {f"x[{i}]": (float(mean[i]), float(np.sqrt(spread[i, i]))) for i in range(n)}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        return {"x": mean + rng.standard_normal((num, n)) @ root.T}

    return Target("random walk", walk, data, truth, exact_reference(walk, data, sampler), "closed form")


def line() -> Target:
    rng = np.random.default_rng(22)
    features = np.column_stack([np.ones(15), rng.standard_normal((15, 2))])
    y = features @ np.array([0.5, 1.5, -1.0]) + 0.8 * rng.standard_normal(15)
    inner = features.T @ features + np.eye(3) / 4
    inverse = np.linalg.inv(inner)
    mean = inverse @ features.T @ y
    shape, rate = 2 + 7.5, 2 + 0.5 * float(y @ y - mean @ inner @ mean)
    data = {"features": features, "y": y}

    def truth() -> Truth:
        sd = np.sqrt(rate / (shape - 1) * np.diag(inverse))
        found = {f"b[{i}]": (float(mean[i]), float(sd[i])) for i in range(3)}
        return found | {"precision": (shape / rate, float(np.sqrt(shape)) / rate)}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        precision = rng.gamma(shape, 1 / rate, num)
        noise = rng.standard_normal((num, 3)) @ np.linalg.cholesky(inverse).T
        return {"precision": precision, "b": mean + noise / np.sqrt(precision)[:, None]}

    name = "regression of unknown precision"
    return Target(name, noisy_line, data, truth, exact_reference(noisy_line, data, sampler), "closed form")


# ---- classes, and a change point ------------------------------------------------------------------


def classes(y):
    p = pyro.sample("p", dist.Dirichlet(0.8 * torch.ones(4)))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Categorical(p), obs=y)


def change(y):
    early = pyro.sample("early", dist.Gamma(2.0, 1.0))
    late = pyro.sample("late", dist.Gamma(2.0, 1.0))
    at = pyro.sample("at", dist.Categorical(torch.ones_like(y)), infer={"enumerate": "parallel"})
    with pyro.plate("row", len(y)):
        rate = torch.where(torch.arange(len(y)) < at, early, late)
        pyro.sample("obs", dist.Poisson(rate), obs=y)


def four_classes() -> Target:
    y = np.repeat([0, 1, 2], [9, 3, 1])
    a = 0.8 + np.bincount(y, minlength=4)
    data = {"y": y}

    def truth() -> Truth:
        mean = a / a.sum()
        sd = np.sqrt(mean * (1 - mean) / (a.sum() + 1))
        return {f"p[{i}]": (float(mean[i]), float(sd[i])) for i in range(4)}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        return {"p": rng.dirichlet(a, num)}

    return Target(
        "four classes", classes, data, truth, exact_reference(classes, data, sampler), "closed form"
    )


def change_point() -> Target:
    y = np.array([1, 0, 2, 1, 0, 1, 2, 0, 4, 3, 6, 4, 2, 5, 3, 4, 7, 3], dtype=float)
    n = len(y)
    sums = np.concatenate([[0.0], np.cumsum(y)[:-1]])
    size = np.arange(n, dtype=float)  # rows before the change
    shape = np.stack([2 + sums, 2 + y.sum() - sums])
    rate = np.stack([1 + size, 1 + n - size])
    log_mass = (special.gammaln(shape) - shape * np.log(rate)).sum(0)
    mass = np.exp(log_mass - special.logsumexp(log_mass))

    def truth() -> Truth:
        mean = (shape / rate) @ mass
        second = (shape * (shape + 1) / rate**2) @ mass
        sd = np.sqrt(second - mean**2)
        return {site: (float(mean[i]), float(sd[i])) for i, site in enumerate(("early", "late"))}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        at = rng.choice(n, num, p=mass)
        draws = rng.gamma(shape[:, at], 1 / rate[:, at])
        return {"early": draws[0], "late": draws[1]}

    data = {"y": y}
    return Target("change point", change, data, truth, exact_reference(change, data, sampler), "closed form")


# ---- three modes, a banana, a horseshoe -----------------------------------------------------------


def islands(y, loc, scale):
    c = pyro.sample("c", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})
    x = pyro.sample("x", dist.Normal(Vindex(loc)[c, :], Vindex(scale)[c].unsqueeze(-1)).to_event(1))
    pyro.sample("obs", dist.Normal(x, 6.0).to_event(1), obs=y)


def banana(y):
    x = pyro.sample("x", dist.Normal(0.0, 3.0))
    bend = pyro.sample("bend", dist.Normal(0.0, 10.0))
    pyro.sample("obs", dist.Normal(bend - 0.2 * x**2, 1.0), obs=y)


def horseshoe(y, tau):
    with pyro.plate("row", len(y)):
        lam = pyro.sample("lam", dist.HalfCauchy(1.0))
        beta = pyro.sample("beta", dist.Normal(0.0, tau * lam))
        pyro.sample("obs", dist.Normal(beta, 1.0), obs=y)


def three_islands() -> Target:
    loc = np.array([[-4.0, -3.0], [4.0, -2.0], [0.0, 5.0]])
    scale, y = np.array([0.6, 1.0, 0.8]), np.array([0.5, 0.5])
    variance = 1 / (1 / scale**2 + 1 / 36)
    centre = variance[:, None] * (loc / scale[:, None] ** 2 + y / 36)
    total = scale**2 + 36
    log_mass = -0.5 * ((y - loc) ** 2).sum(1) / total - np.log(total)
    mass = np.exp(log_mass - special.logsumexp(log_mass))
    data = {"y": y, "loc": loc, "scale": scale}

    def truth() -> Truth:
        mean = mass @ centre
        sd = np.sqrt(mass @ (variance[:, None] + centre**2) - mean**2)
        return {f"x[{i}]": (float(mean[i]), float(sd[i])) for i in range(2)}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        at = rng.choice(3, num, p=mass)
        return {"x": centre[at] + np.sqrt(variance[at])[:, None] * rng.standard_normal((num, 2))}

    return Target(
        "three islands", islands, data, truth, exact_reference(islands, data, sampler), "closed form"
    )


def bent() -> Target:
    y = -1.0
    data = {"y": np.array(y)}
    grid = np.linspace(-15, 15, 30001)
    mean, variance = (0.2 * grid**2 + y) / 1.01, 1 / 1.01  # of bend given x
    log_p = -0.5 * (grid / 3) ** 2 - 0.5 * (y + 0.2 * grid**2) ** 2 / 101
    mass = np.exp(log_p - special.logsumexp(log_p))

    def truth() -> Truth:
        x, centre = float(mass @ grid), float(mass @ mean)
        spread = np.sqrt(variance + mass @ (mean - centre) ** 2)
        return {"x": (x, float(np.sqrt(mass @ (grid - x) ** 2))), "bend": (centre, float(spread))}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        at = rng.choice(len(grid), num, p=mass)
        return {"x": grid[at], "bend": mean[at] + np.sqrt(variance) * rng.standard_normal(num)}

    return Target("banana", banana, data, truth, exact_reference(banana, data, sampler), "quadrature")


def four_effects() -> Target:
    y, tau = np.array([0.2, -0.6, 1.8, 5.0]), 0.3
    data: dict[str, Any] = {"y": y, "tau": np.array(tau)}
    log_lam = np.linspace(-15, 15, 20001)
    lam2 = np.exp(2 * log_lam)
    total = 1 + tau**2 * lam2
    log_p = -0.5 * y[:, None] ** 2 / total - 0.5 * np.log(total) + log_lam - np.log1p(lam2)
    mass = np.exp(log_p - special.logsumexp(log_p, axis=1, keepdims=True))
    shrink = tau**2 * lam2 / total  # mean of beta given lam is shrink * y, its variance shrink

    def truth() -> Truth:  # lam has no variance
        mean = y * (mass @ shrink)
        second = mass @ shrink + y**2 * (mass @ shrink**2)
        sd = np.sqrt(second - mean**2)
        return {f"beta[{j}]": (float(mean[j]), float(sd[j])) for j in range(len(y))}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        at = np.stack([rng.choice(len(log_lam), num, p=row) for row in mass], 1)
        beta = y * shrink[at] + np.sqrt(shrink[at]) * rng.standard_normal(at.shape)
        return {"lam": np.exp(log_lam[at]), "beta": beta}

    return Target(
        "horseshoe", horseshoe, data, truth, exact_reference(horseshoe, data, sampler), "quadrature"
    )
