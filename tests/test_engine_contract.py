"""What every engine has to keep: settings, refusals in words, seeds, isolation, dimensions, files, ArviZ."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import TINY_ENGINES, attempt, clusters, covering, engine_classes, same_arrays

import ppl_lvm as lvm
from ppl_lvm import (
    AIS,
    ELBO,
    EM,
    MAP,
    NUTS,
    SMC,
    SVI,
    ChEES,
    ImportanceSampling,
    Laplace,
    Pathfinder,
    Renyi,
    models,
)
from ppl_lvm.core import Engine
from ppl_lvm.result import Fit
from ppl_lvm.storage_files import digest_of, text_of

X = clusters(24, 2)
X_NEW = clusters(7, 2, seed=9)
X_OTHER = clusters(24, 2, seed=4)  # the shapes of X: what is compiled for one serves the other
MIXTURE = models.GaussianMixture(num_components=2, covariance="diag")
ENGINES = engine_classes()
POINTS = ("EM", "MAP")
DRAWING = tuple(name for name in TINY_ENGINES if name not in POINTS)


@functools.cache
def tiny_fit(name: str, seed: int = 0) -> Fit:
    """A fit that tests share and do not change."""
    return lvm.fit(MIXTURE, X, TINY_ENGINES[name], seed=seed)


def figures(fit: Fit) -> dict[str, np.ndarray]:
    """Everything numeric that a fit holds, by name."""
    found = {f"param {k}": v for k, v in fit.params.items()}
    datasets = {"draw": fit.draws, "stat": fit.sample_stats, **fit.groups}
    for group, dataset in datasets.items():
        if dataset is not None:
            found |= {f"{group} {k}": v.values for k, v in dataset.data_vars.items()}
    if fit.evidence is not None:
        found["evidence"] = np.array([fit.evidence.nats, fit.evidence.std_error])
    if fit.log_likelihood is not None:
        found["log likelihood"] = np.array([fit.log_likelihood, fit.num_parameters])
    return found


def test_every_engine_is_tried() -> None:
    assert len(ENGINES) >= 4
    assert {type(engine).__name__ for engine in TINY_ENGINES.values()} == set(ENGINES)
    assert {"pyro", "numpyro"} <= {getattr(e, "backend", None) for e in TINY_ENGINES.values()}


# ---- settings ------------------------------------------------------------------------------------

BAD_SETTINGS: dict[type, dict[str, list[Any]]] = {
    EM: {
        "num_init": [0, -1, 1.5, True, "2", None],
        "tol": [0.0, -1.0, np.nan, np.inf, "small", True],
        "max_iter": [0, 2.5, None],
        "estimate": ["mle", None, 3],
        "variance_floor": [-1e-3, np.nan, np.inf, "none", True],
        "checkpoint": [3, True, "", "a\0b"],
    },
    SVI: {
        "backend": ["jax", None, 3],
        "objective": ["elbo", None, ELBO],
        "guide": ["normal", 3],
        "num_steps": [0, -5, 10.5, True],
        "num_epochs": [0, 1.5],
        "batch_size": [0, -1, 2.5],
        "learning_rate": [0.0, -0.1, np.nan, np.inf, "fast", True],
        "learning_rate_decay": [0.0, -0.5, 1.5, np.nan],
        "clip_norm": [0.0, -1.0, np.nan],
        "num_draws": [1, 0, 10.5],
        "window": [9, 0, 10.5],
        "tolerance": [0.0, -1.0, np.nan],
        "early_stop": ["no", 2, None],
        "schedule": ["step", None],
        "warmup_steps": [-1, 2.5],
        "validation": [1.0, -0.1, "tenth"],
        "patience": [0, 2.5],
        "checkpoint": [3, True, "", "a\0b"],
        "checkpoint_every": [0, 1.5],
        "average": ["no", 2],
        "num_restarts": [0, 1.5, None],
        "num_devices": [0, 1.5, None],
        "distributed": ["yes", 2, None],
    },
    ImportanceSampling: {
        "num_samples": [0, 5, 100.0, True, None],
        "proposal": ["posterior", 3, None, EM()],
        "backend": ["jax", None],
        "checkpoint": [3, True, "", "a\0b"],
    },
    NUTS: {
        "backend": ["stan", None],
        "num_warmup": [-1, 10.5, None],
        "num_samples": [0, 10.5, True],
        "num_chains": [0, 1.5],
        "target_accept": [0.0, 1.0, 1.5, np.nan, "0.8"],
        "max_tree_depth": [0, 2.5],
        "dense_mass": ["yes", 2, None],
        "kernel": ["hmc", None],
        "chain_method": ["parallel", None],
        "num_starts": [1, 3, 2.5, "two"],
        "by_datum": ["yes", 2],
        "transport": ["yes", 2, None],
        "checkpoint": [3, True, "", "a\0b"],
        "checkpoint_every": [0, 1.5],
    },
    ChEES: {
        "backend": ["pyro", "jax", None],
        "num_chains": [0, 8, 100.5, None],
        "num_warmup": [-1, 10.5, None],
        "num_samples": [0, 10.5, True],
        "num_starts": [1, 3, 2.5, "two"],
        "target_accept": [0.0, 1.0, np.nan, "0.8"],
        "max_steps": [0, 2.5, None],
        "checkpoint": [3, True, "", "a\0b"],
        "checkpoint_every": [0, 1.5],
    },
    SMC: {
        "backend": ["pyro", "jax", None],
        "num_particles": [0, 10, 100.5, True],
        "num_runs": [1, 3, 4.5],
        "num_moves": [0, 1.5],
        "ess": [0.0, 1.0, np.nan, "0.7"],
        "checkpoint": [3, True, "", "a\0b"],
    },
    AIS: {
        "backend": ["pyro", "jax", None],
        "num_particles": [0, 10, 100.5, True],
        "num_temperatures": [0, 1, 2.5, None],
        "checkpoint": [3, True, "", "a\0b"],
    },
    MAP: {
        "backend": ["jax", None],
        "num_init": [0, 1.5, None],
        "max_iter": [0, 2.5, True],
        "checkpoint": [3, True, "", "a\0b"],
    },
    Laplace: {
        "backend": ["jax", None],
        "num_init": [0, 1.5, None],
        "max_iter": [0, 2.5, True],
        "num_draws": [1, 10.5, None],
        "checkpoint": [3, True, "", "a\0b"],
    },
    Pathfinder: {
        "num_paths": [0, 1.5, None],
        "num_samples": [0, 10, 100.5],
        "max_iter": [0, 2.5],
        "history": [0, 2.5],
        "num_elbo_draws": [0, 2.5],
        "checkpoint": [3, True, "", "a\0b"],
    },
    ELBO: {
        "num_particles": [0, 1.5, None],
        "estimator": ["iwae", None],
        "beta": [-1.0, np.nan, "warm"],
        "free_bits": [-0.1, np.inf, None],
        "mirrored": ["yes", 1],
    },
    Renyi: {
        "alpha": [1, 1.0, np.nan, np.inf, "0", None, True],
        "num_particles": [0, 1, 2.5],
        "gradient": ["dreg", None],
    },
}


def test_every_setting_has_bad_values() -> None:
    assert set(ENGINES.values()) <= set(BAD_SETTINGS)
    for kind, bad in BAD_SETTINGS.items():
        assert {field.name for field in dataclasses.fields(kind)} == set(bad), kind


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(kind, f, v) for kind, bad in BAD_SETTINGS.items() for f, values in bad.items() for v in values],
    ids=lambda v: getattr(v, "__name__", repr(v)),
)
def test_a_bad_setting_is_an_error_that_names_it(kind: type, field: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{field}\b.*expected"):
        kind(**{field: value})


@pytest.mark.parametrize("kind", BAD_SETTINGS, ids=lambda kind: kind.__name__)
def test_settings_are_frozen_and_a_typo_is_an_error(kind: type) -> None:
    settings = kind()
    field = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, field, 1)
    with pytest.raises(TypeError, match="num_stpes"):
        kind(num_stpes=3)
    assert settings == kind()
    assert dataclasses.replace(settings) == settings
    assert inspect.getdoc(kind)


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"num_steps.*num_epochs"):
        SVI(num_steps=10, num_epochs=2, batch_size=4)


# ---- what an engine cannot take ------------------------------------------------------------------


def without_observations(x: Any) -> None:
    import pyro
    import pyro.distributions as dist

    pyro.sample("mu", dist.Normal(0.0, 1.0))


def with_infinite_counts(x: Any) -> None:
    import pyro
    import pyro.distributions as dist

    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        count = pyro.sample("count", dist.Poisson(rate))
        pyro.sample("obs", dist.Normal(count, 1.0), obs=x)


def with_labels_only(x: Any) -> None:
    import pyro
    import pyro.distributions as dist
    import torch

    with pyro.plate("data", len(x)):
        label = pyro.sample("label", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("obs", dist.Normal(2.0 * label, 1.0), obs=x)


def plain_normal(x: Any) -> None:
    import pyro
    import pyro.distributions as dist

    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=x)


def branching(x: Any) -> None:
    import pyro
    import pyro.distributions as dist

    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    loc = mu if mu > 0 else 2 * mu
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(loc, 1.0), obs=x)


def without_a_plate(x: Any) -> None:
    import pyro
    import pyro.distributions as dist

    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("obs", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


def improper(x: Any) -> None:
    import pyro
    import pyro.distributions as dist

    mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=x)


ROW = X[:, 0]
_UNTRANSLATED = r"'mu'.*test_engine_contract.py:\d+.*torch\.where.*backend='pyro'"
# (engine, model, what the sentence has to say: what is the matter, and the alternative)
REFUSALS: dict[str, tuple[Engine, Any, str]] = {
    "em without a closed form": (EM(), plain_normal, r"closed-form.*(SVI|NUTS)"),
    "nuts without continuous latents": (NUTS(), with_labels_only, r"continuous.*latents"),
    "importance without continuous latents": (ImportanceSampling(), with_labels_only, r"continuous.*latents"),
    "svi with nothing to fit": (SVI(), with_labels_only, r"nothing|no continuous"),
    "nuts with infinite support": (NUTS(), with_infinite_counts, r"'count'.*truncate|marginalise"),
    "svi with infinite support": (SVI(), with_infinite_counts, r"'count'.*truncate|marginalise"),
    "importance with infinite support": (ImportanceSampling(), with_infinite_counts, r"'count'.*truncate"),
    "svi without observations": (SVI(), without_observations, r"observe"),
    "importance without observations": (ImportanceSampling(), without_observations, r"observe"),
    "numpyro without a translation, nuts": (NUTS(backend="numpyro"), branching, _UNTRANSLATED),
    "numpyro without a translation, svi": (SVI(backend="numpyro"), branching, _UNTRANSLATED),
    "numpyro without a translation, importance": (
        ImportanceSampling(backend="numpyro"),
        branching,
        _UNTRANSLATED,
    ),
    "smc without a translation": (SMC(), branching, _UNTRANSLATED),
    "smc from an improper prior": (SMC(), improper, r"prior.*'mu'.*improper.*NUTS"),
    "ais without observations": (AIS(), without_observations, r"observe"),
    "batches without a plate": (SVI(batch_size=4), without_a_plate, r"batch_size.*plate"),
    "batches larger than the data": (SVI(batch_size=1000), plain_normal, r"batch_size.*1000.*24"),
    "epochs without batches": (SVI(num_epochs=2), plain_normal, r"num_epochs.*batch_size"),
    "an improper prior as proposal": (ImportanceSampling(), improper, r"prior.*'mu'.*SVI"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_a_sentence_with_the_alternative(case: str) -> None:
    engine, model, words = REFUSALS[case]
    reason = engine.unsupported(model, ROW)
    assert reason is not None
    assert re.search(words, reason, re.DOTALL), reason
    assert len(reason.split()) >= 6
    with pytest.raises(ValueError, match=rf"^{type(engine).__name__}: {re.escape(reason)}"):
        lvm.fit(model, ROW, engine)


def impossible(x: Any) -> None:
    """No value of mu allows the data."""
    import pyro
    import pyro.distributions as dist

    mu = pyro.sample("mu", dist.Uniform(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.factor("obs", -1e400 * (mu < 2.0).to(x.dtype))


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (
            SVI(num_steps=20, num_draws=30),
            r"^SVI: the objective became (nan|-?inf).*step 1\b.*learning_rate.*init=",
        ),
        (ImportanceSampling(num_samples=60), r"^ImportanceSampling: every weight is zero.*SVI"),
        (NUTS(num_warmup=3, num_samples=3, num_chains=1), r"start.*init="),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_density_that_is_nowhere_finite_is_an_error_in_words(engine: Engine, words: str) -> None:
    with pytest.raises(ValueError, match=re.compile(words, re.DOTALL)):
        lvm.fit(impossible, ROW, engine)


def test_a_fit_without_densities_is_no_proposal() -> None:
    for name in ("NUTS-numpyro", "ImportanceSampling-pyro"):  # weighted draws have densities, but no guide
        engine = ImportanceSampling(proposal=tiny_fit(name))
        assert re.search(f"{name.split('-')[0]}.*SVI", str(engine.unsupported(MIXTURE, X)))
    other = models.GaussianMixture(num_components=2, covariance="full")
    reason = ImportanceSampling(proposal=tiny_fit("SVI-pyro")).unsupported(other, X)
    assert re.search("another model.*corr_tril", str(reason))


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_a_model_that_is_supported_is_not_refused(name: str) -> None:
    assert TINY_ENGINES[name].unsupported(MIXTURE, X) is None


def test_engines_for_answers_for_every_engine() -> None:
    assert lvm.engines_for(MIXTURE, X) == dict.fromkeys(ENGINES)
    answers = lvm.engines_for(with_labels_only, ROW)
    assert set(answers) == set(ENGINES)
    for name, reason in answers.items():
        assert reason is not None, name
        assert len(reason.split()) >= 6
    assert lvm.engines_for(plain_normal, ROW)["EM"] is not None
    assert lvm.engines_for(plain_normal, ROW)["NUTS"] is None


@pytest.mark.parametrize(
    ("engine", "kind"), [(NUTS, "class NUTS"), ("NUTS", "str"), (None, "NoneType"), (ELBO(), "ELBO")]
)
def test_something_else_as_engine(engine: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"^engine: expected settings.*{kind}"):
        lvm.fit(MIXTURE, X, engine)


@pytest.mark.parametrize("seed", [-1, 1.5, True, None, "0"])
def test_bad_seeds(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"^seed: expected a non-negative integer"):
        lvm.fit(MIXTURE, X, EM(), seed=seed)


# Those in the slow suite have their bars from the code of others: units as SMC, blocks as NUTS.
BARS = covering(TINY_ENGINES, ["AIS", "ChEES", "MAP", "Pathfinder"])


@pytest.mark.parametrize("name", BARS)
def test_a_progress_bar_changes_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = lvm.fit(MIXTURE, X, TINY_ENGINES[name], progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    if not name.startswith("ImportanceSampling"):  # a single vectorised pass has no steps to count
        assert "%" in printed.err
        assert type(TINY_ENGINES[name]).__name__ in printed.err
    assert same_arrays(figures(shown), figures(tiny_fit(name)))
    lvm.fit(MIXTURE, X, TINY_ENGINES[name], progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_any_large_integer_is_a_seed(name: str) -> None:
    """Also in float32, where JAX has no 64-bit integers; seeds alike in their lower 32 bits still differ."""
    dtype = "float32" if name.startswith("ImportanceSampling") else None
    a = lvm.fit(MIXTURE, X, TINY_ENGINES[name], seed=2**40, dtype=dtype)
    assert figures(a)
    if name in DRAWING:
        b = lvm.fit(MIXTURE, X, TINY_ENGINES[name], seed=0, dtype=dtype)
        assert not np.array_equal(a.posterior["loc"].values, b.posterior["loc"].values)


# ---- seeds and isolation -------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_the_same_seed_gives_the_same_answer(name: str) -> None:
    again = lvm.fit(MIXTURE, X, TINY_ENGINES[name], seed=0)
    assert figures(again)
    assert same_arrays(figures(again), figures(tiny_fit(name)))


@pytest.mark.parametrize("name", DRAWING)
def test_another_seed_gives_other_draws(name: str) -> None:
    a, b = tiny_fit(name).posterior, tiny_fit(name, 1).posterior
    for site in a.data_vars:
        assert not np.isin(a[site].values, b[site].values).all(), site


@pytest.mark.parametrize("name", [n for n in DRAWING if n.startswith(("NUTS", "ChEES"))])
def test_chains_differ(name: str) -> None:
    loc = tiny_fit(name).posterior["loc"].values
    assert not np.isin(loc[0], loc[1]).any()


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_a_fit_to_other_data_in_between_changes_nothing(name: str) -> None:
    """Nothing of one fit's data or parameters may stay behind in compiled functions or stores."""
    other = lvm.fit(MIXTURE, X_OTHER, TINY_ENGINES[name], seed=0)
    again = lvm.fit(MIXTURE, X, TINY_ENGINES[name], seed=0)
    assert same_arrays(figures(again), figures(tiny_fit(name)))
    assert not same_arrays(figures(again), figures(other))


