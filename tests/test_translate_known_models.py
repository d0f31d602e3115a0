"""Well-known textbook posteriors as plain Pyro functions: do they translate, agree and sample?

A trial of the translator on the forms of model that public collections hold: regressions, hierarchies,
time series, item response, growth, learning, differential equations with fixed steps. Data are small, drawn
here; nothing is compared with published draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import biject_to

import ppl_lvm as lvm
from ppl_lvm.core import Outcome

CASES: dict[str, tuple[Callable[..., None], Callable[[np.random.Generator], dict[str, Any]]]] = {}


def on(data: Callable[[np.random.Generator], dict[str, Any]]) -> Any:
    def collect(function: Callable[..., None]) -> Callable[..., None]:
        CASES[function.__name__] = function, data
        return function

    return collect


def flat(n: int) -> Any:
    return dist.ImproperUniform(dist.constraints.real, (), ()).expand([n]).to_event(1)


def flat_positive() -> Any:
    return dist.ImproperUniform(dist.constraints.positive, (), ())


def _linear(rng: np.random.Generator, n: int = 40) -> dict[str, Any]:
    x, group = rng.normal(size=n), np.arange(n) % 2
    return {"x": x, "group": group.astype(float), "y": 1.0 + 0.5 * x - 0.3 * group + 0.4 * rng.normal(size=n)}


@on(_linear)
def kidiq_interaction(x, group, y):
    beta = pyro.sample("beta", flat(4))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    loc = beta[0] + beta[1] * x + beta[2] * group + beta[3] * x * group
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, sigma), obs=y)


@on(lambda rng: {k: np.exp(v) if k == "y" else v for k, v in _linear(rng).items()})
def log_earnings(x, group, y):
    beta = pyro.sample("beta", flat(3))
    sigma = pyro.sample("sigma", flat_positive())
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.LogNormal(beta[0] + beta[1] * x + beta[2] * group, sigma), obs=y)


def _grouped(rng: np.random.Generator, n: int = 60, groups: int = 6) -> dict[str, Any]:
    county, floor = rng.integers(0, groups, n), rng.integers(0, 2, n).astype(float)
    effect = rng.normal(1.5, 0.5, groups)
    return {"county": county, "floor": floor, "y": effect[county] - 0.7 * floor + 0.6 * rng.normal(size=n)}


@on(_grouped)
def radon_varying_intercepts(county, floor, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("counties", int(county.max()) + 1):
        offset = pyro.sample("offset", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((mu + tau * offset)[county] + beta * floor, sigma), obs=y)


@on(_grouped)
def radon_varying_slopes_correlated(county, floor, y):
    tau = pyro.sample("tau", dist.HalfNormal(torch.ones(2)).to_event(1))
    tril = pyro.sample("tril", dist.LKJCholesky(2, 2.0))
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("counties", int(county.max()) + 1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    both = mu + z @ (torch.diag(tau) @ tril).T
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(both[county, 0] + both[county, 1] * floor, sigma), obs=y)


def _binary(rng: np.random.Generator, n: int = 60) -> dict[str, Any]:
    x = rng.normal(size=(n, 2))
    return {"x": x, "y": (rng.random(n) < 1 / (1 + np.exp(-0.5 - x @ [1.0, -0.5]))).astype(float)}


@on(_binary)
def wells_logit(x, y):
    alpha = pyro.sample("alpha", dist.Normal(0.0, 5.0))
    beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=alpha + x @ beta), obs=y)


@on(_binary)
def probit(x, y):
    beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 2.5).to_event(1))
    p = dist.Normal(0.0, 1.0).cdf(x @ beta)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(p), obs=y)


@on(lambda rng: {"x": (x := rng.normal(size=(40, 3))), "y": x @ [1.0, 2.0, -1.0] + rng.normal(size=40)})
def sblr(x, y):
    sigma = pyro.sample("sigma", dist.HalfNormal(10.0))
    beta = pyro.sample("beta", dist.MultivariateNormal(torch.zeros(3), 100.0 * torch.eye(3)))
    pyro.sample("y", dist.MultivariateNormal(x @ beta, sigma**2 * torch.eye(len(y))), obs=y)


def _returns(rng: np.random.Generator, n: int = 40) -> dict[str, Any]:
    y, variance = np.zeros(n), 1.0
    for t in range(n):
        variance = 0.5 + (0.3 * (y[t - 1] ** 2) if t else 0.0) + 0.4 * variance
        y[t] = np.sqrt(variance) * rng.normal()
    return {"y": y}


@on(_returns)
def garch11(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    alpha0 = pyro.sample("alpha0", dist.HalfNormal(2.0))
    alpha1 = pyro.sample("alpha1", dist.Uniform(0.0, 1.0))
    beta1 = pyro.sample("beta1", dist.Uniform(torch.zeros(()), 1 - alpha1))
    variance = [torch.ones(())]
    for t in range(1, len(y)):
        variance.append(alpha0 + alpha1 * (y[t - 1] - mu) ** 2 + beta1 * variance[-1])
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(mu, torch.stack(variance).sqrt()), obs=y)


@on(lambda rng: {"y": np.cumsum(rng.normal(size=50)) * 0.3})
def ar_k(y, order=3):
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(torch.zeros(order), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    lags = torch.stack([y[order - k - 1 : len(y) - k - 1] for k in range(order)], -1)
    with pyro.plate("time", len(y) - order):
        pyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y[order:])


@on(lambda rng: {"y": (rng.random((8, 12)) < 0.9 * 0.85 ** np.arange(12)).astype(float)})
def dogs(y):
    """Shocks by trial: the chance falls with the numbers of avoidances and of shocks before."""
    beta = pyro.sample("beta", dist.Normal(torch.zeros(3), 5.0).to_event(1))
    before = torch.cat([torch.zeros(len(y), 1), y[:, :-1].cumsum(-1)], -1)
    trial = torch.arange(y.shape[1])
    with pyro.plate("trials", y.shape[1], dim=-1), pyro.plate("dogs", len(y), dim=-2):
        pyro.sample(
            "y", dist.Bernoulli(logits=beta[0] + beta[1] * (trial - before) + beta[2] * before), obs=y
        )


@on(lambda rng: {"x": (x := np.linspace(-1, 1, 30)), "y": rng.poisson(np.exp(2 + x - x**2))})
def glm_poisson(x, y):
    alpha = pyro.sample("alpha", dist.Uniform(-20.0, 20.0))
    beta = pyro.sample("beta", dist.Uniform(-10.0 * torch.ones(3), 10.0).to_event(1))
    with pyro.plate("years", len(y)):
        pyro.sample("y", dist.Poisson((alpha + beta[0] * x + beta[1] * x**2 + beta[2] * x**3).exp()), obs=y)


@on(lambda rng: {"y": rng.poisson(np.exp(1 + 0.5 * rng.normal(size=(5, 1)) + 0.3 * rng.normal(size=(5, 6))))})
def glmm_poisson(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    sd_site = pyro.sample("sd_site", dist.Uniform(0.0, 5.0))
    sd_year = pyro.sample("sd_year", dist.Uniform(0.0, 3.0))
    with pyro.plate("sites", len(y), dim=-2):
        site = pyro.sample("site", dist.Normal(0.0, 1.0))
    with pyro.plate("years", y.shape[1], dim=-1):
        year = pyro.sample("year", dist.Normal(0.0, 1.0))
    with pyro.plate("s", len(y), dim=-2), pyro.plate("t", y.shape[1], dim=-1):
        pyro.sample("y", dist.Poisson((mu + sd_site * site + sd_year * year).exp()), obs=y)


def _plants(rng: np.random.Generator, n: int = 20) -> dict[str, Any]:
    total, seed = rng.integers(10, 50, n), rng.integers(0, 2, n).astype(float)
    p = 1 / (1 + np.exp(-(-0.5 + 0.8 * seed + 0.3 * rng.normal(size=n))))
    return {"total": total, "seed": seed, "y": rng.binomial(total, p).astype(float)}


@on(_plants)
def seeds_binomial(total, seed, y):
    alpha = pyro.sample("alpha", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    tau = pyro.sample("tau", dist.Gamma(2.0, 0.5))
    with pyro.plate("plants", len(y)):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        logits = alpha[0] + alpha[1] * seed + b / tau.sqrt()
        pyro.sample("y", dist.Binomial(total, logits=logits), obs=y)


@on(_plants)
def surgical(total, seed, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
    precision = pyro.sample("precision", dist.Gamma(2.0, 1.0))
    with pyro.plate("hospitals", len(y)):
        b = pyro.sample("b", dist.Normal(mu, precision.rsqrt()))
        pyro.sample("y", dist.Binomial(total, logits=b + 0 * seed), obs=y)


@on(lambda rng: {"x": (x := np.array([8.0, 15, 22, 29, 36])),
                 "y": 100 + rng.normal(0, 8, (8, 1)) + 6 * x + rng.normal(0, 4, (8, 5))})  # fmt: skip
def rats(x, y):
    centre = x - x.mean()
    mu = pyro.sample("mu", dist.Normal(torch.tensor([200.0, 5.0]), torch.tensor([100.0, 10.0])).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(torch.tensor([20.0, 2.0])).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(10.0))
    with pyro.plate("rats", len(y), dim=-2):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        line = mu + tau * z
        with pyro.plate("weeks", len(x), dim=-1):
            pyro.sample("y", dist.Normal(line[..., 0] + line[..., 1] * centre, sigma), obs=y)


def _answers(rng: np.random.Generator, people: int = 40, items: int = 8) -> dict[str, Any]:
    ability, hardness = rng.normal(size=(people, 1)), np.linspace(-1.5, 1.5, items)
    chance = 1 / (1 + np.exp(-np.linspace(0.7, 2.0, items) * (ability - hardness)))
    return {"y": (rng.random((people, items)) < chance).astype(float)}


@on(_answers)
def irt_2pl(y):
    mu_b = pyro.sample("mu_b", dist.Normal(0.0, 5.0))
    sd_b = pyro.sample("sd_b", dist.HalfCauchy(2.0))
    with pyro.plate("items", y.shape[1], dim=-1):
        a = pyro.sample("a", dist.LogNormal(0.0, 0.5))
        b = pyro.sample("b", dist.Normal(mu_b, sd_b))
    with pyro.plate("people", len(y), dim=-2):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pyro.plate("answers", y.shape[1], dim=-1):
            pyro.sample("y", dist.Bernoulli(logits=a * (theta - b)), obs=y)


def runge_kutta(slope: Callable[[Any], Any], state: Any, step: float, num: int) -> Any:
    """Fourth order, ``num`` fixed steps; for torch and NumPy alike."""
    for _ in range(num):
        k1 = slope(state)
        k2 = slope(state + 0.5 * step * k1)
        k3 = slope(state + 0.5 * step * k2)
        k4 = slope(state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


def _hares(rng: np.random.Generator) -> dict[str, Any]:
    state, rows = np.array([30.0, 6.0]), []
    for _ in range(5):
        rows.append(state)
        state = runge_kutta(
            lambda s: np.array([0.55 * s[0] - 0.028 * s[0] * s[1], -0.8 * s[1] + 0.024 * s[0] * s[1]]),
            state, 0.5, 2,
        )  # fmt: skip
    return {"y": np.array(rows) * np.exp(0.2 * rng.normal(size=(5, 2)))}


@on(_hares)
def lotka_volterra(y):
    """Priors by standard normals, so that random starting points are near them and nothing explodes."""
    z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
    middle = torch.tensor([0.5, 0.03, 0.8, 0.025, 30.0, 6.0, 0.35, 0.35])
    values = pyro.deterministic("values", middle * torch.exp(0.3 * z), event_dim=1)
    rates, start, sigma = values[:4], values[4:6], values[6:]

    def slope(s):
        eaten = s[0] * s[1]
        return torch.stack([rates[0] * s[0] - rates[1] * eaten, -rates[2] * s[1] + rates[3] * eaten])

    states = [start]
    for _ in range(len(y) - 1):
        states.append(runge_kutta(slope, states[-1], 0.5, 2))
    with pyro.plate("years", len(y)):
        pyro.sample("y", dist.LogNormal(torch.stack(states).log(), sigma).to_event(1), obs=y)


@on(lambda rng: {"y": 10 * np.exp(-0.4 * np.arange(1, 9)) * np.exp(0.1 * rng.normal(size=8))})
def one_compartment(y):
    """Michaelis-Menten elimination after a dose that is taken up at rate ``k_a``."""
    k_a = pyro.sample("k_a", dist.LogNormal(0.0, 1.0))
    k_m = pyro.sample("k_m", dist.LogNormal(0.0, 1.0))
    v_max = pyro.sample("v_max", dist.LogNormal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(1.0))
    amount, out = torch.ones(()), []
    for t in range(1, len(y) + 1):
        dose = 10.0 * torch.exp(-k_a * t)
        amount = runge_kutta(lambda c, d=dose: k_a * d - v_max * c / (k_m + c), amount, 0.25, 4)
        out.append(amount.clamp(min=1e-6))
    with pyro.plate("times", len(y)):
        pyro.sample("y", dist.LogNormal(torch.stack(out).log(), sigma), obs=y)


@on(lambda rng: {"y": rng.binomial(1, np.array([0.1, 0.5, 0.3])[:, None], (3, 20)).sum(-1).astype(float)})
def dirichlet_multinomial(y):
    concentration = pyro.sample("concentration", dist.Gamma(2.0 * torch.ones(3), 1.0).to_event(1))
    pyro.sample("y", dist.DirichletMultinomial(concentration, total_count=int(y.sum())), obs=y)


@on(lambda rng: {"year": np.arange(30.0), "y": 10 + 0.02 * np.arange(30) + rng.normal(size=30)})
def kilpisjarvi(year, y):
    alpha = pyro.sample("alpha", dist.Normal(9.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 0.1))
    sigma = pyro.sample("sigma", flat_positive())
    with pyro.plate("years", len(y)):
        pyro.sample("y", dist.Normal(alpha + beta * year, sigma), obs=y)


def _at(fit: lvm.Fit, sites: Any, chain: int, draw: int) -> dict[str, np.ndarray]:
    """One draw of the latent sites (a posterior also holds what the program computes from them)."""
    return {name: fit.posterior[name].values[chain, draw] for name in sites}


def _by_pyro(function: Any, data: dict[str, Any], values: dict[str, np.ndarray]) -> tuple[float, dict]:
    """Log density plus log-Jacobian at values in the supports by a plain trace, and those unconstrained."""
    from pyro import poutine

    from ppl_lvm.backends.session import torch_session

    with torch_session(0, "float64"), torch.no_grad():
        tensors = {k: torch.as_tensor(np.asarray(v)) for k, v in data.items()}
        given = {k: torch.from_numpy(np.array(v)) for k, v in values.items()}
        trace = poutine.trace(poutine.condition(function, data=given)).get_trace(**tensors)
        total = trace.log_prob_sum()
        for name, value in given.items():
            transform = biject_to(trace.nodes[name]["fn"].support)
            total = total + transform.log_abs_det_jacobian(transform.inv(value), value).sum()
        free = {n: biject_to(trace.nodes[n]["fn"].support).inv(v).numpy() for n, v in given.items()}
    return float(total), free


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_known_model_translates_and_samples(name: str) -> None:
    """R-hat under 1.05 at 4 x 500 draws, few divergences, and Pyro's own density at a draw of each chain."""
    function, simulate = CASES[name]
    data = simulate(np.random.default_rng(1))
    engine = lvm.NUTS(backend="numpyro", num_warmup=500, num_samples=500, num_chains=4, target_accept=0.9)
    fit = lvm.fit(function, data, engine, seed=0)
    assert fit.status.outcome is not Outcome.FAILED
    assert fit.meta["translation"]["at_draws"]["passed"]
    assert fit.status.details.get("divergences", 0) <= 0.02 * 4 * 500
    assert float(fit.summary()["r_hat"].astype(float).max()) < 1.05
    translation = lvm.translate(function, data)
    for chain in range(4):
        expected, free = _by_pyro(function, data, _at(fit, translation.shapes, chain, 100 * chain))
        np.testing.assert_allclose(translation.log_density(free), expected, rtol=1e-9)
