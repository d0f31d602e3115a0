"""Verdicts without a reference: what a fit says of itself, and what dispersed short chains say of it.

1. Some findings settle it: chains that do not move or do not agree, a run that failed or collapsed.
2. A quantity is held against the fit's own evidence, where that can be believed: chains by the Monte Carlo
   error of chains that agree; weighted draws with a good k-hat by theirs; a guide with a good k-hat by its
   importance-corrected mean and sd.
3. That evidence is local: it knows nothing of where the draws have not been. So the spot check's shift is
   added to it (:mod:`ppl_lvm.dispersed`).
4. The spot check's estimate, a rough reference, is held against points and independent or weighted draws.
   Where it is too rough to decide, it still must not contradict the fit's own evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.diagnostics import Finding, entry_label, khat, khat_limit, log_weights, psis, quantities
from ppl_lvm.dispersed import MOST_DIVERGENT, SpotResult
from ppl_lvm.findings import diagnose, pooled_error
from ppl_lvm.result import Fit
from ppl_lvm.verdicts import (
    MAX_BIAS,
    Gap,
    Verdict,
    errors_known,
    judged_as_reported,
    overall,
    quantity_verdict,
    widening,
)

if TYPE_CHECKING:
    import pandas as pd

_SETTLING = ("stuck", "status", "weights")
_DOUBTS = ("divergences", "bfmi", "nested_r_hat", "weights")
_ALLOWANCE = 0.25  # posterior sds, for what short chains that diverge may miss themselves


def judge_alone(fit: Fit, rows: pd.DataFrame, spot: SpotResult | None) -> tuple[Verdict, dict[str, Verdict]]:
    """The verdict on a fit without a reference, and on each of its quantities (``rows`` of the table)."""
    found = diagnose(fit)
    grave = next((f for f in found if f.level == "error" and _settles(f, fit)), None)
    if grave is not None:
        verdict = Verdict("do_not_trust", grave.check, grave.value, grave.sentence)
        return verdict, _each_of_chains(fit, rows, verdict)
    z = widening(len(rows))
    own = own_gaps(fit, rows)
    as_is = judged_as_reported(fit)
    outside = {str(q): spot_gap(row, spot, str(q), z, as_is) for q, row in rows.iterrows()}
    each, gaps, by_spot = {}, {}, False
    for q in map(str, rows.index):
        each[q], gaps[q], used = _weighed(q, own.get(q), outside[q], spot, z, fit, found)
        by_spot |= used
    against = " of the short chains" if by_spot else ""
    verdict = overall(each, gaps, against, fit.is_point)
    return verdict, _unmatched(fit, verdict, each)


def _unmatched(fit: Fit, verdict: Verdict, each: dict[str, Verdict]) -> dict[str, Verdict]:
    """A point or guide that lies off the posterior may be matched with the short chains' labels in more than
    one way, draw by draw, which also widens the sds that its errors are told in.

    So its labelled quantities are trusted only where the fit as a whole is.
    """
    axes = fit.model.label_axes or {}
    chains = not fit.is_point and fit.posterior.attrs.get("draws") == "chain"
    if chains or verdict.level != "do_not_trust":
        return each
    why = f"its labels may be matched otherwise, for {verdict.quantity or 'another quantity'} is off"
    return {
        q: Verdict("inconclusive", q, v.value, why)
        if v.level in ("means_only", "means_and_spreads") and q.partition("[")[0] in axes
        else v
        for q, v in each.items()
    }


def _settles(finding: Finding, fit: Fit) -> bool:
    """Whether an alarming finding leaves nothing to ask.

    Chains that disagree do, where the spread of their means alone puts an error of half an sd on the mean of
    all; below that the error is what has to be judged.
    """
    if finding.check in ("r_hat", "nested_r_hat"):
        chains = fit.posterior.sizes["chain"]
        return not pooled_error(finding.value, chains) <= MAX_BIAS
    if finding.check == "divergences":
        return finding.value >= 0.5 * fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
    return finding.check in _SETTLING


def _each_of_chains(fit: Fit, rows: pd.DataFrame, verdict: Verdict) -> dict[str, Verdict]:
    """When R-hat condemns a fit, quantities on which its chains agree are not known to be wrong."""
    if verdict.quantity != "r_hat":
        return {str(q): verdict for q in rows.index}
    out, chains = {}, fit.posterior.sizes["chain"]
    for q, row in rows.iterrows():
        name, value = str(q), float(row.get("r_hat", math.nan))
        if not pooled_error(value, chains) <= MAX_BIAS:
            out[name] = Verdict(
                "do_not_trust", name, value, f"R-hat {value:.3f} for {name}: its chains disagree"
            )
        else:
            sentence = f"R-hat is {value:.3f} for {name}, but chains disagree on other quantities"
            out[name] = Verdict("inconclusive", name, value, sentence)
    return out


def _weighed(
    name: str,
    own: Gap | None,
    outside: tuple[Gap | None, Gap | None],
    spot: SpotResult | None,
    z: float,
    fit: Fit,
    found: list[Finding],
) -> tuple[Verdict, Gap, bool]:
    """One quantity: the fit's own evidence with the spot's shift, else the spot's estimate."""
    shift, estimate = outside
    unknown = Gap(math.nan, math.inf, math.inf)
    by_spot = (
        None
        if estimate is None
        else quantity_verdict(name, estimate, z, point=fit.is_point, why="short chains diverge")
    )
    if by_spot is not None and by_spot.level == "do_not_trust":
        return by_spot, estimate or unknown, True
    if own is None:
        if by_spot is None or estimate is None:
            return _no_evidence(name, spot, found), unknown, False
        return by_spot, estimate, True
    if estimate is not None and by_spot is not None and fit.posterior.attrs.get("draws") != "chain":
        if by_spot.level != "inconclusive":
            return by_spot, estimate, True
        if abs(estimate.bias - own.bias) > z * math.hypot(estimate.error, own.error):
            moved = spot is not None and shift is not None and abs(shift.bias) > z * shift.error
            sentence = (
                spot.finding.sentence
                if spot is not None and moved
                else (
                    f"its weights move the mean of {name} by {-own.bias:.2f} sds, short chains by "
                    f"{-estimate.bias:.2f}: one of them is wrong; run long chains"
                )
            )
            return Verdict("inconclusive", name, estimate.bias, sentence), estimate, True
    if shift is not None:
        total = Gap(
            own.bias + shift.bias,
            math.hypot(own.error, shift.error),
            math.inf,
            own.ratio,
            own.ratio_error,
            own.known,
        )
    else:
        total = own
    verdict = quantity_verdict(
        name, total, z, why="" if own.known else "its chains disagree, or have too few draws"
    )
    if verdict.level in ("means_and_spreads", "means_only"):
        doubt = _doubt(fit, spot, found)
        if doubt:
            return Verdict("inconclusive", name, verdict.value, doubt), total, False
    return verdict, total, False


