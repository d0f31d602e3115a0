"""SVI's optimiser: the same on both backends, an optimum that clipping does not move, mirrored draws, and
what is said of a run on minibatches."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from datum_guide_cases import effects
from pyro.distributions.transforms import affine_autoregressive, iterated
from pyro.infer import autoguide
from scipy import optimize, stats
from test_svi_batches import exact_line, line, regression, slopes

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI
from ppl_lvm.fitting import prepare

BACKENDS = ("numpyro", "pyro")


def location(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, 2.0), obs=y)


def exact_location(y: np.ndarray) -> tuple[float, float, float]:
    """Mean and sd of the posterior, and the log evidence."""
    precision = 1 / 100 + len(y) / 4
    mean = y.sum() / 4 / precision
    at_zero = -0.5 * (y @ y) / 4 - len(y) * np.log(2 * np.sqrt(2 * np.pi)) - np.log(10)
    return mean, precision**-0.5, float(at_zero + 0.5 * mean**2 * precision - 0.5 * np.log(precision))


ROWS = 1.0 + 2.0 * np.random.default_rng(0).standard_normal(1_000_000)


# ---- steps ---------------------------------------------------------------------------------------------


def steps_of(backend: str, slopes_: np.ndarray, clip: float | None) -> np.ndarray:
    """Params (t, d) after each of the gradients (t, d), from zero, with sizes that shrink by 1 % a step."""
    out, params = [], np.zeros(slopes_.shape[1])
    if backend == "pyro":
        from ppl_lvm.engines._pyro_adam import Adam

        own = torch.nn.Parameter(torch.tensor(params))
        optimiser = Adam([own], lr=0.1, lrd=0.99, clip_norm=clip, forgetting=0.6)
        for slope in slopes_:
            own.grad = torch.tensor(slope)
            optimiser.step()
            out.append(own.detach().numpy().copy())
        return np.array(out)
    import jax
    import jax.numpy as jnp

    from ppl_lvm.engines._jax_adam import adam

    with jax.enable_x64(True):
        rule = adam(lambda count: 0.1 * 0.99**count, clip, 0.6)
        state, now = rule.init(jnp.asarray(params)), jnp.asarray(params)
        update = jax.jit(rule.update)
        for slope in slopes_:
            change, state = update(jnp.asarray(slope), state)
            now = now + change
            out.append(np.asarray(now))
    return np.array(out)


def cut(given: np.ndarray, clip: float | None) -> np.ndarray:
    """The gradients (t, d) after clipping, by hand."""
    out, square = [], 0.0
    for t, slope in enumerate(given, 1):
        norm = np.linalg.norm(slope)
        limit = (10 * np.sqrt(square) if square else np.inf) if clip is None else clip
        out.append(slope * min(1.0, limit / norm) if norm else slope)
        square += max(1 / t, 0.01) * (min(norm, limit) ** 2 - square)
    return np.array(out)


@pytest.mark.parametrize("clip", [None, 1.5])
def test_steps_are_the_same_on_both_backends_and_clip_as_they_say(clip: float | None) -> None:
    """Gradients of any size, one of them 1e6 times the others, the first ones zero."""
    rng = np.random.default_rng(0)
    given = rng.normal(size=(40, 3)) * np.array([1e-3, 1.0, 30.0])
    given[20] *= 1e6
    given[:3] = 0.0
    by_hand = cut(given, clip)
    assert np.linalg.norm(by_hand[20]) < 1e-3 * np.linalg.norm(given[20])
    wanted = steps_of("pyro", by_hand, np.inf)
    for backend in BACKENDS:
        np.testing.assert_allclose(steps_of(backend, given, clip), wanted, rtol=1e-10)


def test_steps_are_adams_by_its_formulas() -> None:
    """Without anything to clip: the moments as sums over all gradients, by their weights."""
    given = np.random.default_rng(1).normal(size=(12, 2))
    found = steps_of("pyro", given, np.inf)
    number = np.arange(1, 13)
    kept = 1 - number**-0.6
    for t in range(1, 13):
        first = (0.1 * 0.9 ** (t - number[:t])) @ given[:t] / (1 - 0.9**t)
        weights = np.array([(1 - kept[i]) * np.prod(kept[i + 1 : t]) for i in range(t)])
        assert weights.sum() == pytest.approx(1.0, rel=1e-12)  # so that no correction is needed
        change = -0.1 * 0.99 ** (t - 1) * first / (np.sqrt(weights @ given[:t] ** 2) + 1e-8)
        before = found[t - 2] if t > 1 else 0.0
        np.testing.assert_allclose(found[t - 1] - before, change, rtol=1e-10)


# ---- the optimum ---------------------------------------------------------------------------------------


def ratio(fit: lvm.Fit) -> float:
    """The guide's sd over that of the posterior."""
    return float(np.exp(fit.params["log_scale"][0]) / exact_location(ROWS)[1])