PAIRS = [
    ("SVI-pyro", "SVI-pyro"),
    ("SVI-pyro", "NUTS-numpyro"),
    ("NUTS-numpyro", "NUTS-numpyro"),
    ("ImportanceSampling-numpyro", "EM"),
    ("ImportanceSampling-pyro", "SVI-numpyro"),
]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda name: name)
def test_two_fits_in_two_threads_equal_the_same_fits_alone(first: str, second: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        a = pool.submit(lvm.fit, MIXTURE, X, TINY_ENGINES[first], seed=0)
        b = pool.submit(lvm.fit, MIXTURE, X, TINY_ENGINES[second], seed=1)
        found = a.result(), b.result()
    assert same_arrays(figures(found[0]), figures(tiny_fit(first, 0)))
    assert same_arrays(figures(found[1]), figures(tiny_fit(second, 1)))


@pytest.mark.parametrize("name", ["SVI-pyro", "NUTS-numpyro"])
def test_two_dtypes_in_two_threads(name: str) -> None:
    engine = TINY_ENGINES[name]
    alone = lvm.fit(MIXTURE, X, engine, dtype="float32")
    with ThreadPoolExecutor(2) as pool:
        single = pool.submit(lvm.fit, MIXTURE, X, engine, dtype="float32")
        double = pool.submit(lvm.fit, MIXTURE, X, engine)
    assert same_arrays(figures(double.result()), figures(tiny_fit(name)))
    assert same_arrays(figures(single.result()), figures(alone))
    assert single.result().posterior["loc"].dtype == np.float32
    assert double.result().posterior["loc"].dtype == np.float64


FRESH_PROCESS = """
    import random, sys
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np
    assert not {"torch", "jax"} & sys.modules.keys()
    random.seed(5); np.random.seed(5)
    before = random.getstate(), np.random.get_state()
    import ppl_lvm as lvm
    from ppl_lvm import EM, NUTS, SVI, ImportanceSampling, models
    x = np.random.default_rng(0).normal(size=(12, 1))
    mixture = models.GaussianMixture(num_components=2, covariance="diag")
    with ThreadPoolExecutor(2) as pool:
        for run in [pool.submit(lvm.fit, mixture, x, engine) for engine in ENGINES]:
            run.result()
    after = random.getstate(), np.random.get_state()
    assert before[0] == after[0], "random"
    assert before[1][2] == after[1][2] and np.array_equal(before[1][1], after[1][1]), "numpy"
"""


@pytest.mark.parametrize(
    "engines",
    ["[ImportanceSampling(num_samples=60)]", "2 * [SVI(num_steps=5, num_draws=30)]"],
    ids=["jax", "torch in two threads"],
)
def test_the_first_fit_of_a_process_leaves_the_users_generators_alone(engines: str) -> None:
    """Loading a library for the first time counts: importing JAX draws from NumPy's generator."""
    script = textwrap.dedent(FRESH_PROCESS.replace("ENGINES", engines))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]


