"""Guides by name that treat latents by datum, ``"structured"`` and ``"amortized"``: exact where they should
be, the same on both backends, on minibatches, at other data, from files."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import SCHOOLS, assert_within
from pyro.ops.indexing import Vindex

import ppl_lvm as lvm
from ppl_lvm import ELBO, NUTS, SVI, Amortized, ImportanceSampling, Renyi, Stream, models
from ppl_lvm.backends._dependences import dependences
from ppl_lvm.engines import _rows
from ppl_lvm.fitting import prepare
from tests.datum_guide_cases import BETWEEN, MIXED, NOISE, REPEATS, N, Y, effects, exact_effects, mixed

BACKENDS = ("pyro", "numpyro")
LINEAR = Amortized(num_layers=0)
SETTLED = {
    "num_steps": 1500,
    "learning_rate": 0.05,
    "learning_rate_decay": 0.002,
    "num_draws": 4000,
    "early_stop": False,
}


# ---- the structure -------------------------------------------------------------------------------


def chain(y: Any) -> None:
    """a -> b -> c, d on its own, and two roots with a child that is seen."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(a, 1.0))
    c = pyro.deterministic("c", 2 * b)
    pyro.sample("d", dist.Normal(0.0, 1.0))
    e = pyro.sample("e", dist.Normal(0.0, 1.0))
    f = pyro.sample("f", dist.Normal(0.0, 1.0))
    pyro.factor("push", -c * e)
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(e + f, 1.0), obs=y)


