"""Models for guides by datum, with their exact answers; imported by a fresh process too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

NOISE, BETWEEN, WIDE = 1.0, 0.5, 5.0
N, REPEATS = 8, 3
_rng = np.random.default_rng(0)
Y = 1.5 + BETWEEN * _rng.normal(size=(N, 1)) + NOISE * _rng.normal(size=(N, REPEATS))


def effects(y: Any) -> None:
    """Random effects with known spreads: everything is Gaussian."""
    mu = pyro.sample("mu", dist.Normal(0.0, WIDE))
    with pyro.plate("group", len(y)):
        z = pyro.sample("z", dist.Normal(mu, BETWEEN))
        pyro.sample("obs", dist.Normal(z[..., None].expand(z.shape + y.shape[1:]), NOISE).to_event(1), obs=y)


def exact_effects(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and precision of (mu, z_1, ...), and the log evidence."""
    n, repeats = y.shape
    precision = np.zeros((n + 1, n + 1))
    precision[0, 0] = 1 / WIDE**2 + n / BETWEEN**2
    precision[0, 1:] = precision[1:, 0] = -1 / BETWEEN**2
    precision[np.arange(1, n + 1), np.arange(1, n + 1)] = 1 / BETWEEN**2 + repeats / NOISE**2
    mean = np.linalg.solve(precision, np.concatenate([[0.0], y.sum(1) / NOISE**2]))
    same = np.kron(np.eye(n), np.ones((repeats, repeats)))
    covariance = NOISE**2 * np.eye(y.size) + BETWEEN**2 * same + WIDE**2
    flat = y.ravel()
    quadratic = flat @ np.linalg.solve(covariance, flat)
    return mean, precision, float(-0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1]))


def mixed(x: Any, w: Any) -> None:
    """Supports, event dimensions, a plate beside that of the data, and one inside it."""
    parts = pyro.sample("parts", dist.Dirichlet(torch.ones(3)))
    kinds = pyro.plate("kind", 2, dim=-1)
    with kinds:
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x), dim=-2):
        pair = pyro.sample("pair", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with kinds:
            size = pyro.sample("size", dist.LogNormal(rate.log(), 0.5))
            mean = size * pair.sum(-1) + parts[..., 0] * w[:, None]
            pyro.sample("obs", dist.Normal(mean, 1.0), obs=x)


MIXED = {"x": _rng.normal(size=(4, 2)), "w": np.array([1, 2, 0, 1])}
