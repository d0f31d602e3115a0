"""Simulation-based calibration of engines on models: NUTS passes, mean-field SVI fails as theory says.

200 simulations a model by the public function (Talts et al. 2018); slow. The probability that any quantity of
a model is found off by chance is 0.01.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from helpers import SCHOOLS

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, emissions, models

SIMULATIONS = 200
SHORT = NUTS(backend="numpyro", num_warmup=400, num_samples=800, num_chains=1)


class Case(NamedTuple):
    """A model whose priors are numbers already, and data of the shape to simulate."""

    model: Any
    shape: Any


def _rows(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, d))


FACTOR_PRIOR = {
    "loc_mean": 0.0,
    "loc_scale": 1.0,
    "loadings_scale": 1.0,
    "scale_loc": -0.5,
    "scale_scale": 0.4,
}
CASES: dict[str, Callable[[], Case]] = {
    "GaussianMixture": lambda: Case(
        models.GaussianMixture(
            2,
            covariance="diag",
            concentration=5.0,
            loc_mean=0.0,
            loc_scale=3.0,
            scale_loc=-0.5,
            scale_scale=0.4,
        ),
        _rows(40, 2),
    ),
    "Mixture": lambda: Case(
        models.Mixture(2, emissions.Poisson(rate_shape=2.0, rate_mean=6.0), concentration=5.0),
        np.round(np.abs(_rows(40, 3))),
    ),
    "PPCA": lambda: Case(models.PPCA(2, **FACTOR_PRIOR), _rows(30, 4)),
    "FactorAnalysis": lambda: Case(models.FactorAnalysis(1, **FACTOR_PRIOR), _rows(30, 4)),
    "HMM": lambda: Case(
        models.HMM(
            2, emissions.Poisson(rate_shape=2.0, rate_mean=6.0), transition_concentration=2.0, sticky=4.0
        ),
        np.round(np.abs(np.random.default_rng(0).standard_normal((3, 20, 1)))),
    ),
}


def schools(y: Any, sigma: Any) -> None:
    """Eight schools, non-centred: the geometry of weak data suits NUTS."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(10.0))
    with pyro.plate("school", len(y)):
        raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * raw)
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def funnel(y: Any) -> None:
    """Neal's funnel (2003) of ten coordinates, each seen once with noise."""
    v = pyro.sample("v", dist.Normal(0.0, 2.0))
    with pyro.plate("coordinate", len(y)):
        x = pyro.sample("x", dist.Normal(0.0, (v / 2).exp()))
        pyro.sample("obs", dist.Normal(x, 1.0), obs=y)


def test_every_model_has_a_case() -> None:
    assert set(CASES) == set(models.__all__) - {"VAE"}  # its weights have no prior to simulate from


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_nuts_passes_on_the_zoo(name: str) -> None:
    case = CASES[name]()
    found = lvm.calibrate(case.model, SHORT, SIMULATIONS, data=case.shape)
    assert len(found.table) >= 5
    assert {"log_likelihood", "log_prior"} <= set(found.table.index)
    assert found.passed, found


@pytest.mark.slow
def test_nuts_passes_on_eight_schools() -> None:
    engine = dataclasses.replace(SHORT, target_accept=0.9)
    found = lvm.calibrate(schools, engine, SIMULATIONS, data=SCHOOLS)
    assert {"tau", "mu", "theta[7]"} <= set(found.table.index)
    assert found.passed, found


@pytest.mark.slow
def test_another_prior_is_caught() -> None:
    """Posteriors under a prior sd of the loadings that is half the simulations' own."""
    case = CASES["PPCA"]()
    wrong = dataclasses.replace(case.model, loadings_scale=0.5)
    found = lvm.calibrate(wrong, SHORT, SIMULATIONS, data=case.shape, simulator=case.model)
    off = set(found.table.index[found.table["finding"] != ""])
    assert not found.passed
    assert "log_prior" in off, found


@pytest.mark.slow
def test_mean_field_svi_is_too_narrow_on_explicit_ppca() -> None:
    """Given z, a row's latent and the loadings are correlated, which independent normals do not see."""
    model = models.PPCA(1, collapsed=False, **FACTOR_PRIOR)
    engine = SVI(guide="mean_field", num_steps=1500, backend="numpyro")
    found = lvm.calibrate(model, engine, SIMULATIONS, data=_rows(20, 3))
    assert not found.passed
    words = found.table["finding"]
    narrow = [q for q in words.index if "too narrow" in words[q]]
    assert any(q.startswith(("singular_values", "communality", "loadings")) for q in narrow), found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sbc", "vsbc"])
def test_mean_field_svi_is_too_narrow_on_the_funnel(kind: str) -> None:
    engine = SVI(guide="mean_field", num_steps=1500, backend="numpyro")
    found = lvm.calibrate(funnel, engine, SIMULATIONS, data=np.zeros(10), kind=kind)
    assert not found.passed
    assert "too narrow" in found.table.loc["v", "finding"], found


@pytest.mark.slow
def test_200_simulations_of_a_mixture_take_less_than_three_minutes_on_two_threads() -> None:
    model = models.GaussianMixture(
        3, concentration=5.0, loc_mean=0.0, loc_scale=3.0, scale_loc=-0.5, scale_scale=0.4
    )
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        found = lvm.calibrate(model, SHORT, SIMULATIONS, data=_rows(100, 2), executor=threads)
    seconds = time.perf_counter() - started
    assert found.passed, found
    assert seconds < 180
