"""What the fuzz of runs found, one test each: errors that were another library's words, or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from helpers import attempt
from pyro.ops.indexing import Vindex

import ppl_lvm as lvm
from ppl_lvm import ELBO, MAP, SVI, ImportanceSampling, Renyi, models
from ppl_lvm.core import as_model
from ppl_lvm.failures import in_our_words

Y = np.array([0.3, 1.2, -0.5, 2.0, 0.9, 1.4, 0.1, -0.2])
TINY = ImportanceSampling(num_samples=25, backend="pyro")
SHORT = SVI(num_steps=20, num_draws=30, window=10)


def normal(y: Any) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("obs", dist.Laplace(mu, 1.0), obs=y)


def mixture(y: Any) -> None:
    with pyro.plate("component", 2):
        loc = pyro.sample("loc", dist.Normal(0.0, 4.0))
    with pyro.plate("data", len(y)):
        which = pyro.sample("which", dist.Bernoulli(0.4), infer={"enumerate": "parallel"})
        pyro.sample("obs", dist.Normal(Vindex(loc)[..., which.long()], 1.0), obs=y)


def said(model: Any, data: Any, engine: Any, **call: Any) -> str:
    return attempt(lambda: lvm.fit(model, data, engine, **call))[1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"dims": 3}, "dims: expected a mapping by name, got 3"),
        ({"dims": {"mu": "ab"}}, "dims['mu']: expected a sequence, got 'ab'"),
        ({"coords": ["a"]}, "coords: expected a mapping by name"),
        ({"coords": {"data": 3}}, "coords['data']: expected a sequence, got 3"),
    ],
)
def test_names_and_labels_are_mappings_of_sequences(call: dict[str, Any], words: str) -> None:
    assert said(normal, Y, TINY, **call).startswith(words)


@pytest.mark.parametrize("value", ["a", {}, 1j])
def test_starting_values_are_numbers(value: Any) -> None:
    assert said(normal, Y, SHORT, init={"mu": value}).startswith("init: site 'mu': expected numbers, got")


@pytest.mark.parametrize("shape", [(1, 8), (1, 1, 3)])
def test_data_that_do_not_fit_their_plate_are_refused_before_the_run(shape: tuple[int, ...]) -> None:
    words = said(normal, np.ones(shape), MAP(backend="pyro"))
    assert "entries along plate 'data' of size" in words
    assert ".to_event()" in words


def test_shapes_that_do_not_broadcast_are_refused_before_the_run() -> None:
    def program(y: Any) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)

    assert "do not go with a distribution of batch shape (3,)" in said(program, Y, TINY)


def test_a_site_that_cannot_take_the_datas_type_is_named_with_the_data() -> None:
    words = said(normal, Y > 0, MAP(backend="pyro", num_init=1))
    assert words.startswith("MAP: ")
    assert "check the data's types and shapes against the program" in words


@pytest.mark.parametrize("guide", [lambda: None, dict])
def test_a_guide_that_fails_is_said_to(guide: Any) -> None:
    assert said(normal, Y, SVI(guide=guide, num_steps=5)).startswith("guide:")


@pytest.mark.parametrize("estimator", ["trace", "mean_field"])
def test_an_estimator_that_sums_nothing_out_is_refused_beside_discrete_sites(estimator: str) -> None:
    """Their terms would stand in the bound without those of the guide: no bound."""
    words = said(mixture, Y, SVI(objective=ELBO(estimator=estimator), num_steps=5))
    assert "does not sum discrete sites out, and the guide lacks ['which']" in words


def test_a_renyi_bound_needs_two_groups_of_draws() -> None:
    engine = SVI(objective=Renyi(num_particles=20), num_draws=30, num_steps=5)
    assert "use num_draws=40 or more" in said(normal, Y, engine)


def test_the_error_of_a_single_bound_is_not_known() -> None:
    def program(y: Any) -> None:
        mu = pyro.param("mu", lambda: np.float64(0.0) * y.mean())
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)

    assert lvm.fit(program, Y, SVI(num_steps=1)).evidence.std_error == np.inf


def test_a_tolerance_is_a_number() -> None:
    with pytest.raises(ValueError, match=r"^tolerance: expected a positive number, got None"):
        SVI(tolerance=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
    ],
)
def test_too_little_memory_is_said_in_words(error: Exception) -> None:
    assert "ask for fewer draws" in (in_our_words(error, as_model(normal)) or "")


def test_faults_of_our_own_are_not_dressed_up() -> None:
    """An error that comes out of neither the program nor a known complaint stays what it is."""
    assert in_our_words(KeyError("loc"), as_model(normal)) is None
    assert in_our_words(ValueError("batch_size: ..."), models.GaussianMixture(2)) is None
