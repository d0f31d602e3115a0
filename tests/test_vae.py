"""VAE: the mathematics. Both backends against each other and against SciPy, KL terms, bounds, gradients.

The oracles share no code with the package: SciPy's densities, quadrature, and for the linear Gaussian VAE the
closed form of probabilistic PCA.
"""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.stats as st
from helpers import compilations, covering
from scipy.special import expit, log_expit, log_softmax, softmax
from vae_cases import SETTINGS, case, data_for, digits

import ppl_lvm as lvm
from ppl_lvm import ELBO, SVI, Renyi, models, networks
from ppl_lvm.backends._numpyro_amortised import programs_of
from ppl_lvm.backends.amortised import blocks_of, evaluator
from ppl_lvm.backends.session import jax_session
from ppl_lvm.conditioning import Conditioned
from ppl_lvm.engines._jax_objectives import objective_of
from ppl_lvm.fitting import prepare
from ppl_lvm.models.vae._numpyro_pixels import log_density


def rows(problem: lvm.core.Problem) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in problem.arguments.items()}


# ---- the same in both backends ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    covering(
        [
            *((name, "float64", 1e-10) for name in SETTINGS),
            ("bernoulli", "float32", 1e-5),
            ("flow", "float32", 1e-5),
        ],
        [
            ("flow, one dimension", "float64", 1e-10),
            ("categorical convolutions", "float64", 1e-10),
            ("flow", "float32", 1e-5),
        ],
    ),
)
def test_both_backends_give_the_same_terms(name: str, dtype: str, tolerance: float) -> None:
    problem, params = case(name, dtype)
    ours, theirs = (evaluator(problem, b) for b in ("numpyro", "pyro"))
    z = ours.draw(params, rows(problem), 4, 0, 1000)
    found = ours.terms_at(params, rows(problem), z)
    expected = theirs.terms_at(params, rows(problem), z)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == (4, 11)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("name", ["bernoulli", "convolutions"])
def test_the_same_noise_gives_the_same_elbo(name: str) -> None:
    """z = m + s e from each backend's own encoder, with one e."""
    for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-5)):
        problem, params = case(name, dtype)
        noise = np.random.default_rng(3).standard_normal((1, 11, 3))
        elbo = []
        for backend in ("numpyro", "pyro"):
            of = evaluator(problem, backend)
            mean, sd = of.moments(params, rows(problem), 0, 1000)["z"]
            z = (mean + sd * noise).astype(dtype)
            log_lik, log_prior, log_q = of.terms_at(params, rows(problem), {"z": z})
            elbo.append(float((log_lik + log_prior - log_q).astype(float).sum()))
        assert elbo[0] == pytest.approx(elbo[1], rel=tolerance)


def test_weights_have_the_same_names_and_shapes_in_both_backends() -> None:
    import pyro

    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session

    for name in ("convolutions", "flow", "gaussian, learned noise"):
        problem, params = case(name)
        with torch_session(0, "float64"):
            program = problem.model.pyro
            for function in (program.model, program.guide):
                function(**to_torch(problem.arguments))
            theirs = {n: tuple(v.shape) for n, v in pyro.get_param_store().items()}
        with jax_session("float64"):
            ours = {n: np.shape(p.start) for n, p in programs_of(problem).params.items()}
        assert ours == theirs == {n: v.shape for n, v in params.items()}


# ---- densities against SciPy -----------------------------------------------------------------------


def outputs(problem: lvm.core.Problem, params: dict, z: np.ndarray) -> np.ndarray:
    """The decoder by hand: one hidden layer of tanh units."""
    w = {n.removeprefix("decoder$$$"): v for n, v in params.items() if n.startswith("decoder")}
    hidden = np.tanh(z @ w["layers.0.weight"].T + w["layers.0.bias"])
    return hidden @ w["layers.1.weight"].T + w["layers.1.bias"]


@pytest.mark.parametrize(
    "name", ["bernoulli", "gaussian, learned noise", "gaussian, fixed noise", "poisson", "categorical"]
)
def test_the_likelihood_is_scipys(name: str) -> None:
    problem, params = case(name)
    of, data = evaluator(problem), rows(problem)
    z = of.draw(params, data, 1, 0, 1000)
    out, x = outputs(problem, params, z["z"][0]), data["x"].reshape(11, -1)
    if name == "bernoulli":
        expected = st.bernoulli.logpmf(x, expit(out)).sum(-1)
    elif name == "poisson":
        expected = st.poisson.logpmf(x, np.logaddexp(out, 0) + 1e-6).sum(-1)
    elif name == "categorical":
        logits = log_softmax(out.reshape(11, 3, -1), 1)
        expected = np.take_along_axis(logits, x[:, None], 1)[:, 0].sum(-1)
    else:
        scale = 0.7 if "fixed" in name else params["noise_scale"]
        expected = st.norm.logpdf(x, out, scale).sum(-1)
    np.testing.assert_allclose(of.terms_at(params, data, z)[0][0], expected, rtol=1e-10)


