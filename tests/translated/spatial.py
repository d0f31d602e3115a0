"""Areas on a graph: CAR by a precision matrix, intrinsic CAR by differences over edges (BYM)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from translated._registry import rng, zoo


def _areas() -> dict[str, Any]:
    r = rng(42)
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], [1, 3]])
    return {
        "first": edges[:, 0],
        "second": edges[:, 1],
        "cases": r.poisson(4.0, size=5),
        "expected": np.full(5, 4.0),
    }


@zoo(_areas, "CAR: precision D - rho W built by indexed writes, MultivariateNormal by precision_matrix")
def proper_car(first: Any, second: Any, cases: Any, expected: Any) -> None:
    n = len(cases)
    tau = pyro.sample("tau", dist.Gamma(2.0, 2.0))
    rho = pyro.sample("rho", dist.Uniform(0.0, 0.99))
    adjacent = torch.zeros(n, n)
    adjacent[first, second] = 1.0
    adjacent[second, first] = 1.0
    precision = tau * (adjacent.sum(-1).diag() - rho * adjacent)
    effect = pyro.sample("effect", dist.MultivariateNormal(torch.zeros(n), precision_matrix=precision))
    with pyro.plate("areas", n):
        pyro.sample("cases", dist.Poisson(expected * effect.exp()), obs=cases)


@zoo(
    _areas, "sparse quadratic form over edges and a known determinant by eigenvalues, in factors", quick=False
)
def sparse_car(first: Any, second: Any, cases: Any, expected: Any) -> None:
    n = len(cases)
    tau = pyro.sample("tau", dist.Gamma(2.0, 2.0))
    rho = pyro.sample("rho", dist.Uniform(-0.9, 0.9))
    flat = dist.ImproperUniform(dist.constraints.real_vector, (), (n,))
    effect = pyro.sample("effect", flat)
    degree = torch.zeros(n).index_add(0, torch.cat([first, second]), torch.ones(2 * len(first)))
    adjacent = torch.zeros(n, n).index_put((first, second), torch.ones(len(first)))
    scaled = (adjacent + adjacent.T) / (degree.sqrt().unsqueeze(-1) * degree.sqrt())
    log_det = torch.log1p(-rho * torch.linalg.eigvalsh(scaled)).sum()
    quadratic = (degree * effect**2).sum() - 2 * rho * (effect[first] * effect[second]).sum()
    pyro.factor("car", 0.5 * (n * tau.log() + log_det - tau * quadratic))
    with pyro.plate("areas", n):
        pyro.sample("cases", dist.Poisson(expected * effect.exp()), obs=cases)


@zoo(_areas, "BYM: pairwise differences over a plate of edges, a soft sum to zero", by_datum=False)
def intrinsic_car(first: Any, second: Any, cases: Any, expected: Any) -> None:
    n = len(cases)
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.HalfNormal(torch.ones(2)).to_event(1))
    with pyro.plate("areas", n):
        phi = pyro.sample("phi", dist.ImproperUniform(dist.constraints.real, (), ()))
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
    pyro.factor("smooth", -0.5 * ((phi[first] - phi[second]) ** 2).sum())
    pyro.sample("centred", dist.Normal(phi.sum(), 0.01 * n), obs=torch.tensor(0.0))
    with pyro.plate("observed_areas", n):
        log_rate = level + spread[0] * phi + spread[1] * theta
        pyro.sample("cases", dist.Poisson(expected * log_rate.exp()), obs=cases)
