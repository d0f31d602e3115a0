"""What an encoder costs, against closed forms: with linear networks and normal noise a VAE is PPCA.

Given weights W, b and noise sd s, log p(x), the posterior of z, the ELBO of any normal q, and the best
diagonal normal (its variances are 1 / precision_ii) are known; these formulas share no code with the package.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from matplotlib.figure import Figure
from scipy.stats import multivariate_normal

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, amortised, models, plots
from ppl_lvm.gaps import _latents
from ppl_lvm.networks import MLP

Q, D, N, NOISE = 2, 4, 12, 0.7
LINEAR = MLP(hidden=())
QUICK = NUTS(num_warmup=300, num_samples=500, num_chains=4)


class Closed:
    """PPCA with given weights: the posterior of z, log p(x), and the ELBO of a normal q."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.w = rng.standard_normal((D, Q))
        self.b = rng.standard_normal(D)
        z = rng.standard_normal((N, Q))
        self.x = z @ self.w.T + self.b + NOISE * rng.standard_normal((N, D))
        self.precision = np.eye(Q) + self.w.T @ self.w / NOISE**2
        self.cov = np.linalg.inv(self.precision)
        self.gain = self.cov @ self.w.T / NOISE**2  # posterior mean = gain (x - b)

    def mean(self, x: np.ndarray) -> np.ndarray:
        return (x - self.b) @ self.gain.T

    def log_p(self, x: np.ndarray) -> np.ndarray:
        cov = self.w @ self.w.T + NOISE**2 * np.eye(D)
        return multivariate_normal(self.b, cov).logpdf(x)

    def kl(self, loc: np.ndarray, cov: np.ndarray, x: np.ndarray) -> np.ndarray:
        """KL(Normal(loc, cov) || posterior), (n,)."""
        shift = loc - self.mean(x)
        quadratic = np.einsum("ni,ij,nj->n", shift, self.precision, shift)
        log_det = np.linalg.slogdet(self.precision @ cov)[1]
        return 0.5 * (np.trace(self.precision @ cov) - Q - log_det + quadratic)


CLOSED = Closed()
SDS = 1.3 / np.sqrt(np.diag(CLOSED.precision))  # the encoder's: too wide, and its means a little off
SHIFT = np.array([0.15, -0.1])


def trained(posterior: str = "diagonal", **settings: Any) -> lvm.Fit:
    """A fit of the linear VAE whose weights are those of CLOSED, in float64."""
    options = {"noise_scale": NOISE, "likelihood": "gaussian", "encoder": LINEAR, "decoder": LINEAR}
    model = models.VAE(Q, posterior=posterior, flow_hidden=4, **options | settings)
    engine = SVI(backend="numpyro", batch_size=N, num_epochs=1)
    fit = lvm.fit(model, CLOSED.x, engine, dtype="float64", progress=False)
    params = {k: np.array(v) for k, v in fit.params.items()}
    params["decoder$$$layers.0.weight"], params["decoder$$$layers.0.bias"] = CLOSED.w, CLOSED.b
    weight, bias = (np.zeros_like(params[f"encoder$$$layers.0.{n}"]) for n in ("weight", "bias"))
    weight[:Q] = CLOSED.gain
    bias[:Q] = SHIFT - CLOSED.gain @ CLOSED.b
    if posterior == "full":  # the exact posterior
        root = np.linalg.cholesky(CLOSED.cov)
        bias[:Q] -= SHIFT
        bias[Q : 2 * Q], bias[2 * Q :] = np.log(np.diag(root)), root[1, 0]
    else:
        bias[Q : 2 * Q] = np.log(SDS)
    params["encoder$$$layers.0.weight"], params["encoder$$$layers.0.bias"] = weight, bias
    return dataclasses.replace(fit, params=params)


@pytest.fixture(scope="module")
def vae() -> lvm.Fit:
    return trained()


@pytest.fixture(scope="module")
def exact_vae() -> lvm.Fit:
    return trained("full")


@pytest.fixture(scope="module")
def gap(vae: lvm.Fit) -> lvm.AmortisationGap:
    return lvm.amortisation_gap(vae, num_draws=4000, num_temperatures=30, num_chains=32)


