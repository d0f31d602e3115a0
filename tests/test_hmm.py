"""The hidden Markov model against brute force over all paths, plain log-space recursions and scipy.

Oracles share no code with the package: sums over all K^T paths with scipy's densities, an eigenvector for the
stationary distribution, automatic differentiation of a log-space scan, scipy's optimisers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import jax  # at collection: importing it draws from NumPy's generator, which conftest.py would report
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats
from scipy.special import logsumexp, softmax

import ppl_lvm as lvm
from ppl_lvm import emissions
from ppl_lvm.backends._numpyro import density_of
from ppl_lvm.backends._pyro_density import log_density, run_model, run_single
from ppl_lvm.backends._pyro_trace import to_torch
from ppl_lvm.backends.session import jax_session, torch_session
from ppl_lvm.emissions._base import jax_library
from ppl_lvm.emissions._gaussian_moments import diagonal_moments
from ppl_lvm.fitting import prepare
from ppl_lvm.models.hmm import HMM, _em_estep, _forward, _jax_densities, _jax_estep, _jax_forward
from ppl_lvm.models.hmm._layout import rows_of, stationary
from ppl_lvm.models.hmm._pyro_forward import log_likelihood as torch_log_likelihood
from tests.helpers import assert_within, covering, spread_points

K = 3
INITIAL = ("free", "uniform", "stationary")
EMISSIONS = {"poisson": emissions.Poisson(), "gaussian": emissions.Gaussian(covariance="diag")}
Values = Mapping[str, np.ndarray]


def two_sequences() -> list[np.ndarray]:
    """Lengths 6 and 4, two columns of counts, one missing entry."""
    rng = np.random.default_rng(0)
    x = [rng.poisson(4.0, (6, 2)).astype(float), rng.poisson(4.0, (4, 2)).astype(float)]
    x[0][2, 1] = np.nan
    return x


# ---- the oracle ----------------------------------------------------------------------------------


def start_of(values: Values, initial: str) -> np.ndarray:
    transition = values["transition"]
    if initial == "free":
        return values["initial"]
    if initial == "uniform":
        return np.full(len(transition), 1.0 / len(transition))
    roots, vectors = np.linalg.eig(transition.T)
    found = vectors[:, np.argmin(np.abs(roots - 1.0))].real
    return found / found.sum()


def row_density(kind: str, values: Values, row: np.ndarray, state: int) -> float:
    seen = ~np.isnan(row)
    if kind == "poisson":
        return stats.poisson.logpmf(row[seen], values["rate"][state][seen]).sum()
    return stats.norm.logpdf(row[seen], values["loc"][state][seen], values["scale"][state][seen]).sum()


def all_paths(kind: str, initial: str, values: Values, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every path (K^T, T) and log p(path, x)."""
    k = len(values["transition"])
    start, transition = start_of(values, initial), values["transition"]
    each = np.array([[row_density(kind, values, row, j) for j in range(k)] for row in x])
    paths = np.array(list(itertools.product(range(k), repeat=len(x))))
    joint = np.log(start[paths[:, 0]]) + each[np.arange(len(x)), paths].sum(1)
    joint += np.log(transition[paths[:, :-1], paths[:, 1:]]).sum(1)
    return paths, joint


def one(values: Values, i: int) -> dict[str, np.ndarray]:
    return {name: value[i] for name, value in values.items()}


