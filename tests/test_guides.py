"""Guide families by name on both backends: a Gaussian with a known answer, points, flows, files."""

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

import ppl_lvm as lvm
from ppl_lvm import ELBO, MAP, SVI, Flow, ImportanceSampling, Laplace, LowRank, Pathfinder, Renyi
from ppl_lvm.engines._jax_pathfinder import follow
from tests.helpers import assert_within

BACKENDS = ("pyro", "numpyro")
X = np.linspace(0.0, 2.0, 9)
DATA = {"x": X, "y": 0.5 + 1.5 * X + 0.3 * np.cos(7 * X)}
NOISE = 0.5
GAUSSIANS = ("mean_field", "full_rank", LowRank(2), "structured")
SPREADS = (*GAUSSIANS, "laplace", "flow", "spline")
# Steps on Pyro take seconds: of its families those of a day's tests are elsewhere too (test_plain_functions).
EACH = [
    pytest.param(b, f, id=f"{f}-{b}", marks=[pytest.mark.slow] if b == "pyro" and f != "laplace" else [])
    for b in BACKENDS
    for f in SPREADS
]
BOTH = [pytest.param("pyro", marks=pytest.mark.slow), "numpyro"]


def line(x: Any, y: Any) -> None:
    """A Gaussian posterior of correlation -0.8: the exact answer is two lines of algebra."""
    level = pyro.sample("level", dist.Normal(0.0, 2.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(level + slope * x, NOISE), obs=y)


def exact_line() -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior mean and precision, and the log evidence."""
    design = np.stack([np.ones_like(X), X], 1)
    precision = np.eye(2) / 4 + design.T @ design / NOISE**2
    mean = np.linalg.solve(precision, design.T @ DATA["y"]) / NOISE**2
    covariance = 4 * design @ design.T + NOISE**2 * np.eye(len(X))
    y = DATA["y"]
    quadratic = y @ np.linalg.solve(covariance, y)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return mean, precision, float(-0.5 * (quadratic + log_det))


def rate(y: Any) -> None:
    """Gamma(2, 1) and Poisson: the posterior is Gamma(2 + sum y, 1 + n)."""
    value = pyro.sample("value", dist.Gamma(2.0, 1.0))
    pyro.deterministic("twice", 2.0 * value)
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Poisson(value), obs=y)


COUNTS = np.array([1.0, 0.0, 2.0])
SHAPE, INVERSE_SCALE = 5.0, 4.0


def two_groups(y: Any) -> None:
    """Two components with their labels summed out, by which both backends enumerate."""
    with pyro.plate("component", 2):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        label = pyro.sample("label", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("obs", dist.Normal(loc[label], 1.0), obs=y)


@functools.cache
def fitted(backend: str, family: Any) -> lvm.Fit:
    """The line by a family, a fit that tests share.

    The optimiser's own noise goes with the last step size: 1e-4 leaves well under 2 % of it. Of one draw a
    step the noise of the last steps alone is some 3 % of an sd; a mode is sought without draws.
    """
    many = family != "laplace" and (backend == "pyro" or family in GAUSSIANS)
    particles = 10 if many else 1
    engine = SVI(
        backend=backend,
        guide=family,
        num_steps=2000,
        learning_rate=0.05 if backend == "numpyro" else 0.1,
        learning_rate_decay=0.002,
        num_draws=20_000,
        early_stop=family == "laplace",
        objective=ELBO(num_particles=particles),
    )
    return lvm.fit(line, DATA, engine, seed=3)


@pytest.mark.parametrize(("backend", "family"), EACH)
def test_a_correlated_gaussian(family: Any, backend: str) -> None:
    fit = fitted(backend, family)
    mean, precision, evidence = exact_line()
    covariance = np.linalg.inv(precision)
    alone = family == "mean_field"
    wanted = 1 / np.sqrt(np.diag(precision)) if alone else np.sqrt(np.diag(covariance))
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1]) if alone else 0.0
    error = fit.evidence.std_error
    short = evidence - gap - fit.evidence.nats
    assert -4 * error - 1e-9 < short < 0.02 + 4 * error
    draws = np.stack([fit.posterior[k].values[0] for k in ("level", "slope")])
    size = draws.shape[1]
    # The Gaussian at the mode is exact, so that only the draws' error is left; 2 % for what is trained.
    room = 0.0 if family == "laplace" else 0.02
    assert_within(draws.mean(1) / wanted, mean / wanted, 1 / math.sqrt(size) + room / 4)
    assert_within(np.log(draws.std(1)), np.log(wanted), 1 / math.sqrt(2 * size) + room / 4)
    rho = 0.0 if alone else covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert_within(np.corrcoef(draws)[0, 1], rho, 1 / math.sqrt(size) + room / 4)


@pytest.mark.parametrize(("backend", "family"), EACH)
def test_densities_of_given_points_are_those_of_the_draws(family: Any, backend: str) -> None:
    """log q comes one way with a draw and another way at its value: through the inverse of a flow."""
    fit = fitted(backend, family)
    values = {k: fit.posterior[k].values[0][:200] for k in ("level", "slope")}
    assert fit.sample_stats is not None
    expected = fit.sample_stats["log_q"].values[0][:200]
    np.testing.assert_allclose(log_q_at(fit, values), expected, rtol=0, atol=1e-8)


def log_q_at(fit: lvm.Fit, values: dict[str, np.ndarray]) -> np.ndarray:
    """The density of a fitted guide at given values, as importance sampling evaluates it."""
    problem = fit.problem
    assert problem is not None
    if fit.backend == "pyro":
        from ppl_lvm.backends import _pyro_guide
        from ppl_lvm.backends.session import torch_session
        from ppl_lvm.engines._pyro_importance import rebuild_guide

        with torch_session(0, problem.dtype):
            guide, held = rebuild_guide(problem, fit)
            return _pyro_guide.log_q_at(problem, guide, held, values)
    import jax.numpy as jnp

    from ppl_lvm.backends._jax_guides import build_guide, guide_key
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends.session import jax_session
    from ppl_lvm.engines._jax_weights import guide_functions

    with jax_session(problem.dtype):
        density, data = density_of(problem)
        spec = fit.engine.guide
        guide = build_guide(problem, density, spec, {}, jnp.zeros(density.size))
        functions = guide_functions(guide_key(problem, spec), density, guide, data, {})
        return functions.log_q_at({k: jnp.asarray(v) for k, v in fit.params.items()}, values)


LOADING = """
import json, sys
import numpy as np
import ppl_lvm as lvm
from tests.test_guides import DATA, line

out = {}
for path in sys.argv[1:]:
    fit = lvm.load(path, model=line)
    weighed = lvm.fit(line, DATA, lvm.ImportanceSampling(num_samples=500, proposal=fit), seed=5)
    out[path] = [weighed.evidence.nats, weighed.evidence.std_error]
print(json.dumps(out))
"""


@pytest.mark.parametrize("backend", BOTH)
def test_every_family_comes_back_from_disk_in_a_fresh_process(backend: str, tmp_path: Path) -> None:
    """Nothing has been run there when the params are loaded; the guide then weighs to the same figure."""
    fits = [fitted(backend, family) for family in SPREADS]
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
        here = lvm.fit(line, DATA, ImportanceSampling(num_samples=500, proposal=fit), seed=5)
        assert here.evidence is not None
        assert found[path] == pytest.approx([here.evidence.nats, here.evidence.std_error], rel=1e-9)
        if fit.engine.guide != "mean_field":
            assert_within(np.array(found[path][0]), exact_line()[2], found[path][1] + 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_points(backend: str, tmp_path: Path) -> None:
    """The mode of Gamma(a, b) is (a - 1) / b in its own parametrisation."""
    for engine in (MAP(backend=backend), SVI(backend=backend, guide="delta", num_steps=1500)):
        fit = lvm.fit(rate, COUNTS, engine)
        np.testing.assert_allclose(fit.params["value"], (SHAPE - 1) / INVERSE_SCALE, rtol=1e-5)
        np.testing.assert_allclose(fit.params["twice"], 2 * fit.params["value"])
        at_mode = -3.0 - math.log(2.0)  # sum of log Poisson(y; 1)
        assert fit.log_likelihood == pytest.approx(at_mode, abs=1e-6)
        assert fit.num_parameters == 1
        assert fit.status.ok
        assert fit.evidence is None
        with pytest.raises(ValueError, match="a point, which has no posterior"):
            fit.posterior  # noqa: B018
        again = lvm.load(fit.save(tmp_path / type(engine).__name__), model=rate)
        assert again.params["value"] == fit.params["value"]
        assert again.engine == engine
        assert fit.sample_predictive(num_draws=20)["obs"].shape == (1, 20, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_laplace_of_a_gamma(backend: str) -> None:
    """In log value the mode is log(a / b) and the curvature -a; the evidence is Stirling's."""
    fits = [
        lvm.fit(rate, COUNTS, engine)
        for engine in (Laplace(backend=backend), SVI(backend=backend, guide="laplace", num_steps=1500))
    ]
    for fit in fits:
        own = {k.split(".")[-1]: np.asarray(v) for k, v in fit.params.items()}
        np.testing.assert_allclose(own["loc"], [math.log(SHAPE / INVERSE_SCALE)], atol=1e-6)
        scale = np.exp(own["log_scale"]) if "log_scale" in own else own["scale"]
        np.testing.assert_allclose(scale, [1 / math.sqrt(SHAPE)], rtol=1e-5)
        stirling = 0.5 * math.log(2 * math.pi / SHAPE) + SHAPE * (math.log(SHAPE) - 1) - math.lgamma(SHAPE)
        true = math.lgamma(SHAPE) - SHAPE * math.log(INVERSE_SCALE) - math.log(2.0)  # and y! = 2
        assert fit.status.details["laplace_evidence"] == pytest.approx(true + stirling, abs=1e-6)
        weighed = lvm.fit(rate, COUNTS, ImportanceSampling(num_samples=1000, proposal=fit))
        assert weighed.evidence is not None
        assert_within(np.array(weighed.evidence.nats), true, weighed.evidence.std_error)


@pytest.mark.parametrize("backend", BACKENDS)
def test_modes_with_labels_summed_out(backend: str) -> None:
    """Both backends find one mode of the marginal; a numerical optimum of a NumPy formula says where."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp
    from scipy.stats import norm

    y = np.array([-2.1, -1.7, -2.4, 1.8, 2.2, 2.9, 2.0, 1.5])

    def loss(loc: np.ndarray) -> float:
        parts = norm.logpdf(y[:, None], loc, 1.0) + np.log([0.3, 0.7])
        return float(-logsumexp(parts, axis=1).sum() - norm.logpdf(loc, 0.0, 3.0).sum())

    ends = [minimize(loss, start, tol=1e-12) for start in ([-2.0, 2.0], [2.0, -2.0])]
    best = min(ends, key=lambda e: e.fun)
    fit = lvm.fit(two_groups, y, MAP(backend=backend, num_init=6))
    np.testing.assert_allclose(fit.params["loc"], best.x, atol=1e-4)


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("kind", ["autoregressive", "spline"])
def test_flows_of_one_coordinate(kind: str, backend: str) -> None:
    """An autoregressive flow of one number is a Gaussian of its logarithm; a spline does better."""
    engine = SVI(backend=backend, guide=Flow(kind), num_steps=1000, num_draws=2000, learning_rate=0.05)
    fit = lvm.fit(rate, COUNTS, engine)
    true = math.lgamma(SHAPE) - SHAPE * math.log(INVERSE_SCALE) - math.log(2.0)
    assert fit.evidence is not None
    short, error = true - fit.evidence.nats, fit.evidence.std_error
    assert -4 * error < short < 0.05 + 4 * error
    weighed = lvm.fit(rate, COUNTS, ImportanceSampling(num_samples=1000, proposal=fit))
    assert weighed.evidence is not None
    assert_within(np.array(weighed.evidence.nats), true, weighed.evidence.std_error)


def bent(y: Any) -> None:
    """A banana: beyond any Gaussian on the same two coordinates."""
    first = pyro.sample("first", dist.Normal(0.0, 1.0))
    second = pyro.sample("second", dist.Normal(first**2, 0.2))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(second, 5.0), obs=y)


@pytest.mark.parametrize("family", [pytest.param("flow", marks=pytest.mark.slow), "spline"])
def test_a_flow_bends_where_a_gaussian_cannot(family: str) -> None:
    y = np.array([1.0, 2.0])
    runs = {
        guide: lvm.fit(bent, y, SVI(backend="numpyro", guide=guide, num_steps=2000), dtype="float32")
        for guide in ("full_rank", family)
    }
    gaussian, flow = (f.evidence for f in runs.values())
    assert gaussian is not None
    assert flow is not None
    error = math.hypot(gaussian.std_error, flow.std_error)
    assert flow.nats - gaussian.nats > 4 * error
    weighed = lvm.fit(bent, y, ImportanceSampling(proposal=runs[family]), dtype="float32")
    assert weighed.posterior["first"].dtype == np.float32
    assert weighed.evidence is not None
    assert weighed.evidence.nats > flow.nats - 4 * error


def flat(y: Any) -> None:
    """Only the sum is seen, and the priors are flat: no mode."""
    a = pyro.sample("a", dist.Normal(0.0, 1e9))
    b = pyro.sample("b", dist.Normal(0.0, 1e9))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(a + b, 1.0), obs=y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ridge_has_no_laplace_approximation(backend: str) -> None:
    with pytest.raises(ValueError, match=r"^laplace: .* not curved downwards .*use SVI"):
        lvm.fit(flat, COUNTS, Laplace(backend=backend, num_init=1))


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match=r"guide: expected one of \('mean_field', .*'spline', 'structured', "
    ):
        SVI(guide="flows")
    with pytest.raises(ValueError, match=r"^kind: expected one of"):
        Flow("planar")
    with pytest.raises(ValueError, match=r"^rank: expected an integer of at least 1"):
        LowRank(0)
    with pytest.raises(TypeError, match=r"^guide: expected None, one of"):
        SVI(guide=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seeks a mode.*use ELBO"):
        lvm.fit(rate, COUNTS, SVI(guide="laplace", objective=Renyi()))
    point = lvm.fit(rate, COUNTS, MAP(backend="pyro", num_init=1))
    with pytest.raises(ValueError, match="no guide whose density"):
        lvm.fit(rate, COUNTS, ImportanceSampling(proposal=point))


# ---- Pathfinder ----------------------------------------------------------------------------------


def test_pathfinder_finds_a_gaussian_and_its_evidence(tmp_path: Path) -> None:
    fit = lvm.fit(line, DATA, Pathfinder(num_paths=4, num_samples=4000))
    mean, precision, evidence = exact_line()
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    draws = np.stack([fit.posterior[k].values[0] for k in ("level", "slope")])
    size = fit.status.details["ess"]
    assert size > 0.5 * 4000
    assert fit.status.ok
    assert_within(draws.mean(1) / sd, mean / sd, math.sqrt(1 / size + 1 / 4000))  # weights, and resampling
    assert_within(np.log(draws.std(1)), np.log(sd), math.sqrt(0.5 / size + 0.5 / 4000))
    assert fit.evidence is not None
    assert fit.evidence.kind == "estimate"
    assert_within(np.array(fit.evidence.nats), evidence, fit.evidence.std_error)
    again = lvm.load(fit.save(tmp_path / "fit"), model=line)
    engine = ImportanceSampling(num_samples=1000, proposal=again)
    weighed = lvm.fit(line, DATA, engine).evidence
    assert weighed is not None
    assert_within(np.array(weighed.nats), evidence, weighed.std_error)


def test_pathfinder_weighs_two_modes_by_their_mass() -> None:
    """Paths end in both modes, equally often; a sum over a grid says what each weighs."""
    from scipy.special import logsumexp
    from scipy.stats import norm

    y = np.array([-1.2, -0.4, -0.9, 0.6, 1.0, 1.1, 0.3, 0.8])
    grid = np.linspace(-6.0, 6.0, 601)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    total = norm.logpdf(a, 0, 3) + norm.logpdf(b, 0, 3)
    for value in y:
        parts = [norm.logpdf(value, a) + np.log(0.3), norm.logpdf(value, b) + np.log(0.7)]
        total += logsumexp(parts, axis=0)
    evidence = float(logsumexp(total) + 2 * np.log(grid[1] - grid[0]))
    fit = lvm.fit(two_groups, y, Pathfinder(num_paths=8, num_samples=8000), seed=1)
    assert fit.evidence is not None
    assert_within(np.array(fit.evidence.nats), evidence, fit.evidence.std_error)
    below = float(np.exp(logsumexp(total[a < b]) - logsumexp(total)))
    found = float((fit.posterior["loc"].values[0, :, 0] < fit.posterior["loc"].values[0, :, 1]).mean())
    error = math.sqrt(below * (1 - below) * (1 / fit.status.details["ess"] + 1 / 8000))
    assert_within(np.array(found), below, error)


def test_a_path_of_pathfinder_ends_where_the_density_does() -> None:
    """A line search that goes on to its limit at every step took over an hour on a mixture with 20 rows."""
    calls = []

    def cliff(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """log p(x) = 3 x below 1, and no number from there on: uphill leads over the edge."""
        calls.append(flat)
        return (3 * float(flat[0]), np.full(1, 3.0)) if flat[0] < 1 else (math.nan, np.full(1, math.nan))

    path = follow(cliff, np.zeros(1), 60, 10)
    assert len(calls) < 200
    assert path.points.shape == path.slopes.shape == (61, 1)
    assert (path.points < 1).all()
    assert (path.points[path.steps :] == path.points[-1]).all()
    assert np.isfinite(path.slopes).all()
