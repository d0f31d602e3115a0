"""Every engine on every model of the zoo: it runs, or says in a sentence why not; what comes out is whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import MODEL_CASES, TINY_ENGINES, ModelCase, attempt, same_arrays

import ppl_lvm as lvm
from ppl_lvm import SVI, Renyi, models
from ppl_lvm.core import Engine

ENGINES: dict[str, Engine] = {
    **TINY_ENGINES,
    "Renyi-pyro": SVI(objective=Renyi(num_particles=4), num_steps=40, num_draws=40, window=10),
    "Renyi-numpyro": SVI(
        backend="numpyro", objective=Renyi(num_particles=4), num_steps=40, num_draws=40, window=10
    ),
}
# What only a run can find out: no Gaussian fits at a mode on a ridge, or the density has no mode.
FOUND_OUT = ("laplace: the log density is not curved", "mode: no search ended", "Pathfinder: no path ended")
# The first case of every model, and those whose path through an engine differs.
CHOSEN = [
    *(cases[0] for cases in MODEL_CASES.values()),
    *(case for cases in MODEL_CASES.values() for case in cases[1:] if "collapsed" in case.name),
    *(case for name in ("HMM", "FactorAnalysis") for case in MODEL_CASES[name][1:2]),
]


def test_the_lists_are_not_empty() -> None:
    assert {type(case.make()).__name__ for case in CHOSEN} == set(models.__all__) - {"VAE"}
    assert {type(engine).__name__ for engine in ENGINES.values()} == {
        "EM",
        "SVI",
        "ImportanceSampling",
        "NUTS",
        "ChEES",
        "SMC",
        "AIS",
        "MAP",
        "Laplace",
        "Pathfinder",
    }


# A run is seconds of compilation. In the daily part one model meets every engine, and each model three.
DAILY_MODELS, DAILY_ENGINES = ("poisson-k3-d2",), ("EM", "MAP", "NUTS-numpyro")


def by_cost(case: ModelCase, daily: bool, *more: str) -> Any:
    return pytest.param(
        case, *more, id="-".join((repr(case), *more)), marks=[] if daily else [pytest.mark.slow]
    )


RUNS = [
    by_cost(case, repr(case) in DAILY_MODELS or name in DAILY_ENGINES, name)
    for case in CHOSEN
    for name in ENGINES
]
SAVED = [
    by_cost(case, repr(case) in DAILY_MODELS, name)
    for case in CHOSEN
    for name in ("EM", "NUTS-numpyro", "ImportanceSampling-numpyro")
]


def test_the_daily_part_is_there() -> None:
    daily = [case.values for case in RUNS if not case.marks]
    assert {name for _, name in daily} == set(ENGINES)
    assert {repr(case) for case, _ in daily} == {repr(case) for case in CHOSEN}


@pytest.mark.parametrize(("case", "name"), RUNS)
def test_it_runs_or_refuses_in_a_sentence(case: ModelCase, name: str) -> None:
    model, engine = case.make(), ENGINES[name]
    reason = engine.unsupported(model, case.data)
    fit, words = attempt(lambda: lvm.fit(model, case.data, engine))
    if reason is not None:
        assert fit is None
        assert reason in words
        assert len(reason.split()) > 5
        return
    if fit is None and words.startswith(FOUND_OUT):
        assert "use" in words
        return
    assert fit is not None, words
    check_answers(fit, case)


def check_answers(fit: lvm.Fit, case: ModelCase) -> None:
    """A point or draws in the model's sites, finite; every method answers or refuses in words."""
    n = fit.meta["num_data"]
    assert n == len(case.data)
    wanted = {s.name for s in fit.problem.latents(discrete=False) if not s.local}  # type: ignore[union-attr]
    if fit.is_point:
        assert wanted <= set(fit.params)
        if fit.log_likelihood is None:  # factors of every row are part of the point
            assert any(s.local for s in fit.problem.latents(discrete=False))  # type: ignore[union-attr]
        else:
            assert np.isfinite(fit.log_likelihood)
            assert np.isfinite([fit.aic, fit.bic]).all()
    else:
        assert wanted <= set(map(str, fit.posterior.data_vars))
    scores = fit.score_samples()
    assert scores.shape == (n,)
    assert np.isfinite(scores).all()
    summary = fit.summary()
    assert len(summary) >= 1
    hidden = fit.model.internal_sites
    assert not any(row.partition("[")[0] in hidden for row in summary.index)
    asked: dict[str, Any] = {
        "predict": lambda: fit.predict(),
        "predict_proba": lambda: fit.predict_proba(),
        "transform": lambda: fit.transform(),
        "latents": lambda: fit.latents(num_draws=5),
        "sample": lambda: fit.sample(3),
        "sample_predictive": lambda: fit.sample_predictive(num_draws=5),
        "forecast": lambda: fit.forecast(steps=2, num_draws=5),
        "impute": lambda: fit.impute(num_draws=5),
    }
    answered = {key for key, ask in asked.items() if attempt(ask)[0] is not None}
    assert {"sample", "sample_predictive"} <= answered
    assert answered & {"predict", "transform"}
    tree = fit.to_arviz()
    if not fit.is_point:
        assert tree["log_likelihood"]["obs"].shape[-1] == n
    assert tree["observed_data"]["obs"].sizes


@pytest.mark.parametrize(("case", "name"), SAVED)
def test_a_saved_fit_loads_and_predicts_the_same(case: ModelCase, name: str, tmp_path: Any) -> None:
    reason = ENGINES[name].unsupported(case.make(), case.data)
    if reason is not None:
        pytest.skip(f"the engine refuses this model, as another test checks: {reason}")
    fit = lvm.fit(case.make(), case.data, ENGINES[name])
    fit.save(tmp_path / "fit")
    again = lvm.load(tmp_path / "fit")
    assert again.model == fit.model
    assert np.array_equal(again.score_samples(case.data), fit.score_samples(case.data))
    for method in ("predict", "transform"):
        mine, theirs = (attempt(getattr(f, method))[0] for f in (fit, again))
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine, theirs)
    if fit.draws is not None:
        assert same_arrays(fit.draws, again.draws)  # type: ignore[arg-type]  # loaded with its draws


@pytest.mark.parametrize("case", [by_cost(case, repr(case) in DAILY_MODELS) for case in CHOSEN])
def test_fits_of_all_engines_compare(case: ModelCase) -> None:
    fits = {}
    for name in ("EM", "SVI-pyro", "ImportanceSampling-numpyro", "NUTS-numpyro"):
        if ENGINES[name].unsupported(case.make(), case.data) is None:
            fits[name] = lvm.fit(case.make(), case.data, ENGINES[name])
    assert {"SVI-pyro", "NUTS-numpyro"} <= set(fits)
    comparison = lvm.compare(fits, reference="NUTS-numpyro")
    assert set(comparison.verdicts) == set(fits)
    assert comparison.plot() is not None
