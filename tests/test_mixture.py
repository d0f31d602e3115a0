"""Mixtures of any emission: against brute force, Pyro and NumPyro, published figures, GaussianMixture."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import assert_within, covering, spread_points
from scipy import stats
from scipy.special import logsumexp

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, emissions, models
from ppl_lvm.core import Problem
from ppl_lvm.emissions import (
    Bernoulli,
    Categorical,
    Emission,
    Gaussian,
    NegativeBinomial,
    Poisson,
    Product,
    StudentT,
)
from ppl_lvm.fitting import prepare
from ppl_lvm.models.mixture import Mixture

NUM_POINTS = 20


def _real(rng: np.random.Generator, n: int = 16) -> np.ndarray:
    shift = np.where(rng.random(n) < 0.4, 2.5, -1.0)[:, None]
    return shift + rng.standard_normal((n, 2)) @ np.array([[1.0, 0.5], [0.0, 0.7]])


def _mixed(rng: np.random.Generator, n: int = 16) -> np.ndarray:
    columns = _real(rng, n)[:, 0], rng.poisson(4, n), _real(rng, n)[:, 1], rng.random(n) < 0.5
    return np.column_stack(columns).astype(float)


CASES: dict[str, tuple[Emission, Any]] = {
    **{f"Gaussian-{c}": (Gaussian(c), _real) for c in ("full", "tied", "diag", "spherical")},
    "Bernoulli": (Bernoulli(), lambda rng: (rng.random((16, 3)) < 0.4).astype(float)),
    "Poisson": (Poisson(), lambda rng: rng.poisson(4, (16, 2)).astype(float)),
    "Categorical": (Categorical(), lambda rng: rng.integers(0, 3, (16, 2)).astype(float)),
    "NegativeBinomial": (
        NegativeBinomial(),
        lambda rng: rng.negative_binomial(2, 0.3, (16, 2)).astype(float),
    ),
    "StudentT": (StudentT(), _real),
    "Product": (Product({(2, 0): Gaussian("tied"), 1: Poisson(), 3: Bernoulli()}), _mixed),
}
every = pytest.mark.parametrize("name", CASES)
missing_or_not = pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])


def test_every_emission_has_a_case() -> None:
    public = set(emissions.__all__) - {"Emission", "as_emission"}
    assert len(public) >= 7
    assert {type(emission).__name__ for emission, _ in CASES.values()} == public


def case_data(name: str, missing: bool) -> np.ndarray:
    rng = np.random.default_rng(len(name))
    x = CASES[name][1](rng)
    if missing:
        gone = rng.random(x.shape) < 0.25
        gone[np.arange(len(x)), rng.integers(0, x.shape[1], len(x))] = False  # no row without any entry
        gone[:2] = False
        x[gone] = np.nan
    return x


def case_problem(name: str, missing: bool, k: int = 3) -> Problem:
    return prepare(Mixture(k, CASES[name][0]), case_data(name, missing))


def agree(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-10, atol=1e-10)


# ---- densities -----------------------------------------------------------------------------------


# A row with missing entries takes every branch that a complete one takes, and its own.
COMPLETE = [(name, False) for name in CASES if name not in ("Gaussian-diag", "Poisson")]


@pytest.mark.parametrize(("name", "missing"), covering(itertools.product(CASES, [False, True]), COMPLETE))
def test_pyro_numpyro_and_closed_form_agree(name: str, missing: bool) -> None:
    import jax

    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends.session import jax_session, torch_session

    problem = case_problem(name, missing)
    points = spread_points(problem, NUM_POINTS)
    exact = problem.model.exact
    prior = exact.log_prior(points, problem.arguments)
    per_datum = exact.log_likelihood(points, problem.arguments)
    assert per_datum.shape == (NUM_POINTS, problem.num_data)
    with torch_session(0, "float64"):
        total, rest, each = log_density(problem, points, {})
    agree(rest, prior)
    agree(each, per_datum)
    agree(total, prior + per_datum.sum(-1))
    with jax_session("float64"):
        density, data = density_of(problem)

        @jax.jit
        @jax.vmap
        def terms(values: Any) -> Any:
            z = density.unconstrain(values, data, {})
            outside, inside = density.log_joint(z, data, {})
            return outside - density.log_jacobian(z, data, {}), inside

        outside, inside = terms(points)
    agree(outside, prior)
    agree(inside, per_datum)


@every
@missing_or_not
def test_particles_run_together(name: str, missing: bool) -> None:
    """The program broadcasts over particles: one run of it, not one for each, gives the densities."""
    import torch

    from ppl_lvm.backends._pyro_density import run_model, run_single
    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session

    problem = case_problem(name, missing)
    points = spread_points(problem, 3)
    with torch_session(0, "float64"), torch.no_grad():
        args = to_torch(problem.arguments)
        tensors = {key: torch.as_tensor(value) for key, value in points.items()}
        together = run_model(problem, args, tensors, {})
        for s in range(3):
            alone = run_single(problem, args, {key: value[s] for key, value in tensors.items()}, {})
            agree(together.per_datum[s], alone.per_datum)


@pytest.mark.parametrize("name", ["Bernoulli", "Poisson", "Product"])
def test_brute_force_over_all_assignments(name: str) -> None:
    """sum over the 2^6 assignments of p(x, assignment), and the labels' marginals from the same sum."""
    x = case_data(name, False)[:6]
    problem = prepare(Mixture(2, CASES[name][0]), x)
    values = {key: value[0] for key, value in spread_points(problem, 1, seed=3).items()}
    each = _each_by_scipy(name, values, x)  # (k, n)
    joints, marginals = [], np.full((6, 2), -np.inf)
    for labels in itertools.product(range(2), repeat=6):
        term = sum(np.log(values["weights"][j]) + each[j, i] for i, j in enumerate(labels))
        joints.append(term)
        for i, j in enumerate(labels):
            marginals[i, j] = np.logaddexp(marginals[i, j], term)
    exact = problem.model.exact
    agree(exact.log_likelihood(values, problem.arguments).sum(), logsumexp(joints))
    agree(exact.predict_proba(values, problem.arguments), np.exp(marginals - logsumexp(joints)))