def labelled(y: Any) -> None:
    """A label outside the data plate ties a and b together once it is summed out."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    pyro.sample("c", dist.Normal(0.0, 1.0))
    label = pyro.sample("label", dist.Categorical(torch.tensor([0.5, 0.5])))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(torch.where(label == 0, a, b), 1.0), obs=y)


def schools(y: Any, sigma: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    top = pyro.sample("top", dist.Normal(mu, 1.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(pyro.deterministic("theta", mu + tau * z), sigma), obs=y)
        pyro.sample("other", dist.Normal(top, 1.0), obs=y)


def test_sites_depend_on_what_the_posterior_ties_them_to() -> None:
    """Neighbours by hand: c and the factor join b and e, the datum e and f, the label a and b."""
    found = dependences(prepare(chain, np.zeros(2)))
    assert found.outer == ("a", "b", "d", "e", "f")
    assert found.parents == ((), ("a",), (), ("b",), ("e",))
    assert dependences(prepare(labelled, np.zeros(2))).parents == ((), ("a",), ())
    found = dependences(prepare(schools, SCHOOLS))
    assert found.inner == ("z",)
    assert found.shared == ("mu", "tau")  # top has no factor with z
    assert found.parents == ((), ("mu",), ("mu",))


def test_a_program_that_cannot_be_looked_through_keeps_all_dependences(monkeypatch: Any) -> None:
    from ppl_lvm.backends import _pyro_graph

    def refused(problem: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr(_pyro_graph, "trace_nodes", refused)
    assert dependences(prepare(chain, np.zeros(2))).parents[2] == ("a", "b")


# ---- one density on both backends ----------------------------------------------------------------


def on_both(family: Any) -> tuple[Any, Any, Any, dict[str, np.ndarray], Any]:
    """The JAX guide, the Pyro one with its problem, params that differ from the start, shapes by site."""
    import jax
    import jax.numpy as jnp

    from ppl_lvm.backends._jax_guides import build_guide
    from ppl_lvm.backends._pyro_datum_guides import DatumGuide
    from ppl_lvm.backends.density import Density
    from ppl_lvm.backends.session import torch_session
    from ppl_lvm.families import family_of

    problem = prepare(mixed, MIXED)
    shapes = {"parts": (2,), "rate": (2,), "pair": (4, 1, 2), "size": (4, 2)}
    unused: Any = None
    density = Density(unused, unused, unused, unused, unused, unused, unused, unused, shapes)
    guide = build_guide(problem, density, family, {}, jnp.zeros(density.size))
    rng = np.random.default_rng(1)
    start = guide.init(jax.random.key(0))
    params = {k: np.asarray(v) + 0.3 * rng.normal(size=v.shape) for k, v in start.items()}
    with torch_session(0, "float64"):
        other = DatumGuide(problem, family_of(family), {})
    own = {k: tuple(v.shape) for k, v in other._parameters.items()}
    assert own == {k: v.shape for k, v in params.items()}
    for name, value in other._parameters.items():
        value.data.copy_(torch.as_tensor(params[name]))
    return guide, problem, other, params, shapes


@pytest.mark.parametrize("family", ["structured", Amortized(num_hidden=5)], ids=["structured", "amortized"])
def test_one_set_of_params_is_one_density(family: Any) -> None:
    """log q of JAX's draws: at their values on JAX, as the normal of their own covariance, and on Pyro."""
    import jax
    import jax.numpy as jnp
    from torch.distributions import biject_to

    from ppl_lvm.backends import _pyro_guide
    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import jax_session, torch_session

    with jax_session("float64"):
        guide, problem, other, params, shapes = on_both(family)
        arrays = {k: jnp.asarray(v) for k, v in problem.arguments.items()}

        def one(key: Any) -> Any:
            z, (rest, local) = guide.draw(params, key, arrays)
            return z, rest, local, guide.log_prob(params, z, arrays)

        z, rest, local, at = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 20_000))
        z = {k: np.array(v) for k, v in z.items()}
        log_q = np.asarray(rest + local.sum(-1))
    assert local.shape == (20_000, 4)  # by datum
    np.testing.assert_allclose(at, log_q, rtol=1e-10)
    flat = np.concatenate([z[k].reshape(20_000, -1) for k in shapes], 1)
    size, cov = flat.shape[1], np.cov(flat.T)
    gap = flat[:4] - flat.mean(0)
    quadratic = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(cov), gap)
    normal = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * cov)[1])
    # of the covariance of m draws, the quadratic form has an error of sqrt(2 / m) of itself, its mean one of
    # sqrt(q / m), and the log determinant one of sqrt(2 d / m)
    error = np.sqrt((2 * quadratic**2 / 4 + quadratic + 2 * size / 4) / len(flat))
    assert_within(log_q[:4], normal, error)
    with torch_session(0, "float64"):
        values, wanted = {}, log_q[:4].copy()
        for name in shapes:
            transform, free = biject_to(problem.sites[name].constraint), torch.as_tensor(z[name][:4])
            values[name] = transform(free).numpy()
            jacobian = transform.log_abs_det_jacobian(free, transform(free))
            wanted -= jacobian.reshape(4, -1).sum(-1).numpy()
        np.testing.assert_allclose(_pyro_guide.log_q_at(problem, other, {}, values), wanted, rtol=1e-10)
        mine, own = _pyro_guide.draw(problem, other, {}, 50)
        np.testing.assert_allclose(_pyro_guide.log_q_at(problem, other, {}, mine), own, rtol=1e-10)
        with torch.no_grad():
            single, own = _pyro_guide._draw_one(problem, other, to_torch(problem.arguments))
        again = _pyro_guide.log_q_at(problem, other, {}, {k: v.numpy() for k, v in single.items()})
        np.testing.assert_allclose(again, own.numpy(), rtol=1e-10)


# ---- exact where the posterior is Gaussian of that structure --------------------------------------


@functools.cache
def fitted(backend: str, family: Any, batch_size: int | None = None, steps: int = 1500) -> lvm.Fit:
    """The random effects, a fit that tests share."""
    settings = {**SETTLED, "num_steps": steps, "objective": ELBO(num_particles=4 if steps == 1500 else 1)}
    return lvm.fit(effects, Y, SVI(backend=backend, guide=family, batch_size=batch_size, **settings), seed=2)


def draws_of(fit: lvm.Fit) -> np.ndarray:
    """(draws, 1 + n): mu, then z."""
    return np.concatenate([fit.posterior["mu"].values[0][:, None], fit.posterior["z"].values[0]], 1)


EXACT = [
    pytest.param("numpyro", "structured", None, id="structured-numpyro"),
    pytest.param("numpyro", LINEAR, 3, id="amortized-numpyro"),
    pytest.param("pyro", "structured", None, id="structured-pyro", marks=pytest.mark.slow),
    pytest.param("pyro", LINEAR, 3, id="amortized-pyro", marks=pytest.mark.slow),
    pytest.param("numpyro", "amortized", 4, id="network-numpyro", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "family", "batch_size"), EXACT)
