"""Evaluations of the log density: counted where the number is known beforehand."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest

import ppl_lvm as lvm
from ppl_lvm import AIS, ELBO, EM, NUTS, SMC, SVI, ImportanceSampling, Renyi, models
from ppl_lvm.effort import effort_of

Y = np.array([0.3, -0.2, 1.1, 0.4])


def normal_mean(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


@pytest.mark.parametrize("kernel", ["blackjax", "numpyro"])
@pytest.mark.parametrize("method", ["threads", "vectorized"])
def test_trees_of_depth_one_take_one_step_each(kernel: str, method: str, tmp_path: Path) -> None:
    """A trajectory of depth one is one leapfrog step, warm-up or not."""
    engine = NUTS(
        num_warmup=30, num_samples=20, num_chains=2, max_tree_depth=1, kernel=kernel, chain_method=method
    )
    fit = lvm.fit(normal_mean, Y, engine)
    assert effort_of(fit).gradients == (30 + 20) * 2
    assert fit.meta["warmup_steps"] == 30 * 2
    assert effort_of(fit).with_warmup
    again = lvm.load(fit.save(tmp_path / "nuts"), model=normal_mean)
    assert effort_of(again) == effort_of(fit)


def test_pyros_steps_are_counted_too() -> None:
    engine = NUTS(backend="pyro", num_warmup=20, num_samples=10, num_chains=1, max_tree_depth=1)
    fit = lvm.fit(normal_mean, Y, engine)
    assert fit.sample_stats is not None
    np.testing.assert_array_equal(fit.sample_stats["n_steps"], np.ones((1, 10)))
    warmup = fit.meta["warmup_steps"]
    assert warmup >= 20  # the search for a first step size, and again after each window, comes on top
    assert effort_of(fit).gradients == warmup + 10


def test_deeper_trees_take_more_steps_than_that() -> None:
    fit = lvm.fit(normal_mean, Y, NUTS(num_warmup=50, num_samples=50, num_chains=2))
    assert fit.sample_stats is not None
    assert effort_of(fit).gradients > 2 * 100
    assert effort_of(fit).gradients == float(fit.sample_stats["n_steps"].sum()) + fit.meta["warmup_steps"]


def test_chains_without_a_record_of_their_warmup_say_so() -> None:
    fit = lvm.fit(normal_mean, Y, NUTS(num_warmup=50, num_samples=50, num_chains=2))
    assert fit.sample_stats is not None
    old = dataclasses.replace(fit, meta={k: v for k, v in fit.meta.items() if k != "warmup_steps"})
    assert not effort_of(old).with_warmup
    assert effort_of(old).gradients == float(fit.sample_stats["n_steps"].sum())


def test_guides_take_steps_times_particles() -> None:
    fit = lvm.fit(normal_mean, Y, SVI(num_steps=40, window=10, early_stop=False, num_draws=50))
    assert (effort_of(fit).gradients, effort_of(fit).densities) == (40, 50)
    half = SVI(num_steps=40, window=10, early_stop=False, num_draws=50, batch_size=2)
    assert (
        effort_of(lvm.fit(normal_mean, Y, half)).gradients == 20 * 2
    )  # passes over the data, mirrored pairs
    single = dataclasses.replace(half, objective=ELBO(mirrored=False))
    assert effort_of(lvm.fit(normal_mean, Y, single)).gradients == 20
    bound = SVI(objective=Renyi(num_particles=5), num_steps=40, window=10, early_stop=False, num_draws=50)
    assert effort_of(lvm.fit(normal_mean, Y, bound)).gradients == 200


def test_weights_take_densities_and_no_gradients() -> None:
    fit = lvm.fit(normal_mean, Y, ImportanceSampling(num_samples=60))
    assert (effort_of(fit).gradients, effort_of(fit).densities) == (0, 60)


def test_annealed_particles_take_nine_gradients_a_move() -> None:
    fit = lvm.fit(normal_mean, Y, AIS(num_particles=30, num_temperatures=7))
    assert effort_of(fit).gradients == 30 * 7 * 9
    runs = lvm.fit(normal_mean, Y, SMC(num_particles=20, num_runs=4, num_moves=2))
    temperatures = runs.status.details["num_temperatures"]
    assert effort_of(runs).gradients == 20 * 4 * temperatures * 2 * 9


def test_closed_forms_have_none_and_the_overview_has_gaps() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2))
    model = models.GaussianMixture(2, covariance="diag")
    fits = {
        "em": lvm.fit(model, rows, EM(num_init=1)),
        "is": lvm.fit(model, rows, ImportanceSampling(num_samples=50)),
    }
    assert math.isnan(effort_of(fits["em"]).gradients)
    overview = lvm.compare(fits).overview
    assert overview["log_densities"].isna().to_dict() == {"em": True, "is": False}
    assert overview.loc["is", "gradients"] == 0
    assert "<NA>" not in lvm.compare(fits)._repr_html_()
