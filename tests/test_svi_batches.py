"""SVI on minibatches: unbiased, the optimum of all data, bounds in blocks of rows, sites from a few rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import assert_within, clusters
from scipy import stats

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI, Renyi, emissions, models
from ppl_lvm.engines import _rows
from ppl_lvm.fitting import prepare

BACKENDS = ("numpyro", "pyro")
N, B = 24, 6
X = clusters(N)
SLOPE, NOISE = 1.5, 0.7


def regression(x, y):
    """Sites outside the plate, a row of two arguments, and a factor that belongs to no datum."""
    a = pyro.sample("a", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(1), 3.0).to_event(1))
    pyro.factor("push", -0.1 * a**2)
    with pyro.plate("rows", len(x)):
        pyro.sample("obs", dist.Normal(a + b[0] * x, NOISE), obs=y)


def line(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return {"x": x, "y": 0.5 + SLOPE * x + NOISE * rng.normal(size=n)}


def two_means(y):
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
        pyro.sample("obs", dist.Normal(loc[..., z], 1.0), obs=y)


def two_means_twin(y):
    """Enumerated, so that its density on JAX is a total without a split over data."""
    import jax.numpy as jnp

    loc = numpyro.sample("loc", ndist.Normal(jnp.array([-1.0, 1.0]), 1.0).to_event(1))
    with numpyro.plate("data", len(y)):
        z = numpyro.sample("z", ndist.Categorical(jnp.array([0.4, 0.6])), infer={"enumerate": "parallel"})
        numpyro.sample("obs", ndist.Normal(loc[z], 1.0), obs=y)


def shared_mean(x):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(m + z, 1.0), obs=x)


def shared_mean_guide(x):
    m = pyro.sample("m", dist.Normal(pyro.param("at", torch.tensor(0.1)), 0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - m) / 2, 0.5**0.5))


def shared_mean_twin(x):
    m = numpyro.sample("m", ndist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ndist.Normal(0.0, 1.0))
        numpyro.sample("obs", ndist.Normal(m + z, 1.0), obs=x)


def shared_mean_twin_guide(x):
    m = numpyro.sample("m", ndist.Normal(numpyro.param("at", 0.1), 0.2))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", ndist.Normal((x - m) / 2, 0.5**0.5))


LOCAL = lvm.Model(
    shared_mean, guide=shared_mean_guide, numpyro=lvm.core.Program(shared_mean_twin, shared_mean_twin_guide)
)

CASES: dict[str, tuple[Any, Any]] = {
    "GaussianMixture": (models.GaussianMixture(2, covariance="diag"), X),
    "Mixture": (models.Mixture(2, emissions.Poisson()), np.random.default_rng(0).poisson(4.0, (N, 2))),
    "regression": (regression, line(N)),
    "enumerated": (lvm.Model(two_means, numpyro=two_means_twin), X[:, 0]),
}


def slopes(backend: str, problem: Any, engine: SVI) -> Any:
    """rows or None -> (loss, gradient of every param) at the start, always at the same draw of the guide."""
    if backend == "numpyro":
        return jax_slopes(problem, engine)
    return pyro_slopes(problem, engine)


def jax_slopes(problem: Any, engine: SVI) -> Any:
    import jax
    import jax.numpy as jnp

    from ppl_lvm.backends._jax_guides import build_guide
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends.session import jax_session
    from ppl_lvm.engines._jax_steps import Trained, loss_of

    with jax_session("float64"):
        density, data = density_of(problem)
        guide = build_guide(problem, density, engine.guide, {}, jnp.full(density.size, 0.3))
        params = Trained(guide.init(jax.random.key(0)), {})

    settings = {False: dataclasses.replace(engine, batch_size=None), True: engine}
    at_rows = {
        k: jax.jit(jax.value_and_grad(loss_of(e, problem, density, guide))) for k, e in settings.items()
    }

    def at(rows: np.ndarray | None) -> tuple[float, np.ndarray]:
        with jax_session("float64"):
            batch = data if rows is None else _rows.take(data, problem.batched, rows)
            value, slope = at_rows[rows is not None](params, jax.random.key(5), batch)
            return float(value), np.asarray(jax.flatten_util.ravel_pytree(slope)[0])

    return at


def pyro_slopes(problem: Any, engine: SVI) -> Any:
    from ppl_lvm.backends._pyro_guide import build_guide
    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session
    from ppl_lvm.engines._pyro_svi import pyro_svi

    def at(rows: np.ndarray | None) -> tuple[float, np.ndarray]:
        own = engine if rows is not None else dataclasses.replace(engine, batch_size=None)
        with torch_session(0, "float64"):
            guide = build_guide(problem, engine.guide, {})
            args = to_torch(problem.arguments)
            with torch.no_grad():
                guide(**args)
            svi = pyro_svi(own, problem, guide)
            batch = args if rows is None else _rows.take(args, problem.batched, torch.from_numpy(rows))
            pyro.set_rng_seed(5)
            value = svi.loss_and_grads(svi.model, svi.guide, **batch)
            params = pyro.get_param_store()._params
            return float(value), np.concatenate([params[n].grad.numpy().ravel() for n in sorted(params)])

    return at


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_a_partition_average_to_that_of_all_data(name: str, backend: str) -> None:
    model, data = CASES[name]
    engine = SVI(backend=backend, guide="mean_field", batch_size=B, learning_rate=0.01, clip_norm=1.0)
    at = slopes(backend, prepare(model, data), engine)
    whole = at(None)
    order = np.random.default_rng(1).permutation(N).reshape(-1, B)
    parts = [at(rows) for rows in order]
    assert np.mean([p[0] for p in parts]) == pytest.approx(whole[0], rel=1e-10)
    scale = np.abs(whole[1]).max()
    np.testing.assert_allclose(np.mean([p[1] for p in parts], 0), whole[1], rtol=1e-9, atol=1e-10 * scale)
    assert np.ptp([p[0] for p in parts]) > 1e-3 * abs(whole[0])  # batches do differ


def test_rows_of_steps_are_partitions_in_other_orders() -> None:
    from ppl_lvm.engines._batches import Batches

    batches = Batches(3, 10, 3)
    rows = batches.rows(0, 6)
    assert rows.shape == (6, 3)
    for epoch in (rows[:3], rows[3:]):
        assert len(set(epoch.ravel())) == 9
    assert set(rows[:3].ravel()) != set(rows[3:].ravel())
    np.testing.assert_array_equal(Batches(3, 10, 3).rows(4, 2), rows[4:])  # from anywhere
    counts = np.bincount(Batches(0, 10, 4).rows(0, 4000).ravel(), minlength=10)
    assert_within(counts / 4000, 0.4, np.sqrt(0.4 * 0.6 / 4000))


def exact_line(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision of (a, b) given the data: conjugate, the factor is one more normal on a."""
    design = np.stack([np.ones_like(data["x"]), data["x"]], 1)
    precision = design.T @ design / NOISE**2 + np.diag([1 / 4 + 0.2, 1 / 9])
    return np.linalg.solve(precision, design.T @ data["y"] / NOISE**2), precision


