"""The automatic twin as a user meets it: fits, caches, params, batches, discrete sites, checks at draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import MODEL_CASES, ModelCase
from scipy import stats
from scipy.special import logsumexp

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, ImportanceSampling
from ppl_lvm.backends import translate as package
from ppl_lvm.backends._numpyro import density_of
from ppl_lvm.backends.session import jax_session
from ppl_lvm.backends.translate import _density
from ppl_lvm.fitting import prepare

Y = np.random.default_rng(0).normal(1.0, 2.0, 12)
SHORT = NUTS(backend="numpyro", num_warmup=200, num_samples=200, num_chains=2)


def normal_mean(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, 2.0), obs=y)


def exact_log_joint(mu: float, y: np.ndarray) -> float:
    return float(stats.norm(0, 3).logpdf(mu) + stats.norm(mu, 2).logpdf(y).sum())


def exact_posterior(y: np.ndarray) -> tuple[float, float]:
    precision = 1 / 9 + len(y) / 4
    return float(y.sum() / 4 / precision), float(precision**-0.5)


def exact_evidence(y: np.ndarray) -> float:
    covariance = 4.0 * np.eye(len(y)) + 9.0
    return float(stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(y))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of operators of every graph that is recorded from here on."""
    counts: list[int] = []
    original = _density.trace

    def counting(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        counts.append(len(made.graph.nodes))
        return made

    monkeypatch.setattr(_density, "trace", counting)
    return counts


class TestPublicFace:
    def test_value_and_gradient_are_the_formula(self) -> None:
        found = lvm.translate(normal_mean, Y)
        value, slope = found.value_and_gradient({"mu": 0.7})
        assert value == pytest.approx(exact_log_joint(0.7, Y), rel=1e-12)
        assert slope["mu"] == pytest.approx(-0.7 / 9 + (Y - 0.7).sum() / 4, rel=1e-12)
        assert found.log_density({"mu": 0.7}) == value
        assert found.gradient({"mu": 0.7}) == slope
        assert found.check.passed
        assert found.check.num_points == 3
        assert found.num_ops == sum(found.operators.values()) > 5
        assert "operators; agrees with Pyro at 3 points" in str(found)

    def test_float32(self) -> None:
        found = lvm.translate(normal_mean, Y, dtype="float32")
        assert found.log_density({"mu": 0.7}) == pytest.approx(exact_log_joint(0.7, Y), rel=1e-6)

    def test_per_datum_terms_stand_apart(self) -> None:
        found = lvm.translate(normal_mean, Y)
        with jax_session("float64"):
            rest, per_datum = found.density.log_joint({"mu": 0.7}, {"y": Y}, {})
        assert float(rest) == pytest.approx(stats.norm(0, 3).logpdf(0.7), rel=1e-12)
        np.testing.assert_allclose(per_datum, stats.norm(0.7, 2).logpdf(Y), rtol=1e-12)

    def test_wrong_points_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"z: expected unconstrained shapes.*'mu'"):
            lvm.translate(normal_mean, Y).log_density({"mu": np.zeros(2)})
        with pytest.raises(ValueError, match=r"params: unknown names \['s'\]"):
            lvm.translate(normal_mean, Y, params={"s": 1.0})

    def test_many_data_sets_by_vmap(self) -> None:
        import jax

        found = lvm.translate(normal_mean, Y)
        sets = np.random.default_rng(1).normal(size=(5, 12))
        with jax_session("float64"):
            values = jax.vmap(lambda y: found.density.total({"mu": 0.3}, {"y": y}, {}))(sets)
        np.testing.assert_allclose(values, [exact_log_joint(0.3, y) for y in sets], rtol=1e-12)


