"""A comparison's tables as text: nothing is computed that a fit has not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ppl_lvm.comparison import MAX_BIAS, MAX_LOG_RATIO, Comparison
from ppl_lvm.core import Evidence
from ppl_lvm.effort import effort_of
from ppl_lvm.evidence import EvidenceLadder

# Column of the table -> (heading, what it is).
COLUMNS = {
    "mean": ("mean", "posterior mean, or the point's value"),
    "sd": ("sd", "posterior standard deviation"),
    "bias": ("bias", "difference of means, in posterior sds of the reference"),
    "bias_error": ("± bias", "Monte Carlo standard error of the bias"),
    "sd_ratio": ("sd ratio", "sd divided by the reference's"),
    "sd_ratio_error": ("± ratio", "Monte Carlo standard error of the ratio"),
    "w1": ("W1", "1-Wasserstein distance of the draws from the reference's, in its sds"),
    "w1_noise": ("W1 noise", "what W1 would be between two samples of these sizes from one distribution"),
    "q05_shift": ("5 %", "difference of the 5 % quantiles, in posterior sds of the reference"),
    "q05_error": ("± 5 %", "Monte Carlo standard error of that difference"),
    "q95_shift": ("95 %", "difference of the 95 % quantiles, in posterior sds of the reference"),
    "q95_error": ("± 95 %", "Monte Carlo standard error of that difference"),
    "kl_to": ("KL to", "divergence from the reference over 20 bins, nats; a lower bound"),
    "kl_to_error": ("± KL to", "Monte Carlo standard error of that divergence"),
    "kl_from": ("KL from", "the same the other way round: large where the fit lacks mass"),
    "kl_from_error": ("± KL from", "Monte Carlo standard error of that divergence"),
    "mcse_mean": ("± mean", "Monte Carlo standard error of the mean"),
    "mcse_sd": ("± sd", "Monte Carlo standard error of the sd"),
    "ess": ("ESS", "effective number of independent draws"),
    "r_hat": ("R-hat", "convergence of chains: good up to 1.01"),
    "khat": ("k-hat", "tail of the importance weights: good below 0.7"),
}
OVERVIEW = {
    "engine": "engine",
    "backend": "backend",
    "status": "status",
    "draws": "draws",
    "seconds": "seconds",
    "gradients": "gradients",
    "log_densities": "densities",
    "min_ess": "smallest ESS",
    "min_ess_per_s": "ESS/s",
    "khat": "k\u2011hat",  # does not break
    "log_evidence": "log evidence",
    "log_likelihood": "log likelihood",
}
KINDS = {
    "exact": "the value itself",
    "lower_bound": "the log evidence is at least this",
    "upper_bound": "the log evidence is at most this",
    "estimate": "an estimate; its logarithm is biased downwards while the error is large",
}
SIGNS = {"exact": "=", "lower_bound": "≥", "upper_bound": "≤", "estimate": "≈"}


@dataclass(frozen=True)
class Cell:
    """A table's entry: what is shown, what it is sorted by, whether it is a number, and beyond a limit."""

    text: str
    key: str
    is_number: bool = True
    beyond: bool = False


# ---- numbers as text -----------------------------------------------------------------------------


def show(value: Any, digits: int = 3) -> str:
    """A number with a few significant digits and a proper minus; a dash for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return str(int(value)).replace("-", "−")
    number = float(value)
    if not math.isfinite(number):
        return "∞" if number > 0 else "−∞"
    places = max(0, digits - 1 - math.floor(math.log10(abs(number)))) if number else digits - 1
    text = f"{number:.{places}f}" if places <= 7 and abs(number) < 1e7 else f"{number:.{digits - 1}e}"
    return text.replace("-", "−")


def cell(value: Any, *, beyond: bool = False, digits: int = 3, text: str = "") -> Cell:
    """A value as a table's entry."""
    if isinstance(value, str):
        return Cell(value.replace("_", " "), value, is_number=False)
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return Cell(text or show(value, digits), "" if missing else repr(float(value)), beyond=beyond)


# ---- tables --------------------------------------------------------------------------------------