@pytest.mark.parametrize("backend", ["numpyro", pytest.param("pyro", marks=pytest.mark.slow)])
def test_the_optimum_is_that_of_all_data(backend: str) -> None:
    """Mean field at the optimum: the exact mean, variances 1 / precision; the error is that over seeds."""
    data = line(400)
    mean, precision = exact_line(data)
    settings = {"num_steps": 6000, "learning_rate_decay": 0.002, "early_stop": False, "num_draws": 2000}
    engine = SVI(
        backend=backend, guide="mean_field", batch_size=100, objective=ELBO(num_particles=4), **settings
    )
    fits = [lvm.fit(regression, data, engine, seed=s) for s in range(5 if backend == "numpyro" else 3)]
    draws = [np.stack([f.posterior["a"].values[0], f.posterior["b"].values[0, :, 0]], 1) for f in fits]
    sd = 1 / np.sqrt(np.diag(precision))
    means = (np.stack([d.mean(0) for d in draws]) - mean) / sd
    widths = np.stack([np.log(d.std(0)) for d in draws]) - np.log(sd)
    widest = stats.t.ppf(0.9999, len(fits) - 1)  # four comparisons, of few seeds
    for found in (means, widths):
        assert_within(found.mean(0), 0.0, found.std(0, ddof=1) / np.sqrt(len(fits)), widest)
        assert np.abs(found).max() < 0.25  # and none is far off


@pytest.mark.parametrize(("name", "backend"), [("GaussianMixture", "pyro"), ("regression", "numpyro")])
def test_weights_in_blocks_are_those_at_once(name: str, backend: str, monkeypatch: Any) -> None:
    model, data = CASES[name]
    engine = SVI(backend=backend, batch_size=B, num_steps=30, window=10, num_draws=100, early_stop=False)
    whole = lvm.fit(model, data, engine)
    monkeypatch.setattr(_rows, "AT_ONCE", 10)
    monkeypatch.setattr(_rows, "_BLOCK", 700)  # blocks of 7 rows would be 100 at least
    monkeypatch.setattr(_rows, "SMALLEST", 7)
    parts = lvm.fit(model, data, engine)
    for key in ("log_p", "log_q"):
        np.testing.assert_allclose(parts.sample_stats[key], whole.sample_stats[key], rtol=1e-10)
    for site in whole.posterior:
        np.testing.assert_allclose(parts.posterior[site], whole.posterior[site], rtol=1e-10)
    assert parts.evidence.nats == pytest.approx(whole.evidence.nats, rel=1e-10)
    assert parts.evidence.note == whole.evidence.note
    monkeypatch.setattr(_rows, "BUDGET", 10)
    monkeypatch.setattr(_rows, "LEAST", 40)
    some = lvm.fit(model, data, engine)
    assert some.sample_stats is None or "log_p" not in some.sample_stats
    assert some.posterior.sizes["draw"] == 100
    assert "from 40 of 100 draws, at all 24 data" in some.evidence.note
    assert_within(
        some.evidence.nats, whole.evidence.nats, np.hypot(some.evidence.std_error, whole.evidence.std_error)
    )
    assert len(some.summary()) == len(whole.summary())


