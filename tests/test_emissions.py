"""What every emission has to keep: one density in three writings, priors, M-steps, draws, errors in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers import assert_within
from scipy import optimize, stats

from ppl_lvm import emissions
from ppl_lvm.emissions import (
    Bernoulli,
    Categorical,
    Emission,
    Gaussian,
    NegativeBinomial,
    Poisson,
    Product,
    StudentT,
    as_emission,
)
from ppl_lvm.emissions._base import jax_library, numpy_library

K = 2  # states in most tests
Params = dict[str, np.ndarray]
Oracle = Callable[[Params, int, np.ndarray, np.ndarray], np.ndarray]  # of rows (n, d), to (n,)


# ---- oracles: scipy.stats -------------------------------------------------------------------------


def _gaussian(covariance: str) -> Oracle:
    def density(p: Params, j: int, x: np.ndarray, seen: np.ndarray) -> np.ndarray:
        d = x.shape[1]
        scale = {"tied": p["scale"], "spherical": np.repeat(p["scale"], d).reshape(-1, d)}.get(
            covariance, p["scale"]
        )
        scale = scale if covariance == "tied" else scale[j]
        tril = (
            p["corr_tril"] if covariance == "tied" and d > 1 else p["corr_tril"][j] if "corr_tril" in p else 1
        )
        corr = np.eye(d) if np.ndim(tril) == 0 else tril @ tril.T
        cov = np.outer(scale, scale) * corr
        found = np.zeros(len(x))
        for kept in np.unique(seen, axis=0):  # rows that miss the same entries
            if kept.any():
                rows, own = (seen == kept).all(1), cov[np.ix_(kept, kept)]
                found[rows] = stats.multivariate_normal.logpdf(x[rows][:, kept], p["loc"][j][kept], own)
        return found

    return density


def _columns(each: Callable[[Params, int, np.ndarray], np.ndarray]) -> Oracle:
    return lambda p, j, x, seen: np.where(seen, each(p, j, x), 0.0).sum(1)


def _categorical(p: Params, j: int, x: np.ndarray) -> np.ndarray:
    one = np.eye(p["probs"].shape[-1])[x.astype(int)]
    columns = range(x.shape[1])
    return np.column_stack([stats.multinomial.logpmf(one[:, f], 1, p["probs"][j, f]) for f in columns])


def _negative_binomial(p: Params, j: int, x: np.ndarray) -> np.ndarray:
    r, mean = p["concentration"][j], p["rate"][j]
    return stats.nbinom.logpmf(x, r, r / (r + mean))


ORACLES: dict[str, Oracle] = {
    **{f"Gaussian-{c}": _gaussian(c) for c in ("full", "tied", "diag", "spherical")},
    "Bernoulli": _columns(lambda p, j, x: stats.bernoulli.logpmf(x, p["probs"][j])),
    "Poisson": _columns(lambda p, j, x: stats.poisson.logpmf(x, p["rate"][j])),
    "Categorical": _columns(_categorical),
    "NegativeBinomial": _columns(_negative_binomial),
    "StudentT": _columns(lambda p, j, x: stats.t.logpdf(x, p["df"][j], p["loc"][j], p["scale"][j])),
}


def _product(p: Params, j: int, x: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The product of PRODUCT: columns 2, 0 normal, 1 and 4 Poisson and negative binomial, 3 Bernoulli."""
    parts = {
        "Gaussian-full": ([2, 0], {"loc": p["loc"], "scale": p["scale"], "corr_tril": p["corr_tril"]}),
        "Poisson": ([1], {"rate": p["rate_1"]}),
        "NegativeBinomial": ([4], {"rate": p["rate_4"], "concentration": p["concentration"]}),
        "Bernoulli": ([3], {"probs": p["probs"]}),
    }
    each = [ORACLES[name](own, j, x[:, at], seen[:, at]) for name, (at, own) in parts.items()]
    return np.sum(each, axis=0)


PRODUCT = Product({(2, 0): Gaussian(), 1: Poisson(), 4: NegativeBinomial(), 3: Bernoulli()})


