"""The table of docs/faults.md: what each engine does with programs and data that something is wrong with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import TINY_ENGINES, attempt
from torch.distributions import constraints

import ppl_lvm as lvm
from ppl_lvm import models

Y = np.array([0.3, 1.2, -0.5, 2.0, 0.9, 1.4, 0.1, -0.2])
ROWS = np.random.default_rng(0).standard_normal((12, 2))
RESULT = "result"
NO_EM = "no closed-form EM step"
# By engine: RESULT, or words of the error. "*" is for every engine that is not named.
Expected = dict[str, str]


def of_normal(prior: Callable[[], torch.Tensor], scale: Any = 1.0) -> Callable[[Any], None]:
    def program(y: Any) -> None:
        mu = prior()
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, scale), obs=y)

    return program


def root_of_a_negative() -> torch.Tensor:
    """Its slope is infinite at zero, and NaN below once it is multiplied by that of the clamp."""
    return torch.sqrt(torch.clamp(pyro.sample("mu", dist.Normal(0.0, 1.0)), min=0.0))


def improper() -> torch.Tensor:
    return pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))


def proper() -> torch.Tensor:
    return pyro.sample("mu", dist.Normal(0.0, 1.0))


def below_another() -> torch.Tensor:
    a = pyro.sample("a", dist.HalfNormal(2.0))
    return pyro.sample("b", dist.Uniform(torch.zeros(()), a))


def narrow(y: Any) -> None:
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Uniform(-s, s, validate_args=False), obs=y)


def positive(y: Any) -> None:
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.HalfNormal(s), obs=y)


def any_correlation(y: Any) -> None:
    r = pyro.sample("r", dist.Uniform(2.0, 3.0))
    covariance = torch.eye(2) + r * (1 - torch.eye(2))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.MultivariateNormal(torch.zeros(2), covariance), obs=y)


def guide_of_others(y: Any) -> None:
    pyro.sample("nu", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))


NOWHERE = "finite at none of 60 random points"
NO_START = "no starting point with a finite density"
UNLIKELY: Expected = {
    "EM": NO_EM,
    "SVI-pyro": "at step 1; lower learning_rate",
    "ImportanceSampling-pyro": "every weight is zero",
    "NUTS-pyro": NO_START,
    "MAP": NO_START,
    "Laplace-pyro": NO_START,
    "*": NOWHERE,
}
FAULTS: dict[str, tuple[Any, Any, Expected]] = {
    "NaN gradients": (of_normal(root_of_a_negative), Y, {"EM": NO_EM, "*": RESULT}),
    "infinite at the start": (narrow, 50 * Y, UNLIKELY),
    "not positive definite": (any_correlation, ROWS, {"*": "failed when run once on the data"}),
    "improper prior": (
        of_normal(improper),
        Y,
        {
            "EM": NO_EM,
            "ImportanceSampling-pyro": "cannot be drawn from",
            "ImportanceSampling-numpyro": "cannot be drawn from",
            "SMC": "improper; use NUTS",
            "AIS": "improper; use NUTS",
            "*": RESULT,
        },
    ),
    "support of another site": (
        of_normal(below_another),
        Y,
        {
            "EM": NO_EM,
            "SVI-pyro": "depends on other sites",
            "NUTS-pyro": "depends on other sites",
            "Laplace-pyro": "depends on other sites",
            "*": RESULT,
        },
    ),
    "guide of other sites": (
        lvm.Model(of_normal(proper), guide=guide_of_others),
        Y,
        {"EM": NO_EM, "SVI-pyro": "lacks sites ['mu'] and has sites ['nu']", "*": RESULT},
    ),
    "data outside the support": (
        positive,
        Y,
        {
            "EM": NO_EM,
            "SVI-pyro": "within the support",
            "ImportanceSampling-pyro": "within the support",
            "MAP": "within the support",
            "Laplace-pyro": "within the support",
            "NUTS-pyro": "within the support",
            "*": NOWHERE,
        },
    ),
    "integers": (of_normal(proper), np.arange(5), {"EM": NO_EM, "*": RESULT}),
    "text": (of_normal(proper), np.array(["a", "b"]), {"*": "y: expected numbers"}),
    "complex numbers": (of_normal(proper), Y + 1j, {"*": "y: expected numbers"}),
    "NaN in the data": (of_normal(proper), np.array([1.0, np.nan]), {"*": "NaN or infinite"}),
    "K > N": (models.GaussianMixture(5, "diag"), ROWS[:3], {"*": "5 components"}),
}
# What takes seconds of compilation to give a result is tried with the slow tests.
COMPILED = {"SVI-numpyro", "NUTS-numpyro", "ChEES", "SMC", "AIS", "Pathfinder", "MAP"}


def wanted(fault: str, engine: str) -> str:
    expected = FAULTS[fault][2]
    return expected.get(engine, expected["*"])


CASES = [
    pytest.param(
        fault,
        engine,
        marks=[pytest.mark.slow] if wanted(fault, engine) == RESULT and engine in COMPILED else [],
    )
    for fault in FAULTS
    for engine in TINY_ENGINES
]


@pytest.mark.parametrize(("fault", "engine"), CASES)
def test_a_fault_ends_in_a_result_or_in_our_words(fault: str, engine: str) -> None:
    model, data, _ = FAULTS[fault]
    words = wanted(fault, engine)
    fit, said = attempt(lambda: lvm.fit(model, data, TINY_ENGINES[engine]))
    if words == RESULT:
        assert fit is not None, said
        values = (
            fit.params.values() if fit.draws is None else (v.values for v in fit.draws.data_vars.values())
        )
        assert all(np.isfinite(np.asarray(v, float)).all() for v in values)
    else:
        assert words in said


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_em_does_not_care_for_units(scale: float) -> None:
    """A mixture scales its priors to the data: the point is that of the unscaled data, times the scale."""
    plain, scaled = (
        lvm.fit(models.GaussianMixture(2, "diag"), s * ROWS, TINY_ENGINES["EM"]) for s in (1.0, scale)
    )
    np.testing.assert_allclose(scaled.params["loc"] / scale, plain.params["loc"], rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("engine", ["SVI-pyro", "NUTS-pyro"])
def test_engines_that_take_steps_stay_finite(engine: str, scale: float) -> None:
    fit = lvm.fit(models.GaussianMixture(2, "diag"), scale * ROWS, TINY_ENGINES[engine])
    assert all(np.isfinite(v.values).all() for v in fit.posterior.data_vars.values())


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (models.GaussianMixture(1, "diag"), ROWS[:1]),
        (models.GaussianMixture(1), ROWS),
        (models.GaussianMixture(2), ROWS[:, :1]),
        (models.PPCA(1), ROWS),
        (models.HMM(1, lvm.emissions.Gaussian("diag")), ROWS[:, :1]),
    ],
    ids=["N=1", "K=1", "d=1", "PPCA d=2", "HMM K=1"],
)
@pytest.mark.parametrize("engine", ["EM", "SVI-pyro"])
def test_the_smallest_sizes(model: Any, rows: np.ndarray, engine: str) -> None:
    fit, said = attempt(lambda: lvm.fit(model, rows, TINY_ENGINES[engine]))
    if fit is None:
        assert re.match(r"^[A-Za-z_]+: ", said)  # an error that names its field
        assert len(said.split()) > 5
        return
    values = fit.params.values() if fit.draws is None else (v.values for v in fit.draws.data_vars.values())
    assert all(np.isfinite(np.asarray(v, float)).all() for v in values)


def test_the_page_has_every_row() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "faults.md").read_text("utf-8")
    for fault in FAULTS:
        assert f"| {fault} |" in page, fault
