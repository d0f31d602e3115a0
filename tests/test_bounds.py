"""Bounds and evidence on a mixture whose evidence is known: ELBO <= IWAE_5 <= IWAE_50 <= log p(x).

The oracle sums over all K^N assignments; within a component the location integrates analytically and the
scale by one-dimensional quadrature. It shares no code with the package.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal, norm

import ppl_lvm as lvm
from ppl_lvm import models

# Far apart, with a narrow prior on the scales: the posterior is nearly Gaussian around each labelling, so
# that importance weights have finite variance and their standard errors can be believed.
X = np.array([-3.6, -3.1, -2.5, -2.9, 2.4, 2.9, 3.0, 3.7])[:, None]
K = 2
PRIOR = {"concentration": 3.0, "loc_mean": 0.0, "loc_scale": 3.0, "scale_loc": -0.5, "scale_scale": 0.2}


def log_subset(x: np.ndarray) -> float:
    """log of the integral over (mu, sigma) of prior times likelihood of the points of one component."""
    n = len(x)
    if n == 0:
        return 0.0

    def given(log_sigma: float) -> float:
        cov = np.exp(2 * log_sigma) * np.eye(n) + PRIOR["loc_scale"] ** 2
        density = multivariate_normal(np.zeros(n), cov).pdf(x)
        return density * norm.pdf(log_sigma, PRIOR["scale_loc"], PRIOR["scale_scale"])

    centre, width = PRIOR["scale_loc"], 8 * PRIOR["scale_scale"]
    value, _ = integrate.quad(given, centre - width, centre + width, epsabs=0, epsrel=1e-10, limit=200)
    return math.log(value)


def exact_log_evidence(x: np.ndarray) -> float:
    n, alpha = len(x), PRIOR["concentration"]
    subsets = {bits: log_subset(x[np.array(bits, bool), 0]) for bits in itertools.product((0, 1), repeat=n)}
    terms = []
    for labels in itertools.product(range(K), repeat=n):
        counts = np.bincount(labels, minlength=K)
        log_labels = (
            gammaln(K * alpha) - gammaln(n + K * alpha) + (gammaln(counts + alpha) - gammaln(alpha)).sum()
        )
        members = [subsets[tuple(int(z == k) for z in labels)] for k in range(K)]
        terms.append(log_labels + sum(members))
    return float(logsumexp(terms))


@pytest.fixture(scope="module")
def truth() -> float:
    return exact_log_evidence(X)


@pytest.fixture(scope="module", params=["pyro", "numpyro"])
def guide_fit(request: pytest.FixtureRequest) -> lvm.Fit:
    engine = lvm.SVI(backend=request.param, num_steps=1500, num_draws=50_000)
    return lvm.fit(models.GaussianMixture(K, "diag", **PRIOR), X, engine, seed=1)


def ladder(fit: lvm.Fit) -> dict[str, np.ndarray]:
    """Per block of 50 draws: the ELBO, IWAE_5 and IWAE_50 from the same weights."""
    log_w = (fit.sample_stats["log_p"] - fit.sample_stats["log_q"]).values.reshape(-1, 50)
    fives = logsumexp(log_w.reshape(-1, 10, 5), axis=-1) - math.log(5)
    return {
        "elbo": log_w.mean(1),
        "iwae_5": fives.mean(1),
        "iwae_50": logsumexp(log_w, axis=-1) - math.log(50),
    }


def test_bounds_are_ordered_below_the_exact_evidence(guide_fit: lvm.Fit, truth: float) -> None:
    steps = ladder(guide_fit)
    steps["exact"] = np.full_like(steps["elbo"], truth)
    names = list(steps)
    for low, high in itertools.pairwise(names):
        gap = steps[high] - steps[low]
        error = gap.std(ddof=1) / math.sqrt(len(gap))
        assert error < 0.05, (low, high, error)
        assert gap.mean() > -2 * error, (low, high, gap.mean(), error)


def test_elbo_evidence_is_a_lower_bound_with_its_error(guide_fit: lvm.Fit, truth: float) -> None:
    evidence = guide_fit.evidence
    assert evidence.kind == "lower_bound"
    assert evidence.nats <= truth + 3 * evidence.std_error
    assert evidence.nats == pytest.approx(ladder(guide_fit)["elbo"].mean(), rel=1e-12)


@pytest.fixture(scope="module", params=["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def iwae_fit(request: pytest.FixtureRequest) -> lvm.Fit:
    """A guide trained on the IWAE bound: wider than the ELBO's, so that its weights have finite variance."""
    objective = lvm.Renyi(alpha=0.0, num_particles=10)
    engine = lvm.SVI(backend=request.param, objective=objective, num_steps=1500, num_draws=20_000)
    return lvm.fit(models.GaussianMixture(K, "diag", **PRIOR), X, engine, seed=4)


def test_importance_sampling_counts_all_modes(iwae_fit: lvm.Fit, truth: float) -> None:
    engine = lvm.ImportanceSampling(num_samples=40_000, proposal=iwae_fit)
    fit = lvm.fit(iwae_fit.model, X, engine, seed=2)
    found = fit.evidence
    assert found.kind == "estimate"
    assert abs(found.nats - truth) < 3 * found.std_error
    # one labelling alone would miss log 2, far beyond the error: the test can tell
    assert math.log(2) > 10 * found.std_error


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_prior_importance_sampling(backend: str, truth: float) -> None:
    size = 40_000 if backend == "numpyro" else 4_000  # Pyro draws the prior one program run at a time
    model = models.GaussianMixture(K, "diag", **PRIOR)
    found = lvm.fit(model, X, lvm.ImportanceSampling(num_samples=size, backend=backend), seed=3).evidence
    assert abs(found.nats - truth) < 3 * found.std_error


def test_iwae_objective_reports_its_bound(iwae_fit: lvm.Fit, truth: float) -> None:
    evidence = iwae_fit.evidence
    log_w = (iwae_fit.sample_stats["log_p"] - iwae_fit.sample_stats["log_q"]).values.reshape(-1, 10)
    groups = logsumexp(log_w, axis=-1) - math.log(10)
    assert evidence.kind == "lower_bound"
    assert evidence.nats == pytest.approx(groups.mean(), rel=1e-12)
    assert evidence.std_error == pytest.approx(groups.std(ddof=1) / math.sqrt(len(groups)), rel=1e-9)
    assert log_w.mean() < evidence.nats < truth + 3 * evidence.std_error