def _each_by_scipy(name: str, p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    if name == "Poisson":
        return stats.poisson.logpmf(x, p["rate"][:, None]).sum(-1)
    if name == "Bernoulli":
        return stats.bernoulli.logpmf(x, p["probs"][:, None]).sum(-1)
    tril = p["scale"][:, None] * p["corr_tril"]
    return np.array([
        stats.multivariate_normal.logpdf(x[:, [2, 0]], p["loc"][j], tril @ tril.T)
        + stats.poisson.logpmf(x[:, 1], p["rate"][j, 0])
        + stats.bernoulli.logpmf(x[:, 3], p["probs"][j, 0])
        for j in range(2)
    ])  # fmt: skip


# ---- the named case ------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("d", [1, 2])
def test_gaussian_mixture_is_the_named_case(covariance: str, d: int) -> None:
    x = _real(np.random.default_rng(2), 40)[:, :d]
    ours = prepare(Mixture(2, Gaussian(covariance)), x)
    named = prepare(models.GaussianMixture(2, covariance), x)
    sites = [(s.name, s.shape, s.support) for s in ours.latents(discrete=False)]
    assert sites == [(s.name, s.shape, s.support) for s in named.latents(discrete=False)]
    points = spread_points(named, NUM_POINTS)
    for call in ("log_prior", "log_likelihood", "predict_proba"):
        agree(getattr(ours.model.exact, call)(points, ours.arguments),
              getattr(named.model.exact, call)(points, named.arguments))  # fmt: skip
    for estimate, floor in (("ml", 0.0), ("map", None)):
        settings = {"num_init": 4, "tol": 1e-13, "estimate": estimate}
        a = ours.model.exact.em(ours.arguments, rng=np.random.default_rng(0), **settings)
        b = named.model.exact.em(
            named.arguments, rng=np.random.default_rng(0), variance_floor=floor, **settings
        )
        assert a.converged
        assert not a.collapsed
        assert a.objective == pytest.approx(b.objective, abs=1e-8)
        order = np.argsort(a.values["loc"][:, 0]), np.argsort(b.values["loc"][:, 0])
        for name in ("weights", "loc"):
            np.testing.assert_allclose(a.values[name][order[0]], b.values[name][order[1]], atol=1e-4)


# ---- EM ------------------------------------------------------------------------------------------


@every
@missing_or_not
@pytest.mark.parametrize("estimate", ["ml", "map"])
def test_em_never_falls_and_says_what_it_did(name: str, missing: bool, estimate: str) -> None:
    problem = case_problem(name, missing, k=2)
    exact = problem.model.exact
    seen: list[tuple[int, int, float]] = []
    found = exact.em(
        problem.arguments, num_init=3, max_iter=60, estimate=estimate, rng=np.random.default_rng(0),
        progress=lambda *what: seen.append(what),
    )  # fmt: skip
    assert (np.diff(found.trace) >= -1e-9 * np.abs(found.trace[1:])).all()
    assert found.num_iter == len(found.trace) - 1
    assert len(found.restarts) == 3
    assert {restart for restart, _, _ in seen} == {0, 1, 2}
    log_likelihood = exact.log_likelihood(found.values, problem.arguments).sum()
    log_prior = exact.log_prior(found.values, problem.arguments) if estimate == "map" else 0.0
    assert found.log_likelihood == pytest.approx(log_likelihood, rel=1e-10)
    assert found.objective == pytest.approx(log_likelihood + log_prior, rel=1e-10)
    again = exact.em(problem.arguments, start=found.values, estimate=estimate, max_iter=5)
    assert again.trace[0] == pytest.approx(found.objective, rel=1e-10)
    assert again.objective >= found.objective - 1e-9 * abs(found.objective)


def patterns(folder: Path, name: str) -> np.ndarray:
    """A table of response patterns with counts, as one row a respondent, codes from 0."""
    table = pd.read_csv(folder / "lca_tables" / f"{name}.csv")
    items = table.drop(columns="count").to_numpy() - 1
    return np.repeat(items, table["count"].to_numpy(), axis=0)


PUBLISHED = [
    ("values", 1, -543.6498, 4, 4),
    ("values", 2, -504.4677, 4, 9),
    ("carcinoma", 2, -317.2568, 4, 15),
    ("values", 3, -503.3011, 4, 14),
    ("carcinoma", 3, -293.705, 3, 23),
    ("carcinoma", 4, -289.2858, 4, 31),
]
LONG = [("values", 3), ("carcinoma", 4)]  # thousands of steps of EM: 6 to 35 s each


@pytest.mark.parametrize("emission", [Bernoulli(), Categorical()], ids=["Bernoulli", "Categorical"])
@pytest.mark.parametrize(
    ("table", "num_classes", "log_likelihood", "decimals", "num_parameters"),
    covering(PUBLISHED, LONG, key=lambda row: row[:2]),
)
def test_latent_classes_of_published_tables(
    shared_data: Path,
    emission: Emission,
    table: str,
    num_classes: int,
    log_likelihood: float,
    decimals: int,
    num_parameters: int,
) -> None:
    """Maximum log likelihoods that the examples of poLCA print (Linzer and Lewis 2011, J Stat Soft 42)."""
    x = patterns(shared_data, table)
    assert len(x) == {"values": 216, "carcinoma": 118}[table]
    fit = lvm.fit(Mixture(num_classes, emission), x, EM(num_init=12, tol=1e-13, max_iter=10_000), seed=0)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=0.5 * 10.0**-decimals)
    assert fit.model.exact.num_parameters(fit.problem.arguments) == num_parameters
    if (table, num_classes) == ("values", 2):  # Goodman (1974), Biometrika 61: the shares of the two classes
        assert np.sort(fit.params["weights"]) == pytest.approx([0.279, 0.721], abs=5e-4)


