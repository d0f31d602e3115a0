"""Posterior predictive checks of every fit: simple statistics of replicated data beside those of the data.

A check is of the model as this fit has it: all fits failing one is a sign that the model does not suit the
data, one of them failing alone that the fit does not suit the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.predictive import observed_values, problem_at, sample_predictive
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd

STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "sd": np.std,
    "least": np.min,
    "greatest": np.max,
}
MOST_COLUMNS = 12
COLUMNS = ("site", "entry", "statistic", "observed", "replicated", "replicated_sd", "p_value", "p_error")


@dataclass(frozen=True)
class Column:
    """One column of an observed site: the values that are there (n,), and replicates of them (s, n)."""

    site: str
    entry: str
    observed: np.ndarray
    replicated: np.ndarray

    @property
    def label(self) -> str:
        return f"{self.site}[{self.entry}]" if self.entry else self.site


def checks_table(fits: Mapping[str, Fit], *, num_draws: int = 200, seed: int = 0) -> pd.DataFrame:
    """A row per (fit, statistic) of the observed data: T(x), mean and sd of T(x_rep), and the p value.

    Sites with at most twelve features are looked at feature by feature, others as a whole. ``p_value`` is
    P(T(x_rep) >= T(x)), ties counted half (Gelman, Meng and Stern 1996, Statistica Sinica 6), and ``p_error``
    its Monte Carlo standard error. ``attrs["notes"]`` says why a fit has no rows.
    """
    import pandas as pd

    rows: list[tuple[Any, ...]] = []
    notes: dict[str, str] = {}
    for name, fit in fits.items():
        try:
            rows += [(name, *row) for row in _rows(fit, num_draws, seed)]
        except ValueError as reason:  # in words: loaded without data, or nothing to simulate from
            notes[name] = str(reason)
    table = pd.DataFrame(rows, columns=["fit", *COLUMNS]).set_index("fit")
    table.attrs["notes"] = notes
    return table


def replicated_columns(fit: Fit, *, num_draws: int, seed: int = 0) -> Iterator[Column]:
    """The observed sites of a fit, column by column, with replicates of them.

    Raises
    ------
    ValueError
        For a fit loaded without its data, or a model that cannot be simulated from.
    """
    problem = problem_at(fit, None)
    observed = observed_values(problem)
    drawn = sample_predictive(fit, num_draws=num_draws, seed=seed)
    for site, values in observed.items():
        if site not in drawn or not values.size:
            continue
        replicated = drawn[site].values[0].astype(float)
        for entry, at in _entries(fit, site, values):
            own = values.astype(float)[at].ravel()
            theirs = replicated[(slice(None), *at)].reshape(num_draws, -1)
            seen = ~np.isnan(own)  # replicates miss what the data miss
            if seen.any():
                yield Column(site, entry, own[seen], theirs[:, seen])


def _rows(fit: Fit, num_draws: int, seed: int) -> Iterator[tuple[Any, ...]]:
    for column in replicated_columns(fit, num_draws=num_draws, seed=seed):
        for statistic, function in STATISTICS.items():
            check = _check(function, column.observed, column.replicated)
            yield column.site, column.entry, statistic, *check


def _entries(fit: Fit, site: str, values: np.ndarray) -> list[tuple[str, tuple[Any, ...]]]:
    """(label, index) of the entries of a short last axis (features), else the whole."""
    if values.ndim < 2 or values.shape[-1] > MOST_COLUMNS:
        return [("", (...,))]
    problem: Any = fit.problem
    dims = problem.dims.get(site, ())
    known = [problem.coords.get(d) for d in (*dims[-1:], "feature")]
    labels = next((v for v in known if v is not None and len(v) == values.shape[-1]), None)
    names = range(values.shape[-1]) if labels is None else labels
    return [(str(label), (..., j)) for j, label in enumerate(names)]


def _check(function: Callable[..., Any], own: np.ndarray, theirs: np.ndarray) -> tuple[float, ...]:
    """T(x), the mean and sd of T(x_rep) over draws (s,), p value and its error."""
    at, others = float(function(own)), np.asarray(function(theirs, axis=1), dtype=float)
    p = float((others > at).mean() + 0.5 * (others == at).mean())
    error = math.sqrt(max(p * (1 - p), 0.25 / len(others)) / len(others))
    return at, float(others.mean()), float(others.std(ddof=1)), p, error


__all__ = ["STATISTICS", "Column", "checks_table", "replicated_columns"]
