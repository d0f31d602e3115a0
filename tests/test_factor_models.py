"""PPCA and factor analysis: closed forms, twins and statistics against dense Gaussians and plain algebra."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import jax  # at collection: importing it draws from NumPy's generator, which conftest.py would report
import numpy as np
import pytest
from helpers import assert_within, covering, spread_points
from scipy import stats
from scipy.linalg import subspace_angles as scipy_angles
from threadpoolctl import threadpool_info

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, SufficientStatistics, subspace_angles
from ppl_lvm.core import Problem
from ppl_lvm.fitting import prepare
from ppl_lvm.models._statistics import Rows
from ppl_lvm.models._threads import one_blas_thread
from ppl_lvm.models.factor_analysis import FactorAnalysis
from ppl_lvm.models.factor_analysis._em import noise_floor
from ppl_lvm.models.factor_analysis._exact import moments_of
from ppl_lvm.models.factor_analysis._mode import Coordinates, Target
from ppl_lvm.models.factor_analysis._point import starting_sites
from ppl_lvm.models.factor_analysis._prior import gradient
from ppl_lvm.models.ppca import PPCA, laplace_evidence

MASK = ((True, False), (True, False), (True, True), (False, True), (False, True))


def factor_data(n: int = 15, d: int = 5, q: int = 2, *, seed: int = 0, noise: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loadings = 2.0 * rng.standard_normal((d, q))
    return 4.0 + rng.standard_normal((n, q)) @ loadings.T + noise * rng.standard_normal((n, d))


def with_gaps(x: np.ndarray, share: float = 0.25, *, seed: int = 1) -> np.ndarray:
    """Entries missing at random, and one row without any."""
    out = np.where(np.random.default_rng(seed).random(x.shape) < share, np.nan, x)
    out[3] = np.nan
    return out


FULL, GAPS = factor_data(), with_gaps(factor_data())
MODELS = {
    "fa": FactorAnalysis(2),
    "fa-anchors": FactorAnalysis(2, anchors=(4, 1)),
    "fa-ard": FactorAnalysis(2, ard=True),
    "fa-mask": FactorAnalysis(2, mask=MASK),
    "fa-correlated": FactorAnalysis(2, mask=MASK, correlated=True),
    "ppca": PPCA(2),
    "ppca-ard": PPCA(3, ard=True),
    "ppca-fixed": PPCA(2, scale=0.7),
}
DATA = {"full": FULL, "gaps": GAPS}
EXPLICIT = {
    "fa": FactorAnalysis(2, collapsed=False),
    "fa-ard": FactorAnalysis(2, ard=True, collapsed=False),
    "fa-correlated": FactorAnalysis(2, mask=MASK, correlated=True, collapsed=False),
    "ppca": PPCA(2, collapsed=False),
    "ppca-fixed": PPCA(2, scale=0.7, collapsed=False),
}
CASES = list(itertools.product(MODELS, DATA))


@pytest.fixture(autouse=True)
def no_warnings(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """NumPy's own complaints (log of 0, means of nothing) are faults here."""
    yield
    bad = [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)]
    if bad:
        pytest.fail(f"warnings: {bad}", pytrace=False)


def problem_of(name: str, data: str) -> Problem:
    return prepare(MODELS[name], DATA[data])


def parts(model: Any, values: dict[str, np.ndarray], s: int) -> tuple[np.ndarray, ...]:
    """loc (d,), loadings (d, q), factor correlation (q, q), noise sds (d,) of draw s: by loops."""
    loc = values["loc"][s]
    d, q = len(loc), model.latent_dim
    if "loadings" in values:
        loadings = values["loadings"][s]
    elif model.structure.mask is not None:
        loadings, free = np.zeros((d, q)), iter(values["loadings_free"][s])
        for f in range(d):
            for j in range(q):
                if model.structure.mask[f][j]:
                    loadings[f, j] = next(free)
    else:
        rows = [*model.anchors, *(f for f in range(d) if f not in model.anchors)]
        loadings, lower = np.zeros((d, q)), iter(values["loadings_lower"][s])
        for i, f in enumerate(rows):
            for j in range(min(i, q)):
                loadings[f, j] = next(lower)
            if i < q:
                loadings[f, i] = values["loadings_diag"][s, i]
    corr = np.eye(q)
    if "factor_corr_tril" in values:
        corr = values["factor_corr_tril"][s] @ values["factor_corr_tril"][s].T
    scale = values["scale"][s] if "scale" in values else model.scale
    return loc, loadings, corr, np.broadcast_to(scale, (d,))


def dense_terms(model: Any, values: dict[str, np.ndarray], x: np.ndarray, s: int) -> np.ndarray:
    """Each row's log density by scipy, over its observed entries."""
    loc, loadings, corr, scale = parts(model, values, s)
    covariance = loadings @ corr @ loadings.T + np.diag(scale**2)
    out = np.zeros(len(x))
    for i, row in enumerate(x):
        seen = ~np.isnan(row)
        if seen.any():
            out[i] = stats.multivariate_normal(loc[seen], covariance[np.ix_(seen, seen)]).logpdf(row[seen])
    return out


