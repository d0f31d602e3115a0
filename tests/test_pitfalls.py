"""Traps of the libraries underneath, one section each: our engines give the right answer, or refuse in words.

The numbers are those of the project's list of pitfalls. Every expected figure comes from a closed form, from
brute force over all assignments, or from quadrature; nothing here calls the package's own closed forms.
"""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import assert_within, attempt, clusters, compilations, covering, log_mean_exp, same_arrays
from numpy.polynomial.hermite_e import hermegauss
from pyro.infer.autoguide import AutoNormalMessenger
from pyro.ops.indexing import Vindex
from scipy.integrate import quad
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

import ppl_lvm as lvm
from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, Renyi, models
from ppl_lvm.result import Fit

BACKENDS = ("pyro", "numpyro")
FROZEN = 1e-13  # a learning rate at which nothing moves, so that the loss is that of a known guide

# ---- an enumerated model that one integral solves ------------------------------------------------

SHIFTED_X = np.array([-2.3, -1.1, 0.2, 1.4, 2.9, 3.3])
SHIFTED_WEIGHTS = np.array([0.4, 0.6])
SHIFTED_CENTRES = np.array([-2.0, 2.0])


def shifted(x: Any) -> None:
    """x_i ~ 0.4 Normal(mu - 2, 1) + 0.6 Normal(mu + 2, 1), mu ~ Normal(0, 1); labels enumerated."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    centres = mu[..., None] + torch.tensor(SHIFTED_CENTRES)
    with pyro.plate("data", len(x)):
        label = pyro.sample("label", dist.Categorical(torch.tensor(SHIFTED_WEIGHTS)))
        pyro.sample("obs", dist.Normal(Vindex(centres)[..., label], 1.0), obs=x)


def shifted_twin(x: Any) -> None:
    mu = numpyro.sample("mu", ndist.Normal(0.0, 1.0))
    terms = ndist.Normal(mu + jnp.asarray(SHIFTED_CENTRES), 1.0).log_prob(x[:, None])
    with numpyro.plate("data", len(x)):
        numpyro.factor(
            "obs", jnp.logaddexp(*jnp.moveaxis(terms + jnp.log(jnp.asarray(SHIFTED_WEIGHTS)), -1, 0))
        )


SHIFTED = lvm.Model(shifted, numpyro=shifted_twin)
GUIDE_LOC, GUIDE_SCALE = 0.0, 0.8


def shifted_guide(x: Any) -> None:
    loc = pyro.param("loc", torch.tensor(GUIDE_LOC))
    pyro.sample("mu", dist.Normal(loc, GUIDE_SCALE))


def shifted_guide_twin(x: Any) -> None:
    loc = numpyro.param("loc", jnp.asarray(GUIDE_LOC))
    numpyro.sample("mu", ndist.Normal(loc, GUIDE_SCALE))


SHIFTED_GUIDES = {"pyro": shifted_guide, "numpyro": shifted_guide_twin}


def shifted_log_joint(mu: Any) -> np.ndarray:
    """log p(mu, x), the labels summed over all 2^6 assignments; any shape of mu."""
    mu = np.asarray(mu, dtype=float)
    labels = np.array(list(itertools.product(range(2), repeat=len(SHIFTED_X))))
    centres = mu[..., None, None] + SHIFTED_CENTRES[labels]
    terms = norm.logpdf(SHIFTED_X, centres, 1.0) + np.log(SHIFTED_WEIGHTS)[labels]
    return norm.logpdf(mu) + logsumexp(terms.sum(-1), axis=-1)


def shifted_integral(f: Callable[[float], float]) -> float:
    return float(
        quad(lambda mu: f(mu) * math.exp(float(shifted_log_joint(mu))), -8, 8, epsabs=0, limit=200)[0]
    )


@functools.cache
def shifted_truth() -> tuple[float, float, float]:
    """Log evidence, posterior mean and sd of mu, by quadrature."""
    evidence = shifted_integral(lambda mu: 1.0)
    mean = shifted_integral(lambda mu: mu) / evidence
    variance = shifted_integral(lambda mu: (mu - mean) ** 2) / evidence
    return math.log(evidence), mean, math.sqrt(variance)


def shifted_log_weight(noise: np.ndarray) -> np.ndarray:
    """log p(mu, x) - log q(mu) at mu = loc + scale * noise."""
    return shifted_log_joint(GUIDE_LOC + GUIDE_SCALE * noise) - norm.logpdf(noise) + math.log(GUIDE_SCALE)


def renyi_of_two(log_weight: Callable[[np.ndarray], np.ndarray], alpha: float) -> float:
    """The expected Renyi bound of two draws: a sum over pairs of Gauss-Hermite nodes."""
    nodes, weights = hermegauss(80)
    weights = weights / weights.sum()
    w = (1 - alpha) * log_weight(nodes)
    pairs = (np.logaddexp(w[:, None], w[None, :]) - math.log(2)) / (1 - alpha)
    return float(weights @ pairs @ weights)


def elbo_of(log_weight: Callable[[np.ndarray], np.ndarray]) -> float:
    nodes, weights = hermegauss(80)
    return float(weights @ log_weight(nodes) / weights.sum())


def mean_loss(fit: Fit) -> tuple[float, float]:
    """Mean of minus the loss over the steps of a frozen guide, and its standard error."""
    bound = -fit.groups["optimization"]["loss"].values[0]
    return float(bound.mean()), float(bound.std(ddof=1) / math.sqrt(len(bound)))


def test_the_oracles_hang_together() -> None:
    """ELBO < IWAE_2 < evidence, and Jensen's gap is large enough for a wrong estimator to show."""
    evidence = shifted_truth()[0]
    elbo, half, iwae = elbo_of(shifted_log_weight), *(renyi_of_two(shifted_log_weight, a) for a in (0.5, 0.0))
    assert elbo + 0.1 < half < iwae - 0.1 < evidence - 0.2
    prior = float(logsumexp(shifted_log_joint(np.linspace(-8, 8, 4001))) + math.log(16 / 4000))
    assert prior == pytest.approx(evidence, abs=1e-8)


# ---- 1: labels come from the posterior -----------------------------------------------------------


@functools.cache
def shifted_vi() -> Fit:
    return lvm.fit(
        shifted, SHIFTED_X, SVI(guide=shifted_guide, num_steps=1, learning_rate=FROZEN, num_draws=400)
    )


