"""AIS, SMC, bridge sampling and the sandwich against evidence in closed form, by quadrature, by enumeration.

The oracles: a regression with a normal-gamma prior (a multivariate t), PPCA with two columns and one factor
(a grid over the loadings' polar coordinates and the noise), and a Poisson mixture with three components and
eight rows (a sum over all 3^8 assignments). None shares code with the package.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import gammaln, logsumexp

import ppl_lvm as lvm
from ppl_lvm import AIS, NUTS, SMC, SVI, ImportanceSampling, emissions, models, plots
from ppl_lvm.evidence._copies import copies
from ppl_lvm.evidence._optimal import solve
from ppl_lvm.evidence._simulate import simulated
from ppl_lvm.fitting import prepare

CHAINS = NUTS(num_warmup=400, num_samples=800, num_chains=2, target_accept=0.95)  # divergences are noted
SLOW = pytest.mark.slow
LARGEST_ERROR, NUM_ERRORS = 0.1, 3.0  # nats; issue 6

# ---- a regression with normal-gamma prior --------------------------------------------------------

_RNG = np.random.default_rng(3)
DESIGN = np.column_stack([np.ones(15), _RNG.normal(size=(15, 2))])
RESPONSE = DESIGN @ [1.0, -2.0, 0.5] + 0.7 * _RNG.normal(size=15)


def regression(design: Any, y: Any) -> None:
    precision = pyro.sample("precision", dist.Gamma(2.0, 1.0))
    coef = pyro.sample("coef", dist.Normal(torch.zeros(3), 2.0 * precision**-0.5).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(design @ coef, precision**-0.5), obs=y)


def regression_evidence(design: np.ndarray, y: np.ndarray) -> float:
    """coef given the precision is Normal(0, 4 / precision): y is multivariate t (shape b/a (I + 4 X X'))."""
    scatter = 0.5 * (np.eye(len(y)) + 4.0 * design @ design.T)
    return float(stats.multivariate_t(np.zeros(len(y)), scatter, df=4).logpdf(y))


# ---- PPCA, d = 2, q = 1 --------------------------------------------------------------------------

FACTORS = models.PPCA(1, loc_mean=0.0, loc_scale=1.5, loadings_scale=1.0, scale_loc=-0.7, scale_scale=0.5)
ROWS = np.array(
    [[1.2, 0.9], [-0.8, -1.1], [0.3, 0.6], [2.0, 1.4], [-1.5, -0.7], [0.1, -0.4], [0.8, 1.0], [-0.6, -0.2]]
)
HELD = np.array([0.1, -0.2])


def ppca_evidence(x: np.ndarray, loc: np.ndarray | None = None) -> float:
    """Over loadings r (cos t, sin t) and log sd; ``loc`` is integrated analytically, or held."""
    n, mean = len(x), x.mean(0)
    r = np.linspace(0.0, 7.0, 201)[1:]
    t = np.arange(80) * np.pi / 80  # loadings and their negatives give the same data
    log_sd = np.linspace(-4.7, 3.3, 161)
    radius, angle, noise = np.meshgrid(r, t, log_sd, indexing="ij")
    cos, sin, small = np.cos(angle), np.sin(angle), np.exp(2 * noise)
    large = small + radius**2  # the variances along and across the loadings
    log_prior = np.log(radius) - radius**2 / 2 - math.log(np.pi) + stats.norm.logpdf(noise, -0.7, 0.5)
    centre = mean if loc is None else loc
    scatter = (x - centre).T @ (x - centre)
    along = cos**2 * scatter[0, 0] + 2 * cos * sin * scatter[0, 1] + sin**2 * scatter[1, 1]
    spread = -0.5 * (along / large + (np.trace(scatter) - along) / small)
    free = n - 1 if loc is None else n
    log_likelihood = spread - free / 2 * np.log(large * small) - free * math.log(2 * np.pi)
    if loc is None:  # the mean of the rows is normal with the rows' covariance over n, plus loc's
        first, second = large / n + 1.5**2, small / n + 1.5**2
        a, b = cos * mean[0] + sin * mean[1], cos * mean[1] - sin * mean[0]
        log_likelihood += -math.log(n) - math.log(2 * np.pi) - 0.5 * np.log(first * second)
        log_likelihood += -0.5 * (a**2 / first + b**2 / second)
    cell = (r[1] - r[0]) * (t[1] - t[0]) * (log_sd[1] - log_sd[0])
    return float(logsumexp(log_prior + log_likelihood) + math.log(cell))


# ---- a conjugate mixture, K = 3, N = 8 -----------------------------------------------------------

COUNTS = np.array([0.0, 1.0, 1.0, 9.0, 11.0, 30.0, 33.0, 28.0])
APART = np.array([0.0, 0.0, 1.0, 24.0, 27.0, 95.0, 104.0, 99.0])  # chains stay in one of the six modes
MIXTURE = models.Mixture(3, emissions.Poisson(rate_shape=2.0, rate_mean=12.0), concentration=2.0)


def mixture(x: Any) -> None:
    """The same as MIXTURE, as a function: nothing says that its labels are exchangeable."""
    weights = pyro.sample("weights", dist.Dirichlet(2.0 * torch.ones(3)))
    rate = pyro.sample("rate", dist.Gamma(2.0 * torch.ones(3), 2.0 / 12.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.MixtureSameFamily(dist.Categorical(weights), dist.Poisson(rate)), obs=x)


def mixture_evidence(x: np.ndarray) -> float:
    """Each assignment: a Dirichlet-multinomial, and for each component a gamma-Poisson of its rows."""
    k, alpha, shape, rate, n = 3, 2.0, 2.0, 2.0 / 12.0, len(x)

    @functools.cache
    def component(rows: tuple[int, ...]) -> float:
        own = x[list(rows)]
        total = shape + own.sum()
        of_prior = shape * math.log(rate) - gammaln(shape)
        return float(of_prior + gammaln(total) - total * math.log(rate + len(own)) - gammaln(own + 1).sum())

    terms = []
    for labels in itertools.product(range(k), repeat=n):
        counts = np.bincount(labels, minlength=k)
        log_labels = (
            gammaln(k * alpha) - gammaln(n + k * alpha) + (gammaln(counts + alpha) - gammaln(alpha)).sum()
        )
        members = (tuple(i for i in range(n) if labels[i] == j) for j in range(k))
        terms.append(log_labels + sum(component(m) for m in members))
    return float(logsumexp(terms))


class Case(NamedTuple):
    model: Any
    data: Any
    truth: Callable[[], float]
    held: tuple[str, ...] = ()


CASES = {
    "regression": Case(
        regression, {"design": DESIGN, "y": RESPONSE}, lambda: regression_evidence(DESIGN, RESPONSE)
    ),
    "ppca": Case(FACTORS, ROWS, lambda: ppca_evidence(ROWS)),
    "ppca given loc": Case(
        lvm.condition(FACTORS, {"loc": HELD}), ROWS, lambda: ppca_evidence(ROWS, HELD), ("loc",)
    ),
    "mixture": Case(MIXTURE, COUNTS[:, None], lambda: mixture_evidence(COUNTS)),
}


@functools.cache
def truth(name: str) -> float:
    return CASES[name].truth()


ENGINES: dict[str, Any] = {"AIS": AIS(), "SMC": SMC(), "bridge": CHAINS}


@functools.cache
def fitted(name: str, way: str, seed: int = 0) -> lvm.Fit:
    """A fit that tests share: what compiles for one way and model serves several of them."""
    return lvm.fit(CASES[name].model, CASES[name].data, ENGINES[way], seed=seed)


def estimate(name: str, way: str, seed: int = 0) -> lvm.Evidence:
    fit = fitted(name, way, seed)
    found = lvm.bridge(fit, seed=seed) if way == "bridge" else fit.evidence
    assert found is not None
    return found


# Cold, every pair compiles for seconds: some wait for `make test-slow`.
QUICK = {("mixture", way) for way in ENGINES} | {
    ("regression", "AIS"),
    ("regression", "SMC"),
    ("ppca", "bridge"),
}
PAIRS = [
    pytest.param(name, way, marks=() if (name, way) in QUICK else SLOW, id=f"{name}-{way}")
    for name, way in itertools.product(CASES, ENGINES)
]

# ---- the truth -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_estimates_are_within_three_small_errors_of_the_exact_evidence(name: str, way: str) -> None:
    found = estimate(name, way)
    assert found.kind == "estimate"
    assert found.conditional_on == CASES[name].held
    assert found.note == ""
    assert 0 < found.std_error <= LARGEST_ERROR
    assert abs(found.nats - truth(name)) < NUM_ERRORS * found.std_error


@pytest.mark.slow
@pytest.mark.parametrize("way", ENGINES)
@pytest.mark.parametrize("name", ["regression", "ppca", "mixture"])
def test_standard_errors_are_calibrated(name: str, way: str) -> None:
    found = [estimate(name, way, 100 + seed) for seed in range(50)]
    z = np.array([(e.nats - truth(name)) / e.std_error for e in found])
    assert 0.7 < z.std(ddof=1) < 1.4
    assert abs(z.mean()) < 4 * z.std(ddof=1) / math.sqrt(50)  # no bias beyond the noise of 50 seeds


def test_a_bridge_to_one_of_the_modes_is_told_from_the_exact_evidence() -> None:
    """A plain function's labels are not known to be exchangeable: its chains sit in one of six modes."""
    start = {"weights": np.array([0.375, 0.25, 0.375]), "rate": np.array([0.7, 25.0, 99.0])}
    fit = lvm.fit(mixture, APART, CHAINS, init=start)
    assert (np.diff(fit.posterior["rate"].values, axis=-1) > 0).all()  # in the order of the start
    found, exact = lvm.bridge(fit), mixture_evidence(APART)
    assert abs(found.nats - (exact - math.log(6))) < NUM_ERRORS * found.std_error
    assert not abs(found.nats - exact) < NUM_ERRORS * found.std_error


def test_which_of_the_modes_chains_have_seen_does_not_matter() -> None:
    """Draws relabelled at random: a bridge that covers all copies gives the same, with a larger error."""
    from ppl_lvm.relabel import permute
    from ppl_lvm.result import flat_draws

    fit = fitted("mixture", "bridge")
    orders = np.random.default_rng(0).permuted(
        np.tile(np.arange(3), (fit.posterior.sizes["chain"] * 800, 1)), axis=1
    )
    moved = permute(flat_draws(fit.posterior), MIXTURE.label_axes, orders)
    draws = fit.posterior.assign(
        {k: (fit.posterior[k].dims, v.reshape(fit.posterior[k].shape)) for k, v in moved.items()}
    )
    switched = lvm.bridge(dataclasses.replace(fit, draws=draws))  # not settled: the normal is very wide
    assert abs(switched.nats - truth("mixture")) < NUM_ERRORS * switched.std_error
    assert "chains disagree" not in switched.note


def test_chains_in_different_modes_are_noted() -> None:
    orders = [[0.7, 25.0, 99.0], [99.0, 0.7, 25.0]]
    start = {"rate": np.array(orders), "weights": np.full((2, 3), 1 / 3)}
    found = lvm.bridge(lvm.fit(mixture, APART, CHAINS, init=start))
    assert "chains disagree (R-hat" in found.note


# ---- the sandwich --------------------------------------------------------------------------------

SIMULATED: dict[str, Callable[[dict[str, Any]], float]] = {
    "regression": lambda data: regression_evidence(data["design"], data["y"]),
    "ppca": lambda data: ppca_evidence(data["x"]),
    "mixture": lambda data: mixture_evidence(data["x"][:, 0]),
}


@pytest.mark.parametrize("name", ["regression", *(pytest.param(n, marks=SLOW) for n in ("mixture", "ppca"))])
def test_the_sandwich_contains_the_evidence_of_its_data(name: str) -> None:
    found = lvm.sandwich(CASES[name].model, CASES[name].data, num_temperatures=200, seed=1)
    exact = SIMULATED[name](dict(found.data))
    low, high = found.interval(NUM_ERRORS)
    assert low < exact < high
    assert (found.lower.kind, found.upper.kind) == ("lower_bound", "upper_bound")
    assert max(found.lower.std_error, found.upper.std_error) <= LARGEST_ERROR
    assert found.gap == found.upper.nats - found.lower.nats
    assert "between" in str(found)


@pytest.mark.slow
def test_bounds_lie_on_their_sides_where_annealing_is_too_quick() -> None:
    """Four temperatures and one particle: far too few, so that both bounds are off, each to its side."""
    case = CASES["regression"]
    found = lvm.sandwich(case.model, case.data, num_runs=200, num_particles=1, num_temperatures=4)
    exact = SIMULATED["regression"](dict(found.data))
    assert found.lower.nats < exact - 4 * found.lower.std_error
    assert found.upper.nats > exact + 4 * found.upper.std_error


@pytest.mark.slow
def test_sandwiches_of_many_data_sets_contain_the_truth() -> None:
    """Three errors on the open sides: beyond them once in 700 ends, were the bounds no bounds at all."""
    case = CASES["regression"]
    for seed in range(20):
        found = lvm.sandwich(case.model, case.data, seed=seed)
        low, high = found.interval(NUM_ERRORS)
        assert low < SIMULATED["regression"](dict(found.data)) < high, seed


def test_simulated_data_come_from_the_values_and_keep_what_is_missing() -> None:
    x = np.random.default_rng(0).normal(size=(400, 2))
    x[3, 1] = np.nan
    problem, values = simulated(prepare(FACTORS, x), {}, seed=0)
    data = np.asarray(problem.data.values["x"])
    assert np.isnan(data[3, 1])
    assert np.isnan(data).sum() == 1
    # in 400 rows the mean is loc within four of its standard errors
    loc, mean = values["loc"], np.nanmean(data, axis=0)
    assert (np.abs(mean - loc) < 4 * np.nanstd(data, axis=0) / 20).all()


# ---- the ladder ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ladder() -> lvm.EvidenceLadder:
    case = CASES["mixture"]
    return lvm.evidence_ladder(
        case.model,
        case.data,
        exact=truth("mixture"),
        nuts=CHAINS,
        svi=SVI(backend="numpyro", num_steps=1500, num_draws=10_000),
    )


def test_the_ladder_rises_to_the_exact_evidence(ladder: lvm.EvidenceLadder) -> None:
    assert list(ladder.table.index) == [
        "prior IS",
        "ELBO",
        "IWAE_5",
        "IWAE_50",
        "IWAE_500",
        "AIS",
        "SMC",
        "bridge",
        "exact",
    ]
    assert list(ladder.table.columns) == ["nats", "std_error", "kind", "seconds", "note"]
    exact = truth("mixture")
    for name, found in ladder.evidence.items():
        room = 4 * found.std_error
        if found.kind == "lower_bound":
            assert found.nats < exact + room, name
        elif found.kind == "estimate":
            assert abs(found.nats - exact) < room, name
    nats = ladder.table["nats"]
    assert nats["ELBO"] < nats["IWAE_5"] < nats["IWAE_50"]
    assert nats["ELBO"] == pytest.approx(ladder.fits["ELBO"].evidence.nats, rel=1e-12)
    assert (ladder.table["seconds"].drop("exact") > 0).all()


def test_the_ladder_says_what_it_found(ladder: lvm.EvidenceLadder) -> None:
    text = repr(ladder)
    assert "Mixture(num_components=3" in text
    assert all(name in text for name in ladder.table.index)
    assert f"{truth('mixture'):.2f}" in text


def improper(y: Any) -> None:
    centre = pyro.sample("centre", dist.ImproperUniform(dist.constraints.real, (), ()))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(centre, 1.0), obs=y)


def test_rungs_that_refuse_stay_with_their_reason() -> None:
    short = NUTS(num_warmup=50, num_samples=50, num_chains=2)
    found = lvm.evidence_ladder(improper, RESPONSE, nuts=short, svi=SVI(num_steps=200, num_draws=100))
    missing = found.table[found.table["nats"].isna()]
    assert {"prior IS", "AIS", "SMC", "bridge", "IWAE_500"} == set(missing.index)
    assert missing.loc[["prior IS", "AIS", "SMC", "bridge"], "note"].str.contains("centre").all()
    assert "raise num_draws" in missing.loc["IWAE_500", "note"]
    assert "-" in repr(found)
    plots.plot_ladder(found)


def test_bad_arguments_of_the_ladder() -> None:
    with pytest.raises(TypeError, match=r"^nuts: expected NUTS"):
        lvm.evidence_ladder(regression, CASES["regression"].data, nuts=SVI())
    with pytest.raises(ValueError, match=r"^exact: expected"):
        lvm.evidence_ladder(regression, CASES["regression"].data, exact=math.inf)


def test_the_ladders_picture_tells_kinds_apart(ladder: lvm.EvidenceLadder) -> None:
    figure = ladder.plot()
    (axes,) = figure.axes
    shown = {line.get_marker() for line in axes.lines}
    assert {">", "o", "D"} <= shown
    low, high = axes.get_xlim()
    assert low < truth("mixture") < high
    with pytest.raises(TypeError, match=r"^ladder: expected"):
        plots.plot_ladder({})


def test_a_poor_rung_does_not_flatten_the_picture(ladder: lvm.EvidenceLadder) -> None:
    far = lvm.Evidence("estimate", -5000.0, 0.9)
    axes = dataclasses.replace(ladder, evidence={**ladder.evidence, "prior IS": far}).plot().axes[0]
    assert axes.get_xlim()[0] > truth("mixture") - 10
    assert any(text.arrow_patch is not None for text in axes.texts)


# ---- engines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["SMC", pytest.param("AIS", marks=SLOW)])
def test_draws_are_of_the_posterior_with_their_errors(way: str) -> None:
    """The posterior of the regression's coefficients has the mean of ridge regression."""
    fit = fitted("regression", way)
    table = fit.summary()
    expected = np.linalg.solve(DESIGN.T @ DESIGN + np.eye(3) / 4, DESIGN.T @ RESPONSE)
    for i, value in enumerate(expected):
        row = table.loc[f"coef[{i}]"]
        assert abs(row["mean"] - value) < 4 * row["mcse_mean"]
        assert row["mcse_mean"] < 0.2 * row["sd"]
    assert fit.status.ok
    assert fit.backend == "numpyro"


@pytest.mark.parametrize("way", ["SMC", "AIS"])
def test_fits_come_back_from_disk(way: str, tmp_path: Path) -> None:
    fit = fitted("mixture", way)
    again = lvm.load(fit.save(tmp_path / "fit"))
    assert again.engine == fit.engine
    assert again.evidence == fit.evidence
    pd.testing.assert_frame_equal(again.summary(), fit.summary())


def centred(y: Any) -> None:
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(centre, 1.0), obs=y)


@pytest.mark.parametrize(
    "engine", [SMC(num_particles=200, num_runs=8), pytest.param(AIS(), marks=SLOW)], ids=["SMC", "AIS"]
)
def test_single_precision(engine: Any) -> None:
    fit = lvm.fit(centred, RESPONSE[:6], engine, dtype="float32")
    assert fit.posterior["centre"].dtype == np.float32
    exact = stats.multivariate_normal(np.zeros(6), np.eye(6) + 1.0).logpdf(RESPONSE[:6])
    assert abs(fit.evidence.nats - exact) < NUM_ERRORS * fit.evidence.std_error


def shifted(y: Any) -> None:
    shift = pyro.param("shift", torch.tensor(0.0))
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(centre + shift, 1.0), obs=y)


