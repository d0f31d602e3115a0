"""Predictive comparison and checks as text."""

from __future__ import annotations

from typing import Any

from ppl_lvm.comparison import Comparison
from ppl_lvm.report._tables import Cell, cell

SCORES = {
    "elpd": ("log predictive density", "sum over rows of the log predictive density, nats"),
    "elpd_error": ("± over rows", "its standard error over rows"),
    "diff": ("difference", "to the fit named above, nats; negative is worse"),
    "diff_error": ("± difference", "standard error of the paired difference"),
    "mc_error": ("Monte Carlo error", "of the log predictive density, from the number of draws"),
    "p_loo": ("p_loo", "effective number of parameters"),
}
EXTREME = 0.025
"""p values below this, or above one minus it, are marked."""


def predictive(comparison: Comparison) -> dict[str, Any]:
    """A row per fit; a note where one has no score."""
    frame = comparison.predictive
    columns = [c for c in SCORES if not frame[c].isna().all()]
    rows, notes = [], []
    for name, row in frame.iterrows():
        if row["kind"]:
            cells = [cell(float(row[c])) for c in columns]
            rows.append((str(name), [Cell(row["kind"], row["kind"], False), *cells]))
        if row["note"]:
            notes.append((str(name), str(row["note"])))
    return {
        "heads": [("kind", "leave-one-out, held-out rows, or plug-in at a point", False)]
        + [(*SCORES[c], True) for c in columns],
        "rows": rows,
        "notes": notes,
        "against": frame.attrs.get("against"),
        "held_out": comparison.held_out is not None,
    }


def checks(comparison: Comparison) -> dict[str, Any]:
    """A row per statistic of the data, a column per fit with its p value."""
    frame = comparison.checks
    fits = list(dict.fromkeys(str(n) for n in frame.index))
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name, row in frame.iterrows():
        about = found.setdefault((row["site"], row["entry"], row["statistic"]), {})
        about["observed"] = row["observed"]
        about[f"fit {name}"] = row
    rows = []
    for (site, entry, statistic), about in found.items():
        label = f"{site}[{entry}]" if entry else site
        cells = [_p_value(about.get(f"fit {n}")) for n in fits]
        rows.append((label, statistic, cell(float(about["observed"])), cells))
    notes = [(str(k), str(v)) for k, v in frame.attrs.get("notes", {}).items()]
    return {"fits": fits, "rows": rows, "notes": notes, "extreme": EXTREME}


def _p_value(row: Any) -> Cell:
    if row is None:
        return Cell("–", "")
    p, error = float(row["p_value"]), float(row["p_error"])
    # beyond its Monte Carlo error, so that two hundred replicates do not raise an alarm by chance
    beyond = min(p, 1 - p) + 2 * error < EXTREME
    return Cell(f"{p:.3f}", repr(p), beyond=beyond)


__all__ = ["checks", "predictive"]
