"""Proposals of local latents from their prior: many in one run of the program, where it broadcasts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import assert_within
from scipy import stats

from ppl_lvm.backends import _pyro_marginal as marginal
from ppl_lvm.backends.session import torch_session
from ppl_lvm.fitting import prepare

Y = np.array([1.0, -0.5, 2.0])
SHARED = {"mu": np.array(0.7), "scale": np.array(1.5)}


def shifted(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu, scale))
        pair = pyro.sample("pair", dist.Normal(torch.zeros(2), scale[..., None]).to_event(1))
        pyro.sample("obs", dist.Normal(z + pair.sum(-1), 1.0), obs=y)


def branching(y: Any) -> None:
    """Looks at a number, which several draws at once do not have."""
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu if float(mu) > 0 else 2 * mu, scale))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


def mixing(y: Any) -> None:
    """Broadcasts without an error, but the prior of a draw is then that of another: means over all draws."""
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("data", len(y)):
        w = pyro.sample("w", dist.Normal(mu, scale))
        z = pyro.sample("z", dist.Normal(w.mean(), scale))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


PROGRAMS = [(shifted, marginal._together), (branching, marginal._one_by_one), (mixing, marginal._one_by_one)]


@pytest.mark.parametrize(("program", "expected"), PROGRAMS, ids=lambda v: v.__name__.strip("_"))
def test_programs_that_broadcast_are_run_once(program: Any, expected: Any) -> None:
    problem = prepare(program, Y)
    local = [s for s in problem.latents() if s.local]
    with torch_session(2, "float64"):
        assert marginal._prior_sampler(problem, SHARED, local, {}) is expected


def test_draws_have_the_prior_s_moments_and_are_independent() -> None:
    problem, num = prepare(shifted, Y), 20_000
    local = [s for s in problem.latents() if s.local]
    with torch_session(2, "float64"):
        drawn = marginal._together(problem, SHARED, local, num, {})
    z, pair = drawn["z"].numpy(), drawn["pair"].numpy()
    assert z.shape == (num, 3)
    assert pair.shape == (num, 3, 2)
    every = np.concatenate([z - 0.7, pair.reshape(num, -1)], 1) / 1.5
    assert_within(every.mean(0), 0.0, 1 / math.sqrt(num))
    assert_within(every.std(0), 1.0, 1 / math.sqrt(2 * num))
    apart = np.corrcoef(every.T)[np.triu_indices(9, 1)]
    assert_within(apart, 0.0, 1 / math.sqrt(num))
    assert (stats.kstest(every.ravel(), "norm").pvalue) > 1e-4
