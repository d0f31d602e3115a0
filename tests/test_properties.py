"""Properties that hold for all settings, forms of data, values and draws, tried on examples of hypothesis."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import attempt, same_arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ppl_lvm as lvm
from ppl_lvm import AIS, EM, MAP, NUTS, SMC, SVI, ImportanceSampling, Laplace, Pathfinder, emissions, models
from ppl_lvm.engines._checkpoint import Checkpoint
from ppl_lvm.engines._records import packed, unpacked
from ppl_lvm.fitting import prepare
from ppl_lvm.relabel import permute

settings.register_profile(
    "few",
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("few")
# hypothesis seeds the global generators for each example, and restores them: not while a test runs
pytestmark = pytest.mark.changes_global_state("random: generator", "numpy: generator")

# ---- settings -------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.floats(-2.0, 3.0, allow_nan=False),
    st.sampled_from([math.nan, math.inf, -math.inf, 0, 1, 1.0, 2.0]),
    st.integers(1, 90).map(np.int32),
    st.floats(0.01, 0.9).map(np.float32),
)
ANYTHING = st.one_of(
    NUMBERS,
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.sampled_from(["auto", "pyro", "numpyro", "prior", "ml", "map", "cosine", "threads", "blackjax"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.just(np.array([0.5, 0.6])),
    st.just(np.bool_(True)),
    st.just({}),
)
Rule = Callable[[Any], bool]


def number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def count(least: int = 1) -> Rule:
    return lambda v: isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= least


def positive(value: Any) -> bool:
    return number(value) and 0 < value < math.inf


def fraction(value: Any) -> bool:
    return number(value) and 0 < value < 1


def flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def folder(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def one_of(*choices: str) -> Rule:
    return lambda v: isinstance(v, str) and v in choices


def or_none(rule: Rule) -> Rule:
    return lambda v: v is None or rule(v)


BACKEND = one_of("auto", "pyro", "numpyro")
# What each field documents; fields that hang on others are in the engines' own tests.
FIELDS: list[tuple[type, str, Rule]] = [
    (SVI, "num_steps", or_none(count())),
    (SVI, "batch_size", or_none(count())),
    (SVI, "num_draws", count(2)),
    (SVI, "window", count(10)),
    (SVI, "learning_rate", or_none(positive)),
    (SVI, "learning_rate_decay", or_none(lambda v: number(v) and 0 < v <= 1)),
    (SVI, "clip_norm", or_none(positive)),
    (SVI, "tolerance", positive),
    (SVI, "early_stop", flag),
    (SVI, "average", or_none(flag)),
    (SVI, "num_restarts", count()),
    (SVI, "warmup_steps", count(0)),
    (SVI, "validation", lambda v: number(v) and 0 <= v < 1),
    (SVI, "backend", BACKEND),
    (SVI, "schedule", one_of("exponential", "cosine", "linear")),
    (NUTS, "num_warmup", count(0)),
    (NUTS, "num_samples", count()),
    (NUTS, "num_chains", count()),
    (NUTS, "max_tree_depth", count()),
    (NUTS, "target_accept", fraction),
    (NUTS, "dense_mass", flag),
    (NUTS, "kernel", one_of("blackjax", "numpyro")),
    (NUTS, "chain_method", one_of("auto", "threads", "vectorized", "sequential")),
    (ImportanceSampling, "num_samples", count(25)),
    (ImportanceSampling, "backend", BACKEND),
    (MAP, "num_init", count()),
    (MAP, "max_iter", count()),
    (Laplace, "num_draws", count(2)),
    (SMC, "num_particles", count(20)),
    (SMC, "num_runs", count(4)),
    (SMC, "num_moves", count()),
    (SMC, "ess", fraction),
    (AIS, "num_particles", count(25)),
    (AIS, "num_temperatures", count(2)),
    (AIS, "backend", one_of("auto", "numpyro")),
    (Pathfinder, "num_paths", count()),
    (Pathfinder, "num_samples", count(25)),
    (EM, "num_init", count()),
    (EM, "tol", positive),
    (EM, "max_iter", count()),
    (EM, "estimate", one_of("ml", "map")),
    (EM, "variance_floor", or_none(lambda v: number(v) and 0 <= v < math.inf)),
    *((kind, "checkpoint", or_none(folder)) for kind in (SVI, NUTS, SMC, EM, MAP)),
]


@pytest.mark.parametrize(("engine", "field", "allowed"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
@given(value=ANYTHING)
def test_a_setting_is_taken_as_documented_or_refused_by_name(
    engine: type, field: str, allowed: Rule, value: Any
) -> None:
    made, said = attempt(lambda: engine(**{field: value}))
    assert allowed(value) == (said == ""), said
    if said:
        assert said.startswith(f"{field}:")
    else:
        assert getattr(made, field) is value
        assert dataclasses.replace(made) == made


# ---- data -----------------------------------------------------------------------------------------

TABLES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(4, 9), st.integers(2, 3)),
    elements=st.integers(-(2**10), 2**10).map(lambda v: v / 8.0),  # what float16 holds too
    unique=True,
)
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda x: x.tolist(),
    "Fortran order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "float32": lambda x: x.astype(np.float32),
    "big-endian": lambda x: x.astype(">f8"),
    "objects": lambda x: x.astype(object),
    "tensor": torch.tensor,
    "bfloat16": lambda x: torch.tensor(x.round()).clamp(-128, 128).to(torch.bfloat16),
    "sparse": lambda x: torch.tensor(x).to_sparse(),
    "frame": pd.DataFrame,
    "mapping": lambda x: {"x": x},
}
MODELS: dict[str, Any] = {
    "GaussianMixture": models.GaussianMixture(2, "diag"),
    "Mixture": models.Mixture(2, emissions.StudentT()),
    "HMM": models.HMM(2, emissions.Gaussian("diag")),
    "PPCA": models.PPCA(1),
    "FactorAnalysis": models.FactorAnalysis(1),
}


@pytest.mark.parametrize("name", MODELS)
@given(x=TABLES, form=st.sampled_from(sorted(FORMS)))
def test_data_mean_the_same_in_any_form(name: str, x: np.ndarray, form: str) -> None:
    if name == "HMM" and form == "list":  # several sequences, as far as the model can tell
        return
    x = np.clip(x.round(), -128, 128) if form == "bfloat16" else x
    bound, plain = MODELS[name].bind(FORMS[form](x)), MODELS[name].bind(x.copy())
    np.testing.assert_array_equal(np.squeeze(bound.values["x"]), np.squeeze(plain.values["x"]))
    assert bound.values["x"].dtype == plain.values["x"].dtype


@settings(max_examples=8)
@given(form=st.sampled_from(sorted(set(FORMS) - {"bfloat16"})), seed=st.integers(0, 99))
def test_fits_of_the_same_numbers_are_the_same(form: str, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-40, 40, (12, 2)) / 8.0
    engine = EM(num_init=2, max_iter=20)
    first, second = (lvm.fit(MODELS["GaussianMixture"], d, engine, seed=seed) for d in (x, FORMS[form](x)))
    assert same_arrays(first.params, second.params)


@given(
    values=arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4),
        elements=st.integers(0, 1),
    ),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_arguments_keep_integers_and_cast_floats(values: np.ndarray, dtype: str) -> None:
    def program(y: Any) -> None:
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    found = prepare(program, values, dtype=dtype).arguments["y"]
    assert found.dtype == (dtype if values.dtype.kind == "f" else values.dtype)
    np.testing.assert_array_equal(found, values)
    assert not found.flags.writeable


# ---- densities ------------------------------------------------------------------------------------


def sites_of_all_kinds(y: Any) -> None:
    pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    pyro.sample("tau", dist.Gamma(2.0, 1.0))
    pyro.sample("share", dist.Uniform(-1.0, 4.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z, 1.0), obs=y)


@pytest.fixture(scope="module")
def density() -> Any:
    from ppl_lvm.backends._numpyro import density_of
    from ppl_lvm.backends.session import jax_session

    with jax_session("float64"):
        return density_of(prepare(sites_of_all_kinds, np.array([0.1, 0.7])))


@settings(max_examples=10)
@given(flat=arrays.arrays(np.float64, 6, elements=st.floats(-4.0, 4.0)))
def test_coordinates_and_values_are_inverse_to_each_other(density: Any, flat: np.ndarray) -> None:
    """Two coordinates of weights, one each of tau and share, two of z."""
    from ppl_lvm.backends.session import jax_session

    own, data = density
    with jax_session("float64"):
        z = own.unflatten(flat)
        joined = np.concatenate([np.asarray(z[name]).ravel() for name in own.shapes])
        back = own.unconstrain(own.constrain(z, data, {}), data, {})
    np.testing.assert_array_equal(joined, flat)
    assert {k: np.shape(v) for k, v in z.items()} == dict(own.shapes)
    for name in own.shapes:
        np.testing.assert_allclose(back[name], z[name], rtol=1e-10, atol=1e-10)


# ---- files ----------------------------------------------------------------------------------------

ARRAYS = arrays.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
NAMES = st.text("abcxyz_", min_size=1, max_size=6)


@given(found=st.dictionaries(NAMES, ARRAYS, max_size=4), record=st.dictionaries(NAMES, st.integers()))
def test_checkpoints_give_back_what_they_were_given(
    found: dict[str, np.ndarray], record: dict[str, int], tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path, {"seed": 1})
    checkpoint.save(found, record)
    again, told = checkpoint.load() or ({}, {})
    assert told == record
    assert same_arrays(again, found)
    assert all(again[k].dtype == v.dtype and again[k].shape == v.shape for k, v in found.items())


PLAIN = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.floats(), max_size=3),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
)


@given(values=st.dictionaries(NAMES, PLAIN | st.dictionaries(NAMES, PLAIN, min_size=1, max_size=2)))
def test_records_come_back_from_arrays(values: dict[str, Any]) -> None:
    assert repr(unpacked(packed(values))) == repr({k: values[k] for k in unpacked(packed(values))})
    assert set(unpacked(packed(values))) == set(values)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31), dtype=st.sampled_from(["float32", "float64"]), num=st.integers(25, 40))
def test_saved_fits_come_back_to_the_bit(seed: int, dtype: str, num: int, tmp_path: Path) -> None:
    y = np.random.default_rng(seed).standard_normal(3)
    engine = ImportanceSampling(backend="pyro", num_samples=num)
    fit = lvm.fit(sites_of_all_kinds, y, engine, seed=seed, dtype=dtype)
    folder = tmp_path / f"{seed}-{dtype}-{num}"
    fit.save(folder)
    again = lvm.load(folder, model=sites_of_all_kinds)
    assert again.posterior.identical(fit.posterior)
    assert again.sample_stats.identical(fit.sample_stats)
    assert again.evidence == fit.evidence


# ---- labels ---------------------------------------------------------------------------------------


@given(k=st.integers(1, 4), d=st.integers(1, 3), seed=st.integers(0, 999), which=st.integers(0, 23))
def test_labels_do_not_change_a_mixtures_densities(k: int, d: int, seed: int, which: int) -> None:
    rng = np.random.default_rng(seed)
    problem = prepare(models.GaussianMixture(k, "diag"), rng.standard_normal((k + 4, d)))
    exact, data = problem.model.exact, problem.arguments
    values = {
        "weights": rng.dirichlet(np.ones(k), 2),
        "loc": rng.standard_normal((2, k, d)),
        "scale": 0.3 + rng.random((2, k, d)),
    }
    orders = list(itertools.permutations(range(k)))
    order = np.array(orders[which % len(orders)])
    turned = permute(values, exact.label_axes, order)
    assert same_arrays(permute(turned, exact.label_axes, np.argsort(order)), values)
    for density in (exact.log_likelihood, exact.log_prior):
        np.testing.assert_allclose(density(turned, data), density(values, data), rtol=1e-10)
    for name, value in exact.invariants(values).items():
        np.testing.assert_allclose(exact.invariants(turned)[name], value, rtol=1e-10)
    shares = exact.predict_proba(values, data)
    np.testing.assert_allclose(exact.predict_proba(turned, data), shares[..., order], atol=1e-12)
