"""The zoo of plain Pyro models: each one's translation against Pyro's own log density, gradient and values.

The oracle is Pyro (its potential function, its traces), through ``translated.oracle``, which shares no code
with the package. Errors are relative to 1 + the size of Pyro's figure: 1e-9 in float64 and 1e-4 in float32,
from rounding of sums in another order.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from translated import FAMILIES, ZOO
from translated.formulas import FORMULAS
from translated.oracle import Oracle, torch_settings
from zoo_cases import Case, error, made, points_of

import ppl_lvm as lvm
from ppl_lvm import NUTS

FLOAT64, FLOAT32 = 1e-9, 1e-4
SHORT = NUTS(backend="numpyro", num_warmup=100, num_samples=50, num_chains=1)


# Compiling takes seconds a model: these stand for all where a test compiles once more.
QUICK_FLOAT32 = ("schools_centred", "gaussian_mixture", "poisson_regression", "rasch")
QUICK_DRAWS = ("schools_noncentred", "gaussian_mixture", "poisson_regression", "ordered_probit")


def _params(quick: Collection[str] = ()) -> list[Any]:
    """All models; those that are not quick are left to the slow suite."""
    chosen = quick or [n for n in ZOO if ZOO[n].quick]
    return [pytest.param(n, marks=() if n in chosen else pytest.mark.slow) for n in ZOO]


@pytest.fixture(scope="module", params=_params())
def case(request: pytest.FixtureRequest) -> Case:
    """One model at a time: pytest runs all its tests before it makes the next."""
    return made(request.param)


def test_the_zoo_has_at_least_45_models_in_families_with_notes():
    assert len(ZOO) >= 45
    assert sum(entry.quick for entry in ZOO.values()) >= 45
    assert all(entry.notes for entry in ZOO.values())
    assert len({entry.notes for entry in ZOO.values()}) == len(ZOO)
    assert len(FAMILIES) >= 20


def test_value_and_gradient_agree_with_pyro(case: Case):
    assert set(case.translation.shapes) == set(case.oracle.shapes)
    assert dict(case.translation.shapes) == case.oracle.shapes
    value, slope = case.worst(case.points)
    assert value <= FLOAT64
    assert slope <= FLOAT64


def test_own_check_passed_and_baked_arguments_are_named(case: Case):
    check = case.translation.check
    assert check.passed
    assert check.num_points == 3
    assert max(check.value_error, check.gradient_error) <= FLOAT64
    assert set(case.translation.baked) == set(ZOO[case.name].baked)


def test_terms_add_up_and_are_those_of_pyros_trace(case: Case):
    entry, parts = ZOO[case.name], case.parts
    total = case.translation.log_density(case.points[0])
    assert (parts["per_datum"] is not None) == entry.by_datum
    inside = parts["per_datum"].sum() if entry.by_datum else 0.0
    assert error(parts["rest"] + inside, total) <= FLOAT64
    if entry.enumerated:
        return
    with torch_settings("float64"):
        rest, per_datum = case.oracle.by_datum(case.points[0])
    assert error(parts["rest"], rest) <= FLOAT64
    assert (per_datum is not None) == entry.by_datum
    if per_datum is not None:
        assert error(parts["per_datum"], per_datum) <= FLOAT64


def test_constrained_and_deterministic_values_agree_with_pyro(case: Case):
    with torch_settings("float64"):
        values = case.oracle.constrained(case.points[0])
    assert set(case.parts["values"]) == set(values)
    assert max(error(case.parts["values"][k], values[k]) for k in values) <= FLOAT64


def test_unconstrain_inverts_constrain(case: Case):
    z = case.points[0]
    assert max(error(case.parts["back"][k], z[k]) for k in z) <= FLOAT64


def test_jacobians_agree_with_pyros_transforms(case: Case):
    with torch_settings("float64"):
        expected = case.oracle.jacobians(case.points[0])
    assert set(case.parts["jacobians"]) == set(expected)
    assert max(error(case.parts["jacobians"][k].sum(), expected[k]) for k in expected) <= FLOAT64
    assert error(case.parts["jacobian"], sum(expected.values())) <= FLOAT64


def test_prior_is_the_density_of_the_latent_sites(case: Case):
    if ZOO[case.name].enumerated:
        assert np.isfinite(case.parts["prior"])
        return
    with torch_settings("float64"):
        assert error(case.parts["prior"], case.oracle.log_prior(case.points[0])) <= FLOAT64


# ---- terms by datum, against formulas --------------------------------------------------------------


@pytest.mark.parametrize("name", FORMULAS)
def test_terms_by_datum_agree_with_formulas(name: str):
    """Labels summed out by hand, with SciPy's densities; topics add a Dirichlet(1, 1) prior, log 1 = 0."""
    case = made(name)
    values, data = case.parts["values"], ZOO[name].data()
    terms = FORMULAS[name](values, data)
    local = {"lda_enumerated": "shares"}.get(name)
    if local is not None:
        terms = terms + case.parts["jacobians"][local].reshape(-1)
    assert error(case.parts["per_datum"], terms) <= FLOAT64


# ---- float32 ---------------------------------------------------------------------------------------


def float32_errors(name: str) -> tuple[float, float]:
    entry = ZOO[name]
    translation = lvm.translate(entry.function, entry.data(), dtype="float32")
    with torch_settings("float32"):
        oracle = Oracle(entry, "float32")
        points = points_of(oracle)
    return Case(name, translation, oracle, points, {}).worst(points)


@pytest.mark.parametrize("name", _params(QUICK_FLOAT32))
def test_float32_agrees_with_pyro(name: str):
    value, slope = float32_errors(name)
    assert value <= FLOAT32
    assert slope <= FLOAT32


# ---- at draws of the posterior ---------------------------------------------------------------------


def draws_of(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    """A short fit, and 20 of its draws by continuous latent site."""
    fit = lvm.fit(ZOO[name].function, ZOO[name].data(), SHORT, seed=1)
    sites = made(name).oracle.shapes
    picked = np.linspace(0, SHORT.num_samples - 1, 20).astype(int)
    return fit, {k: np.asarray(fit.draws[k])[0, picked] for k in sites}


# NUTS asks for values of params that were trained; test_translate.py has those.
@pytest.mark.parametrize("name", [p for p in _params(QUICK_DRAWS) if not ZOO[p.values[0]].params])
def test_agrees_at_draws_of_the_posterior(name: str):
    case = made(name)
    fit, draws = draws_of(name)
    own = fit.meta["translation"]["at_draws"]
    assert own["passed"]
    assert own["num_points"] == 20
    assert max(own["value_error"], own["gradient_error"]) <= FLOAT64
    with torch_settings("float64"):
        points = [case.oracle.unconstrained({k: v[i] for k, v in draws.items()}) for i in range(20)]
    value, slope = case.worst(points)
    assert value <= FLOAT64
    assert slope <= FLOAT64
