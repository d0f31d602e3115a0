"""ChEES-HMC: known answers, nested R-hat, a fixed kernel after warm-up, checkpoints, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax  # noqa: F401  # at collection: importing it draws from NumPy's generator
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import assert_within
from scipy import stats

import ppl_lvm as lvm
from ppl_lvm import NUTS, ChEES, Laplace

SDS = np.array([0.03, 1.0, 40.0])
CORRELATION = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.3], [0.0, 0.3, 1.0]])
COV = CORRELATION * np.outer(SDS, SDS)
ENGINE = ChEES(num_chains=64, num_warmup=300, num_samples=100)


def correlated(cov: Any, y: Any) -> None:
    """The data say nothing of the latents: their posterior is the prior."""
    pyro.sample("x", dist.MultivariateNormal(torch.zeros(3, dtype=cov.dtype), cov))
    pyro.sample("obs", dist.Normal(y.new_zeros(1), 1.0).to_event(1), obs=y)


def correlated_twin(cov: Any, y: Any) -> None:
    numpyro.sample("x", numpyro_dist.MultivariateNormal(np.zeros(3), cov))
    numpyro.sample("obs", numpyro_dist.Normal(0.0 * y, 1.0).to_event(1), obs=y)


MODEL, DATA = lvm.Model(correlated, numpyro=correlated_twin), {"cov": COV, "y": np.zeros(1)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[lvm.Fit, ChEES]:
    """A run that keeps checkpoints, and its settings."""
    folder = tmp_path_factory.mktemp("chees")
    engine = dataclasses.replace(ENGINE, checkpoint=str(folder), checkpoint_every=350)
    return lvm.fit(MODEL, DATA, engine, seed=3), engine


def test_a_correlated_normal(whole: tuple[lvm.Fit, ChEES]) -> None:
    fit, _ = whole
    s = fit.summary()
    assert_within(s["mean"], np.zeros(3), s["mcse_mean"])
    assert_within(s["sd"], SDS, s["mcse_sd"])
    flat = fit.posterior["x"].values.reshape(-1, 3)
    size = float(s["ess_bulk"].min())
    error = (1 - CORRELATION**2) / np.sqrt(size)  # of a sample correlation
    assert_within(np.corrcoef(flat.T), CORRELATION, error)
    assert size > 1000  # of 6400 draws


def test_draws_and_statistics(whole: tuple[lvm.Fit, ChEES]) -> None:
    """Shapes; ``lp`` is the density; the kernel after warm-up is one and the same for all chains."""
    fit, _ = whole
    found = fit.sample_stats
    assert found is not None
    x = fit.posterior["x"].values
    assert x.shape == (64, 100, 3)
    exact = stats.multivariate_normal(np.zeros(3), COV).logpdf(x) + stats.norm.logpdf(0.0)
    np.testing.assert_allclose(found["lp"].values, exact, rtol=1e-10)
    assert np.unique(found["step_size"].values).size == 1
    steps = found["n_steps"].values
    assert (steps == steps[:1]).all()
    assert np.unique(steps).size > 1  # trajectories of quasi-random lengths
    kinetic = found["energy"].values + found["lp"].values
    assert (kinetic > 0).all()
    # states with momenta are draws of the joint density: half a chi-squared of three, chains independent
    means = kinetic.mean(1)
    assert_within(means.mean(), 1.5, means.std(ddof=1) / np.sqrt(len(means)))
    assert fit.status.details["divergences"] == 0
    assert fit.meta["warmup_steps"] % 64 == 0


def test_nested_r_hat_judges_it(whole: tuple[lvm.Fit, ChEES]) -> None:
    fit, _ = whole
    found = {f.check: f for f in fit.diagnose()}
    assert "r_hat" not in found
    assert found["nested_r_hat"].level == "ok"
    assert "64 chains from 16 starts" in found["nested_r_hat"].sentence


@pytest.mark.slow  # a program of its own
def test_chains_of_one_start_begin_there_and_a_short_run_is_caught() -> None:
    """Without warm-up and far from the typical set, nested R-hat sees that starts are not forgotten."""
    start = np.linspace(-3, 3, 4)[:, None] * SDS
    engine = dataclasses.replace(ENGINE, num_chains=16, num_starts=4, num_warmup=0, num_samples=3)
    fit = lvm.fit(MODEL, DATA, engine, init={"x": start}, seed=1)
    x = fit.posterior["x"].values[:, 0] / SDS
    assert (np.abs(x - np.tile(start / SDS, (4, 1))) < 0.5).all()  # a step of 0.1 of the smallest scale
    assert {f.check: f for f in fit.diagnose()}["nested_r_hat"].level == "error"


def test_it_goes_on_from_its_checkpoint(whole: tuple[lvm.Fit, ChEES], tmp_path: Path) -> None:
    """From the iteration where it was written, to the same bits."""
    fit, engine = whole
    folder = Path(str(engine.checkpoint)) / "chains"
    stamp = (folder / "checkpoint.safetensors").stat().st_mtime_ns
    again = lvm.fit(MODEL, DATA, engine, seed=3)  # found finished
    assert (folder / "checkpoint.safetensors").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(again.posterior["x"].values, fit.posterior["x"].values)
    with pytest.raises(ValueError, match=r"holds another run \(seed was 3, is 4"):
        lvm.fit(MODEL, DATA, engine, seed=4)


def test_a_run_that_is_stopped_goes_on_to_the_same_draws(
    whole: tuple[lvm.Fit, ChEES], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in warm-up and in sampling."""
    from ppl_lvm.engines import _nuts_run

    fit, engine = whole
    engine = dataclasses.replace(engine, checkpoint=str(tmp_path), checkpoint_every=50)
    drive, limits = _nuts_run.Blocks.drive, iter((130, 340, 10**9))

    def stopped(self: Any, part: Any, checkpoint: Any) -> int:
        limit, tick = next(limits), self.tick
        seen = 0

        def watch(steps: int) -> None:
            nonlocal seen
            seen += steps
            self.stop.requested = self.stop.requested or seen >= limit
            tick(steps)

        self.tick = watch
        return drive(self, part, checkpoint)

    monkeypatch.setattr(_nuts_run.Blocks, "drive", stopped)
    with pytest.raises(KeyboardInterrupt, match="ChEES: stopped in warm-up, after"):
        lvm.fit(MODEL, DATA, engine, seed=3)
    partial = lvm.fit(MODEL, DATA, engine, seed=3)
    assert partial.status.outcome is lvm.Outcome.INTERRUPTED
    kept = partial.posterior.sizes["draw"]
    assert 0 < kept < 100
    last = lvm.fit(MODEL, DATA, engine, seed=3)
    np.testing.assert_array_equal(last.posterior["x"].values, fit.posterior["x"].values)
    np.testing.assert_array_equal(partial.posterior["x"].values, fit.posterior["x"].values[:, :kept])