def test_em_reports_a_collapse_and_prefers_runs_without() -> None:
    x = np.concatenate([np.random.default_rng(0).standard_normal((30, 1)), np.full((6, 1), 9.0)])
    fit = lvm.fit(Mixture(2, Gaussian("diag")), x, EM(num_init=3), seed=0)
    assert fit.status.outcome.name == "DEGENERATE"
    assert "collapsed" in str(fit.status)
    sound = lvm.fit(Mixture(2, Gaussian("diag")), x, EM(num_init=3, estimate="map"), seed=0)
    assert sound.status.ok


def test_em_refuses_what_it_cannot_do() -> None:
    x = case_data("Poisson", False)
    with pytest.raises(ValueError, match=r"leave variance_floor out"):
        lvm.fit(Mixture(2, Poisson()), x, EM(variance_floor=0.1))
    sparse = np.array([[0.0], [0.0], [9.0], [9.0]])
    with pytest.raises(ValueError, match=r"concentration.*empties"):
        lvm.fit(Mixture(4, Poisson(), concentration=0.01), sparse, EM(estimate="map"))


# ---- draws and starts ----------------------------------------------------------------------------


@every
@missing_or_not
def test_initial_values_are_inside_the_supports(name: str, missing: bool) -> None:
    import torch

    problem = case_problem(name, missing)
    for seed in range(3):
        values = problem.model.exact.initial_values(problem.arguments, np.random.default_rng(seed))
        for site in problem.latents(discrete=False):
            assert values[site.name].shape == site.shape
            assert bool(site.constraint.check(torch.as_tensor(values[site.name])).all())
        assert np.isfinite(problem.model.exact.log_likelihood(values, problem.arguments)).all()