def test_random_effects_are_exact(backend: str, family: Any, batch_size: int | None) -> None:
    """Means, variances and the correlations with mu, that mean field drops; and so is the bound."""
    fit = fitted(backend, family, batch_size)
    mean, precision, evidence = exact_effects(Y)
    covariance = np.linalg.inv(precision)
    sd = np.sqrt(np.diag(covariance))
    assert fit.evidence is not None
    short = evidence - fit.evidence.nats
    assert -4 * fit.evidence.std_error - 1e-9 < short < 0.05 + 4 * fit.evidence.std_error
    # what the bound is short of is KL(q || p): a mean off by delta sds costs delta^2 / 2 of it, an sd off by
    # a factor of 1 + delta costs delta^2
    room = math.sqrt(2 * (max(short, 0.0) + 4 * fit.evidence.std_error))
    draws = draws_of(fit)
    size = len(draws)
    assert_within(draws.mean(0) / sd, mean / sd, 1 / math.sqrt(size) + room / 4)
    assert_within(np.log(draws.std(0)), np.log(sd), 1 / math.sqrt(2 * size) + room / 4)
    wanted = covariance[0, 1:] / (sd[0] * sd[1:])
    assert wanted.min() > 0.2
    assert_within(np.corrcoef(draws.T)[0, 1:], wanted, 1 / math.sqrt(size) + room / 4)


@pytest.mark.slow
def test_mean_field_is_wrong_by_its_known_amount() -> None:
    """Variances 1 / precision, and a bound that is short by half the log of their ratio's determinant."""
    fit = fitted("numpyro", "mean_field")
    _, precision, evidence = exact_effects(Y)
    diagonal = np.diag(precision)
    short = 0.5 * (np.log(diagonal).sum() - np.linalg.slogdet(precision)[1])
    assert fit.evidence is not None
    assert short > 0.05 + 8 * fit.evidence.std_error  # more than what is allowed below on either side
    gap = evidence - short - fit.evidence.nats
    assert -4 * fit.evidence.std_error < gap < 0.05 + 4 * fit.evidence.std_error
    room = math.sqrt(2 * (max(gap, 0.0) + 4 * fit.evidence.std_error))
    draws = draws_of(fit)
    error = 1 / math.sqrt(2 * len(draws)) + room / 4
    assert_within(np.log(draws.std(0)), -0.5 * np.log(diagonal), error)


@pytest.mark.parametrize("family", ["structured", LINEAR], ids=["structured", "amortized"])
def test_what_jax_has_trained_is_the_same_on_pyro(family: Any) -> None:
    """Draws of Pyro's guide with JAX's params have the exact evidence in expectation of their weights."""
    from ppl_lvm.backends import _pyro_guide
    from ppl_lvm.backends._pyro_datum_guides import draws_at
    from ppl_lvm.backends._pyro_density import log_density
    from ppl_lvm.backends.session import torch_session
    from ppl_lvm.families import family_of

    fit = fitted("numpyro", family, None if family == "structured" else 3)
    problem = prepare(effects, Y)
    with torch_session(0, "float64"):
        values = draws_at(problem, family_of(family), fit.params, 500)
        guide = _pyro_guide.build_guide(problem, family, {})
        for name, value in guide._parameters.items():
            value.data.copy_(torch.as_tensor(np.array(fit.params[name])))
        weights = log_density(problem, values, {})[0] - _pyro_guide.log_q_at(problem, guide, {}, values)
    error = weights.std() / math.sqrt(500)
    assert error < 0.01
    assert_within(weights.mean(), fit.evidence.nats, math.hypot(error, fit.evidence.std_error))  # type: ignore[union-attr]  # SVI's


@pytest.mark.parametrize("family", ["structured", LINEAR], ids=["structured", "amortized"])
def test_fits_are_proposals_and_starts(family: Any) -> None:
    fit = fitted("numpyro", family, None if family == "structured" else 3)
    weighed = lvm.fit(effects, Y, ImportanceSampling(num_samples=4000, proposal=fit))
    assert weighed.evidence is not None
    assert weighed.status.details["khat"] < 0.5
    assert_within(weighed.evidence.nats, exact_effects(Y)[2], weighed.evidence.std_error)