def overview(comparison: Comparison) -> dict[str, Any]:
    frame = comparison.overview
    columns = [c for c in OVERVIEW if c in frame and not frame[c].isna().all()]
    rows = []
    for name, row in frame.iterrows():
        cells = [cell(None if _missing(row[c]) else row[c], digits=_digits(c, row[c])) for c in columns]
        found = comparison.fits[name].evidence
        if found is not None and "log_evidence" in columns:
            cells[columns.index("log_evidence")] = cell(row["log_evidence"], text=_value(found))
        if comparison.fits[name].is_point:
            cells[columns.index("draws")] = Cell("a point", "")
        rows.append((str(name), cells))
    partial = [n for n, f in comparison.fits.items() if not effort_of(f).with_warmup]
    return {"columns": [OVERVIEW[c] for c in columns], "rows": rows, "partial": ", ".join(partial)}


def _value(found: Evidence, *, error: bool = True) -> str:
    """The value with the sign of its kind, and its standard error."""
    text = f"{SIGNS[found.kind]} {found.nats:.2f}".replace("-", "−")
    return f"{text} ± {found.std_error:.2f}" if error and found.std_error else text


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _digits(column: str, value: Any) -> int:
    """Two decimals for values in nats, three significant digits elsewhere."""
    if column not in ("log_evidence", "log_likelihood") or _missing(value):
        return 3
    return 3 + max(0, math.floor(math.log10(max(abs(value), 1.0))))


def quantities(comparison: Comparison) -> dict[str, Any]:
    frame = comparison.table
    columns = [c for c in COLUMNS if c in frame and not frame[c].isna().all()]
    rows = []
    for (fit, quantity), row in frame.iterrows():
        numbers = [cell(float(row[c]), beyond=_beyond(c, row[c])) for c in columns]
        rows.append([Cell(str(fit), str(fit), False), Cell(str(quantity), str(quantity), False), *numbers])
    heads = [
        ("fit", "name of the fit", False),
        ("quantity", "site and entry, or an invariant of the model", False),
    ]
    return {"heads": heads + [(*COLUMNS[c], True) for c in columns], "rows": rows}


def _beyond(column: str, value: float) -> bool:
    if column == "bias":
        return abs(value) > MAX_BIAS
    return column == "sd_ratio" and value > 0 and abs(math.log(value)) > MAX_LOG_RATIO


def evidence(comparison: Comparison) -> list[dict[str, str]]:
    return [
        {
            "fit": name,
            "kind": fit.evidence.kind.replace("_", " "),
            "value": _value(fit.evidence, error=False),
            "error": f"{fit.evidence.std_error:.2f}",
            "given": ", ".join(fit.evidence.conditional_on) or "–",
            "meaning": KINDS[fit.evidence.kind] + (f" ({fit.evidence.note})" if fit.evidence.note else ""),
        }
        for name, fit in comparison.fits.items()
        if fit.evidence is not None
    ]


def rungs(ladder: EvidenceLadder) -> list[dict[str, str]]:
    """A ladder's rows; what is missing with its reason."""
    found = ladder.evidence
    return [
        {
            "name": str(name),
            "value": _value(found[str(name)], error=False) if str(name) in found else "–",
            "error": f"{found[str(name)].std_error:.2f}" if str(name) in found else "–",
            "seconds": show(float(row["seconds"])),
            "note": str(row["note"]),
        }
        for name, row in ladder.table.iterrows()
    ]


def points(comparison: Comparison) -> list[dict[str, str]]:
    return [
        {
            "fit": name,
            "log_likelihood": f"{fit.log_likelihood:.2f}".replace("-", "−"),
            "parameters": show(fit.num_parameters),
            "aic": f"{fit.aic:.1f}".replace("-", "−"),
            "bic": f"{fit.bic:.1f}".replace("-", "−") if fit.meta.get("num_data") else "–",
        }
        for name, fit in comparison.fits.items()
        if fit.log_likelihood is not None and fit.num_parameters is not None
    ]


__all__ = ["Cell", "cell", "evidence", "overview", "points", "quantities", "rungs", "show"]