# ---- what comes back -----------------------------------------------------------------------------

SITE_DIMS = {
    "weights": ("component",),
    "loc": ("component", "feature"),
    "scale": ("component", "feature"),
}
FRAME = pd.DataFrame(X, columns=["width", "height"], index=[f"r{i}" for i in range(len(X))])


@pytest.mark.parametrize("name", DRAWING)
def test_dimensions_and_coordinates_of_draws(name: str) -> None:
    fit = lvm.fit(MIXTURE, FRAME, TINY_ENGINES[name])
    posterior = fit.posterior
    assert {str(k): v.dims for k, v in posterior.data_vars.items()} == {
        site: ("chain", "draw", *dims) for site, dims in SITE_DIMS.items()
    }
    assert list(posterior.coords["feature"].values) == ["width", "height"]
    assert list(posterior.coords["component"].values) == [0, 1]
    assert list(posterior.coords["chain"].values) == list(range(posterior.sizes["chain"]))
    assert list(posterior.coords["draw"].values) == list(range(posterior.sizes["draw"]))
    assert posterior.attrs["draws"] in ("chain", "independent", "resampled")
    assert all(value.dtype == np.float64 for value in posterior.data_vars.values())
    assert same_arrays(figures(fit), figures(tiny_fit(name)))  # names change no number