def within(value: Any, target: Any, error: Any, slack: Any = 0.0) -> None:
    """Twelve comparisons at once: five standard errors, and what is known of the bias."""
    assert (np.abs(np.asarray(value) - target) <= 5 * np.asarray(error) + slack).all()


# ---- log p(x) --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["encoder", pytest.param("prior", marks=pytest.mark.slow)])
def test_ais_is_the_closed_form_within_its_error(vae: lvm.Fit, start: Any) -> None:
    found = lvm.ais_log_likelihood(vae, num_chains=64, num_temperatures=30, start=start, seed=1)
    assert found.kind == "lower_bound"
    bias = found.std_error**2  # of the log of a mean: half the relative variance, to first order
    within(found.pointwise, CLOSED.log_p(CLOSED.x), found.std_error, bias)
    assert found.std_error.max() < 0.2
    total = abs(found.total - CLOSED.log_p(CLOSED.x).sum())
    assert total <= 4 * found.total_std_error + bias.sum()


def test_ais_takes_data_in_blocks_and_other_data(vae: lvm.Fit) -> None:
    x = CLOSED.x[:5] + 0.1
    found = lvm.ais_log_likelihood(vae, x, num_chains=32, num_temperatures=30, block=70)
    within(found.pointwise, CLOSED.log_p(x), found.std_error, found.std_error**2)


@pytest.mark.slow
def test_weights_of_a_plain_start_are_unbiased(vae: lvm.Fit) -> None:
    """Four temperatures from the prior: the log of two weights is far too low, the mean of exp(w) right."""
    found = lvm.ais_log_likelihood(vae, num_chains=2000, num_temperatures=4, start="prior", block=20_000)
    few = lvm.ais_log_likelihood(vae, num_chains=2, num_temperatures=4, start="prior")
    exact = CLOSED.log_p(CLOSED.x)
    within(found.pointwise, exact, found.std_error, found.std_error**2)
    assert (exact - few.pointwise).mean() > 0.1  # the log of a mean of two is biased: a lower bound


def test_both_ways_enclose_the_closed_form(vae: lvm.Fit) -> None:
    found = lvm.bidirectional(vae, 50, num_temperatures=40, num_chains=32, num_particles=500)
    exact = CLOSED.log_p(found.data)
    for name in ("forward", "reverse", "iwae"):
        error = found.table[f"{name}_error"]
        assert (
            abs((found.table[name] - exact).mean()) < 4 * math.sqrt((error**2).sum()) / 50 + (error**2).mean()
        )
    assert abs(found.gap.value) < 0.1
    assert found.iwae_excess.value < 4 * found.iwae_excess.mc_error
    assert "reverse - forward" in repr(found)


@pytest.mark.slow
def test_both_ways_part_where_the_path_is_too_short(vae: lvm.Fit) -> None:
    """Two temperatures from the prior, two chains: the bounds must show that they cannot be trusted."""
    found = lvm.bidirectional(vae, 50, num_temperatures=2, num_chains=2, start="prior", num_particles=50)
    assert found.gap.value > 4 * found.gap.std_error
    assert found.gap.value > 0.1


# ---- gaps ------------------------------------------------------------------------------------------


def test_gaps_are_those_of_the_closed_form(gap: lvm.AmortisationGap) -> None:
    x, t = CLOSED.x, gap.table
    loc = CLOSED.mean(x)
    encoder = CLOSED.kl(loc + SHIFT, np.diag(SDS**2), x)
    best = CLOSED.kl(loc, np.diag(1 / np.diag(CLOSED.precision)), x)
    assert best.min() > 0.1  # a diagonal normal cannot be the posterior here
    assert (encoder - best).min() > 0.05
    exact = CLOSED.log_p(x)
    bias = t["log_p_error"] ** 2
    within(t["log_p"], exact, t["log_p_error"], bias)
    within(t["elbo"], exact - encoder, t["elbo_error"])
    within(t["best"], exact - best, t["best_error"], gap.settings["tolerance"])
    within(t["amortisation"], encoder - best, t["amortisation_error"], gap.settings["tolerance"])
    within(t["approximation"], best, t["approximation_error"], gap.settings["tolerance"] + bias)
    assert np.allclose(t["inference"], t["approximation"] + t["amortisation"])
    assert t["converged"].all()


