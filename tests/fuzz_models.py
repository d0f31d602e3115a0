"""Models with clean data for the fuzz of runs: the zoo, and plain functions of the usual kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex

from ppl_lvm import emissions, models, networks

N = 12  # rows: one number, so that compiled functions are shared


@dataclass(frozen=True)
class Source:
    """A model, its clean data by argument, and the engines that can take it.

    ``kind`` says what numbers the data are ("real", "count", "bit"). Which run on JAX stands in fuzz_jax.
    """

    name: str
    make: Callable[[], Any]
    data: Callable[[np.random.Generator], dict[str, Any]]
    engines: frozenset[str]
    kind: str = "real"
    sequences: bool = False
    by_epochs: bool = False


# ---- plain functions -----------------------------------------------------------------------------


def schools(y: Any, sigma: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(mu + tau * z, sigma), obs=y)


def regression(x: Any, y: Any) -> None:
    with pyro.plate("feature", x.shape[1]):
        slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    noise = pyro.sample("noise", dist.HalfNormal(2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal((x * slope).sum(-1), noise), obs=y)


def logistic(x: Any, y: Any, spread: float = 2.0) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, spread).expand([x.shape[1]]).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Bernoulli(logits=(x * slope).sum(-1)), obs=y)


def counts(y: Any) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Poisson(rate), obs=y)


def nested(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("column", y.shape[1], dim=-1):
        shift = pyro.sample("shift", dist.StudentT(4.0, mu, 1.0))
        with pyro.plate("row", len(y), dim=-2):
            pyro.sample("obs", dist.Normal(shift, 1.0), obs=y)


def mixture(y: Any) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("component", 2):
        loc = pyro.sample("loc", dist.Normal(0.0, 4.0))
    with pyro.plate("data", len(y)):
        which = pyro.sample("which", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("obs", dist.Normal(Vindex(loc)[..., which], 1.0), obs=y)


def discrete_only(y: Any) -> None:
    with pyro.plate("data", len(y)):
        side = pyro.sample("side", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("obs", dist.Normal(2.0 * side, 1.0), obs=y)


def with_param(y: Any) -> None:
    spread = pyro.param("spread", torch.ones(()), constraint=dist.constraints.positive)
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, spread), obs=y)


def bounded(y: Any) -> None:
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    top = pyro.sample("top", dist.Uniform(0.5, 8.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Laplace(share, top), obs=y)


def prior_only() -> None:
    pyro.sample("mu", dist.Normal(0.0, 1.0))


# ---- data ----------------------------------------------------------------------------------------


def _normal(*shape: int) -> Callable[[np.random.Generator], dict[str, Any]]:
    return lambda rng: {"y": rng.standard_normal(shape) + 0.3}


def _clusters(d: int) -> Callable[[np.random.Generator], dict[str, Any]]:
    shift = np.where(np.arange(N) % 3 == 0, 2.0, -1.0)[:, None]
    return lambda rng: {"x": shift + 0.7 * rng.standard_normal((N, d))}


def _counts(name: str, *shape: int) -> Callable[[np.random.Generator], dict[str, Any]]:
    return lambda rng: {name: rng.poisson(3.0, shape).astype(float)}


def _bits(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": (np.arange(2 * N) % 2 == rng.integers(0, 2, 2 * N)).reshape(N, 2).astype(float)}


def _regression(rng: np.random.Generator) -> dict[str, Any]:
    x = rng.standard_normal((N, 2))
    return {"x": x, "y": x @ np.array([1.0, -0.5]) + 0.5 * rng.standard_normal(N)}


def _logistic(rng: np.random.Generator) -> dict[str, Any]:
    x = rng.standard_normal((N, 2))
    return {"x": x, "y": (rng.random(N) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)}


def _schools(rng: np.random.Generator) -> dict[str, Any]:
    return {"y": 10.0 * rng.standard_normal(8), "sigma": 5.0 + 10.0 * rng.random(8)}


# ---- the list ------------------------------------------------------------------------------------

_SAMPLERS = frozenset({"SVI", "ImportanceSampling", "NUTS", "MAP", "Laplace"})
_ZOO = _SAMPLERS | {"EM"}


def _plain(name: str, program: Any, data: Any, **more: Any) -> Source:
    return Source(name, lambda: program, data, more.pop("engines", _SAMPLERS), **more)


def _zoo(name: str, make: Any, data: Any, **more: Any) -> Source:
    return Source(name, make, data, _ZOO, **more)


def _vae() -> Any:
    small = networks.MLP((3,), activation="tanh")
    return models.VAE(1, encoder=small, decoder=small)


SOURCES: list[Source] = [
    _plain("schools", schools, _schools),
    _plain("regression", regression, _regression),
    _plain("logistic", logistic, _logistic),
    _plain("counts", counts, _counts("y", N), kind="count"),
    _plain("nested", nested, _normal(4, 3)),
    _plain("mixture", mixture, _normal(N)),
    _plain("bounded", bounded, _normal(N)),
    _plain("discrete_only", discrete_only, _normal(N), engines=frozenset()),
    _plain("with_param", with_param, _normal(N), engines=frozenset({"SVI"})),
    _plain("prior_only", prior_only, lambda rng: {}, engines=frozenset({"NUTS"})),
    *(
        _zoo(f"GaussianMixture-{c}", lambda c=c: models.GaussianMixture(2, c), _clusters(2))
        for c in ("diag", "full", "tied", "spherical")
    ),
    _zoo("GaussianMixture-k1", lambda: models.GaussianMixture(1, "diag"), _clusters(1)),
    _zoo("Mixture-Gaussian", lambda: models.Mixture(2, emissions.Gaussian("diag")), _clusters(2)),
    _zoo("Mixture-StudentT", lambda: models.Mixture(2, emissions.StudentT()), _clusters(2)),
    _zoo(
        "Mixture-Poisson",
        lambda: models.Mixture(2, emissions.Poisson()),
        _counts("x", N, 2),
        kind="count",
    ),
    _zoo(
        "Mixture-NegativeBinomial",
        lambda: models.Mixture(2, emissions.NegativeBinomial()),
        _counts("x", N, 2),
        kind="count",
    ),
    _zoo("Mixture-Bernoulli", lambda: models.Mixture(2, emissions.Bernoulli()), _bits, kind="bit"),
    _zoo("Mixture-Categorical", lambda: models.Mixture(2, emissions.Categorical(2)), _bits, kind="bit"),
    _zoo(
        "HMM-Poisson",
        lambda: models.HMM(2),
        _counts("x", N, 1),
        kind="count",
        sequences=True,
    ),
    _zoo("HMM-Gaussian", lambda: models.HMM(2, emissions.Gaussian("diag")), _clusters(2), sequences=True),
    _zoo("PPCA", lambda: models.PPCA(1), _clusters(3)),
    _zoo("PPCA-ard", lambda: models.PPCA(2, ard=True), _clusters(3)),
    _zoo("FactorAnalysis", lambda: models.FactorAnalysis(1), _clusters(3)),
    Source("VAE", _vae, _bits, frozenset({"SVI"}), kind="bit", by_epochs=True),
]