def case(kind: str, initial: str, num: int = 4, **settings: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A problem on the two sequences and random values (num, ...)."""
    problem = prepare(HMM(K, EMISSIONS[kind], initial=initial, **settings), two_sequences())
    return problem, spread_points(problem, num, seed=1)


# ---- 1. brute force --------------------------------------------------------------------------------


@pytest.mark.parametrize("initial", INITIAL)
@pytest.mark.parametrize("kind", EMISSIONS)
def test_forward_smoothing_and_viterbi_are_sums_over_all_paths(kind: str, initial: str) -> None:
    problem, values = case(kind, initial)
    exact, data = problem.model.exact, problem.arguments
    found, proba = exact.log_likelihood(values, data), exact.predict_proba(values, data)
    for i, s in itertools.product(range(4), range(2)):
        x, mine = two_sequences()[s], one(values, i)
        paths, joint = all_paths(kind, initial, mine, x)
        np.testing.assert_allclose(found[i, s], logsumexp(joint), rtol=1e-10)
        weights = np.exp(joint - logsumexp(joint))
        smoothed = np.stack([(weights[:, None] * (paths == j)).sum(0) for j in range(K)], -1)
        np.testing.assert_allclose(proba[i, s, : len(x)], smoothed, atol=1e-10)
        best = exact.predict(mine, data)[s]
        assert (best[: len(x)] == paths[joint.argmax()]).all()
        assert (best[len(x) :] == -1).all()
    assert np.isnan(proba[:, 1, 4:]).all()
    assert np.isfinite(proba[:, 1, :4]).all()


@pytest.mark.parametrize("kind", EMISSIONS)
def test_viterbi_over_draws_maximises_the_mean_log_joint(kind: str) -> None:
    problem, values = case(kind, "free")
    found = problem.model.exact.predict(values, problem.arguments)
    for s, x in enumerate(two_sequences()):
        joints = [all_paths(kind, "free", one(values, i), x) for i in range(4)]
        mean = np.mean([joint for _, joint in joints], axis=0)
        assert (found[s, : len(x)] == joints[0][0][mean.argmax()]).all()


@pytest.mark.parametrize("markov", [False, True], ids=["work", "markov"])
@pytest.mark.parametrize("initial", INITIAL)
@pytest.mark.parametrize("kind", EMISSIONS)
def test_pyro_programs_equal_brute_force(kind: str, initial: str, markov: bool) -> None:
    problem, values = case(kind, initial, markov=markov)
    with torch_session(0, "float64"):
        total, rest, per_datum = log_density(problem, values, {})
    prior = problem.model.exact.log_prior(values, problem.arguments)
    for i, s in itertools.product(range(4), range(2)):
        _, joint = all_paths(kind, initial, one(values, i), two_sequences()[s])
        np.testing.assert_allclose(per_datum[i, s], logsumexp(joint), rtol=1e-10)
    np.testing.assert_allclose(rest, prior, rtol=1e-10)
    np.testing.assert_allclose(total, prior + per_datum.sum(1), rtol=1e-10)


@pytest.mark.parametrize("initial", INITIAL)
@pytest.mark.parametrize("kind", EMISSIONS)
def test_twin_equals_brute_force(kind: str, initial: str) -> None:
    problem, values = case(kind, initial)
    with jax_session("float64"):
        density, data = density_of(problem)
        assert list(density.shapes) == [s.name for s in problem.latents(discrete=False)]
        for i in range(4):
            z = density.unconstrain(one(values, i), data, {})
            rest, per_datum = density.log_joint(z, data, {})
            expected = [logsumexp(all_paths(kind, initial, one(values, i), x)[1]) for x in two_sequences()]
            np.testing.assert_allclose(np.asarray(per_datum), expected, rtol=1e-10)
            prior = problem.model.exact.log_prior(one(values, i), problem.arguments)
            jacobian = float(density.log_jacobian(z, data, {}))
            np.testing.assert_allclose(float(rest) - jacobian, prior, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("markov", [False, True], ids=["work", "markov"])
@pytest.mark.parametrize(
    "emission",
    [
        emissions.Poisson(),
        emissions.Gaussian(),
        emissions.Gaussian(covariance="tied"),
        emissions.Gaussian(covariance="spherical"),
        emissions.StudentT(),
    ],
    ids=lambda e: "-".join(str(part) for part in (type(e).__name__, getattr(e, "covariance", ""))),
)
def test_programs_broadcast_over_a_particle_plate(emission: Any, markov: bool) -> None:
    problem = prepare(HMM(2, emission, markov=markov), two_sequences())
    values = spread_points(problem, 3)
    with torch_session(0, "float64"), torch.no_grad():
        tensors = {name: torch.from_numpy(value) for name, value in values.items()}
        args = to_torch(problem.arguments)
        together = run_model(problem, args, tensors, {})
        alone = [run_single(problem, args, one(tensors, i), {}).per_datum for i in range(3)]
    np.testing.assert_allclose(together.per_datum, torch.stack(alone), rtol=1e-10)
    exact = problem.model.exact.log_likelihood(values, problem.arguments)
    np.testing.assert_allclose(together.per_datum, exact, rtol=1e-10)


def test_missing_whole_steps_and_padding_do_not_change_the_rest() -> None:
    """A step without any value has no term; the same sequence inside a wider array has the same answer."""
    model = HMM(2, emissions.Poisson(rate_mean=3.0))
    x = np.array([1.0, np.nan, 5.0, 2.0])
    alone, padded = prepare(model, x), prepare(model, [x, np.arange(9.0)])
    values = spread_points(alone, 3)
    first = alone.model.exact.log_likelihood(values, alone.arguments)
    second = padded.model.exact.log_likelihood(values, padded.arguments)
    np.testing.assert_allclose(first[:, 0], second[:, 0], rtol=1e-12)
    for i in range(3):
        joint = all_paths("poisson", "free", one(values, i), x[:, None])[1]
        np.testing.assert_allclose(first[i, 0], logsumexp(joint), rtol=1e-10)


# ---- 2. gradients ----------------------------------------------------------------------------------


def plain_log_likelihood(start: Any, transition: Any, log_obs: Any, lengths: Any) -> Any:
    """(S,) by logsumexp over a scan; log_obs (k, T, S)."""

    def step(here: Any, at: Any) -> Any:
        t, own = at
        ahead = jax.nn.logsumexp(here[:, None] + jnp.log(transition)[:, :, None], axis=0) + own
        return jnp.where(t < lengths, ahead, here), None

    first = jnp.log(start)[:, None] + log_obs[:, 0]
    times = jnp.arange(1, log_obs.shape[1])
    return jax.nn.logsumexp(jax.lax.scan(step, first, (times, log_obs.swapaxes(0, 1)[1:]))[0], axis=0)


def random_chain(k: int = 4, t: int = 30, s: int = 5) -> tuple[np.ndarray, ...]:
    """Logits of start and transition, log densities (k, t, s), lengths and weights of the sequences."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, t + 1, s)
    lengths[0], lengths[1] = t, 1
    log_obs = 3.0 * rng.standard_normal((k, t, s)) * (np.arange(t)[:, None] < lengths)
    return rng.standard_normal(k), rng.standard_normal((k, k)), log_obs, lengths, rng.standard_normal(s)


@pytest.mark.parametrize(("k", "s"), [(4, 5), (14, 5), (14, 9), (66, 5)])
def test_custom_gradient_equals_automatic_differentiation(k: int, s: int) -> None:
    """Products and sums over states are written out or not, by the numbers of states and sequences."""
    start, transition, log_obs, lengths, weights = random_chain(k=k, s=s)

    def objective(function: Any) -> Any:
        def total(a: Any, b: Any, c: Any) -> Any:
            inside = jnp.arange(c.shape[1])[:, None] < lengths  # callers leave out steps beyond the end
            own = jnp.where(inside, c, 0.0)
            each = function(jax.nn.softmax(a), jax.nn.softmax(b, -1), own, jnp.asarray(lengths))
            return (weights * each).sum()

        return jax.jit(jax.value_and_grad(total, (0, 1, 2)))

    with jax_session("float64"):
        value, slopes = objective(_jax_forward.log_likelihood)(start, transition, log_obs)
        expected, theirs = objective(plain_log_likelihood)(start, transition, log_obs)
        np.testing.assert_allclose(float(value), float(expected), rtol=1e-11)
        for mine, other in zip(slopes, theirs, strict=True):
            np.testing.assert_allclose(np.asarray(mine), np.asarray(other), rtol=1e-9, atol=1e-11)


def test_associative_scans_equal_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What accelerators run, tried here: value, gradient and the smoother's expected counts."""
    from ppl_lvm.models.hmm import _jax_associative

    start, transition, log_obs, lengths, weights = random_chain(k=3, t=23, s=4)
    inside = np.arange(log_obs.shape[1])[:, None] < lengths
    own = np.where(inside, log_obs, 0.0)

    def everything(a: Any, b: Any, c: Any) -> Any:
        def total(a: Any, b: Any, c: Any) -> Any:
            first, rows = jax.nn.softmax(a), jax.nn.softmax(b, -1)
            return (weights * _jax_forward.log_likelihood(first, rows, c, jnp.asarray(lengths))).sum()

        first, rows = jax.nn.softmax(a), jax.nn.softmax(b, -1)
        alone = _jax_forward.log_likelihood(first, rows, c, jnp.asarray(lengths))
        counts = _jax_forward.weighted_counts(
            rows, _jax_forward.smooth(first, rows, c), jnp.asarray(lengths), weights
        )
        return alone, jax.grad(total, (0, 1, 2))(a, b, c), counts

    with jax_session("float64"):
        looped = jax.tree_util.tree_leaves(jax.jit(lambda *z: everything(*z))(start, transition, own))
        monkeypatch.setattr(_jax_associative, "preferred", lambda log_obs: True)
        scanned = jax.tree_util.tree_leaves(jax.jit(lambda *z: everything(*z))(start, transition, own))
        for mine, other in zip(scanned, looped, strict=True):
            np.testing.assert_allclose(np.asarray(mine), np.asarray(other), rtol=1e-10, atol=1e-12)


def test_the_associative_form_is_not_for_a_cpu() -> None:
    from ppl_lvm.models.hmm import _jax_associative

    assert jax.default_backend() != "cpu" or not _jax_associative.preferred(np.zeros((2, 10_000, 1)))


def test_custom_gradient_equals_finite_differences() -> None:
    start, transition, log_obs, lengths, _ = random_chain(k=2, t=6, s=2)

    @jax.jit
    def total(flat: Any) -> Any:
        a, b = jax.nn.softmax(flat[:2]), jax.nn.softmax(flat[2:].reshape(2, 2), -1)
        return _jax_forward.log_likelihood(a, b, jnp.asarray(log_obs), jnp.asarray(lengths)).sum()

    flat = np.concatenate([start, transition.ravel()])
    with jax_session("float64"):
        slope = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(flat)))
        step = 1e-5  # error: step^2 times third derivatives of order 1, and 1e-15 / step of rounding
        for i, move in enumerate(step * np.eye(len(flat))):
            found = (float(total(flat + move)) - float(total(flat - move))) / (2 * step)
            np.testing.assert_allclose(slope[i], found, atol=1e-8)