def test_the_means_carry_errors_and_kinds(gap: lvm.AmortisationGap) -> None:
    s = gap.summary
    assert dict(s["kind"]) == {
        "log_p": "lower bound", "best": "lower bound", "elbo": "lower bound",
        "approximation": "at least", "amortisation": "at least", "inference": "at least",
    }  # fmt: skip
    for name in s.index:
        errors = gap.table[f"{name}_error"]
        assert s.loc[name, "mean"] == pytest.approx(gap.table[name].mean())
        assert s.loc[name, "mc_error"] == pytest.approx(math.sqrt((errors**2).sum()) / N)
        assert s.loc[name, "std_error"] == pytest.approx(gap.table[name].std() / math.sqrt(N))
    assert "at least" in repr(gap)
    assert "at least" in gap._repr_html_()


def test_paired_draws_narrow_the_difference(gap: lvm.AmortisationGap) -> None:
    unpaired = np.hypot(gap.table["best_error"], gap.table["elbo_error"])
    assert (gap.table["amortisation_error"] < 0.9 * unpaired).all()


def test_a_full_normal_closes_the_gap(vae: lvm.Fit) -> None:
    found = lvm.amortisation_gap(vae, family="full", num_temperatures=30, num_draws=500)
    t = found.table
    exact = CLOSED.log_p(CLOSED.x)
    # q* is the posterior itself, where log p - log q is one number: only the stopping rule is left
    assert (np.abs(t["best"] - exact) < found.settings["tolerance"]).all()
    assert found.summary.loc["amortisation", "kind"] == "difference"
    assert "families" in " ".join(found.notes)


def test_an_exact_encoder_has_no_gap(exact_vae: lvm.Fit) -> None:
    found = lvm.amortisation_gap(exact_vae, log_p="iwae", num_particles=50, num_draws=200)
    for name in ("approximation", "amortisation", "inference"):
        assert np.abs(found.table[name]).max() < 1e-6
    assert found.settings["family"] == "full"
    assert found.summary.loc["approximation", "kind"] == "at least"


@pytest.mark.slow
def test_a_flow_keeps_its_own_elbo_and_says_what_is_refined() -> None:
    fit = trained("flow")
    found = lvm.amortisation_gap(fit, log_p="iwae", num_particles=200, num_draws=500)
    own = fit.encode(num_draws=400).evidence
    assert own is not None
    error = math.hypot(found.summary.loc["elbo", "mc_error"] * N, own.std_error)
    assert abs(found.table["elbo"].sum() - own.nats) < 4 * error
    assert set(found.summary["kind"][["approximation", "amortisation"]]) == {"difference"}
    assert "not normal" in " ".join(found.notes)
    assert (np.abs(found.table["best"] - CLOSED.log_p(CLOSED.x)) < 0.02).all()  # a full normal is exact here


@pytest.mark.slow
def test_a_refinement_cut_short_says_so(vae: lvm.Fit) -> None:
    found = lvm.amortisation_gap(
        vae, log_p="iwae", num_particles=50, num_draws=50, max_rounds=1, tolerance=1e-6
    )
    assert not found.table["converged"].all()
    assert any("raise max_rounds" in note for note in found.notes)


# ---- chains by datum -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chains(vae: lvm.Fit) -> lvm.Fit:
    return lvm.fit(lvm.condition(vae.model, vae), CLOSED.x, QUICK, dtype="float64")