# ---- densities -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data"), CASES)
def test_marginal_equals_the_dense_gaussian(name: str, data: str) -> None:
    problem = problem_of(name, data)
    values = spread_points(problem, 5, seed=2)
    exact: Any = problem.model.exact
    found = exact.log_likelihood(values, problem.arguments)
    expected = [dense_terms(problem.model, values, DATA[data], s) for s in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    total = exact.total_log_likelihood(values, problem.arguments)
    np.testing.assert_allclose(total, found.sum(-1), rtol=1e-10)


# Relevance of columns is in fa-ard too: three columns differ in their shapes alone, and compile anew.
OTHER_SHAPES = [("ppca-ard", "full"), ("ppca-ard", "gaps")]


@pytest.mark.parametrize(("name", "data"), covering(CASES, OTHER_SHAPES))
def test_both_programs_and_the_closed_form_agree(name: str, data: str) -> None:
    problem = problem_of(name, data)
    values = spread_points(problem, 20, sd=0.7)
    exact: Any = problem.model.exact
    prior = exact.log_prior(values, problem.arguments)
    total = prior + exact.total_log_likelihood(values, problem.arguments)
    np.testing.assert_allclose(pyro_total(problem, values, prior=True), prior, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(pyro_total(problem, values), total, rtol=1e-10)
    np.testing.assert_allclose(numpyro_total(problem, values), total, rtol=1e-10)


@pytest.mark.parametrize(("name", "data"), list(itertools.product(EXPLICIT, DATA)))
def test_explicit_programs_agree(name: str, data: str) -> None:
    problem = prepare(EXPLICIT[name], DATA[data])
    values = spread_points(problem, 20, sd=0.7)
    np.testing.assert_allclose(pyro_total(problem, values), numpyro_total(problem, values), rtol=1e-10)


@pytest.mark.parametrize(("name", "data"), list(itertools.product(EXPLICIT, DATA)))
def test_explicit_density_is_the_marginal_times_the_posterior_of_z(name: str, data: str) -> None:
    """p(x, z) = p(x) p(z | x) at any z, with p(z | x) from the dense joint covariance of (z, x)."""
    problem = prepare(EXPLICIT[name], DATA[data])
    values = spread_points(problem, 4, sd=0.7)
    exact: Any = problem.model.exact
    collapsed = exact.log_prior(values, problem.arguments) + exact.log_likelihood(
        values, problem.arguments
    ).sum(-1)
    for s in range(4):
        posterior = [dense_posterior(problem.model, values, row, s) for row in DATA[data]]
        z = values["z"][s]
        given = sum(stats.multivariate_normal(m, c).logpdf(z[i]) for i, (m, c) in enumerate(posterior))
        one = {k: v[s : s + 1] for k, v in values.items()}
        np.testing.assert_allclose(pyro_total(problem, one)[0], collapsed[s] + given, rtol=1e-10)


def dense_posterior(
    model: Any, values: dict[str, np.ndarray], row: np.ndarray, s: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of z given one row, by conditioning the joint Gaussian."""
    loc, loadings, corr, scale = parts(model, values, s)
    seen = ~np.isnan(row)
    across = (corr @ loadings.T)[:, seen]
    own = (loadings @ corr @ loadings.T + np.diag(scale**2))[np.ix_(seen, seen)]
    gain = np.linalg.solve(own, across.T).T if seen.any() else across
    return gain @ (row - loc)[seen], corr - gain @ across.T


def pyro_total(problem: Problem, values: dict[str, np.ndarray], *, prior: bool = False) -> np.ndarray:
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends.session import torch_session

    with torch_session(0, "float64"):
        return log_density(problem, values, {}, prior=prior)[0]


def numpyro_total(problem: Problem, values: dict[str, np.ndarray]) -> np.ndarray:
    from ppl_lvm.backends._numpyro import density_of

    with jax.enable_x64(True):
        density, data = density_of(problem)

        def total(one: Any) -> Any:
            z = density.unconstrain(one, data, {})
            return density.total(z, data, {}) - density.log_jacobian(z, data, {})

        return np.asarray(jax.jit(jax.vmap(total))({k: jax.numpy.asarray(v) for k, v in values.items()}))


# ---- rotation ------------------------------------------------------------------------------------


def test_anchors_change_no_density_of_the_invariants() -> None:
    """log p(W W') is the same whichever columns anchor the loadings.

    The density of L is divided by the Jacobian of W W' in L, for the same coordinates of W W' each time.
    """
    d, q = 4, 2
    x = factor_data(30, d, q, seed=5)
    loadings = np.random.default_rng(3).standard_normal((d, q)) * 2.0
    densities = []
    for anchors in ((0, 1), (3, 2), (1, 3)):
        model = FactorAnalysis(q, anchors=anchors).resolve(x)
        data = model.arguments(model.bind(x))
        prior = data["prior"]
        diag, lower, jacobian = _triangular(loadings, anchors)
        values = {"loc": prior["loc_mean"], "scale": np.exp(prior["scale_loc"]), "loadings_diag": diag,
                  "loadings_lower": lower}  # fmt: skip
        densities.append(float(model.exact.log_prior(values, data)) - jacobian)
    np.testing.assert_allclose(densities, densities[0], rtol=0, atol=1e-6)  # central differences: about 1e-9


def _triangular(loadings: np.ndarray, anchors: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float]:
    """L for some anchors by Cholesky of W W', and log |d vech(W W')_free / d L| by central differences.

    The free coordinates are the first q columns of W W' (lower part), whatever the anchors.
    """
    d, q = loadings.shape
    rows = [*anchors, *(f for f in range(d) if f not in anchors)]
    gram = (loadings @ loadings.T)[np.ix_(rows, rows)]
    top = np.linalg.cholesky(gram[:q, :q])
    whole = np.linalg.solve(top, gram[:q]).T
    lower = np.array([whole[i, j] for i in range(d) for j in range(min(i, q))])
    free = np.concatenate([whole.diagonal(), lower])
    below = [(i, j) for i in range(d) for j in range(min(i, q))]

    def coordinates(vector: np.ndarray) -> np.ndarray:
        matrix = np.zeros((d, q))
        matrix[np.arange(q), np.arange(q)] = vector[:q]
        for value, (i, j) in zip(vector[q:], below, strict=True):
            matrix[i, j] = value
        back = np.empty((d, q))
        back[rows] = matrix
        product = back @ back.T
        return np.array([product[i, j] for j in range(q) for i in range(j, d)])

    step = 1e-5
    columns = [
        (coordinates(free + step * e) - coordinates(free - step * e)) / (2 * step) for e in np.eye(len(free))
    ]
    return whole.diagonal().copy(), lower, float(np.linalg.slogdet(np.array(columns))[1])


@pytest.mark.slow
def test_the_prior_of_the_covariance_is_that_of_normal_loadings() -> None:
    """Prior draws of W W' have the moments of W with independent normal entries, scaled by row."""
    x = factor_data(40, 5, 3, seed=2) * np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    model = FactorAnalysis(3, anchors=(2, 0, 4)).resolve(x)
    drawn = lvm.sample_prior(model, x, num_draws=20_000, seed=0)["prior"]["loadings"].values[0]
    spread = np.asarray(model.loadings_scale)
    product = drawn @ np.swapaxes(drawn, 1, 2) / np.outer(spread, spread)
    error = product.std(0) / np.sqrt(len(product))
    assert_within(product.mean(0), 3.0 * np.eye(5), error)
    square = product**2  # E (w_f'w_f)^2 = q^2 + 2q, E (w_f'w_g)^2 = q
    assert_within(square.mean(0), 3.0 + 12.0 * np.eye(5), square.std(0) / np.sqrt(len(square)))


def test_turned_loadings_give_the_same_answers() -> None:
    problem = problem_of("fa", "gaps")
    exact: Any = problem.model.exact
    values = spread_points(problem, 6, seed=4)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 2)))[0]
    own = exact.deterministic(values, problem.arguments)["loadings"]
    turned = {**values, "loadings": own @ turn}
    here, there = (exact.log_likelihood(v, problem.arguments) for v in (values, turned))
    np.testing.assert_allclose(there, here, rtol=1e-10)
    for name, value in exact.invariants(values).items():
        np.testing.assert_allclose(exact.invariants(turned)[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    mean, _ = exact.transform(values, problem.arguments)
    np.testing.assert_allclose(exact.transform(turned, problem.arguments)[0], mean @ turn, atol=1e-10)


def test_subspace_angles_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 6, 2))
    for b in (
        rng.standard_normal((3, 6, 2)),
        a + 1e-9 * rng.standard_normal(a.shape),
        a @ rng.standard_normal((2, 2)),
    ):
        expected = [scipy_angles(one, other) for one, other in zip(a, b, strict=True)]
        np.testing.assert_allclose(subspace_angles(a, b), expected, rtol=1e-6, atol=1e-14)
    with pytest.raises(ValueError, match="loadings: expected two arrays"):
        subspace_angles(a, a[..., :1])