def test_custom_gradient_works_under_vmap() -> None:
    start, transition, log_obs, lengths, weights = random_chain()
    draws = np.stack([start, -start, 0.5 * start])

    def total(a: Any) -> Any:
        b = jax.nn.softmax(jnp.asarray(transition), -1)
        each = _jax_forward.log_likelihood(jax.nn.softmax(a), b, jnp.asarray(log_obs), jnp.asarray(lengths))
        return (weights * each).sum()

    with jax_session("float64"):
        slope = jax.jit(jax.grad(total))
        together = np.asarray(jax.jit(jax.vmap(jax.grad(total)))(jnp.asarray(draws)))
        alone = np.stack([np.asarray(slope(jnp.asarray(a))) for a in draws])
    np.testing.assert_allclose(together, alone, rtol=1e-10, atol=1e-12)


def test_gradient_in_torch_equals_automatic_differentiation_in_jax() -> None:
    """Two draws at once, with respect to start, transition and densities."""
    start, transition, log_obs, lengths, weights = random_chain()
    args = [np.stack([v, 0.5 * v]) for v in (start, transition, log_obs)]
    inside = np.arange(log_obs.shape[1]) < lengths[:, None]  # (S, T)

    tensors = [torch.tensor(v, requires_grad=True) for v in args]
    valid = torch.tensor(inside)
    own = torch.where(valid[None, ..., None], tensors[2].permute(0, 3, 2, 1), 0.0)
    each = torch_log_likelihood(tensors[0].softmax(-1), tensors[1].softmax(-1), own, valid)
    (each * torch.tensor(weights)).sum().backward()

    def total(a: Any, b: Any, c: Any) -> Any:
        own = jnp.where(inside.T, c, 0.0)
        each = plain_log_likelihood(jax.nn.softmax(a), jax.nn.softmax(b, -1), own, jnp.asarray(lengths))
        return (weights * each).sum()

    with jax_session("float64"):
        slope = jax.jit(jax.grad(total, (0, 1, 2)))
        for i in range(2):
            expected = slope(*(jnp.asarray(v[i]) for v in args))
            for mine, other in zip(tensors, expected, strict=True):
                found = mine.grad.numpy()[i]
                np.testing.assert_allclose(found, np.asarray(other), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_gradient_of_the_whole_twin(kind: str) -> None:
    """Against central differences of the log density: emission, start, transition and Jacobians together."""
    problem, _ = case(kind, "stationary")
    with jax_session("float64"):
        density, data = density_of(problem)
        total = jax.jit(lambda flat: density.total(density.unflatten(flat), data, {}))
        flat = 0.3 * np.random.default_rng(0).standard_normal(density.size)
        slope = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(flat)))
        step = 1e-5  # as above, with values near 50: rounding 50 * 1e-16 / 1e-5
        for i, move in enumerate(step * np.eye(len(flat))):
            found = (float(total(flat + move)) - float(total(flat - move))) / (2 * step)
            np.testing.assert_allclose(slope[i], found, rtol=1e-6, atol=1e-7)