@pytest.mark.parametrize("name", DRAWING)
def test_draws_lie_in_the_supports(name: str) -> None:
    posterior = tiny_fit(name).posterior
    np.testing.assert_allclose(posterior["weights"].sum("component"), 1.0, rtol=1e-12)
    assert (posterior["weights"].values > 0).all()
    assert (posterior["scale"].values > 0).all()


@pytest.mark.parametrize("name", DRAWING)
def test_numbers_of_draws(name: str) -> None:
    engine, sizes = TINY_ENGINES[name], tiny_fit(name).posterior.sizes
    if isinstance(engine, (NUTS, ChEES)):
        assert (sizes["chain"], sizes["draw"]) == (engine.num_chains, engine.num_samples)
    else:
        wanted = {
            SVI: lambda e: e.num_draws,
            ImportanceSampling: lambda e: e.num_samples,
            AIS: lambda e: e.num_particles,
            SMC: lambda e: e.num_particles * e.num_runs,
            Laplace: lambda e: e.num_draws,
            Pathfinder: lambda e: e.num_samples,
        }[type(engine)](engine)
        assert (sizes["chain"], sizes["draw"]) == (1, wanted)


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_the_fit_says_what_was_done(name: str) -> None:
    fit, engine = tiny_fit(name), TINY_ENGINES[name]
    assert fit.engine == engine
    assert fit.meta["seed"] == 0
    assert fit.meta["backend"] == fit.backend == engine.backend_for(fit.problem)
    assert fit.meta["wall_seconds"] > 0
    text = repr(fit)
    assert type(engine).__name__ in text
    assert fit.backend in text
    assert json.loads(json.dumps(dict(fit.meta))) == dict(fit.meta)
    assert str(fit.status)


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_evidence_says_its_kind_and_error(name: str) -> None:
    evidence, engine = tiny_fit(name).evidence, TINY_ENGINES[name]
    kinds = {EM: None, MAP: None, NUTS: None, ChEES: None, SVI: "lower_bound", Laplace: "lower_bound"}
    kinds |= dict.fromkeys((ImportanceSampling, Pathfinder, SMC, AIS), "estimate")
    if kinds[type(engine)] is None:
        assert evidence is None
        return
    assert evidence is not None
    assert evidence.kind == kinds[type(engine)]
    assert np.isfinite(evidence.nats)
    assert 0 < evidence.std_error < np.inf
    assert evidence.conditional_on == ()