# ---- cases ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An emission, a maker of n rows that suit it, and its density by scipy.stats."""

    name: str
    emission: Emission
    rows: Callable[[np.random.Generator, int], np.ndarray]
    oracle: Oracle

    def __repr__(self) -> str:
        return self.name


def _correlated(rng: np.random.Generator, n: int) -> np.ndarray:
    return 4.0 + rng.standard_normal((n, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]]) * np.array([1.0, 3.0])


def _mixed(rng: np.random.Generator, n: int) -> np.ndarray:
    real = _correlated(rng, n)
    counts = rng.poisson(3.0, n), rng.negative_binomial(2, 0.3, n)
    return np.column_stack([real[:, 0], counts[0], real[:, 1], rng.random(n) < 0.4, counts[1]]).astype(float)


CASES = [
    *(
        Case(f"Gaussian-{c}", Gaussian(c), _correlated, ORACLES[f"Gaussian-{c}"])
        for c in ("full", "tied", "diag", "spherical")
    ),
    Case("Gaussian-full-1d", Gaussian(), lambda r, n: _correlated(r, n)[:, :1], ORACLES["Gaussian-full"]),
    Case(
        "Gaussian-tied-1d", Gaussian("tied"), lambda r, n: _correlated(r, n)[:, :1], ORACLES["Gaussian-tied"]
    ),
    Case("Bernoulli", Bernoulli(), lambda r, n: (r.random((n, 2)) < 0.3).astype(float), ORACLES["Bernoulli"]),
    Case("Poisson", Poisson(), lambda r, n: r.poisson(3.0, (n, 2)).astype(float), ORACLES["Poisson"]),
    Case(
        "Categorical",
        Categorical(3),
        lambda r, n: r.integers(0, 3, (n, 2)).astype(float),
        ORACLES["Categorical"],
    ),
    Case(
        "NegativeBinomial",
        NegativeBinomial(),
        lambda r, n: r.negative_binomial(2, 0.3, (n, 2)).astype(float),
        ORACLES["NegativeBinomial"],
    ),
    Case("StudentT", StudentT(), lambda r, n: 5.0 + r.standard_t(2, (n, 2)), ORACLES["StudentT"]),
    Case("Product", PRODUCT, _mixed, _product),
]
every = pytest.mark.parametrize("case", CASES, ids=repr)
missing_or_not = pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
estimates = pytest.mark.parametrize("estimate", ["ml", "map"])


def test_every_emission_has_a_case() -> None:
    public = set(emissions.__all__) - {"Emission", "as_emission"}
    assert len(public) >= 7
    assert {type(case.emission).__name__ for case in CASES} == public


@dataclass(frozen=True)
class Drawn:
    """Data of a case, missing entries filled; the resolved emission; its prior; parameters of K states."""

    x: np.ndarray
    seen: np.ndarray | None
    emission: Emission
    prior: Params
    params: Params


def draw(case: Case, missing: bool, *, n: int = 12, seed: int = 0, num_draws: int | None = None) -> Drawn:
    """The last row misses all entries, where some are missing."""
    rng = np.random.default_rng([seed, len(case.name)])
    x = case.rows(rng, n)
    d = x.shape[1]
    emission = case.emission.with_columns([str(f) for f in range(d)]).resolve(x, K)
    seen = None
    if missing:
        seen = (rng.random(x.shape) < 0.7).astype(float)
        seen[-1] = 0.0
        seen[0] = 1.0
        x = np.where(seen > 0, x, emission.fill)
    prior = emission.prior(K, d)
    lead = () if num_draws is None else (num_draws,)
    params = {name: _prior_draw(site, prior, rng, lead) for name, site in emission.sites(K, d).items()}
    return Drawn(x, seen, emission, prior, params)