def test_params_are_held_and_named() -> None:
    y = RESPONSE[:6]
    with pytest.raises(ValueError, match=r"shift.*no values yet"):
        lvm.fit(shifted, y, SMC())
    trained = lvm.fit(shifted, y, SVI(num_steps=300))
    shift = float(trained.params["shift"])
    exact = stats.multivariate_normal(np.full(6, shift), np.eye(6) + 1.0).logpdf(y)
    held = lvm.condition(shifted, trained)
    short = NUTS(num_warmup=200, num_samples=400, num_chains=2)
    ways = {
        "SMC": lvm.fit(shifted, y, SMC(num_particles=100), init=trained).evidence,
        "bridge": lvm.bridge(lvm.fit(held, y, short)),
    }
    for way, found in ways.items():
        assert found.conditional_on == ("shift",), way
        assert abs(found.nats - exact) < NUM_ERRORS * found.std_error, way


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a guide's draws": (lambda: lvm.bridge(small(SVI(num_steps=50, num_draws=50))), r"^fit: .*independent"),
    "weighted draws": (lambda: lvm.bridge(small(ImportanceSampling(num_samples=50))), r"^fit: .*resampled"),
    "a point": (lambda: lvm.bridge(lvm.fit(FACTORS, ROWS, lvm.EM())), r"^EM gives a point"),
    "few draws": (lambda: lvm.bridge(small(NUTS(num_warmup=10, num_samples=6, num_chains=1))), "too few"),
    "no fit": (lambda: lvm.bridge("nuts"), r"^fit: expected a NUTS fit"),
    "num_proposals": (
        lambda: lvm.bridge(fitted("ppca", "bridge"), num_proposals=3),
        r"^num_proposals: expected",
    ),
    "an improper prior": (lambda: lvm.fit(improper, RESPONSE, SMC()), r"prior, and that of \['centre'\]"),
    "many labels": (
        lambda: copies(
            prepare(models.Mixture(6, emissions.Poisson()), COUNTS[:, None]), {"rate": np.ones((1, 6, 1))}
        ),
        r"^fit: .*720 equal modes.*SMC",
    ),
    "signs": (
        lambda: copies(prepare(models.FactorAnalysis(1, mask=((True,),) * 3), RESPONSE.reshape(5, 3)), {}),
        r"^fit: .*signs.*loadings_free",
    ),
    "rotations": (
        lambda: copies(
            prepare(models.FactorAnalysis(2, collapsed=False), np.vander(np.linspace(-1, 1, 20), 5)[:, :4]),
            {"loadings": np.ones((1, 4, 2))},
        ),
        r"^fit: \['z'\].*continuum",
    ),
    "changed data": (lambda: lvm.sandwich(changed, {"y": RESPONSE}), r"^data: site 'obs' should observe one"),
}