def test_chains_by_datum_have_the_posterior(chains: lvm.Fit) -> None:
    z = chains.posterior["z"]
    assert z.dims == ("chain", "draw", "data", "latent")
    assert z.shape == (4, 500, N, Q)
    s = chains.summary()
    mean = CLOSED.mean(CLOSED.x).ravel()
    sd = np.tile(np.sqrt(np.diag(CLOSED.cov)), N)
    within(s["mean"], mean, s["mcse_mean"])
    within(s["sd"], sd, s["mcse_sd"])
    flat = z.values.reshape(-1, N, Q) - CLOSED.mean(CLOSED.x)
    correlation = (flat[..., 0] * flat[..., 1]).mean(0) / np.sqrt(np.prod(np.diag(CLOSED.cov)))
    target = CLOSED.cov[0, 1] / np.sqrt(np.prod(np.diag(CLOSED.cov)))
    within(correlation, target, 1 / math.sqrt(s["ess_bulk"].min()))


def test_each_datum_has_diagnostics_of_its_own(chains: lvm.Fit) -> None:
    own = chains.groups["per_datum"]
    assert set(own.data_vars) >= {"r_hat", "ess_bulk", "ess_tail", "divergences", "step_size", "n_steps"}
    assert own["r_hat"].shape == (N,)
    s = chains.summary()["r_hat"].to_numpy().reshape(N, Q).max(1)
    assert np.allclose(own["r_hat"], s)
    assert chains.sample_stats is not None
    assert chains.sample_stats["lp"].dims == ("chain", "draw")
    assert any(f.check == "r_hat_per_datum" for f in chains.diagnose())
    lp = chains.sample_stats["lp"].values[0, :3]
    z = chains.posterior["z"].values[0, :3]
    residual = CLOSED.x - z @ CLOSED.w.T - CLOSED.b
    joint = -0.5 * (z**2).sum((1, 2)) - 0.5 * (residual**2).sum((1, 2)) / NOISE**2
    joint -= N * (0.5 * (Q + D) * math.log(2 * math.pi) + D * math.log(NOISE))
    assert np.allclose(lp, joint, rtol=1e-10)


@pytest.mark.slow
def test_chains_by_datum_agree_with_the_joint_run(vae: lvm.Fit, chains: lvm.Fit) -> None:
    held = lvm.condition(vae.model, vae)
    joint = lvm.fit(held, CLOSED.x, dataclasses.replace(QUICK, by_datum=False), dtype="float64", seed=5)
    assert "per_datum" not in joint.groups
    a, b = chains.summary(), joint.summary()
    assert list(a.index) == list(b.index)
    within(a["mean"], b["mean"], np.hypot(a["mcse_mean"], b["mcse_mean"]))
    within(a["sd"], b["sd"], np.hypot(a["mcse_sd"], b["mcse_sd"]))


@pytest.mark.slow
def test_blocks_of_data_change_no_draw(vae: lvm.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    from ppl_lvm.engines import _jax_nuts_rows

    engine = NUTS(num_warmup=50, num_samples=20, num_chains=2)
    held = lvm.condition(vae.model, vae)
    whole = lvm.fit(held, CLOSED.x[:5], engine, dtype="float64")
    monkeypatch.setattr(_jax_nuts_rows, "_MOST", 4)  # two data at a time, and one that is padded
    parts = lvm.fit(held, CLOSED.x[:5], engine, dtype="float64")
    assert np.allclose(whole.posterior["z"], parts.posterior["z"], rtol=1e-6, atol=1e-8)


def test_a_poor_encoder_is_judged_by_the_chains(vae: lvm.Fit, chains: lvm.Fit) -> None:
    params = {k: np.array(v) for k, v in vae.params.items()}
    params["encoder$$$layers.0.bias"][:Q] += np.sqrt(np.diag(CLOSED.cov))  # its means are more than an sd off
    poor = dataclasses.replace(vae, params=params).encode(num_draws=2000)
    found = lvm.compare({"encoder": poor, "nuts": chains}, reference="nuts")
    assert found.verdicts["encoder"].level == "do_not_trust"
    bias = SHIFT / np.sqrt(np.diag(CLOSED.cov)) + 1
    rows = found.table.loc["encoder"]
    within(rows["bias"], np.tile(bias, N), rows["bias_error"], 0.05 * bias.max())  # in sds of 2000 draws


@pytest.mark.slow
def test_an_exact_encoder_passes_against_the_chains(exact_vae: lvm.Fit) -> None:
    held = lvm.condition(exact_vae.model, exact_vae)
    engine = dataclasses.replace(QUICK, num_samples=1000)
    truth = lvm.fit(held, CLOSED.x[:4], engine, dtype="float64")
    fine = lvm.compare(
        {"encoder": exact_vae.encode(CLOSED.x[:4], num_draws=4000), "nuts": truth}, reference="nuts"
    )
    assert fine.verdicts["encoder"].level == "means_and_spreads"


def plain(y: Any) -> None:
    scale = pyro.param("scale", lambda: y.new_tensor(2.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, scale), obs=y)


def global_mean(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


def test_models_whose_data_are_tied_together_are_refused() -> None:
    y = np.array([0.3, -0.2, 1.0])
    with pytest.raises(ValueError, match=r"by_datum.*(twin|outside the data plate)"):
        lvm.fit(global_mean, y, NUTS(by_datum=True))
    with pytest.raises(TypeError, match="by_datum: expected True or False"):
        NUTS(by_datum=1)  # type: ignore[arg-type]


def coupled_twin(y: Any) -> None:
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as ndist

    with numpyro.plate("data", y.shape[0]):
        z = numpyro.sample("z", ndist.Normal(0.0, 1.0))
        numpyro.sample("obs", ndist.Normal(z - jnp.mean(z), 1.0), obs=y)


def coupled(y: Any) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z - z.mean(), 1.0), obs=y)