class TestReuse:
    def test_second_fit_neither_translates_nor_compiles(self, recorded: list[int]) -> None:
        import jax

        lvm.fit(normal_mean, Y, SHORT)
        recorded.clear()
        compiled: list[str] = []

        def listen(event: str, duration: float, **kwargs: Any) -> None:
            if event == "/jax/core/compile/backend_compile_duration":
                compiled.append(event)

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            again = lvm.fit(normal_mean, Y + 1.0, SHORT)
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)
        assert recorded == []
        assert compiled == []
        mean, sd = exact_posterior(Y + 1.0)
        row = again.summary().loc["mu"]
        assert abs(row["mean"] - mean) < 4 * row["mcse_mean"]
        assert row["sd"] == pytest.approx(sd, rel=4 * row["mcse_sd"] / row["sd"])

    def test_same_code_defined_again_shares_compiled_functions(self, recorded: list[int]) -> None:
        def make() -> Any:
            def program(y):
                mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
                with pyro.plate("data", len(y)):
                    pyro.sample("obs", dist.Normal(mu, 2.0), obs=y)

            return program

        first, second = lvm.translate(make(), Y), lvm.translate(make(), Y)
        assert len(recorded) == 2
        assert first.density.key == second.density.key

    def test_a_changed_global_is_noticed(self, recorded: list[int]) -> None:
        setting = {"sd": 3.0}

        def program(y):
            mu = pyro.sample("mu", dist.Normal(0.0, setting["sd"]))
            pyro.sample("obs", dist.Normal(mu, 2.0).expand([len(y)]).to_event(1), obs=y)

        before = lvm.translate(program, Y).log_density({"mu": 1.0})
        setting["sd"] = 0.5
        after = lvm.translate(program, Y).log_density({"mu": 1.0})
        assert len(recorded) == 2
        gap = stats.norm(0, 0.5).logpdf(1.0) - stats.norm(0, 3.0).logpdf(1.0)
        assert after - before == pytest.approx(gap, rel=1e-9)

    def test_data_that_decide_the_course_are_looked_at_again(self, recorded: list[int]) -> None:
        def program(y, length):
            mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
            for t in range(int(length)):
                pyro.sample(f"obs_{t}", dist.Normal(mu, 2.0), obs=y[t])

        for length in (3, 5):
            found = lvm.translate(program, {"y": Y, "length": np.array(length)})
            assert found.baked == ("length",)
            assert found.log_density({"mu": 0.2}) == pytest.approx(
                exact_log_joint(0.2, Y[:length]), rel=1e-12
            )

    def test_second_process_compiles_nothing(self, tmp_path: Path) -> None:
        script = textwrap.dedent(
            """
            import json, sys, numpy as np, jax, pyro, pyro.distributions as dist
            import ppl_lvm as lvm

            def program(y):
                mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
                with pyro.plate("data", len(y)):
                    pyro.sample("obs", dist.Normal(mu, 2.0), obs=y)

            events = []
            jax.monitoring.register_event_listener(lambda event, **kw: events.append(event))
            before = jax.config.jax_compilation_cache_dir
            fit = lvm.fit(program, np.arange(4.0), lvm.NUTS(num_warmup=20, num_samples=20, num_chains=1))
            counts = {k: events.count("/jax/compilation_cache/" + k) for k in ("cache_hits", "cache_misses")}
            counts["compilers"] = [m for m in ("sympy", "torch._dynamo") if m in sys.modules]
            counts["restored"] = jax.config.jax_compilation_cache_dir == before
            counts["mean"] = float(fit.posterior["mu"].mean())
            print(json.dumps(counts))
            """
        )
        clean = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        env = {**clean, "PPL_LVM_CACHE": str(tmp_path), "PYTHONPATH": str(Path(lvm.__file__).parents[1])}
        found = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
            )
            found.append(json.loads(done.stdout.strip().splitlines()[-1]))
        assert found[0]["restored"]
        assert found[1]["restored"]
        assert found[0]["compilers"] == []  # torch's own, which take seconds to load
        assert found[1]["mean"] == found[0]["mean"]
        assert found[0]["cache_misses"] > 0
        assert found[1]["cache_hits"] > 0
        assert found[1]["cache_misses"] == 0


