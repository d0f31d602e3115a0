"""Simulation-based calibration of NUTS on every model of the zoo (Talts et al. 2018): ranks are uniform.

Parameters drawn from the prior, data from the model, and the posterior given the data: the rank of the true
value among posterior draws is uniform. Quantities are the models' invariants and densities, which label
switching and rotation leave alone. 100 simulations a model; slow.
"""

from __future__ import annotations

import dataclasses
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


def smallest_p_value(case: Case, fitted: Any) -> tuple[str, float, int]:
    """The quantity whose ranks are least uniform, its p value (chi-square, ten bins), and how many there are.

    Parameters and data come from the case's model, posteriors from ``fitted``.
    """
    prior = lvm.sample_prior(case.model, case.shape, num_draws=SIMULATIONS, seed=1)
    sites = {str(k): v.values[0] for k, v in prior["prior"].data_vars.items() if v.dtype.kind == "f"}
    replicated = prior["prior_predictive"]["obs"].values[0]
    truth = case.model.invariants(sites)
    engine = NUTS(backend="numpyro", num_warmup=400, num_samples=DRAWS * THIN, num_chains=1)
    ranks: dict[str, list[np.ndarray]] = {k: [] for k in truth}
    for i in range(SIMULATIONS):
        fit = lvm.fit(fitted, replicated[i], engine, seed=i)
        drawn = {str(k): v.values[0, ::THIN] for k, v in fit.posterior.data_vars.items()}
        found = case.model.invariants(drawn)
        for key, value in truth.items():
            ranks[key].append((found[key] < value[i]).sum(0))
    p_values = {}
    for key, rows in ranks.items():
        flat, drawn_truth = np.stack(rows).reshape(SIMULATIONS, -1), truth[key].reshape(SIMULATIONS, -1)
        for j in np.flatnonzero(np.ptp(drawn_truth, axis=0) > 1e-9):  # not structural constants
            counts = np.bincount(flat[:, j] * BINS // (DRAWS + 1), minlength=BINS)
            p_values[f"{key}[{j}]"] = float(stats.chisquare(counts).pvalue)
    worst = min(p_values, key=lambda k: p_values[k])
    return worst, p_values[worst], len(p_values)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_are_uniform(name: str) -> None:
    case = CASES[name]()
    worst, p_value, count = smallest_p_value(case, case.model)
    assert count >= 3
    assert p_value > FALSE_ALARM / count, (worst, p_value)


@pytest.mark.slow
def test_a_planted_fault_is_caught() -> None:
    """Posteriors under a prior sd of the loadings that is half the simulations' own."""
    case = CASES["PPCA"]()
    worst, p_value, count = smallest_p_value(case, dataclasses.replace(case.model, loadings_scale=0.5))
    assert p_value < FALSE_ALARM / count, (worst, p_value)
