"""SVI: means of iterates once the objective has settled, and restarts that are taken together on JAX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from helpers import clusters
from scipy import stats
from scipy.special import logsumexp
from test_svi_batches import exact_line, line, regression

import ppl_lvm as lvm
from ppl_lvm import SVI, models
from ppl_lvm.effort import effort_of

BACKENDS = ("numpyro", "pyro")
DATA = line(200)
SETTINGS: dict[str, Any] = {"guide": "mean_field", "batch_size": 20, "num_draws": 500, "window": 50}


def errors_of(fits: list[lvm.Fit]) -> np.ndarray:
    """Distances of the guide's location from the optimum (that of the posterior), in posterior sds."""
    mean, precision = exact_line(DATA)
    sd = 1 / np.sqrt(np.diag(precision))
    found = [np.concatenate([f.posterior[n].values[0].reshape(500, -1).mean(0) for n in "ab"]) for f in fits]
    return (np.stack(found) - mean) / sd


def test_averages_come_closer_to_the_optimum_than_last_iterates() -> None:
    """With a constant step size the last iterate is a draw of its noise, and the mean of many is not."""
    constant = {**SETTINGS, "backend": "numpyro", "num_steps": 3000, "learning_rate_decay": 1.0}
    last, averaged = (
        errors_of(
            [
                lvm.fit(regression, DATA, SVI(average=on, early_stop=False, **constant), seed=s)
                for s in range(4)
            ]
        )
        for on in (False, True)
    )
    assert np.sqrt((averaged**2).mean()) < 0.5 * np.sqrt((last**2).mean())
    assert np.abs(averaged).max() < 0.3


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_averaged_are_the_params_of_the_steps(backend: str) -> None:
    """From the params after each number of steps: their mean in unconstrained space, from half on."""
    settings = {**SETTINGS, "backend": backend, "learning_rate_decay": 1.0, "early_stop": False}
    each = [lvm.fit(regression, DATA, SVI(num_steps=n, average=False, **settings)).params for n in (4, 5, 6)]
    mean = lvm.fit(regression, DATA, SVI(num_steps=6, average=True, **settings))
    assert mean.status.details["averaged_steps"] == 3
    for name, found in mean.params.items():
        scale = backend == "pyro" and "scale" in name  # the softplus of what is trained
        free = [np.log(np.expm1(p[name])) if scale else p[name] for p in each]
        wanted = np.log1p(np.exp(np.mean(free, 0))) if scale else np.mean(free, 0)
        np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_averaging_lasts_as_long_as_settling() -> None:
    settings = {**SETTINGS, "backend": "numpyro", "batch_size": None, "tolerance": 5.0, "num_steps": 5000}
    fit = lvm.fit(regression, DATA, SVI(average=True, **settings))
    steps, averaged = fit.status.details["steps"], fit.status.details["averaged_steps"]
    assert steps == 2 * averaged < 5000
    assert fit.status.outcome is lvm.Outcome.CONVERGED


@pytest.mark.parametrize("backend", BACKENDS)
def test_averages_and_restarts_go_on_from_a_checkpoint(backend: str, tmp_path: Path) -> None:
    more = {"num_restarts": 3} if backend == "numpyro" else {}
    settings = {
        **SETTINGS,
        "backend": backend,
        "early_stop": False,
        "average": True,
        "num_steps": 60,
        "window": 10,
    }
    whole = lvm.fit(regression, DATA, SVI(**settings, **more))

    class Stopped(Exception):
        pass

    from ppl_lvm.engines import _steps

    saved, original = [], _steps._save

    def stop(*args: Any) -> None:
        original(*args)
        saved.append(args)
        if len(saved) == 4:  # within the averages
            raise Stopped

    _steps._save = stop
    try:
        with pytest.raises(Stopped):
            lvm.fit(regression, DATA, SVI(checkpoint=tmp_path, **settings, **more))
    finally:
        _steps._save = original
    again = lvm.fit(regression, DATA, SVI(checkpoint=tmp_path, **settings, **more))
    for name in whole.params:
        np.testing.assert_array_equal(whole.params[name], again.params[name])
    np.testing.assert_equal(whole.meta.get("restarts"), again.meta.get("restarts"))  # errors are NaN so early