def test_01_labels_are_drawn_from_their_posterior() -> None:
    """Pyro's ``Predictive`` would draw them 40/60 at random, whatever the data."""
    fit = shifted_vi()
    drawn = fit.latents(num_draws=400)["label"].values[0]
    mu = fit.posterior["mu"].values[0]
    terms = norm.logpdf(SHIFTED_X[:, None], mu[:, None, None] + SHIFTED_CENTRES, 1.0) + np.log(
        SHIFTED_WEIGHTS
    )
    share = np.exp(terms - logsumexp(terms, axis=-1, keepdims=True))[..., 1]
    assert drawn.shape == (400, 6)
    assert_within(drawn.mean(0), share.mean(0), np.sqrt((share * (1 - share)).sum(0)) / 400)
    assert share.mean(0)[0] < 0.05
    assert share.mean(0)[-1] > 0.95


def test_01_labels_of_separated_clusters_are_certain() -> None:
    x = clusters(24, 1, gap=20.0)
    truth = (x[:, 0] > 0).astype(int)
    mixture = models.GaussianMixture(num_components=2, covariance="diag", keep_latents=True)
    fit = lvm.fit(mixture, x, SVI(num_steps=30, num_draws=40))
    for labels in (fit.posterior["assignment"].values[0], fit.latents(num_draws=40)["assignment"].values[0]):
        agreement = (labels == truth).mean(1)
        assert set(agreement) <= {0.0, 1.0}


# ---- 2: weights with the labels summed out -------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_02_weights_are_of_the_marginal(backend: str) -> None:
    guide = SVI(
        backend=backend, guide=SHIFTED_GUIDES[backend], num_steps=1, learning_rate=FROZEN, num_draws=50
    )
    fit = lvm.fit(
        SHIFTED, SHIFTED_X, ImportanceSampling(num_samples=1000, proposal=lvm.fit(SHIFTED, SHIFTED_X, guide))
    )
    mu = fit.groups["proposal"]["mu"].values[0]
    stats = fit.sample_stats
    np.testing.assert_allclose(stats["log_p"].values[0], shifted_log_joint(mu), rtol=1e-9)
    np.testing.assert_allclose(stats["log_q"].values[0], norm.logpdf(mu, GUIDE_LOC, GUIDE_SCALE), rtol=1e-9)
    evidence, mean, sd = shifted_truth()
    assert fit.evidence is not None
    assert_within(fit.evidence.nats, evidence, fit.evidence.std_error)
    assert fit.evidence.std_error < 0.1
    # One draw in so many counts: far more than with the labels sampled, and what the plain weights say.
    log_w = shifted_log_joint(mu) - norm.logpdf(mu, GUIDE_LOC, GUIDE_SCALE)
    w = np.exp(log_w - logsumexp(log_w))
    assert fit.status.details["ess"] == pytest.approx(
        1 / (w**2).sum(), rel=0.05
    )  # smoothing moves it a little
    assert fit.status.details["khat"] < 0.7
    table = fit.summary()
    assert_within(table.loc["mu", "mean"], mean, table.loc["mu", "mcse_mean"])
    assert_within(table.loc["mu", "sd"], sd, table.loc["mu", "mcse_sd"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_02_a_hopeless_proposal_is_called_so(backend: str) -> None:
    """40 sds off: whatever the tail's fitted shape, one draw has all the weight, and no weight is NaN."""

    def far(x: Any) -> None:
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(40.0)), 1.0))

    def far_twin(x: Any) -> None:
        numpyro.sample("mu", ndist.Normal(numpyro.param("loc", jnp.asarray(40.0)), 1.0))

    guide = {"pyro": far, "numpyro": far_twin}[backend]
    settings = SVI(backend=backend, guide=guide, num_steps=1, learning_rate=FROZEN, num_draws=50)
    fit = lvm.fit(
        SHIFTED,
        SHIFTED_X,
        ImportanceSampling(num_samples=200, proposal=lvm.fit(SHIFTED, SHIFTED_X, settings)),
    )
    weight = np.exp(fit.sample_stats["log_weight"].values)
    assert weight.sum() == pytest.approx(1.0, rel=1e-12)
    assert not fit.status.ok
    assert lvm.compare({"far": fit}).verdicts["far"].level == "do_not_trust"


def test_02_a_perfect_proposal_is_not_an_error() -> None:
    """Equal weights have no tail to fit, and no need of one."""

    def conjugate(x: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=x)

    def posterior(x: Any) -> None:
        loc = pyro.param("loc", x.sum() / (1 + len(x)))
        pyro.sample("mu", dist.Normal(loc, (1.0 / (1 + len(x))) ** 0.5))

    x = np.array([0.5, 1.5, -0.25])
    n = len(x)
    exact = -0.5 * (n * math.log(2 * math.pi) + math.log(1 + n) + (x**2).sum() - x.sum() ** 2 / (1 + n))
    guide = lvm.fit(conjugate, x, SVI(guide=posterior, num_steps=1, learning_rate=FROZEN, num_draws=100))
    assert guide.evidence is not None
    assert guide.evidence.nats == pytest.approx(exact, abs=1e-9)
    fit = lvm.fit(conjugate, x, ImportanceSampling(num_samples=100, proposal=guide))
    assert fit.evidence is not None
    assert fit.evidence.nats == pytest.approx(exact, abs=1e-9)
    assert fit.evidence.std_error == pytest.approx(0.0, abs=1e-9)
    assert fit.status.ok
    assert fit.status.details["ess"] == pytest.approx(100, rel=1e-6)


# ---- 3: Renyi with enumeration -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "alpha"),
    covering(itertools.product(BACKENDS, [0.0, 0.5]), [("pyro", 0.0), ("numpyro", 0.5)]),
)
def test_03_renyi_of_an_enumerated_model(backend: str, alpha: float) -> None:
    """Pyro's own ``RenyiELBO`` treats the enumeration as particles."""
    engine = SVI(
        backend=backend,
        guide=SHIFTED_GUIDES[backend],
        objective=Renyi(alpha=alpha, num_particles=2),
        num_steps=400,
        early_stop=False,
        learning_rate=FROZEN,
        num_draws=2000,
    )
    fit = lvm.fit(SHIFTED, SHIFTED_X, engine)
    expected = renyi_of_two(shifted_log_weight, alpha)
    assert_within(mean_loss(fit)[0], expected, mean_loss(fit)[1])
    assert fit.evidence is not None
    assert_within(fit.evidence.nats, expected, fit.evidence.std_error)
    assert fit.evidence.std_error < 0.03
    assert fit.evidence.kind == "lower_bound"


