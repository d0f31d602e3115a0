"""From a comparison's numbers to a verdict on each quantity and each fit.

The rules are in :mod:`ppl_lvm.comparison`; this module has those with a reference, and those that both share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppl_lvm.diagnostics import khat_limit
from ppl_lvm.findings import FAIR_R_HAT, LEAST_ESS, diagnose, pooled_error
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

Level = Literal["means_and_spreads", "means_only", "do_not_trust", "inconclusive"]
MAX_BIAS = 0.5
MAX_LOG_RATIO = math.log(4 / 3)
_CHANCE = 0.01  # of all of a fit's quantities together
_MANY_DRAWS = 100  # whose mean has an error of a tenth of an sd
_WORST_FIRST: tuple[Level, ...] = ("do_not_trust", "inconclusive", "means_only", "means_and_spreads")


@dataclass(frozen=True)
class Verdict:
    """What may be read from a fit, the quantity that decided it, its figure, and a sentence."""

    level: Level
    quantity: str
    value: float
    sentence: str

    def __str__(self) -> str:
        return f"{self.level}: {self.sentence}"


@dataclass(frozen=True)
class Gap:
    """How far a fit's quantity is from what it is held against, in its sds, with errors that hold the noise
    of both sides. ``sure_error`` is that of the other side alone: what is left if the fit's own noise is
    taken as part of its answer. ``ratio`` is NaN for points. ``known`` says whether the fit's own noise can
    be told; ``disagreement`` is what the spread of its chains' means alone puts on the mean of all, in
    sds."""

    bias: float
    error: float
    sure_error: float
    ratio: float = math.nan
    ratio_error: float = math.nan
    known: bool = True
    disagreement: float = 0.0


def judge(
    name: str, fit: Fit, table: pd.DataFrame, reference: str, trouble: str
) -> tuple[Verdict, dict[str, Verdict]]:
    """The verdict on a fit against a reference, and on each of its quantities.

    ``trouble`` says why the reference is not good enough, or is empty.
    """
    rows = table.loc[name]
    if trouble:
        sentence = f"the reference {reference!r} is not good enough: {trouble}"
        verdict = Verdict("inconclusive", "", math.nan, sentence)
        return verdict, {str(q): verdict for q in rows.index}
    base = table.loc[reference]
    z = widening(len(rows))
    reason = _weights_trouble(fit)
    chains = 1 if fit.is_point else fit.posterior.sizes["chain"]
    as_is = judged_as_reported(fit)
    gaps = {str(q): _gap(row, base.loc[q], reason, chains, as_is) for q, row in rows.iterrows()}
    each = {q: quantity_verdict(q, gap, z, point=fit.is_point, why=reason) for q, gap in gaps.items()}
    return overall(each, gaps, " of the reference", fit.is_point), each


def widening(count: int) -> float:
    """Standard errors that a figure is widened by: 1 % for ``count`` quantities together (Bonferroni).

    To condemn a fit, one quantity of many has to be off, so that the count matters. To trust it, every one
    has to be within bounds, and for the one that is not to pass, a single test has to err: there it is 1.
    """
    from scipy.stats import norm

    return float(norm.isf(0.5 * _CHANCE / max(count, 1)))


def reference_trouble(fit: Fit, rows: pd.DataFrame) -> str:
    """Why a fit is not good enough to hold others against; empty if it is."""
    if len(rows) == 0:
        return "none of its quantities varies"
    if "r_hat" in rows and (rows["r_hat"] > FAIR_R_HAT).any():
        return f"R-hat {rows['r_hat'].max():.3f} for {rows['r_hat'].idxmax()}; run longer chains"
    if (rows["ess"] < LEAST_ESS).any():
        return f"effective size {rows['ess'].min():.0f} for {rows['ess'].idxmin()}; run longer chains"
    grave = [f for f in diagnose(fit) if f.level == "error" and f.check in ("stuck", "divergences", "status")]
    if grave:
        return grave[0].sentence
    limit = khat_limit(fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"])
    if fit.posterior.attrs.get("draws") == "resampled" and (rows["khat"] > limit).any():
        return f"k-hat {rows['khat'].max():.2f}, so that its own errors cannot be told; fit a better proposal"
    return ""


def _weights_trouble(fit: Fit) -> str:
    """Why the errors of weighted draws cannot be told: weights without a variance."""
    if fit.is_point or fit.posterior.attrs.get("draws") != "resampled":
        return ""
    value = fit.status.details.get("khat")
    size = fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
    return f"its k-hat is {value:.2f}" if value is not None and not value < khat_limit(size) else ""


def judged_as_reported(fit: Fit) -> bool:
    """Whether the reported mean itself is held to the truth, whatever part of its error is the fit's noise.

    So it is for independent draws of a guide, enough of them that another sample would say the same. Chains,
    weighted draws and fewer draws could say something else if they went on: there the noise is a doubt.
    """
    if fit.is_point:
        return True
    sizes = fit.posterior.sizes
    return fit.posterior.attrs.get("draws") == "independent" and sizes["chain"] * sizes["draw"] >= _MANY_DRAWS


def _gap(row: pd.Series, base: pd.Series, reason: str, chains: int, as_is: bool) -> Gap:
    with np.errstate(all="ignore"):
        alone = float(base["mcse_mean"] / base["sd"])
    ratio, ratio_error = float(row.get("sd_ratio", math.nan)), float(row.get("sd_ratio_error", math.nan))
    known = not reason and errors_known(row)
    return Gap(
        float(row["bias"]),
        alone if as_is else float(row["bias_error"]),
        alone,
        ratio,
        ratio_error,
        known,
        disagreement(row, chains),
    )


def disagreement(row: Mapping[str, Any], chains: int) -> float:
    r_hat = float(row.get("r_hat", math.nan))
    return pooled_error(r_hat, chains) if math.isfinite(r_hat) else 0.0


def errors_known(row: Mapping[str, Any]) -> bool:
    """Whether a quantity's Monte Carlo error can be believed: chains that agree, and draws enough to tell."""
    r_hat, ess = row.get("r_hat", math.nan), row.get("ess", math.nan)
    return not r_hat > FAIR_R_HAT and not ess < LEAST_ESS


