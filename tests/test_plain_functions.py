"""Plain Pyro functions through every engine, against closed forms and quadrature: nothing is registered."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import (
    SCHOOL_EFFECTS,
    SCHOOL_ERRORS,
    SCHOOLS,
    assert_within,
    attempt,
    clusters,
    covering,
    log_mean_exp,
)
from scipy.optimize import minimize_scalar
from scipy.special import betaln, gammaln, logsumexp
from scipy.stats import halfcauchy, multivariate_normal, norm

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, Evidence, ImportanceSampling, Renyi, models
from ppl_lvm.result import Fit

QUICK = SVI(num_steps=5, num_draws=40)
BRIEF = NUTS(backend="pyro", num_warmup=15, num_samples=15, num_chains=1, max_tree_depth=4)

# ---- eight schools -------------------------------------------------------------------------------


def eight_schools(y: Any, sigma: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def non_centred(y: Any, sigma: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def non_centred_twin(y: Any, sigma: Any) -> None:
    mu = numpyro.sample("mu", ndist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", ndist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        eta = numpyro.sample("eta", ndist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("obs", ndist.Normal(theta, sigma), obs=y)


WITH_TWIN = lvm.Model(non_centred, numpyro=non_centred_twin)


@functools.cache
def schools_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """mu, tau and posterior weights on a grid, theta integrated out; and the log evidence."""
    mu = np.linspace(-25.0, 30.0, 441)
    log_tau = np.linspace(-12.0, 7.0, 761)
    tau = np.exp(log_tau)[None, :]
    log_p = norm.logpdf(mu, 0.0, 5.0)[:, None] + halfcauchy.logpdf(tau, 0.0, 5.0) + log_tau
    for y, s in zip(SCHOOL_EFFECTS, SCHOOL_ERRORS, strict=True):
        log_p = log_p + norm.logpdf(y, mu[:, None], np.hypot(tau, s))
    top = log_p.max()
    weight = np.exp(log_p - top)
    cell = (mu[1] - mu[0]) * (log_tau[1] - log_tau[0])
    return mu, tau[0], weight / weight.sum(), float(top + math.log(weight.sum() * cell))


def schools_mean(f: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
    mu, tau, weight, _ = schools_grid()
    return float((weight * f(mu[:, None], tau[None, :])).sum())


@functools.cache
def schools_nuts() -> Fit:
    return lvm.fit(
        WITH_TWIN, SCHOOLS, NUTS(num_warmup=500, num_samples=1500, num_chains=2, target_accept=0.9)
    )


def test_a_twin_by_hand_samples_the_posterior() -> None:
    from arviz_stats.base import array_stats

    fit = schools_nuts()
    assert fit.backend == "numpyro"
    for name, f in {"mu": lambda m, t: m + 0 * t, "tau": lambda m, t: np.log(t) + 0 * m}.items():
        x = fit.posterior[name].values
        x = np.log(x) if name == "tau" else x
        ess = {m: float(array_stats.ess(x, chain_axis=0, draw_axis=1, method=m)) for m in ("mean", "sd")}
        assert ess["mean"] > 200
        mean = schools_mean(f)
        sd = math.sqrt(schools_mean(lambda m, t, f=f, mean=mean: (f(m, t) - mean) ** 2))
        assert_within(x.mean(), mean, sd / math.sqrt(ess["mean"]))
        fourth = schools_mean(lambda m, t, f=f, mean=mean: (f(m, t) - mean) ** 4)
        assert_within(x.std(), sd, math.sqrt((fourth - sd**4) / ess["sd"]) / (2 * sd))


def test_deterministic_sites_are_in_the_posterior() -> None:
    for fit in (lvm.fit(non_centred, SCHOOLS, QUICK), lvm.fit(non_centred, SCHOOLS, BRIEF), schools_nuts()):
        posterior = fit.posterior
        assert {"mu", "tau", "eta", "theta"} <= set(posterior.data_vars), fit.backend
        assert posterior["theta"].dims == ("chain", "draw", "school")
        expected = posterior["mu"] + posterior["tau"] * posterior["eta"]
        np.testing.assert_allclose(posterior["theta"].values, expected.values, rtol=1e-12)


def centred_log_joint(mu: Any, tau: Any, theta: Any) -> np.ndarray:
    total = norm.logpdf(mu, 0.0, 5.0) + halfcauchy.logpdf(tau, 0.0, 5.0)
    total = total + norm.logpdf(theta, mu[..., None], tau[..., None]).sum(-1)
    return total + norm.logpdf(SCHOOL_EFFECTS, theta, SCHOOL_ERRORS).sum(-1)


@pytest.mark.parametrize("guide", ["mean_field", "full_rank", "low_rank", None])
def test_autoguides_on_the_centred_form(guide: str | None) -> None:
    fit = lvm.fit(eight_schools, SCHOOLS, SVI(guide=guide, num_steps=30, num_draws=100))
    draws = {k: v.values[0] for k, v in fit.posterior.data_vars.items()}
    assert draws["theta"].shape == (100, 8)
    assert fit.posterior["theta"].dims == ("chain", "draw", "school")
    np.testing.assert_allclose(fit.sample_stats["log_p"].values[0], centred_log_joint(**draws), rtol=1e-9)
    evidence = fit.evidence
    assert evidence is not None
    assert evidence.nats <= schools_grid()[3] + 4 * evidence.std_error
    log_w = (fit.sample_stats["log_p"] - fit.sample_stats["log_q"]).values[0]
    assert evidence.nats == pytest.approx(log_w.mean(), rel=1e-10)
    if guide is None:
        default = lvm.fit(eight_schools, SCHOOLS, SVI(guide="mean_field", num_steps=30, num_draws=100))
        assert default.posterior.equals(fit.posterior)


@pytest.mark.parametrize("model", [eight_schools, non_centred])
def test_nuts_on_pyro_gives_the_density_of_its_draws(model: Any) -> None:
    fit = lvm.fit(model, SCHOOLS, BRIEF)
    draws = {k: v.values[0] for k, v in fit.posterior.data_vars.items()}
    mu, tau = draws["mu"], draws["tau"]
    if model is eight_schools:
        expected = centred_log_joint(mu, tau, draws["theta"])
    else:
        theta = mu[:, None] + tau[:, None] * draws["eta"]
        expected = centred_log_joint(mu, tau, theta) + 8 * np.log(tau)
    np.testing.assert_allclose(fit.sample_stats["lp"].values[0], expected + np.log(tau), rtol=1e-9)


@functools.cache
def schools_guide() -> Fit:
    return lvm.fit(eight_schools, SCHOOLS, SVI(num_steps=300, num_draws=60))


def test_log_predictive_integrates_the_local_latents_out() -> None:
    """Of a school given the globals: Normal(mu, sqrt(tau^2 + sigma_j^2)), whatever its theta was."""
    fit = schools_guide()
    found = fit.log_predictive()
    mu, tau = (fit.posterior[k].values[0][:, None] for k in ("mu", "tau"))
    expected = log_mean_exp(norm.logpdf(SCHOOL_EFFECTS, mu, np.hypot(tau, SCHOOL_ERRORS)))
    assert found.kind == "estimate"
    assert (found.std_error < 0.1).all()
    assert_within(found.pointwise, expected, found.std_error)
    assert found.total == pytest.approx(found.pointwise.sum(), rel=1e-12)
    assert_within(found.total, expected.sum(), found.total_std_error)


def test_log_predictive_of_a_sampled_posterior() -> None:
    found = schools_nuts().log_predictive()
    expected = [
        math.log(schools_mean(lambda m, t, y=y, s=s: norm.pdf(y, m, np.hypot(t, s))))
        for y, s in zip(SCHOOL_EFFECTS, SCHOOL_ERRORS, strict=True)
    ]
    assert_within(found.pointwise, expected, found.std_error)
    assert_within(found.total, sum(expected), found.total_std_error)


@pytest.mark.parametrize("num", covering([1, 3, 8], [3]))  # 8: as many as in the fit
def test_log_predictive_of_new_schools(num: int) -> None:
    """Their thetas are not those of the fit, also where there happen to be as many."""
    fit = schools_guide()
    new = {"y": np.linspace(-20.0, 30.0, num), "sigma": np.full(num, 6.0)}
    found = fit.log_predictive(new)
    mu, tau = (fit.posterior[k].values[0][:, None] for k in ("mu", "tau"))
    expected = log_mean_exp(norm.logpdf(new["y"], mu, np.hypot(tau, 6.0)))
    assert found.pointwise.shape == (num,)
    assert_within(found.pointwise, expected, found.std_error)


def local_only(y: Any) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


@functools.cache
def local_fit() -> Fit:
    return lvm.fit(local_only, np.array([-1.0, 0.2, 0.9, 2.5]), SVI(num_steps=100, num_draws=40))


@pytest.mark.parametrize("num", covering([None, 1, 2, 4], [2]))  # 4: as many as in the fit
def test_log_predictive_of_a_model_whose_latents_are_all_local(num: int | None) -> None:
    """Nothing is shared between rows, so that every row has its marginal density, new ones too."""
    fit = local_fit()
    y = fit.problem.arguments["y"]
    rows = y if num is None else np.linspace(-2.0, 2.0, num)
    found = fit.log_predictive(None if num is None else rows)
    assert_within(found.pointwise, norm.logpdf(rows, 0.0, math.sqrt(2.0)), found.std_error)
    assert (found.std_error < 0.05).all()


def test_importance_sampling_of_eight_schools() -> None:
    fit = lvm.fit(WITH_TWIN, SCHOOLS, ImportanceSampling(num_samples=20_000))
    assert fit.backend == "numpyro"
    assert fit.evidence is not None
    assert fit.evidence.std_error < 0.05
    assert_within(fit.evidence.nats, schools_grid()[3], fit.evidence.std_error)


def test_replicated_schools_have_the_thetas_of_the_draws() -> None:
    fit = lvm.fit(eight_schools, SCHOOLS, SVI(num_steps=100, num_draws=400))
    drawn = fit.sample_predictive(num_draws=400)
    y = drawn["obs"].values[0]
    theta = fit.posterior["theta"].values[0]
    assert drawn["obs"].dims == ("chain", "draw", "school")
    assert_within(y.mean(0), theta.mean(0), SCHOOL_ERRORS / 20)
    check = fit.check(np.max, num_draws=400)
    assert check.observed == 28.0
    p = (check.replicated > 28.0).mean()
    assert check.p_value == pytest.approx(p)
    assert check.std_error == pytest.approx(math.sqrt(p * (1 - p) / 400), rel=0.01)


def test_sites_of_rows_that_are_not_the_fits_are_not_given() -> None:
    fit = lvm.fit(eight_schools, SCHOOLS, QUICK)
    np.testing.assert_array_equal(
        np.sort(fit.latents(num_draws=40)["theta"].values, axis=1),
        np.sort(fit.posterior["theta"].values, axis=1),
    )
    with pytest.raises(ValueError, match=r"latents.*'theta'.*rows of the fit"):
        fit.latents({"y": np.zeros(8), "sigma": np.ones(8)})


def test_prior_draws_have_the_prior_moments() -> None:
    tree = lvm.sample_prior(eight_schools, SCHOOLS, num_draws=600)
    assert {"prior", "prior_predictive"} <= set(tree.children)
    prior = tree["prior"]
    assert prior["theta"].dims == ("chain", "draw", "school")
    mu, tau = prior["mu"].values[0], prior["tau"].values[0]
    assert_within(mu.mean(), 0.0, 5 / math.sqrt(600))
    assert_within(mu.std(), 5.0, 5 / math.sqrt(1200))
    assert_within((tau < 5.0).mean(), 0.5, math.sqrt(0.25 / 600))  # 5 is the median of HalfCauchy(5)
    z = (prior["theta"].values[0] - mu[:, None]) / tau[:, None]
    assert_within((z**2).mean(), 1.0, math.sqrt(2 / z.size))
    e = (tree["prior_predictive"]["obs"].values[0] - prior["theta"].values[0]) / SCHOOL_ERRORS
    assert_within((e**2).mean(), 1.0, math.sqrt(2 / e.size))


# ---- guides of the user --------------------------------------------------------------------------


def regression(x: Any, y: Any) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    level = pyro.sample("level", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(level + slope * x, 0.5), obs=y)


def regression_twin(x: Any, y: Any) -> None:
    slope = numpyro.sample("slope", ndist.Normal(0.0, 1.0))
    level = numpyro.sample("level", ndist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", ndist.Normal(level + slope * x, 0.5), obs=y)


LINE = {"x": np.array([0.5, 1.0, 1.5, 2.0, 3.0, 3.5]), "y": np.array([1.1, 1.9, 2.2, 3.4, 4.1, 5.2])}
REGRESSION = lvm.Model(regression, numpyro=regression_twin)


def line_posterior(level: float | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of (slope, level), or of (slope,) given level; and the log evidence."""
    design = np.stack([LINE["x"], np.ones(6)], axis=1)
    prior = np.array([1.0, 2.0])
    y = LINE["y"]
    if level is not None:
        y, design, prior = y - level, design[:, :1], prior[:1]
    precision = design.T @ design / 0.25 + np.diag(1 / prior**2)
    covariance = np.linalg.inv(precision)
    marginal = design @ np.diag(prior**2) @ design.T + 0.25 * np.eye(6)
    return (
        covariance @ design.T @ y / 0.25,
        covariance,
        float(multivariate_normal.logpdf(y, np.zeros(6), marginal)),
    )


