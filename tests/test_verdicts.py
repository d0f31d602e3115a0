"""The rules from numbers to verdicts, findings of damaged fits, and bad input in words."""

from __future__ import annotations

import dataclasses
import functools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from panel import case_named

import ppl_lvm as lvm
from ppl_lvm import NUTS, SVI, Outcome, Status
from ppl_lvm.result import Fit
from ppl_lvm.verdicts import Gap, Verdict, overall, quantity_verdict, widening
from ppl_lvm.verdicts_alone import _unmatched

LEVELS = ("means_and_spreads", "means_only", "do_not_trust", "inconclusive")
Y = np.array([0.4, -1.2, 0.7, 0.1])


def pair(y):
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(x.sum(), 1.0), obs=y)


@functools.cache
def chains() -> Fit:
    return lvm.fit(pair, {"y": Y}, NUTS(num_warmup=150, num_samples=200))


@functools.cache
def guide() -> Fit:
    return lvm.fit(pair, {"y": Y}, SVI(backend="numpyro", num_steps=400, window=50, num_draws=400))


def damaged(fit: Fit, **draws: Any) -> Fit:
    """A fit whose draws of x have been replaced."""
    old = fit.posterior
    new = old.assign({k: (old[k].dims, v) for k, v in draws.items()})
    new.attrs = dict(old.attrs)
    return dataclasses.replace(fit, draws=new)


def alone(fit: Fit) -> Verdict:
    return lvm.compare({"f": fit}, spot_check=False).verdicts["f"]


# ---- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "level"),
    [
        (Gap(0.1, 0.02, 0.02, 1.0, 0.02), "means_and_spreads"),
        (Gap(0.1, 0.02, 0.02, 0.5, 0.02), "means_only"),
        (Gap(0.1, 0.02, 0.02, 1.0, 0.2), "means_only"),  # the error does not exclude a wrong spread
        (Gap(-0.9, 0.02, 0.02, 1.0, 0.02), "do_not_trust"),
        (Gap(-0.9, 0.3, 0.3, 1.0, 0.02), "inconclusive"),
        (Gap(0.45, 0.05, 0.05, 1.0, 0.02), "inconclusive"),
        (Gap(0.1, 0.02, 0.02, 1.0, 0.02, known=False), "inconclusive"),
        (Gap(0.9, math.inf, 0.02, 1.0, 0.02, known=False), "do_not_trust"),
        (Gap(0.1, 0.02, 0.02, 1.0, 0.02, known=False, disagreement=0.7), "do_not_trust"),
        (Gap(math.nan, 0.02, 0.02), "inconclusive"),
        (Gap(0.1, math.nan, 0.02), "inconclusive"),
        (Gap(0.1, 0.02, 0.02, math.nan, math.nan), "means_only"),
    ],
)
def test_one_quantity(gap: Gap, level: str) -> None:
    found = quantity_verdict("mu", gap, z=2.6)
    assert found.level == level
    assert "mu" in found.sentence


def test_a_point_has_no_spread_to_praise() -> None:
    found = quantity_verdict("mu", Gap(0.1, 0.02, 0.02, 1.0, 0.01), z=2.6, point=True)
    assert found.level == "means_only"


def test_the_worst_quantity_decides() -> None:
    gaps = {"a": Gap(0.0, 0.01, 0.01, 1.0, 0.01), "b": Gap(0.3, 0.01, 0.01, 0.4, 0.01)}
    each = {q: quantity_verdict(q, g, 2.8) for q, g in gaps.items()}
    found = overall(each, gaps, "", False)
    assert (found.level, found.quantity) == ("means_only", "b")
    assert "within 0.30 posterior sds" in found.sentence
    nothing = overall({}, {}, "", False)
    assert nothing.level == "inconclusive"


def test_errors_are_widened_so_that_one_in_a_hundred_fits_is_misjudged() -> None:
    """With errors of half a limit's distance: the chance that any of 20 quantities looks within bounds."""
    rng = np.random.default_rng(0)
    z = widening(20)
    noise = np.abs(rng.standard_normal((20_000, 20))).max(1)
    wrong = (noise > z).mean()
    assert abs(wrong - 0.01) < 4 * math.sqrt(0.01 / 20_000)


# ---- damaged fits --------------------------------------------------------------------------------


