"""Normal posteriors: correlated coordinates, and regressions with known noise.

Closed forms: a normal prior N(0, 10^2) and normal data give the posterior N(m, S). The mean-field guide of
smallest KL(q || p) has the means m and variances 1 / Lambda_ii, Lambda = S^-1 (Bishop 2006, section 10.1.2).
"""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, ImportanceSampling, Renyi

from .case import Case, Target, Truth, by_engine, exact_reference

PRIOR_SD = 10.0
MEAN_FIELD = SVI(backend="numpyro", num_steps=2000)
FULL_RANK = SVI(backend="numpyro", num_steps=3000, guide="full_rank")
CHAINS = NUTS(num_warmup=400, num_samples=500)
SHORT = NUTS(num_warmup=300, num_samples=12, num_chains=2)
COLD = NUTS(num_warmup=20, num_samples=15, num_chains=2)
UNCONVERGED = SVI(backend="numpyro", num_steps=30, window=10, learning_rate=0.01)
FROM_PRIOR = ImportanceSampling(num_samples=500, backend="numpyro")


def normal_target(y, cov):
    x = pyro.sample("x", dist.Normal(torch.zeros_like(y), PRIOR_SD).to_event(1))
    pyro.sample("obs", dist.MultivariateNormal(x, cov), obs=y)


def regression(features, y):
    b = pyro.sample("b", dist.Normal(torch.zeros_like(features[0]), PRIOR_SD).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(features @ b, 1.0), obs=y)