@every
def test_draws_have_the_shapes_and_the_labels_their_probabilities(name: str) -> None:
    problem = case_problem(name, True)
    n, d = problem.arguments["x"].shape
    exact, rng = problem.model.exact, np.random.default_rng(0)
    values = {key: np.repeat(v, 4000, axis=0) for key, v in spread_points(problem, 1).items()}
    labels = exact.latents(values, problem.arguments, rng)["assignment"]
    assert labels.shape == (4000, n)
    probs = exact.predict_proba({key: v[0] for key, v in values.items()}, problem.arguments)
    for j in range(3):
        assert_within((labels == j).mean(0), probs[:, j], np.sqrt(probs[:, j] * (1 - probs[:, j]) / 4000))
    few = {key: v[:5] for key, v in values.items()}
    new = exact.replicate(few, problem.arguments, rng)["obs"]
    assert new.shape == (5, n, d)
    assert np.isfinite(new).all()
    drawn = exact.sample({key: v.reshape(5, 1, *v.shape[1:]) for key, v in few.items()}, 7, rng)
    assert drawn["obs"].shape == (5, 1, 7, d)
    assert drawn["assignment"].shape == (5, 1, 7)


def test_invariants_are_the_moments_of_a_new_row() -> None:
    problem = case_problem("Poisson", False)
    values = {key: v[:1] for key, v in spread_points(problem, 1).items()}
    found = problem.model.invariants(values)
    rows = problem.model.exact.sample(values, 40_000, np.random.default_rng(0))["obs"][0]
    assert_within(found["mixture_mean"][0], rows.mean(0), rows.std(0) / 200)
    squares = (rows - found["mixture_mean"][0]) ** 2
    assert_within(found["mixture_sd"][0] ** 2, squares.mean(0), squares.std(0) / 200)


@every
def test_labels_can_be_permuted(name: str) -> None:
    problem = case_problem(name, True)
    model, points = problem.model, spread_points(problem, 4)
    before = model.exact.log_likelihood(points, problem.arguments)
    features = model.label_features(points)
    assert np.isfinite(features).all()
    for order in itertools.permutations(range(3)):
        moved = {
            key: np.take(v, order, axis=1) if key in model.label_axes else v for key, v in points.items()
        }
        agree(model.exact.log_likelihood(moved, problem.arguments), before)
        agree(
            model.exact.log_prior(moved, problem.arguments), model.exact.log_prior(points, problem.arguments)
        )
        np.testing.assert_array_equal(model.label_features(moved), features[:, order])
        for key, value in model.invariants(moved).items():
            np.testing.assert_allclose(value, model.invariants(points)[key], rtol=1e-12)
    apart = Mixture(3, CASES[name][0], concentration=(1.0, 2.0, 3.0))
    assert apart.label_axes is None


# ---- data and settings ---------------------------------------------------------------------------