COVARIANCES = ("full", "tied", "diag", "spherical")
# In 10 dimensions the code is that of 3; one dimension has no correlations, whatever the covariance.
OTHER_SIZES = [
    (covariance, d, missing)
    for covariance, d, missing in itertools.product(COVARIANCES, [1, 3, 10], [False, True])
    if d != 3 and (covariance, d, missing) not in [("full", 1, False), ("tied", 1, True), ("full", 10, True)]
]


@pytest.mark.parametrize(
    ("covariance", "d", "missing"),
    covering(itertools.product(COVARIANCES, [1, 3, 10], [False, True]), OTHER_SIZES),
)
def test_normal_densities_have_the_emission_s_own_values_and_gradients(
    covariance: str, d: int, missing: bool
) -> None:
    """Matrix products against automatic differentiation of ``Gaussian.log_prob``, far from the origin."""
    rng = np.random.default_rng(0)
    emission, x = emissions.Gaussian(covariance=covariance), 100.0 + rng.standard_normal((20, d))
    seen = (rng.random((20, d)) < 0.8).astype(float) if missing else None
    weights, params = rng.random((2, 20)), {}
    for name, site in emission.sites(2, d).items():
        params[name] = (
            100.0 + rng.standard_normal(site.shape) if name == "loc" else rng.uniform(1, 2, site.shape)
        )
        if name == "corr_tril":
            params[name] = np.linalg.cholesky(0.6 * np.eye(d) + 0.4) * np.ones(site.shape)

    def total(function: Any) -> Any:
        return jax.jit(jax.value_and_grad(lambda p: (weights * function(p).reshape(2, 20)).sum()))(params)

    with jax_session("float64"):
        params = {name: jnp.asarray(value) for name, value in params.items()}
        rows, own = jnp.asarray(x), None if seen is None else jnp.asarray(seen)
        valid = jnp.ones((10, 2), bool)
        value, slopes = total(lambda p: _jax_densities.log_densities(emission, p, rows, own, valid))
        expected, theirs = total(lambda p: emission.log_prob(jax_library(), p, rows, own))
        np.testing.assert_allclose(float(value), float(expected), rtol=1e-12)
        for name in params:
            mine, other = np.asarray(slopes[name]), np.asarray(theirs[name])
            if name == "corr_tril":
                mine, other = np.tril(mine), np.tril(other)
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-10 * np.abs(other).max())


# ---- 3. range --------------------------------------------------------------------------------------


def numpy_log_space(start: np.ndarray, transition: np.ndarray, log_obs: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        log_a, here = np.log(transition), np.log(start) + log_obs[:, 0]
    for t in range(1, log_obs.shape[1]):
        here = logsumexp(here[:, None] + log_a, axis=0) + log_obs[:, t]
    return float(logsumexp(here))


def test_densities_far_below_the_smallest_number() -> None:
    """Observations 1e4 nats apart under the states: scaled probabilities underflow, the answer does not."""
    rng = np.random.default_rng(0)
    log_obs = -1e4 * rng.random((3, 50))
    start, transition = np.full(3, 1 / 3), softmax(rng.standard_normal((3, 3)), -1)
    expected = numpy_log_space(start, transition, log_obs)
    found = _forward.log_likelihood(start[None], transition[None], log_obs[None, :, :, None])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    with jax_session("float64"):
        mine = _jax_forward.log_likelihood(*map(jnp.asarray, (start, transition, log_obs[..., None], [50])))
        np.testing.assert_allclose(np.asarray(mine)[0], expected, rtol=1e-12)


def test_states_lost_to_scaling_are_found_in_log_space() -> None:
    """One way from state 0 to 1: 300 steps favour state 1 by 5 nats each, the next 300 state 0 by 5.1.

    Scaling alone loses state 0 (its share falls to exp(-1500)) and with it the most probable path.
    """
    log_obs = np.zeros((2, 600))
    log_obs[0, :300], log_obs[1, 300:] = -5.0, -5.1
    start, transition = np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.0, 1.0]])
    expected = numpy_log_space(start, transition, log_obs)
    args = start[None], transition[None], log_obs[None, :, :, None]
    np.testing.assert_allclose(_forward.log_likelihood(*args), expected, rtol=1e-12)
    found = _forward.smooth(*args, np.ones((600, 1), bool))
    np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-12)
    np.testing.assert_allclose(found.states.sum(1), 1.0, rtol=1e-10)
    np.testing.assert_allclose(found.pairs.sum(), 599.0, rtol=1e-10)
    np.testing.assert_allclose(_forward.forward(*args).log_likelihood, expected, rtol=1e-12)


def test_both_e_steps_agree_where_scaling_loses_a_state() -> None:
    x = np.concatenate([np.full(300, 9.0), np.full(300, 1.0)])
    problem = prepare(HMM(2, emissions.Poisson(rate_mean=5.0)), x)
    exact, rows = problem.model.exact, rows_of(problem.arguments)
    values = {
        "initial": np.array([0.5, 0.5]),
        "transition": np.array([[0.9, 0.1], [0.0, 1.0]]),
        "rate": np.array([[1.0], [9.0]]),
    }
    mine = _em_estep.e_step(exact.emission, "free", rows)(values)
    other = _jax_estep.e_step(exact.emission, "free", rows)(values)
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


# ---- 4. draws --------------------------------------------------------------------------------------