# ---- latents -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data"), CASES)
def test_posterior_of_z_is_the_closed_form(name: str, data: str) -> None:
    problem = problem_of(name, data)
    exact: Any = problem.model.exact
    values = spread_points(problem, 3, seed=6)
    found = [
        exact.transform({k: v[s : s + 1] for k, v in values.items()}, problem.arguments) for s in range(3)
    ]
    for s, row in itertools.product(range(3), range(len(FULL))):
        mean, cov = dense_posterior(problem.model, values, DATA[data][row], s)
        np.testing.assert_allclose(found[s][0][row], mean, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found[s][1][row], np.sqrt(cov.diagonal()), rtol=1e-8, atol=1e-10)
    means = np.array([f[0] for f in found])
    both = exact.transform(values, problem.arguments)
    np.testing.assert_allclose(both[0], means.mean(0), atol=1e-10)
    variance = means.var(0) + np.mean([f[1] ** 2 for f in found], axis=0)
    np.testing.assert_allclose(both[1], np.sqrt(variance), rtol=1e-8)


def test_draws_of_latents_and_missing_entries_have_the_right_moments() -> None:
    problem = problem_of("fa-correlated", "gaps")
    exact: Any = problem.model.exact
    one = spread_points(problem, 1, seed=7, sd=0.4)
    many = {k: np.repeat(v, 20_000, axis=0) for k, v in one.items()}
    z = exact.latents(many, problem.arguments, np.random.default_rng(0))["z"]
    filled = exact.impute(many, problem.arguments, np.random.default_rng(1))
    loc, loadings, corr, scale = parts(problem.model, one, 0)
    own = loadings @ corr @ loadings.T + np.diag(scale**2)
    for i, row in enumerate(GAPS[:6]):
        mean, cov = dense_posterior(problem.model, one, row, 0)
        away = z[:, i] - mean
        assert_within(away.mean(0), 0.0, away.std(0) / np.sqrt(len(z)))
        square = away[:, :, None] * away[:, None, :]
        assert_within(square.mean(0), cov, square.std(0) / np.sqrt(len(z)))
        seen = ~np.isnan(row)
        np.testing.assert_array_equal(filled[:, i, seen], np.broadcast_to(row[seen], (len(z), seen.sum())))
        gain = np.linalg.solve(own[np.ix_(seen, seen)], own[np.ix_(seen, ~seen)]).T if seen.any() else 0.0
        expected = loc[~seen] + (gain @ (row - loc)[seen] if seen.any() else 0.0)
        hidden = own[np.ix_(~seen, ~seen)] - (gain @ own[np.ix_(seen, ~seen)] if seen.any() else 0.0)
        away = filled[:, i, ~seen] - expected
        square = away[:, :, None] * away[:, None, :]
        assert_within(away.mean(0), 0.0, away.std(0) / np.sqrt(len(z)))
        assert_within(square.mean(0), hidden, square.std(0) / np.sqrt(len(z)))