def test_a_program_that_mixes_rows_is_found_out() -> None:
    model = lvm.Model(coupled, numpyro=coupled_twin)
    with pytest.raises(ValueError, match="changes with the rows beside it"):
        lvm.fit(model, np.array([0.3, -0.2, 1.0]), NUTS(by_datum=True, num_warmup=10, num_samples=10))


def log_normal_twin(y: Any) -> None:
    import numpyro
    import numpyro.distributions as ndist

    with numpyro.plate("data", y.shape[0]):
        z = numpyro.sample("z", ndist.LogNormal(0.0, 1.0))
        numpyro.sample("obs", ndist.Normal(z, 0.5), obs=y)


def log_normal(y: Any) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, 0.5), obs=y)


@pytest.mark.slow
def test_latents_with_a_support_are_mapped() -> None:
    """Positive latents, by quadrature."""
    y = np.array([0.5, 1.5, 4.0])
    model = lvm.Model(log_normal, numpyro=log_normal_twin)
    fit = lvm.fit(model, y, dataclasses.replace(QUICK, by_datum=True))
    s = fit.summary()
    grid = np.linspace(1e-4, 12, 40_001)
    density = np.exp(-0.5 * np.log(grid) ** 2 - np.log(grid) - 0.5 * ((y[:, None] - grid) / 0.5) ** 2)
    mean = (density * grid).sum(1) / density.sum(1)
    within(s["mean"], mean, s["mcse_mean"])


# ---- what the latents carry ------------------------------------------------------------------------


def with_idle(fit: lvm.Fit, dims: list[int]) -> lvm.Fit:
    """The encoder gives the prior in these dimensions."""
    params = {k: np.array(v) for k, v in fit.params.items()}
    for j in dims:
        params["encoder$$$layers.0.weight"][[j, Q + j]] = 0.0
        params["encoder$$$layers.0.bias"][[j, Q + j]] = 0.0
    return dataclasses.replace(fit, params=params)


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    rng = np.random.default_rng(8)
    z = rng.standard_normal((800, Q))
    return z @ CLOSED.w.T + CLOSED.b + NOISE * rng.standard_normal((800, D))