def test_03_renyi_is_the_logsumexp_of_its_own_draws() -> None:
    engine = SVI(
        guide=shifted_guide,
        objective=Renyi(num_particles=5),
        num_steps=1,
        learning_rate=FROZEN,
        num_draws=100,
    )
    fit = lvm.fit(shifted, SHIFTED_X, engine)
    mu = fit.posterior["mu"].values[0]
    log_w = shifted_log_joint(mu) - norm.logpdf(mu, GUIDE_LOC, GUIDE_SCALE)
    groups = log_mean_exp(log_w.reshape(20, 5), axis=1)
    assert fit.evidence is not None
    assert fit.evidence.nats == pytest.approx(groups.mean(), rel=1e-10)
    assert fit.evidence.std_error == pytest.approx(groups.std(ddof=1) / math.sqrt(20), rel=1e-9)


# ---- 4: minibatches of Renyi ---------------------------------------------------------------------

LOCAL_X = np.array([-1.9, -0.7, 0.1, 0.8, 1.6, 2.7])
SLOPE, WIDTH = 0.3, 0.9


def local(x: Any) -> None:
    """z_i ~ Normal(0, 1), x_i ~ Normal(z_i, 1): so x_i ~ Normal(0, sqrt 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=x)


def local_guide(x: Any) -> None:
    slope = pyro.param("slope", torch.tensor(SLOPE))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, WIDTH))


def local_twin(x: Any) -> None:
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ndist.Normal(0.0, 1.0))
        numpyro.sample("obs", ndist.Normal(z, 1.0), obs=x)


def local_guide_twin(x: Any) -> None:
    slope = numpyro.param("slope", jnp.asarray(SLOPE))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", ndist.Normal(slope * x, WIDTH))


LOCAL = lvm.Model(local, guide=local_guide, numpyro=lvm.Program(local_twin, local_guide_twin))
LOCAL_EVIDENCE = float(norm.logpdf(LOCAL_X, 0.0, math.sqrt(2.0)).sum())


def local_log_weight(x: float) -> Callable[[np.ndarray], np.ndarray]:
    def log_weight(noise: np.ndarray) -> np.ndarray:
        z = SLOPE * x + WIDTH * noise
        return norm.logpdf(z) + norm.logpdf(x, z) - norm.logpdf(noise) + math.log(WIDTH)

    return log_weight


@pytest.mark.parametrize(
    ("backend", "batch_size"),
    covering(itertools.product(BACKENDS, [2, 4, None]), [("pyro", 2), ("numpyro", 4)]),
)
def test_04_renyi_of_local_latents(backend: str, batch_size: int | None) -> None:
    """n/b times the sum of the data's own bounds; with the plate's scale inside the logarithm it is none."""
    engine = SVI(
        backend=backend,
        objective=Renyi(num_particles=2),
        num_steps=450,
        early_stop=False,
        learning_rate=FROZEN,
        batch_size=batch_size,
        num_draws=2000,
    )
    fit, refusal = attempt(lambda: lvm.fit(LOCAL, LOCAL_X, engine))
    if refusal:
        assert backend == "numpyro"
        assert "Renyi" in refusal
        assert "batch_size" in refusal
        return
    expected = sum(renyi_of_two(local_log_weight(x), 0.0) for x in LOCAL_X)
    assert expected < LOCAL_EVIDENCE - 0.05
    assert fit.evidence is not None
    if backend == "pyro" or batch_size is not None:
        found, error = mean_loss(fit)
        assert_within(found, expected, error)
        assert_within(fit.evidence.nats, expected, fit.evidence.std_error)
    assert fit.evidence.nats <= LOCAL_EVIDENCE + 4 * fit.evidence.std_error


def test_04_renyi_is_refused_with_global_latents_and_batches() -> None:
    engine = SVI(objective=Renyi(num_particles=5), batch_size=3)
    with pytest.raises(ValueError, match=r"(?s)Renyi.*minibatch.*'mu'.*ELBO.*batch_size"):
        lvm.fit(shifted, SHIFTED_X, engine)
    mixture = models.GaussianMixture(num_components=2, covariance="diag")
    with pytest.raises(ValueError, match=r"Renyi.*minibatch"):
        lvm.fit(mixture, clusters(12, 1), engine)


# ---- 5: normalised weights -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_05_weights_are_normalised(backend: str) -> None:
    """From the prior: weights are the likelihood, so that everything can be worked out again."""
    fit = lvm.fit(SHIFTED, SHIFTED_X, ImportanceSampling(num_samples=3000, backend=backend))
    mu = fit.groups["proposal"]["mu"].values[0]
    log_like = shifted_log_joint(mu) - norm.logpdf(mu)
    stats = fit.sample_stats
    np.testing.assert_allclose((stats["log_p"] - stats["log_q"]).values[0], log_like, rtol=1e-9)
    weight = np.exp(stats["log_weight"].values[0])
    assert weight.sum() == pytest.approx(1.0, rel=1e-12)
    plain = np.exp(log_like - logsumexp(log_like))
    counts = np.bincount(stats["resampled_index"].values[0], minlength=3000)
    assert (np.abs(counts - 3000 * weight) < 1 + 1e-9).all()  # systematic: never off by a whole draw
    assert counts.max() >= 3
    np.testing.assert_array_equal(fit.posterior["mu"].values[0], mu[stats["resampled_index"].values[0]])
    body = np.argsort(plain)[: -int(3 * math.sqrt(3000)) - 1]  # PSIS replaces the tail only
    ratio = weight[body] / plain[body]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    assert fit.evidence is not None
    assert fit.evidence.nats == pytest.approx(float(log_mean_exp(log_like)), rel=1e-12)
    assert_within(fit.evidence.nats, shifted_truth()[0], fit.evidence.std_error)


# ---- 6: programs that index without Vindex -------------------------------------------------------


def unvectorised(x: Any) -> None:
    """``mu[label]`` picks particles, not components, as soon as there is a dimension to the left."""
    mu = pyro.sample("mu", dist.Normal(torch.tensor(SHIFTED_CENTRES), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        label = pyro.sample("label", dist.Categorical(torch.tensor(SHIFTED_WEIGHTS)))
        pyro.sample("obs", dist.Normal(mu[label], 1.0), obs=x)


def unvectorised_log_joint(mu: np.ndarray, x: np.ndarray) -> np.ndarray:
    terms = norm.logpdf(x[:, None], mu[:, None, :], 1.0) + np.log(SHIFTED_WEIGHTS)
    return norm.logpdf(mu, SHIFTED_CENTRES, 1.0).sum(-1) + logsumexp(terms, axis=-1).sum(-1)


@pytest.mark.parametrize("n", [1, 2, 6])  # sizes at which wrong shapes broadcast without an error
@pytest.mark.parametrize("objective", [lvm.ELBO(), lvm.ELBO(num_particles=2), Renyi(num_particles=2)])
def test_06_programs_that_do_not_broadcast(objective: Any, n: int) -> None:
    x = SHIFTED_X[:n]
    engine = SVI(objective=objective, num_steps=3, num_draws=40)
    fit, refusal = attempt(lambda: lvm.fit(unvectorised, x, engine))
    if refusal:
        assert "Vindex" in refusal
        return
    mu = fit.posterior["mu"].values[0]
    np.testing.assert_allclose(fit.sample_stats["log_p"].values[0], unvectorised_log_joint(mu, x), rtol=1e-9)
    assert fit.evidence is not None
    log_w = unvectorised_log_joint(mu, x) - fit.sample_stats["log_q"].values[0]
    if isinstance(objective, Renyi):
        log_w = log_mean_exp(log_w.reshape(20, 2), axis=1)
    assert fit.evidence.nats == pytest.approx(log_w.mean(), rel=1e-9)


def test_06_what_else_is_asked_of_such_a_program() -> None:
    fit = lvm.fit(unvectorised, SHIFTED_X, ImportanceSampling(num_samples=50))
    mu = fit.groups["proposal"]["mu"].values[0]
    np.testing.assert_allclose(
        fit.sample_stats["log_p"].values[0], unvectorised_log_joint(mu, SHIFTED_X), rtol=1e-9
    )
    labels = fit.latents(num_draws=30)["label"].values[0]
    assert labels.shape == (30, 6)
    assert (labels[:, -1] == 1).mean() > 0.8
    terms = fit.to_arviz()["log_likelihood"]["obs"].values
    assert terms.shape == (1, 50, 6)


# ---- 7, 8: ArviZ ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")  # six data, the last one far out
def test_07_pointwise_log_likelihood_of_an_enumerated_model(backend: str) -> None:
    import arviz_stats

    engine = SVI(
        backend=backend, guide=SHIFTED_GUIDES[backend], num_steps=1, learning_rate=FROZEN, num_draws=200
    )
    tree = lvm.fit(SHIFTED, SHIFTED_X, engine).to_arviz()
    mu = tree["posterior"]["mu"].values[0]
    terms = norm.logpdf(SHIFTED_X[:, None], mu[:, None, None] + SHIFTED_CENTRES, 1.0) + np.log(
        SHIFTED_WEIGHTS
    )
    group = tree["log_likelihood"]
    assert group["obs"].dims == ("chain", "draw", "data")
    np.testing.assert_allclose(group["obs"].values[0], logsumexp(terms, axis=-1), rtol=1e-9)
    assert "exact" in group.attrs.values()
    assert np.isfinite(arviz_stats.loo(tree).elpd)


def test_07_one_datum_has_a_density_too() -> None:
    """A plate of one is no special case: prediction at a single new row."""
    found = shifted_vi().log_predictive(np.array([0.7]))
    mu = shifted_vi().posterior["mu"].values[0]
    terms = norm.logpdf(0.7, mu[:, None] + SHIFTED_CENTRES, 1.0) + np.log(SHIFTED_WEIGHTS)
    np.testing.assert_allclose(found.pointwise, [log_mean_exp(logsumexp(terms, axis=-1))], rtol=1e-9)


def test_08_fits_on_pyro_become_trees_by_group() -> None:
    import arviz_base
    import xarray as xr

    tree = shifted_vi().to_arviz()
    assert isinstance(tree, xr.DataTree)
    assert {"posterior", "sample_stats", "log_likelihood", "observed_data"} <= set(tree.children)
    assert tree["posterior"]["mu"].dims == ("chain", "draw")
    np.testing.assert_array_equal(tree["observed_data"]["obs"].values, SHIFTED_X)
    extracted = arviz_base.extract(tree, var_names=["mu"])
    assert extracted.sizes["sample"] == 400


# ---- 9: label switching --------------------------------------------------------------------------


def test_09_a_chain_in_another_labelling_is_brought_back() -> None:
    """Started in opposite orders, two chains sample one posterior: R-hat on raw labels would be huge."""
    from arviz_stats.base import array_stats

    x = clusters(30, 1, gap=8.0)
    mixture = models.GaussianMixture(num_components=2, covariance="diag")
    init = {
        "loc": np.array([[[-4.0], [4.0]], [[4.0], [-4.0]]]),
        "weights": np.full((2, 2), 0.5),
        "scale": np.full((2, 2, 1), 0.7),
    }
    fit = lvm.fit(mixture, x, NUTS(num_warmup=150, num_samples=200, num_chains=2), init=init)
    orders = fit.sample_stats["permutation"].values
    assert not (orders[0, 0] == orders[1, 0]).all()
    loc = fit.posterior["loc"].values
    raw = np.take_along_axis(loc, np.argsort(orders, axis=-1)[..., None], axis=2)  # undone
    assert array_stats.rhat(raw[..., 0, 0], chain_axis=0, draw_axis=1) > 1.5
    table = fit.summary()
    assert (table["r_hat"] < 1.05).all()
    assert any(name.startswith("mixture_mean") for name in table.index)  # invariants stand beside the sites
    assert np.ptp(np.sign(loc[..., 0, 0])) == 0


# ---- 10: several chains on Pyro ------------------------------------------------------------------


def test_10_pyro_chains_run_in_this_process() -> None:
    """Also for a program that cannot be pickled, with a seed of its own for each chain."""
    here, processes = {}, set()

    def closure(x: Any) -> None:
        here["thread"] = threading.current_thread()
        processes.add(multiprocessing.current_process().pid)
        assert not multiprocessing.active_children()
        shifted(x)

    engine = NUTS(backend="pyro", num_chains=2, num_warmup=5, num_samples=8, max_tree_depth=3)
    first, second = lvm.fit(closure, SHIFTED_X, engine), lvm.fit(closure, SHIFTED_X, engine)
    assert len(processes) == 1
    mu = first.posterior["mu"].values
    assert mu.shape == (2, 8)
    assert not np.isin(mu[0], mu[1]).any()
    np.testing.assert_array_equal(mu, second.posterior["mu"].values)


# ---- 11: autoguides from files -------------------------------------------------------------------


def parabola(x: np.ndarray, log_q: np.ndarray) -> tuple[float, float]:
    """Mean and sd of the normal density with these logarithms."""
    curve = np.polyfit(x, log_q, 2)
    return -curve[1] / (2 * curve[0]), math.sqrt(-1 / (2 * curve[0]))


@pytest.mark.parametrize("family", ["mean_field", "full_rank", "low_rank"])
def test_11_an_autoguide_works_after_loading(family: str, tmp_path: Any) -> None:
    """A fresh AutoGuide cannot take parameters before it has run once."""
    fit = lvm.fit(shifted, SHIFTED_X, SVI(guide=family, num_steps=20, num_draws=40))
    fit.save(tmp_path / "fit")
    loaded = lvm.load(tmp_path / "fit", model=shifted)
    engine = ImportanceSampling(num_samples=100, proposal=loaded)
    again = lvm.fit(shifted, SHIFTED_X, engine)
    direct = lvm.fit(shifted, SHIFTED_X, ImportanceSampling(num_samples=100, proposal=fit))
    mu = again.groups["proposal"]["mu"].values[0]
    np.testing.assert_array_equal(mu, direct.groups["proposal"]["mu"].values[0])
    log_q = again.sample_stats["log_q"].values[0]
    np.testing.assert_array_equal(log_q, direct.sample_stats["log_q"].values[0])
    # A Gaussian in mu: its log density is a parabola, which shows its mean and sd. Those of what was trained.
    loc, scale = parabola(mu, log_q)
    np.testing.assert_allclose(log_q, norm.logpdf(mu, loc, scale), rtol=1e-6)
    assert_within(mu.mean(), loc, scale / 10)
    trained = parabola(fit.posterior["mu"].values[0], fit.sample_stats["log_q"].values[0])
    assert (loc, scale) == pytest.approx(trained, rel=1e-6)
    assert {k: v.shape for k, v in loaded.params.items()} == {k: v.shape for k, v in fit.params.items()}
    if family == "mean_field":
        params = {k.rpartition(".")[0].rpartition(".")[2]: float(v) for k, v in fit.params.items()}
        assert (loc, scale) == pytest.approx((params["locs"], params["scales"]), rel=1e-6)


# ---- 12, 13: guides that cannot work -------------------------------------------------------------


@pytest.mark.parametrize("guide", [None, "mean_field", "full_rank"])
def test_12_guide_families_for_local_sites_under_batches_are_refused(guide: str | None) -> None:
    engine = SVI(guide=guide, batch_size=2)
    with pytest.raises(ValueError, match=r"(?s)'z'.*amortised.*batch_size"):
        lvm.fit(local, LOCAL_X, engine)


def test_13_messenger_guides_on_enumerated_models() -> None:
    """TraceEnum refuses a guide that is a messenger: right, or refused in words that name the guide."""
    guide = AutoNormalMessenger(pyro.poutine.block(shifted, hide=["label"]))
    engine = SVI(guide=guide, num_steps=20, num_draws=200)
    fit, refusal = attempt(lambda: lvm.fit(shifted, SHIFTED_X, engine))
    if refusal:
        assert refusal.startswith(("guide:", "SVI:"))
        assert "guide" in refusal
        return
    mu = fit.posterior["mu"].values[0]
    np.testing.assert_allclose(fit.sample_stats["log_p"].values[0], shifted_log_joint(mu), rtol=1e-9)
    assert fit.evidence is not None
    assert fit.evidence.nats <= shifted_truth()[0] + 4 * fit.evidence.std_error


def globally_labelled(x: Any) -> None:
    """One label for the whole data set: its sum over values does not split over data."""
    which = pyro.sample("which", dist.Categorical(torch.tensor(SHIFTED_WEIGHTS)))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(mu + Vindex(torch.tensor(SHIFTED_CENTRES))[which], 1.0), obs=x)


def test_13_a_global_label_under_batches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"(?s)'which'.*batch_size|batch_size.*'which'"):
        lvm.fit(globally_labelled, SHIFTED_X, SVI(batch_size=2, num_steps=5, num_draws=20))


def test_13_a_global_label_on_all_data_is_summed_out() -> None:
    fit = lvm.fit(globally_labelled, SHIFTED_X, SVI(num_steps=5, num_draws=20))
    mu = fit.posterior["mu"].values[0]
    each = norm.logpdf(SHIFTED_X, mu[:, None, None] + SHIFTED_CENTRES[:, None], 1.0).sum(-1)
    expected = norm.logpdf(mu) + logsumexp(each + np.log(SHIFTED_WEIGHTS), axis=-1)
    np.testing.assert_allclose(fit.sample_stats["log_p"].values[0], expected, rtol=1e-9)
    assert "log_likelihood" not in fit.to_arviz().children
    with pytest.raises(ValueError, match="ties rows together"):
        fit.log_predictive()


# ---- 14: enumeration inside NUTS -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["sequential", "parallel", None])
def test_14_nuts_on_pyro_sums_labels_out(how: str | None) -> None:
    """Whatever the program asks for: Pyro's NUTS fails on sequential enumeration."""

    def marked(x: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        centres = mu[..., None] + torch.tensor(SHIFTED_CENTRES)
        with pyro.plate("data", len(x)):
            infer = {} if how is None else {"enumerate": how}
            label = pyro.sample("label", dist.Categorical(torch.tensor(SHIFTED_WEIGHTS)), infer=infer)
            pyro.sample("obs", dist.Normal(Vindex(centres)[..., label], 1.0), obs=x)

    fit = lvm.fit(marked, SHIFTED_X, NUTS(num_chains=1, num_warmup=10, num_samples=15, max_tree_depth=4))
    assert set(fit.posterior.data_vars) == {"mu"}
    mu = fit.posterior["mu"].values
    np.testing.assert_allclose(fit.sample_stats["lp"].values, shifted_log_joint(mu), rtol=1e-9)


# ---- 16: kernels ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "method"),
    covering(
        itertools.product(["blackjax", "numpyro"], ["threads", "sequential", "vectorized"]),
        [("numpyro", "threads"), ("blackjax", "sequential")],
    ),
)
def test_16_every_kernel_and_chain_method_is_right(kernel: str, method: str) -> None:
    from arviz_stats.base import array_stats

    engine = NUTS(num_warmup=300, num_samples=500, num_chains=2, kernel=kernel, chain_method=method)
    fit = lvm.fit(SHIFTED, SHIFTED_X, engine)
    mu = fit.posterior["mu"].values
    _, mean, sd = shifted_truth()
    ess = {m: float(array_stats.ess(mu, chain_axis=0, draw_axis=1, method=m)) for m in ("mean", "sd")}
    assert ess["mean"] > 150
    assert_within(mu.mean(), mean, sd / math.sqrt(ess["mean"]))
    assert_within(mu.std(), sd, sd / math.sqrt(2 * ess["sd"]))
    np.testing.assert_allclose(fit.sample_stats["lp"].values, shifted_log_joint(mu), rtol=1e-9)
    assert fit.sample_stats["acceptance_rate"].values.mean() == pytest.approx(0.85, abs=0.12)
    assert {"lp", "energy", "acceptance_rate", "step_size", "diverging", "n_steps", "tree_depth"} <= set(
        map(str, fit.sample_stats.data_vars)
    )


