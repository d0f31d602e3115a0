"""Funnels and eight schools, centred and not.

The funnel is v ~ N(0, 3^2), x_i ~ N(0, exp(v / 2)^2) for four x (Neal 2003), drawn from directly. Eight
schools (Rubin 1981): given tau, everything is normal, so that moments are integrals over tau alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import ppl_lvm as lvm
from ppl_lvm import NUTS

from .case import Case, Target, Truth, by_engine, exact_reference
from .gaussians import CHAINS, FULL_RANK, MEAN_FIELD, UNCONVERGED

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
_WIDTH = 4


def funnel(y):
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    pyro.sample("x", dist.Normal(torch.zeros(_WIDTH), (v / 2).exp()).to_event(1))
    pyro.sample("obs", dist.Normal(0.0, 1.0), obs=y)


def straight_funnel(y):
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    pyro.sample("z", dist.Normal(torch.zeros(_WIDTH), 1.0).to_event(1))
    pyro.sample("obs", dist.Normal(0.0 * v, 1.0), obs=y)


def centred(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def non_centred(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(mu + tau * z, sigma), obs=y)


def _funnel(model: Any, site: str) -> Target:
    data = {"y": np.array(0.0)}

    def truth() -> Truth:
        found = {"v": (0.0, 3.0)}
        if site == "z":  # x of the centred one has sd exp(9 / 4): its moments are of no use for comparing
            found |= {f"z[{i}]": (0.0, 1.0) for i in range(_WIDTH)}
        return found

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        v, z = 3 * rng.standard_normal(num), rng.standard_normal((num, _WIDTH))
        return {"v": v, site: z if site == "z" else z * np.exp(v / 2)[:, None]}

    name = "non-centred funnel" if site == "z" else "centred funnel"
    return Target(name, model, data, truth, exact_reference(model, data, sampler), "closed form")


def _given_tau() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """tau on a grid of its log, its posterior weights, and mean and variance of mu given tau."""
    log_tau = np.linspace(-7, 7, 8001)
    tau = np.exp(log_tau)
    variance = SIGMA**2 + tau[:, None] ** 2
    precision = 1 / 25 + (1 / variance).sum(1)
    mean = (Y / variance).sum(1) / precision
    log_p = 0.5 * mean**2 * precision - 0.5 * np.log(precision)
    log_p -= 0.5 * (Y**2 / variance + np.log(variance)).sum(1)
    log_p += np.log(2 * 5 / np.pi) - np.log(25 + tau**2) + log_tau
    weight = np.exp(log_p - log_p.max())
    return tau, weight / weight.sum(), mean, 1 / precision


def _schools_truth(centre: bool) -> Truth:
    tau, weight, mean, variance = _given_tau()

    def moments(first: np.ndarray, within: np.ndarray) -> tuple[float, float]:
        total = float(weight @ first)
        return total, float(np.sqrt(weight @ (within + (first - total) ** 2)))

    out = {"mu": moments(mean, variance), "tau": moments(tau, np.zeros_like(tau))}
    for j in range(len(Y)):
        shrink = tau**2 / (tau**2 + SIGMA[j] ** 2)
        theta = mean + shrink * (Y[j] - mean)
        spread = SIGMA[j] ** 2 * shrink + (1 - shrink) ** 2 * variance
        if centre:
            out[f"theta[{j}]"] = moments(theta, spread)
        else:  # z = (theta - mu) / tau, given mu: N(a (y - mu), 1 - shrink), a = tau / (tau^2 + sigma^2)
            slope = tau / (tau**2 + SIGMA[j] ** 2)
            out[f"z[{j}]"] = moments(slope * (Y[j] - mean), 1 - shrink + slope**2 * variance)
    return out


def _schools(centre: bool) -> Target:
    model, data = (centred if centre else non_centred), {"y": Y, "sigma": SIGMA}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        tau, weight, mean, variance = _given_tau()
        at = rng.choice(len(tau), num, p=weight)
        step = np.log(tau[1] / tau[0])
        t = tau[at] * np.exp((rng.random(num) - 0.5) * step)
        mu = mean[at] + np.sqrt(variance[at]) * rng.standard_normal(num)
        shrink = t[:, None] ** 2 / (t[:, None] ** 2 + SIGMA**2)
        theta = mu[:, None] + shrink * (Y - mu[:, None])
        theta += SIGMA * np.sqrt(shrink) * rng.standard_normal((num, len(Y)))
        found = {"mu": mu, "tau": t}
        return found | ({"theta": theta} if centre else {"z": (theta - mu[:, None]) / t[:, None]})

    name = f"eight schools, {'centred' if centre else 'non-centred'}"
    return Target(
        name, model, data, lambda: _schools_truth(centre), exact_reference(model, data, sampler), "quadrature"
    )


def cases() -> list[Case]:
    neck, straight = _funnel(funnel, "x"), _funnel(straight_funnel, "z")
    tight, loose = _schools(True), _schools(False)
    careful = NUTS(num_warmup=500, num_samples=1000, target_accept=0.95)

    def case(name: str, target: Target, engine: lvm.Engine, expected: str, why: str) -> Case:
        return Case(name, target, by_engine(target, engine), expected, why)

    return [
        case("centred funnel, mean field", neck, MEAN_FIELD, "varies", "keeps to a slice of v"),
        case("centred funnel, full rank", neck, FULL_RANK, "varies", "no normal follows the neck"),
        case("centred funnel, NUTS", neck, CHAINS, "varies", "the neck is hardly entered"),
        case(
            "non-centred funnel, mean field", straight, MEAN_FIELD, "means_and_spreads", "independent normals"
        ),
        case("non-centred funnel, NUTS", straight, CHAINS, "means_and_spreads", "unbiased"),
        case("centred schools, NUTS", tight, CHAINS, "varies", "small tau is hardly entered"),
        case("centred schools, mean field", tight, MEAN_FIELD, "varies", "tau is cut off below"),
        case("centred schools, full rank", tight, FULL_RANK, "varies", "a slice of tau"),
        case("centred schools, unconverged", tight, UNCONVERGED, "do_not_trust", "30 steps of 0.01"),
        case("non-centred schools, NUTS", loose, careful, "means_and_spreads", "the right coordinates"),
        case(
            "non-centred schools, mean field", loose, MEAN_FIELD, "means_only", "misses that mu and z oppose"
        ),
    ]