class TestEngines:
    def test_nuts_finds_the_posterior_and_keeps_its_checks(self) -> None:
        fit = lvm.fit(normal_mean, Y, SHORT)
        mean, _ = exact_posterior(Y)
        row = fit.summary().loc["mu"]
        assert abs(row["mean"] - mean) < 4 * row["mcse_mean"]
        record = fit.meta["translation"]
        assert record["passed"]
        assert record["num_points"] == 3
        assert record["at_draws"]["passed"]
        assert record["at_draws"]["num_points"] == 20
        assert fit.backend == "numpyro"
        assert fit.meta["backend"] == "numpyro"

    def test_auto_prefers_the_translation(self) -> None:
        fit = lvm.fit(normal_mean, Y, NUTS(num_warmup=200, num_samples=200, num_chains=2))
        assert fit.backend == "numpyro"

    @pytest.mark.parametrize("guide", ["mean_field", "full_rank", "low_rank", "flow"])
    def test_guides_reach_the_evidence(self, guide: str) -> None:
        """The posterior is normal, so that every family contains it and the bound is tight."""
        fit = lvm.fit(normal_mean, Y, SVI(backend="numpyro", guide=guide, num_steps=2000))
        gap = exact_evidence(Y) - fit.evidence.nats
        assert -4 * fit.evidence.std_error <= gap <= 0.02 + 4 * fit.evidence.std_error

    def test_importance_sampling_from_the_prior(self) -> None:
        engine = ImportanceSampling(backend="numpyro", num_samples=500)
        fit = lvm.fit(normal_mean, Y, engine)
        assert abs(fit.evidence.nats - exact_evidence(Y)) < 4 * fit.evidence.std_error
        assert fit.meta["translation"]["at_draws"]["passed"]

    def test_minibatches(self) -> None:
        """Batches are other shapes of the same program, scaled by n / b; the answer is that of all data."""
        y = np.random.default_rng(2).normal(1.0, 2.0, 200)
        fit = lvm.fit(normal_mean, y, SVI(backend="numpyro", batch_size=50, num_steps=3000))
        mean, sd = exact_posterior(y)
        assert abs(float(fit.posterior["mu"].mean()) - mean) < 0.5 * sd
        assert float(fit.posterior["mu"].std()) == pytest.approx(sd, rel=0.2)

    def test_density_of_a_batch_is_that_of_its_rows(self) -> None:
        found = lvm.translate(normal_mean, Y)
        with jax_session("float64"):
            value = found.density.total({"mu": 0.3}, {"y": Y[3:8]}, {})
        assert float(value) == pytest.approx(exact_log_joint(0.3, Y[3:8]), rel=1e-12)

    def test_a_disagreement_at_the_draws_marks_the_fit(self) -> None:
        """The points of the first check lie near 0, where nothing is wrong; the posterior does not."""

        def program(y):
            mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
            with torch.no_grad():
                hidden = -0.1 * (mu - 50.0).clamp(min=0.0) ** 2
            pyro.factor("hidden", hidden)
            with pyro.plate("data", len(y)):
                pyro.sample("obs", dist.Normal(mu, 2.0), obs=y)

        program_of_graph = lvm.translate(program, Y + 100.0)
        assert program_of_graph.check.passed
        fit = lvm.fit(program, Y + 100.0, SHORT)
        assert not fit.status.ok
        assert fit.status.outcome is lvm.Outcome.FAILED
        assert not fit.meta["translation"]["at_draws"]["passed"]
        assert "DISAGREES" in str(fit.status)