@every
def test_settings_survive_json_and_resolve_is_idempotent(name: str) -> None:
    x = case_data(name, True)
    model = Mixture(3, CASES[name][0], concentration=(1.0, 2.0, 3.0), keep_latents=True)
    once = model.resolve(x)
    assert once.resolve(x) == once
    assert once.num_columns == x.shape[1]
    for each in (model, once):
        record = json.loads(json.dumps(each.to_settings()))
        assert record["model"] == "Mixture"
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in record["settings"].items()}
        assert Mixture(**settings) == each
        assert hash(each) == hash(Mixture(**settings))
    problem = prepare(model, x)
    sites = {s.name for s in problem.latents(discrete=False)}
    assert sites | {"obs", "assignment"} == set(problem.sites)
    assert all(len(once.dims[s.name]) == s.event_dim for s in problem.latents(discrete=False))


def test_frames_arrays_and_missing_values_bind_alike() -> None:
    x = np.array([[0, 1, 2], [1, 0, 3], [1, 1, 0], [0, 0, 5.0]])
    model = Mixture(2, Product({("a", "b"): Bernoulli(), "c": Poisson()}))
    frame = pd.DataFrame(x, columns=["a", "b", "c"], index=list("wxyz"))
    bound = model.bind(frame)
    assert bound.coords["feature_a"] == ["a", "b"]
    assert list(bound.row_labels) == list("wxyz")
    nullable = frame.astype("Int64")
    nullable.iloc[0, 2] = pd.NA
    masked = np.ma.masked_array(x, mask=np.zeros_like(x, dtype=bool))
    masked[0, 2] = np.ma.masked
    gone = x.copy()
    gone[0, 2] = np.nan
    for raw in (nullable, {"x": gone}, masked, gone.tolist()):
        names = Mixture(2, Product({(0, 1): Bernoulli(), 2: Poisson()}))
        owner = model if isinstance(raw, pd.DataFrame) else names
        np.testing.assert_array_equal(owner.bind(raw).values["x"], gone)
        arguments = owner.resolve(raw).arguments(owner.bind(raw))
        assert arguments["seen"].sum() == x.size - 1
        assert arguments["x"][0, 2] == 0.0
        np.testing.assert_array_equal(owner.observations(owner.bind(raw))["obs"], gone)
    assert "seen" not in names.resolve(x).arguments(names.bind(x))
    flags = Mixture(2, Bernoulli()).bind(x[:, :2] > 0).values["x"]
    np.testing.assert_array_equal(flags, x[:, :2])