def exact_guide(x: Any, y: Any) -> None:
    """The posterior itself: slope, then level given slope."""
    mean, covariance, _ = line_posterior()
    at = pyro.param("at", torch.tensor(mean))
    slope = pyro.sample("slope", dist.Normal(at[0], covariance[0, 0] ** 0.5))
    gain = covariance[1, 0] / covariance[0, 0]
    left = (covariance[1, 1] - gain * covariance[1, 0]) ** 0.5
    pyro.sample("level", dist.Normal(at[1] + gain * (slope - at[0]), left))


@pytest.mark.parametrize("how", ["in the model", "in the engine"])
def test_a_guide_of_the_user_is_used(how: str) -> None:
    """Where it is the posterior, every weight is the evidence."""
    model = lvm.Model(regression, guide=exact_guide) if how == "in the model" else regression
    guide = None if how == "in the model" else exact_guide
    fit = lvm.fit(model, LINE, SVI(guide=guide, num_steps=1, num_draws=60, learning_rate=1e-12))
    log_w = (fit.sample_stats["log_p"] - fit.sample_stats["log_q"]).values
    np.testing.assert_allclose(log_w, line_posterior()[2], rtol=1e-9)


def test_a_guide_in_the_engine_survives_saving_or_is_missed_in_words(tmp_path: Any) -> None:
    """Files hold no code: a loaded fit may not stand in for its guide with another one."""
    fit = lvm.fit(regression, LINE, SVI(guide=exact_guide, num_steps=1, num_draws=60, learning_rate=1e-12))
    fit.save(tmp_path / "fit")
    loaded = lvm.load(tmp_path / "fit", model=regression)
    engine = ImportanceSampling(num_samples=60, proposal=loaded)
    again, refusal = attempt(lambda: lvm.fit(regression, LINE, engine))
    if refusal:
        assert "guide" in refusal
        return
    log_w = (again.sample_stats["log_p"] - again.sample_stats["log_q"]).values
    np.testing.assert_allclose(log_w, line_posterior()[2], rtol=1e-9)


def test_a_guide_in_the_model_survives_saving(tmp_path: Any) -> None:
    model = lvm.Model(regression, guide=exact_guide)
    lvm.fit(model, LINE, SVI(num_steps=1, num_draws=60, learning_rate=1e-12)).save(tmp_path / "fit")
    with pytest.raises(ValueError, match=r"(?s)regression.*lvm\.load\(path, model="):
        lvm.load(tmp_path / "fit")
    loaded = lvm.load(tmp_path / "fit", model=model)
    again = lvm.fit(model, LINE, ImportanceSampling(num_samples=60, proposal=loaded))
    log_w = (again.sample_stats["log_p"] - again.sample_stats["log_q"]).values
    np.testing.assert_allclose(log_w, line_posterior()[2], rtol=1e-9)


@pytest.mark.parametrize("family", ["mean_field", "full_rank", "low_rank"])
def test_a_familys_density_can_be_asked_for_again(family: str) -> None:
    """At values instead of while drawing, as the average over labellings needs it."""
    from ppl_lvm.backends import _pyro_guide
    from ppl_lvm.backends.session import torch_session
    from ppl_lvm.engines._pyro_importance import rebuild_guide

    fit = lvm.fit(supports, SUPPORTS, SVI(guide=family, num_steps=20, num_draws=30))
    assert fit.problem is not None
    with torch_session(0, "float64"), torch.no_grad():
        guide, params = rebuild_guide(fit.problem, fit)
        found = _pyro_guide.log_q_at(fit.problem, guide, params, draws_of(fit))
    np.testing.assert_allclose(found, fit.sample_stats["log_q"].values[0], rtol=1e-9)


