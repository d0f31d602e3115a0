"""The mixture's closed forms and its EM against brute force, the two PPLs, scipy and scikit-learn.

Oracles share no code with the package: `scipy.stats.multivariate_normal`, sums over all assignments, finite
differences. Where a tolerance is not rounding (1e-10 relative unless noted), a comment derives it.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tracemalloc
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import jax  # here, not in the test: importing it draws from NumPy's generator, which conftest.py would report
import numpy as np
import numpyro.distributions as numpyro_dist
import pyro.distributions as pyro_dist
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn import datasets
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from threadpoolctl import ThreadpoolController, threadpool_limits

from ppl_lvm.emissions import _modes
from ppl_lvm.models.gaussian_mixture import _checks, _density
from ppl_lvm.models.gaussian_mixture._estep import EStep
from ppl_lvm.models.gaussian_mixture._exact import GaussianMixtureExact
from ppl_lvm.models.gaussian_mixture._point import Point

REPO = Path(__file__).resolve().parents[2]
COVARIANCES = ("full", "tied", "diag", "spherical")
Values = dict[str, np.ndarray]

# ---- data, values, oracles -------------------------------------------------------------------------


def blobs(n: int = 150, d: int = 2, seed: int = 0) -> np.ndarray:
    """Three clusters of unequal size, correlated and overlapping a little."""
    rng = np.random.default_rng(seed)
    centres = np.array([[-2.5], [0.0], [3.0]]) * np.ones(d) + rng.normal(size=(3, d))
    label = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    mix = np.eye(d) + 0.5 * rng.normal(size=(3, d, d))
    return centres[label] + np.einsum("nij,nj->ni", mix[label], rng.normal(size=(n, d)))


def random_values(k: int, covariance: str, d: int, seed: int = 0, draws: tuple[int, ...] = ()) -> Values:
    rng = np.random.default_rng(seed)
    scale = {"full": (k, d), "diag": (k, d), "tied": (d,), "spherical": (k,)}[covariance]
    values = {
        "weights": rng.dirichlet(np.full(k, 3.0), size=draws),
        "loc": rng.normal(size=(*draws, k, d)),
        "scale": np.exp(0.4 * rng.normal(size=draws + scale)),
    }
    if covariance in ("full", "tied") and d > 1:
        lead = (*draws, k) if covariance == "full" else draws
        rows = np.tril(rng.normal(size=(*lead, d, d)), -1) + np.eye(d)
        values["corr_tril"] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return values


def make_prior(x: np.ndarray, k: int, covariance: str, concentration: float = 2.0) -> dict[str, Any]:
    d, sd = x.shape[1], x.std(0)
    return {
        "concentration": np.full(k, concentration),
        "loc_mean": x.mean(0) + 0.1 * sd,
        "loc_scale": 1.5 * sd * np.linspace(0.8, 1.2, d),
        "scale_loc": np.log(sd.mean() / 2.0) if covariance == "spherical" else np.log(sd / 2.0),
        "scale_scale": np.array(0.6),
        "corr_concentration": np.array(1.7),
    }


def covariance_matrices(values: Values, covariance: str) -> np.ndarray:
    """(k, d, d) of one draw."""
    k, d = values["loc"].shape
    scale, eye = values["scale"], np.eye(d)
    tril = values.get("corr_tril", eye)
    factors = {
        "full": lambda j: np.diag(scale[j]) @ (tril[j] if d > 1 else eye),
        "tied": lambda j: np.diag(scale) @ tril,
        "diag": lambda j: np.diag(scale[j]),
        "spherical": lambda j: scale[j] * eye,
    }
    return np.stack([factors[covariance](j) @ factors[covariance](j).T for j in range(k)])


def scipy_log_terms(values: Values, covariance: str, x: np.ndarray) -> np.ndarray:
    """log p(x_i, assignment_i = j), (n, k)."""
    each = zip(values["weights"], values["loc"], covariance_matrices(values, covariance), strict=True)
    terms = [np.log(w) + multivariate_normal(m, c).logpdf(x).reshape(len(x)) for w, m, c in each]
    return np.stack(terms, axis=1)


def from_covariances(weights: Any, means: Any, covariances: Any, covariance: str) -> Values:
    """Site values of scikit-learn's parameters."""
    weights, means, covariances = (np.asarray(a, dtype=float) for a in (weights, means, covariances))
    values = {"weights": weights, "loc": means}
    if covariance in ("diag", "spherical"):
        return values | {"scale": np.sqrt(covariances)}
    values["scale"] = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
    if means.shape[1] > 1:
        values["corr_tril"] = np.linalg.cholesky(covariances) / values["scale"][..., None]
    return values