def quantity_verdict(name: str, gap: Gap, z: float, *, point: bool = False, why: str = "") -> Verdict:
    """One quantity by the rules: sure of a bias, unable to exclude one, spreads, and what is left.

    ``z`` standard errors have to leave a bias for a quantity to be condemned.
    """
    size = abs(gap.bias)
    what = "the point is" if point else "the mean is"
    error = gap.error if gap.known else gap.sure_error
    if not (math.isfinite(gap.bias) and math.isfinite(error)):
        sentence = f"the Monte Carlo error of {name} cannot be told{f' ({why})' if why else ''}; draw more"
        return Verdict("inconclusive", name, math.nan, sentence)
    if size - z * error > MAX_BIAS:
        sentence = f"{what} {size:.2f} posterior sds off for {name} (more than {MAX_BIAS})"
        return Verdict("do_not_trust", name, gap.bias, sentence)
    if gap.disagreement > MAX_BIAS:
        sentence = f"chains differ so much in {name} that their mean may be {gap.disagreement:.2f} sds off"
        return Verdict("do_not_trust", name, gap.bias, sentence)
    if not gap.known:
        reason = why or "its chains disagree, or have too few draws"
        sentence = f"{what} {size:.2f} sds off for {name}, but {reason}, so that its error cannot be told"
        return Verdict("inconclusive", name, gap.bias, sentence)
    one = widening(1)
    if size + one * error > MAX_BIAS:
        sentence = (
            f"{what} {size:.2f} +- {error:.2f} posterior sds off for {name}, which leaves more than "
            f"{MAX_BIAS} possible; draw more"
        )
        return Verdict("inconclusive", name, gap.bias, sentence)
    if point:
        return Verdict(
            "means_only", name, gap.bias, f"a point, {size:.2f} posterior sds from the mean of {name}"
        )
    return _spread(name, gap, one)


def _spread(name: str, gap: Gap, z: float) -> Verdict:
    with np.errstate(all="ignore"):
        reach = abs(np.log(gap.ratio)) + z * gap.ratio_error / gap.ratio
    mean = f"the mean of {name} is {abs(gap.bias):.2f} posterior sds off"
    if not reach <= MAX_LOG_RATIO:
        return Verdict("means_only", name, gap.ratio, f"{mean}, but {spread_words(name, gap)}")
    return Verdict("means_and_spreads", name, gap.ratio, f"{mean}, and {spread_words(name, gap)}")


def spread_words(name: str, gap: Gap) -> str:
    return f"the sd of {name} is {gap.ratio:.2f} +- {gap.ratio_error:.2f} of what it should be"


def overall(each: Mapping[str, Verdict], gaps: Mapping[str, Gap], against: str, point: bool) -> Verdict:
    """The verdict on a fit: that of its worst quantity, in a sentence about all of them."""
    if not each:
        sentence = "no quantity varies in these draws, so that nothing can be judged; draw more"
        return Verdict("inconclusive", "", math.nan, sentence)
    level = next(n for n in _WORST_FIRST if any(v.level == n for v in each.values()))
    found = [v for v in each.values() if v.level == level]
    if level in ("do_not_trust", "inconclusive"):
        return max(found, key=lambda v: abs(v.value) if math.isfinite(v.value) else math.inf)
    bias = max(abs(g.bias) for g in gaps.values())
    means = f"within {bias:.2f} posterior sds of every mean{against}"
    if point:
        worst = max(found, key=lambda v: abs(v.value))
        return Verdict("means_only", worst.quantity, worst.value, f"a point, {means}; it has no spread")
    worst = max(found, key=lambda v: abs(math.log(v.value)) if v.value > 0 else math.inf)
    words = spread_words(worst.quantity, gaps[worst.quantity])
    if level == "means_only":
        return Verdict(level, worst.quantity, worst.value, f"{means}, but {words}")
    sentence = f"{means}, and every sd ratio between 3/4 and 4/3 (worst {worst.quantity}: {worst.value:.2f})"
    return Verdict(level, worst.quantity, worst.value, sentence)


__all__ = [
    "MAX_BIAS",
    "MAX_LOG_RATIO",
    "Gap",
    "Level",
    "Verdict",
    "disagreement",
    "errors_known",
    "judge",
    "judged_as_reported",
    "overall",
    "quantity_verdict",
    "reference_trouble",
    "spread_words",
    "widening",
]
