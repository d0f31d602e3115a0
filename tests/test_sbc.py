"""Simulation-based calibration of NUTS on every model of the zoo (Talts et al. 2018): ranks are uniform.

Parameters drawn from the prior, data from the model, and the posterior given the data: the rank of the true
value among posterior draws is uniform. Quantities are the models' invariants and densities, which label
switching and rotation leave alone. 100 simulations a model; slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats

import ppl_lvm as lvm
from ppl_lvm import NUTS, emissions, models

SIMULATIONS, DRAWS, THIN, BINS = 100, 99, 8, 10
FALSE_ALARM = 1e-3  # of a whole model's test, shared by its quantities (Bonferroni)


class Case(NamedTuple):
    """A model whose priors are numbers already, and data of the shape to simulate."""

    model: Any
    shape: Any


def _rows(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, d))


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
    "PPCA": lambda: Case(
        models.PPCA(2, loc_mean=0.0, loc_scale=1.0, loadings_scale=1.0, scale_loc=-0.5, scale_scale=0.4),
        _rows(30, 4),
    ),
    "FactorAnalysis": lambda: Case(
        models.FactorAnalysis(
            1, loc_mean=0.0, loc_scale=1.0, loadings_scale=1.0, scale_loc=-0.5, scale_scale=0.4
        ),
        _rows(30, 4),
    ),
    "HMM": lambda: Case(
        models.HMM(
            2, emissions.Poisson(rate_shape=2.0, rate_mean=6.0), transition_concentration=2.0, sticky=4.0
        ),
        np.round(np.abs(np.random.default_rng(0).standard_normal((3, 20, 1)))),
    ),
}


def test_every_model_has_a_case() -> None:
    assert set(CASES) == set(models.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_are_uniform(name: str) -> None:
    case = CASES[name]()
    prior = lvm.sample_prior(case.model, case.shape, num_draws=SIMULATIONS, seed=1)
    sites = {str(k): v.values[0] for k, v in prior["prior"].data_vars.items() if v.dtype.kind == "f"}
    replicated = prior["prior_predictive"]["obs"].values[0]
    truth = case.model.invariants(sites)
    engine = NUTS(backend="numpyro", num_warmup=400, num_samples=DRAWS * THIN, num_chains=1)
    ranks: dict[str, list[np.ndarray]] = {k: [] for k in truth}
    for i in range(SIMULATIONS):
        fit = lvm.fit(case.model, replicated[i], engine, seed=i)
        drawn = {str(k): v.values[0, ::THIN] for k, v in fit.posterior.data_vars.items()}
        found = case.model.invariants(drawn)
        for key, value in truth.items():
            ranks[key].append((found[key] < value[i]).sum(0))
    assert len(ranks) >= 2
    tests = {}
    for key, rows in ranks.items():
        flat = np.stack(rows).reshape(SIMULATIONS, -1)
        for j in range(flat.shape[1]):
            if np.ptp(truth[key].reshape(SIMULATIONS, -1)[:, j]) < 1e-9:
                continue  # a structural constant, such as the diagonal of a correlation matrix
            counts = np.bincount(flat[:, j] * BINS // (DRAWS + 1), minlength=BINS)
            tests[f"{key}[{j}]"] = stats.chisquare(counts).pvalue
    assert len(tests) >= 3
    worst = min(tests, key=lambda k: tests[k])
    assert tests[worst] > FALSE_ALARM / len(tests), (worst, tests[worst])
