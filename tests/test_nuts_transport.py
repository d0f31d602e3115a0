"""NUTS(transport=True): sampling in the space of a flow's noise is exact, and helps with bent posteriors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import pytest
from helpers import assert_within

import ppl_lvm as lvm
from ppl_lvm import ELBO, NUTS, SVI, Flow
from ppl_lvm.backends._numpyro import density_of
from ppl_lvm.backends.session import jax_session
from ppl_lvm.core import Run
from ppl_lvm.engines._jax_transport import transported
from ppl_lvm.fitting import prepare


def banana(y: Any) -> None:
    """A bent posterior, b ~ N(a^2, 0.2^2) for a ~ N(0, 1); the data say nothing of either."""
    a = pyro.sample("a", dist.Normal(y.new_tensor(0.0), 1.0))
    pyro.sample("b", dist.Normal(a * a, 0.2))
    pyro.sample("obs", dist.Normal(y.new_zeros(1), 1.0).to_event(1), obs=y)


def banana_twin(y: Any) -> None:
    a = numpyro.sample("a", numpyro_dist.Normal(0.0, 1.0))
    numpyro.sample("b", numpyro_dist.Normal(a * a, 0.2))
    numpyro.sample("obs", numpyro_dist.Normal(0.0 * y, 1.0).to_event(1), obs=y)


def half(y: Any) -> None:
    """A support with a boundary: scale has a log-normal posterior of its own."""
    pyro.sample("scale", dist.LogNormal(y.new_tensor(0.3), 0.6))
    pyro.sample("mean", dist.Normal(y.new_tensor(0.0), 1.0))
    pyro.sample("obs", dist.Normal(y.new_zeros(1), 1.0).to_event(1), obs=y)


def half_twin(y: Any) -> None:
    numpyro.sample("scale", numpyro_dist.LogNormal(0.3, 0.6))
    numpyro.sample("mean", numpyro_dist.Normal(0.0, 1.0))
    numpyro.sample("obs", numpyro_dist.Normal(0.0 * y, 1.0).to_event(1), obs=y)


def three(y: Any) -> None:
    pyro.sample("x", dist.Normal(y.new_zeros(3), 1.0).to_event(1))
    pyro.sample("obs", dist.Normal(y.new_zeros(3), 1.0).to_event(1), obs=y)


def three_twin(y: Any) -> None:
    numpyro.sample("x", numpyro_dist.Normal(0.0 * y, 1.0).to_event(1))
    numpyro.sample("obs", numpyro_dist.Normal(0.0 * y, 1.0).to_event(1), obs=y)


DATA = {"y": np.zeros(1)}
BANANA, HALF = lvm.Model(banana, numpyro=banana_twin), lvm.Model(half, numpyro=half_twin)
THREE = lvm.Model(three, numpyro=three_twin)
SMALL = Flow(num_layers=2, num_hidden=8)


@pytest.fixture(scope="module")
def poor() -> lvm.Fit:
    """A flow that is hardly trained."""
    engine = SVI(guide=SMALL, backend="numpyro", num_steps=60, learning_rate=0.02)
    return lvm.fit(HALF, DATA, engine, seed=1)


def test_the_density_of_the_noise_is_the_density_carried_over(poor: lvm.Fit) -> None:
    """Against the determinant of the map's Jacobian, by differentiation."""
    problem = prepare(HALF, DATA)
    with jax_session("float64"):
        density, data = density_of(problem)
        pulled, params, starts = transported(problem, Run(3, poor), density, data, {}, 4)
        for u in starts:
            noise = {"noise": u}

            def carried(u: Any) -> Any:
                values = pulled.constrain({"noise": u}, data, params)
                return density.flatten(density.unconstrain(values, data, {}))

            log_det = np.linalg.slogdet(np.asarray(jax.jacfwd(carried)(u)))[1]
            target = float(density.total(density.unflatten(carried(u)), data, {})) + log_det
            np.testing.assert_allclose(float(pulled.total(noise, data, params)), target, rtol=1e-10)
            back = pulled.unconstrain(pulled.constrain(noise, data, params), data, params)
            np.testing.assert_allclose(np.asarray(back["noise"]), np.asarray(u), rtol=1e-10, atol=1e-10)


def test_draws_are_exact_however_poor_the_flow(poor: lvm.Fit, tmp_path: Path) -> None:
    engine = NUTS(transport=True, num_warmup=300, num_samples=1500, num_chains=2, checkpoint=str(tmp_path))
    fit = lvm.fit(HALF, DATA, engine, init=poor, seed=2)
    assert set(fit.posterior) == {"scale", "mean"}
    s = fit.summary()
    both = ["scale", "mean"]
    assert_within(s.loc[both, "mean"], [np.exp(0.3 + 0.18), 0.0], s.loc[both, "mcse_mean"])
    log = np.log(fit.posterior["scale"].values)
    assert_within(log.std(), 0.6, 0.6 / np.sqrt(2 * s.loc["scale", "ess_bulk"]))
    assert_within(fit.posterior["mean"].std(), 1.0, s.loc["mean", "mcse_sd"])
    again = lvm.fit(HALF, DATA, engine, init=poor, seed=2)
    np.testing.assert_array_equal(fit.posterior["scale"], again.posterior["scale"])


@pytest.mark.slow
def test_a_banana_mixes_better() -> None:
    """E b = E a^2 = 1. Effective draws are counted by leapfrog step. The flow is trained to its end: one that
    is stopped early leaves tails in which chains creep."""
    svi = SVI(
        guide=Flow(num_hidden=32),
        objective=ELBO(num_particles=16),
        backend="numpyro",
        num_steps=15_000,
        learning_rate=0.01,
        learning_rate_decay=0.01,
        early_stop=False,
    )
    flow = lvm.fit(BANANA, DATA, svi, seed=1)
    settings: dict[str, Any] = {"num_warmup": 500, "num_samples": 1000, "num_chains": 4}
    plain = lvm.fit(BANANA, DATA, NUTS(backend="numpyro", **settings), seed=2)
    carried = lvm.fit(BANANA, DATA, NUTS(transport=True, **settings), init=flow, seed=2)
    s, before = carried.summary(), plain.summary()
    assert_within(s.loc[["a", "b"], "mean"], [0.0, 1.0], s.loc[["a", "b"], "mcse_mean"])
    steps = [float(f.sample_stats["n_steps"].sum()) for f in (carried, plain)]
    for figure in ("ess_bulk", "ess_tail"):
        assert s[figure].min() / steps[0] > 2 * before[figure].min() / steps[1]


def test_what_cannot_be_transported_is_said(poor: lvm.Fit) -> None:
    for init in (None, {"mean": 0.0}, lvm.fit(HALF, DATA, SVI(backend="numpyro", num_steps=50))):
        with pytest.raises(ValueError, match=r"transport=True needs init= the fit of a flow"):
            lvm.fit(HALF, DATA, NUTS(transport=True), init=init)
    with pytest.raises(ValueError, match=r"init: the flow is of another model"):
        lvm.fit(THREE, {"y": np.zeros(3)}, NUTS(transport=True), init=poor)
    with pytest.raises(ValueError, match=r"transport needs the NumPyro backend"):
        lvm.fit(HALF, DATA, NUTS(transport=True, backend="pyro"), init=poor)
    with pytest.raises(ValueError, match=r"leave by_datum out"):
        NUTS(transport=True, by_datum=True)
    with pytest.raises(TypeError, match="transport: expected True or False"):
        NUTS(transport=1)  # type: ignore[arg-type]