# ---- restarts ------------------------------------------------------------------------------------------


def two_hills(y):
    """A posterior with a high mode near 2.5 and a lower one near -3.6."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.5))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu.abs() + 0.2 * mu.clamp(min=-3.0, max=3.0), 0.3), obs=y)


def log_masses(y: np.ndarray) -> tuple[float, float]:
    """log p(y, mu > 0) and log p(y, mu < 0) by quadrature."""
    mu = np.linspace(-8.0, 8.0, 40_001)
    mean = np.abs(mu) + 0.2 * np.clip(mu, -3.0, 3.0)
    log_p = stats.norm.logpdf(mu, 0, 1.5) + stats.norm.logpdf(y[:, None], mean, 0.3).sum(0)
    step = np.log(mu[1] - mu[0])
    return float(logsumexp(log_p[mu > 0]) + step), float(logsumexp(log_p[mu < 0]) + step)


def test_the_best_of_restarts_is_kept_and_their_spread_is_said() -> None:
    """Starts are uniform on (-2, 2): of eight some climb the lower hill, and are left."""
    y = np.array([2.9, 3.1, 3.0])
    settings = {"guide": "mean_field", "num_steps": 800, "window": 50, "num_draws": 200, "num_restarts": 8}
    fit = lvm.fit(two_hills, y, SVI(backend="numpyro", **settings))
    restarts = fit.meta["restarts"]
    bounds, errors = np.array(restarts["bound"]), np.array(restarts["error"])
    high, low = log_masses(y)
    assert high - low > 1.0
    assert restarts["kept"] == bounds.argmax()
    assert float(fit.posterior["mu"].mean()) > 2.0
    lower = bounds < (high + low) / 2
    assert 0 < lower.sum() < 8
    for found, error, top in zip(bounds, errors, np.where(lower, low, high), strict=True):
        assert (
            top - 0.15 - 4 * error < found < top + 4 * error
        )  # within a hill the posterior is nearly normal
    assert f"{lower.sum()} of 8 restarts ended lower" in str(fit.status)
    assert effort_of(fit).gradients == 8 * fit.status.details["steps"]


def test_restarts_that_agree_say_nothing() -> None:
    settings = {"backend": "numpyro", "guide": "mean_field", "num_steps": 600, "window": 50, "num_draws": 200}
    fit = lvm.fit(regression, DATA, SVI(num_restarts=3, **settings))
    assert not fit.status.messages
    assert np.ptp(fit.meta["restarts"]["bound"]) < 1.0


def test_a_restart_that_breaks_off_leaves_the_others() -> None:
    from ppl_lvm.engines._course import Course

    course = Course(SVI(learning_rate=0.1, window=10), 100, 2, 1)
    course.add(np.stack([np.ones(10), np.full(10, np.nan)]), None)
    assert course.alive.tolist() == [True, False]
    assert course.best() == 0
    assert "1 of 2 restarts broke off" in str(course.status(0))
    with pytest.raises(ValueError, match="step 11"):
        course.add(np.full((2, 10), np.inf), None)


def test_where_restarts_and_averages_are_refused() -> None:
    x = clusters(20)
    with pytest.raises(ValueError, match="JAX only"):
        lvm.fit(models.GaussianMixture(2), x, SVI(num_restarts=2))
    with pytest.raises(ValueError, match="num_restarts"):
        SVI(num_restarts=0)
    with pytest.raises(TypeError, match="average"):
        SVI(average=1)  # type: ignore[arg-type]
    images = np.zeros((16, 5, 6))
    with pytest.raises(ValueError, match="runs in steps"):
        lvm.fit(models.VAE(latent_dim=2), images, SVI(average=True, num_epochs=1, batch_size=8))
