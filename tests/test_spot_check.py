"""Short dispersed chains: modes that a fit dropped are found, copies under symmetries are not other modes."""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from helpers import clusters
from panel import case_named
from scipy.stats import multivariate_normal

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, models
from ppl_lvm.dispersed._jax_chains import Runner
from ppl_lvm.dispersed._peaks import peaks
from ppl_lvm.dispersed._places import barriers, cloud, log_mass, places_of
from ppl_lvm.result import Fit

FAR = case_named("far modes, mean field")


@functools.cache
def dropped() -> Fit:
    return FAR.fit(0)


# ---- places and masses, on densities known in closed form -----------------------------------------


def mixture(points: np.ndarray) -> np.ndarray:
    """log of 0.8 N((-4, 0), I) + 0.2 N((4, 0), 0.25 I), times e^5."""
    a = np.log(0.8) + multivariate_normal([-4.0, 0.0], np.eye(2)).logpdf(points)
    b = np.log(0.2) + multivariate_normal([4.0, 0.0], 0.25 * np.eye(2)).logpdf(points)
    return np.logaddexp(a, b) + 5.0


def draws_of(mode: int, chains: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((chains, 120, 2))
    return np.array([-4.0, 0.0]) + x if mode == 0 else np.array([4.0, 0.0]) + 0.5 * x


def test_places_and_their_masses() -> None:
    free = np.concatenate([draws_of(0, 3, 0), draws_of(1, 2, 1)])
    level = mixture(free.reshape(-1, 2)).reshape(5, 120)
    found, _ = places_of(free, level, mixture)
    assert (found[:3] == 0).all()
    assert (found[3:] == 1).all()
    clouds = [cloud(free[:3], level[:3]), cloud(free[3:], level[3:])]
    for k, share in enumerate((0.8, 0.2)):
        value, error = log_mass(clouds[k], [clouds[1 - k]], mixture, lambda p: np.zeros(len(p)), seed=0)
        assert abs(value - (np.log(share) + 5.0)) < 4 * error
        assert error < 0.35


def test_a_chain_that_crosses_over_joins_nothing() -> None:
    free = np.concatenate([draws_of(0, 3, 0), draws_of(1, 2, 1)])
    free[0, 60:] = draws_of(1, 1, 2)[0, :60]
    level = mixture(free.reshape(-1, 2)).reshape(5, 120)
    found, _ = places_of(free, level, mixture)
    assert found.max() == 1
    assert (found[0, :60] == found[1, 0]).all()
    assert (found[0, 60:] == found[3, 0]).all()


def test_slow_chains_of_one_mode_are_at_one_place() -> None:
    """On a log-concave density the line between two draws never falls below the lower of them."""
    rng = np.random.default_rng(3)
    log_p = lambda x: -0.5 * (x**2).sum(1)  # noqa: E731
    free = 0.05 * rng.standard_normal((6, 60, 3)) + np.linspace(-2, 2, 6)[:, None, None]
    level = log_p(free.reshape(-1, 3)).reshape(6, 60)
    assert places_of(free, level, log_p)[0].max() == 0
    apart = barriers(list(free), list(level), log_p)
    assert apart.max() <= 1e-9


# ---- fits ----------------------------------------------------------------------------------------


def narrow(points: np.ndarray) -> np.ndarray:
    """log of 0.5 N((-5, 0), 4 I) + 0.5 N((5, 0), 0.09 I): within 1.7 of (5, 0) the second is the larger."""
    a = multivariate_normal([-5.0, 0.0], 4 * np.eye(2)).logpdf(points)
    b = multivariate_normal([5.0, 0.0], 0.09 * np.eye(2)).logpdf(points)
    return np.logaddexp(a, b)


def test_peaks_show_a_narrow_mode() -> None:
    """Some 50 of 4600 points of N(0, 10^2 I) fall within 1.7 of it, and one is always chosen."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found = peaks(10 * rng.standard_normal((512, 2)), narrow, 4, rng, seconds=60.0)
        assert 2 <= len(found) <= 4
        assert (np.hypot(found[:, 0] - 5, found[:, 1]) < 1.7).any(), seed
        assert (np.hypot(found[:, 0] + 5, found[:, 1]) < 4.0).any(), seed


def test_peaks_without_time_are_of_the_priors_draws() -> None:
    rng = np.random.default_rng(0)
    prior = 10 * rng.standard_normal((512, 2))
    found = peaks(prior, narrow, 4, rng, seconds=-1.0)
    assert all((row == prior).all(1).any() for row in found)
    one = peaks(prior[:, :1], lambda x: np.where(x[:, 0] > 0, -np.inf, x[:, 0]), 3, rng, seconds=60.0)
    assert (one < 0).all()


def test_chains_that_go_on_are_the_chains_of_one_go() -> None:
    fit, settings = dropped(), lvm.SpotCheck(num_chains=2, num_warmup=50, num_samples=40, most_samples=90)
    at_once, in_parts = (Runner(fit.problem, [fit], settings, {}) for _ in range(2))
    first, later, whole = in_parts.draw(40), in_parts.draw(90), at_once.draw(90)
    assert first.values["x"].shape[:2] == (2, 40)
    assert np.array_equal(first.values["x"], later.values["x"][:, :40])
    assert np.array_equal(later.values["x"], whole.values["x"])
    assert np.array_equal(later.stats["diverging"], whole.stats["diverging"])


def test_chains_go_on_where_a_verdict_is_open() -> None:
    """Exact draws moved by 0.40 sds: chains of 150 draws leave more than half an sd possible, of 600 not."""
    target = case_named("correlated normal, mean field").target
    exact = target.reference(0)
    x = exact.draws["x"]
    fit = dataclasses.replace(exact, draws=exact.draws.assign(x=x + 0.40 * x.std(("chain", "draw"))))
    few, more = (lvm.compare({"f": fit}, spot_check=lvm.SpotCheck(most_samples=n)) for n in (150, 600))
    errors = [c.spot_checks["f"].table["mean_error"].max() for c in (few, more)]
    assert few.verdicts["f"].level == "inconclusive"
    assert more.verdicts["f"].level == "means_and_spreads"
    assert errors[1] < 0.7 * errors[0]  # a half, with errors that are estimates themselves


def test_a_dropped_mode_is_found_though_khat_is_good() -> None:
    fit = dropped()
    assert next(f for f in fit.diagnose() if f.check == "khat").value < 0.5
    found = lvm.spot_check(fit)
    assert found.finding.level == "error"
    assert "the fit gives it 0%" in found.finding.sentence
    shares = found.places["share"].to_numpy()
    errors = found.places["share_error"].to_numpy()
    assert (np.abs(shares - 0.5) < 4 * errors).all()  # by symmetry
    mean, sd = FAR.target.truth()["x[0]"]
    row = found.table.loc["x[0]"]
    assert abs(row["mean"] - mean) < 4 * row["mean_error"]
    assert abs(row["sd"] - sd) < 4 * row["sd_error"] + 0.02 * sd
    assert lvm.compare({"vi": fit}).verdicts["vi"].level == "do_not_trust"
    unseen = lvm.compare({"vi": fit}, spot_check=False).verdicts["vi"]
    assert unseen.level == "inconclusive"  # its own figures are good: nobody looked elsewhere
    assert "no spot check" in unseen.sentence


def test_a_reference_that_missed_a_mode_is_no_reference() -> None:
    one = case_named("far modes, NUTS from one").fit(0)
    result = lvm.compare({"vi": dropped(), "nuts": one}, reference="nuts", spot_check=True)
    assert result.verdicts["nuts"].level == "do_not_trust"
    assert result.verdicts["vi"].level == "inconclusive"
    assert "not good enough" in result.verdicts["vi"].sentence
    assert list(result.spot_checks) == ["nuts"]


def test_a_mode_without_mass_does_not_matter() -> None:
    fit = case_named("tiny mode, mean field").fit(0)
    found = lvm.spot_check(fit)
    assert found.finding.level == "ok"
    assert found.table["shift"].abs().max() < 0.01


def test_the_budget_is_kept_and_said() -> None:
    began = time.perf_counter()
    found = lvm.spot_check(dropped(), budget_seconds=1e-6)
    assert time.perf_counter() - began < 30
    assert found.num_settled == 0
    assert "raise budget_seconds" in found.finding.sentence
    verdict = lvm.compare({"vi": dropped()}, spot_check=lvm.SpotCheck(budget_seconds=1e-6)).verdicts["vi"]
    assert verdict.level == "inconclusive"


def test_the_same_seed_gives_the_same() -> None:
    a, b = (lvm.spot_check(dropped(), seed=5).table for _ in range(2))
    assert a.equals(b)
    assert not a.equals(lvm.spot_check(dropped(), seed=6).table)


@pytest.mark.slow
def test_copies_of_labels_are_one_place() -> None:
    """Starts lie in both orders of two far components; relabelled, they are one place."""
    model = models.GaussianMixture(2, covariance="diag")
    fit = lvm.fit(model, clusters(30, 1, gap=6.0), NUTS(num_warmup=200, num_samples=150, num_chains=2))
    found = lvm.spot_check(fit)
    main = found.places["share"].max()
    assert main > 0.95
    assert found.table["shift"].abs().max() < 0.1


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^fit: expected a Fit, got str"):
        lvm.spot_check("fit")
    with pytest.raises(TypeError, match=r"^spot_check: expected True, False, None or a SpotCheck, got int"):
        lvm.compare({"vi": dropped()}, spot_check=3)
    with pytest.raises(ValueError, match=r"^num_chains: "):
        lvm.SpotCheck(num_chains=1)
    without = dataclasses.replace(dropped(), problem=None)
    found = lvm.spot_check(without)
    assert "loaded without its data" in found.finding.sentence
    assert lvm.compare({"vi": without}).verdicts["vi"].level == "inconclusive"


def test_a_program_that_cannot_be_translated_is_not_checked() -> None:
    def loops(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        if float(mu) > 0:  # control flow that depends on a value
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)
        else:
            pyro.sample("obs", dist.Normal(mu, 2.0), obs=y)

    fit = lvm.fit(loops, {"y": np.array(0.3)}, SVI(num_steps=20, window=10, num_draws=50))
    found = lvm.spot_check(fit)
    assert found.finding.level == "warning"
    assert found.finding.sentence.startswith("no spot check: ")