@pytest.mark.slow
def test_nuts_starts_from_a_fit() -> None:
    engine = NUTS(num_warmup=60, num_samples=60, num_chains=2)
    chains = lvm.fit(effects, Y, engine, init=fitted("numpyro", LINEAR, 3))
    mean, precision, _ = exact_effects(Y)
    sd = math.sqrt(np.linalg.inv(precision)[0, 0])
    found = chains.summary().loc["mu"]
    assert_within(found["mean"], mean[0], found["mcse_mean"] if "mcse_mean" in found else sd / 3)


# ---- minibatches, other data, many rows ------------------------------------------------------------


def test_latents_of_other_data_come_from_the_encoder() -> None:
    """Given mu, z of a new row is exactly Gaussian; mu has the posterior of the rows of the fit."""
    fit = fitted("numpyro", LINEAR, 3)
    new = np.array([[0.0, 1.0, 2.0], [4.0, 4.0, 4.5], [1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [-3.0, 0.0, 0.0]])
    z = fit.latents(new, num_draws=4000)["z"].values[0]
    precision = 1 / BETWEEN**2 + REPEATS / NOISE**2
    share = 1 / BETWEEN**2 / precision
    mean, own, _ = exact_effects(Y)
    spread = np.linalg.inv(own)[0, 0]
    wanted = share * mean[0] + new.sum(1) / NOISE**2 / precision
    sd = math.sqrt(1 / precision + share**2 * spread)
    short = exact_effects(Y)[2] - fit.evidence.nats  # type: ignore[union-attr]  # SVI's
    room = math.sqrt(2 * (max(short, 0.0) + 4 * fit.evidence.std_error))  # type: ignore[union-attr]  # SVI's
    assert_within(z.mean(0) / sd, wanted / sd, 1 / math.sqrt(4000) + room / 4)
    assert_within(np.log(z.std(0)), math.log(sd), 1 / math.sqrt(8000) + room / 4)


def test_too_many_latents_are_not_kept(monkeypatch: Any) -> None:
    """The bound of all rows in blocks, the last of another shape; the steps are those of the shared fit."""
    whole = fitted("numpyro", LINEAR, 3)
    monkeypatch.setattr(_rows, "AT_ONCE", 10)
    passes = lvm.fit(effects, Y, whole.engine, seed=2)
    assert set(passes.posterior) == {"mu"}
    for name, value in whole.params.items():
        np.testing.assert_array_equal(passes.params[name], value)
    assert passes.meta["translation"]["passed"]
    assert passes.evidence is not None
    assert whole.evidence is not None
    errors = math.hypot(passes.evidence.std_error, whole.evidence.std_error)
    assert 4 * errors < 0.5 * abs(whole.evidence.nats) / N  # shows half a row too few or too many
    assert_within(passes.evidence.nats, whole.evidence.nats, errors)
    assert passes.latents(num_draws=5)["z"].shape == (1, 5, N)


@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def test_a_stream_trains_an_encoder(backend: str) -> None:
    settings = {**SETTLED, "num_steps": 20, "window": 10, "num_draws": 50}
    stream = Stream([Y[:3], Y[3:6], Y[6:]], num_data=N)
    fit = lvm.fit(effects, stream, SVI(backend=backend, guide=LINEAR, batch_size=3, **settings))
    assert set(fit.posterior) == {"mu"}
    assert fit.evidence is not None
    assert np.isfinite(fit.evidence.nats)
    assert fit.latents(Y[:2], num_draws=5)["z"].shape == (1, 5, 2)


def two_kinds(y: Any) -> None:
    """A label of each datum, summed out, beside its continuous latent."""
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        label = pyro.sample("label", dist.Categorical(torch.tensor([0.4, 0.6])))
        z = pyro.sample("z", dist.Normal(0.0, 0.5))
        pyro.sample("obs", dist.Normal(Vindex(loc)[..., label] + z, 1.0), obs=y)


STEPS = [
    pytest.param("pyro", "structured", None, id="structured-pyro"),
    pytest.param("pyro", LINEAR, 2, id="amortized-pyro"),
    pytest.param("numpyro", LINEAR, 2, id="amortized-numpyro", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "family", "batch_size"), STEPS)
def test_steps_estimate_the_bound_of_the_draws(backend: str, family: Any, batch_size: int | None) -> None:
    """The objective of steps that go nowhere, by the library's enumeration and scaled from batches, averages
    to the mean log weight of the draws at all data."""
    settings = {**SETTLED, "num_steps": 400, "learning_rate": 1e-9, "num_draws": 1000, "window": 10}
    start = {"loc": np.array([-1.0, 1.0])}
    engine = SVI(backend=backend, guide=family, batch_size=batch_size, **settings)
    fit = lvm.fit(two_kinds, Y[:, 0], engine, init=start)
    losses = fit.groups["optimization"]["loss"].values[0]
    assert fit.evidence is not None
    error = math.hypot(losses.std() / math.sqrt(len(losses)), fit.evidence.std_error)
    assert error < 1.0
    assert_within(-losses.mean(), fit.evidence.nats, error)


def shifts(y: Any) -> None:
    """Every latent is local, so that each datum has a bound of its own."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


RENYI = [
    pytest.param("pyro", LINEAR, id="amortized-pyro"),
    pytest.param("numpyro", LINEAR, id="amortized-numpyro", marks=pytest.mark.slow),
    pytest.param("pyro", "structured", id="structured-pyro", marks=pytest.mark.slow),
    pytest.param("numpyro", "structured", id="structured-numpyro", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "family"), RENYI)
def test_renyi_bounds_by_datum(backend: str, family: Any) -> None:
    """At the start, far from the posterior: of two particles a low bound, of many closer to the evidence."""
    y = Y[:, 0]
    exact = float(-0.25 * (y**2).sum() - 0.5 * N * math.log(2 * math.pi * 2))
    batch = 4 if family == LINEAR else None
    found = []
    for particles in (2, 50):
        engine = SVI(
            backend=backend,
            guide=family,
            batch_size=batch,
            objective=Renyi(alpha=0.0, num_particles=particles),
            num_steps=2,
            learning_rate=1e-6,
            num_draws=500,
            window=10,
        )
        found.append(lvm.fit(shifts, y, engine, init={"z": 0.5 * y}).evidence)
    low, high = found
    assert low.nats + 4 * low.std_error < high.nats < exact + 4 * high.std_error


@pytest.mark.slow
def test_explicit_ppca_in_batches_comes_to_the_bound_of_all_rows() -> None:
    """The zoo's model with z as a site, of which the encoder's means are those of the exact posterior."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 1)) @ np.array([[2.0, -1.0, 1.5]]) + 0.5 * rng.normal(size=(200, 3))
    model = models.PPCA(1, collapsed=False, keep_latents=False)
    fits = {}
    for size in (None, 50):
        settings = {**SETTLED, "num_steps": 4000, "num_draws": 1000}
        engine = SVI(backend="numpyro", guide=LINEAR, batch_size=size, **settings)
        fits[size] = lvm.fit(model, x, engine)
    whole, parts = (fits[k].evidence for k in fits)
    assert_within(parts.nats, whole.nats, math.hypot(parts.std_error, whole.std_error))
    z = fits[50].latents(x, num_draws=400)["z"].values[0, ..., 0]
    exact, sd = fits[50].transform(x, return_std=True)
    collapsed = lvm.fit(models.PPCA(1), x, SVI(backend="numpyro", guide="full_rank", **SETTLED))
    evidence = lvm.fit(models.PPCA(1), x, ImportanceSampling(num_samples=4000, proposal=collapsed)).evidence
    assert evidence is not None
    # What the bound is short of is KL(q || p), of which a mean of z that is off by delta sds takes
    # delta^2 / 2; means of s draws are off by an sd / sqrt(s) besides.
    error = math.hypot(evidence.std_error, parts.std_error)
    assert evidence.nats - parts.nats > -4 * error
    room = 2 * (evidence.nats - parts.nats + 4 * error)
    noise = (1 + 4 * math.sqrt(2 / len(x))) * len(x) / len(z)
    off = float((((z.mean(0) - exact[:, 0]) / sd[:, 0]) ** 2).sum())
    assert off < room + noise + 2 * math.sqrt(room * noise)
    assert room + noise < 0.1 * len(x)  # shows means that are off by a third of an sd


# ---- files -----------------------------------------------------------------------------------------

LOADING = """
import json, sys
import ppl_lvm as lvm
from tests.datum_guide_cases import Y, effects

out = {}
for path in sys.argv[1:]:
    fit = lvm.load(path, model=effects)
    weighed = lvm.fit(effects, Y, lvm.ImportanceSampling(num_samples=100, proposal=fit), seed=5)
    out[path] = [weighed.evidence.nats, float(weighed.groups["proposal"]["z"].values.sum())]
    if "encoder_skip" in "".join(fit.params):
        out[path].append(float(fit.latents(Y[:2], num_draws=5, seed=1)["z"].values.sum()))
print(json.dumps(out))
"""


SAVED = {
    "a-day": [("numpyro", "structured", None, 1500), ("pyro", Amortized(num_hidden=4, num_layers=1), 3, 20)],
    "others": [("pyro", "structured", None, 20), ("numpyro", Amortized(num_hidden=4), 3, 20)],
}


@pytest.mark.parametrize("which", ["a-day", pytest.param("others", marks=pytest.mark.slow)])
def test_fits_come_back_from_disk_in_a_fresh_process(which: str, tmp_path: Path) -> None:
    """Draws, their densities and the encoder, before any step is run there."""
    fits = [fitted(*case) for case in SAVED[which]]
    paths = {str(fit.save(tmp_path / f"{i}")): fit for i, fit in enumerate(fits)}
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *paths],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for path, fit in paths.items():
        here = lvm.fit(effects, Y, ImportanceSampling(num_samples=100, proposal=fit), seed=5)
        assert here.evidence is not None
        wanted = [here.evidence.nats, float(here.groups["proposal"]["z"].values.sum())]
        if fit.engine.guide != "structured":
            wanted.append(float(fit.latents(Y[:2], num_draws=5, seed=1)["z"].values.sum()))
        assert found[path] == pytest.approx(wanted, rel=1e-9)