@pytest.mark.parametrize("logit", [-30.0, -3.0, -0.011, -0.009, 0.0, 1e-5, 0.5, 8.0, 40.0])
def test_the_continuous_bernoulli_integrates_to_one(logit: float) -> None:
    import torch

    from ppl_lvm.models.vae._numpyro_parts import ContinuousBernoulli
    from ppl_lvm.models.vae._pyro_parts import ContinuousBernoulli as InTorch

    grid, weights = np.polynomial.legendre.leggauss(200)
    grid, weights = 0.5 * (grid + 1), 0.5 * weights
    with jax_session("float64"):
        fn = ContinuousBernoulli(np.float64(logit))
        density, mean = np.exp(np.asarray(fn.log_prob(grid))), float(fn.mean)
        drawn = np.asarray(fn.sample(jax.random.key(0), (4000,)))
    theirs = InTorch(logits=torch.tensor(logit, dtype=torch.float64)).log_prob(torch.from_numpy(grid))
    assert weights @ density == pytest.approx(1.0, rel=1e-9)
    assert weights @ (grid * density) == pytest.approx(mean, rel=1e-6)
    np.testing.assert_allclose(theirs.numpy(), np.log(density), rtol=1e-9, atol=1e-9)
    error = np.sqrt(weights @ ((grid - mean) ** 2 * density) / 4000)
    assert abs(drawn.mean() - mean) < 4 * error


@pytest.mark.parametrize("size", [1, 15, 16, 17, 784, 1100, 3072])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_pixels_together_have_scipys_density_and_slope(size: int, dtype: str, tolerance: float) -> None:
    """Sizes that fill no whole lanes; logits that float32 rounds to certainty."""
    rng = np.random.default_rng(size)
    logit = 9 * rng.standard_normal((3, size))
    logit[0, 0] = 100.0
    value = rng.integers(0, 2, (3, size)).astype(float)
    oracle = np.where(value == 1, log_expit(logit), log_expit(-logit)).sum(-1)
    with jax_session(dtype):
        given = jax.numpy.asarray(logit, dtype), jax.numpy.asarray(value, dtype)
        assert np.asarray(log_density(*given)) == pytest.approx(oracle, rel=tolerance, abs=tolerance)
        slope = jax.grad(lambda at: log_density(at, given[1]).sum())(given[0])
        assert np.asarray(slope) == pytest.approx(value - expit(logit), abs=tolerance)


def test_means_of_the_data_are_those_of_the_distributions() -> None:
    for name in ("bernoulli", "poisson", "categorical", "gaussian, fixed noise"):
        problem, params = case(name)
        z = np.random.default_rng(0).standard_normal((11, 3))
        out = outputs(problem, params, z)
        expected = {
            "bernoulli": lambda o: expit(o).reshape(11, 5, 6),
            "poisson": lambda o: (np.logaddexp(o, 0) + 1e-6).reshape(11, 5, 6),
            "categorical": lambda o: np.moveaxis(softmax(o.reshape(11, 3, 5, 6), 1), 1, -1),
            "gaussian, fixed noise": lambda o: o.reshape(11, 5, 6),
        }[name](out)
        for backend in ("numpyro", "pyro"):
            found = evaluator(problem, backend).observed(params, rows(problem), {"z": z}, 0, 1000)["obs"][0]
            np.testing.assert_allclose(found, expected, rtol=1e-9)


# ---- q ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "backend"),
    covering(
        itertools.product(["bernoulli", "full covariance"], ["numpyro", "pyro"]),
        [("full covariance", "numpyro")],
    ),
)
def test_the_closed_kl_is_the_mean_of_the_sampled_one(name: str, backend: str) -> None:
    problem, params = case(name)
    of, data = evaluator(problem, backend), rows(problem)
    closed = of.elbo(params, data, 2, 0, 1000)["kl"].sum(-1)
    z = of.draw(params, data, 4000, 1, 10**6)
    _, log_prior, log_q = of.terms_at(params, data, z)
    sampled = log_q - log_prior
    error = sampled.std(0, ddof=1) / np.sqrt(4000)
    assert (np.abs(sampled.mean(0) - closed) < 4.5 * error).all()  # eleven comparisons