def test_figures_of_the_latents_are_those_of_the_closed_form(exact_vae: lvm.Fit, many: np.ndarray) -> None:
    """The exact posterior: its aggregate over data of the model is the prior, so that kl = information."""
    found = lvm.latent_diagnostics(exact_vae, many)
    s, mean = found.summary, CLOSED.mean(many)
    kl = 0.5 * (np.trace(CLOSED.cov) - Q - np.linalg.slogdet(CLOSED.cov)[1] + (mean**2).sum(1))
    assert s.loc["kl", "value"] == pytest.approx(kl.mean(), rel=1e-8)
    assert s.loc["kl", "error"] == pytest.approx(kl.std(ddof=1) / math.sqrt(len(many)), rel=1e-8)
    assert np.allclose(found.table["activity"], mean.var(0, ddof=1))
    assert abs(s.loc["elbo", "value"] - CLOSED.log_p(many).mean()) < 0.05  # 800 x 50 draws, sd below 2
    variance = mean.var(0) + np.diag(CLOSED.cov)
    assert np.allclose(found.table["variance"], variance)
    within(found.table["variance"], 1.0, found.table["variance_error"])
    within(found.table["mean"], 0.0, found.table["mean_error"])
    assert abs(s.loc["c2st", "value"] - 0.5) < 4 * s.loc["c2st", "error"]
    # the prior's mutual information with x, -log det(cov) / 2, less what 300 data leave of it
    information = -0.5 * np.linalg.slogdet(CLOSED.cov)[1]
    assert abs(s.loc["information", "value"] + s.loc["aggregate_kl", "value"] - kl.mean()) < 0.3
    assert s.loc["information", "value"] < information + 4 * s.loc["information", "error"]
    assert {f.level for f in found.findings} == {"ok"}


def test_kl_splits_into_information_and_aggregate(vae: lvm.Fit, many: np.ndarray) -> None:
    """Pairs in closed form (a diagonal q), against the same by the networks."""
    s = lvm.latent_diagnostics(vae, many[:300]).summary
    error = math.hypot(*s["error"][["information", "aggregate_kl"]])
    both = s["value"]["information"] + s["value"]["aggregate_kl"]
    assert abs(both - s["value"]["kl"]) < 4 * error
    loc, points = CLOSED.mean(many[:300]) + SHIFT, np.random.default_rng(0).standard_normal((7, Q))
    each = np.array([[multivariate_normal(m, np.diag(SDS**2)).pdf(p) for m in loc] for p in points])
    assert np.allclose(_latents._pairs(points, loc, np.tile(SDS, (300, 1))), np.log(each.mean(1)))


def test_collapse_and_idle_units_are_found(vae: lvm.Fit, many: np.ndarray) -> None:
    one = {f.check: f for f in lvm.latent_diagnostics(with_idle(vae, [1]), many).findings}
    assert one["active_units"].level == "warning"
    assert "z[1]" in one["active_units"].sentence
    assert one["posterior_collapse"].level == "warning"
    both = {f.check: f for f in lvm.latent_diagnostics(with_idle(vae, [0, 1]), many).findings}
    assert both["active_units"].level == both["posterior_collapse"].level == "error"
    assert "decoder ignores z" in both["posterior_collapse"].sentence
    assert both["aggregate_posterior"].level == "ok"


def test_holes_are_found(vae: lvm.Fit, many: np.ndarray) -> None:
    params = {k: np.array(v) for k, v in vae.params.items()}
    params["encoder$$$layers.0.bias"][:Q] += 1.0  # the aggregate posterior stands beside the prior
    found = lvm.latent_diagnostics(dataclasses.replace(vae, params=params), many)
    holes = next(f for f in found.findings if f.check == "aggregate_posterior")
    assert holes.level == "warning"
    away = found.summary.loc["aggregate_kl"]
    assert away["value"] - 4 * away["error"] > 0.5  # means near SHIFT + 1 alone make 1.07 nats


def test_diagnose_looks_at_the_latents_and_the_gap(vae: lvm.Fit, many: np.ndarray) -> None:
    checks = [f.check for f in vae.diagnose()]
    assert {"active_units", "posterior_collapse", "aggregate_posterior"} <= set(checks)
    found = {f.check: f for f in vae.diagnose(heldout=CLOSED.x + 3.0)}  # far from what the decoder knows
    assert found["train_test_gap"].level == "warning"
    gap = lvm.latent_diagnostics(vae, many[:400], heldout=many[400:]).summary.loc["train_test_gap"]
    assert abs(gap["value"]) < 4 * gap["error"]