def _doubt(fit: Fit, spot: SpotResult | None, found: list[Finding]) -> str:
    """What keeps good figures from being believed: warnings, or that nobody looked elsewhere."""
    for finding in found:
        if finding.level != "ok" and finding.check in _DOUBTS:
            return finding.sentence
    chains = fit.posterior.attrs.get("draws") == "chain"
    if chains and fit.posterior.sizes["chain"] < 2 and not _looked(spot):
        return "one chain cannot show whether it found the whole posterior"
    tempered = log_weights(fit) is None
    if chains or tempered or _looked(spot):
        return ""
    why = (
        spot.finding.sentence if spot is not None else "no spot check looked for modes that the guide dropped"
    )
    return f"its own figures are good, but {why}"


def _looked(spot: SpotResult | None) -> bool:
    return spot is not None and len(spot.table) > 0


def _no_evidence(name: str, spot: SpotResult | None, found: list[Finding]) -> Verdict:
    """Neither its own weights nor short chains can judge a quantity."""
    poor = next((f for f in found if f.check == "khat" and f.level == "error"), None)
    if poor is not None and not _looked(spot):
        return Verdict("do_not_trust", poor.check, poor.value, poor.sentence)
    if spot is None:
        return Verdict(
            "inconclusive", name, math.nan, "nothing to judge it by; name a reference, or spot_check=True"
        )
    return Verdict("inconclusive", name, math.nan, spot.finding.sentence)