@pytest.mark.parametrize("backend", ["numpyro", "pyro"])
def test_the_flow_is_a_density(backend: str) -> None:
    """q of a flow integrates to 1 over a grid of its two dimensions, and its inverse undoes it."""
    model = models.VAE(latent_dim=2, posterior="flow", flow_hidden=6, encoder=networks.MLP((4,)),
                       decoder=networks.MLP((4,)))  # fmt: skip
    problem = prepare(model, data_for("bernoulli", (3,), 2), dtype="float64")
    from vae_cases import random_params

    params = random_params(problem)
    of, data = evaluator(problem, backend), {"x": np.asarray(problem.arguments["x"])[:1]}
    mean, sd = of.moments(params, data, 0, 1000)["z"]
    axis = [np.linspace(mean[0, i] - 7 * sd[0, i], mean[0, i] + 7 * sd[0, i], 161) for i in range(2)]
    grid = np.stack(np.meshgrid(*axis, indexing="ij"), -1).reshape(-1, 1, 2)
    log_q = of.terms_at(params, data, {"z": grid})[2][:, 0]
    total = np.trapezoid(np.trapezoid(np.exp(log_q).reshape(161, 161), axis[1], axis=1), axis[0])
    assert total == pytest.approx(1.0, abs=2e-4)
    z = of.draw(params, data, 2000, 1, 10**6)["z"]
    error = sd / np.sqrt(2000)
    assert (np.abs(z.mean(0) - mean) < 6 * np.hypot(error, sd / np.sqrt(200))).all()


def test_the_autoregressive_masks_let_nothing_through() -> None:
    """Output j must not move when inputs j or later do."""
    from ppl_lvm.models.vae._masks import masks

    for q in (1, 2, 5):
        first, second = masks(q, 7)
        reach = (second @ first)[:q]
        assert (np.triu(reach) == 0).all()
        assert q == 1 or (np.tril(reach, -1)[1:] > 0).any()


# ---- bounds ----------------------------------------------------------------------------------------


def test_importance_bounds_do_not_depend_on_the_blocks() -> None:
    """The sums over blocks are those over all particles, and the error is the delta method's."""
    problem, params = case("bernoulli")
    params = {n: 0.3 * v for n, v in params.items()}  # q near the posterior: the errors are well estimated
    data = rows(problem)
    for backend in ("numpyro", "pyro"):
        of = evaluator(problem, backend)
        big, small = (of.importance(params, data, 700, 5, block) for block in (10**6, 40))
        z = np.abs(big.value - small.value) / np.hypot(big.std_error, small.std_error)
        assert (z < 4.5).all()
        assert (big.ess <= 700).all()
        assert (big.ess > 50).all()
    found = [evaluator(problem).importance(params, data, 700, seed, 10**6) for seed in range(25)]
    spread = np.var([f.value for f in found], 0, ddof=1)
    stated = np.mean([f.std_error**2 for f in found], 0)
    assert 0.6 < np.sqrt(spread.sum() / stated.sum()) < 1.6  # 24 degrees of freedom each, eleven data


def test_data_of_about_one_size_share_a_program() -> None:
    problem, params = case("bernoulli")
    data = rows(problem)
    of = evaluator(problem, "numpyro")
    all_of_it = np.concatenate([data["x"], data["x"]])
    of.importance(params, {"x": all_of_it[:13]}, 60, 0, 1000)
    with compilations() as later:
        found = [of.importance(params, {"x": all_of_it[:n]}, 60, 0, 1000).value for n in (9, 16)]
    assert later == []
    assert [len(f) for f in found] == [9, 16]
    assert np.array_equal(found[0], found[1][:9])


def test_blocks_bound_the_memory() -> None:
    for n in (1, 3, 100, 60_000):
        for num in (1, 7, 5000, 100_000):
            for block in (1, 10, 5000):
                of_rows, particles, count = blocks_of(n, num, block)
                assert of_rows * particles <= max(block, 1)
                assert particles * count >= num > particles * (count - 1)


@pytest.fixture(scope="module")
def digits_fit() -> lvm.Fit:
    x, _ = digits()
    model = models.VAE(latent_dim=4, encoder=networks.MLP((64,)), decoder=networks.MLP((64,)))
    return lvm.fit(model, x, SVI(backend="numpyro", batch_size=100, num_epochs=40), seed=0)


