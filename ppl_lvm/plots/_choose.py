"""Which quantities a picture shows, and their draws as scalar variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.comparison import MAX_BIAS, MAX_LOG_RATIO, Comparison
from ppl_lvm.diagnostics import entry_label, quantities
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

INTERVAL = 0.89
"""Probability of the equal-tailed intervals drawn: ArviZ's default."""


def split_label(label: str) -> tuple[str, str]:
    """Site and entry of a label: ``loc[0, petal length]`` -> ``("loc", "0, petal length")``."""
    site, bracket, entry = label.partition("[")
    return (site, entry[:-1]) if bracket and entry.endswith("]") else (label, "")


def check_limit(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}.")


def chosen(comparison: Comparison, asked: Sequence[str] | None, limit: int) -> tuple[list[str], str]:
    """Labels to show, in the table's order, and a phrase that says how they were chosen (may be empty).

    ``asked`` holds labels, or names of sites for all their entries. Where there are more than ``limit``,
    those stay on which some fit is furthest from the reference (in units of the verdicts' limits).

    Raises
    ------
    ValueError
        For quantities that the comparison does not have.
    """
    check_limit("max_quantities", limit)
    every = list(dict.fromkeys(str(q) for q in comparison.table.index.get_level_values("quantity")))
    names = every if asked is None else pick(every, asked)
    if len(names) <= limit:
        return names, ""
    if comparison.reference is None:
        return names[:limit], f"The first {limit} of {len(names)} quantities."
    worst = _distance(comparison.table).reindex(names).sort_values(ascending=False, kind="stable")
    kept = set(worst.index[:limit])
    return (
        [n for n in names if n in kept],
        f"Of {len(names)} quantities, the {limit} on which some fit differs most from the reference.",
    )


def least_settled(comparison: Comparison, limit: int) -> tuple[list[str], str]:
    """Labels of quantities with the smallest effective sizes in any fit, and a phrase that says so."""
    check_limit("max_quantities", limit)
    every = list(dict.fromkeys(str(q) for q in comparison.table.index.get_level_values("quantity")))
    if len(every) <= limit or "ess" not in comparison.table:
        return every[:limit], "" if len(every) <= limit else f"The first {limit} of {len(every)} quantities."
    sizes = comparison.table["ess"].groupby(level="quantity").min().reindex(every)
    kept = set(sizes.sort_values(kind="stable").index[:limit])
    note = f"Of {len(every)} quantities, the {limit} of smallest effective size."
    return [n for n in every if n in kept], note


def pick(every: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Labels of ``every`` that are asked for by themselves or by their site, in the order of ``every``."""
    if isinstance(asked, str):
        asked = [asked]
    sites = {split_label(name)[0] for name in every}
    unknown = [q for q in asked if q not in every and q not in sites]
    if unknown:
        raise ValueError(
            f"quantities: no {unknown}; there are {sorted(sites)}, and entries such as {every[-1]!r}."
        )
    return [n for n in every if n in asked or split_label(n)[0] in asked]


def _distance(table: pd.DataFrame) -> pd.Series:
    """By quantity: the largest bias or log sd ratio of any fit, in units of the verdicts' limits."""
    far = table["bias"].abs() / MAX_BIAS
    if "sd_ratio" in table:
        ratio = table["sd_ratio"].where(table["sd_ratio"] > 0)
        far = far.combine(ratio.map(lambda r: abs(math.log(r)) / MAX_LOG_RATIO), np.fmax)
    return far.fillna(0.0).groupby(level="quantity").max()


def comparison_columns(comparison: Comparison, name: str, labels: Sequence[str]) -> xr.Dataset:
    """One fit's aligned draws of these quantities, a scalar variable (chain, draw) for each label."""
    base = comparison.draws[comparison.reference or next(iter(comparison.draws))]
    draws = comparison.draws[name]
    return _scalars(draws, {k: v for k, v in _places(base).items() if k in labels and v[0] in draws}, labels)


def fit_columns(fit: Fit, asked: Sequence[str] | None, limit: int) -> tuple[xr.Dataset, str]:
    """One fit's own draws of quantities, and how they were chosen: of too many, those of largest R-hat."""
    check_limit("max_quantities", limit)
    summary = fit.summary()
    names = list(summary.index) if asked is None else pick(list(summary.index), asked)
    note = ""
    if len(names) > limit:
        by = summary.loc[names, "r_hat"] if "r_hat" in summary else summary.loc[names, "mean"] * 0
        kept = set(by.sort_values(ascending=False, kind="stable").index[:limit])
        note = f"Of {len(names)} quantities, the {limit} of largest R-hat."
        names = [n for n in names if n in kept]
    dataset = quantities(fit)
    return _scalars(dataset, _places(dataset), names), note


def _places(dataset: xr.Dataset) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Variable and index of every entry, by label."""
    return {
        entry_label(var, index): (str(name), index)
        for name, var in dataset.data_vars.items()
        for index in np.ndindex(*var.transpose("chain", "draw", ...).shape[2:])
    }


def _scalars(
    dataset: xr.Dataset, places: dict[str, tuple[str, tuple[int, ...]]], labels: Sequence[str]
) -> xr.Dataset:
    import xarray as xr

    found = {}
    for label in labels:
        if label in places:
            name, index = places[label]
            entry: Any = (slice(None), slice(None), *index)
            found[label] = (("chain", "draw"), dataset[name].transpose("chain", "draw", ...).values[entry])
    sizes = {d: np.arange(dataset.sizes[d]) for d in ("chain", "draw")}
    return xr.Dataset(found, coords=sizes)


__all__ = [
    "INTERVAL",
    "check_limit",
    "chosen",
    "comparison_columns",
    "fit_columns",
    "least_settled",
    "pick",
    "split_label",
]