def test_a_fit_is_not_loaded_as_another_function(tmp_path: Any) -> None:
    lvm.fit(regression, LINE, QUICK).save(tmp_path / "fit")
    with pytest.raises((ValueError, TypeError), match=r"eight_schools|sites|missing"):
        lvm.load(tmp_path / "fit", model=eight_schools)

    def another(x: Any, y: Any) -> None:
        curve = pyro.sample("curve", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(curve * x**2, 0.5), obs=y)

    with pytest.raises((ValueError, TypeError), match=r"another|curve|sites"):
        lvm.load(tmp_path / "fit", model=another)


def lacking(x: Any, y: Any) -> None:
    pyro.sample("slope", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))


def exceeding(x: Any, y: Any) -> None:
    lacking(x, y)
    pyro.sample("level", dist.Normal(0.0, 1.0))
    pyro.sample("curve", dist.Normal(0.0, 1.0))


def misshapen(x: Any, y: Any) -> None:
    lacking(x, y)
    pyro.sample("level", dist.Normal(torch.zeros(3), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("guide", "words"),
    [
        (lacking, r"lacks.*'level'"),
        (exceeding, r"'curve'.*model lacks"),
        (misshapen, r"'level'.*(shape|broadcast)"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
@pytest.mark.parametrize("objective", [lvm.ELBO(), Renyi()])
def test_a_guide_of_other_sites_is_refused(guide: Any, words: str, objective: Any) -> None:
    with pytest.raises(ValueError, match=rf"^guide: .*{words}"):
        lvm.fit(regression, LINE, SVI(guide=guide, objective=objective, num_steps=3, num_draws=30))


FAMILIES = ("mean_field", "full_rank", "low_rank")
PYRO_S = [("mean_field", "pyro"), ("low_rank", "pyro")]  # steps on Pyro take seconds


@pytest.mark.parametrize(
    ("family", "backend"), covering(itertools.product(FAMILIES, ("pyro", "numpyro")), PYRO_S)
)
def test_families_on_a_correlated_gaussian(family: str, backend: str) -> None:
    """Mean field is known to be wrong here: its variances are 1 / Lambda_ii, not Sigma_ii.

    A low-rank family of rank 1 plus a diagonal holds every covariance of two variables.
    """
    mean, covariance, evidence = line_posterior()
    sd = np.sqrt(np.diag(covariance))
    shrunk = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)))
    assert shrunk[0] < 0.6 * sd[0]  # far enough apart to tell
    size = 4000
    engine = SVI(
        backend=backend, guide=family, num_steps=2000, num_draws=size, learning_rate=0.1, early_stop=False
    )
    fit = lvm.fit(REGRESSION, LINE, engine, seed=1)
    draws = np.stack([fit.posterior[k].values[0] for k in ("slope", "level")])
    # The gap of the best mean-field bound is 1/2 (sum of log Lambda_ii - log det Lambda).
    precision = np.linalg.inv(covariance)
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    best = evidence - (gap if family == "mean_field" else 0.0)
    assert fit.evidence is not None
    error = fit.evidence.std_error
    short = best - fit.evidence.nats
    assert -4 * error < short < 0.05 + 4 * error  # a quarter of the engine's own tolerance
    # What the bound is short of bounds every error: half (r^2 - 1) - log r, about (log r)^2, for an sd that
    # is off by a factor r, and delta^2 / 2 for a mean that is off by delta sds.
    room = math.sqrt(max(short, 0.0) + 4 * error)
    wanted = shrunk if family == "mean_field" else sd
    assert_within(draws.mean(1) / wanted, mean / wanted, 1 / math.sqrt(size) + math.sqrt(2) * room / 4)
    assert_within(np.log(draws.std(1)), np.log(wanted), 1 / math.sqrt(2 * size) + room / 4)
    if family == "mean_field":
        assert_within(np.corrcoef(draws)[0, 1], 0.0, 1 / math.sqrt(size))
        assert (np.log(draws.std(1)) < np.log(sd) - 0.4).all()
    else:
        assert np.corrcoef(draws)[0, 1] < 0.9 * covariance[0, 1] / sd.prod()


def supports(flips: Any, counts: Any, kinds: Any) -> None:
    """An interval, a half-line and a simplex, each conjugate: the evidence is a product of three."""
    share = pyro.sample("share", dist.Beta(2.0, 3.0))
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    mix = pyro.sample("mix", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    with pyro.plate("data", len(flips)):
        pyro.sample("flips", dist.Bernoulli(share), obs=flips)
        pyro.sample("counts", dist.Poisson(rate), obs=counts)
        pyro.sample("kinds", dist.Categorical(mix), obs=kinds)


def supports_twin(flips: Any, counts: Any, kinds: Any) -> None:
    share = numpyro.sample("share", ndist.Beta(2.0, 3.0))
    rate = numpyro.sample("rate", ndist.Gamma(2.0, 1.0))
    mix = numpyro.sample("mix", ndist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    with numpyro.plate("data", len(flips)):
        numpyro.sample("flips", ndist.Bernoulli(share), obs=flips)
        numpyro.sample("counts", ndist.Poisson(rate), obs=counts)
        numpyro.sample("kinds", ndist.Categorical(mix), obs=kinds)


SUPPORTS = {
    "flips": np.array([1.0, 0.0, 1.0, 1.0, 0.0]),
    "counts": np.array([2.0, 1.0, 4.0, 0.0, 3.0]),
    "kinds": np.array([0, 2, 2, 1, 2]),
}


def supports_evidence() -> float:
    ones, n = SUPPORTS["flips"].sum(), 5
    flips = betaln(2 + ones, 3 + n - ones) - betaln(2, 3)
    total = SUPPORTS["counts"].sum()
    counts = gammaln(2 + total) - gammaln(2) - (2 + total) * math.log(1 + n)
    counts -= gammaln(SUPPORTS["counts"] + 1).sum()
    alpha, seen = np.array([1.0, 2.0, 3.0]), np.bincount(SUPPORTS["kinds"])
    kinds = gammaln(alpha.sum()) - gammaln(alpha.sum() + n) + (gammaln(alpha + seen) - gammaln(alpha)).sum()
    return float(flips + counts + kinds)


@pytest.mark.parametrize(
    ("family", "backend"),
    covering(
        itertools.product(["mean_field", "full_rank"], ["pyro", "numpyro"]),
        [("mean_field", "numpyro"), ("full_rank", "pyro")],
    ),
)
def test_jacobians_of_every_support_are_counted(family: str, backend: str) -> None:
    """Weights p / q of a guide average to the evidence only if both densities are in the same space."""
    model = lvm.Model(supports, numpyro=supports_twin)
    guide = lvm.fit(model, SUPPORTS, SVI(backend=backend, guide=family, num_steps=1500, num_draws=500))
    fit = lvm.fit(model, SUPPORTS, ImportanceSampling(num_samples=2000, proposal=guide))
    for evidence in (guide.evidence, fit.evidence):
        assert evidence is not None
        assert evidence.std_error < 0.05
    assert_within(fit.evidence.nats, supports_evidence(), fit.evidence.std_error)
    assert (
        supports_evidence() - 1.0 < guide.evidence.nats < supports_evidence() + 4 * guide.evidence.std_error
    )
    table = fit.summary()
    for label, mean in (("share", 5 / 10), ("rate", 12 / 6), ("mix[2]", 6 / 11)):
        assert_within(table.loc[label, "mean"], mean, table.loc[label, "mcse_mean"])


# ---- params --------------------------------------------------------------------------------------


def scaled(y: Any) -> None:
    """y_i ~ Normal(mu, sigma) with sigma a parameter: given sigma, everything is conjugate."""
    sigma = pyro.param("sigma", torch.tensor(3.0), constraint=dist.constraints.positive)
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, sigma), obs=y)


SCALED_Y = np.array([0.2, 1.4, -0.6, 2.2, 0.9, 1.6, 0.1, 1.0])


def scaled_evidence(sigma: float) -> float:
    n = len(SCALED_Y)
    return float(
        multivariate_normal.logpdf(SCALED_Y, np.zeros(n), 4.0 * np.ones((n, n)) + sigma**2 * np.eye(n))
    )


@functools.cache
def scaled_vi() -> Fit:
    return lvm.fit(scaled, SCALED_Y, SVI(num_steps=1500, num_draws=500, early_stop=False))


def test_params_are_learned_by_maximum_marginal_likelihood() -> None:
    """The guide's family holds the posterior, so the bound is the evidence at each sigma."""
    best = minimize_scalar(
        lambda s: -scaled_evidence(s), bounds=(0.2, 5.0), method="bounded", options={"xatol": 1e-9}
    )
    fit = scaled_vi()
    sigma = float(fit.params["sigma"])
    assert -best.fun - scaled_evidence(sigma) < 0.01  # nats: a twentieth of the engine's tolerance
    assert fit.evidence is not None
    assert fit.evidence.conditional_on == ("sigma",)
    assert_within(fit.evidence.nats, scaled_evidence(sigma), fit.evidence.std_error + 1e-3)
    assert "sigma" in str(fit.evidence)


@pytest.mark.parametrize(
    "engine", [BRIEF, ImportanceSampling(num_samples=100)], ids=lambda e: type(e).__name__
)
def test_params_without_values_are_refused(engine: Any) -> None:
    with pytest.raises(ValueError, match=rf"(?s){type(engine).__name__}.*'sigma'.*SVI.*init=.*condition"):
        lvm.fit(scaled, SCALED_Y, engine)


@pytest.mark.parametrize("how", ["init", "condition"])
def test_params_are_held_at_a_fits_values(how: str) -> None:
    vi = scaled_vi()
    sigma = float(vi.params["sigma"])
    model = scaled if how == "init" else lvm.condition(scaled, vi)
    init = vi if how == "init" else None
    chain = lvm.fit(model, SCALED_Y, BRIEF, init=init)
    mu = chain.posterior["mu"].values
    expected = norm.logpdf(mu, 0.0, 2.0) + norm.logpdf(SCALED_Y, mu[..., None], sigma).sum(-1)
    np.testing.assert_allclose(chain.sample_stats["lp"].values, expected, rtol=1e-9)
    assert float(chain.params["sigma"]) == sigma
    weighted = lvm.fit(model, SCALED_Y, ImportanceSampling(num_samples=4000), init=init)
    assert weighted.evidence is not None
    assert weighted.evidence.conditional_on == ("sigma",)
    assert_within(weighted.evidence.nats, scaled_evidence(sigma), weighted.evidence.std_error)
    assert_within(
        chain.log_predictive().pointwise, log_mean_exp(norm.logpdf(SCALED_Y, mu.reshape(-1, 1), sigma)), 0
    )


def test_svi_of_a_conditioned_model_does_not_move_the_params() -> None:
    vi = scaled_vi()
    fit = lvm.fit(lvm.condition(scaled, vi), SCALED_Y, SVI(num_steps=50, num_draws=30))
    sigma = float(vi.params["sigma"])
    mu = fit.posterior["mu"].values
    expected = norm.logpdf(mu, 0.0, 2.0) + norm.logpdf(SCALED_Y, mu[..., None], sigma).sum(-1)
    np.testing.assert_allclose(fit.sample_stats["log_p"].values, expected, rtol=1e-9)
    assert fit.evidence is not None
    assert fit.evidence.conditional_on == ("sigma",)


# ---- what programs may contain -------------------------------------------------------------------


def log_p_of(fit: Fit, expected: Any) -> None:
    np.testing.assert_allclose(fit.sample_stats["log_p"].values[0], expected, rtol=1e-9)


def draws_of(fit: Fit) -> dict[str, np.ndarray]:
    return {str(k): v.values[0] for k, v in fit.posterior.data_vars.items()}


def test_factors_count() -> None:
    def model(y: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("outside", -(mu**2))
        with pyro.plate("data", len(y)):
            pyro.factor("inside", -torch.cosh(y - mu))

    y = np.array([0.3, -1.0, 2.0])
    fit = lvm.fit(model, y, QUICK)
    mu = draws_of(fit)["mu"]
    inside = -np.cosh(y - mu[:, None])
    log_p_of(fit, norm.logpdf(mu) - mu**2 + inside.sum(-1))
    np.testing.assert_allclose(fit.log_predictive().pointwise, log_mean_exp(inside), rtol=1e-9)
    assert "outside" not in fit.sample_predictive(num_draws=5)


def test_several_plates() -> None:
    """Rows and columns crossed; the outermost plate that the observed sites share is the one over data."""

    def model(y: Any) -> None:
        n, m = y.shape
        with pyro.plate("column", m, dim=-1):
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("row", n, dim=-2):
            a = pyro.sample("a", dist.Normal(0.0, 2.0))
            with pyro.plate("column_again", m, dim=-1):
                pyro.sample("obs", dist.Normal(a + b, 1.0), obs=y)

    y = np.arange(12.0).reshape(4, 3) / 6 - 1
    fit = lvm.fit(model, y, QUICK, coords={"row": list("wxyz")})
    posterior = fit.posterior
    assert fit.problem is not None
    assert fit.problem.data_plate == "row"
    assert posterior["b"].dims == ("chain", "draw", "column")
    assert posterior["a"].dims[2] == "row"
    assert list(posterior.coords["row"].values) == list("wxyz")
    a, b = draws_of(fit)["a"].reshape(40, 4, 1), draws_of(fit)["b"].reshape(40, 1, 3)
    like = norm.logpdf(y, a + b).sum(-1)
    prior = norm.logpdf(b).sum((1, 2)) + norm.logpdf(a, 0.0, 2.0).sum((1, 2))
    log_p_of(fit, prior + like.sum(-1))


def test_chains_of_labels_are_summed_over_all_paths() -> None:
    """A hidden Markov model written with ``pyro.markov``: brute force over all 2^5 paths."""
    start, step = np.array([0.7, 0.3]), np.array([[0.9, 0.1], [0.2, 0.8]])
    y = np.array([-1.2, -0.8, 0.4, 1.1, 0.7])

    def model(y: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
        state = None
        for t in pyro.markov(range(len(y))):
            probs = torch.tensor(start) if t == 0 else torch.tensor(step)[state]
            state = pyro.sample(f"state_{t}", dist.Categorical(probs))
            pyro.sample(f"obs_{t}", dist.Normal(pyro.ops.indexing.Vindex(mu)[..., state], 1.0), obs=y[t])

    fit = lvm.fit(model, y, QUICK)
    mu = draws_of(fit)["mu"]
    paths = np.array(list(itertools.product(range(2), repeat=5)))
    prior = np.log(start)[paths[:, 0]] + np.log(step)[paths[:, :-1], paths[:, 1:]].sum(1)
    like = norm.logpdf(y, mu[:, paths]).sum(-1)
    log_p_of(fit, norm.logpdf(mu, [-1.0, 1.0]).sum(-1) + logsumexp(prior + like, axis=1))
    drawn = fit.latents(num_draws=40)
    assert {f"state_{t}" for t in range(5)} <= set(drawn.data_vars)


def test_masked_data_do_not_count() -> None:
    def model(y: Any, seen: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)), pyro.poutine.mask(mask=seen):
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)

    y, seen = np.array([0.3, 99.0, 2.0]), np.array([True, False, True])
    fit = lvm.fit(model, {"y": y, "seen": seen}, QUICK)
    mu = draws_of(fit)["mu"]
    log_p_of(fit, norm.logpdf(mu) + norm.logpdf(y[seen], mu[:, None]).sum(-1))


def test_a_model_without_a_plate_over_data() -> None:
    def model(y: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(mu, 1.0).expand([len(y)]).to_event(1), obs=y)

    y = np.array([0.3, -1.0, 2.0])
    fit = lvm.fit(model, y, QUICK)
    log_p_of(fit, norm.logpdf(draws_of(fit)["mu"]) + norm.logpdf(y, draws_of(fit)["mu"][:, None]).sum(-1))
    assert "log_likelihood" not in fit.to_arviz().children
    for ask in (fit.log_predictive, fit.score_samples):
        with pytest.raises(ValueError, match=r"no plate over data.*pyro\.plate"):
            ask()
    with pytest.raises(ValueError, match=r"no log likelihood per datum.*heldout|plate"):
        lvm.rank({"a": fit, "b": fit}, by="loo")


def test_integer_data() -> None:
    def model(counts: Any, trials: Any) -> None:
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        share = pyro.sample("share", dist.Beta(1.0, 2.0))
        with pyro.plate("data", len(counts)):
            pyro.sample("trials", dist.Poisson(rate * 5.0), obs=trials)
            pyro.sample("counts", dist.Binomial(trials, share), obs=counts)

    data = {"counts": np.array([1, 0, 3]), "trials": np.array([5, 4, 6])}
    fit = lvm.fit(model, data, QUICK)
    rate, share = draws_of(fit)["rate"], draws_of(fit)["share"]
    k, n = data["counts"], data["trials"]
    prior = np.log(rate) - rate + np.log(2 * (1 - share))
    poisson = n * np.log(5 * rate[:, None]) - 5 * rate[:, None] - gammaln(n + 1)
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    binomial = choose + k * np.log(share[:, None]) + (n - k) * np.log1p(-share[:, None])
    log_p_of(fit, prior + (poisson + binomial).sum(-1))
    assert fit.to_arviz()["observed_data"]["counts"].dtype.kind in "iuf"


def powers(y: Any, x: Any, degree: Any, link: Any = "identity") -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    mean = slope * x**degree
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mean.exp() if link == "log" else mean, 1.0), obs=y)