# ---- a fit's own evidence ------------------------------------------------------------------------


def own_gaps(fit: Fit, rows: pd.DataFrame) -> dict[str, Gap]:
    """By quantity, how far the fit may be off where its draws have been; empty if it cannot tell."""
    if fit.is_point:
        return {}
    kind = fit.posterior.attrs.get("draws")
    if kind == "chain" or kind == "resampled":
        value = fit.status.details.get("khat") if kind == "resampled" else None
        size = fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
        if value is not None and not value < khat_limit(size):
            return {}
        return {str(q): _own_error(row) for q, row in rows.iterrows()}
    value = khat(fit)
    if value is None or not value < khat_limit(fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]):
        return {}
    return _corrected(fit)


def _own_error(row: Mapping[str, Any]) -> Gap:
    with np.errstate(all="ignore"):
        error = float(np.float64(row["mcse_mean"]) / row["sd"])
        ratio_error = float(np.float64(row["mcse_sd"]) / row["sd"])
    return Gap(0.0, error, math.inf, 1.0, ratio_error, errors_known(row))


def _corrected(fit: Fit) -> dict[str, Gap]:
    """A guide against its importance-corrected means and sds, with the weights' errors (delta method)."""
    log_w: Any = log_weights(fit)
    weights = np.exp(psis(np.where(np.isnan(log_w), -np.inf, log_w))[0])
    out = {}
    for var in quantities(fit).data_vars.values():
        x = var.transpose("chain", "draw", ...).values.reshape(-1, *var.shape[2:])
        w = weights.reshape((-1,) + (1,) * (x.ndim - 1))
        mean = (w * x).sum(0)
        square = (x - mean) ** 2
        sd = np.sqrt((w * square).sum(0))
        with np.errstate(all="ignore"):
            bias = (x.mean(0) - mean) / sd
            error = np.sqrt((w**2 * square).sum(0)) / sd
            ratio = x.std(0, ddof=1) / sd
            ratio_error = ratio * np.sqrt((w**2 * (square - sd**2) ** 2).sum(0)) / (2 * sd**2)
        for index in np.ndindex(bias.shape):
            noise = float(error[index])
            out[entry_label(var, index)] = Gap(
                float(bias[index]), noise, noise, float(ratio[index]), float(ratio_error[index])
            )
    return out


# ---- against the spot check ----------------------------------------------------------------------


def spot_gap(
    row: Mapping[str, Any], spot: SpotResult | None, name: str, z: float, as_is: bool
) -> tuple[Gap | None, Gap | None]:
    """(shift, estimate): what the spot check adds to a fit's own evidence, and what it says by itself.

    ``as_is``: the fit's own noise is part of its answer (:func:`ppl_lvm.verdicts.judged_as_reported`).
    """
    if spot is None or name not in spot.table.index:
        return None, None
    known = spot.table.loc[name]
    shift = None
    if math.isfinite(known["shift"]):
        shift = Gap(-float(known["shift"]), float(known["shift_error"]), math.inf)
    if not spot.seen or not math.isfinite(known["mean_error"]) or not known["sd"] > 0:
        return shift, None
    unit = float(known["sd"])
    noise = 0.0 if as_is else float(row.get("mcse_mean", 0.0))
    noise = noise if math.isfinite(noise) else 0.0
    error = math.hypot(noise, float(known["mean_error"])) / unit
    sd = float(row.get("sd", math.nan))
    ratio, relative = sd / unit, math.inf
    if sd > 0:
        relative = math.hypot(float(row["mcse_sd"]) / sd, float(known["sd_error"]) / unit)
    bias = (float(row["mean"]) - float(known["mean"])) / unit
    if spot.divergent > MOST_DIVERGENT:  # good enough to condemn, not to vouch
        return shift, Gap(bias, error, error + _ALLOWANCE / z, ratio, ratio * relative, False)
    return shift, Gap(bias, error, error, ratio, ratio * relative)


__all__ = ["judge_alone", "own_gaps", "spot_gap"]