# ---- 18, 22: nothing is compiled twice -----------------------------------------------------------

COMPILED = {
    "NUTS, blackjax": NUTS(num_warmup=20, num_samples=20, num_chains=2, kernel="blackjax"),
    "NUTS, numpyro": NUTS(num_warmup=20, num_samples=20, num_chains=2, kernel="numpyro"),
    "NUTS, vectorised": NUTS(num_warmup=20, num_samples=20, num_chains=2, chain_method="vectorized"),
    "importance from the prior": ImportanceSampling(num_samples=40, backend="numpyro"),
    "SVI, guide of the model": SVI(backend="numpyro", num_steps=20, num_draws=30, window=10),
    "SVI, family": SVI(backend="numpyro", guide="full_rank", num_steps=20, num_draws=30, window=10),
    "SVI, Renyi": SVI(backend="numpyro", objective=Renyi(), num_steps=20, num_draws=30, window=10),
    "importance from a guide": SVI(backend="numpyro", num_steps=20, num_draws=30, window=10),
}
# A twin of its own, so that no other test has compiled any of these before.
RECOMPILED = lvm.Model(
    shifted, guide=shifted_guide, numpyro=lvm.Program(lambda x: shifted_twin(x), shifted_guide_twin)
)


@pytest.mark.parametrize("case", COMPILED)
def test_18_a_second_fit_of_the_same_shapes_compiles_nothing(case: str) -> None:
    """With other numbers in the data and another seed; NumPyro's own ``MCMC.run`` compiles each time (22)."""
    engine = COMPILED[case]

    def run(seed: int) -> Fit:
        x = SHIFTED_X + 0.1 * seed
        found = lvm.fit(RECOMPILED, x, engine, seed=seed)
        if case != "importance from a guide":
            return found
        return lvm.fit(RECOMPILED, x, ImportanceSampling(num_samples=40, proposal=found), seed=seed)

    run(0)
    with compilations() as later:
        run(1)
    assert not later, f"{len(later)} programs were compiled again"