@pytest.mark.slow
def test_bounds_are_in_order_on_digits(digits_fit: lvm.Fit) -> None:
    """ELBO <= IWAE_5 <= IWAE_50 <= IWAE_5000, by paired differences over images, with their errors."""
    of, data = evaluator(digits_fit.problem), {"x": digits()[0]}
    params = dict(digits_fit.params)
    means = {1: of.elbo(params, data, 400, 0, 50_000)["bound"].astype(float)}
    for k, repeats in ((5, 80), (50, 8)):
        means[k] = np.mean([of.importance(params, data, k, 10 + i, 50_000).value for i in range(repeats)], 0)
    few = {"x": data["x"][:200]}
    means[5000] = of.importance(params, few, 5000, 99, 50_000).value
    for low, high in ((1, 5), (5, 50), (50, 5000)):
        gap = means[high][:200] - means[low][:200]
        error = gap.std(ddof=1) / np.sqrt(len(gap))
        assert error < 0.05
        assert gap.mean() > -3 * error
        assert gap.mean() > 0


def test_the_evidence_is_a_bound_with_its_error(digits_fit: lvm.Fit) -> None:
    evidence = digits_fit.evidence
    assert evidence.kind == "lower_bound"
    assert all(n.startswith("decoder") for n in evidence.conditional_on)
    again = evaluator(digits_fit.problem).elbo(dict(digits_fit.params), {"x": digits()[0]}, 300, 7, 50_000)
    error = np.hypot(evidence.std_error, np.sqrt((again["std_error"].astype(float) ** 2).sum()))
    assert abs(evidence.nats - again["bound"].astype(float).sum()) < 4 * error


def test_renyi_evidence_lies_above_the_elbo(digits_fit: lvm.Fit) -> None:
    scores = digits_fit.log_predictive(digits()[0][:100], num_particles=1000)
    assert scores.kind == "lower_bound"
    elbo = evaluator(digits_fit.problem).elbo(
        dict(digits_fit.params), {"x": digits()[0][:100]}, 200, 1, 50_000
    )
    assert scores.total > float(elbo["bound"].sum())
    np.testing.assert_allclose(
        digits_fit.score_samples(digits()[0][:100], num_particles=1000), scores.pointwise
    )


# ---- gradients -------------------------------------------------------------------------------------


def gradients(objective: object, num: int) -> tuple[np.ndarray, dict[str, slice]]:
    """Gradients (num, p) of the loss at ``num`` keys, flattened by name."""
    problem, params = case("bernoulli")
    with jax_session("float64"):
        programs = programs_of(problem)
        take = objective_of(objective, programs)
        free = {n: jax.numpy.asarray(v) for n, v in params.items()}
        data = {"x": jax.numpy.asarray(problem.arguments["x"])[:4]}
        run = jax.jit(jax.vmap(lambda key: take(free, {}, key, data, 1.0)[1]))
        found = run(jax.random.split(jax.random.key(0), num))
        names = sorted(found)
        flat = np.concatenate([np.asarray(found[n]).reshape(num, -1) for n in names], 1)
    at, where = 0, {}
    for n in names:
        size = int(np.prod(found[n].shape[1:]))
        where[n], at = slice(at, at + size), at + size
    return flat, where


def test_the_doubly_reparameterised_gradient_has_the_same_mean_and_less_noise() -> None:
    standard, where = gradients(Renyi(num_particles=6), 4000)
    double, _ = gradients(Renyi(num_particles=6, gradient="doubly_reparameterised"), 4000)
    z = (standard.mean(0) - double.mean(0)) / np.sqrt((standard.var(0) + double.var(0)) / 4000 + 1e-30)
    moving = standard.std(0) > 1e-9
    encoder = [s for n, s in where.items() if n.startswith("encoder")]
    decoder = [s for n, s in where.items() if n.startswith("decoder")]
    for part in decoder:  # the usual gradient, from the same draws
        np.testing.assert_allclose(double[:, part], standard[:, part], rtol=1e-8, atol=1e-12)
    theirs = np.concatenate([z[s][moving[s]] for s in encoder])
    assert np.abs(theirs).max() < 5  # some hundreds of comparisons
    assert 0.75 < theirs.std() < 1.3
    ratio = np.concatenate([double[:, s].var(0) / (standard[:, s].var(0) + 1e-30) for s in encoder])
    assert np.median(ratio) < 0.8