@pytest.mark.parametrize("name", DRAWING)
def test_log_densities_kept_with_the_draws_are_those_of_the_model(name: str) -> None:
    """``log_p`` of guides and proposals in constrained space; ``lp`` of chains up to the Jacobian."""
    fit = tiny_fit(name)
    stats = fit.sample_stats
    assert stats is not None
    if "log_p" not in stats:
        assert "lp" in stats or isinstance(fit.engine, (SMC, AIS))  # these keep the weights alone
        return
    draws = fit.groups.get("proposal", fit.posterior)
    values = {str(k): v.values[0] for k, v in draws.data_vars.items()}
    exact = fit.model.exact
    expected = exact.log_prior(values, fit.problem.arguments)
    expected = expected + exact.log_likelihood(values, fit.problem.arguments).sum(-1)
    np.testing.assert_allclose(stats["log_p"].values[0], expected, rtol=1e-9)


@pytest.mark.parametrize("name", [n for n in DRAWING if n.startswith("ImportanceSampling")])
def test_weights_and_resampled_draws_belong_together(name: str) -> None:
    fit = tiny_fit(name)
    stats, proposal = fit.sample_stats, fit.groups["proposal"]
    log_weight = stats["log_weight"].values[0]
    assert np.isfinite(np.exp(log_weight)).all()
    np.testing.assert_allclose(np.exp(log_weight).sum(), 1.0, rtol=1e-12)
    index = stats["resampled_index"].values[0]
    counts = np.bincount(index, minlength=len(log_weight))
    assert (np.abs(counts - len(index) * np.exp(log_weight)) < 1 + 1e-9).all()  # systematic resampling
    np.testing.assert_allclose(
        np.sort(fit.posterior["loc"].values[0], axis=1), np.sort(proposal["loc"].values[0][index], axis=1)
    )


@pytest.mark.parametrize("num_samples", [10, 25, 60])
def test_the_fewest_samples_allowed_are_enough_to_run(num_samples: int) -> None:
    """A setting that is accepted runs; one that cannot is refused by name."""
    engine, refusal = attempt(lambda: ImportanceSampling(num_samples=num_samples, backend="pyro"))
    if refusal:
        assert refusal.startswith("num_samples")
        return
    fit = lvm.fit(MIXTURE, X, engine)
    assert not np.isnan(fit.sample_stats["log_weight"].values).any()


# ---- points --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POINTS)
def test_points_refuse_spread_with_advice(name: str) -> None:
    fit = tiny_fit(name)
    assert fit.is_point
    assert fit.draws is None
    with pytest.raises(ValueError, match=r"point.*fit\.params.*(SVI|NUTS)"):
        _ = fit.posterior
    tree = fit.to_arviz()
    assert "posterior" not in tree.children
    assert "point_estimate" in tree.children
    assert list(fit.summary().columns) == ["value"]
    prediction = fit.log_predictive(X_NEW)
    assert prediction.kind == "plug_in"
    assert prediction.total_std_error == 0.0


@pytest.mark.parametrize("name", POINTS)
def test_points_have_criteria_by_their_definitions(name: str) -> None:
    fit = tiny_fit(name)
    p = (2 - 1) + 2 * 2 + 2 * 2  # weights, means, variances
    assert fit.num_parameters == p
    assert fit.aic == pytest.approx(2 * p - 2 * fit.log_likelihood, rel=1e-14)
    assert fit.bic == pytest.approx(p * np.log(len(X)) - 2 * fit.log_likelihood, rel=1e-14)
    assert fit.log_likelihood == pytest.approx(fit.score_samples().sum(), rel=1e-12)


@pytest.mark.parametrize("name", DRAWING)
def test_fits_with_draws_have_no_criteria_of_points(name: str) -> None:
    for criterion in ("aic", "bic"):
        with pytest.raises(ValueError, match=rf"{criterion}.*EM.*loo"):
            getattr(tiny_fit(name), criterion)


