"""NUTS(init=fit): where chains start, and the mass matrix that adaptation begins with."""

from __future__ import annotations

from typing import Any

import jax  # noqa: F401  # at collection: importing it draws from NumPy's generator
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import assert_within

import ppl_lvm as lvm
from ppl_lvm import MAP, NUTS, SVI, Laplace
from ppl_lvm.core import Run
from ppl_lvm.engines._start import draws_of, shrunk_correlation, starting_values
from ppl_lvm.fitting import prepare

SDS = np.array([0.03, 1.0, 40.0])
CORRELATION = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.3], [0.0, 0.3, 1.0]])
COV = CORRELATION * np.outer(SDS, SDS)


def correlated(cov: Any, y: Any) -> None:
    """The data say nothing of the latents: their posterior is the prior."""
    pyro.sample("x", dist.MultivariateNormal(torch.zeros(3, dtype=cov.dtype), cov))
    pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    pyro.sample("obs", dist.Normal(y.new_zeros(1), 1.0).to_event(1), obs=y)


def correlated_twin(cov: Any, y: Any) -> None:
    numpyro.sample("x", numpyro_dist.MultivariateNormal(np.zeros(3), cov))
    numpyro.sample("scale", numpyro_dist.LogNormal(0.0, 2.0))
    numpyro.sample("obs", numpyro_dist.Normal(0.0 * y, 1.0).to_event(1), obs=y)


MODEL, DATA = lvm.Model(correlated, numpyro=correlated_twin), {"cov": COV, "y": np.zeros(1)}
BACKENDS = {
    "blackjax": {"backend": "numpyro", "kernel": "blackjax"},
    "numpyro": {"backend": "numpyro", "kernel": "numpyro"},
    "pyro": {"backend": "pyro"},
}


@pytest.fixture(scope="module")
def earlier() -> lvm.Fit:
    return lvm.fit(MODEL, DATA, Laplace(num_draws=4000), seed=1)


def sampled(name: str, init: Any, **settings: Any) -> lvm.Fit:
    return lvm.fit(MODEL, DATA, NUTS(num_chains=2, **BACKENDS[name], **settings), init=init, seed=2)


@pytest.mark.parametrize("name", BACKENDS)
def test_without_warmup_the_metric_is_that_of_the_fit(name: str, earlier: lvm.Fit) -> None:
    """In the coordinates of its Cholesky factor the target is standard normal: few steps at a step size of
    about 1, where the identity would need 40 / 0.03 of them. On Pyro, 15 iterations find that step size."""
    num, warmup = (60, 15) if name == "pyro" else (150, 0)
    fit = sampled(name, earlier, num_warmup=warmup, num_samples=num, dense_mass=True)
    assert fit.sample_stats is not None
    assert float(fit.sample_stats["n_steps"].mean()) < 12
    assert fit.status.details["acceptance_rate"] > 0.6
    x = fit.posterior["x"].values
    assert_within(x.reshape(-1, 3).std(0) / SDS, np.ones(3), 1 / np.sqrt(num))


@pytest.mark.parametrize("dense", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["blackjax", "numpyro", pytest.param("pyro", marks=pytest.mark.slow)])
def test_a_short_warmup_gives_the_posterior(name: str, dense: bool, earlier: lvm.Fit) -> None:
    num = 200 if name == "pyro" else 1500
    fit = sampled(name, earlier, num_warmup=100, num_samples=num, dense_mass=dense)
    s = fit.summary()
    rows = [f"x[{i}]" for i in range(3)]
    assert_within(s.loc[rows, "mean"], np.zeros(3), s.loc[rows, "mcse_mean"])
    assert_within(s.loc[rows, "sd"] / SDS, np.ones(3), s.loc[rows, "mcse_sd"] / SDS)
    log = np.log(fit.posterior["scale"].values)
    assert_within(log.mean(), 0.0, 2.0 / np.sqrt(s.loc["scale", "ess_bulk"]))
    assert s["r_hat"].max() < 1.05


@pytest.mark.slow
def test_adaptation_goes_on_from_a_poor_metric() -> None:
    """Mean-field widths of a nearly degenerate pair are too small by the factor sqrt(1 - 0.9^2 ...)."""
    poor = lvm.fit(MODEL, DATA, SVI(guide="mean_field", num_steps=2000, learning_rate=0.02), seed=1)
    fit = sampled("blackjax", poor, num_warmup=300, num_samples=1500, dense_mass=True)
    s = fit.summary()
    rows = [f"x[{i}]" for i in range(3)]
    assert_within(s.loc[rows, "sd"] / SDS, np.ones(3), s.loc[rows, "mcse_sd"] / SDS)
    assert float(fit.sample_stats["n_steps"].mean()) < 12


def test_chains_start_at_different_draws(earlier: lvm.Fit) -> None:
    problem = prepare(MODEL, DATA)
    starts = starting_values(problem, Run(0, earlier), 8)
    x = np.array([s["x"] for s in starts])
    drawn = draws_of(problem, earlier)["x"]
    assert all((drawn == row).all(1).any() for row in x)
    assert len(np.unique(x, axis=0)) == 8
    assert (x.std(0) > 0.3 * SDS).all()


def test_resampled_draws_that_repeat_are_taken_once(earlier: lvm.Fit) -> None:
    problem = prepare(MODEL, DATA)
    rows = np.repeat([0, 1, 2, 3], [990, 3, 3, 4])
    repeated = {k: v.values[:, rows] for k, v in earlier.posterior.items()}
    fit = type("Fit", (), {"draws": {k: type("V", (), {"values": v}) for k, v in repeated.items()}})()
    starts = starting_values(problem, Run(0, fit), 4)
    assert len({tuple(s["x"]) for s in starts}) == 4


def test_a_point_gives_a_start_and_no_metric() -> None:
    point = lvm.fit(MODEL, DATA, MAP(), seed=1)
    problem = prepare(MODEL, DATA)
    assert draws_of(problem, point) == {}
    fit = sampled("blackjax", point, num_warmup=300, num_samples=300)
    assert fit.summary()["r_hat"].max() < 1.1


def test_correlations_are_shrunk_by_their_noise() -> None:
    rng = np.random.default_rng(0)
    few = shrunk_correlation(rng.standard_normal((30, 40)))
    assert np.linalg.eigvalsh(few).min() > 0.3  # 10 of 40 would be zero
    draws = rng.standard_normal((20_000, 3)) @ np.linalg.cholesky(CORRELATION).T
    assert_within(shrunk_correlation(draws / draws.std(0)), CORRELATION, 1 / np.sqrt(20_000))