def powers_twin(y: Any, x: Any, degree: Any, link: Any = "identity") -> None:
    slope = numpyro.sample("slope", ndist.Normal(0.0, 1.0))
    mean = slope * x**degree
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", ndist.Normal(jnp.exp(mean) if link == "log" else mean, 1.0), obs=y)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_python_scalars_and_strings_are_settings_of_the_program(backend: str) -> None:
    """Also on the JAX side: another degree is another compiled program, not a stale one."""
    model = lvm.Model(powers, numpyro=powers_twin)
    x, y = np.array([0.5, 1.0, 1.5]), np.array([0.2, 1.0, 2.0])
    for degree, link in ((1, "identity"), (3, "identity"), (3, "log")):
        data = {"y": y, "x": x, "degree": degree, "link": link}
        fit = lvm.fit(model, data, ImportanceSampling(num_samples=40, backend=backend))
        slope = fit.groups["proposal"]["slope"].values[0]
        mean = slope[:, None] * x**degree
        expected = norm.logpdf(y, np.exp(mean) if link == "log" else mean).sum(-1)
        found = (fit.sample_stats["log_p"] - fit.sample_stats["log_q"]).values[0]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_arrays_of_no_dimension_stay_so() -> None:
    seen: dict[str, Any] = {}

    def model(y: Any, error: Any) -> None:
        seen["error"] = error
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        seen["mu"] = mu
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, error), obs=y)

    data = {"y": np.array([0.3, -1.0, 2.0]), "error": np.array(0.5)}
    fit = lvm.fit(model, data, QUICK)
    assert seen["error"].shape == ()
    assert fit.posterior["mu"].dims == ("chain", "draw")
    for engine in (BRIEF, QUICK):
        started = lvm.fit(model, data, engine, init={"mu": 0.7})
        assert started.posterior["mu"].dims == ("chain", "draw"), type(engine)
        assert seen["mu"].shape in ((), (40, 1))