def test_drawn_paths_have_the_smoothed_marginals() -> None:
    problem, values = case("poisson", "free", num=1)
    exact, num = problem.model.exact, 4000
    many = {name: np.repeat(value, num, axis=0) for name, value in values.items()}
    drawn = exact.latents(many, problem.arguments, np.random.default_rng(0))["states"]
    assert drawn.shape == (num, 2, 6)
    assert (drawn[:, 1, 4:] == -1).all()
    proba = exact.predict_proba(values, problem.arguments)[0]
    for s, x in enumerate(two_sequences()):
        p = proba[s, : len(x)]
        found = np.stack([(drawn[:, s, : len(x)] == j).mean(0) for j in range(K)], -1)
        assert_within(found, p, np.sqrt(p * (1 - p) / num))
    paths, joint = all_paths("poisson", "free", one(values, 0), two_sequences()[1])
    weights = np.exp(joint - logsumexp(joint))
    stays = weights[(paths[:, 1] == paths[:, 2])].sum()
    found_stays = (drawn[:, 1, 1] == drawn[:, 1, 2]).mean()
    assert_within(found_stays, stays, np.sqrt(stays * (1 - stays) / num))


@pytest.mark.parametrize("initial", INITIAL)
def test_sampled_sequences_follow_the_model(initial: str) -> None:
    problem, values = case("poisson", initial, num=1)
    num, length = 4000, 5
    mine = one(values, 0)
    drawn = problem.model.exact.sample(mine, num, np.random.default_rng(0), length=length)
    assert drawn["obs"].shape == (num, length, 2)
    start, expected = start_of(mine, initial), []
    for t in range(length):
        expected.append(start @ np.linalg.matrix_power(mine["transition"], t))
        p = expected[-1]
        found = np.array([(drawn["states"][:, t] == j).mean() for j in range(K)])
        assert_within(found, p, np.sqrt(p * (1 - p) / num))
    for j in range(K):  # rows of a state are Poisson, whatever its neighbours
        rows = drawn["obs"][drawn["states"] == j]
        rate = mine["rate"][j]
        assert_within(rows.mean(0), rate, np.sqrt(rate / max(len(rows), 1)))


def test_replicated_data_have_the_shape_of_the_observed() -> None:
    problem, values = case("poisson", "free", num=3)
    found = problem.model.exact.replicate(values, problem.arguments, np.random.default_rng(0))["obs"]
    observed = problem.model.observations(problem.data)["obs"]
    assert found.shape == (3, *observed.shape)
    assert (np.isnan(found) == np.isnan(observed)).all()


def test_pyro_simulates_the_same_process() -> None:
    """``MarkovSequence.sample`` at fixed values: the mean of each step, within four standard errors."""
    import pyro

    problem, values = case("poisson", "free", num=1)
    mine, num = one(values, 0), 3000
    data = {**problem.arguments, "x": problem.arguments["x"]}
    with torch_session(0, "float64"), torch.no_grad():
        args = to_torch(data)
        fixed = pyro.poutine.condition(
            pyro.poutine.uncondition(problem.model.pyro.model),
            data={name: torch.from_numpy(value) for name, value in mine.items()},
        )
        nodes = pyro.poutine.trace(fixed).get_trace(**args).nodes
        found = nodes["obs"]["fn"].expand([num, 2]).sample().numpy()
    assert found.shape == (num, 2, 6, 2)
    for t in range(4):
        p = mine["initial"] @ np.linalg.matrix_power(mine["transition"], t)
        mean = p @ mine["rate"]
        variance = mean + p @ mine["rate"] ** 2 - mean**2
        assert_within(found[:, 1, t].mean(0), mean, np.sqrt(variance / num))


# ---- 5. Baum-Welch -----------------------------------------------------------------------------------


def simulated(seed: int = 0, num: int = 6, length: int = 40) -> list[np.ndarray]:
    """Counts from two states, sequences of different lengths, a few values missing."""
    rng = np.random.default_rng(seed)
    out = []
    for s in range(num):
        state = np.cumsum(rng.random(length - 2 * s) < 0.15) % 2
        x = rng.poisson(np.array([[2.0, 7.0], [8.0, 4.0]])[state]).astype(float)
        x[rng.random(x.shape) < 0.05] = np.nan
        out.append(x)
    return out


def fit_em(problem: Any, compiled: bool = False, **settings: Any) -> Any:
    import dataclasses

    own = (lambda *args: _jax_estep.e_step(*args[:3])) if compiled else None
    exact = dataclasses.replace(problem.model.exact, compiled_e_step=own)
    given = {"num_init": 2, "rng": np.random.default_rng(0), **settings}
    return exact.em(problem.arguments, **given)