def test_a_fit_trained_on_pyro_is_diagnosed_too() -> None:
    model = models.VAE(Q, likelihood="gaussian", noise_scale=NOISE, encoder=LINEAR, decoder=LINEAR)
    fit = lvm.fit(model, CLOSED.x, SVI(backend="pyro", batch_size=N, num_epochs=1))
    assert len(lvm.latent_diagnostics(fit).table) == Q


# ---- pictures, refusals ----------------------------------------------------------------------------


def test_pictures(gap: lvm.AmortisationGap, vae: lvm.Fit, many: np.ndarray) -> None:
    assert isinstance(gap.plot(), Figure)
    assert isinstance(gap.plot(num_data=3), Figure)
    assert isinstance(lvm.latent_diagnostics(vae, many[:50]).plot(), Figure)
    with pytest.raises(TypeError, match="amortisation_gap"):
        plots.plot_gaps(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_data"):
        gap.plot(num_data=0)
    with pytest.raises(TypeError, match="latent_diagnostics"):
        plots.plot_latent_diagnostics(gap)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"log_p": "exact"}, "log_p"),
        ({"family": "flow"}, "family"),
        ({"num_draws": 1}, "num_draws"),
        ({"num_chains": 1}, "num_chains"),
        ({"num_temperatures": 1}, "num_temperatures"),
        ({"start": "posterior"}, "start"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_rounds": 0}, "max_rounds"),
        ({"seed": -1}, "seed"),
        ({"block": 0}, "block"),
    ],
)
def test_settings_outside_their_range(vae: lvm.Fit, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        lvm.amortisation_gap(vae, **settings)


def test_fits_without_an_encoder_are_refused() -> None:
    point = lvm.fit(models.PPCA(1), CLOSED.x, lvm.EM())
    for function in (lvm.amortisation_gap, lvm.ais_log_likelihood, lvm.bidirectional, lvm.latent_diagnostics):
        with pytest.raises(ValueError, match="encoder"):
            function(point)
        with pytest.raises(TypeError, match="expected a Fit"):
            function(CLOSED.x)
    with pytest.raises(ValueError, match="heldout"):
        point.diagnose(heldout=CLOSED.x)


# ---- digits ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_digits_both_ways_within_a_tenth_of_a_nat() -> None:
    from sklearn.datasets import load_digits

    x = (load_digits().images > 7).astype(np.float32)
    net = MLP(hidden=(128,))
    engine = SVI(backend="numpyro", batch_size=100, num_epochs=100)
    fit = lvm.fit(models.VAE(8, encoder=net, decoder=net), x[:1500], engine)
    found = lvm.bidirectional(fit, 100, num_temperatures=100)
    assert abs(found.gap.value) + 2 * found.gap.std_error < 0.1
    assert found.iwae_excess.value < 3 * found.iwae_excess.std_error
    gap = lvm.amortisation_gap(fit, x[1500:1600], num_temperatures=100)
    s = gap.summary
    assert s.loc["amortisation", "mean"] > 3 * s.loc["amortisation", "mc_error"]
    assert s.loc["approximation", "mean"] > 3 * s.loc["approximation", "mc_error"]
    iwae = fit.log_predictive(x[1500:1600], num_particles=5000)
    error = math.hypot(s.loc["log_p", "mc_error"], iwae.total_std_error / 100)
    assert (
        s.loc["log_p", "mean"] - iwae.pointwise.mean() > -3 * error
    )  # AIS is the tighter bound, or as tight


def test_latents_of_simulated_data_are_exact_draws(vae: lvm.Fit) -> None:
    """What the reverse chains lean on: given x, the z that made it has the posterior's mean and spread."""
    z, x = amortised.simulate(vae, 4000, 3)
    scaled = np.linalg.solve(np.linalg.cholesky(CLOSED.cov), (z - CLOSED.mean(x)).T)
    assert np.abs(scaled.mean(1)).max() < 4 / math.sqrt(4000)
    assert np.abs(np.cov(scaled) - np.eye(Q)).max() < 4 * math.sqrt(2 / 4000)