# ---- densities -------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_marginal_joint_and_responsibilities_against_all_assignments(covariance: str, d: int) -> None:
    k, n = 3, 6
    x = blobs(n, d, seed=3)
    model, values = GaussianMixtureExact(k, covariance), random_values(k, covariance, d)
    data = {"x": x, "prior": make_prior(x, k, covariance)}
    terms = scipy_log_terms(values, covariance, x)
    assignments = np.array(list(itertools.product(range(k), repeat=n)))
    log_complete = terms[np.arange(n), assignments].sum(1)
    log_marginal = logsumexp(log_complete)
    np.testing.assert_allclose(model.log_likelihood(values, data).sum(), log_marginal, rtol=1e-10)
    posterior = np.exp(log_complete - log_marginal)
    shares = np.stack([posterior @ (assignments == j) for j in range(k)], axis=1)
    np.testing.assert_allclose(model.predict_proba(values, data), shares, rtol=1e-10, atol=1e-14)
    some = assignments[:: 3 ** (n - 3)]
    joint = np.array([model.log_joint(values, data, a) for a in some])
    expected = model.log_prior(values, data) + log_complete[:: 3 ** (n - 3)]
    np.testing.assert_allclose(joint, expected, rtol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_log_prior_equals_torch(covariance: str, d: int) -> None:
    k, x, dist = 3, blobs(20, d), pyro_dist
    prior, values = make_prior(x, k, covariance), random_values(k, covariance, d, draws=(2, 5))
    p, v = ({a: torch.as_tensor(b, dtype=torch.float64) for a, b in m.items()} for m in (prior, values))
    expected = dist.Dirichlet(p["concentration"]).log_prob(v["weights"])
    expected = expected + dist.Normal(p["loc_mean"], p["loc_scale"]).log_prob(v["loc"]).sum((-2, -1))
    log_scale = dist.LogNormal(p["scale_loc"], p["scale_scale"]).log_prob(v["scale"])
    expected = expected + log_scale.flatten(2).sum(-1)
    if "corr_tril" in v:
        corr = dist.LKJCholesky(d, p["corr_concentration"]).log_prob(v["corr_tril"])
        expected = expected + corr.reshape(2, 5, -1).sum(-1)
    found = GaussianMixtureExact(k, covariance).log_prior(values, {"x": x, "prior": prior})
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 4])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_log_prior_equals_numpyro(covariance: str, d: int) -> None:
    k, x, dist = 3, blobs(20, d), numpyro_dist
    prior, values = make_prior(x, k, covariance), random_values(k, covariance, d)
    with jax.enable_x64(True):
        parts = [
            dist.Dirichlet(prior["concentration"]).log_prob(values["weights"]),
            dist.Normal(prior["loc_mean"], prior["loc_scale"]).log_prob(values["loc"]).sum(),
            dist.LogNormal(prior["scale_loc"], prior["scale_scale"]).log_prob(values["scale"]).sum(),
        ]
        if "corr_tril" in values:
            parts.append(dist.LKJCholesky(d, prior["corr_concentration"]).log_prob(values["corr_tril"]).sum())
        expected = sum(float(part) for part in parts)
    found = GaussianMixtureExact(k, covariance).log_prior(values, {"x": x, "prior": prior})
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_draw_axes_and_chunks_change_nothing(covariance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    k, d, x = 3, 2, blobs(40)
    model, values = GaussianMixtureExact(k, covariance), random_values(k, covariance, d, draws=(2, 3))
    data = {"x": x, "prior": make_prior(x, k, covariance)}
    labels = np.arange(len(x)) % k
    whole = [model.log_likelihood(values, data), model.predict_proba(values, data)]
    joint = model.log_joint(values, data, labels)
    assert [a.shape for a in whole] == [(2, 3, 40), (2, 3, 40, k)]
    for i, j in itertools.product(range(2), range(3)):
        one = {name: value[i, j] for name, value in values.items()}
        np.testing.assert_allclose(
            model.log_likelihood(one, data),
            logsumexp(scipy_log_terms(one, covariance, x), axis=1),
            rtol=1e-10,
        )
        np.testing.assert_allclose(model.log_joint(one, data, labels), joint[i, j], rtol=1e-13)
    for size in (1, 7 * k * d, 100 * k * d):  # single rows; several rows of one draw; several draws
        monkeypatch.setattr(_density, "CHUNK_ELEMENTS", size)
        np.testing.assert_allclose(model.log_likelihood(values, data), whole[0], rtol=1e-13)
        np.testing.assert_allclose(model.predict_proba(values, data), whole[1], rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(model.log_joint(values, data, labels), joint, rtol=1e-13)


@pytest.mark.parametrize(("draws", "n"), [(1000, 1000), (1, 400_000)])
def test_memory_is_bounded_however_many_draws_and_rows(draws: int, n: int) -> None:
    x, model = blobs(n, 4), GaussianMixtureExact(6, "full")
    values = random_values(6, "full", 4, draws=(draws,))
    tracemalloc.start()
    try:
        result = model.log_likelihood(values, {"x": x})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the result, x transposed, and a handful of temporaries of a chunk; a whole one is 24 times the result
    assert peak < result.nbytes + x.nbytes + 6 * 8 * _density.CHUNK_ELEMENTS < 24 * result.nbytes


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_far_from_the_origin(covariance: str) -> None:
    """At an offset of 1e6 with unit spread: against scipy on the same numbers, and EM's own figure."""
    x, k = 1e6 + blobs(200, 3), 3
    model = GaussianMixtureExact(k, covariance)
    result = model.em({"x": x}, rng=np.random.default_rng(0), num_init=3)
    expected = logsumexp(scipy_log_terms(result.values, covariance, x), axis=1)
    np.testing.assert_allclose(model.log_likelihood(result.values, {"x": x}), expected, rtol=1e-10)
    np.testing.assert_allclose(result.log_likelihood, expected.sum(), rtol=1e-10)
    np.testing.assert_allclose(result.trace[-1], expected.sum(), rtol=1e-10)


# ---- the E-step ------------------------------------------------------------------------------------


def make_point(covariance: str, k: int, d: int) -> Point:
    values = random_values(k, covariance, d, seed=5)
    matrices = covariance_matrices(values, covariance)
    factor = {"full": np.linalg.cholesky(matrices), "tied": np.linalg.cholesky(matrices[0])}
    return Point(values["weights"], values["loc"], factor.get(covariance, values["scale"]))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_both_passes_of_the_e_step_give_the_weighted_moments(covariance: str) -> None:
    k, d = 3, 4
    x, point = blobs(500, d), make_point(covariance, k, d)
    values = random_values(k, covariance, d, seed=5)
    log_terms = scipy_log_terms(values, covariance, x)
    log_marginal = logsumexp(log_terms, axis=1)
    log_likelihood, shares = log_marginal.sum(), np.exp(log_terms - log_marginal[:, None])
    count = shares.sum(0)
    mean = shares.T @ x / count[:, None]
    away = x[:, None] - mean
    scatter = np.einsum("nk,nkd,nke->kde", shares, away, away)
    diagonal = np.diagonal(scatter, axis1=1, axis2=2)
    kinds = {"full": scatter, "tied": scatter.sum(0), "diag": diagonal, "spherical": diagonal.sum(1)}
    with EStep(x, k, covariance) as e_step:
        for moments in (e_step._natural(point), e_step._deviation(point)):
            np.testing.assert_allclose(moments.log_likelihood, log_likelihood, rtol=1e-11)
            np.testing.assert_allclose(moments.count, count, rtol=1e-10)
            np.testing.assert_allclose(moments.mean, mean, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(moments.scatter, kinds[covariance], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_threads_change_neither_the_result_nor_the_setting(covariance: str) -> None:
    x, point = blobs(60_000, 8), make_point(covariance, 16, 8)
    found = {}
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            before = ThreadpoolController().info()
            with EStep(x, 16, covariance) as e_step:
                assert (e_step._pool is not None) == (threads == 2)
                found[threads] = [e_step._natural(point), e_step._deviation(point)]
            assert ThreadpoolController().info() == before
    for one, two in zip(*found.values(), strict=True):
        assert one.log_likelihood == two.log_likelihood
        np.testing.assert_array_equal(one.scatter, two.scatter)


# ---- EM against scikit-learn ------------------------------------------------------------------------

ENTRIES = [
    *itertools.product(("iris", "old_faithful"), (1, 2, 3), COVARIANCES),
    *itertools.product(("galaxies",), (1, 2, 3, 4), ("full", "tied")),
    *itertools.product(("wine_std",), (3,), ("full", "diag")),
    *itertools.product(("breast_cancer_std",), (2,), ("full", "diag")),
    ("digits_pixels61", 10, "diag"),
]
ENTRY_NAMES = [f"{name}-{k}-{covariance}" for name, k, covariance in ENTRIES]
Entry = tuple[str, int, str]


@cache
def reference_data(name: str, folder: Path) -> np.ndarray:
    def standard(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(0)) / x.std(0)

    if name == "iris":
        return datasets.load_iris().data
    if name == "wine_std":
        return standard(datasets.load_wine().data)
    if name == "breast_cancer_std":
        return standard(datasets.load_breast_cancer().data)
    if name == "digits_pixels61":
        digits = datasets.load_digits().data / 16.0
        return digits[:, np.ptp(digits, axis=0) > 0.0]
    if name == "old_faithful":
        return np.loadtxt(folder / "old_faithful" / "faithful.csv", delimiter=",", skiprows=1)
    table = np.genfromtxt(folder / "galaxies" / "galaxies.csv", delimiter=",", skip_header=1)
    return table.reshape(82, -1)[:, -1:] / 1000.0


@pytest.fixture(scope="module")
def reference(shared_data: Path) -> dict[Entry, dict[str, Any]]:
    file = shared_data / "sklearn_reference.json"
    stored = json.loads(file.read_text())
    arrays = np.load(shared_data / "sklearn_reference_arrays.npz")
    entries = {}
    for entry in stored["gaussian_mixture"]:
        settings = entry["settings"]
        key = (entry["data"], settings["n_components"], settings["covariance_type"])
        stem = f"{key[0]}_gmm{key[1]}_{key[2]}"
        names = ("weights", "means", "covariances")
        entry["params"] = entry.get("params") or {name: arrays[f"{stem}_{name}"] for name in names}
        entry["x"] = reference_data(key[0], shared_data)
        np.testing.assert_allclose(entry["x"].sum(), stored["data"][key[0]]["sum"], rtol=1e-12, atol=1e-9)
        entries[key] = entry
    assert set(entries) == set(ENTRIES)
    return entries


def sklearn_start(x: np.ndarray, k: int, covariance: str, labels: np.ndarray, floor: float) -> Values:
    """Where scikit-learn starts: one M-step from k-means labels."""
    d = x.shape[1]
    shares = np.eye(k)[labels]
    count = shares.sum(0)
    means = shares.T @ x / count[:, None]
    away = x[:, None] - means
    scatter = np.einsum("nk,nkd,nke->kde", shares, away, away)
    full = scatter / count[:, None, None] + floor * np.eye(d)
    kinds = {
        "full": full,
        "tied": scatter.sum(0) / len(x) + floor * np.eye(d),
        "diag": np.diagonal(full, axis1=1, axis2=2),
        "spherical": np.diagonal(full, axis1=1, axis2=2).mean(1),
    }
    return from_covariances(count / len(x), means, kinds[covariance], covariance)


def fit_like_sklearn(x: np.ndarray, k: int, covariance: str, num_init: int = 10, seed: int = 0) -> float:
    """Best log-likelihood of our EM from the starts, and with the floor, of scikit-learn."""
    model, random_state, found = GaussianMixtureExact(k, covariance), np.random.RandomState(seed), []
    for _ in range(num_init):
        labels = KMeans(k, n_init=1, random_state=random_state).fit(x).labels_
        start = sklearn_start(x, k, covariance, labels, 1e-6)
        result = model.em({"x": x}, start=start, tol=1e-9, max_iter=10_000, variance_floor=1e-6)
        assert result.converged
        found.append(result.log_likelihood)
    return max(found)


@pytest.mark.parametrize("entry", ENTRIES, ids=ENTRY_NAMES)
def test_scores_scikit_learns_parameters(entry: Entry, reference: dict[Entry, dict[str, Any]]) -> None:
    (_, k, covariance), stored = entry, reference[entry]
    model, params = GaussianMixtureExact(k, covariance), stored["params"]
    values = from_covariances(params["weights"], params["means"], params["covariances"], covariance)
    total = model.log_likelihood(values, {"x": stored["x"]}).sum()
    np.testing.assert_allclose(total, stored["total_loglik"], rtol=1e-9)
    assert model.num_parameters(stored) == stored["n_parameters"]


@pytest.mark.parametrize("entry", ENTRIES, ids=ENTRY_NAMES)
def test_reaches_scikit_learns_optimum_from_its_starts(
    entry: Entry, reference: dict[Entry, dict[str, Any]]
) -> None:
    (_, k, covariance), stored = entry, reference[entry]
    found = fit_like_sklearn(stored["x"], k, covariance)
    # both stop at a gain of 1e-9 nats a datum: at the slowest rate, 0.99, 1e-7 from the end; |ll| / n > 0.1
    np.testing.assert_allclose(found, stored["total_loglik"], rtol=1e-6)


@pytest.mark.parametrize("entry", ENTRIES, ids=ENTRY_NAMES)
def test_own_restarts_do_at_least_as_well(entry: Entry, reference: dict[Entry, dict[str, Any]]) -> None:
    (name, k, covariance), stored = entry, reference[entry]
    digits = name == "digits_pixels61"
    result = GaussianMixtureExact(k, covariance).em(
        {"x": stored["x"]},
        rng=np.random.default_rng(0),
        num_init=40
        if digits
        else 20,  # ten k-means starts, scikit-learn's too, rarely find the best on digits
        tol=1e-8,
        variance_floor=1e-6,
    )
    assert result.log_likelihood >= stored["total_loglik"] - 1e-6 * abs(stored["total_loglik"])
    # in every component some pixels are constant, so that the likelihood is made by the floor alone
    assert result.collapsed == (tuple(range(10)) if digits else ())
    assert (result.note is not None) == digits


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_against_scikit_learn_run_here(covariance: str) -> None:
    x, k = datasets.load_iris().data, 3
    theirs = SklearnMixture(
        k, covariance_type=covariance, n_init=3, tol=1e-9, max_iter=10_000, random_state=0
    )
    theirs.fit(x)
    values = from_covariances(theirs.weights_, theirs.means_, theirs.covariances_, covariance)
    model, data = GaussianMixtureExact(k, covariance), {"x": x}
    np.testing.assert_allclose(model.log_likelihood(values, data), theirs.score_samples(x), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(values, data), theirs.predict_proba(x), atol=1e-9)
    total = theirs.score(x) * len(x)
    np.testing.assert_allclose(fit_like_sklearn(x, k, covariance, num_init=3), total, rtol=1e-6)
    own = model.em(data, rng=np.random.default_rng(0), tol=1e-8, variance_floor=1e-6)
    assert own.log_likelihood >= total - 1e-6 * abs(total)
    aic = 2 * model.num_parameters(data) - 2 * model.log_likelihood(values, data).sum()
    np.testing.assert_allclose(aic, theirs.aic(x), rtol=1e-10)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_each_iterate_is_scikit_learns(covariance: str) -> None:
    """Step by step from one start: the trace, and the parameters after five steps."""
    x, k = blobs(400, 3), 3
    labels = KMeans(k, n_init=1, random_state=0).fit(x).labels_
    start = sklearn_start(x, k, covariance, labels, 1e-6)
    result = GaussianMixtureExact(k, covariance).em(
        {"x": x}, start=start, tol=0.0, max_iter=5, variance_floor=1e-6
    )
    theirs = SklearnMixture(k, covariance_type=covariance, tol=0.0, max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(x)
    assert result.num_iter == 5
    assert not result.converged
    np.testing.assert_allclose(result.trace[:5] / len(x), theirs.lower_bounds_, rtol=1e-9)
    expected = from_covariances(theirs.weights_, theirs.means_, theirs.covariances_, covariance)
    for name, value in expected.items():
        np.testing.assert_allclose(result.values[name], value, rtol=1e-8, atol=1e-9)


# ---- EM on its own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_maximum_likelihood_climbs_to_a_stationary_point(covariance: str) -> None:
    x, k = blobs(300, 2), 3
    model, calls = GaussianMixtureExact(k, covariance), []
    result = model.em(
        {"x": x},
        rng=np.random.default_rng(1),
        num_init=2,
        tol=1e-13,
        max_iter=5000,
        variance_floor=0.0,
        progress=lambda *call: calls.append(call),
    )
    assert result.converged
    assert result.collapsed == ()
    assert result.note is None
    assert len(result.restarts) == 2
    assert (
        result.objective == result.log_likelihood == pytest.approx(max(r.objective for r in result.restarts))
    )
    assert np.diff(result.trace).min() > -1e-12 * abs(result.trace[-1])
    numbers = [(r, i) for r, run in enumerate(result.restarts) for i in range(run.num_iter + 1)]
    assert [(r, i) for r, i, _ in calls] == numbers
    kept = [run.objective for run in result.restarts].index(result.trace[-1])
    assert [objective for r, _, objective in calls if r == kept] == result.trace.tolist()

    def objective(values: Values) -> float:
        return float(model.log_likelihood(values, {"x": x}).sum())

    assert gradient_per_datum(objective, result.values, covariance, len(x)) < 1e-5


def gradient_per_datum(objective: Any, values: Values, covariance: str, n: int) -> float:
    """Largest central difference over logits, loc, log scale, and correlation factors' unnormalised rows."""
    k, d = values["loc"].shape
    lower = np.tril_indices(d, -1)

    def constrain(z: np.ndarray) -> Values:
        parts = np.split(z, np.cumsum([k - 1, k * d, values["scale"].size]))
        logits = np.append(parts[0], 0.0)
        made = {
            "weights": np.exp(logits - logsumexp(logits)),
            "loc": parts[1].reshape(k, d),
            "scale": np.exp(parts[2]).reshape(values["scale"].shape),
        }
        if "corr_tril" in values:
            rows = np.tile(np.eye(d), (values["corr_tril"].size // d**2, 1, 1))
            rows[:, lower[0], lower[1]] = parts[3].reshape(len(rows), -1)
            rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
            made["corr_tril"] = rows.reshape(values["corr_tril"].shape)
        return made

    weights = values["weights"]
    parts = [np.log(weights[:-1] / weights[-1]), values["loc"].ravel(), np.log(values["scale"]).ravel()]
    if "corr_tril" in values:
        tril = values["corr_tril"].reshape(-1, d, d)
        rows = tril / np.diagonal(tril, axis1=1, axis2=2)[:, :, None]
        parts.append(rows[:, lower[0], lower[1]].ravel())
    z = np.concatenate(parts)
    np.testing.assert_allclose(objective(constrain(z)), objective(values), rtol=1e-12)
    h = 1e-5  # errors of the differences: 1e-16 |objective| / (n h) and h^2, both under 1e-9 a datum here
    steps = h * np.eye(len(z))
    return max(abs(objective(constrain(z + s)) - objective(constrain(z - s))) for s in steps) / (2.0 * h * n)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_maximum_posterior_climbs_to_a_stationary_point(covariance: str, k: int, d: int) -> None:
    x = 10.0 + blobs(200, d) * np.array([1.0, 5.0, 0.02])[:d]
    model, data = GaussianMixtureExact(k, covariance), {"x": x, "prior": make_prior(x, k, covariance)}
    result = model.em(
        data, rng=np.random.default_rng(0), num_init=2, tol=1e-13, max_iter=5000, estimate="map"
    )
    assert result.converged
    assert result.collapsed == ()

    def objective(values: Values) -> float:
        return float(model.log_prior(values, data) + model.log_likelihood(values, data).sum())

    np.testing.assert_allclose(result.objective, objective(result.values), rtol=1e-13)
    np.testing.assert_allclose(result.trace[-1], result.objective, rtol=1e-11)
    assert np.diff(result.trace).min() > -1e-11 * abs(result.objective)
    # a gain of 1e-13 a datum leaves a gradient g with g^2 / 2 ~ 1e-13 / (1 - rate), and 1 - rate > 1e-2 here;
    # loc in the columns' own units (the smallest is 0.02) adds a factor of 50
    assert gradient_per_datum(objective, result.values, covariance, len(x)) < 50 * np.sqrt(2e-11)


@pytest.mark.parametrize(
    ("scatter", "count"), [(0.0, 0.0), (0.0, 50.0), (1e-8, 3.0), (4.0, 1e-3), (1e7, 1e6)]
)
def test_mode_of_the_scale(scatter: float, count: float) -> None:
    for a, b in ((0.3, 0.7), (-5.0, 3.0), (2.0, 0.05)):
        u = float(_modes.log_scale_mode(np.array(scatter), np.array(count), np.array(a), b))
        pressure = scatter * np.exp(-2.0 * u) if scatter > 0.0 else 0.0
        slope = pressure - (count + 1.0) - (u - a) / b**2
        size = pressure + count + 1.0 + abs(u - a) / b**2
        assert abs(slope) < 1e-12 * size


def test_posterior_mode_of_an_empty_component_is_the_priors() -> None:
    """Two far clusters, and a third component that nothing explains: it goes to the prior's own mode."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(100, 2)) - 50.0, rng.normal(size=(100, 2)) + 50.0])
    prior = make_prior(x, 3, "full") | {"loc_mean": np.array([0.0, 500.0]), "loc_scale": np.full(2, 400.0)}
    prior |= {"scale_loc": np.zeros(2), "scale_scale": np.array(0.2)}
    start = {
        "weights": np.full(3, 1 / 3),
        "loc": np.array([[-50.0, -50.0], [50.0, 50.0], [0.0, 500.0]]),
        "scale": np.ones((3, 2)),
        "corr_tril": np.tile(np.eye(2), (3, 1, 1)),
    }
    model = GaussianMixtureExact(3, "full")
    result = model.em({"x": x, "prior": prior}, start=start, estimate="map", tol=1e-12)
    np.testing.assert_allclose(result.values["loc"][2], [0.0, 500.0], atol=1e-9)
    np.testing.assert_allclose(result.values["scale"][2], np.exp(-(0.2**2)), rtol=1e-6)
    np.testing.assert_allclose(result.values["weights"][2], 1.0 / (200.0 + 3.0), rtol=1e-9)
    prior["concentration"] = np.array([2.0, 2.0, 0.5])
    with pytest.raises(ValueError, match=r"concentration'\]\[2\].*at least 1.*use concentration >= 1"):
        model.em({"x": x, "prior": prior}, start=start, estimate="map")


def test_collapse_is_reported_and_passed_over() -> None:
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(size=(100, 2)) - 3.0, rng.normal(size=(100, 2)) + 3.0])
    pair = np.array([3.0, -3.0]) + 1e-4 * rng.normal(size=(2, 2))
    x = np.concatenate([two, pair])
    result = GaussianMixtureExact(3, "full").em({"x": x}, rng=np.random.default_rng(0), num_init=20)
    assert result.collapsed == ()
    best = max(run.objective for run in result.restarts)
    assert any(run.collapsed for run in result.restarts)
    assert best > result.log_likelihood
    assert result.note is not None
    assert "passed over" in result.note


@pytest.mark.parametrize("floor", [None, 0.0, 1e-3])
@pytest.mark.parametrize("covariance", ["full", "diag", "spherical"])
def test_collapse_that_no_start_escapes(covariance: str, floor: float | None) -> None:
    x = np.concatenate([np.random.default_rng(0).normal(size=(60, 2)), [[40.0, 40.0]]])
    model = GaussianMixtureExact(2, covariance)
    result = model.em({"x": x}, rng=np.random.default_rng(0), variance_floor=floor)
    lonely = int(np.argmin(result.values["weights"]))
    assert result.collapsed == (lonely,)
    assert all(run.collapsed for run in result.restarts)
    assert result.note is not None
    assert "every one of 10 starts" in result.note
    assert np.isfinite(result.log_likelihood)
    assert np.isfinite(model.log_likelihood(result.values, {"x": x})).all()
    tied = GaussianMixtureExact(2, "tied").em({"x": x}, rng=np.random.default_rng(0))
    assert tied.collapsed == ()  # one covariance for both, which the 60 others determine


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_posterior_without_a_mode_is_reported(covariance: str) -> None:
    """LKJ(1) does not bound the density at a singular correlation, as of a column given twice."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))[:, [0, 1, 2, 0]]
    prior = make_prior(x, 1, covariance) | {"corr_concentration": np.array(1.0)}
    model = GaussianMixtureExact(1, covariance)
    result = model.em({"x": x, "prior": prior}, rng=np.random.default_rng(0), num_init=1, estimate="map")
    assert result.collapsed == (0,)
    assert result.note is not None
    assert "the only start" in result.note
    assert np.isfinite(result.objective)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("sd", [1e-3, 1e-7])
def test_tight_clusters_are_sound(covariance: str, sd: float) -> None:
    """However small they are beside their distance: no digits are lost, and nothing is called collapsed."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [1.0, 0.0], [0.25, 0.75]])
    x = np.concatenate([centre + sd * rng.normal(size=(200, 2)) for centre in centres])
    model = GaussianMixtureExact(3, covariance)
    result = model.em({"x": x}, rng=np.random.default_rng(0), num_init=3, variance_floor=0.0)
    assert result.collapsed == ()
    scatter = np.stack([np.cov(part.T, bias=True) for part in np.split(x, 3)])
    kinds = {"full": scatter, "tied": np.stack([scatter.mean(0)] * 3)}
    kinds["diag"] = np.stack([np.diag(np.diag(c)) for c in scatter])
    kinds["spherical"] = np.stack([np.eye(2) * np.trace(c) / 2.0 for c in scatter])
    found = covariance_matrices(result.values, covariance)
    order = [int(np.argmin(np.abs(result.values["loc"] - centre).sum(1))) for centre in centres]
    # positions of size 1 are rounded to 2^-53, that is 1e-9 sds
    np.testing.assert_allclose(found[order], kinds[covariance], rtol=1e-7, atol=1e-7 * sd**2)


# ---- units, small and odd data ------------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ["ml", "map"])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_units_and_offset_do_not_matter(covariance: str, estimate: str) -> None:
    x, k = blobs(200, 2), 3
    model = GaussianMixtureExact(k, covariance)
    # without a floor: its default, in terms of the mean of the column variances, depends on their units
    settings: dict[str, Any] = {"estimate": estimate, "num_init": 1, "tol": 1e-13, "max_iter": 5000}
    settings |= {"variance_floor": 0.0} if estimate == "ml" else {}

    def shares(y: np.ndarray) -> np.ndarray:
        data = {"x": y, "prior": make_prior(y, k, covariance)}
        result = model.em(data, rng=np.random.default_rng(0), **settings)
        assert result.converged
        assert result.collapsed == ()
        return model.predict_proba(result.values, data)

    plain = shares(x)
    if estimate == "ml":  # EM sees the very same numbers; only the last density is in other units
        np.testing.assert_allclose(shares(2.0**40 * x), plain, rtol=1e-12)
    # units that are no powers of two change the path of EM, and so where it stops: with rate r (0.6 to 0.8
    # here), sqrt(2 tol) / (1 - r) = 2e-6 sds from the optimum, which z^2 multiplies for a datum 4 sds away
    moved = {"small": 1e-8 * x, "large": 1e8 * x, "far": x + 1e6}
    if covariance != "spherical":
        moved["mixed"] = x * np.array([1e-8, 1e8])
    for name, y in moved.items():
        np.testing.assert_allclose(shares(y), plain, atol=4e-5, err_msg=name)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_component_is_the_sample_mean_and_covariance(covariance: str) -> None:
    x = blobs(50, 3)
    result = GaussianMixtureExact(1, covariance).em(
        {"x": x}, rng=np.random.default_rng(0), variance_floor=0.0, num_init=1
    )
    sample = np.cov(x.T, bias=True)
    expected = {"diag": np.diag(np.diag(sample)), "spherical": np.eye(3) * np.trace(sample) / 3.0}
    np.testing.assert_allclose(result.values["weights"], [1.0])
    np.testing.assert_allclose(result.values["loc"], x.mean(0)[None], rtol=1e-11)
    found = covariance_matrices(result.values, covariance)[0]
    np.testing.assert_allclose(found, expected.get(covariance, sample), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_one_feature_is_the_same_for_every_separate_covariance(covariance: str) -> None:
    x = blobs(200, 1)
    result = GaussianMixtureExact(2, covariance).em({"x": x}, rng=np.random.default_rng(0), tol=1e-9)
    assert set(result.values) == {"weights", "loc", "scale"}
    if covariance != "tied":
        full = GaussianMixtureExact(2, "full").em({"x": x}, rng=np.random.default_rng(0), tol=1e-9)
        np.testing.assert_allclose(result.log_likelihood, full.log_likelihood, rtol=1e-7)


ODD_DATA = {
    "rows as many as components": blobs(4, 2),
    "one column": blobs(12, 1),
    "constant column": np.column_stack([blobs(30, 2), np.full(30, 0.1)]),
    "few distinct rows": np.repeat(blobs(3, 2), 5, axis=0),
    "all rows alike": np.full((8, 2), 3.3),
    "a single row": np.array([[1.0, 2.0]]),
}


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("name", ODD_DATA)
def test_odd_data(name: str, covariance: str) -> None:
    """Starts are strictly inside their supports; EM gives finite values and calls no degenerate fit sound."""
    x = ODD_DATA[name]
    k = min(4, len(x))
    model, alike = GaussianMixtureExact(k, covariance), np.ptp(x, axis=0) == 0.0
    start = model.initial_values({"x": x}, np.random.default_rng(0))
    assert (start["weights"] > 0.0).all()
    assert (start["scale"] > 0.0).all()
    if "corr_tril" in start:
        assert (np.diagonal(start["corr_tril"], axis1=-2, axis2=-1) > 1e-6).all()
    assert np.isfinite(model.log_likelihood(start, {"x": x})).all()  # also checks shapes and supports
    if alike.all():
        with pytest.raises(ValueError, match="x: expected rows that differ"):
            model.em({"x": x}, rng=np.random.default_rng(0))
    else:
        result = model.em({"x": x}, rng=np.random.default_rng(0), num_init=3)
        assert np.isfinite(model.log_likelihood(result.values, {"x": x})).all()
        degenerate = name in ("rows as many as components", "few distinct rows", "constant column")
        assert bool(result.collapsed) or not degenerate or covariance in ("tied", "spherical")
    prior = make_prior(blobs(30, x.shape[1]), k, covariance)
    result = model.em({"x": x, "prior": prior}, rng=np.random.default_rng(0), num_init=2, estimate="map")
    assert np.isfinite(result.objective)
    assert np.diff(result.trace).min(initial=0.0) > -1e-10 * abs(result.objective)


def test_starts_differ_by_seed_and_repeat_with_it() -> None:
    x, model = blobs(100, 2), GaussianMixtureExact(5, "full")
    one, same, other = (model.initial_values({"x": x}, np.random.default_rng(s)) for s in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.allclose(one["loc"], other["loc"])
    first, again = (model.em({"x": x}, rng=np.random.default_rng(3), num_init=3) for _ in range(2))
    assert first.restarts == again.restarts
    assert len({run.objective for run in first.restarts}) == 3


# ---- draws and labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_moments_of_draws_are_the_invariants(covariance: str) -> None:
    k, d, num = 3, 2, 40_000
    model, values = GaussianMixtureExact(k, covariance), random_values(k, covariance, d, draws=(2,))
    made, exact = model.sample(values, num, np.random.default_rng(0)), model.invariants(values)
    assert made["obs"].shape == (2, num, d)
    assert made["assignment"].shape == (2, num)
    for draw in range(2):
        obs, label = made["obs"][draw], made["assignment"][draw]
        one = {name: value[draw] for name, value in values.items()}
        share = np.bincount(label, minlength=k) / num
        w = one["weights"]
        assert (np.abs(share - w) < 5.0 * np.sqrt(w * (1.0 - w) / num)).all()
        mean, sd, corr = (exact[f"mixture_{name}"][draw] for name in ("mean", "sd", "corr"))
        assert (np.abs(obs.mean(0) - mean) < 5.0 * sd / np.sqrt(num)).all()
        away = (obs - mean) / sd
        products = away[:, :, None] * away[:, None, :]
        assert (np.abs(products.mean(0) - corr) < 5.0 * products.std(0) / np.sqrt(num)).all()
        for j, matrix in enumerate(covariance_matrices(one, covariance)):
            away = obs[label == j] - one["loc"][j]
            products = away[:, :, None] * away[:, None, :]
            errors = products.std(0) / np.sqrt(len(away))
            assert (np.abs(products.mean(0) - matrix) < 5.0 * errors).all()


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_relabelling(covariance: str, d: int) -> None:
    """Permuting the axes of `label_axes` moves responsibilities and features along, and nothing else."""
    k, x = 3, blobs(30, d)
    model, values = GaussianMixtureExact(k, covariance), random_values(k, covariance, d, draws=(4,))
    data, order = {"x": x, "prior": make_prior(x, k, covariance)}, np.array([2, 0, 1])
    moved = dict(values)
    for site, axes in model.label_axes.items():
        for axis in axes if site in values else ():
            moved[site] = np.take(moved[site], order, axis=1 + axis)
    assert moved.keys() == values.keys()
    np.testing.assert_allclose(model.log_prior(moved, data), model.log_prior(values, data), rtol=1e-12)
    np.testing.assert_allclose(
        model.log_likelihood(moved, data), model.log_likelihood(values, data), rtol=1e-12
    )
    shares = model.predict_proba(values, data)
    np.testing.assert_allclose(model.predict_proba(moved, data), shares[..., order], rtol=1e-9, atol=1e-15)
    features = model.label_features(values)
    width = {"full": 1 + 2 * d, "diag": 1 + 2 * d, "tied": 1 + d, "spherical": 2 + d}[covariance]
    assert features.shape == (4, k, width)
    np.testing.assert_array_equal(model.label_features(moved), features[:, order])
    before, after = model.invariants(values), model.invariants(moved)
    assert ("mixture_corr" in before) == (d > 1)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-12)
    assert (np.diff(before["sorted_weights"]) <= 0.0).all()


def test_parameters_are_counted_from_the_sites() -> None:
    for covariance, d, k in itertools.product(COVARIANCES, (1, 2, 5), (1, 3)):
        sizes = {n: int(np.prod(s)) for n, s in _checks.site_shapes(k, covariance, d).items()}
        sizes["weights"] -= 1
        if "corr_tril" in sizes:
            sizes["corr_tril"] = sizes["corr_tril"] // d**2 * (d * (d - 1) // 2)
        found = GaussianMixtureExact(k, covariance).num_parameters({"x": np.zeros((k, d))})
        assert found == sum(sizes.values())


# ---- what is refused ------------------------------------------------------------------------------------


def test_settings_are_checked() -> None:
    with pytest.raises(TypeError, match="num_components: expected an integer"):
        GaussianMixtureExact(2.0, "full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_components: expected an integer >= 1, got 0"):
        GaussianMixtureExact(0, "full")
    with pytest.raises(ValueError, match="covariance: expected one of"):
        GaussianMixtureExact(2, "banded")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_init": 0}, "num_init: expected an integer >= 1, got 0"),
        ({"max_iter": 1.5}, "max_iter: expected an integer"),
        ({"tol": -1.0}, "tol: expected nats per datum >= 0"),
        ({"estimate": "mode"}, "estimate: expected 'ml' or 'map'"),
        ({"variance_floor": -1e-6}, "variance_floor: expected a variance >= 0"),
        ({"variance_floor": 1e-6, "estimate": "map"}, "variance_floor: expected None"),
        ({"estimate": "map"}, "data: expected the key 'prior'"),
        ({"start": {"weights": np.ones(2) / 2}}, "values: expected the site 'loc'"),
        ({"start": random_values(2, "full", 2, draws=(3,))}, "start: expected one draw"),
    ],
)
def test_em_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    arguments = {"rng": np.random.default_rng(0)} | settings
    with pytest.raises(ValueError, match=message):
        GaussianMixtureExact(2, "full").em({"x": blobs(20)}, **arguments)


def test_em_wants_a_generator_or_a_start() -> None:
    with pytest.raises(TypeError, match="rng: expected a numpy Generator"):
        GaussianMixtureExact(2, "full").em({"x": blobs(20)})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(5), r"x: expected an \(n, d\) array"),
        (np.zeros((0, 2)), "x: expected at least one row"),
        (np.full((3, 2), np.nan), "x: expected finite numbers"),
        (np.zeros((2, 2)), r"x: expected at least one row per component \(3\), got 2"),
    ],
)
def test_data_are_checked(x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixtureExact(3, "full").initial_values({"x": x}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="data: expected the key 'x'"):
        GaussianMixtureExact(3, "full").log_likelihood({}, {"y": x})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.array([0.5, 0.6])}, "weights: expected numbers >= 0 that sum to 1"),
        ({"weights": np.array([1.5, -0.5])}, "weights: expected numbers >= 0"),
        ({"loc": np.full((2, 2), np.nan)}, "loc: expected finite numbers"),
        ({"loc": np.zeros((3, 2))}, r"loc: expected shape \(..., 2, 2\), got \(3, 2\)"),
        ({"scale": np.zeros((2, 2))}, "scale: expected finite positive"),
        ({"scale": np.ones((5, 2, 2))}, r"scale: expected draw axes \(\) as on the other sites, got \(5,\)"),
        ({"corr_tril": np.ones((2, 2, 2))}, "corr_tril: expected the lower Cholesky factor"),
    ],
)
def test_values_are_checked(change: Values, message: str) -> None:
    values = random_values(2, "full", 2) | change
    with pytest.raises(ValueError, match=message):
        GaussianMixtureExact(2, "full").log_likelihood(values, {"x": blobs(5)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loc_scale": np.zeros(2)}, r"prior\['loc_scale'\]: expected finite positive"),
        ({"loc_mean": np.zeros(3)}, r"prior\['loc_mean'\]: expected shape \(2,\), got \(3,\)"),
    ],
)
def test_prior_is_checked(change: Values, message: str) -> None:
    x, model, values = blobs(9), GaussianMixtureExact(2, "full"), random_values(2, "full", 2)
    prior = make_prior(x, 2, "full")
    with pytest.raises(ValueError, match=message):
        model.log_prior(values, {"x": x, "prior": prior | change})
    del prior["scale_loc"]
    with pytest.raises(ValueError, match="prior: expected 'scale_loc'"):
        model.log_prior(values, {"x": x, "prior": prior})
    with pytest.raises(ValueError, match=r"assignment: expected \(9,\) integers"):
        model.log_joint(values, {"x": x, "prior": make_prior(x, 2, "full")}, np.zeros(9))
    with pytest.raises(ValueError, match=r"assignment: expected labels in 0..1, got 0 to 2"):
        model.log_joint(values, {"x": x, "prior": make_prior(x, 2, "full")}, np.arange(9) % 3)
    with pytest.raises(ValueError, match="num: expected a number of rows >= 0"):
        model.sample(values, -1, np.random.default_rng(0))


def test_a_weight_of_zero_is_a_component_without_data() -> None:
    model, x, values = GaussianMixtureExact(2, "diag"), blobs(10), random_values(2, "diag", 2)
    values["weights"] = np.array([1.0, 0.0])
    alone = {name: value[:1] for name, value in values.items()}
    expected = GaussianMixtureExact(1, "diag").log_likelihood(alone, {"x": x})
    np.testing.assert_allclose(model.log_likelihood(values, {"x": x}), expected, rtol=1e-13)
    np.testing.assert_array_equal(model.predict_proba(values, {"x": x})[:, 1], 0.0)
    assert (model.sample(values, 1000, np.random.default_rng(0))["assignment"] == 0).all()


# ---- the benchmark --------------------------------------------------------------------------------------


def test_benchmark_runs_and_both_sides_agree() -> None:
    command = [sys.executable, "benchmarks/em.py", "--n", "3000", "--runs", "1", "--iterations", "3"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["agree"]
    assert figures["ratio"] > 0.0