# ---- prediction ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_prediction_as_in_scikit_learn(name: str) -> None:
    fit = tiny_fit(name)
    proba = fit.predict_proba(X_NEW)
    assert proba.shape == (7, 2)
    np.testing.assert_allclose(proba.sum(1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(fit.predict(X_NEW), proba.argmax(1))
    assert fit.score(X_NEW) == pytest.approx(fit.score_samples(X_NEW).mean(), rel=1e-14)
    np.testing.assert_array_equal(fit.score_samples(), fit.score_samples(X))
    drawn = fit.sample(5, seed=3)
    assert drawn.shape == (5, 2)
    np.testing.assert_array_equal(drawn, fit.sample(5, seed=3))
    assert not np.array_equal(drawn, fit.sample(5, seed=4))
    assert fit.latents(X_NEW, num_draws=6)["assignment"].shape == (1, 6, 7)
    assert fit.sample_predictive(num_draws=6)["obs"].shape == (1, 6, 24, 2)


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_columns_in_another_order_are_not_mixed_up(name: str) -> None:
    """A frame's columns are found by name, or the prediction is refused in words."""
    fit = lvm.fit(MIXTURE, FRAME, TINY_ENGINES[name])
    expected = fit.score_samples(FRAME)
    found, refusal = attempt(lambda: fit.score_samples(FRAME[["height", "width"]]))
    if refusal:
        assert re.search("column|feature", refusal)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-12)


# ---- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every tiny fit, saved with its data, under its name."""
    root = tmp_path_factory.mktemp("fits")
    for name in TINY_ENGINES:
        tiny_fit(name).save(root / name)
    return root


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_a_loaded_fit_is_the_fit(name: str, saved: Path) -> None:
    fit, loaded = tiny_fit(name), lvm.load(saved / name)
    assert same_arrays(figures(loaded), figures(fit))
    assert loaded.model == fit.model
    assert loaded.engine == fit.engine
    assert loaded.backend == fit.backend
    assert loaded.status == fit.status
    assert loaded.evidence == fit.evidence
    assert dict(loaded.meta) == dict(fit.meta)
    assert loaded.is_point == fit.is_point
    np.testing.assert_array_equal(loaded.score_samples(), fit.score_samples())
    np.testing.assert_array_equal(loaded.predict_proba(X_NEW), fit.predict_proba(X_NEW))
    if not fit.is_point:
        assert loaded.posterior.identical(fit.posterior)
        assert [v.dims for v in loaded.posterior.values()] == [v.dims for v in fit.posterior.values()]
        pd.testing.assert_frame_equal(loaded.summary(), fit.summary())


def test_labels_come_back_too(tmp_path: Path) -> None:
    fit = lvm.fit(MIXTURE, FRAME, TINY_ENGINES["ImportanceSampling-pyro"])
    fit.save(tmp_path / "fit")
    loaded = lvm.load(tmp_path / "fit")
    assert list(loaded.posterior.coords["feature"].values) == ["width", "height"]
    a, b = fit.to_arviz(), lvm.load(tmp_path / "fit").to_arviz()
    assert set(a.children) == set(b.children)
    assert list(map(str, b["log_likelihood"].coords["data"].values)) == list(FRAME.index)


def test_numbered_rows_stay_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["width", "height"], index=np.arange(100, 124))
    fit = lvm.fit(MIXTURE, frame, TINY_ENGINES["ImportanceSampling-pyro"])
    fit.save(tmp_path / "fit")
    for found in (fit, lvm.load(tmp_path / "fit")):
        assert list(found.to_arviz()["log_likelihood"].coords["data"].values) == list(range(100, 124))


def test_nothing_that_could_be_executed_is_written(saved: Path) -> None:
    starts = {".json": b"{", ".nc": b"\x89HDF"}
    for path in saved.rglob("*.*"):
        content = path.read_bytes()
        if path.suffix in starts:
            assert content.startswith(starts[path.suffix]), path
        else:
            assert path.suffix == ".safetensors"
            length = int.from_bytes(content[:8], "little")
            json.loads(content[8 : 8 + length])
        assert b"cposix" not in content
        assert b"builtins" not in content


LOADING = """
    import sys
    from pathlib import Path
    import numpy as np
    import ppl_lvm as lvm
    root, out = Path(sys.argv[1]), {}
    x_new = np.load(root / "x_new.npy")
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        fit = lvm.load(folder)
        assert fit.problem is None
        out[f"{folder.name} score"] = fit.score_samples(x_new)
        out[f"{folder.name} proba"] = fit.predict_proba(x_new)
        out[f"{folder.name} sample"] = fit.sample(4, seed=2)
        if not fit.is_point:
            out[f"{folder.name} loc"] = fit.posterior["loc"].values
            out[f"{folder.name} summary"] = fit.summary().to_numpy()
    sys.path.insert(0, sys.argv[2])
    from test_engine_contract import MIXTURE, TINY_ENGINES, X_OTHER, figures
    for name, engine in TINY_ENGINES.items():
        fit = lvm.fit(MIXTURE, X_OTHER, engine, seed=2)
        out |= {f"{name} fresh {key}": value for key, value in figures(fit).items()}
    np.savez(root / "found.npz", **out)
"""