@pytest.mark.parametrize("estimate", ["ml", "map"])
@pytest.mark.parametrize("initial", INITIAL)
@pytest.mark.parametrize("kind", EMISSIONS)
def test_baum_welch_never_falls_and_both_e_steps_agree(kind: str, initial: str, estimate: str) -> None:
    problem = prepare(HMM(2, EMISSIONS[kind], initial=initial), simulated())
    found = fit_em(problem, estimate=estimate, max_iter=60)
    # objectives near 1e3 nats: rounding of sums of 400 terms
    assert (np.diff(found.trace) > -1e-9).all()
    assert found.trace[-1] == found.objective
    total = problem.model.exact.log_likelihood(found.values, problem.arguments).sum()
    np.testing.assert_allclose(found.log_likelihood, total, rtol=1e-10)
    compiled = fit_em(problem, compiled=True, estimate=estimate, max_iter=60)
    np.testing.assert_allclose(found.objective, compiled.objective, rtol=1e-9)
    if initial != "stationary":  # there L-BFGS turns rounding into other paths to the same top
        for name, value in found.values.items():
            np.testing.assert_allclose(value, compiled.values[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("missing", [False, True])
def test_moments_keep_their_digits_in_narrow_states_far_from_the_mean(missing: bool) -> None:
    """Against sums in extended precision about each state's own mean."""
    rng = np.random.default_rng(0)
    state, scale = rng.integers(3, size=400), np.array([1e-3, 1.0, 20.0])
    x = np.array([-3e3, 1e3, 2e3])[state, None] + scale[state, None] * rng.standard_normal((400, 2))
    weights = np.eye(3)[state].T
    seen = (rng.random(x.shape) < 0.8).astype(float) if missing else None
    found = diagonal_moments(x, seen, weights)
    for j in range(3):
        for f in range(2):
            share = weights[j] * (1.0 if seen is None else seen[:, f])
            rows = x[share > 0, f].astype(np.longdouble)
            mean = rows.mean()
            np.testing.assert_allclose(found.count[j, f], len(rows), rtol=1e-12)
            np.testing.assert_allclose(found.mean[j, f], float(mean), rtol=1e-12)
            # a sum of squares keeps what rounding of x itself, 1e-16 of 3e3, leaves of 1e-3
            np.testing.assert_allclose(found.scatter[j, f], float(((rows - mean) ** 2).sum()), rtol=1e-8)


@pytest.mark.parametrize("initial", INITIAL)
def test_map_is_the_mode_that_scipy_finds(initial: str) -> None:
    problem = prepare(HMM(2, emissions.Poisson(), initial=initial), simulated(num=3, length=20))
    exact, data = problem.model.exact, problem.arguments
    found = fit_em(problem, estimate="map", tol=1e-13, max_iter=3000)

    def values_at(z: np.ndarray) -> dict[str, np.ndarray]:
        out = {"transition": softmax(z[:4].reshape(2, 2), -1), "rate": np.exp(z[4:8]).reshape(2, 2)}
        return out | ({"initial": softmax(z[8:10])} if initial == "free" else {})

    def loss(z: np.ndarray) -> float:
        values = values_at(z)
        return -float(exact.log_prior(values, data) + exact.log_likelihood(values, data).sum())

    start = [np.log(found.values["transition"]).ravel(), np.log(found.values["rate"]).ravel()]
    start += [np.log(found.values["initial"])] if initial == "free" else []
    z = np.concatenate(start)
    top = optimize.minimize(loss, z + 0.1, method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(found.objective, -top.fun, rtol=1e-9)
    # an objective within 1e-9 of its maximum of curvature of order 10: parameters within 1e-4
    for name, value in values_at(top.x).items():
        np.testing.assert_allclose(found.values[name], value, atol=2e-4 * (1 + np.abs(value).max()))


def test_ml_gradient_vanishes_at_the_estimate() -> None:
    problem = prepare(HMM(2, emissions.Poisson(), initial="uniform"), simulated())
    found = fit_em(problem, tol=1e-14, max_iter=3000)
    exact, data = problem.model.exact, problem.arguments
    step = 1e-5
    for row, column in itertools.product(range(2), range(2)):
        sides = []
        for sign in (1, -1):
            rate = found.values["rate"].copy()
            rate[row, column] *= np.exp(sign * step)
            sides.append(exact.log_likelihood({**found.values, "rate": rate}, data).sum())
        # d l / d log rate; the last step of EM moved log rates by less than about 1e-6, information 1e2
        assert abs(sides[0] - sides[1]) / (2 * step) < 1e-3


def test_an_empty_state_is_reported() -> None:
    problem = prepare(HMM(3, emissions.Poisson(rate_mean=3.0)), np.tile([1.0, 1.0, 1.0, 9.0, 9.0, 9.0], 5))
    start = {
        "initial": np.array([0.5, 0.5, 0.0]),
        "transition": np.array([[0.7, 0.3, 0.0], [0.3, 0.7, 0.0], [0.3, 0.3, 0.4]]),
        "rate": np.array([[1.0], [9.0], [5.0]]),
    }
    found = fit_em(problem, start=start)
    assert found.collapsed == (2,)
    assert "collapsed" in found.note


def test_map_without_a_mode_is_refused() -> None:
    problem = prepare(HMM(2, transition_concentration=0.5), np.arange(10.0))
    with pytest.raises(ValueError, match=r"transition_concentration: .* no maximum .* under 1"):
        fit_em(problem, estimate="map")


def test_stationary_distribution() -> None:
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(5), (3, 5))
    found = stationary(transition)
    np.testing.assert_allclose(np.einsum("si,sij->sj", found, transition), found, rtol=1e-12)
    np.testing.assert_allclose(stationary(np.eye(2)), [0.5, 0.5], rtol=1e-6)


# ---- 6. online, and the future ---------------------------------------------------------------------------


@pytest.mark.parametrize("initial", INITIAL)
def test_the_online_filter_equals_the_batch(initial: str) -> None:
    problem, values = case("poisson", initial)
    exact, data = problem.model.exact, problem.arguments
    x = two_sequences()[0]
    running, together = exact.filter(one(values, 0)), exact.filter(values)
    for t in range(len(x)):
        found = running.update(x[t])
        paths, joint = all_paths("poisson", initial, one(values, 0), x[: t + 1])
        np.testing.assert_allclose(running.log_likelihood, logsumexp(joint), rtol=1e-10)
        expected = [np.exp(logsumexp(joint[paths[:, t] == j]) - logsumexp(joint)) for j in range(K)]
        np.testing.assert_allclose(found, expected, atol=1e-10)
        ahead = running.predict()
        np.testing.assert_allclose(ahead.state, expected @ values["transition"][0], atol=1e-10)
        np.testing.assert_allclose(ahead.mean, ahead.state @ values["rate"][0], rtol=1e-10)
        average = together.update(x[t])
    each = exact.log_likelihood(values, data)[:, 0]
    np.testing.assert_allclose(together.log_likelihood, logsumexp(each) - np.log(4), rtol=1e-10)
    last = exact.predict_proba(values, data)[:, 0, -1]
    np.testing.assert_allclose(average, softmax(each) @ last, atol=1e-10)


def test_forecasts_are_sums_over_all_paths() -> None:
    problem, values = case("poisson", "free", num=1)
    exact, num = problem.model.exact, 4000
    mine = one(values, 0)
    proba = exact.forecast_proba(values, problem.arguments, 2)[0]
    for s, x in enumerate(two_sequences()):
        paths, joint = all_paths("poisson", "free", mine, x)
        weights = np.exp(joint - logsumexp(joint))
        last = np.array([weights[paths[:, -1] == j].sum() for j in range(K)])
        for h in (1, 2):
            expected = last @ np.linalg.matrix_power(mine["transition"], h)
            np.testing.assert_allclose(proba[s, h - 1], expected, atol=1e-10)
    many = {name: np.repeat(value, num, axis=0) for name, value in values.items()}
    drawn = exact.forecast(many, problem.arguments, 2, np.random.default_rng(0))
    assert drawn["obs"].shape == (num, 2, 2, 2)
    for s, h in itertools.product(range(2), range(2)):
        p = proba[s, h]
        found = np.array([(drawn["states"][:, s, h] == j).mean() for j in range(K)])
        assert_within(found, p, np.sqrt(p * (1 - p) / num))
        mean = p @ mine["rate"]
        variance = mean + p @ mine["rate"] ** 2 - mean**2
        assert_within(drawn["obs"][:, s, h].mean(0), mean, np.sqrt(variance / num))


# ---- 7. data and settings --------------------------------------------------------------------------------


def test_all_forms_of_the_same_data_bind_alike() -> None:
    model = HMM(2)
    parts = [np.arange(8.0).reshape(4, 2), np.arange(6.0).reshape(3, 2)]
    padded = np.full((2, 4, 2), np.nan)
    padded[0], padded[1, :3] = parts
    forms = [
        parts,
        tuple(parts),
        [torch.tensor(p) for p in parts],
        [pd.DataFrame(p, columns=["a", "b"]) for p in parts],
        [p.tolist() for p in parts],
        {"x": np.concatenate(parts), "lengths": [4, 3]},
        {"x": padded, "lengths": [4, 3]},
        {"x": np.nan_to_num(padded, nan=99.0), "lengths": np.array([4, 3])},
    ]
    for form in forms:
        found = model.bind(form).values
        np.testing.assert_array_equal(found["x"], padded)
        assert found["lengths"].tolist() == [4, 3]
    single = np.arange(5.0)
    for form in (single, single[:, None], single[None, :, None], [single], pd.DataFrame({"n": single})):
        found = model.bind(form).values
        assert found["x"].shape == (1, 5, 1)
        assert found["lengths"].tolist() == [5]
    frame = pd.DataFrame({"quakes": single}, index=range(1900, 1905))
    assert model.bind(frame).coords["feature"] == ["quakes"]
    assert model.bind(frame).coords["time"].tolist() == list(range(1900, 1905))


GOOD = np.array([1.0, 2.0, 3.0, 4.0])
BAD_DATA: dict[str, tuple[Any, str]] = {
    "negative counts": (np.array([1.0, -2.0, 3.0]), "negative"),
    "no whole numbers": (np.array([1.0, 2.5, 3.0]), "whole numbers"),
    "lengths that do not add up": ({"x": GOOD, "lengths": [3, 2]}, r"add up to 5.*4 rows"),
    "a length of 0": ({"x": GOOD, "lengths": [4, 0]}, "sequence 1 has length 0"),
    "an empty sequence": ([GOOD, np.array([])], "sequence 1 has length 0"),
    "lengths beyond the padding": ({"x": GOOD[None, :, None], "lengths": [5]}, "at most 4"),
    "as many lengths as sequences": ({"x": GOOD[None, :, None], "lengths": [2, 2]}, "expected 1 numbers"),
    "lengths that are not whole": ({"x": GOOD, "lengths": [1.5, 2.5]}, "whole numbers"),
    "lengths beside a list": ({"x": [GOOD], "lengths": [4]}, "leave lengths out"),
    "a column without values": (np.column_stack([GOOD, np.full(4, np.nan)]), "column 1 are missing"),
    "different columns": ([np.ones((3, 2)), np.ones((3, 1))], "expected 2 columns"),
    "four dimensions": (np.ones((2, 2, 2, 2)), r"\(S, T, d\)"),
    "infinite": (np.array([1.0, np.inf, 2.0]), "infinite at index"),
    "text": (pd.DataFrame({"a": ["x", "y"]}), "a"),
    "an unknown name": ({"y": GOOD}, "missing"),
    "fewer steps than states": (np.array([1.0]), "expected at least 2 steps"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_errors_in_words(name: str) -> None:
    raw, words = BAD_DATA[name]
    with pytest.raises((ValueError, TypeError), match=words):
        HMM(2).bind(raw)


BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no states": ({"num_states": 0}, "num_states: expected a positive integer"),
    "initial": ({"initial": "first"}, "initial: expected one of"),
    "emission": ({"emission": 3}, "emission: expected one"),
    "concentration": ({"transition_concentration": -1.0}, "transition_concentration: expected positive"),
    "concentration's shape": (
        {"initial_concentration": (1.0, 1.0, 1.0)},
        "initial_concentration: expected one",
    ),
    "sticky": ({"sticky": -1.0}, "sticky: expected a number of at least 0"),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings_are_errors_in_words(name: str) -> None:
    settings, words = BAD_SETTINGS[name]
    with pytest.raises((ValueError, TypeError), match=words):
        HMM(**{"num_states": 2, **settings})


def test_data_with_other_columns_are_refused() -> None:
    model = HMM(2).resolve(np.ones((5, 2)) + np.arange(5)[:, None])
    with pytest.raises(ValueError, match="expected 2 columns as in the fit, got 1"):
        model.bind(GOOD, fitting=False)
    problem, values = case("poisson", "free", num=1)
    other = prepare(HMM(K), GOOD)
    with pytest.raises(ValueError, match=r"site 'rate' has shape \(3, 2\).*1 columns"):
        problem.model.exact.log_likelihood(values, other.arguments)


@pytest.mark.parametrize("emission", [emissions.Poisson(), emissions.Gaussian(covariance="tied")])
def test_settings_survive_json(emission: Any) -> None:
    model = HMM(2, emission, initial="stationary", sticky=3.0).resolve(np.arange(6.0))
    settings = json.loads(json.dumps(model.to_settings()))
    assert settings["model"] == "HMM"
    again = HMM(**settings["settings"])
    assert again == model
    assert again.resolve(np.arange(6.0)) == again


@pytest.mark.parametrize("initial", INITIAL)
def test_density_and_invariants_do_not_change_under_relabelling(initial: str) -> None:
    problem, values = case("gaussian", initial)
    model, order = problem.model, [2, 0, 1]
    turned = dict(values)
    for name, axes in model.label_axes.items():
        for axis in axes:
            turned[name] = np.take(turned[name], order, axis=1 + axis)
    for function in (
        lambda v: {"log_prior": model.exact.log_prior(v, problem.arguments)},
        lambda v: {"log_likelihood": model.exact.log_likelihood(v, problem.arguments)},
        model.invariants,
    ):
        mine, theirs = function(values), function(turned)
        for name in mine:
            np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-9)
    features = model.label_features(values)
    np.testing.assert_allclose(model.label_features(turned), features[:, order], rtol=1e-12)


def test_invariants_are_moments_of_the_stationary_process() -> None:
    problem, values = case("poisson", "stationary", num=1)
    mine = one(values, 0)
    found = problem.model.invariants(mine)
    start = start_of(mine, "stationary")
    mean = start @ mine["rate"]
    np.testing.assert_allclose(found["stationary_mean"], mean, rtol=1e-10)
    sd = np.sqrt(mean + start @ mine["rate"] ** 2 - mean**2)
    np.testing.assert_allclose(found["stationary_sd"], sd, rtol=1e-9)
    np.testing.assert_allclose(found["sorted_stationary"], np.sort(start)[::-1], rtol=1e-10)
    changes = start @ (1 - np.diag(mine["transition"]))
    np.testing.assert_allclose(found["mean_run"], 1 / changes, rtol=1e-10)


def test_priors_that_tell_states_apart_leave_draws_in_their_order() -> None:
    assert HMM(2).label_axes == {"initial": (0,), "transition": (0, 1), "rate": (0,)}
    assert HMM(2, transition_concentration=((5.0, 1.0), (1.0, 5.0))).label_axes is not None
    assert HMM(2, transition_concentration=((5.0, 1.0), (1.0, 2.0))).label_axes is None
    assert HMM(2, initial_concentration=(1.0, 2.0)).label_axes is None
    assert HMM(1).label_axes is None


def test_starting_values_lie_inside_the_supports() -> None:
    for emission in (emissions.Poisson(), emissions.Gaussian(), emissions.StudentT()):
        problem = prepare(HMM(3, emission), simulated())
        values = problem.model.exact.initial_values(problem.arguments, np.random.default_rng(0))
        assert np.isfinite(problem.model.exact.log_prior(values, problem.arguments))
        assert (values["transition"] > 0.01).all()
        assert (values["initial"] > 0.01).all()
        np.testing.assert_allclose(values["transition"].sum(-1), 1.0, rtol=1e-12)


# ---- 8. engines --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def separated() -> list[np.ndarray]:
    return simulated(num=8, length=30)


@pytest.mark.parametrize("backend", covering(["pyro", "numpyro"], ["pyro"]))
def test_minibatch_svi_finds_the_states(separated: list[np.ndarray], backend: str) -> None:
    engine = lvm.SVI(backend=backend, batch_size=4, num_steps=600)
    fit = lvm.fit(HMM(2), separated, engine, seed=0)
    rate = fit.posterior["rate"].values.mean((0, 1))
    order = rate[:, 0].argsort()
    np.testing.assert_allclose(rate[order], [[2.0, 7.0], [8.0, 4.0]], atol=1.5)  # prior and noise: sd 0.3


@pytest.mark.slow
def test_nuts_importance_sampling_and_em_run(separated: list[np.ndarray]) -> None:
    point = lvm.fit(HMM(2), separated, lvm.EM(num_init=2), seed=0)
    assert point.predict(separated).shape == (8, 30)
    assert point.num_parameters == 1 + 2 + 4
    nuts = lvm.fit(HMM(2), separated, lvm.NUTS(num_warmup=200, num_samples=200, num_chains=2), seed=0)
    assert nuts.status.details["divergences"] == 0
    vi = lvm.fit(HMM(2), separated, lvm.SVI(num_steps=300), seed=0)
    lvm.fit(HMM(2), separated, lvm.ImportanceSampling(proposal=vi, num_samples=200), seed=0)
    rate, top = nuts.posterior["rate"].values, point.params["rate"]
    mean, sd = rate.mean((0, 1)), rate.std((0, 1))
    gap = mean[mean[:, 0].argsort()] - top[top[:, 0].argsort()]
    assert (np.abs(gap) < 3 * sd.max()).all()  # a mode lies within the posterior's bulk
    proba = nuts.predict_proba(separated)
    agree = proba[0].argmax(-1) == nuts.predict(separated)[0]
    assert agree.mean() > 0.9


def test_kept_states_and_forecasts_through_a_fit(separated: list[np.ndarray]) -> None:
    engine = lvm.NUTS(num_warmup=100, num_samples=50, num_chains=2)
    fit = lvm.fit(HMM(2, keep_latents=True), separated, engine, seed=0)
    assert fit.posterior["states"].dims == ("chain", "draw", "sequence", "time")
    ahead = fit.forecast(steps=3, num_draws=20)
    assert ahead["obs"].dims == ("chain", "draw", "sequence", "step", "feature")
    assert fit.filter().update(separated[0][0]).shape == (2,)
    assert fit.sample(4, length=7).shape == (4, 7, 2)