def test_18_other_settings_of_a_zoo_model_share_what_is_compiled() -> None:
    """The prior's numbers are arguments of the compiled program, not part of it."""
    engine = NUTS(num_warmup=10, num_samples=10, num_chains=1)
    run = lambda prior, seed: lvm.fit(  # noqa: E731
        models.GaussianMixture(num_components=2, covariance="spherical", loc_scale=prior),
        clusters(17, 1, seed=seed),
        engine,
    )
    run(2.0, 0)
    with compilations() as later:
        run(3.0, 1)
    assert not later


def test_18_compilations_are_seen() -> None:
    """The counter that the test above relies on."""
    import jax

    with compilations() as seen:
        jax.jit(lambda v: v * 3.0 + 1.0)(np.float32(2.0))
    assert seen


# ---- 20: intervals are named ---------------------------------------------------------------------


def test_20_tables_name_their_interval() -> None:
    fit = shifted_vi()
    table = fit.summary()
    assert {"eti89_lb", "eti89_ub"} <= set(table.columns)
    mu = fit.posterior["mu"].values
    np.testing.assert_allclose(table.loc["mu", ["eti89_lb", "eti89_ub"]], np.quantile(mu, [0.055, 0.945]))
    half = fit.summary(prob=0.5)
    np.testing.assert_allclose(half.loc["mu", ["eti50_lb", "eti50_ub"]], np.quantile(mu, [0.25, 0.75]))
    for prob in (0.0, 1.0, 1.5, -0.1):
        with pytest.raises(ValueError, match=r"^prob: expected a number between 0 and 1"):
            fit.summary(prob=prob)