def _target(name: str, model, data, site: str, precision: np.ndarray, shift: np.ndarray) -> Target:
    """``precision`` (p, p) of the posterior and ``shift`` = precision @ mean."""
    cov = np.linalg.inv(precision)
    mean = cov @ shift
    root = np.linalg.cholesky(cov)

    def truth() -> Truth:
        return {f"{site}[{i}]": (float(mean[i]), float(np.sqrt(cov[i, i]))) for i in range(len(mean))}

    def sampler(rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
        return {site: mean + rng.standard_normal((num, len(mean))) @ root.T}

    return Target(name, model, data, truth, exact_reference(model, data, sampler), "closed form")


def _normal(name: str, y: np.ndarray, cov: np.ndarray) -> Target:
    inverse = np.linalg.inv(cov)
    precision = inverse + np.eye(len(y)) / PRIOR_SD**2
    return _target(name, normal_target, {"y": y, "cov": cov}, "x", precision, inverse @ y)


def _regression(name: str, features: np.ndarray, y: np.ndarray) -> Target:
    precision = features.T @ features + np.eye(features.shape[1]) / PRIOR_SD**2
    return _target(name, regression, {"features": features, "y": y}, "b", precision, features.T @ y)


def _pair(rho: float) -> Target:
    return _normal(
        f"two normals, correlation {rho}", np.array([1.0, -0.5]), np.array([[1.0, rho], [rho, 1.0]])
    )


def _regressions() -> tuple[Target, Target]:
    rng = np.random.default_rng(4)
    features = rng.standard_normal((40, 3))
    collinear = features.copy()
    collinear[:, 2] = collinear[:, 1] + 0.3 * rng.standard_normal(40)
    truth = np.array([1.0, -2.0, 0.5])
    noise = rng.standard_normal(40)
    return (
        _regression("regression", features, features @ truth + noise),
        _regression("collinear regression", collinear, collinear @ truth + noise),
    )


def _wrong_guides(target: Target) -> tuple[lvm.Model, lvm.Model]:
    """One value for all coefficients; and one whose centre is held away from the posterior."""
    from pyro.distributions import constraints

    def shared(features, y):
        loc = pyro.param("loc", torch.zeros(()))
        scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
        pyro.sample("b", dist.Normal(loc.expand(features.shape[1]), scale).to_event(1))

    def held(features, y):
        scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
        pyro.sample("b", dist.Normal(torch.tensor([1.3, -2.0, 0.5]), scale).to_event(1))

    return lvm.Model(regression, guide=shared), lvm.Model(regression, guide=held)


def cases() -> list[Case]:
    strong, weak = _pair(0.95), _pair(0.3)
    ten = _normal(
        "ten normals, AR(1) 0.7",
        np.linspace(-1, 1, 10),
        0.7 ** np.abs(np.subtract.outer(range(10), range(10))),
    )
    plain, collinear = _regressions()
    on_pyro = SVI(backend="pyro", num_steps=400)
    shared, held = _wrong_guides(plain)

    def case(name: str, target: Target, engine: lvm.Engine, expected: str, why: str) -> Case:
        return Case(name, target, by_engine(target, engine), expected, why)

    def guide_case(name: str, model: lvm.Model, why: str) -> Case:
        return Case(
            name, plain, lambda seed: lvm.fit(model, plain.data, on_pyro, seed=seed), "do_not_trust", why
        )

    def corrected(seed: int) -> lvm.Fit:
        guide = lvm.fit(plain.model, plain.data, FULL_RANK, seed=seed)
        return lvm.fit(plain.model, plain.data, ImportanceSampling(proposal=guide), seed=seed)

    narrow = "sd ratio sqrt(1 / (Lambda_ii S_ii))"
    return [
        case("correlated normal, mean field", strong, MEAN_FIELD, "means_only", f"{narrow} = 0.31"),
        case("correlated normal, full rank", strong, FULL_RANK, "means_and_spreads", "the family holds it"),
        case("correlated normal, NUTS", strong, CHAINS, "means_and_spreads", "unbiased"),
        case(
            "weakly correlated normal, mean field", weak, MEAN_FIELD, "means_and_spreads", f"{narrow} = 0.95"
        ),
        case(
            "correlated normal, IWAE mean field",
            strong,
            SVI(backend="numpyro", num_steps=2000, objective=Renyi(num_particles=20)),
            "means_only",
            "wider than by the ELBO, still a product",
        ),
        case("ten normals, mean field", ten, MEAN_FIELD, "means_only", f"{narrow} = 0.58 inside"),
        case("ten normals, unconverged", ten, UNCONVERGED, "do_not_trust", "30 steps of 0.01 move 0.3"),
        case("ten normals, prior weighed", ten, FROM_PRIOR, "do_not_trust", "500 draws in ten dimensions"),
        case("ten normals, full rank", ten, FULL_RANK, "means_and_spreads", "the family holds it"),
        case("ten normals, NUTS", ten, CHAINS, "means_and_spreads", "unbiased"),
        case("ten normals, NUTS too short", ten, SHORT, "short", "24 draws after a full warm-up"),
        case(
            "ten normals, NUTS without warm-up", ten, COLD, "do_not_trust", "20 steps, every proposal refused"
        ),
        case("regression, NUTS", plain, CHAINS, "means_and_spreads", "unbiased"),
        case("regression, full rank", plain, FULL_RANK, "means_and_spreads", "the family holds it"),
        Case("regression, full rank weighed", plain, corrected, "means_and_spreads", "weights are even"),
        case("regression, unconverged", plain, UNCONVERGED, "do_not_trust", "30 steps of 0.01 move 0.3"),
        case("regression, prior weighed", plain, FROM_PRIOR, "do_not_trust", "1 draw in 5000 is near"),
        guide_case("regression, one mean for all", shared, "coefficients 1, -2 and 0.5 cannot share a mean"),
        guide_case("regression, guide held off", held, "two posterior sds off in one coefficient"),
        case("collinear regression, mean field", collinear, MEAN_FIELD, "means_only", f"{narrow} = 0.3"),
        case("collinear regression, unconverged", collinear, UNCONVERGED, "do_not_trust", "far from there"),
        case(
            "collinear regression, prior weighed", collinear, FROM_PRIOR, "do_not_trust", "few draws are near"
        ),
        case("collinear regression, NUTS", collinear, CHAINS, "means_and_spreads", "unbiased"),
    ]