def test_samples_have_the_implied_covariance() -> None:
    problem = problem_of("fa-correlated", "full")
    exact: Any = problem.model.exact
    one = {k: v[0] for k, v in spread_points(problem, 1, seed=8, sd=0.4).items()}
    drawn = exact.sample(one, 40_000, np.random.default_rng(0))
    assert drawn["obs"].shape == (40_000, 5)
    away = drawn["obs"] - one["loc"]
    square = away[:, :, None] * away[:, None, :]
    expected = exact.invariants({k: v[None] for k, v in one.items()})["implied_cov"][0]
    assert_within(square.mean(0), expected, square.std(0) / np.sqrt(len(away)))
    pairs = drawn["z"][:, :, None] * drawn["z"][:, None, :]
    corr = one["factor_corr_tril"] @ one["factor_corr_tril"].T
    assert_within(pairs.mean(0), corr, pairs.std(0) / np.sqrt(len(away)))
    several = {k: np.stack([v] * 6).reshape(2, 3, *v.shape) for k, v in one.items()}
    assert exact.sample(several, 4, np.random.default_rng(0))["obs"].shape == (2, 3, 4, 5)
    np.testing.assert_allclose(
        exact.inverse_transform({k: v[None] for k, v in one.items()}, drawn["z"][:3]),
        one["loc"] + drawn["z"][:3] @ parts(problem.model, {k: v[None] for k, v in one.items()}, 0)[1].T,
    )


def test_invariants() -> None:
    problem = problem_of("fa-correlated", "full")
    values = spread_points(problem, 2, seed=9)
    found = problem.model.invariants(values)  # type: ignore[misc]
    _, loadings, corr, scale = parts(problem.model, values, 1)
    common = loadings @ corr @ loadings.T
    np.testing.assert_allclose(found["implied_cov"][1], common + np.diag(scale**2), rtol=1e-12)
    np.testing.assert_allclose(found["communality"][1], common.diagonal() / (common.diagonal() + scale**2))
    np.testing.assert_allclose(
        found["singular_values"][1] ** 2, np.linalg.eigvalsh(common)[::-1][:2], rtol=1e-9
    )
    wide = factor_data(30, 13, 2)
    problem = prepare(FactorAnalysis(2), wide)
    assert set(problem.model.invariants(spread_points(problem, 2))) == {"communality", "singular_values"}  # type: ignore[misc]


# ---- statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_statistics_by_chunks_are_those_of_the_whole(share: float) -> None:
    x = factor_data(500, 9, 2, seed=3) + 1e4
    x = with_gaps(x, share) if share else x
    whole = SufficientStatistics.from_rows(x, chunk=10_000)
    for chunk in (1, 7, 100):
        pieces = SufficientStatistics.from_chunks(x[i : i + chunk] for i in range(0, 500, chunk))
        for name, value in whole.arrays().items():
            np.testing.assert_allclose(pieces.arrays()[name], value, rtol=1e-12, atol=1e-8, err_msg=name)
    assert whole.num_rows == 500
    assert whole.complete == (share == 0.0)
    seen = ~np.isnan(x)
    np.testing.assert_array_equal(whole.num_observed, seen.sum(0))
    np.testing.assert_allclose(whole.column_mean, np.nanmean(x, 0), rtol=1e-12)
    np.testing.assert_allclose(whole.column_variance, np.nanvar(x, 0), rtol=1e-9)
    if not share:
        assert whole.count.shape == (1,)
        np.testing.assert_allclose(whole.scatter[0] / 500, np.cov(x.T, bias=True), rtol=1e-9)