@pytest.fixture(scope="module")
def found_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What a new process finds in fits saved without their data, and fits in it."""
    root = tmp_path_factory.mktemp("elsewhere")
    for name in TINY_ENGINES:
        tiny_fit(name).save(root / name, data=False)
        assert not (root / name / "data.nc").exists()
    np.save(root / "x_new.npy", X_NEW)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOADING), str(root), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=300, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(root / "found.npz"))


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_a_new_process_without_the_data_finds_the_same_numbers(
    name: str, found_elsewhere: dict[str, np.ndarray]
) -> None:
    fit = tiny_fit(name)
    np.testing.assert_array_equal(found_elsewhere[f"{name} score"], fit.score_samples(X_NEW))
    np.testing.assert_array_equal(found_elsewhere[f"{name} proba"], fit.predict_proba(X_NEW))
    np.testing.assert_array_equal(found_elsewhere[f"{name} sample"], fit.sample(4, seed=2))
    if not fit.is_point:
        np.testing.assert_array_equal(found_elsewhere[f"{name} loc"], fit.posterior["loc"].values)
        np.testing.assert_array_equal(found_elsewhere[f"{name} summary"], fit.summary().to_numpy())


@pytest.mark.parametrize("name", TINY_ENGINES)
def test_earlier_fits_of_the_same_shapes_leave_nothing_behind(
    name: str, found_elsewhere: dict[str, np.ndarray]
) -> None:
    """Neither data nor starting points: a compiled function used again gives what a fresh one does."""
    tiny_fit(name)
    found = figures(lvm.fit(MIXTURE, X_OTHER, TINY_ENGINES[name], seed=2))
    fresh = {
        k.partition(" fresh ")[2]: v for k, v in found_elsewhere.items() if k.startswith(f"{name} fresh ")
    }
    assert same_arrays(found, fresh)


def test_without_data_what_needs_them_says_so(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "SVI-pyro", tmp_path / "fit")
    (tmp_path / "fit" / "data.nc").unlink()
    loaded = lvm.load(tmp_path / "fit")
    assert loaded.problem is None
    with pytest.raises(ValueError, match=r"^data: .*loaded without its data"):
        loaded.score_samples()
    assert np.isfinite(loaded.score_samples(X_NEW)).all()


FILES = ("fit.json", "draws.nc", "params.safetensors", "data.nc")


def foreign(file: str, folder: Path) -> bytes:
    """A sound file of the same format that no fit wrote."""
    import xarray as xr
    from safetensors.numpy import save as to_safetensors

    if file == "fit.json":
        return json.dumps({"name": "a package", "version": 1}).encode()
    if file == "params.safetensors":
        return to_safetensors({"encoder.weight": np.ones(3)})
    other = folder / "other.nc"
    xr.Dataset({"rain": ("day", np.arange(3.0))}).to_netcdf(other, engine="h5netcdf")
    content = other.read_bytes()
    other.unlink()
    return content


DAMAGES: dict[str, Any] = {
    "halved": lambda file, path: path.read_bytes()[: path.stat().st_size // 2],
    "shortened": lambda file, path: path.read_bytes()[:-20],
    "emptied": lambda file, path: b"",
    "noise": lambda file, path: np.random.default_rng(0).bytes(400),
    "text": lambda file, path: b"Lorem ipsum dolor sit amet",
    "foreign": lambda file, path: foreign(file, path.parent),
}


@pytest.mark.parametrize("name", ["SVI-pyro", "EM"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [*DAMAGES, "deleted"])
def test_a_damaged_file_is_named(name: str, file: str, damage: str, saved: Path, tmp_path: Path) -> None:
    if (file, damage) == ("data.nc", "deleted"):
        pytest.skip("a fit may be kept without its data")
    folder = Path(shutil.copytree(saved / name, tmp_path / "fit"))
    if damage == "deleted":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(DAMAGES[damage](file, folder / file))
    with pytest.raises(ValueError, match=re.escape(str(folder / file))):
        lvm.load(folder)


def altered(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, shortened, repeated or overwritten somewhere: never the same bytes."""
    a, b = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    noise = rng.bytes(int(rng.integers(1, 9)))
    at = int(rng.integers(0, len(content)))
    ways = {
        "cut": content[:a],
        "hole": content[:a] + content[b:],
        "repeat": content[:b] + content[a:],
        "insert": content[:a] + noise + content[a:],
        "zeros": content[:a] + bytes(b - a) + content[b:],
        "bit": content[:at] + bytes([content[at] ^ (1 << int(rng.integers(0, 8)))]) + content[at + 1 :],
        "overwrite": content[:a] + noise + content[a + len(noise) :],
    }
    made = ways[str(rng.choice(list(ways)))]
    return made if made != content else content + noise


@pytest.mark.parametrize("num", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_altered_files_are_refused_every_time(num: int, saved: Path, tmp_path: Path) -> None:
    """One bit is enough; the error is ours and names the file, and numbers are never silently others."""
    rng = np.random.default_rng(num)
    for i in range(num):
        folder = Path(shutil.copytree(saved / ("SVI-pyro", "EM")[i % 2], tmp_path / str(i)))
        path = folder / FILES[int(rng.integers(len(FILES)))]
        path.write_bytes(altered(path.read_bytes(), rng))
        with pytest.raises(ValueError, match=re.escape(str(path))):
            lvm.load(folder)
        shutil.rmtree(folder)


def test_a_file_of_another_fit_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved / "EM", tmp_path / "fit"))
    shutil.copy(saved / "SVI-pyro" / "draws.nc", folder / "draws.nc")
    with pytest.raises(ValueError, match=re.escape(str(folder / "draws.nc"))):
        lvm.load(folder)
    folder = Path(shutil.copytree(saved / "EM", tmp_path / "more"))
    shutil.copy(saved / "EM" / "draws.nc", folder / "extra.nc")
    with pytest.raises(ValueError, match=r"extra\.nc: of another fit"):
        lvm.load(folder)


RECORD_KEYS = (
    "backend",
    "contents",
    "digest",
    "engine",
    "evidence",
    "files",
    "format",
    "log_likelihood",
    "meta",
    "model",
    "num_parameters",
    "program",
    "status",
)


def edited(saved: Path, folder: Path, edit: Any) -> Path:
    """A copy of a saved fit whose fit.json went through ``edit``."""
    shutil.copytree(saved / "SVI-pyro", folder)
    record = json.loads((folder / "fit.json").read_text())
    edit(record)
    if "digest" in record and isinstance(record["digest"], str):
        record["digest"] = digest_of(record)
    (folder / "fit.json").write_text(text_of(record))
    return folder


def test_all_keys_of_the_record_are_tried(saved: Path) -> None:
    assert set(RECORD_KEYS) == set(json.loads((saved / "EM" / "fit.json").read_text()))


@pytest.mark.parametrize("key", RECORD_KEYS)
@pytest.mark.parametrize("value", ["deleted", [1, 2]], ids=["deleted", "of another type"])
def test_a_damaged_record_is_named(key: str, value: Any, saved: Path, tmp_path: Path) -> None:
    edit = (lambda r: r.pop(key)) if value == "deleted" else (lambda r: r.update({key: value}))
    folder = edited(saved, tmp_path / "fit", edit)
    with pytest.raises(ValueError, match=re.escape(str(folder / "fit.json"))):
        lvm.load(folder)


WRONG_RECORDS: dict[str, tuple[Any, str]] = {
    "an unknown engine": (lambda r: r["engine"].update(type="Gibbs"), "Gibbs"),
    "an engine's unknown setting": (lambda r: r["engine"]["settings"].update(speed=3), "speed"),
    "an engine's bad setting": (lambda r: r["engine"]["settings"].update(num_draws=-3), "num_draws"),
    "an unknown objective": (lambda r: r["engine"]["settings"]["objective"].update(type="Chi"), "Chi"),
    "a class that is no objective": (
        lambda r: r["engine"]["settings"].update(objective={"type": "EM"}),
        "objective",
    ),
    "an unknown model": (lambda r: r["model"].update(model="Wishart"), "Wishart"),
    "a model's bad setting": (lambda r: r["model"]["settings"].update(num_components=0), "num_components"),
    "a newer format": (lambda r: r.update(format=99), "99"),
    "an unknown outcome": (lambda r: r["status"].update(outcome="GREAT"), "GREAT"),
    "an unknown kind of evidence": (lambda r: r["evidence"].update(kind="guess"), "guess"),
}