# An average of log sds is low by half their variance: 0.013 at steps of 0.03, and in proportion to their
# size; averages are over the second half of steps that shrink to 0.02.
LOW = float(0.013 * (0.02 ** np.linspace(0.5, 1, 100)).mean())


@pytest.mark.parametrize("num_steps", [3000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_million_rows_by_minibatches_come_to_the_exact_posterior(num_steps: int) -> None:
    """3 and 10 passes by batches of 1,000, of which averages see half. The mean of as many rows drawn with
    replacement would have an error of sqrt(1 / 1.5) and sqrt(1 / 5) posterior sds; whole passes have none."""
    mean, sd, log_evidence = exact_location(ROWS)
    settings = {"batch_size": 1000, "num_steps": num_steps, "num_draws": 50}
    fits = [lvm.fit(location, ROWS, SVI(backend="numpyro", **settings), seed=s) for s in range(4)]
    shifts = [(f.params["loc"][0] - mean) / sd for f in fits]
    assert np.sqrt(np.mean(np.square(shifts))) < np.sqrt(1000 / num_steps * 2)
    widths = np.log([ratio(f) for f in fits])
    error = np.std(widths, ddof=1) / 2
    assert error < 0.015
    assert abs(widths.mean() + LOW) < 4 * error + LOW
    for fit, shift in zip(fits, shifts, strict=True):
        loss = 0.5 * (ratio(fit) ** 2 - 1) - np.log(ratio(fit)) + 0.5 * shift**2
        assert abs(fit.evidence.nats - (log_evidence - loss)) < 4 * fit.evidence.std_error + 1e-6


def location_and_scale(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, sigma), obs=y)


SDS = np.array([2.0, np.sqrt(0.5)]) / np.sqrt(len(ROWS))  # of mu and log sigma under the posterior


def wide_starts(**settings: Any) -> np.ndarray:
    """By seed: distances of mu and log sigma from the optimum and widths, in posterior sds, (4, 2, 2)."""
    engine = SVI(backend="numpyro", guide="mean_field", batch_size=1000, num_draws=50, **settings)
    fits = [lvm.fit(location_and_scale, ROWS, engine, seed=s) for s in range(4)]
    best = np.array([ROWS.mean(), np.log(ROWS.std())])
    shifts = [(f.params["loc"] - best) / SDS for f in fits]
    return np.stack([shifts, [np.exp(f.params["log_scale"]) / SDS for f in fits]], axis=1)


def test_first_gradients_do_not_hold_the_last_steps_back() -> None:
    """A guide that starts 100 sds wide and thousands away has first gradients a million times the last."""
    widths = wide_starts()[:, 1]
    errors = np.log(widths).std(0, ddof=1) / 2
    assert (errors < 0.015).all()
    assert (np.abs(np.log(widths).mean(0) + LOW) < 4 * errors + LOW).all()


@pytest.mark.slow
def test_steps_of_a_constant_size_end_beside_the_optimum() -> None:
    """Scatter of mu adds to the spread that sigma is fitted to: its log is high by v / sqrt(2 n) sds, where v
    is the variance of the steps in squared posterior sds, which goes with their size."""
    (default, constant) = (wide_starts(num_steps=10_000, learning_rate_decay=d)[:, 0, 1] for d in (None, 1.0))
    error = np.hypot(default.std(ddof=1), constant.std(ddof=1)) / 2
    assert constant.mean() > 0.3
    assert np.abs(default).max() < 0.2
    assert default.mean() + 4 * error < constant.mean() / 2


def test_a_fixed_norm_of_clipping_widens_the_guide_by_a_known_factor() -> None:
    """The reason why there is none by default. The gradient of a log sd is (r z)**2 - 1, with z a standard
    normal and r the ratio of sds; cut at 0.5 and -0.5 it has mean 0 at another r than 1."""

    def mean_slope(r: float) -> float:
        z = np.linspace(0, 12, 200_001)
        cut = np.clip((r * z) ** 2 - 1, -0.5, 0.5)
        return float(2 * np.trapezoid(cut * stats.norm.pdf(z), z))

    widened = optimize.brentq(mean_slope, 0.5, 5)
    assert widened > 1.2
    settings = {"backend": "numpyro", "batch_size": 1000, "num_draws": 50, "num_steps": 10_000}
    fits = [lvm.fit(location, ROWS, SVI(clip_norm=0.5, **settings), seed=s) for s in range(4)]
    found = np.log([ratio(f) for f in fits])
    error = found.std(ddof=1) / 2
    assert abs(found.mean() + LOW - np.log(widened)) < 4 * error + LOW
    assert found.mean() - 4 * error > 0


# ---- mirrored draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_noise_of_batches_cancels_in_the_gradient_of_widths(backend: str) -> None:
    """Exactly, where all rows have the same curvature; that of the location keeps it."""
    problem = prepare(location, ROWS[:40])
    engine = SVI(backend=backend, guide="mean_field", batch_size=10, learning_rate=0.01, clip_norm=1.0)
    order = np.arange(40).reshape(4, 10)
    found = {}
    for on in (True, False):
        at = slopes(backend, problem, dataclasses.replace(engine, objective=ELBO(mirrored=on)))
        found[on] = np.array([at(rows)[1] for rows in order])
        np.testing.assert_allclose(found[on].mean(0), at(None)[1], rtol=1e-10)
    loc, width = range(2)  # by name: loc before log_scale, locs before scales
    assert np.ptp(found[True][:, width]) < 1e-10 * np.abs(found[True][:, width]).max()
    assert np.ptp(found[False][:, width]) > 0.1 * np.abs(found[False][:, width]).max()
    assert np.ptp(found[True][:, loc]) > 0.1


FAMILIES = ("mean_field", "full_rank", "low_rank", "structured", "amortized")


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_draws_have_their_density(family: str) -> None:
    """On both backends: 2 * centre - z, at the same log q; noise at every coordinate."""
    y = np.random.default_rng(2).normal(size=(4, 2))
    problem = prepare(effects, y)
    _images_on_pyro(problem, family)
    _images_on_jax(problem, family)


def _images_on_pyro(problem: Any, family: str) -> None:
    from pyro import poutine

    from ppl_lvm.backends._pyro_guide import build_guide
    from ppl_lvm.backends._pyro_mirror import Mirror
    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session

    with torch_session(3, "float64"), torch.no_grad():
        guide, args = build_guide(problem, family, {}), to_torch(problem.arguments)
        guide(**args)
        mirrored = Mirror()(guide)
        traces = [poutine.trace(mirrored).get_trace(**args) for _ in range(4)]
        sums = [float(t.log_prob_sum()) for t in traces]
        values = [
            np.concatenate([t.nodes[n]["value"].numpy().ravel() for n in problem.sites if n in t.nodes])
            for t in traces
        ]
    centre = (values[0] + values[1]) / 2
    np.testing.assert_allclose((values[2] + values[3]) / 2, centre, atol=1e-12)
    np.testing.assert_allclose(sums[::2], sums[1::2], rtol=1e-12)
    assert (np.abs(values[0] - centre) > 1e-4).all()
    assert (np.abs(values[0] - values[2]) > 1e-6).all()


def _images_on_jax(problem: Any, family: str) -> None:
    import jax
    import jax.numpy as jnp

    from ppl_lvm.backends._jax_guides import build_guide
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends.session import jax_session

    with jax_session("float64"):
        density, data = density_of(problem)
        guide = build_guide(problem, density, family, {}, jnp.full(density.size, 0.3))
        params = guide.init(jax.random.key(0))
        z, (rest, local) = guide.draw(params, jax.random.key(1), data)
        assert guide.image is not None
        image, again = guide.image(params, jax.random.key(1), data)
        other, _ = guide.image(params, jax.random.key(2), data)
        total = float(rest if local is None else rest + local.sum())
        assert float(guide.log_prob(params, image, data)) == pytest.approx(total, rel=1e-10)
        jax.tree_util.tree_map(np.testing.assert_array_equal, again, (rest, local))
        second = guide.draw(params, jax.random.key(2), data)[0]
        for name in z:
            np.testing.assert_allclose(z[name] + image[name], second[name] + other[name], atol=1e-12)
            assert (np.abs(z[name] - image[name]) > 1e-4).all()


def correlated(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    pair = pyro.sample("pair", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(loc + pair.sum(-1) + weights[..., 0], scale), obs=y)


def chained(lib: Any, y: Any) -> None:
    """Sites that hang on those before, transforms, a triangular matrix, and one of other noise."""
    _, d, array = lib
    sample = lib[0].sample
    tril = array([[0.5, 0.0], [0.3, 0.2]])
    loc = sample("loc", d.Normal(0.3, 0.5))
    scale = sample("scale", d.LogNormal(loc, 0.1 + loc**2))
    sample("pair", d.MultivariateNormal(scale * array([1.0, -1.0]), scale_tril=scale * tril))
    sample("weights", d.Dirichlet(array([2.0, 3.0, 4.0])))


def pyro_chain(y):
    chained((pyro, dist, torch.tensor), y)


def numpyro_chain(y):
    import jax.numpy as jnp
    import numpyro

    chained((numpyro, numpyro.distributions, jnp.array), y)


def noise_behind(values: dict[str, Any]) -> np.ndarray:
    """By hand, from the program above."""
    loc, scale, pair = (np.asarray(values[n]) for n in ("loc", "scale", "pair"))
    tril = np.array([[0.5, 0.0], [0.3, 0.2]])
    gap = np.linalg.solve(scale * tril, pair - scale * np.array([1.0, -1.0]))
    return np.array([(loc - 0.3) / 0.5, (np.log(scale) - loc) / (0.1 + loc**2), *gap])


def test_images_of_programs_have_the_noise_turned_round_on_pyro() -> None:
    from pyro import poutine

    from ppl_lvm.backends._pyro_mirror import Mirror
    from ppl_lvm.backends.session import torch_session

    with torch_session(1, "float64"), torch.no_grad():
        mirrored = Mirror()(pyro_chain)
        traces = [poutine.trace(mirrored).get_trace(torch.zeros(3)) for _ in range(4)]
    noise = [noise_behind({n: s["value"].numpy() for n, s in t.iter_stochastic_nodes()}) for t in traces]
    np.testing.assert_allclose(noise[1], -noise[0], atol=1e-10)
    np.testing.assert_allclose(noise[3], -noise[2], atol=1e-10)
    assert (np.abs(noise[2] - noise[0]) > 1e-3).all()


def test_images_of_programs_have_the_noise_turned_round_on_jax() -> None:
    import jax
    import jax.numpy as jnp

    from ppl_lvm.backends._jax_guides import build_guide
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends.session import jax_session

    problem = prepare(correlated, {"y": np.zeros(3)})
    with jax_session("float64"):
        density, data = density_of(problem)
        guide = build_guide(problem, density, numpyro_chain, {}, jnp.zeros(density.size))
        assert guide.image is not None
        values = []
        for make in (guide.draw, guide.image):
            z, (log_q, _) = make({}, jax.random.key(3), data)
            values.append(density.constrain(z, data, {}))
            assert float(log_q) == pytest.approx(float(guide.log_prob({}, z, data)), rel=1e-10)
    np.testing.assert_allclose(noise_behind(values[1]), -noise_behind(values[0]), atol=1e-10)
    assert (np.abs(values[0]["weights"] - values[1]["weights"]) > 1e-6).all()


@pytest.mark.parametrize("name", ["AutoNormalizingFlow", "AutoMultivariateNormal", "AutoDelta"])
def test_autoguides_of_the_user_are_fitted_on_minibatches(name: str) -> None:
    """Layers of a flow are not inverted: their draws come anew; a point has none."""

    flow = [partial(iterated, 1, affine_autoregressive, hidden_dims=[4])] if "Flow" in name else []
    guide = getattr(autoguide, name)(regression, *flow)
    fit = lvm.fit(regression, line(40), SVI(guide=guide, batch_size=10, num_steps=20, num_draws=10))
    assert np.isfinite(fit.evidence.nats)
    assert callable(guide.model)  # copying it for the fit would have taken its model: it can be used again


def test_noise_of_other_kinds_is_not_turned_round() -> None:
    import numpyro.distributions as ndist

    from ppl_lvm.backends._base_noise import noise_of

    for other in (
        dist.Gamma(2.0, 1.0),
        dist.HalfNormal(1.0),
        ndist.TruncatedNormal(0.0, 1.0, low=0.0),
        ndist.FoldedDistribution(ndist.Normal(0.5, 1.0)),
        dist.StudentT(4.0),
    ):
        assert noise_of(other, 0.7, None) is None  # type: ignore[arg-type]  # never asked to solve


def test_where_mirrored_draws_are_refused() -> None:
    data = line(30)
    for engine in (
        SVI(guide="flow"),
        SVI(guide="delta", batch_size=10),
        SVI(backend="numpyro", guide="spline"),
    ):
        with pytest.raises(ValueError, match="mirrored=True turns the sign of a guide's Gaussian noise"):
            lvm.fit(regression, data, dataclasses.replace(engine, objective=ELBO(mirrored=True)))
    with pytest.raises(TypeError, match="mirrored"):
        ELBO(mirrored="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_mirrored_draws_on_all_rows_come_to_the_same_optimum(backend: str) -> None:
    data = line(60)
    mean, _ = exact_line(data)
    settings = {"num_steps": 600, "window": 50, "num_draws": 50, "early_stop": False}
    fit = lvm.fit(
        regression, data, SVI(backend=backend, guide="mean_field", objective=ELBO(mirrored=True), **settings)
    )
    # in a Gaussian the gradient of the mean has no noise at all: what is left is the last step's size
    names = ("loc",) if backend == "numpyro" else ("AutoNormal.locs.a", "AutoNormal.locs.b")
    found = np.concatenate([np.ravel(fit.params[n]) for n in names])
    np.testing.assert_array_less(np.abs(found - mean), 0.03 * 0.02)


# ---- what is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_gains_hidden_by_noise_are_not_called_convergence(backend: str) -> None:
    """30 steps on 100,000 rows: every step moves the guide by many posterior sds."""
    few = {"batch_size": 100, "num_steps": 40, "window": 10, "num_draws": 20, "early_stop": False}
    fit = lvm.fit(location, ROWS[:100_000], SVI(backend=backend, **few))
    assert fit.status.outcome is lvm.Outcome.MAX_STEPS
    assert fit.status.details["gain_error"] > 1


def test_a_long_run_on_minibatches_is_told_from_a_short_one() -> None:
    """Gains at equal rows and draws see what the objective's own noise (here 600 nats a step) hides."""
    settings = {"backend": "numpyro", "batch_size": 100, "num_draws": 50, "early_stop": False}
    short, long = (lvm.fit(location, ROWS[:20_000], SVI(num_steps=n, **settings)).status for n in (300, 6000))
    assert short.outcome is lvm.Outcome.MAX_STEPS
    assert long.outcome is lvm.Outcome.CONVERGED
    assert abs(long.details["last_gain"]) < 0.2  # the tolerance


@pytest.mark.parametrize(("scale", "guide"), [(1e3, "mean_field"), (1e8, "delta")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_too_small_for_the_data_are_not_called_convergence(
    scale: float, guide: str, backend: str
) -> None:
    """Data times 1e3: the mean lies 1e3 away, 600 steps are 18 units long together, and gain little each. A
    point at 1e8 gains 1e-6 nats: so little that no number of such steps is worth a nat."""
    y = scale * (1.0 + 2.0 * np.random.default_rng(0).standard_normal(20))

    def wide(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 10 * scale))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, 2 * scale), obs=y)

    settings = {"backend": backend, "num_steps": 600, "window": 100, "num_draws": 20, "tolerance": 2.0}
    settings["guide"] = guide
    status = lvm.fit(wide, y, SVI(**settings)).status
    assert status.outcome is lvm.Outcome.MAX_STEPS
    assert status.details["last_gain"] < 2.0
    assert "moves one way at every step" in str(status)
    ready = lvm.fit(location, y / scale, SVI(**settings)).status
    assert ready.outcome is lvm.Outcome.CONVERGED, str(ready)


def test_noise_on_all_rows_is_said_too() -> None:
    """A guide that is far too wide still after its last step, in an objective with noise of many nats."""
    fit = lvm.fit(location, ROWS, SVI(backend="numpyro", num_steps=60, window=20, num_draws=20))
    assert fit.status.outcome is lvm.Outcome.MAX_STEPS
    assert "the noise of the objective hides gains of up to" in str(fit.status)