# ---- refusals --------------------------------------------------------------------------------------


def plain(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


def one_by_one(y: Any) -> None:
    for i in pyro.plate("data", len(y)):
        z = pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
        pyro.sample(f"obs_{i}", dist.Normal(z, 1.0), obs=y[i])


def unseen(y: Any) -> None:
    with pyro.plate("group", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(z.sum(-1), 1.0), obs=y)


def bounded(y: Any) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Uniform(y - 1.0, y + 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


def of_a_constant() -> None:
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=torch.zeros(3))


def test_refusals() -> None:
    y = Y[:, 0]
    refused: list[tuple[Any, Any, dict[str, Any], str]] = [
        (plain, y, {}, "continuous latents in its data plate.*plain has none inside it; use guide='struct"),
        (models.GaussianMixture(2), Y, {}, "has only \\['assignment'\\] inside it, discrete and summed out"),
        (lvm.Model(unseen, data_plate="group"), y, {}, "plate 'group' of .'z'. has no observed site"),
        (of_a_constant, {}, {}, "finds no argument of of_a_constant along its data plate"),
        (bounded, y, {"batch_size": 2}, "supports of .'z'. differ between data.*numpyro"),
    ]
    for model, data, settings, words in refused:
        reason = SVI(guide="amortized", **settings).unsupported(model, data)
        assert reason is not None
        with pytest.raises(ValueError, match=f"(?s)SVI: .*{words}"):
            lvm.fit(model, data, SVI(guide="amortized", **settings))
    with pytest.raises(ValueError, match="use guide='amortized', or an amortised guide of your own"):
        lvm.fit(effects, Y, SVI(guide="structured", batch_size=2))
    with pytest.raises(ValueError, match="no bound while latents outside the data plate"):
        lvm.fit(effects, Y, SVI(guide="amortized", batch_size=2, objective=Renyi()))
    with pytest.raises(ValueError, match=r"latents: .*guide='amortized'"):
        fitted("numpyro", "structured").latents(Y[:2])
    for field, value in {"num_hidden": 0, "num_layers": -1}.items():
        with pytest.raises(ValueError, match=f"^{field}: expected an integer of at least"):
            Amortized(**{field: value})
    with pytest.raises(TypeError, match=r"Amortized\(...\)"):
        SVI(guide=3)  # type: ignore[arg-type]
