"""The truth panel (tests/panel): a fast part, and all of it against the limits that are claimed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from panel import CASES, FROZEN_ON, SCORED_ON, UNSEEN, case_named
from panel.case import Target
from panel.score import TRUSTING, Outcome, report, report_unseen, run_case, score
from panel.viabel import bounds

# Two models: most of the time is compilation, and cases of one model share theirs.
FAST = (
    "weakly correlated normal, mean field",
    "correlated normal, NUTS",
    "tiny mode, mean field",
    "far modes, mean field",
    "far modes, NUTS from one",
    "tiny mode, a stuck chain",
    "touching modes, NUTS",
    "far modes, prior weighed",
)

_TARGETS = [t for t in {c.target.name: c.target for c in UNSEEN}.values() if t.known != "long run"]


def test_the_panel_is_large_and_balanced() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 40
    assert not set(FROZEN_ON) & set(SCORED_ON)
    assert len(UNSEEN) >= 24
    assert not {case.name for case in UNSEEN} & set(names)
    assert not {case.target.name for case in UNSEEN} & {case.target.name for case in CASES}


@pytest.mark.parametrize("name", FAST)
def test_fast_part(name: str) -> None:
    for seed in range(2):
        found = run_case(case_named(name), seed)
        for way in ("alone", "against"):
            if found.bad:
                assert found.level(way) == "do_not_trust", (seed, way, found.words)
            else:
                assert found.level(way) in TRUSTING, (seed, way, found.words)


def test_the_score_counts_what_it_says() -> None:
    good = Outcome(
        "g",
        0,
        "varies",
        {"x": 0.1},
        {"x": 1.0},
        {"x": "means_only"},
        {"x": "inconclusive"},
        {},
        None,
        None,
        0,
    )
    bad = dataclasses.replace(good, errors={"x": 0.8})
    bias = dataclasses.replace(good, expected="do_not_trust", alone={"x": "do_not_trust"})
    assert score([good, bad, bias], "alone") == {
        "bad_runs": 2,
        "good_runs": 1,
        "sensitivity": 0.5,
        "specificity": 1.0,
        "false_alarms": 0.0,
        "inconclusive": 0.0,
        "exact_level_of_good": 0.0,
        "trusted_though_wrong": ["g, seed 0"],
    }
    assert score([good], "against")["inconclusive"] == 1.0


def test_viabels_bounds_hold_where_the_divergence_is_known() -> None:
    """A guide N(0, s^2) for N(0, 1): D_2 = log(s^2 / sqrt(2 s^2 - 1)); means agree, sds differ by s - 1."""
    fit = case_named("weakly correlated normal, mean field").fit(0)
    found = bounds(fit)
    assert found is not None
    assert found["sd_error"] > abs(1 - 0.95)
    assert found["mean_error"] > 0
    rng = np.random.default_rng(0)
    s = 1.1
    x = s * rng.standard_normal(1000)
    log_w = -0.5 * x**2 + 0.5 * (x / s) ** 2 + np.log(s)
    stats = fit.sample_stats
    assert stats is not None
    draws = fit.posterior.isel(draw=slice(1000))
    normal = dataclasses.replace(
        fit,
        draws=draws.assign(x=(draws["x"].dims, np.stack([x, x], 1)[None])),
        sample_stats=stats.isel(draw=slice(1000)).assign(
            log_p=(stats["log_p"].dims, log_w[None]), log_q=(stats["log_q"].dims, np.zeros((1, 1000)))
        ),
    )
    normal.posterior.attrs["draws"] = "independent"
    again = bounds(normal)
    assert again is not None
    # log_p here is a density up to no constant: ELBO = -KL(q || p), CUBO = D_2 / 2
    kl = 0.5 * (s**2 - 1) - np.log(s)
    expected = np.log(s**2 / np.sqrt(2 * s**2 - 1)) + 2 * kl
    assert again["divergence"] == pytest.approx(expected, abs=4 * 2 * float(log_w.std()) / np.sqrt(1000))


@pytest.mark.parametrize("target", _TARGETS, ids=lambda target: target.name)
def test_the_exact_draws_of_the_unseen_cases_have_their_moments(target: Target) -> None:
    """Two ways to the same posterior: closed form or quadrature, and direct draws of it."""
    truth, figures = target.truth(), target.reference(0).summary()
    size = 4000
    for q, (mean, sd) in truth.items():
        assert abs(figures.loc[q, "mean"] - mean) < 5 * sd / np.sqrt(size), q
        assert 0.8 < figures.loc[q, "sd"] / sd < 1.25, q  # heavy tails have noisy sds


@pytest.mark.slow
def test_the_panel_meets_its_limits() -> None:
    """Sensitivity and specificity on the half that no limit was set with; never trust where that is wrong."""
    found = report([run_case(case, seed) for case in CASES for seed in range(2)])
    for way in ("alone", "against"):
        _check(found["scored_on"][way], 0.9)
        assert found["all"][way]["trusted_though_wrong"] == [], found["all"][way]


@pytest.mark.slow
def test_unseen_cases() -> None:
    """No good run may be called bad, either."""
    found = report_unseen([run_case(case, 0) for case in UNSEEN])["all"]
    for way in ("alone", "against"):
        _check(found[way], 0.9)
        assert found[way]["false_alarms"] == 0, found[way]


def _check(scored: dict[str, Any], sensitivity: float) -> None:
    assert scored["sensitivity"] >= sensitivity, scored
    assert scored["specificity"] >= 0.8, scored
    assert scored["inconclusive"] <= 0.2, scored
    assert scored["trusted_though_wrong"] == [], scored