def test_findings_of_good_chains_are_ok() -> None:
    found = {f.check: f for f in chains().diagnose()}
    assert {"r_hat", "ess", "bfmi"} <= set(found)
    assert found["bfmi"].level == "ok"
    assert found["bfmi"].value > 0.3


def test_a_stuck_chain_is_named() -> None:
    x = chains().posterior["x"].values.copy()
    x[2] = 7.0
    bad = damaged(chains(), x=x)
    first = bad.diagnose()[0]
    assert (first.level, first.check) == ("error", "stuck")
    assert "chain 2" in first.sentence
    assert alone(bad).level == "do_not_trust"


def test_the_chain_that_lies_apart_is_named() -> None:
    x = chains().posterior["x"].values.copy()
    x[1, :, 0] += 30.0
    found = next(f for f in damaged(chains(), x=x).diagnose() if f.check == "r_hat")
    assert found.level == "error"
    assert "worst for x[0], where chain 1" in found.sentence
    assert alone(damaged(chains(), x=x)).level == "do_not_trust"


def test_slow_energies_are_a_doubt() -> None:
    stats: Any = chains().sample_stats
    slow = np.cumsum(np.random.default_rng(0).standard_normal(stats["energy"].shape), axis=1)
    bad = dataclasses.replace(chains(), sample_stats=stats.assign(energy=(stats["energy"].dims, slow)))
    found = next(f for f in bad.diagnose() if f.check == "bfmi")
    assert found.level == "warning"
    assert alone(bad).level == "inconclusive"


def test_all_divergent_chains_are_not_trusted() -> None:
    size = chains().posterior.sizes
    total = float(size["chain"] * size["draw"])
    bad = dataclasses.replace(chains(), status=Status(Outcome.DIVERGENT, {"divergences": total}))
    assert alone(bad).level == "do_not_trust"
    assert "all of them" in alone(bad).sentence
    reference = lvm.compare({"f": guide(), "ref": bad}, reference="ref").verdicts["f"]
    assert reference.level == "inconclusive"
    assert "not good enough" in reference.sentence


def test_many_short_chains_are_judged_by_nested_r_hat() -> None:
    engine = NUTS(num_warmup=150, num_samples=200, num_chains=16, num_starts=4)
    fit = lvm.fit(pair, {"y": Y}, engine)
    found = {f.check: f for f in fit.diagnose()}
    assert "r_hat" not in found
    assert found["nested_r_hat"].value < 1.1
    away = np.linspace(-3, 3, 4)[np.arange(16) % 4].reshape(-1, 1, 1)
    x = fit.posterior["x"].values + away
    worse = next(f for f in damaged(fit, x=x).diagnose() if f.check == "nested_r_hat")
    assert worse.level == "error"
    with pytest.raises(ValueError, match=r"^num_starts: expected a divisor of num_chains \(4\)"):
        NUTS(num_starts=3)


@pytest.mark.parametrize("which", ["chains", "guide"])
@pytest.mark.parametrize("fault", ["one draw", "constant", "two draws"])
@pytest.mark.parametrize("against", [False, True])
def test_odd_draws_get_a_verdict_in_words(which: str, fault: str, against: bool) -> None:
    fit = chains() if which == "chains" else guide()
    if fault == "constant":
        bad = damaged(fit, x=np.ones_like(fit.posterior["x"].values))
    else:
        size = 1 if fault == "one draw" else 2
        stats: Any = fit.sample_stats
        few = fit.posterior.isel(draw=slice(size))
        few.attrs = dict(fit.posterior.attrs)
        bad = dataclasses.replace(fit, draws=few, sample_stats=stats.isel(draw=slice(size)))
    if against:
        found = lvm.compare({"f": bad, "ref": chains()}, reference="ref").verdicts["f"]
    else:
        found = alone(bad)
    assert found.level in ("do_not_trust", "inconclusive")
    assert len(found.sentence) > 20
    assert all(f.sentence for f in bad.diagnose())