def labels_only(y: Any) -> None:
    with pyro.plate("data", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.ones(2, dtype=y.dtype) / 2))
        pyro.sample("obs", dist.Normal(k.to(y.dtype), 1.0), obs=y)


def with_param(y: Any) -> None:
    shift = pyro.param("shift", torch.tensor(0.0))
    mean = pyro.sample("mean", dist.Normal(shift, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)


def test_what_it_refuses() -> None:
    y = np.zeros(4)
    with pytest.raises(ValueError, match="num_chains: expected an integer of at least 16, got 8"):
        ChEES(num_chains=8)
    with pytest.raises(
        ValueError, match=r"num_starts: expected a divisor of num_chains \(40\) or None, got 16"
    ):
        ChEES(num_chains=40)
    with pytest.raises(ValueError, match="ChEES needs continuous latent sites"):
        lvm.fit(labels_only, y, ChEES())
    with pytest.raises(ValueError, match=r"ChEES holds params fixed and \['shift'\] have no values"):
        lvm.fit(with_param, y, ChEES())


# ---- against NUTS --------------------------------------------------------------------------------

SCHOOLS = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}


def eight_schools(y: Any, sigma: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(mu + tau * z, sigma), obs=y)


@pytest.mark.slow
def test_eight_schools_as_long_nuts() -> None:
    nuts = lvm.fit(eight_schools, SCHOOLS, NUTS(num_warmup=1000, num_samples=5000, target_accept=0.95))
    fit = lvm.fit(eight_schools, SCHOOLS, ChEES(target_accept=0.8), seed=1)
    a, b = fit.summary(), nuts.summary()
    for name in ("mean", "sd"):
        error = np.hypot(a[f"mcse_{name}"], b[f"mcse_{name}"])
        assert_within(a[name], b[name], error)
    comparison = lvm.compare({"chees": fit, "nuts": nuts}, reference="nuts")
    assert "chees" in str(comparison)
    checks = {f.check for f in fit.diagnose()}
    assert {"nested_r_hat", "ess", "bfmi"} <= checks


@pytest.mark.slow
def test_from_a_fit_a_short_warmup_is_enough() -> None:
    first = lvm.fit(MODEL, DATA, Laplace(num_draws=2000), seed=1)
    fit = lvm.fit(MODEL, DATA, dataclasses.replace(ENGINE, num_warmup=100), init=first, seed=2)
    s = fit.summary()
    assert_within(s["mean"], np.zeros(3), s["mcse_mean"])
    assert_within(s["sd"], SDS, s["mcse_sd"])