class TestParams:
    """y_i ~ N(mu, s), mu ~ N(0, 3): s at its type-II maximum has a one-dimensional oracle."""

    @staticmethod
    def program(y):
        s = pyro.param("s", torch.tensor(1.0), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, s), obs=y)

    @staticmethod
    def evidence(s: float) -> float:
        covariance = s**2 * np.eye(len(Y)) + 9.0
        return float(stats.multivariate_normal(np.zeros(len(Y)), covariance).logpdf(Y))

    def test_svi_optimises_them(self) -> None:
        from scipy.optimize import minimize_scalar

        fit = lvm.fit(self.program, Y, SVI(backend="numpyro", num_steps=4000, early_stop=False))
        best = minimize_scalar(lambda s: -self.evidence(s), bounds=(0.5, 6.0), method="bounded")
        reached = self.evidence(float(fit.params["s"]))
        assert -best.fun - reached < 0.02  # nats; the optimum is flat
        assert fit.evidence.conditional_on == ("s",)
        assert reached - fit.evidence.nats < 0.02 + 4 * fit.evidence.std_error

    def test_nuts_holds_them(self) -> None:
        fit = lvm.fit(self.program, Y, SVI(backend="numpyro", num_steps=500))
        held = lvm.fit(self.program, Y, SHORT, init=fit)
        assert held.params["s"] == fit.params["s"]
        precision = 1 / 9 + len(Y) / float(fit.params["s"]) ** 2
        row = held.summary().loc["mu"]
        assert abs(row["sd"] - precision**-0.5) < 4 * row["mcse_sd"]
        again = lvm.fit(lvm.condition(self.program, fit), Y, SHORT)
        assert abs(again.summary().loc["mu", "sd"] - precision**-0.5) < 4 * row["mcse_sd"]

    def test_translate_takes_values(self) -> None:
        found = lvm.translate(self.program, Y, params={"s": 2.0})
        assert found.log_density({"mu": 0.7}) == pytest.approx(exact_log_joint(0.7, Y), rel=1e-12)


class TestDiscreteSites:
    """A mixture of two normals: labels summed out on the way, and back afterwards."""

    @staticmethod
    def program(y):
        w = pyro.sample("w", dist.Beta(2.0, 2.0))
        loc = torch.tensor([-2.0, 2.0])
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Categorical(torch.stack([1 - w, w], -1)))
            pyro.deterministic("twice", 2.0 * w)
            pyro.sample("obs", dist.Normal(loc[z], 1.0), obs=y)

    def test_they_come_back(self) -> None:
        y = np.array([-2.5, -1.0, 0.1, 2.2, 1.5])
        fit = lvm.fit(self.program, y, SHORT)
        draws = fit.latents(num_draws=400)["z"].values.reshape(-1, len(y))
        w = fit.posterior["w"].values.ravel()[:, None]
        up, down = np.log(w) + stats.norm(2, 1).logpdf(y), np.log1p(-w) + stats.norm(-2, 1).logpdf(y)
        marginal = logsumexp([up, down], axis=0)
        chance = np.exp(up - marginal).mean(0)
        error = np.sqrt(chance * (1 - chance) / len(draws)) + 1e-3
        assert (np.abs(draws.mean(0) - chance) < 4 * error + 0.02).all()
        pointwise = logsumexp(marginal, axis=0) - np.log(len(w))
        np.testing.assert_allclose(fit.log_predictive().pointwise, pointwise, rtol=1e-9)
        np.testing.assert_allclose(fit.posterior["twice"].values, 2 * fit.posterior["w"].values)
        assert fit.sample_predictive(num_draws=50)["obs"].shape == (1, 50, len(y))


def test_nothing_global_is_left_behind() -> None:
    import jax

    before = (jax.config.jax_compilation_cache_dir, jax.config.jax_enable_x64, torch.get_default_dtype())
    lvm.translate(normal_mean, Y)
    assert package._RECENT  # one for the function is kept
    after = (jax.config.jax_compilation_cache_dir, jax.config.jax_enable_x64, torch.get_default_dtype())
    assert before == after


QUICK_CASES = ("GaussianMixture", "PPCA", "HMM")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id=case.name, marks=() if case is cases[0] and name in QUICK_CASES else pytest.mark.slow
        )
        for name, cases in MODEL_CASES.items()
        for case in cases
    ],
)
def test_the_zoo_translates_to_its_twins(case: ModelCase) -> None:
    """Three ways to one number: the Pyro program translated, the NumPyro twin, at a random point."""
    model = case.make()
    problem = prepare(model, case.data)
    found = lvm.translate(model, case.data)
    rng = np.random.default_rng(3)
    with jax_session("float64"):
        twin, data = density_of(problem)
        z = {name: 0.3 * rng.standard_normal(shape) for name, shape in twin.shapes.items()}
        expected = float(twin.total(z, data, {}))
    assert found.density.shapes == twin.shapes
    assert found.log_density(z) == pytest.approx(expected, rel=1e-10)