def test_large_means_lose_no_digits() -> None:
    x = factor_data(2000, 4, 1, seed=1)
    near, far = (
        SufficientStatistics.from_rows(x, chunk=100),
        SufficientStatistics.from_rows(x + 1e7, chunk=100),
    )
    np.testing.assert_allclose(far.scatter, near.scatter, rtol=1e-6)  # x itself is rounded to 1e-9


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0, 5.0, 1e3])
def test_scatters_are_exact_for_means_of_any_size(shift: float) -> None:
    """Against sums in extended precision; squares may be taken about 0 where means are below four sds."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((3000, 5)) + shift * np.array([1.0, -1.0, 0.5, 0.0, 1.0])
    wide = x.astype(np.longdouble)
    away = wide - wide.mean(0)
    wanted = np.array([[(a * b).sum() for a in away.T] for b in away.T], float)
    found = SufficientStatistics.from_rows(x, chunk=500).scatter[0]
    size = np.sqrt(np.outer(wanted.diagonal(), wanted.diagonal()))
    # 3000 additions of squares, each rounded, up to 16 times larger than what is left of them
    np.testing.assert_allclose(found / size, wanted / size, atol=16 * 3000 * np.finfo(float).eps)
    np.testing.assert_array_equal(found, found.T)


def test_threads_of_blas_are_as_before_after_fits_that_overlap() -> None:
    """Small matrices run on one BLAS thread; the first fit in sets that, the last one out puts it back."""

    def numbers() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = numbers()
    first, second = one_blas_thread(8), one_blas_thread(8)
    first.__enter__()
    second.__enter__()
    assert set(numbers()) == {1}
    first.__exit__(None, None, None)
    assert set(numbers()) == {1}
    second.__exit__(None, None, None)
    assert numbers() == before
    with one_blas_thread(10_000):
        assert numbers() == before
    with pytest.raises(ZeroDivisionError), one_blas_thread(8):
        raise ZeroDivisionError
    assert numbers() == before


@pytest.mark.parametrize("share", [0.0, 0.15])
def test_every_way_to_give_the_data_is_one(share: float, tmp_path: Any) -> None:
    import pandas as pd

    x = factor_data(40, 5, 2, seed=4)
    x = with_gaps(x, share) if share else x
    disk = np.memmap(tmp_path / "x.bin", dtype=np.float64, mode="w+", shape=x.shape)
    disk[:] = x
    ways = [
        x,
        pd.DataFrame(x),
        {"x": x},
        disk,
        iter([x[:11], x[11:]]),
        SufficientStatistics.from_rows(x, chunk=9),
    ]
    fits = [lvm.fit(FactorAnalysis(2), way, EM(tol=1e-15, num_init=1)) for way in ways]
    for fit in fits:
        assert fit.problem is not None
        assert fit.problem.num_data == 40
        np.testing.assert_allclose(fit.log_likelihood, fits[0].log_likelihood, rtol=1e-10)
        np.testing.assert_allclose(
            fit.transform(x), fits[0].transform(x), atol=1e-5
        )  # Newton steps end at 1e-6
    assert isinstance(fits[3].problem.data.values["x"], np.memmap)  # type: ignore[union-attr]
    for fit in fits[4:]:
        with pytest.raises(ValueError, match="x: the data were given as statistics"):
            fit.transform()


def test_masked_entries_are_missing_entries() -> None:
    masked = np.ma.masked_array(np.nan_to_num(GAPS), np.isnan(GAPS))
    a, b = (lvm.fit(PPCA(2), way, EM()).log_likelihood for way in (masked, GAPS))
    assert a == b


def test_one_program_serves_other_data() -> None:
    assert Rows(None) == Rows(FULL)
    assert hash(Rows(None)) == hash(Rows(FULL))
    assert Rows(None) != 0
    assert len(Rows(FULL)) == 15
    assert len(Rows(None)) == 0


def test_a_row_without_entries_contributes_nothing() -> None:
    kept = np.delete(GAPS, 3, axis=0)
    model = FactorAnalysis(2).resolve(kept)
    values = spread_points(prepare(model, kept), 3)
    with_row, without = (
        model.exact.total_log_likelihood(values, model.arguments(model.bind(v))) for v in (GAPS, kept)
    )
    np.testing.assert_allclose(with_row, without, rtol=1e-12)
    terms = model.exact.log_likelihood(values, model.arguments(model.bind(GAPS)))
    np.testing.assert_array_equal(terms[:, 3], 0.0)
    mean, sd = model.exact.transform(values, model.arguments(model.bind(GAPS)))
    np.testing.assert_allclose(mean[3], 0.0, atol=1e-12)  # the prior of z
    np.testing.assert_allclose(sd[3], 1.0, rtol=1e-12)


# ---- points --------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimate", ["ml", "map"])
@pytest.mark.parametrize(("name", "data"), CASES)
def test_points_climb_and_end_on_top(name: str, data: str, estimate: str) -> None:
    x = {"full": factor_data(60, seed=11), "gaps": with_gaps(factor_data(60, seed=11), 0.15)}[data]
    model = MODELS[name].resolve(x)
    arguments = model.arguments(model.bind(x))
    found = model.exact.em(arguments, num_init=2, tol=1e-10, estimate=estimate)
    assert found.converged
    assert np.isfinite(found.objective)
    assert (np.diff(found.trace) >= -1e-9 * abs(found.objective)).all()
    one = {k: v[None] for k, v in found.values.items()}
    np.testing.assert_allclose(
        found.log_likelihood, model.exact.total_log_likelihood(one, arguments)[0], rtol=1e-10
    )
    own = {k: v for k, v in found.values.items() if k != "loadings" or model.ard}
    use_prior = estimate == "map"
    if use_prior:
        height = found.log_likelihood + model.exact.log_prior(one, arguments)[0]
        np.testing.assert_allclose(found.objective, height, rtol=1e-10)
    target = Target(
        moments_of(arguments),
        model.structure,
        model.anchors,
        model._fixed_scale,
        arguments["prior"],
        use_prior,
    )
    floor = np.sqrt(noise_floor(moments_of(arguments), None, model.structure))
    rng = np.random.default_rng(0)
    for _ in range(20):  # nothing near is higher
        moved = {
            k: v * np.exp(1e-3 * rng.standard_normal(v.shape))
            for k, v in own.items()
            if k != "factor_corr_tril"
        }
        if "factor_corr_tril" in own:
            moved["factor_corr_tril"] = own["factor_corr_tril"]
        if "scale" in moved:
            moved["scale"] = np.maximum(moved["scale"], floor if np.ndim(moved["scale"]) else floor[0])
        assert target({**moved})[0] <= found.objective + 1e-7 * 60


@pytest.mark.parametrize("use_prior", [False, True])
@pytest.mark.parametrize(("name", "data"), CASES)
def test_gradients_are_those_of_finite_differences(name: str, data: str, use_prior: bool) -> None:
    problem = problem_of(name, data)
    model: Any = problem.model
    if model.ard and not use_prior:
        pytest.skip("the likelihood alone says nothing of precisions, and is maximised in closed form")
    values = {k: v[0] for k, v in spread_points(problem, 1, seed=3, sd=0.3).items()}
    prior = problem.arguments["prior"]
    target = Target(
        moments_of(problem.arguments), model.structure, model.anchors, model._fixed_scale, prior, use_prior
    )
    coordinates = Coordinates(values, model.structure, prior)
    free = coordinates.pack(values)

    def value(vector: np.ndarray) -> float:
        return target(_whole(coordinates.unpack(vector), model))[0]

    whole = _whole(coordinates.unpack(free), model)
    slope = coordinates.slope(free, whole, target(whole)[1])
    step = 1e-5
    expected = [(value(free + step * e) - value(free - step * e)) / (2 * step) for e in np.eye(len(free))]
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-5)


def _whole(values: dict[str, np.ndarray], model: Any) -> dict[str, np.ndarray]:
    from ppl_lvm.models.factor_analysis._sites import assemble

    return {**values, "loadings": assemble(values, model.structure, model.anchors)}


def test_prior_gradient_returns_the_prior() -> None:
    problem = problem_of("fa-ard", "full")
    values = spread_points(problem, 1)
    exact: Any = problem.model.exact
    total, _ = gradient({k: v[0] for k, v in values.items()}, problem.arguments["prior"], exact.structure)
    np.testing.assert_allclose(total, exact.log_prior(values, problem.arguments)[0], rtol=1e-12)


def test_ppca_is_tipping_and_bishops() -> None:
    x = factor_data(80, 6, 2, seed=12)
    fit = lvm.fit(PPCA(2), x, EM())
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:4].mean()
    np.testing.assert_allclose(fit.params["scale"] ** 2, noise, rtol=1e-10)
    product = vectors[:, 4:] @ np.diag(values[4:] - noise) @ vectors[:, 4:].T
    np.testing.assert_allclose(fit.params["loadings"] @ fit.params["loadings"].T, product, atol=1e-10)
    assert fit.num_parameters == 6 + 6 * 2 - 1 + 1


def test_missing_entries_reach_the_optimum_of_a_general_optimiser() -> None:
    """EM with missing entries ends where L-BFGS on the same likelihood does."""
    from ppl_lvm.models.factor_analysis._mode import climb

    x = with_gaps(factor_data(80, seed=13), 0.2)
    for model in (FactorAnalysis(2).resolve(x), PPCA(2).resolve(x)):
        arguments = model.arguments(model.bind(x))
        found = model.exact.em(arguments, tol=1e-11)
        moments = moments_of(arguments)
        floor = noise_floor(moments, None, model.structure)
        target = Target(moments, model.structure, model.anchors, None, arguments["prior"], False)
        start = starting_sites(model.exact, moments, arguments["prior"], None)
        other = climb(target, start, floor=floor, tol=1e-9, max_iter=500)
        np.testing.assert_allclose(found.log_likelihood, other.trace[-1], rtol=0, atol=1e-5)


def test_noise_of_zero_is_ordinary_pca() -> None:
    x = factor_data(50, 6, 2, seed=14)
    fit = lvm.fit(PPCA(2, scale=0.0), x, EM())
    centred = x - x.mean(0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    plane = x.mean(0) + (left[:, :2] * sizes[:2]) @ right[:2]
    mean, sd = fit.transform(x, return_std=True)
    np.testing.assert_allclose(fit.inverse_transform(mean), plane, atol=1e-10)
    np.testing.assert_array_equal(sd, 0.0)
    np.testing.assert_allclose(np.cov(mean.T, bias=True), np.eye(2), atol=1e-10)  # scores of unit variance
    assert np.isnan(fit.log_likelihood)  # type: ignore[arg-type]  # there is none
    small = lvm.fit(PPCA(2, scale=1e-4), x, EM())
    np.testing.assert_allclose(small.inverse_transform(small.transform(x)), plane, atol=1e-6)
    for engine in (SVI(num_steps=10), NUTS(num_warmup=5, num_samples=5)):
        with pytest.raises(ValueError, match="data without noise have no density"):
            lvm.fit(PPCA(2, scale=0.0), x, engine)
    with pytest.raises(ValueError, match="no density"):
        fit.score_samples(x)
    with pytest.raises(ValueError, match="no posterior"):
        lvm.fit(PPCA(2, scale=0.0), x, EM(estimate="map"))


def test_pca_of_data_with_gaps_fits_what_is_seen() -> None:
    x = factor_data(60, 5, 2, seed=15, noise=1e-6)
    fit = lvm.fit(PPCA(2, scale=0.0), with_gaps(x, 0.15), EM(tol=1e-14, max_iter=5000))
    filled = fit.impute(num_draws=1)["obs"].values[0, 0]
    rows = np.arange(60) != 3
    np.testing.assert_allclose(filled[rows], x[rows], atol=1e-2)  # a plane through nearly noise-free data


def test_a_heywood_case_is_reported() -> None:
    x = factor_data(30, 5, 1, seed=1)
    fit = lvm.fit(FactorAnalysis(2), x, EM(num_init=3))
    assert any("Heywood case: the noise of columns [2]" in m for m in fit.status.messages)
    assert fit.log_likelihood == pytest.approx(float(fit.score_samples(x).sum()), rel=1e-10)
    mode = lvm.fit(FactorAnalysis(2), x, EM(estimate="map"))
    assert not any("Heywood" in m for m in mode.status.messages)


def test_variance_floor_is_kept() -> None:
    fit = lvm.fit(FactorAnalysis(2), factor_data(30, 5, 1, seed=1), EM(variance_floor=0.04))
    np.testing.assert_allclose(fit.params["scale"].min(), 0.2, rtol=1e-9)


def test_restarts_find_the_higher_of_two_optima() -> None:
    x = factor_data(30, 5, 1, seed=3)
    one, many = (lvm.fit(FactorAnalysis(2), x, EM(num_init=k)) for k in (1, 10))
    assert many.log_likelihood > one.log_likelihood + 0.1  # type: ignore[operator]
    assert many.status.details["restarts"] == 10
    assert one.status.details["restarts"] == 1


def test_initial_values_lie_inside_and_near() -> None:
    for name, data in CASES:
        problem = problem_of(name, data)
        exact: Any = problem.model.exact
        starts = [exact.initial_values(problem.arguments, np.random.default_rng(i)) for i in range(2)]
        latent = {s.name: s for s in problem.latents(discrete=False)}
        assert set(starts[0]) == set(latent), name
        for site in latent:
            assert np.shape(starts[0][site]) == latent[site].shape
        assert np.isfinite(exact.log_prior(starts[0], problem.arguments))
        assert not np.array_equal(starts[0]["loc"], starts[1]["loc"])
    explicit = prepare(FactorAnalysis(2, collapsed=False), GAPS)
    assert explicit.model.exact is not None
    assert explicit.model.exact.initial_values(explicit.arguments, np.random.default_rng(0))["z"].shape == (
        15,
        2,
    )


def test_numbers_of_parameters() -> None:
    d = 5
    expected = {
        "fa": d + 2 * d - 1 + d, "fa-ard": d + 2 * d - 1 + d, "fa-mask": d + 6 + d,
        "fa-correlated": d + 6 + 1 + d,
        "ppca": d + 2 * d - 1 + 1, "ppca-ard": d + 3 * d - 3 + 1, "ppca-fixed": d + 2 * d - 1,
    }  # fmt: skip
    for name, count in expected.items():
        problem = problem_of(name, "full")
        exact: Any = problem.model.exact
        assert exact.num_parameters(problem.arguments) == count, name


def test_laplace_evidence_is_minkas() -> None:
    """Against scikit-learn's own version of the formula, which takes sample eigenvalues with divisor n."""
    from sklearn.decomposition._pca import _assess_dimension

    x = factor_data(100, 6, 2, seed=16)
    spectrum = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    ours = [laplace_evidence(x, q) for q in range(1, 6)]
    theirs = [_assess_dimension(spectrum, q, 100) for q in range(1, 6)]
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-9)
    assert int(np.argmax(ours)) + 1 == 2
    with pytest.raises(ValueError, match="complete data"):
        laplace_evidence(with_gaps(x), 2)
    with pytest.raises(ValueError, match="latent_dim"):
        laplace_evidence(x, 6)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"latent_dim": 0}, "latent_dim: expected a positive integer"),
        ({"latent_dim": 2.5}, "latent_dim: expected a positive integer"),
        ({"latent_dim": 2, "loc_scale": -1.0}, "loc_scale: expected positive numbers"),
        ({"latent_dim": 2, "scale_scale": (1.0, 2.0)}, "scale_scale: expected one number"),
        ({"latent_dim": 2, "correlated": True}, "correlated: needs a mask"),
        ({"latent_dim": 2, "mask": ((1, 1, 1),)}, r"mask: expected shape \(d, 2\)"),
        ({"latent_dim": 2, "mask": ((1, 0), (1, 0))}, "mask: no column may load on factor 1"),
        ({"latent_dim": 2, "mask": ((1, 5), (1, 0))}, "mask: expected True or False"),
        ({"latent_dim": 2, "mask": MASK, "ard": True}, "ard: with a mask"),
        ({"latent_dim": 2, "mask": MASK, "anchors": (0, 1)}, "anchors: loadings with ard or a mask"),
        ({"latent_dim": 2, "anchors": (1, 1)}, "anchors: expected 2 different columns"),
        ({"latent_dim": 2, "collapsed": "no"}, "collapsed: expected True or False"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        FactorAnalysis(**settings)


def test_bad_settings_of_ppca_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="scale: expected a number of at least 0"):
        PPCA(2, scale=-1.0)
    with pytest.raises(ValueError, match="loadings_scale: expected one number"):
        PPCA(2, loadings_scale=(1.0, 2.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="collapsed: without noise"):
        PPCA(2, scale=0.0, collapsed=False)


def _spoilt(column: int, value: float) -> np.ndarray:
    x = FULL.copy()
    x[:, column] = value
    return x


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (FactorAnalysis(5), FULL, "latent_dim: expected fewer factors than the 5 columns"),
        (PPCA(5), FULL, "latent_dim: expected fewer factors than the 5 columns"),
        (FactorAnalysis(2), _spoilt(1, np.nan), "all values of column 1 are missing"),
        (PPCA(2), _spoilt(1, np.nan), "all values of column 1 are missing"),
        (FactorAnalysis(2), _spoilt(2, 7.0), "column 2 is constant"),
        (PPCA(2), np.ones((6, 4)), "column 0 is constant"),
        (FactorAnalysis(2), _spoilt(2, np.inf), "infinite"),
        (FactorAnalysis(2), FULL[:1], "at least 2 rows"),
        (FactorAnalysis(2), FULL[:, 0], r"expected shape \(n, d\)"),
        (FactorAnalysis(2), np.zeros((0, 4)), "at least one row"),
        (FactorAnalysis(2), iter([]), "at least one row"),
        (FactorAnalysis(2), iter([FULL, FULL[:, :3]]), r"chunk 1: expected shape \(m, 5\)"),
        (FactorAnalysis(2), {"y": FULL}, "unknown"),
        (FactorAnalysis(2, mask=MASK[:4]), FULL, "mask: expected 5 rows"),
        (FactorAnalysis(2, loc_mean=(1.0, 2.0)), FULL, "loc_mean: expected one number or 5"),
        (FactorAnalysis(2, anchors=(0, 9)), FULL, "anchors: expected columns from 0 to 4"),
        (FactorAnalysis(2, keep_latents=True), SufficientStatistics.from_rows(FULL), "keep_latents"),
        (FactorAnalysis(2, collapsed=False), SufficientStatistics.from_rows(FULL), "collapsed: False"),
    ],
)  # fmt: skip
def test_bad_data_are_refused_in_words(model: Any, data: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        prepare(model, data)


def test_new_data_of_another_width_are_refused() -> None:
    fit = lvm.fit(PPCA(2), FULL, EM())
    with pytest.raises(ValueError, match="expected 5 columns as in the fit, got 4"):
        fit.transform(FULL[:, :4])


def test_ppca_bears_a_constant_column() -> None:
    x = _spoilt(2, 7.0)
    fit = lvm.fit(PPCA(2), x, EM())
    assert np.isfinite(fit.log_likelihood)  # type: ignore[arg-type]
    np.testing.assert_allclose(fit.params["loadings"][2], 0.0, atol=1e-12)


# ---- engines -------------------------------------------------------------------------------------


def test_settings_rebuild_the_model() -> None:
    for name, model in MODELS.items():
        resolved = model.resolve(FULL)
        saved = resolved.to_settings()
        assert type(model)(**saved["settings"]) == resolved, name
        assert resolved.resolve(10 * FULL) == resolved, name  # what is given is kept
        assert hash(resolved.cache_key) == hash(model.cache_key)
        assert resolved.cache_key == model.cache_key


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fa", "ppca"])
def test_collapsed_and_explicit_posteriors_agree(kind: str) -> None:
    """By NUTS, on the invariants: each within 4 combined standard errors, at an ESS of 2,000 or more."""
    make = {"fa": FactorAnalysis, "ppca": PPCA}[kind]
    rng = np.random.default_rng(17)  # every column has noise of its own: no funnel for the explicit z
    x = rng.standard_normal((100, 1)) * np.array([1.2, 1.0, 0.9, 0.8, 1.1]) + rng.standard_normal((100, 5))
    x = with_gaps(x, 0.1)
    found = []
    for collapsed, num in ((True, 3000), (False, 6000)):
        model = make(1, collapsed=collapsed)
        engine = NUTS(num_warmup=1500, num_samples=num, num_chains=4, target_accept=0.95, backend="numpyro")
        fit = lvm.fit(model, x, engine, seed=1)
        rows = [
            r
            for r in fit.summary().index
            if r.split("[")[0] in ("communality", "singular_values", "scale", "loc")
        ]
        found.append(fit.summary().loc[rows])
    one, other = found
    for table in found:
        assert table["ess_bulk"].min() >= 2000
        assert table["r_hat"].max() <= 1.01
    error = np.hypot(one["mcse_mean"], other["mcse_mean"])
    assert_within(one["mean"], other["mean"], error)
    assert_within(one["sd"], other["sd"], np.hypot(one["mcse_sd"], other["mcse_sd"]))