def test_20_waic_is_not_offered() -> None:
    with pytest.raises(ValueError, match=r"^by: expected one of.*'loo'.*waic"):
        lvm.rank({"a": shifted_vi(), "b": shifted_vi()}, by="waic")


# ---- 21: the user's threads ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "engine",
    [
        SVI(num_steps=2, num_draws=30),
        ImportanceSampling(num_samples=30),
        NUTS(num_warmup=2, num_samples=2, num_chains=1),
    ],
    ids=lambda engine: type(engine).__name__,
)
def test_21_torchs_number_of_threads_is_the_users(engine: Any) -> None:
    outside, seen = torch.get_num_threads(), set()

    def watching(x: Any) -> None:
        seen.add(torch.get_num_threads())
        shifted(x)

    lvm.fit(watching, SHIFTED_X, engine)
    assert seen == {outside}
    assert torch.get_num_threads() == outside


# ---- 23: improper priors -------------------------------------------------------------------------


def improper(x: Any) -> None:
    """Flat priors on the mean and on the log of the sd: p(mu, sd | x) is known (Gelman et al., BDA, 3.2)."""
    mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    sd = pyro.sample("sd", dist.ImproperUniform(dist.constraints.positive, (), ()))
    pyro.factor("flat_on_log", -sd.log())
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(mu, sd), obs=x)


