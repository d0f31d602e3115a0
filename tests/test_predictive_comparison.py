"""Leave-one-out, held-out densities and predictive checks, against closed forms."""

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from scipy import stats

import ppl_lvm as lvm
from ppl_lvm import SVI
from ppl_lvm.comparison_checks import checks_table, replicated_columns
from ppl_lvm.comparison_predictive import predictive_table
from ppl_lvm.result import Fit, chain_dataset

Y = np.random.default_rng(5).normal(0.7, 1.0, 40)
NEW = np.random.default_rng(6).normal(0.7, 1.0, 25)


def normal_mean(y: Any) -> None:
    """mu ~ Normal(0, 2), y_i ~ Normal(mu, 1): everything is known in closed form."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("row", len(y)):
        pyro.sample("obs", dist.Normal(mu, 1.0), obs=y)


def posterior(y: np.ndarray) -> tuple[float, float]:
    precision = len(y) + 0.25
    return float(y.sum() / precision), precision**-0.5


@pytest.fixture(scope="module")
def template() -> Fit:
    return lvm.fit(normal_mean, Y, SVI(num_steps=20, window=10, num_draws=10))


def drawn(template: Fit, seed: int, num: int = 2000, shift: float = 0.0, narrow: float = 1.0) -> Fit:
    """Independent draws of the exact posterior (or of one that is off), as a fit."""
    import dataclasses

    mean, sd = posterior(Y)
    mu = np.random.default_rng(seed).normal(mean + shift * sd, narrow * sd, (1, num))
    draws = chain_dataset(template.problem, {"mu": mu}, kind="independent")
    return dataclasses.replace(template, draws=draws, sample_stats=None)


def test_held_out_densities_are_those_of_the_closed_form(template: Fit) -> None:
    mean, sd = posterior(Y)
    truth = stats.norm(mean, math.hypot(1.0, sd)).logpdf(NEW)
    table = predictive_table({"exact": drawn(template, 1, num=4000)}, None, NEW)
    row = table.loc["exact"]
    assert row["kind"] == "held-out"
    assert abs(row["elpd"] - truth.sum()) < 4 * row["mc_error"] < 0.2
    assert row["elpd_error"] == pytest.approx(math.sqrt(25) * truth.std(ddof=1), rel=0.02)


def test_leave_one_out_is_that_of_the_closed_form(template: Fit) -> None:
    truth = []
    for i in range(len(Y)):
        mean, sd = posterior(np.delete(Y, i))
        truth.append(stats.norm(mean, math.hypot(1.0, sd)).logpdf(Y[i]))
    row = predictive_table({"exact": drawn(template, 1, num=4000)}, None).loc["exact"]
    assert row["kind"] == "loo"
    assert row["bad_k"] == 0
    assert abs(row["elpd"] - sum(truth)) < 4 * row["mc_error"] < 0.2
    mean, sd = posterior(Y)
    learnt = stats.norm(mean, math.hypot(1.0, sd)).logpdf(Y).sum() - sum(truth)
    # the density at the rows themselves has an error of the same size, and shares its draws
    assert abs(row["p_loo"] - learnt) < 8 * row["mc_error"]


@pytest.mark.parametrize("data", [None, NEW], ids=["loo", "held-out"])
def test_monte_carlo_errors_are_the_spread_over_seeds(template: Fit, data: Any) -> None:
    rows = [predictive_table({"f": drawn(template, s, num=400)}, None, data).loc["f"] for s in range(60)]
    spread = np.std([r["elpd"] for r in rows], ddof=1)
    # sd of a standard deviation from 60 values: 9 %; 4 of these
    assert np.mean([r["mc_error"] for r in rows]) == pytest.approx(spread, rel=0.37)


def test_differences_are_paired_and_to_the_reference(template: Fit) -> None:
    fits = {"off": drawn(template, 2, shift=4.0), "exact": drawn(template, 1)}
    table = predictive_table(fits, "exact", NEW)
    assert table.attrs["against"] == "exact"
    assert table.loc["exact", ["diff", "diff_error"]].tolist() == [0.0, 0.0]
    scores = {n: f.log_predictive(NEW).pointwise for n, f in fits.items()}
    gap = scores["off"] - scores["exact"]
    assert table.loc["off", "diff"] == pytest.approx(gap.sum(), rel=1e-12)
    assert table.loc["off", "diff_error"] == pytest.approx(5 * gap.std(ddof=1), rel=1e-12)
    # far below what unpaired errors would give: both fits find the same rows hard
    assert table.loc["off", "diff_error"] < 0.7 * math.hypot(*table["elpd_error"])
    best = predictive_table(fits, None, NEW)
    assert best.attrs["against"] == ("exact" if gap.sum() < 0 else "off")


def test_a_shifted_posterior_predicts_worse(template: Fit) -> None:
    fits = {"off": drawn(template, 2, shift=8.0), "exact": drawn(template, 1)}
    row = predictive_table(fits, "exact").loc["off"]
    assert row["diff"] + 2 * row["diff_error"] < 0


def test_what_has_no_score_says_why(template: Fit) -> None:
    import dataclasses

    point = dataclasses.replace(template, draws=None, params={"mu": np.array(0.7)}, sample_stats=None)
    fits = {"point": point, "few": drawn(template, 1, num=20), "exact": drawn(template, 1)}
    table = predictive_table(fits, "point")
    assert "held-out" in table.loc["point", "note"]
    assert "too few" in table.loc["few", "note"]
    assert np.isnan(table.loc["point", "elpd"])
    assert table.attrs["against"] == "exact"  # the reference has no score
    held = predictive_table(fits, None, NEW)
    assert held.loc["point", "kind"] == "plug-in"
    assert held.loc["point", "mc_error"] == 0
    assert held.loc["point", "elpd"] == pytest.approx(stats.norm(0.7, 1).logpdf(NEW).sum(), rel=1e-12)
    nobody = predictive_table({"point": point}, None)
    assert nobody.attrs["against"] is None


def test_compare_takes_held_out_data_and_refuses_bad_ones(template: Fit) -> None:
    fits = {"exact": drawn(template, 1), "other": drawn(template, 2)}
    result = lvm.compare(fits, "exact", data=NEW)
    assert result.predictive.loc["other", "kind"] == "held-out"
    assert result.predictive is result.predictive  # computed once
    assert lvm.compare(fits, "exact").predictive.loc["other", "kind"] == "loo"
    with pytest.raises(ValueError, match="NaN"):
        lvm.compare(fits, "exact", data=np.array([np.nan, 1.0]))


# ---- checks --------------------------------------------------------------------------------------


def test_checks_are_those_of_the_closed_form(template: Fit) -> None:
    mean, sd = posterior(Y)
    table = checks_table({"exact": drawn(template, 1)}, num_draws=400).set_index("statistic")
    of_mean = stats.norm(mean, math.hypot(sd, len(Y) ** -0.5))
    assert abs(table.loc["mean", "p_value"] - of_mean.sf(Y.mean())) < 4 * table.loc["mean", "p_error"]
    assert table.loc["mean", "observed"] == pytest.approx(Y.mean())
    assert table.loc["mean", "replicated_sd"] == pytest.approx(of_mean.std(), rel=0.15)  # 4 of 3.5 %
    of_sd = stats.chi2(len(Y) - 1).sf(len(Y) * Y.var())
    assert abs(table.loc["sd", "p_value"] - of_sd) < 4 * table.loc["sd", "p_error"]


def test_a_wrong_fit_fails_its_check(template: Fit) -> None:
    table = checks_table({"off": drawn(template, 1, shift=40.0)}).set_index("statistic")
    assert table.loc["mean", "p_value"] + 4 * table.loc["mean", "p_error"] > 0.98


def test_missing_entries_are_missing_from_replicates_too() -> None:
    from ppl_lvm import EM, models

    rows = np.random.default_rng(0).normal(size=(30, 3))
    rows[:5, 1] = np.nan
    fit = lvm.fit(models.PPCA(1), rows, EM())
    columns = list(replicated_columns(fit, num_draws=7))
    assert [c.observed.shape for c in columns] == [(30,), (25,), (30,)]
    assert [c.replicated.shape for c in columns] == [(7, 30), (7, 25), (7, 30)]
    assert all(np.isfinite(c.observed).all() for c in columns)


def test_a_fit_without_data_is_noted(template: Fit) -> None:
    import dataclasses

    table = checks_table({"loaded": dataclasses.replace(drawn(template, 1), problem=None)})
    assert len(table) == 0
    assert "without its data" in table.attrs["notes"]["loaded"]