@pytest.mark.parametrize(("share", "level"), [(0.02, "warning"), (0.7, "error"), (1.0, "error")])
def test_log_weights_that_are_not_finite(share: float, level: str) -> None:
    stats: Any = guide().sample_stats
    log_p = stats["log_p"].values.copy()
    log_p[0, : int(share * log_p.shape[1])] = np.nan
    bad = dataclasses.replace(guide(), sample_stats=stats.assign(log_p=(stats["log_p"].dims, log_p)))
    found = next(f for f in bad.diagnose() if f.check == "weights")
    assert found.level == level
    verdict = alone(bad)
    assert verdict.level == ("do_not_trust" if level == "error" else verdict.level)
    assert verdict.level not in ("means_and_spreads", "means_only")


def test_weights_on_one_draw_are_not_trusted() -> None:
    """Draws of the prior, of which one is near the posterior: all resampled draws are that one."""
    engine = lvm.ImportanceSampling(num_samples=60, backend="numpyro")
    fit = lvm.fit(pair, {"y": 50.0 + np.zeros(4)}, engine)
    assert fit.status.details["ess"] < 4
    assert alone(fit).level == "do_not_trust"
    assert "draws, whose noise" in alone(fit).sentence


def test_a_fit_of_a_reference_that_is_one_draw() -> None:
    few = chains().posterior.isel(draw=slice(1))
    few.attrs = dict(chains().posterior.attrs)
    stats: Any = chains().sample_stats
    bad = dataclasses.replace(chains(), draws=few, sample_stats=stats.isel(draw=slice(1)))
    found = lvm.compare({"f": guide(), "ref": bad}, reference="ref").verdicts["f"]
    assert found.level == "inconclusive"


def test_verdicts_by_quantity_are_in_the_table() -> None:
    result = lvm.compare({"vi": guide(), "nuts": chains()}, reference="nuts")
    for name in ("vi", "nuts"):
        assert set(result.table.loc[name].index) == set(result.quantity_verdicts[name])
        for quantity, verdict in result.quantity_verdicts[name].items():
            assert result.table.loc[(name, quantity), "verdict"] == verdict.level in LEVELS
    # y sees the sum alone: a product of normals has half the sd or less of each of the two
    assert result.verdicts["vi"].level in ("means_only", "inconclusive")


def test_a_hopeless_weight_is_no_good_khat() -> None:
    """Log weights of -1e5 and more: all but one underflow, which arviz-stats takes for a short tail."""
    from ppl_lvm.diagnostics import psis

    smoothed, value = psis(-1e5 * np.random.default_rng(0).chisquare(3, size=500))
    assert value == math.inf
    assert np.exp(smoothed).sum() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("kind", ["point", "independent", "resampled", "chain"])
def test_labels_of_a_fit_that_is_off_may_be_matched_otherwise(kind: str) -> None:
    """Chains have labels of their own; draws of a guide, and points, were matched with those of others."""
    fit: Any = SimpleNamespace(
        model=SimpleNamespace(label_axes={"rate": 0}),
        is_point=kind == "point",
        posterior=SimpleNamespace(attrs={"draws": kind}),
    )
    bad = Verdict("do_not_trust", "rate[0]", 1.7, "off")
    each = {"rate[0]": bad, "rate[1]": Verdict("means_only", "rate[1]", 0.1, "near")}
    each["mean"] = Verdict("means_only", "mean", 0.1, "near")
    found = {q: v.level for q, v in _unmatched(fit, bad, each).items()}
    trusted = "means_only" if kind == "chain" else "inconclusive"
    assert found == {"rate[0]": "do_not_trust", "rate[1]": trusted, "mean": "means_only"}
    fine = Verdict("means_only", "mean", 0.1, "near")
    assert _unmatched(fit, fine, each) == each


def test_the_reported_mean_of_many_independent_draws_is_what_is_judged() -> None:
    """Draws moved so that their mean is 0.45 sds off a reference of 4000: 2.6 of its errors are 0.04."""
    reference = case_named("correlated normal, mean field").target.reference(0)
    x, axes = reference.draws["x"], ("chain", "draw")
    levels = []
    for count in (60, 200):
        few = x.isel(draw=slice(count))
        moved = few - few.mean(axes) + x.mean(axes) + 0.45 * x.std(axes)
        fit = dataclasses.replace(
            reference, draws=reference.draws.isel(draw=slice(count)).assign(x=moved), sample_stats=None
        )
        levels.append(lvm.compare({"f": fit, "ref": reference}, reference="ref").verdicts["f"].level)
    assert levels[0] == "inconclusive"  # so few draws could say something else
    assert levels[1] in ("means_only", "means_and_spreads")