def improper_lp(mu: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """In unconstrained space, where the Jacobian log sd cancels the factor."""
    return norm.logpdf(SHIFTED_X[:, None, None], mu, sd).sum(0)


def test_23_nuts_starts_on_an_improper_prior() -> None:
    fit = lvm.fit(improper, SHIFTED_X, NUTS(num_warmup=20, num_samples=20, num_chains=2, max_tree_depth=4))
    mu, sd = fit.posterior["mu"].values, fit.posterior["sd"].values
    assert (sd > 0).all()
    np.testing.assert_allclose(fit.sample_stats["lp"].values, improper_lp(mu, sd), rtol=1e-9)


def test_23_svi_starts_on_an_improper_prior() -> None:
    fit = lvm.fit(improper, SHIFTED_X, SVI(num_steps=10, num_draws=50))
    mu, sd = fit.posterior["mu"].values, fit.posterior["sd"].values
    np.testing.assert_allclose(fit.sample_stats["log_p"].values, improper_lp(mu, sd) - np.log(sd), rtol=1e-9)


def test_23_an_improper_prior_cannot_be_drawn_from() -> None:
    with pytest.raises(ValueError, match="proper prior"):
        lvm.sample_prior(improper, SHIFTED_X, num_draws=5)
    with pytest.raises(ValueError, match=r"(?s)ImportanceSampling.*prior.*'mu'.*SVI"):
        lvm.fit(improper, SHIFTED_X, ImportanceSampling())


# ---- 24: what arrives in the program -------------------------------------------------------------


def test_24_data_arrive_as_tensors_of_the_right_kind() -> None:
    seen: dict[str, Any] = {}

    def recording(y: Any, error: Any, group: Any, used: Any, power: Any, name: Any, few: Any = 3) -> None:
        seen.update(y=y, error=error, group=group, used=used, power=power, name=name, few=few)
        theta = pyro.sample("theta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(theta[..., group], error), obs=y)

    data = {
        "y": [0.5, 1.5, -1.0],
        "error": np.array([1.0, 2.0, 0.5], dtype=np.float32),
        "group": np.array([0, 1, 1], dtype=np.int32),
        "used": np.array([True, False, True]),
        "power": 2,
        "name": "east",
    }
    lvm.fit(recording, data, SVI(num_steps=1, num_draws=30))
    assert seen["y"].dtype == seen["error"].dtype == torch.float64
    assert seen["group"].dtype in (torch.int32, torch.int64)
    assert seen["used"].dtype == torch.bool
    assert seen["power"] == 2
    assert isinstance(seen["power"], int)
    assert seen["name"] == "east"
    assert seen["few"] == 3
    lvm.fit(recording, data, SVI(num_steps=1, num_draws=30), dtype="float32")
    assert seen["y"].dtype == seen["error"].dtype == torch.float32
    assert seen["used"].dtype == torch.bool


# ---- 25: float64 on the JAX side -----------------------------------------------------------------


@pytest.mark.parametrize(
    "engine",
    [
        NUTS(num_warmup=20, num_samples=20, num_chains=3, chain_method="threads"),
        SVI(backend="numpyro", num_steps=10, num_draws=20, window=10),
        ImportanceSampling(num_samples=40, backend="numpyro"),
    ],
    ids=lambda engine: type(engine).__name__,
)
def test_25_results_are_float64_in_any_thread(engine: Any) -> None:
    """64-bit mode is thread-local, and float64 arrays decay outside it: log densities to 1e-9 need both."""

    def run() -> Fit:
        return lvm.fit(SHIFTED, SHIFTED_X, engine)

    here = run()
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(run).result()
    for fit in (here, there):
        mu = fit.groups["proposal"]["mu"].values if "proposal" in fit.groups else fit.posterior["mu"].values
        assert mu.dtype == np.float64
        stats = fit.sample_stats
        density = stats["lp" if "lp" in stats else "log_p"].values
        np.testing.assert_allclose(density, shifted_log_joint(mu), rtol=1e-9)
        assert all(isinstance(v, np.ndarray) for v in fit.params.values())
    assert same_arrays(here.posterior, there.posterior)
    assert jnp.zeros(1).dtype == jnp.float32  # as it was


# ---- 26: networks --------------------------------------------------------------------------------


class Slope(torch.nn.Module):
    """A network of one weight, so that what it learns has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            self.layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float32)
        torch.nn.init.constant_(self.layer.weight, 0.5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(z)


def with_network(network: Slope) -> Callable[..., None]:
    def decoder(x: Any) -> None:
        net = pyro.module("decoder", network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("obs", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    return decoder


@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_26_a_float32_network_takes_float64_data(dtype: str | None) -> None:
    network = Slope()
    x = LOCAL_X[:, None].astype(np.float64)
    fit = lvm.fit(with_network(network), x, SVI(num_steps=60, num_draws=30, learning_rate=0.05), dtype=dtype)
    assert fit.meta["dtype"] == (dtype or "float32")
    (name,) = [k for k in fit.params if "layer.weight" in k]
    assert abs(float(fit.params[name].squeeze()) - 0.5) > 0.05  # it learned
    assert fit.evidence is not None
    assert any("layer.weight" in given for given in fit.evidence.conditional_on)
    assert network.layer.weight.dtype == torch.float32
    assert float(network.layer.weight.detach()) == 0.5, "the fit trains a copy of the user's module"
    assert network.layer.weight.grad is None


def test_26_two_fits_of_one_module_do_not_touch_each_other() -> None:
    network = Slope()
    x, engine = LOCAL_X[:, None], SVI(num_steps=30, num_draws=30, learning_rate=0.05)
    first = lvm.fit(with_network(network), x, engine)
    second = lvm.fit(with_network(network), x, engine)
    assert same_arrays(first.params, second.params)


# ---- 27: minibatches -----------------------------------------------------------------------------


def normal_mean(x: Any, error: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(mu, error), obs=x)


def fixed_point(x: Any, error: Any) -> None:
    """Puts all its mass on one value, so that the loss has no noise but the batches'."""
    pyro.sample("mu", dist.Delta(pyro.param("at", torch.tensor(0.8))))


BATCHED = {"x": SHIFTED_X, "error": np.array([0.5, 1.0, 1.5, 2.0, 1.0, 0.7])}
FULL_LOSS = float(-norm.logpdf(0.8, 0.0, 2.0) - norm.logpdf(SHIFTED_X, 0.8, BATCHED["error"]).sum())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, None])
def test_27_losses_of_batches_average_to_the_full_loss(batch_size: int | None) -> None:
    """Over an epoch exactly, although the program sizes its plate by the batch; both arguments are sliced."""
    epochs = {"num_steps": 12} if batch_size is None else {"num_epochs": 2}
    engine = SVI(
        guide=fixed_point,
        batch_size=batch_size,
        learning_rate=FROZEN,
        early_stop=False,
        num_draws=30,
        **epochs,
    )
    fit = lvm.fit(normal_mean, BATCHED, engine)
    losses = fit.groups["optimization"]["loss"].values[0]
    assert len(losses) == (12 if batch_size is None else 2 * 6 // batch_size)
    for epoch in losses.reshape(2, -1):
        assert epoch.mean() == pytest.approx(FULL_LOSS, rel=1e-9)
    if batch_size in (1, 2, 3):
        assert np.ptp(losses) > 0.1


def test_27_batches_that_do_not_divide_the_data_are_fair() -> None:
    engine = SVI(
        guide=fixed_point, batch_size=4, learning_rate=FROZEN, early_stop=False, num_draws=30, num_steps=800
    )
    losses = lvm.fit(normal_mean, BATCHED, engine).groups["optimization"]["loss"].values[0]
    assert_within(losses.mean(), FULL_LOSS, losses.std(ddof=1) / math.sqrt(len(losses)))


@pytest.mark.parametrize("batch_size", [2, 4, None])
@pytest.mark.parametrize("backend", BACKENDS)
def test_27_local_latents_are_scaled_in_model_and_guide(backend: str, batch_size: int | None) -> None:
    engine = SVI(
        backend=backend,
        batch_size=batch_size,
        num_steps=450,
        early_stop=False,
        learning_rate=FROZEN,
        num_draws=500,
    )
    fit = lvm.fit(LOCAL, LOCAL_X, engine)
    expected = sum(elbo_of(local_log_weight(x)) for x in LOCAL_X)
    kl = -math.log(WIDTH) + (WIDTH**2 + (SLOPE * LOCAL_X) ** 2 - 1) / 2
    fit_term = norm.logpdf(LOCAL_X, SLOPE * LOCAL_X) - WIDTH**2 / 2
    assert expected == pytest.approx(float((fit_term - kl).sum()), rel=1e-9)  # the quadrature, checked
    found, error = mean_loss(fit)
    assert_within(found, expected, error)
    assert fit.evidence is not None
    assert_within(fit.evidence.nats, expected, fit.evidence.std_error)


@pytest.mark.parametrize("backend", BACKENDS)
def test_27_global_latents_of_a_twin_under_batches(backend: str) -> None:
    engine = SVI(
        backend=backend,
        guide=SHIFTED_GUIDES[backend],
        batch_size=2,
        num_steps=450,
        early_stop=False,
        learning_rate=FROZEN,
        num_draws=500,
    )
    found, error = mean_loss(lvm.fit(SHIFTED, SHIFTED_X, engine))
    assert_within(found, elbo_of(shifted_log_weight), error)


def test_27_a_program_that_subsamples_itself_is_refused() -> None:
    def subsampling(x: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=x[rows])

    with pytest.raises(ValueError, match=r"plate 'data'.*subsample_size.*batch_size"):
        lvm.fit(subsampling, SHIFTED_X, SVI())


# ---- 28: points ----------------------------------------------------------------------------------


def test_28_a_point_has_no_spread_anywhere() -> None:
    """As one draw it would be shown with a standard deviation of zero."""
    import arviz_stats

    x = clusters(24, 1)
    mixture = models.GaussianMixture(num_components=2, covariance="diag")
    point = lvm.fit(mixture, x, EM(num_init=2))
    tree = point.to_arviz()
    assert not {"posterior", "sample_stats", "log_likelihood"} & set(tree.children)
    with pytest.raises((KeyError, ValueError, TypeError)):
        arviz_stats.summary(tree)
    draws = lvm.fit(mixture, x, SVI(num_steps=100, num_draws=100))
    table = lvm.compare({"em": point, "vi": draws}, reference="vi").table
    assert table.loc["em"][["sd", "mcse_mean", "ess", "sd_ratio"]].isna().all(axis=None)
    assert table.loc["em"]["bias"].notna().all()
    assert "sd" not in point.summary().columns


# ---- 30: files and plots -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of matplotlib and ArviZ among themselves
def test_30_netcdf_is_written_and_plots_of_chains_are_drawn(tmp_path: Any) -> None:
    import arviz_plots
    import matplotlib.pyplot as plt
    import xarray as xr

    fit = lvm.fit(SHIFTED, SHIFTED_X, NUTS(num_warmup=20, num_samples=20, num_chains=2))
    folder = fit.save(tmp_path / "fit")
    with xr.open_datatree(folder / "draws.nc", engine="h5netcdf") as tree:
        np.testing.assert_array_equal(tree["posterior"]["mu"].values, fit.posterior["mu"].values)
    for name in ("plot_trace_dist", "plot_rank_dist"):
        getattr(arviz_plots, name)(fit.to_arviz(), backend="matplotlib")
    plt.close("all")


# ---- 31: all relabelled modes are counted --------------------------------------------------------

MODES_X = np.array([-3.0, -2.2, -2.6, 2.4, 2.9, 3.3])
MODES = models.GaussianMixture(
    num_components=2, covariance="diag", loc_mean=0.0, loc_scale=3.0, scale_loc=-0.5, scale_scale=0.4
)


@functools.cache
def modes_truth() -> tuple[float, float]:
    """Log evidence and its error: plain Monte Carlo over the scales and the weight, exact over the means.

    Given labels, weights and scales the means are Gaussian and integrate out; labels are summed by brute
    force over all 2^6 assignments. 4,000 antithetic draws of (weight, log scales).
    """
    rng = np.random.default_rng(8)
    noise = rng.standard_normal((20_000, 2))
    sd = np.exp(-0.5 + 0.4 * np.concatenate([noise, -noise]))
    share = rng.beta(2.0, 2.0, len(sd))
    labels = np.array(list(itertools.product(range(2), repeat=len(MODES_X))))
    total = np.full((len(sd), len(labels)), 0.0)
    for j in range(2):
        mine = labels == j
        count = mine.sum(1)
        first = np.where(mine, MODES_X, 0.0).sum(1)
        second = np.where(mine, MODES_X**2, 0.0).sum(1)
        v = (sd[:, j] ** 2)[:, None]
        precision = count / v + 1 / 9.0
        total += -0.5 * count * np.log(2 * np.pi * v) - 0.5 * np.log(9.0 * precision)
        total += -0.5 * second / v + 0.5 * (first / v) ** 2 / precision
        total += count * np.log(share if j == 0 else 1 - share)[:, None]
    each = logsumexp(total, axis=1)
    w = np.exp(each - each.max())
    return float(log_mean_exp(each)), float(w.std(ddof=1) / (w.mean() * math.sqrt(len(w))))


@functools.cache
def modes_guide(backend: str) -> Fit:
    return lvm.fit(MODES, MODES_X[:, None], SVI(backend=backend, num_steps=500, num_draws=500))


@pytest.mark.parametrize("backend", covering(BACKENDS, ["numpyro"]))
def test_31_importance_sampling_counts_every_labelling(backend: str) -> None:
    """A guide sits in one of the 2! modes; without averaging it over labels log 2 nats would be missing."""
    exact, error = modes_truth()
    assert error < 0.02
    fit = lvm.fit(
        MODES, MODES_X[:, None], ImportanceSampling(num_samples=3000, proposal=modes_guide(backend))
    )
    assert fit.evidence is not None
    assert fit.evidence.std_error < math.log(2) / 8
    assert_within(fit.evidence.nats, exact, math.hypot(error, fit.evidence.std_error))


@pytest.mark.parametrize("backend", BACKENDS)
def test_31_the_bound_of_a_guide_counts_every_labelling_too(backend: str) -> None:
    exact, error = modes_truth()
    evidence = modes_guide(backend).evidence
    assert evidence is not None
    assert evidence.nats <= exact + 4 * math.hypot(error, evidence.std_error)
    assert evidence.nats > exact - math.log(2)  # one labelling alone could not come closer than log 2
    assert evidence.note == ""


def test_31_beyond_a_few_labels_the_bound_says_which_labelling() -> None:
    k = 6
    x = np.concatenate([c + 0.1 * np.random.default_rng(c).standard_normal((3, 1)) for c in range(0, 60, 10)])
    mixture = models.GaussianMixture(num_components=k, covariance="spherical")
    fit = lvm.fit(mixture, x, SVI(num_steps=20, num_draws=30))
    assert fit.evidence is not None
    assert f"{gammaln(k + 1):.1f} nats" in fit.evidence.note