def _prior_draw(site: Any, prior: Params, rng: np.random.Generator, lead: tuple[int, ...]) -> np.ndarray:
    given = [prior[name] for name in site.arguments]
    shape = (*lead, *site.shape)
    if site.family == "LKJCholesky":  # of 2 x 2 matrices: the correlation is 2 Beta(eta, eta) - 1
        corr = 2.0 * rng.beta(given[0], given[0], shape[:-2]) - 1.0
        tril = np.zeros(shape)
        tril[..., 0, 0], tril[..., 1, 0], tril[..., 1, 1] = 1.0, corr, np.sqrt(1.0 - corr**2)
        return tril
    if site.family == "Dirichlet":
        gammas = rng.gamma(np.broadcast_to(given[0], shape))
        return gammas / gammas.sum(-1, keepdims=True)
    return {
        "Normal": lambda m, s: rng.normal(m, s, shape),
        "LogNormal": lambda m, s: np.exp(rng.normal(m, s, shape)),
        "Gamma": lambda a, b: rng.gamma(a, 1.0 / b, shape),
        "Beta": lambda a, b: rng.beta(a, b, shape),
    }[site.family](*given)


def by_scipy(case: Case, params: Params, x: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    """(k, n)"""
    flags = np.ones(x.shape, bool) if seen is None else seen > 0
    return np.array([case.oracle(params, j, x, flags) for j in range(K)])


def agree(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-10, atol=1e-10)


# ---- densities -----------------------------------------------------------------------------------


@every
@missing_or_not
def test_numpy_agrees_with_scipy(case: Case, missing: bool) -> None:
    for seed in range(5):
        at = draw(case, missing, seed=seed)
        found = at.emission.log_prob(numpy_library(), at.params, at.x, at.seen)
        assert found.shape == (K, len(at.x))
        agree(found, by_scipy(case, at.params, at.x, at.seen))
        if missing:
            assert (found[:, -1] == 0.0).all()  # nothing was seen


@every
@missing_or_not
def test_pyro_rows_and_jax_agree_with_numpy(case: Case, missing: bool) -> None:
    import jax.numpy as jnp
    import pyro.distributions as dist
    import torch

    from ppl_lvm.backends.session import jax_session, torch_session

    at = draw(case, missing, seed=7)
    found = at.emission.log_prob(numpy_library(), at.params, at.x, at.seen)
    with jax_session("float64"):
        seen = None if at.seen is None else jnp.asarray(at.seen)
        params = {name: jnp.asarray(value) for name, value in at.params.items()}
        agree(at.emission.log_prob(jax_library(), params, jnp.asarray(at.x), seen), found)
    table = at.emission.sites(K, at.x.shape[1])
    with torch_session(0, "float64"):
        seen = None if at.seen is None else torch.from_numpy(at.seen)
        for j in range(K):
            own = {name: at.params[name][j] if site.per_state else at.params[name]
                   for name, site in table.items()}  # fmt: skip
            row = at.emission.row(dist, {k: torch.as_tensor(v) for k, v in own.items()}, seen)
            assert row.event_shape == (at.x.shape[1],)
            agree(row.log_prob(torch.from_numpy(at.x)), found[j])


@every
@missing_or_not
def test_draw_dimensions_lead(case: Case, missing: bool) -> None:
    at = draw(case, missing, num_draws=6)
    log_prob = at.emission.log_prob(numpy_library(), at.params, at.x, at.seen)
    d = at.x.shape[1]
    log_prior = at.emission.log_prior(at.params, at.prior, K, d)
    features, (mean, variance) = at.emission.features(at.params), at.emission.moments(at.params)
    assert log_prob.shape == (6, K, len(at.x))
    assert log_prior.shape == (6,)
    assert mean.shape == variance.shape == (6, K, d)
    assert features.shape[:2] == (6, K)
    assert np.isfinite(features).all()
    for s in range(6):
        one = {name: value[s] for name, value in at.params.items()}
        np.testing.assert_allclose(
            log_prob[s], at.emission.log_prob(numpy_library(), one, at.x, at.seen), rtol=1e-12, atol=1e-12
        )
        np.testing.assert_allclose(log_prior[s], at.emission.log_prior(one, at.prior, K, d), rtol=1e-12)
        np.testing.assert_array_equal(features[s], at.emission.features(one))
        np.testing.assert_array_equal(mean[s], at.emission.moments(one)[0])


def _scipy_prior(site: Any, prior: Params, value: np.ndarray) -> float:
    given = [np.asarray(prior[name]) for name in site.arguments]
    if site.family == "Dirichlet":
        rows = value.reshape(-1, value.shape[-1])
        return float(sum(stats.dirichlet.logpdf(row / row.sum(), given[0]) for row in rows))
    if site.family == "LKJCholesky":
        corr = value[..., 1, 0]
        return float((stats.beta.logpdf(0.5 * (corr + 1.0), given[0], given[0]) - np.log(2.0)).sum())
    terms = {
        "Normal": lambda m, s: stats.norm.logpdf(value, m, s),
        "LogNormal": lambda m, s: stats.lognorm.logpdf(value, s, scale=np.exp(m)),
        "Gamma": lambda a, b: stats.gamma.logpdf(value, a, scale=1.0 / b),
        "Beta": lambda a, b: stats.beta.logpdf(value, a, b),
    }[site.family](*given)
    return float(terms.sum())


@every
def test_prior_agrees_with_scipy_pyro_and_numpyro(case: Case) -> None:
    import numpyro.distributions as jax_dist
    import pyro.distributions as dist
    import torch

    from ppl_lvm.backends.session import jax_session, torch_session

    at = draw(case, False, seed=3)
    d = at.x.shape[1]
    table = at.emission.sites(K, d)
    assert set(table) == set(at.params)
    expected = {name: _scipy_prior(site, at.prior, at.params[name]) for name, site in table.items()}
    agree(at.emission.log_prior(at.params, at.prior, K, d), sum(expected.values()))
    for name, site in table.items():
        assert len(site.dims) == len(site.shape) == at.params[name].ndim
        with torch_session(0, "float64"):
            prior = {key: torch.as_tensor(value) for key, value in at.prior.items()}
            agree(site.build(dist, prior).log_prob(torch.as_tensor(at.params[name])), expected[name])
        with jax_session("float64"):
            agree(site.build(jax_dist, at.prior).log_prob(at.params[name]), expected[name])


@every
@missing_or_not
def test_gradients_are_finite_at_the_edges(case: Case, missing: bool) -> None:
    """At data 0, far data, and parameters that rounding may put close to the boundary of their supports."""
    import jax
    import jax.numpy as jnp

    from ppl_lvm.backends.session import jax_session

    at = draw(case, missing)

    @jax.jit
    @jax.value_and_grad
    def total(params: Any, x: Any, seen: Any) -> Any:
        return at.emission.log_prob(jax_library(), params, x, seen).sum()

    for factor in (1.0, 1e-30):
        params = dict(at.params)
        for name, site in at.emission.sites(K, at.x.shape[1]).items():
            if site.family in ("Beta", "Dirichlet") or name.startswith("rate"):
                params[name] = params[name] * factor
        with jax_session("float64"):
            seen = None if at.seen is None else jnp.asarray(at.seen)
            for x in (jnp.asarray(at.x), jnp.zeros_like(at.x)):
                value, slopes = total({k: jnp.asarray(v) for k, v in params.items()}, x, seen)
                assert np.isfinite(value)
                assert all(np.isfinite(slope).all() for slope in slopes.values())


# ---- M-steps -------------------------------------------------------------------------------------


def objective(case: Case, at: Drawn, weights: np.ndarray, params: Params, estimate: str) -> float:
    """The weighted log likelihood and, for the mode, the log prior; by scipy.stats alone."""
    total = float((weights * by_scipy(case, params, at.x, at.seen)).sum())
    if estimate == "map":
        table = at.emission.sites(K, at.x.shape[1])
        total += sum(_scipy_prior(site, at.prior, params[name]) for name, site in table.items())
    return total


def steps(
    at: Drawn, weights: np.ndarray, estimate: str, num: int, start: Params | None = None
) -> list[Params]:
    prior = at.prior if estimate == "map" else None
    found, current = [], start
    for _ in range(num):
        current = at.emission.m_step(at.x, at.seen, weights, prior, current)
        found.append(current)
    return found


def _free(site: Any, value: np.ndarray) -> np.ndarray:
    """Unconstrained coordinates of a site: nothing of the package's."""
    if site.family == "LKJCholesky":
        return np.arctanh(value[..., 1, 0]).ravel()
    if site.family == "Dirichlet":
        return (np.log(value[..., 1:]) - np.log(value[..., :1])).ravel()
    move = {"Normal": lambda v: v, "Beta": lambda v: np.log(v) - np.log1p(-v)}
    return move.get(site.family, np.log)(value).ravel()


def _back(site: Any, free: np.ndarray) -> np.ndarray:
    if site.family == "LKJCholesky":
        corr = np.tanh(free.reshape(site.shape[:-2]))
        tril = np.zeros(site.shape)
        tril[..., 0, 0], tril[..., 1, 0], tril[..., 1, 1] = 1.0, corr, np.sqrt(1.0 - corr**2)
        return tril
    if site.family == "Dirichlet":
        logs = free.reshape(*site.shape[:-1], -1)
        powers = np.exp(np.concatenate([np.zeros((*site.shape[:-1], 1)), logs], axis=-1))
        return powers / powers.sum(-1, keepdims=True)
    move = {"Normal": lambda v: v, "Beta": lambda v: 1.0 / (1.0 + np.exp(-v))}
    return move.get(site.family, np.exp)(free).reshape(site.shape)


@every
@missing_or_not
@estimates
def test_m_step_reaches_the_maximum(case: Case, missing: bool, estimate: str) -> None:
    """Repeated to convergence, it ends where a general optimiser, started beside it, gains nothing.

    The optimiser's own error is that of finite differences: 1e-5 nats is far above it.
    """
    at = draw(case, missing, n=30)
    weights = np.random.default_rng(1).dirichlet(np.ones(K), 30).T
    params = steps(at, weights, estimate, 300)[-1]
    reached = objective(case, at, weights, params, estimate)
    table = at.emission.sites(K, at.x.shape[1])
    sizes = {name: _free(site, params[name]).size for name, site in table.items()}
    ends = np.cumsum(list(sizes.values()))
    centre = np.concatenate([_free(site, params[name]) for name, site in table.items()])

    def loss(free: np.ndarray) -> float:
        parts = np.split(free, ends[:-1])
        values = {name: _back(site, part) for (name, site), part in zip(table.items(), parts, strict=True)}
        return -objective(case, at, weights, values, estimate)

    np.testing.assert_allclose(-loss(centre), reached, rtol=1e-9)
    away = centre + 0.02 * np.random.default_rng(2).standard_normal(len(centre))
    found = optimize.minimize(loss, away, method="BFGS", options={"maxiter": 60, "gtol": 1e-4})
    assert -found.fun <= reached + 1e-5
    assert -loss(away) <= reached + 1e-9


@every
@missing_or_not
@estimates
def test_m_step_never_lowers_the_objective(case: Case, missing: bool, estimate: str) -> None:
    for seed in range(3):
        at = draw(case, missing, seed=seed)
        weights = np.random.default_rng(seed).dirichlet(np.ones(K), len(at.x)).T
        start = at.params
        if estimate == "ml" and isinstance(case.emission, (Gaussian, StudentT, Product)):
            start = steps(at, weights, "map", 1, start)[0]  # a draw may lie below the floor of the variances
        path = [start, *steps(at, weights, estimate, 8, start)]
        values = np.array([objective(case, at, weights, params, estimate) for params in path])
        assert (np.diff(values) >= -1e-9 * np.abs(values[1:])).all()


@every
@missing_or_not
@estimates
def test_m_step_stays_inside_the_supports(case: Case, missing: bool, estimate: str) -> None:
    """A state without data, a state with one row, constant columns."""
    import pyro.distributions as dist
    import torch

    from ppl_lvm.backends.session import torch_session

    at = draw(case, missing)
    n, d = at.x.shape
    empty = np.stack([np.ones(n), np.zeros(n)])
    single = np.stack([np.arange(n) != 0, np.arange(n) == 0]).astype(float)
    constant = np.repeat(at.x[:1], n, axis=0)
    prior = at.prior if estimate == "map" else None
    for x, weights in ((at.x, empty), (at.x, single), (constant, single), (np.zeros_like(at.x), empty)):
        for current in (None, at.params):
            params = at.emission.m_step(x, at.seen, weights, prior, current)
            with torch_session(0, "float64"):
                hyper = {key: torch.as_tensor(value) for key, value in at.prior.items()}
                for name, site in at.emission.sites(K, d).items():
                    support = site.build(dist, hyper).support
                    assert params[name].shape == site.shape, name
                    assert bool(support.check(torch.as_tensor(params[name])).all()), (name, params[name])
            assert np.isfinite(at.emission.log_prob(numpy_library(), params, x, at.seen)).all()
            assert np.isfinite(at.emission.features(params)).all()


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_a_state_at_the_variance_floor_is_reported(covariance: str) -> None:
    x = _correlated(np.random.default_rng(0), 20)
    x[:10] = x[0]
    shares = np.repeat(np.arange(2), 10)
    weights = np.stack([shares == 0, shares == 1]).astype(float)
    emission = Gaussian(covariance).resolve(x, K)
    params = emission.m_step(x, None, weights, None, None)
    expected = [False, False] if covariance == "tied" else [True, False]
    assert emission.collapsed(params, x, None).tolist() == expected


# ---- draws ---------------------------------------------------------------------------------------


@every
def test_samples_have_the_moments(case: Case) -> None:
    at = draw(case, False, seed=2, num_draws=2)
    params = dict(at.params)
    if "df" in params:
        params["df"] = 10.0 + params["df"]  # so that the error of a variance is finite
    num, rng = 20_000, np.random.default_rng(4)
    mean, variance = at.emission.moments(params)
    for j in range(K):
        rows = at.emission.sample(params, np.full((2, num), j), rng)
        assert rows.shape == (2, num, at.x.shape[1])
        at.emission.check(rows.reshape(-1, rows.shape[-1]), [str(f) for f in range(rows.shape[-1])])
        assert_within(rows.mean(1), mean[:, j], rows.std(1) / np.sqrt(num))
        squares = (rows - mean[:, j, None]) ** 2
        assert_within(squares.mean(1), variance[:, j], squares.std(1) / np.sqrt(num))


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_gaussian_samples_have_the_covariance(covariance: str) -> None:
    case = next(c for c in CASES if c.name == f"Gaussian-{covariance}")
    at = draw(case, False, seed=5)
    num = 20_000
    rows = at.emission.sample(at.params, np.ones(num, dtype=int), np.random.default_rng(1))
    scale, tril = at.params["scale"], at.params["corr_tril"]
    if covariance == "full":
        scale, tril = scale[1], tril[1]
    product = np.prod(rows - at.params["loc"][1], axis=1)
    assert_within(product.mean(), scale[0] * scale[1] * tril[1, 0], product.std() / np.sqrt(num))


@every
def test_states_choose_their_own_parameters(case: Case) -> None:
    """Rows for states (0, 1, 1) are drawn from those states: far apart means show it."""
    at = draw(case, False, seed=6)
    rng = np.random.default_rng(0)
    states = np.tile([0, 1, 1], 4000)
    rows = at.emission.sample(at.params, states, rng)
    mean, variance = at.emission.moments(at.params)
    for j in range(K):
        own = rows[states == j]
        if np.isfinite(variance[j]).all():
            assert_within(own.mean(0), mean[j], own.std(0) / np.sqrt(len(own)))


# ---- settings and errors -------------------------------------------------------------------------


@every
def test_settings_survive_json(case: Case) -> None:
    x = case.rows(np.random.default_rng(0), 12)
    for emission in (case.emission, case.emission.resolve(x, K)):
        again = as_emission(json.loads(json.dumps(emission.to_settings())))
        assert again == emission
        assert hash(again) == hash(emission)
        assert again.structure == emission.structure


@every
def test_resolve_fills_everything_in_once(case: Case) -> None:
    rng = np.random.default_rng(0)
    x = case.rows(rng, 12)
    d = x.shape[1]
    once = case.emission.with_columns([str(f) for f in range(d)]).resolve(x, K)
    assert once.resolve(case.rows(rng, 12), K) == once
    prior = once.prior(K, d)
    assert all(name in prior for site in once.sites(K, d).values() for name in site.arguments)
    free = sum(
        int(np.prod(site.shape)) if site.family not in ("Dirichlet", "LKJCholesky")
        else int(np.prod(site.shape[:-1])) * (site.shape[-1] - 1) if site.family == "Dirichlet"
        else int(np.prod(site.shape[:-2]))
        for site in once.sites(K, d).values()
    )  # fmt: skip
    assert once.num_parameters(K, d) == free


def test_structure_leaves_hyperparameters_out() -> None:
    assert Poisson(rate_mean=1.0).structure == Poisson(rate_mean=(2.0, 3.0)).structure
    assert Gaussian("full").structure != Gaussian("diag").structure
    assert Categorical(2).structure != Categorical(3).structure
    one, other = Product({0: Poisson(), 1: Bernoulli()}), Product({1: Poisson(), 0: Bernoulli()})
    assert one.structure != other.structure


BAD_DATA: dict[str, tuple[Emission, list[list[float]], str]] = {
    "negative counts": (Poisson(), [[1, 2], [-1, 0]], r"column a has negative values"),
    "broken counts": (Poisson(), [[1, 2], [0, 1.5]], r"column b has values that are not whole numbers"),
    "negative binomial counts": (NegativeBinomial(), [[1, -3]], r"column b has negative values.*counts"),
    "not binary": (
        Bernoulli(),
        [[0, 1], [1, 2]],
        r"column b has the value 2, and Bernoulli takes .* 0 and 1",
    ),
    "half binary": (Bernoulli(), [[0.5, 1]], r"column a has the value 0.5"),
    "category out of range": (Categorical(3), [[0, 1], [3, 2]], r"column a has the value 3.* 0..2"),
    "negative category": (Categorical(), [[0, -1]], r"column b has the value -1"),
    "broken category": (Categorical(), [[0, 1.2]], r"column b has the value 1.2"),
    "product": (Product({"a": Poisson(), "b": Bernoulli()}), [[3, 3]], r"column b has the value 3"),
    "unknown column": (Product({"a": Poisson(), "c": Poisson()}), [[3, 3]], r"column 'c' is unknown"),
    "unknown index": (Product({0: Poisson(), 2: Poisson()}), [[3, 3]], r"column 2 is unknown"),
    "column left out": (Product({"a": Poisson()}), [[3, 3]], r"columns \['b'\] have no emission"),
    "column twice": (Product({"a": Poisson(), 0: Poisson()}), [[3, 3]], r"column a is in two groups"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_outside_the_support_are_errors_in_words(name: str) -> None:
    emission, rows, message = BAD_DATA[name]
    with pytest.raises(ValueError, match=message):
        emission.check(np.array(rows, dtype=float), ["a", "b"])


@every
def test_missing_entries_pass_the_check(case: Case) -> None:
    x = case.rows(np.random.default_rng(0), 12)
    x[::3, 0] = np.nan
    names = [str(f) for f in range(x.shape[1])]
    case.emission.check(x, names)
    assert case.emission.with_columns(names).resolve(x, K).prior(K, x.shape[1])


BAD_SETTINGS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "covariance": (lambda: Gaussian("round"), ValueError, "covariance: expected one of"),
    "loc_scale": (lambda: Gaussian(loc_scale=-1.0), ValueError, "loc_scale: expected positive numbers"),
    "scale_scale": (lambda: Gaussian(scale_scale=(1.0, 2.0)), ValueError, "scale_scale: expected one number"),
    "rate_shape": (lambda: Poisson(rate_shape=0.0), ValueError, "rate_shape: expected positive numbers"),
    "rate_shape none": (lambda: Poisson(rate_shape=None), ValueError, "rate_shape: expected positive"),
    "rate_mean text": (lambda: Poisson(rate_mean="many"), TypeError, "rate_mean: expected a number"),
    "probs_alpha": (lambda: Bernoulli(probs_alpha=np.inf), ValueError, "probs_alpha: expected positive"),
    "num_categories": (lambda: Categorical(1), ValueError, "num_categories: expected an integer"),
    "df_rate": (lambda: StudentT(df_rate=-1.0), ValueError, "df_rate: expected positive numbers"),
    "concentration_rate": (
        lambda: NegativeBinomial(concentration_rate=0.0), ValueError, "concentration_rate: expected positive"
    ),
    "no groups": (lambda: Product({}), ValueError, "expected at least one group"),
    "empty group": (lambda: Product({(): Poisson()}), ValueError, "at least one column in every group"),
    "key": (lambda: Product({1.5: Poisson()}), TypeError, "column names or indices"),
    "negative index": (lambda: Product({-1: Poisson()}), TypeError, "column names or indices"),
    "class": (lambda: Product({0: Poisson}), TypeError, "the class Poisson; call it"),
    "no emission": (lambda: Product({0: "poisson"}), TypeError, "expected one such as"),
    "nested": (lambda: Product({0: Product({0: Poisson()})}), TypeError, "a product inside a product"),
    "twice": (lambda: Product({("a", "b"): Poisson(), "a": Poisson()}), ValueError, "'a' is in two groups"),
    "one label": (lambda: Product({0: Poisson(), "0": Poisson()}), ValueError, "begin with a column '0'"),
    "numbers by column": (
        lambda: Poisson(rate_mean=(1.0, 2.0, 3.0)).prior(2, 2), ValueError, "expected one number or 2"
    ),
    "unresolved": (lambda: Poisson().prior(2, 2), ValueError, "rate_mean: has no value yet"),
    "unresolved categories": (lambda: Categorical().prior(2, 2), ValueError, "num_categories: has no value"),
    "constant column": (
        lambda: Gaussian().resolve(np.ones((4, 1)), 2), ValueError, "column 0 is constant.*loc_scale"
    ),
    "saved settings": (lambda: as_emission({"emission": "Gauss"}), ValueError, "saved settings of one of"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_errors_in_words(name: str) -> None:
    make, kind, message = BAD_SETTINGS[name]
    with pytest.raises(kind, match=message):
        make()


# ---- products ------------------------------------------------------------------------------------


def test_product_names_sites_by_group_only_where_they_collide() -> None:
    product = Product({("age", "height"): Gaussian("diag"), "visits": Poisson(), "deaths": Poisson()})
    found = product.with_columns(["visits", "age", "deaths", "height"])
    assert found.indices == ((1, 3), (0,), (2,))
    table = found.sites(3, 4)
    assert list(table) == ["loc", "scale", "rate_visits", "rate_deaths"]
    assert table["loc"].shape == (3, 2)
    assert table["rate_deaths"].dims == ("state", "feature_deaths")
    assert found.coords(["visits", "age", "deaths", "height"])["feature_age"] == ["age", "height"]
    assert list(product.sites(3, 4)) == list(table)  # names are known before the columns are found
    with pytest.raises(ValueError, match="expected 4 columns as in the fit, got 3"):
        found.with_columns(["a", "b", "c"])


def test_missing_coordinates_of_a_normal_are_integrated_out() -> None:
    """Against quadrature over the missing coordinate, in NumPy's way and in the compiled one."""
    case = CASES[0]
    at = draw(case, False, seed=1)
    x, seen = at.x[:1].copy(), np.array([[1.0, 0.0]])
    found = at.emission.log_prob(numpy_library(), at.params, np.where(seen > 0, x, 0.0), seen)
    for j in range(K):
        centre, width = at.params["loc"][j, 1], at.params["scale"][j, 1]
        grid = centre + width * np.linspace(-12, 12, 20_001)
        rows = np.column_stack([np.full(len(grid), x[0, 0]), grid])
        tril = at.params["scale"][j][:, None] * at.params["corr_tril"][j]
        density = stats.multivariate_normal.pdf(rows, at.params["loc"][j], tril @ tril.T)
        np.testing.assert_allclose(found[j, 0], np.log(np.trapezoid(density, grid)), rtol=1e-9)
