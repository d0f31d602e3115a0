"""From a comparison's numbers to a verdict on each fit (the rules are in :mod:`ppl_lvm.comparison`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppl_lvm.diagnostics import diagnose, entry_label, psis, quantities
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

Level = Literal["means_and_spreads", "means_only", "do_not_trust", "inconclusive"]
MAX_BIAS = 0.5
MAX_LOG_RATIO = math.log(4 / 3)


@dataclass(frozen=True)
class Verdict:
    """What may be read from a fit, the quantity that decided it, its figure, and a sentence."""

    level: Level
    quantity: str
    value: float
    sentence: str

    def __str__(self) -> str:
        return f"{self.level}: {self.sentence}"


def judge(name: str, fit: Fit, table: pd.DataFrame, reference: str | None) -> Verdict:
    if reference is None or name == reference:
        return _judge_alone(fit)
    rows = table.loc[name]
    trouble = _reference_trouble(table.loc[reference])
    if trouble:
        return Verdict(
            "inconclusive", "", math.nan, f"the reference {reference!r} is not good enough: {trouble}"
        )
    return _judge_means(rows, fit)


def _z(count: int) -> float:
    from scipy.stats import norm

    return float(norm.isf(0.025 / max(count, 1)))


def _reference_trouble(rows: pd.DataFrame) -> str:
    if "r_hat" in rows and (rows["r_hat"] > 1.05).any():
        return f"R-hat {rows['r_hat'].max():.3f} for {rows['r_hat'].idxmax()}; run longer chains"
    if (rows["ess"] < 50).any():
        return f"effective size {rows['ess'].min():.0f} for {rows['ess'].idxmin()}; run longer chains"
    return ""


def _judge_means(rows: pd.DataFrame, fit: Fit) -> Verdict:
    z = _z(len(rows))
    size, error = rows["bias"].abs(), z * rows["bias_error"]
    sure, possible = size - error, size + error
    if not np.isfinite(possible).all():
        bad = str(possible.index[~np.isfinite(possible)][0])
        return Verdict(
            "inconclusive", bad, math.nan, f"the Monte Carlo error of {bad} cannot be told; draw more"
        )
    if (sure > MAX_BIAS).any():
        worst = str(sure.idxmax())
        value = float(rows["bias"][worst])
        what = "the point is" if fit.is_point else "the mean is"
        return Verdict(
            "do_not_trust",
            worst,
            value,
            f"{what} {abs(value):.2f} posterior sds off for {worst} (more than {MAX_BIAS})",
        )
    if (possible > MAX_BIAS).any():
        worst = str(possible.idxmax())
        value = float(rows["bias"][worst])
        return Verdict(
            "inconclusive",
            worst,
            value,
            f"the mean of {worst} is {abs(value):.2f} +- {float(rows['bias_error'][worst]):.2f} posterior "
            f"sds off, which leaves more than {MAX_BIAS} possible; draw more",
        )
    if fit.is_point:
        worst = str(size.idxmax())
        value = float(rows["bias"][worst])
        return Verdict(
            "means_only",
            worst,
            value,
            f"a point, within {abs(value):.2f} posterior sds of every mean; it has no spread",
        )
    return _judge_spreads(rows, z)


def _judge_spreads(rows: pd.DataFrame, z: float) -> Verdict:
    ratio = np.log(rows["sd_ratio"])
    possible = ratio.abs() + z * rows["sd_ratio_error"] / rows["sd_ratio"]
    worst = str(possible.idxmax())
    value, error = float(rows["sd_ratio"][worst]), float(rows["sd_ratio_error"][worst])
    bias = float(rows["bias"].abs().max())
    if (possible > MAX_LOG_RATIO).any():
        return Verdict(
            "means_only",
            worst,
            value,
            f"every mean is within {bias:.2f} posterior sds, but the sd of {worst} is {value:.2f} +- "
            f"{error:.2f} of the reference's",
        )
    return Verdict(
        "means_and_spreads",
        worst,
        value,
        f"every mean is within {bias:.2f} posterior sds, and every sd ratio between 3/4 and 4/3 "
        f"(worst {worst}: {value:.2f})",
    )


def _judge_alone(fit: Fit) -> Verdict:
    """What a fit can say of itself, without a reference."""
    if fit.is_point:
        return Verdict(
            "inconclusive", "", math.nan, "a point says nothing of the posterior; compare it with draws"
        )
    found = diagnose(fit)
    bad = [f for f in found if f.level == "error"]
    if bad:
        return Verdict("do_not_trust", bad[0].check, bad[0].value, bad[0].sentence)
    doubtful = [f for f in found if f.level == "warning"]
    if doubtful:
        return Verdict("inconclusive", doubtful[0].check, doubtful[0].value, doubtful[0].sentence)
    kind = fit.posterior.attrs.get("draws")
    if kind == "chain" and fit.posterior.sizes["chain"] < 2:
        return Verdict(
            "inconclusive", "r_hat", math.nan, "one chain cannot show whether it found the whole posterior"
        )
    if kind == "independent" and found:
        return _judge_corrected(fit)
    if not found:
        return Verdict(
            "inconclusive", "", math.nan, "nothing to judge it by; compare it with NUTS as reference"
        )
    return Verdict("means_and_spreads", found[0].check, found[0].value, "; ".join(f.sentence for f in found))


def _judge_corrected(fit: Fit) -> Verdict:
    """A guide against its own importance-corrected means and spreads (valid while k-hat is good)."""
    stats: Any = fit.sample_stats
    weights = np.exp(psis((stats["log_p"] - stats["log_q"]).values.reshape(-1))[0])
    worst, value, error = "", 0.0, 0.0
    for var in quantities(fit).data_vars.values():
        x = var.transpose("chain", "draw", ...).values.reshape(-1, *var.shape[2:])
        w = weights.reshape((-1,) + (1,) * (x.ndim - 1))
        mean = (w * x).sum(0)
        sd = np.sqrt((w * (x - mean) ** 2).sum(0))
        noise = np.sqrt((w**2 * (x - mean) ** 2).sum(0))
        with np.errstate(all="ignore"):
            varies = sd > 1e-9 * np.abs(mean)  # structural constants have no bias
            bias = np.where(varies, (x.mean(0) - mean) / sd, 0.0)
            unsure = np.where(varies, noise / sd, 0.0)
        at = np.unravel_index(np.argmax(np.abs(bias)), bias.shape)
        if abs(bias[at]) > abs(value):
            worst, value, error = (
                entry_label(var, tuple(int(i) for i in at)),
                float(bias[at]),
                float(unsure[at]),
            )
    if abs(value) - 3 * error > MAX_BIAS:
        return Verdict(
            "do_not_trust",
            worst,
            value,
            f"importance weights move the mean of {worst} by {abs(value):.2f} sds",
        )
    if abs(value) + 3 * error > MAX_BIAS:
        return Verdict(
            "inconclusive",
            worst,
            value,
            f"importance weights may move the mean of {worst} by {abs(value):.2f} sds",
        )
    return Verdict(
        "means_only",
        worst,
        value,
        f"importance weights move no mean by more than {abs(value):.2f} sds; no reference checked for "
        "dropped modes",
    )