def test_params_alone_are_scored_on_all_data() -> None:
    """Without latents outside the plate the bound is of the data alone; batches under Renyi are allowed."""

    def shares(y):
        p = pyro.param("p", torch.tensor(0.3), constraint=dist.constraints.unit_interval)
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Bernoulli(p))
            pyro.sample("obs", dist.Normal(2.0 * z, 1.0), obs=y)

    y = X[:, 0]
    for objective in (ELBO(), Renyi(num_particles=2)):
        settings = {"objective": objective, "batch_size": B, "num_steps": 400, "early_stop": False}
        fit = lvm.fit(shares, y, SVI(learning_rate_decay=0.002, **settings))
        p = float(fit.params["p"])
        value = np.log((1 - p) * stats.norm.pdf(y) + p * stats.norm.pdf(y, 2.0)).sum()
        assert fit.evidence.nats == pytest.approx(value, rel=1e-12)
        assert fit.evidence.std_error == 0
        assert "given p" in str(fit.evidence)


@pytest.mark.parametrize("backend", BACKENDS)
def test_too_many_local_draws_are_not_kept(backend: str, monkeypatch: Any) -> None:
    """An amortised guide that is the exact posterior of z given m: the bound of any batch is known.

    x = m + z + noise with m, z, noise standard normal: q(m) is at its start, and the bound is a sum over
    data that is checked by the one from weighed draws.
    """
    fit, passes = (None, None)
    for limit in (10**9, 10):
        monkeypatch.setattr(_rows, "AT_ONCE", limit)
        settings = {"batch_size": B, "num_steps": 20, "early_stop": False, "num_draws": 400, "window": 10}
        found = lvm.fit(LOCAL, X[:, 0], SVI(backend=backend, learning_rate=1e-12, **settings))
        fit, passes = (found, passes) if limit > 10 else (fit, found)
    assert "z" in fit.posterior
    assert set(passes.posterior) == {"m"}
    assert passes.posterior["m"].shape == (1, 400)
    errors = np.hypot(fit.evidence.std_error, passes.evidence.std_error)
    assert_within(passes.evidence.nats, fit.evidence.nats, errors)
    assert passes.evidence.std_error < 5.0


# ---- programs at a few rows ----------------------------------------------------------------------------


def test_sites_are_those_of_all_rows(monkeypatch: Any) -> None:
    from ppl_lvm.backends import _few_rows

    monkeypatch.setattr(_few_rows, "MANY", 50)
    rng = np.random.default_rng(0)
    big = {
        "GaussianMixture": (models.GaussianMixture(3), rng.normal(size=(200, 2))),
        "regression": (regression, line(200)),
    }
    for model, data in big.values():
        few, whole = prepare(model, data, few_rows=True), prepare(model, data)
        assert few.num_data == whole.num_data == 200
        assert few.batched == whole.batched
        for name, site in whole.sites.items():
            other = few.sites[name]
            assert (other.shape, other.plates, other.local) == (site.shape, site.plates, site.local)


def test_programs_that_need_all_rows_get_them(monkeypatch: Any) -> None:
    from ppl_lvm.backends import _few_rows

    monkeypatch.setattr(_few_rows, "MANY", 50)

    def grouped(y, group):
        size = int(group.max()) + 1  # another number of groups for other rows
        with pyro.plate("group", size):
            mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu[group], 1.0), obs=y)

    data = {"y": np.zeros(200), "group": np.arange(200)}
    assert prepare(grouped, data, few_rows=True).sites["mu"].shape == (200,)

    def fixed(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 200):
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)

    assert prepare(fixed, np.zeros(200), few_rows=True).num_data == 200


@pytest.mark.parametrize(("batch_size", "steps"), [(100, 3), (66, 9), (199, 3), (300, 3)])
def test_an_epoch_has_the_steps_of_its_batches(batch_size: int, steps: int) -> None:
    """Rows that do not fill a batch are left out of an epoch, and take no step of their own."""
    assert SVI(num_epochs=3, batch_size=batch_size).steps_for(prepare(regression, line(199))) == steps