def test_torch_takes_the_same_doubly_reparameterised_gradient() -> None:
    """Both backends estimate one gradient: means over many draws agree within their errors."""
    import torch

    from ppl_lvm.backends._pyro_amortised import AmortisedPrograms
    from ppl_lvm.backends._pyro_trace import to_torch
    from ppl_lvm.backends.session import torch_session
    from ppl_lvm.engines._pyro_objectives import loss_of

    flat, where = gradients(Renyi(num_particles=6, gradient="doubly_reparameterised"), 4000)
    problem, params = case("bernoulli")
    objective = Renyi(num_particles=6, gradient="doubly_reparameterised")
    draws = []
    with torch_session(0, "float64"):
        import pyro

        programs = AmortisedPrograms(problem)
        data = {"x": to_torch(problem.arguments["x"])[:4]}
        programs.traces(data, 1)
        store = pyro.get_param_store()
        for name, value in params.items():
            store._params[name].data.copy_(torch.from_numpy(value))
        leaves = [store._params[n] for n in where]
        for _ in range(300):
            loss, _ = loss_of(objective, programs, data, 1.0)
            found = torch.autograd.grad(loss, leaves)
            draws.append(torch.cat([g.reshape(-1) for g in found]).numpy())
    theirs = np.array(draws)
    error = np.sqrt(theirs.var(0) / 300 + flat.var(0) / 4000 + 1e-30)
    moving = flat.std(0) > 1e-9
    z = ((theirs.mean(0) - flat.mean(0)) / error)[moving]
    assert np.abs(z).max() < 5


# ---- the linear Gaussian VAE is probabilistic PCA ----------------------------------------------------


