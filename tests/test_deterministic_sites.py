"""Deterministic sites at many draws: in a few runs of the program where it broadcasts, right where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_lvm.backends._pyro_predict import deterministic, forward
from ppl_lvm.backends.session import torch_session
from ppl_lvm.fitting import prepare

Y = np.array([1.0, -0.5, 2.0])
RUNS: list[str] = []


def schools(y: Any) -> None:
    RUNS.append("schools")
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    pyro.deterministic("precision", 1 / tau**2)
    pyro.deterministic("limits", torch.tensor([-1.0, 1.0]))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.deterministic("above", theta > 0)
        pyro.sample("obs", dist.Normal(theta, 1.0), obs=y)


def vectors(y: Any) -> None:
    """Event dimensions, outside the plate and inside."""
    RUNS.append("vectors")
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.deterministic("rotated", loc.flip(-1), event_dim=1)
    with pyro.plate("data", len(y)):
        pair = pyro.sample("pair", dist.Normal(loc, 1.0).to_event(1))
        pyro.deterministic("scaled", 2 * pair, event_dim=1)
        pyro.sample("obs", dist.Normal(pair.sum(-1), 1.0), obs=y)


def branching(y: Any) -> None:
    """Looks at a number, which several draws at once do not have."""
    RUNS.append("branching")
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.deterministic("size", mu if float(mu) > 0 else -mu)
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


def mixing(y: Any) -> None:
    """Broadcasts over draws without an error, and means over all of them."""
    RUNS.append("mixing")
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)
    pyro.deterministic("centre", z.mean())


def plain(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


def draws(problem: Any, num: int) -> dict[str, np.ndarray]:
    found, _ = forward(problem, None, num)
    return {s.name: found[s.name] for s in problem.latents(discrete=False)}


@pytest.mark.parametrize("program", [schools, vectors, branching, mixing])
@pytest.mark.parametrize("num", [1, 2, 3, 7])  # 3: as many as data
def test_values_are_those_of_single_runs(program: Callable[..., None], num: int) -> None:
    problem = prepare(program, Y)
    with torch_session(1, problem.dtype):
        values = draws(problem, num)
        found = deterministic(problem, values, {}, chunk=5)
        expected, _ = forward(problem, values, num)
    names = {s.name for s in problem.sites.values() if s.kind == "deterministic"}
    assert set(found) == names
    for name in names:
        assert found[name].shape == expected[name].shape == (num, *problem.sites[name].shape)
        assert found[name].dtype == expected[name].dtype
        # sums of vectors in another order: a few units in the last place
        np.testing.assert_allclose(
            found[name], expected[name], rtol=4 * np.finfo(float).eps
        )  # of one or two operations


@pytest.mark.parametrize(
    ("program", "few"), [(schools, True), (vectors, True), (branching, False), (mixing, False)]
)
def test_programs_that_broadcast_are_run_a_few_times(program: Callable[..., None], few: bool) -> None:
    problem = prepare(program, Y)
    with torch_session(1, problem.dtype):
        values = draws(problem, 40)
        RUNS.clear()
        deterministic(problem, values, {}, chunk=20)
    assert (len(RUNS) <= 4) == few


def test_a_program_without_them_has_none() -> None:
    problem = prepare(plain, Y)
    with torch_session(1, problem.dtype):
        assert deterministic(problem, draws(problem, 4), {}) == {}