@pytest.mark.parametrize("fault", WRONG_RECORDS)
def test_a_record_of_something_unknown_is_named(fault: str, saved: Path, tmp_path: Path) -> None:
    edit, word = WRONG_RECORDS[fault]
    folder = edited(saved, tmp_path / "fit", edit)
    with pytest.raises(ValueError, match=rf"{re.escape(str(folder / 'fit.json'))}.*{word}"):
        lvm.load(folder)


def test_bad_paths(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"^path: no folder"):
        lvm.load(tmp_path / "nothing")
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match=r"^path: .*is a file"):
        tiny_fit("EM").save(tmp_path / "file")
    with pytest.raises(ValueError, match=r"^path: .*something else"):
        tiny_fit("EM").save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"fit\.json"):
        lvm.load(empty)


def test_a_fit_is_saved_over_an_older_one(tmp_path: Path) -> None:
    tiny_fit("EM").save(tmp_path / "fit")
    tiny_fit("SVI-pyro").save(tmp_path / "fit", data=False)
    loaded = lvm.load(tmp_path / "fit")
    assert same_arrays(figures(loaded), figures(tiny_fit("SVI-pyro")))
    assert loaded.problem is None
    assert sorted(p.name for p in (tmp_path / "fit").iterdir()) == sorted(set(FILES) - {"data.nc"})


@pytest.mark.parametrize("step", ["write_tree", "write_params", "write_bytes"])
def test_an_interrupted_save_does_not_mix_two_fits(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older fit is still whole, or loading says that the folder is damaged; never a bit of each."""
    from ppl_lvm import storage

    folder = tmp_path / "fit"
    tiny_fit("SVI-pyro", 0).save(folder)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(storage, step, fail)
    with pytest.raises(OSError, match="disk full"):
        tiny_fit("SVI-pyro", 1).save(folder)
    monkeypatch.undo()
    loaded, refusal = attempt(lambda: lvm.load(folder))
    if refusal:
        assert str(folder) in refusal
    else:
        assert same_arrays(figures(loaded), figures(tiny_fit("SVI-pyro", 0)))


# ---- ArviZ ---------------------------------------------------------------------------------------


@functools.cache
def tree_of(name: str) -> Any:
    """Of runs that are long enough for ArviZ's diagnostics, which need 25 draws that differ."""
    engine = TINY_ENGINES[name]
    if isinstance(engine, ImportanceSampling):
        guide = lvm.fit(MIXTURE, X, dataclasses.replace(TINY_ENGINES[f"SVI-{engine.backend}"], num_steps=800))
        engine = dataclasses.replace(engine, proposal=guide, num_samples=400)
    if name == "NUTS-pyro":
        engine = dataclasses.replace(engine, num_samples=25)
    if name == "AIS":
        engine = dataclasses.replace(engine, num_temperatures=1000)  # fewer leave a draw or two with weight
    return lvm.fit(MIXTURE, X, engine).to_arviz()


@pytest.mark.parametrize("name", DRAWING)
def test_arviz_groups(name: str) -> None:
    tree = tree_of(name)
    wanted = {"posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data"}
    assert wanted <= set(tree.children)
    np.testing.assert_array_equal(tree["observed_data"]["obs"].values, X)
    np.testing.assert_array_equal(tree["constant_data"]["x"].values, X)
    sizes, posterior = tree["log_likelihood"]["obs"].sizes, tree["posterior"].sizes
    assert dict(sizes) == {"chain": posterior["chain"], "draw": posterior["draw"], "data": 24}
    assert "posterior_predictive" not in tree.children


def test_posterior_predictive_on_request() -> None:
    tree = tiny_fit("SVI-pyro").to_arviz(posterior_predictive=True, log_likelihood=False)
    assert "log_likelihood" not in tree.children
    assert tree["posterior_predictive"]["obs"].dims == ("chain", "draw", "data", "feature")


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")  # the runs are tiny
def test_arviz_stats_takes_the_tree_unchanged(name: str) -> None:
    import arviz_stats

    tree = tree_of(name)
    table = arviz_stats.summary(tree)
    posterior = tree["posterior"]
    assert len(table) == sum(v[0, 0].size for v in posterior.data_vars.values())
    mean = float(posterior["loc"].values[..., 0, 0].mean())
    row = next(label for label in table.index if label.replace(" ", "") == "loc[0,0]")
    assert float(table.loc[row, "mean"]) == pytest.approx(mean, rel=0.05, abs=0.05)  # it prints two digits
    if name == "Pathfinder":
        return  # here its weights are worth some twenty draws, whose repetitions have no tail to smooth
    found = arviz_stats.loo(tree, pointwise=True)
    assert np.isfinite(found.elpd)
    assert found.elpd_i.shape == (24,)


@pytest.mark.parametrize("name", ["SVI-pyro", "NUTS-numpyro"])
@pytest.mark.parametrize("plot", ["plot_dist", "plot_forest", "plot_trace"])
@pytest.mark.filterwarnings("ignore")  # of matplotlib and ArviZ among themselves
def test_arviz_plots_takes_the_tree_unchanged(name: str, plot: str) -> None:
    import arviz_plots
    import matplotlib.pyplot as plt

    collection = getattr(arviz_plots, plot)(tree_of(name), var_names=["weights"], backend="matplotlib")
    assert collection is not None
    plt.close("all")