def test_a_fit_keeps_its_own_copy_of_the_data() -> None:
    y = SCHOOL_EFFECTS.copy()
    fit = lvm.fit(eight_schools, {"y": y, "sigma": SCHOOL_ERRORS}, QUICK)
    before = fit.to_arviz(log_likelihood=False)["observed_data"]["obs"].values.copy()
    y[:] = 0.0
    np.testing.assert_array_equal(fit.to_arviz(log_likelihood=False)["observed_data"]["obs"].values, before)


def test_a_program_cannot_change_the_users_data() -> None:
    def centring(y: Any) -> None:
        y -= 100.0
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)

    y = SCALED_Y.copy()
    lvm.fit(centring, y, QUICK)
    np.testing.assert_array_equal(y, SCALED_Y)


def test_frames_bind_by_column_name() -> None:
    frame = pd.DataFrame(
        {"sigma": SCHOOL_ERRORS, "city": list("abcdefgh"), "y": SCHOOL_EFFECTS}, index=list("ABCDEFGH")
    )
    fit, plain = lvm.fit(eight_schools, frame, QUICK), lvm.fit(eight_schools, SCHOOLS, QUICK)
    np.testing.assert_array_equal(fit.posterior["theta"].values, plain.posterior["theta"].values)
    assert list(fit.posterior.coords["school"].values) == list("ABCDEFGH")
    with pytest.raises(ValueError, match=r"^data: missing \['sigma'\]"):
        lvm.fit(eight_schools, frame[["y", "city"]], QUICK)


BAD_ARGUMENTS: dict[str, tuple[Any, str]] = {
    "masked": (
        {**SCHOOLS, "y": np.ma.array(SCHOOL_EFFECTS, mask=np.arange(8) == 2)},
        r"^y: .*(masked|missing|NaN)",
    ),
    "missing values of pandas": (
        {**SCHOOLS, "y": pd.array([1.0, None, *range(6)], dtype="Float64")},
        r"^y: .*(missing|NaN|NA)",
    ),
    "a bare array for two": (SCHOOL_EFFECTS, r"^data: a bare array.*\['sigma', 'y'\].*mapping"),
    "missing": ({"y": SCHOOL_EFFECTS}, r"^data: missing \['sigma'\]"),
    "unknown": ({**SCHOOLS, "z": 1.0}, r"^data: .*unknown \['z'\]"),
    "nan": ({**SCHOOLS, "y": np.r_[SCHOOL_EFFECTS[:7], np.nan]}, r"^y: 1 of 8 values.*\(7,\)"),
    "infinite scalar": ({**SCHOOLS, "sigma": math.inf}, r"^sigma: expected a finite number"),
    "text": ({**SCHOOLS, "y": np.array(list("abcdefgh"))}, r"^y: expected numbers"),
    "empty": ({"y": np.zeros(0), "sigma": np.zeros(0)}, r"^y: expected at least one row"),
    "other lengths": ({"y": SCHOOL_EFFECTS, "sigma": np.ones(3)}, r"^model: eight_schools failed.*"),
    "nothing": (None, r"^data: missing \['sigma', 'y'\]"),
}