def small(engine: Any) -> lvm.Fit:
    return lvm.fit(regression, CASES["regression"].data, engine)


def changed(y: Any) -> None:
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(centre, 1.0), obs=2 * y)


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_in_words(case: str) -> None:
    run, words = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=words):
        run()


def test_a_fit_without_its_data_is_refused(tmp_path: Path) -> None:
    path = fitted("ppca", "bridge").save(tmp_path / "fit", data=False)
    with pytest.raises(ValueError, match=r"^fit: it was loaded without its data"):
        lvm.bridge(lvm.load(path))
    path = fitted("ppca", "bridge").save(tmp_path / "whole")
    assert lvm.bridge(lvm.load(path)) == lvm.bridge(fitted("ppca", "bridge"))


@pytest.mark.slow
def test_factors_that_change_order_and_sign_are_averaged_over() -> None:
    """ARD loadings may change order and signs; SMC, whose particles come from the prior, needs no average."""
    model = models.PPCA(2, ard=True, loc_mean=0.0, loc_scale=1.0, loadings_scale=1.0, scale_loc=-0.5)
    x = np.random.default_rng(1).normal(size=(12, 3)) @ np.diag([2.0, 1.0, 0.5])
    fit = lvm.fit(model, x, NUTS(num_warmup=500, num_samples=1000, num_chains=2, target_accept=0.95))
    found, other = lvm.bridge(fit), lvm.fit(model, x, SMC()).evidence
    assert abs(found.nats - other.nats) < NUM_ERRORS * math.hypot(found.std_error, other.std_error)


def test_the_bridge_equation_on_normals_of_known_ratio() -> None:
    """Independent draws of N(0, 1) with density r exp(-z^2/2)/sqrt(2 pi), proposal N(0.5, 1.5^2)."""
    rng = np.random.default_rng(0)
    log_r = 7.3

    def ratio(z: np.ndarray) -> np.ndarray:
        return log_r + stats.norm.logpdf(z) - stats.norm.logpdf(z, 0.5, 1.5)

    found = solve(ratio(rng.normal(size=(4, 1000))), ratio(rng.normal(0.5, 1.5, size=4000)))
    assert abs(found.log_r - log_r) < NUM_ERRORS * found.std_error
    assert found.std_error < 0.03
    assert found.num_effective > 2000


def test_a_bridge_from_draws_of_density_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="density is zero"):
        solve(np.full((2, 10), -np.inf), np.zeros(10))