NAN = np.nan
BAD_DATA: dict[str, tuple[Emission, Any, type[Exception], str]] = {
    "negative counts": (Poisson(), [[1.0], [-2.0]], ValueError, "x: column 0 has negative values"),
    "categories": (Categorical(2), [[0, 1], [2, 1]], ValueError, "x: column 0 has the value 2"),
    "not binary": (Bernoulli(), [[0, 1], [0, 0.5]], ValueError, "x: column 1 has the value 0.5"),
    "few rows": (Poisson(), [[1.0]], ValueError, "at least 2 rows.*fewer rows than components"),
    "empty row": (Poisson(), [[NAN, NAN], [1, 2], [0, 1]], ValueError, "all values of row 0 are missing"),
    "empty column": (Poisson(), [[1, NAN], [2, NAN]], ValueError, "all values of column 1 are missing"),
    "infinite": (Gaussian(), [[1.0], [np.inf]], ValueError, "infinite values .*use NaN"),
    "vector": (Poisson(), [1.0, 2.0], ValueError, r"expected shape \(n, d\).*x\[:, None\]"),
    "text": (Poisson(), [["a"], ["b"]], TypeError, "expected numbers"),
    "text column": (Poisson(), pd.DataFrame({"a": ["u", "v"]}), TypeError, "encode categories as integers"),
    "unknown argument": (Poisson(), {"y": [[1.0]]}, ValueError, "missing .*'x'.* unknown .*'y'"),
    "constant": (Gaussian(), [[1.0], [1.0]], ValueError, "column 0 is constant"),
    "unknown column": (Product({"a": Poisson()}), [[1.0], [2.0]], ValueError, "column 'a' is unknown"),
    "numbers by column": (
        Poisson(rate_mean=(1.0, 2.0)),
        [[1.0], [2.0]],
        ValueError,
        "rate_mean: expected one",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_errors_in_words(name: str) -> None:
    emission, raw, kind, message = BAD_DATA[name]
    with pytest.raises(kind, match=message):
        prepare(Mixture(2, emission), raw)


def test_bad_settings_are_errors_in_words() -> None:
    for k in (0, True, 1.5):
        with pytest.raises(ValueError, match="num_components: expected a positive integer"):
            Mixture(k, Poisson())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the class Poisson; call it"):
        Mixture(2, Poisson)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="concentration: expected positive"):
        Mixture(2, Poisson(), concentration=0.0)
    with pytest.raises(ValueError, match="concentration: expected one number or 2"):
        Mixture(2, Poisson(), concentration=(1.0, 1.0, 1.0))
    with pytest.raises(TypeError, match="concentration: expected a number"):
        Mixture(2, Poisson(), concentration="much")  # type: ignore[arg-type]


# ---- engines -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers() -> np.ndarray:
    """Yes or no to five questions by 120 of two kinds of people; a tenth of the answers are missing."""
    rng = np.random.default_rng(3)
    kind = rng.random(120) < 0.35
    x = (rng.random((120, 5)) < np.where(kind[:, None], 0.85, 0.2)).astype(float)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[np.isnan(x).all(1), 0] = 1.0
    return x


def test_predictions_of_a_fit_at_new_data(answers: np.ndarray) -> None:
    fit = lvm.fit(Mixture(2, Bernoulli()), answers, EM(num_init=4), seed=0)
    probs = fit.predict_proba(answers)
    assert probs.shape == (120, 2)
    np.testing.assert_allclose(probs.sum(1), 1.0)
    unknown = np.full((1, 5), np.nan)  # nothing is known of this row: the class sizes are the answer
    np.testing.assert_allclose(fit.predict_proba(unknown)[0], fit.params["weights"], rtol=1e-12)
    with pytest.raises(ValueError, match="expected 5 features as in the fit, got 3"):
        fit.predict(answers[:, :3])
    with pytest.raises(ValueError, match="column 2 has the value 7"):
        fit.predict(np.where(np.arange(5) == 2, 7.0, answers))


def test_nuts_finds_the_conjugate_posterior(answers: np.ndarray) -> None:
    """One component: the probabilities are Beta(1.5 + yes, 1.5 + no) given the answers that are there."""
    model = Mixture(1, Bernoulli())
    settings = NUTS(backend="numpyro", num_warmup=300, num_samples=1000, num_chains=2)
    fit = lvm.fit(model, answers, settings, seed=0)
    draws = fit.posterior["probs"].values.reshape(-1, 5)
    yes, no = np.nansum(answers, axis=0), np.nansum(1.0 - answers, axis=0)
    expected = stats.beta(1.5 + yes, 1.5 + no)
    size = fit.summary().filter(like="probs", axis=0)["ess_bulk"].to_numpy(dtype=float)
    assert size.min() > 400
    assert_within(draws.mean(0), expected.mean(), expected.std() / np.sqrt(size))


@pytest.mark.parametrize("batch_size", covering([None, 40], [None]))
def test_svi_runs_with_missing_answers(answers: np.ndarray, batch_size: int | None) -> None:
    model = Mixture(2, Bernoulli())
    fit = lvm.fit(model, answers, SVI(num_steps=600, num_draws=300, batch_size=batch_size), seed=0)
    rates = model.invariants(_flat(fit))["mixture_mean"]
    observed = np.nanmean(answers, axis=0)  # of which the mixture's mean is the posterior centre, nearly
    assert_within(rates.mean(0), observed, np.sqrt(observed * (1 - observed) / 108))
    assert fit.evidence.kind == "lower_bound"
    assert np.isfinite(fit.evidence.nats)


@every
def test_the_prior_and_its_data_can_be_drawn(name: str) -> None:
    x = case_data(name, False)
    model = Mixture(2, CASES[name][0])
    drawn = lvm.sample_prior(model, x, num_draws=20, seed=0)
    new = drawn["prior_predictive"]["obs"].values
    assert new.shape == (1, 20, *x.shape)
    resolved = model.resolve(x)
    resolved.emission.check(new.reshape(-1, x.shape[1]), [str(f) for f in range(x.shape[1])])


def _flat(fit: Any) -> dict[str, np.ndarray]:
    return {str(k): v.values.reshape(-1, *v.shape[2:]) for k, v in fit.posterior.data_vars.items()}