@pytest.mark.parametrize("fault", BAD_ARGUMENTS)
def test_bad_arguments_are_errors_in_words(fault: str) -> None:
    data, words = BAD_ARGUMENTS[fault]
    with pytest.raises((ValueError, TypeError), match=words):
        lvm.fit(eight_schools, data, QUICK)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (models.GaussianMixture, "class GaussianMixture.*call it"),
        ("eight_schools", "expected a Pyro function.*got str"),
        (lambda y, sigma: None, "no pyro.sample statement"),
        (lambda y, sigma: 1 / 0, "failed when run once.*division by zero"),
    ],
    ids=["class", "name", "empty", "failing"],
)
def test_something_else_as_model(model: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^model: .*{words}"):
        lvm.fit(model, SCHOOLS, QUICK)


# ---- starting values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "engine",
    [
        QUICK,
        BRIEF,
        SVI(backend="numpyro", num_steps=10, num_draws=30, window=10),
        NUTS(num_warmup=5, num_samples=5),
    ],
    ids=["SVI-pyro", "NUTS-pyro", "SVI-numpyro", "NUTS-numpyro"],
)
@pytest.mark.parametrize(
    ("init", "words"),
    [
        ({"slop": 0.0}, r"^init: unknown sites \['slop'\].*'level', 'slope'"),
        ({"slope": np.zeros(3)}, r"^init: site 'slope' has shape \(\)"),
        ({"slope": np.nan}, r"^init: site 'slope' has NaN"),
        (3.0, r"^init: expected values by site name or a Fit, got float"),
    ],
    ids=["unknown", "shape", "nan", "type"],
)
def test_bad_starting_values(engine: Any, init: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        lvm.fit(REGRESSION, LINE, engine, init=init)


def test_a_start_outside_the_support_is_an_error_in_words() -> None:
    for model, engine in (
        (eight_schools, BRIEF),
        (eight_schools, QUICK),
        (WITH_TWIN, NUTS(num_warmup=5, num_samples=5)),
    ):
        with pytest.raises(ValueError, match=r"init|start"):
            lvm.fit(model, SCHOOLS, engine, init={"mu": 0.0, "tau": -1.0})


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_values_by_site_and_fits_are_starts(backend: str) -> None:
    settings = {"num_warmup": 0, "num_samples": 1, "num_chains": 2, "max_tree_depth": 1}
    engine = NUTS(backend=backend, **settings)
    point = {"slope": np.array([1.2, 1.3]), "level": 0.4}
    fit = lvm.fit(
        REGRESSION,
        LINE,
        SVI(backend=backend, num_steps=1, num_draws=400, learning_rate=1e-9),
        init={"slope": 1.2, "level": 0.4},
    )
    # Families start with sds of 0.1 at the given values.
    assert_within(fit.posterior["slope"].mean(), 1.2, 0.1 / 20)
    assert_within(fit.posterior["level"].mean(), 0.4, 0.1 / 20)
    chain = lvm.fit(REGRESSION, LINE, engine, init=point)
    assert chain.posterior["slope"].shape == (2, 1)
    again = lvm.fit(REGRESSION, LINE, engine, init=fit)
    assert np.isfinite(again.posterior["slope"].values).all()


# ---- twins by hand -------------------------------------------------------------------------------


def labelled(x: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("data", len(x)):
        label = pyro.sample("label", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("obs", dist.Normal(pyro.ops.indexing.Vindex(mu)[..., label], 1.0), obs=x)


def labelled_twin(x: Any) -> None:
    """With the label as a discrete site of its own, to be enumerated on the JAX side too."""
    mu = numpyro.sample("mu", ndist.Normal(jnp.zeros(2), 3.0).to_event(1))
    with numpyro.plate("data", len(x)):
        label = numpyro.sample(
            "label", ndist.Categorical(jnp.array([0.3, 0.7])), infer={"enumerate": "parallel"}
        )
        numpyro.sample("obs", ndist.Normal(mu[label], 1.0), obs=x)


LABELLED_X = np.array([-2.0, -1.0, 0.5, 1.5, 2.5])


def labelled_log_joint(mu: np.ndarray) -> np.ndarray:
    terms = norm.logpdf(LABELLED_X[:, None], mu[..., None, :]) + np.log([0.3, 0.7])
    return norm.logpdf(mu, 0.0, 3.0).sum(-1) + np.logaddexp(terms[..., 0], terms[..., 1]).sum(-1)


@pytest.mark.parametrize(
    "engine",
    [
        NUTS(num_warmup=20, num_samples=20, num_chains=1),
        ImportanceSampling(num_samples=50),
        SVI(backend="numpyro", num_steps=20, num_draws=40, window=10),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.filterwarnings("ignore::FutureWarning:funsor", "ignore::DeprecationWarning:funsor")
def test_a_twin_with_a_discrete_site_is_summed_out(engine: Any) -> None:
    fit = lvm.fit(lvm.Model(labelled, numpyro=labelled_twin), LABELLED_X, engine)
    assert fit.backend == "numpyro"
    draws = fit.groups.get("proposal", fit.posterior)["mu"].values
    stats = fit.sample_stats
    density = stats["lp" if "lp" in stats else "log_p"].values
    np.testing.assert_allclose(density, labelled_log_joint(draws), rtol=1e-9)
    assert fit.latents(num_draws=10)["label"].shape == (1, 10, 5)


def without_level(x: Any, y: Any) -> None:
    slope = numpyro.sample("slope", ndist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", ndist.Normal(slope * x, 0.5), obs=y)


def with_two_levels(x: Any, y: Any) -> None:
    numpyro.sample("slope", ndist.Normal(0.0, 1.0))
    level = numpyro.sample("level", ndist.Normal(jnp.zeros(2), 2.0).to_event(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", ndist.Normal(level[0], 0.5), obs=y)


def with_a_positive_slope(x: Any, y: Any) -> None:
    slope = numpyro.sample("slope", ndist.HalfNormal(1.0))
    level = numpyro.sample("level", ndist.Normal(0.0, 2.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("obs", ndist.Normal(level + slope * x, 0.5), obs=y)


@pytest.mark.parametrize(
    ("twin", "words"),
    [
        (without_level, r"\['slope'\].*\['level', 'slope'\]"),
        (with_two_levels, r"'level' has shape \(2,\).*\(\)"),
        (with_a_positive_slope, r"'slope'.*support"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_twin_of_other_sites_is_refused(twin: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^numpyro: .*{words}"):
        lvm.fit(lvm.Model(regression, numpyro=twin), LINE, NUTS(num_warmup=5, num_samples=5, num_chains=1))


def test_settings_of_model() -> None:
    for field in ("guide", "numpyro"):
        with pytest.raises(TypeError, match=rf"Model\({field}=\.\.\.\): expected.*got int"):
            lvm.Model(regression, **{field: 3})
    with pytest.raises(ValueError, match=r"^data_plate: no plate 'rows'.*'data'"):
        lvm.fit(lvm.Model(regression, data_plate="rows"), LINE, QUICK)
    with pytest.raises(ValueError, match=r"^batched: unknown arguments \['z'\]"):
        lvm.fit(lvm.Model(regression, batched=("z",)), LINE, QUICK)
    with pytest.raises(ValueError, match=r"^dims: unknown sites \['z'\]"):
        lvm.fit(regression, LINE, QUICK, dims={"z": ("a",)})
    with pytest.raises(ValueError, match=r"^dims\['slope'\]: expected 0 names"):
        lvm.fit(regression, LINE, QUICK, dims={"slope": ("a",)})
    with pytest.raises(ValueError, match=r"^dtype: expected one of.*float16"):
        lvm.fit(regression, LINE, QUICK, dtype="float16")


def test_names_of_event_dimensions() -> None:
    fit = lvm.fit(labelled, LABELLED_X, QUICK)
    assert fit.posterior["mu"].dims == ("chain", "draw", "mu_dim_0")
    named = lvm.fit(labelled, LABELLED_X, QUICK, dims={"mu": ("side",)}, coords={"side": ["left", "right"]})
    assert named.posterior["mu"].dims == ("chain", "draw", "side")
    assert list(named.posterior.coords["side"].values) == ["left", "right"]
    assert "mu[left]" in named.summary().index


@pytest.mark.parametrize("labels", [list("abcdefgh"), list(range(10, 18))], ids=["text", "numbers"])
def test_names_and_labels_given_to_fit_survive_saving(labels: list[Any], tmp_path: Any) -> None:
    """In every group: ArviZ aligns groups by their labels."""
    dims, coords = {"theta": ("place",)}, {"school": labels, "place": labels}
    fit = lvm.fit(eight_schools, SCHOOLS, QUICK, dims=dims, coords=coords)
    fit.save(tmp_path / "fit")
    before, after = fit.to_arviz(), lvm.load(tmp_path / "fit", model=eight_schools).to_arviz()
    for group in ("posterior", "log_likelihood", "observed_data", "constant_data"):
        a, b = before[group].to_dataset(), after[group].to_dataset()
        assert {k: v.dims for k, v in b.data_vars.items()} == {k: v.dims for k, v in a.data_vars.items()}
        for name, values in a.coords.items():
            assert list(b.coords[name].values) == list(values.values), (group, name)
    assert list(before["log_likelihood"].coords["school"].values) == labels


# ---- sites held fixed ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_site_held_at_a_value(backend: str) -> None:
    """The posterior of the other given it, and the evidence given it; its own prior does not count."""
    mean, covariance, evidence = line_posterior(level=0.6)
    model = lvm.condition(REGRESSION, {"level": 0.6})
    fit = lvm.fit(model, LINE, ImportanceSampling(num_samples=6000, backend=backend))
    assert set(fit.posterior.data_vars) == {"slope"}
    assert fit.evidence is not None
    assert fit.evidence.conditional_on == ("level",)
    assert fit.evidence.std_error < 0.1
    assert_within(fit.evidence.nats, evidence, fit.evidence.std_error)
    table = fit.summary()
    assert_within(table.loc["slope", "mean"], mean[0], table.loc["slope", "mcse_mean"])
    assert_within(table.loc["slope", "sd"], math.sqrt(covariance[0, 0]), table.loc["slope", "mcse_sd"])
    if backend == "pyro":
        chain = lvm.fit(model, LINE, BRIEF)
        slope = chain.posterior["slope"].values
        expected = norm.logpdf(slope) + norm.logpdf(LINE["y"], 0.6 + slope[..., None] * LINE["x"], 0.5).sum(
            -1
        )
        np.testing.assert_allclose(chain.sample_stats["lp"].values, expected, rtol=1e-9)
        assert set(model.held_sites) == {"level"}
        assert "given level" in repr(chain)


def test_a_held_site_is_no_data() -> None:
    fit = lvm.fit(lvm.condition(regression, {"level": 0.6}), LINE, QUICK)
    assert set(fit.to_arviz()["observed_data"].data_vars) == {"obs"}
    assert set(fit.sample_predictive(num_draws=5).data_vars) == {"obs"}
    seen = []
    check = fit.check(lambda y: seen.append(np.shape(y)) or float(np.max(y)), num_draws=5)
    assert set(seen) == {(6,)}
    assert check.observed == 5.2
    replicated = fit.sample_predictive(num_draws=40)["obs"].values[0]
    slope = fit.posterior["slope"].values[0]
    expected = 0.6 + slope.mean() * LINE["x"]  # the level is held in what is replicated, too
    assert_within(replicated.mean(0), expected, 0.5 / math.sqrt(40))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"lvel": 0.0}, ValueError, r"'lvel'.*('level'|'slope')"),
        ({"level": np.zeros(3)}, ValueError, r"'level'.*shape"),
        ({"level": np.nan}, ValueError, r"'level'.*(finite|NaN)"),
        (3.0, TypeError, r"^given: expected a Fit or values by site name, got float"),
    ],
    ids=["unknown", "shape", "nan", "type"],
)
def test_bad_values_to_hold(given: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        lvm.fit(lvm.condition(regression, given), LINE, QUICK)


def test_a_value_to_hold_outside_its_support() -> None:
    with pytest.raises(ValueError, match="tau"):
        lvm.fit(lvm.condition(eight_schools, {"tau": -1.0}), SCHOOLS, QUICK)


# ---- rank ----------------------------------------------------------------------------------------


def with_evidence(**found: Evidence) -> dict[str, Fit]:
    """One fit under several names, with evidence as given: only the rules are tried."""
    fit = lvm.fit(regression, LINE, QUICK)
    return {name: dataclasses.replace(fit, evidence=value) for name, value in found.items()}


def ranks(**found: Evidence) -> dict[str, int | None]:
    table = lvm.rank(with_evidence(**found), by="evidence")
    return {str(name): None if pd.isna(rank) else int(rank) for name, rank in table["rank"].items()}


def test_evidence_is_ranked_where_the_kinds_settle_it() -> None:
    exact = functools.partial(Evidence, "exact", std_error=0.0)
    lower = functools.partial(Evidence, "lower_bound", std_error=0.1)
    upper = functools.partial(Evidence, "upper_bound", std_error=0.1)
    estimate = functools.partial(Evidence, "estimate", std_error=1.0)
    assert ranks(a=exact(-90.0), b=exact(-80.0)) == {"a": 1, "b": 0}
    assert ranks(a=lower(-90.0), b=exact(-80.0)) == {"a": None, "b": None}  # the truth may be above -80
    assert ranks(a=lower(-70.0), b=exact(-80.0)) == {"a": 0, "b": 1}
    assert ranks(a=lower(-70.0), b=lower(-90.0)) == {"a": None, "b": None}
    assert ranks(a=upper(-90.0), b=exact(-80.0)) == {"a": 1, "b": 0}
    assert ranks(a=upper(-70.0), b=exact(-80.0)) == {"a": None, "b": None}
    assert ranks(a=lower(-70.0), b=upper(-75.0)) == {"a": 0, "b": 1}
    assert ranks(a=estimate(-80.0), b=estimate(-81.0)) == {"a": None, "b": None}
    assert ranks(a=estimate(-80.0), b=estimate(-90.0)) == {"a": 0, "b": 1}
    assert ranks(a=exact(-80.0), b=exact(-90.0), c=lower(-95.0)) == {"a": None, "b": None, "c": None}


def test_evidence_with_an_error_that_nobody_knows_settles_nothing() -> None:
    a, b = Evidence("estimate", -80.0, math.nan), Evidence("estimate", -90.0, math.nan)
    assert ranks(a=a, b=b) == {"a": None, "b": None}


def test_conditional_and_unconditional_evidence_is_not_mixed() -> None:
    a, b = Evidence("exact", -90.0, 0.0), Evidence("exact", -80.0, 0.0, ("decoder",))
    with pytest.raises(ValueError, match=r"\['b'\].*conditional on params"):
        lvm.rank(with_evidence(a=a, b=b), by="evidence")
    fits = with_evidence(a=a, b=b)
    with pytest.raises(ValueError, match=r"\['b'\] have no evidence"):
        lvm.rank({"a": fits["a"], "b": dataclasses.replace(fits["b"], evidence=None)}, by="evidence")


def normal_mean(width: float) -> lvm.Model:
    """mu ~ Normal(0, 2), y_i ~ Normal(mu, width), with its posterior as guide."""

    def model(y: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, width), obs=y)

    def guide(y: Any) -> None:
        precision = len(y) / width**2 + 0.25
        loc = pyro.param("loc", y.sum() / width**2 / precision)
        pyro.sample("mu", dist.Normal(loc, precision**-0.5))

    return lvm.Model(model, guide=guide)


def predictive(y: np.ndarray | float, given: np.ndarray, width: float) -> np.ndarray:
    """log p(y | given) in that model."""
    precision = len(given) / width**2 + 0.25
    return norm.logpdf(y, given.sum() / width**2 / precision, math.sqrt(width**2 + 1 / precision))


AT_ONCE = SVI(num_steps=1, learning_rate=1e-12, num_draws=1000)
WIDTHS = {"one": 1.0, "three": 3.0}


@functools.cache
def widths() -> dict[str, Fit]:
    return {name: lvm.fit(normal_mean(width), SCALED_Y, AT_ONCE) for name, width in WIDTHS.items()}


def test_rank_by_loo_is_leave_one_out() -> None:
    """The posterior's own draws: expected by leaving each datum out, in closed form."""
    table = lvm.rank(widths(), by="loo")
    assert list(table.index) == ["one", "three"]
    for name, width in WIDTHS.items():
        rest = [np.delete(SCALED_Y, i) for i in range(len(SCALED_Y))]
        expected = [float(predictive(SCALED_Y[i], rest[i], width)) for i in range(len(SCALED_Y))]
        mu = widths()[name].posterior["mu"].values[0][:, None]
        ratio = 1 / norm.pdf(SCALED_Y, mu, width)
        error = (ratio.std(0) / ratio.mean(0)) / math.sqrt(len(mu))
        assert_within(table.loc[name, "elpd"], sum(expected), float(error.sum()))


def test_rank_by_evidence_of_perfect_guides() -> None:
    """Their bounds are the evidence itself, but the engine cannot know: bounds settle nothing."""
    table = lvm.rank(widths(), by="evidence")
    n = len(SCALED_Y)
    for name, width in WIDTHS.items():
        exact = multivariate_normal.logpdf(SCALED_Y, np.zeros(n), 4.0 + width**2 * np.eye(n))
        assert table.loc[name, "log_evidence"] == pytest.approx(exact, rel=1e-9)
    assert table["rank"].isna().all()


def test_rank_by_heldout_is_the_predictive_density() -> None:
    new = np.array([0.3, 1.8, -1.0])
    table = lvm.rank(widths(), by="heldout", data=new)
    assert list(table["rank"]) == [0, 1]
    assert table["elpd_diff"].iloc[0] == 0.0
    for name, width in WIDTHS.items():
        expected = predictive(new, SCALED_Y, width)
        assert_within(table.loc[name, "elpd"], expected.sum(), table.loc[name, "mc_error"])
    a, b = (widths()[name].log_predictive(new).pointwise for name in table.index)
    assert table["elpd_diff"].iloc[1] == pytest.approx((b - a).sum(), rel=1e-12)
    assert table["dse"].iloc[1] == pytest.approx(math.sqrt(3) * (b - a).std(ddof=1), rel=1e-12)


def test_rank_by_bic() -> None:
    x = clusters(40, 1, gap=6.0)
    fits = {f"k{k}": lvm.fit(models.GaussianMixture(k, covariance="diag"), x, EM(num_init=2)) for k in (1, 2)}
    table = lvm.rank(fits, by="bic")
    assert list(table.index) == ["k2", "k1"]
    for name, p in (("k1", 2), ("k2", 5)):
        assert table.loc[name, "bic"] == pytest.approx(
            p * math.log(40) - 2 * fits[name].log_likelihood, rel=1e-12
        )
    assert table.loc["k2", "bic_diff"] == 0.0
    k1 = norm.logpdf(x, x.mean(), x.std()).sum()
    assert fits["k1"].log_likelihood == pytest.approx(k1, abs=1e-3)  # up to the variance floor
    with pytest.raises(ValueError, match=r"points.*LOO.*bic"):
        lvm.rank(fits, by="loo")


def test_rank_of_uneven_weights_is_a_number_or_refused() -> None:
    """Resampled duplicates have no tail to fit: LOO of them may not come out as NaN with a good k-hat."""
    x = clusters(24, 2)
    fits = {
        f"k{k}": lvm.fit(models.GaussianMixture(k, covariance="diag"), x, ImportanceSampling(num_samples=300))
        for k in (1, 2)
    }
    assert min(f.status.details["ess"] for f in fits.values()) < 20
    table, refusal = attempt(lambda: lvm.rank(fits, by="loo"))
    if refusal:
        assert re.search("k1|k2", refusal)
        assert re.search("(?i)weights|importance|effective", refusal)
    else:
        assert np.isfinite(table["elpd"].to_numpy(dtype=float)).all()


def test_errors_of_rank() -> None:
    fits = widths()
    with pytest.raises(ValueError, match=r"^fits: expected a mapping of at least two"):
        lvm.rank({"one": fits["one"]})
    with pytest.raises(TypeError, match=r"^fits\['b'\]: expected a Fit, got int"):
        lvm.rank({"one": fits["one"], "b": 3})
    with pytest.raises(ValueError, match=r"^data: pass held-out data with by='heldout'"):
        lvm.rank(fits, by="heldout")
    with pytest.raises(ValueError, match=r"^data: pass held-out data with by='heldout'"):
        lvm.rank(fits, by="loo", data=SCALED_Y)
    with pytest.raises(ValueError, match=r"bic is of a maximum-likelihood point"):
        lvm.rank(fits, by="bic")


@pytest.mark.parametrize("change", ["rows", "values"])
def test_rank_refuses_other_data(change: str) -> None:
    other = lvm.fit(normal_mean(1.0), SCALED_Y[:-1] if change == "rows" else SCALED_Y + 1.0, AT_ONCE)
    with pytest.raises(ValueError, match=r"^fits: .*different data"):
        lvm.rank({"one": widths()["one"], "other": other}, by="loo")


# ---- compare -------------------------------------------------------------------------------------


@functools.cache
def line_chains() -> Fit:
    return lvm.fit(REGRESSION, LINE, NUTS(num_warmup=300, num_samples=1000, num_chains=2))


def changed(fit: Fit, **change: Callable[[Any], Any]) -> Fit:
    draws = fit.posterior.copy()
    for name, f in change.items():
        draws[name] = (draws[name].dims, f(draws[name].values))
    return dataclasses.replace(fit, draws=draws.assign_attrs(fit.posterior.attrs))


def test_an_equal_fit_is_trusted_and_wrong_ones_are_caught() -> None:
    reference = line_chains()
    again = lvm.fit(REGRESSION, LINE, reference.engine, seed=1)
    sd = float(reference.posterior["slope"].std())
    mean = float(reference.posterior["slope"].mean())
    fits = {
        "nuts": reference,
        "again": again,
        "shifted": changed(again, slope=lambda v: v + sd),
        "narrow": changed(again, slope=lambda v: mean + 0.5 * (v - mean)),
        "wide": changed(again, level=lambda v: v.mean() + 1.8 * (v - v.mean())),
    }
    both = changed(again, slope=lambda v: mean + 2 * sd + 0.5 * (v - mean))
    found = lvm.compare({"nuts": reference, "both": both}, reference="nuts").table.loc[("both", "slope")]
    assert_within(found["bias"], 2.0, found["bias_error"])  # in sds of the reference, not of the fit
    assert found["w1"] > 1.5
    result = lvm.compare(fits, reference="nuts")
    assert {n: v.level for n, v in result.verdicts.items() if n != "nuts"} == {
        "again": "means_and_spreads",
        "shifted": "do_not_trust",
        "narrow": "means_only",
        "wide": "means_only",
    }
    table = result.table
    assert result.verdicts["shifted"].quantity == "slope"
    row = table.loc[("shifted", "slope")]
    assert_within(row["bias"], 1.0, row["bias_error"])
    assert result.verdicts["shifted"].value == pytest.approx(row["bias"])
    assert result.verdicts["narrow"].quantity == "slope"
    assert_within(
        table.loc[("narrow", "slope"), "sd_ratio"], 0.5, table.loc[("narrow", "slope"), "sd_ratio_error"]
    )
    assert result.verdicts["wide"].quantity == "level"
    assert row["w1"] == pytest.approx(1.0, abs=4 * row["bias_error"] + row["w1_noise"])
    truth, covariance, _ = line_posterior()
    for name, value, variance in zip(("slope", "level"), truth, np.diag(covariance), strict=True):
        found = table.loc[("nuts", name)]
        assert_within(found["mean"], value, found["mcse_mean"])
        assert_within(found["sd"], math.sqrt(variance), found["mcse_sd"])
        assert found["r_hat"] < 1.02


def test_too_few_draws_are_inconclusive() -> None:
    few = lvm.fit(REGRESSION, LINE, SVI(guide="full_rank", num_steps=1500, num_draws=12), seed=2)
    short = lvm.fit(REGRESSION, LINE, NUTS(num_warmup=300, num_samples=10, num_chains=2), seed=2)
    fits = {"nuts": line_chains(), "short": short, "few": few}
    verdicts = lvm.compare(fits, reference="nuts").verdicts
    assert verdicts["few"].level == "inconclusive"
    assert verdicts["short"].level == "do_not_trust"  # its chains lie half an sd apart: R-hat 1.29
    assert all(v.sentence for v in verdicts.values())


def test_chains_in_another_order_give_the_same_table() -> None:
    reference = line_chains()
    other = lvm.fit(REGRESSION, LINE, reference.engine, seed=1)
    permuted = dataclasses.replace(
        other,
        draws=other.posterior.isel(chain=[1, 0]).assign_coords(chain=[0, 1]),
        sample_stats=other.sample_stats.isel(chain=[1, 0]).assign_coords(chain=[0, 1]),
    )
    a = lvm.compare({"nuts": reference, "x": other}, reference="nuts").table
    b = lvm.compare({"nuts": reference, "x": permuted}, reference="nuts").table
    pd.testing.assert_frame_equal(a, b, rtol=1e-9)


@functools.cache
def mixture_fits() -> dict[str, Fit]:
    x = clusters(30, 1, gap=6.0)
    mixture = models.GaussianMixture(2, covariance="diag")
    engine = NUTS(num_warmup=150, num_samples=200, num_chains=2)
    return {"a": lvm.fit(mixture, x, engine), "b": lvm.fit(mixture, x, engine, seed=1)}


def test_another_labelling_gives_the_same_table() -> None:
    fits = mixture_fits()
    swapped = changed(
        fits["b"], **{name: lambda v: v[:, :, ::-1].copy() for name in ("weights", "loc", "scale")}
    )
    a = lvm.compare({"nuts": fits["a"], "x": fits["b"]}, reference="nuts").table
    b = lvm.compare({"nuts": fits["a"], "x": swapped}, reference="nuts").table
    pd.testing.assert_frame_equal(a, b, rtol=1e-9)
    assert abs(a.loc["x"]["bias"]).max() < 0.5


def test_errors_of_compare() -> None:
    fits = mixture_fits()
    x = clusters(30, 1, gap=6.0)
    for bad in (None, [fits["a"]], {}):
        with pytest.raises(TypeError, match=r"^fits: expected a mapping"):
            lvm.compare(bad)
    with pytest.raises(TypeError, match=r"^fits\['c'\]: expected a Fit, got str"):
        lvm.compare({"a": fits["a"], "c": "fit"})
    with pytest.raises(ValueError, match=r"^reference: no fit 'truth'.*\['a', 'b'\]"):
        lvm.compare(fits, reference="truth")
    point = lvm.fit(models.GaussianMixture(2, covariance="diag"), x, EM(num_init=1))
    with pytest.raises(ValueError, match=r"^reference: 'em' is a point.*NUTS"):
        lvm.compare({**fits, "em": point}, reference="em")
    other = lvm.fit(models.GaussianMixture(2, covariance="diag"), x + 1.0, EM(num_init=1))
    with pytest.raises(ValueError, match=r"^fits: 'a' and 'c'.*different data"):
        lvm.compare({"a": fits["a"], "c": other})


@pytest.mark.parametrize(
    "settings",
    [{"num_components": 3}, {"covariance": "spherical"}, {"concentration": 5.0}, {"loc_scale": 1.0}],
    ids=lambda s: next(iter(s)),
)
def test_compare_refuses_other_models(settings: dict[str, Any]) -> None:
    """Also where only a number of the prior differs: that is another posterior."""
    x = clusters(30, 1, gap=6.0)
    model = models.GaussianMixture(**{"num_components": 2, "covariance": "diag", **settings})
    other = lvm.fit(model, x, EM(num_init=1))
    with pytest.raises(ValueError, match=r"^fits: 'a'.*'c'.*(one model|lvm\.rank)"):
        lvm.compare({"a": mixture_fits()["a"], "c": other})


def test_compare_refuses_another_function_of_the_same_name() -> None:
    def make(width: float) -> Callable[..., None]:
        def model(y: Any) -> None:
            mu = pyro.sample("mu", dist.Normal(0.0, width))
            with pyro.plate("data", len(y)):
                pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)

        return model

    fits = {name: lvm.fit(make(width), SCALED_Y, QUICK) for name, width in (("a", 1.0), ("b", 2.0))}
    with pytest.raises(ValueError, match=r"^fits: 'a'.*'b'.*(one model|lvm\.rank)"):
        lvm.compare(fits)