def ppca_data(n: int = 400, seed: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((6, 2)) * [2.0, 1.2]
    return rng.standard_normal((n, 2)) @ loadings.T + rng.normal(0, 0.6, (n, 6)) + [1, -2, 0, 3, 0.5, 0]


def ppca_maximum(x: np.ndarray) -> tuple[float, np.ndarray]:
    """The maximised mean log likelihood of PPCA with two factors, and the principal directions (6, 2)."""
    cov = np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(cov)
    noise = values[:4].mean()
    model = vectors[:, 4:] @ np.diag(values[4:] - noise) @ vectors[:, 4:].T + noise * np.eye(6)
    return float(st.multivariate_normal.logpdf(x, x.mean(0), model).mean()), vectors[:, 4:]


@pytest.mark.parametrize("posterior", [pytest.param("diagonal", marks=pytest.mark.slow), "full"])
def test_a_linear_vae_is_ppca(posterior: str) -> None:
    x = ppca_data()
    linear = networks.MLP(())
    model = models.VAE(
        latent_dim=2, likelihood="gaussian", encoder=linear, decoder=linear, posterior=posterior
    )
    engine = SVI(
        backend="numpyro",
        objective=ELBO(num_particles=8),
        batch_size=200,
        num_epochs=4000,
        learning_rate=0.02,
        learning_rate_decay=0.0005,
    )
    fit = lvm.fit(model, x, engine, seed=1, dtype="float64")
    best, directions = ppca_maximum(x)

    of, params, data = evaluator(fit.problem), dict(fit.params), {"x": x}
    elbo = of.elbo(params, data, 400, 0, 10**6)
    reached, error = elbo["bound"].mean(), np.sqrt((elbo["std_error"] ** 2).sum()) / len(x)
    assert error < 0.003
    assert best - 0.02 < reached < best + 4 * error

    w, b, sigma = (params[n] for n in ("decoder$$$layers.0.weight", "decoder$$$layers.0.bias", "noise_scale"))
    angle = np.degrees(scipy.linalg.subspace_angles(w, directions).max())
    assert angle < 3
    precision = np.eye(2) + w.T @ w / sigma**2  # of p(z | x)
    cov = np.linalg.inv(precision)
    mean = (x - b) @ w @ cov / sigma**2
    ours, sd = fit.transform(x, return_std=True)
    assert np.abs(ours - mean).max() < 0.02 * np.abs(mean).max()
    np.testing.assert_allclose(sd, np.broadcast_to(np.sqrt(np.diag(cov)), sd.shape), rtol=0.02)

    marginal = w @ w.T + sigma**2 * np.eye(6)
    exact = st.multivariate_normal.logpdf(x[:50], b, marginal)
    found = fit.log_predictive(x[:50], num_particles=5000)
    z = (found.pointwise - exact) / found.std_error
    assert np.abs(z).max() < 5
    assert (exact - found.pointwise).mean() < 0.02


@pytest.mark.slow
def test_both_backends_train_to_the_same_bound() -> None:
    """One linear problem, its maximum known in closed form; Pyro goes on from where JAX is half way."""
    x = ppca_data(200)
    best, _ = ppca_maximum(x)
    linear = networks.MLP(())
    model = models.VAE(latent_dim=2, likelihood="gaussian", encoder=linear, decoder=linear, posterior="full")
    settings = {"objective": ELBO(num_particles=4), "batch_size": 100, "learning_rate_decay": 0.005}
    fits = {}
    early = SVI(backend="numpyro", num_epochs=800, learning_rate=0.02, **settings)
    fits["early"] = lvm.fit(model, x, early, seed=0, dtype="float64")
    for backend, epochs in (("pyro", 400), ("numpyro", 400)):
        engine = SVI(backend=backend, num_epochs=epochs, learning_rate=0.01, **settings)
        fits[backend] = lvm.fit(model, x, engine, seed=0, dtype="float64", init=fits["early"])
    reached = {n: (f.evidence.nats / 200, f.evidence.std_error / 200) for n, f in fits.items()}
    for backend in ("pyro", "numpyro"):
        assert fits[backend].backend == backend
        value, error = reached[backend]
        assert best - 0.03 - 3 * error < value < best + 4 * error
        assert value > reached["early"][0]


@pytest.mark.slow
def test_the_flow_family_beats_the_diagonal_one_where_the_posterior_is_not_diagonal() -> None:
    """Same decoder: with weights held, the best flow's bound lies above the best diagonal Gaussian's."""
    x = ppca_data(200)
    w = np.array([[2.0, 1.9], [1.9, 2.0], [0.5, 0.4], [1.0, 0.9], [0.1, 0.2], [0.6, 0.5]])
    held = {
        "decoder$$$layers.0.weight": w,
        "decoder$$$layers.0.bias": x.mean(0),
        "noise_scale": np.array(0.8),
    }
    linear, bounds = networks.MLP(()), {}
    for posterior in ("diagonal", "flow"):
        model = models.VAE(
            latent_dim=2,
            likelihood="gaussian",
            encoder=linear,
            decoder=linear,
            posterior=posterior,
            flow_hidden=16,
        )
        engine = SVI(
            backend="numpyro",
            batch_size=100,
            num_epochs=2500,
            learning_rate=0.02,
            learning_rate_decay=0.001,
        )
        fit = lvm.fit(Conditioned(model, {}, held), x, engine, seed=0, dtype="float64")
        parts = evaluator(fit.problem).elbo({**fit.params, **held}, {"x": x}, 1000, 0, 10**6)
        bounds[posterior] = parts["bound"].sum(), np.sqrt((parts["std_error"] ** 2).sum())
    exact = st.multivariate_normal.logpdf(x, x.mean(0), w @ w.T + 0.64 * np.eye(6)).sum()
    cov = np.linalg.inv(np.eye(2) + w.T @ w / 0.64)
    loss = 0.5 * (np.log(np.diag(np.linalg.inv(cov))).sum() + np.linalg.slogdet(cov)[1]) * len(x)
    value, error = bounds["diagonal"]  # the best has variances 1 / Lambda_ii, and loses exactly that
    assert exact - loss - 0.1 * len(x) < value < exact - loss + 4 * error
    value, error = bounds["flow"]
    assert exact - 0.01 * len(x) < value < exact + 4 * error
    assert loss > 0.5 * len(x)


def test_quadrature_gives_the_evidence_of_one_dimension() -> None:
    """IWAE of many particles against the integral over one latent dimension."""
    model = models.VAE(latent_dim=1, encoder=networks.MLP((5,)), decoder=networks.MLP((5,)))
    problem = prepare(model, data_for("bernoulli", (6,), 5), dtype="float64")
    from vae_cases import random_params

    params = random_params(problem)
    of, data = evaluator(problem), rows(problem)
    grid = np.linspace(-9, 9, 4001)
    log_lik, log_prior, _ = of.terms_at(
        params, data, {"z": np.broadcast_to(grid[:, None, None], (4001, 5, 1))}
    )
    exact = np.log(scipy.integrate.simpson(np.exp(log_lik + log_prior), x=grid, axis=0))
    found = of.importance(params, data, 20_000, 0, 10**6)
    assert (np.abs(found.value - exact) < 5 * found.std_error).all()
    assert found.std_error.max() < 0.05
