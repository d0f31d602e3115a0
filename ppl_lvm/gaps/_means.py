"""Means over data, with two errors: of these data's mean, and of the mean of the population behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class Mean(NamedTuple):
    """A mean over data (nats per datum).

    ``mc_error`` is its Monte Carlo standard error for these very data, ``std_error`` that of the mean over
    the population that the data are a sample of (it contains the first; NaN for a single datum).
    """

    value: float
    mc_error: float
    std_error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} +- {self.mc_error:.3f} (over data +- {self.std_error:.3f}) nats per datum"


def mean_of(values: np.ndarray, errors: np.ndarray) -> Mean:
    """The mean of independent estimates (n,) with standard errors (n,)."""
    n = len(values)
    mc = math.sqrt(float((np.asarray(errors, float) ** 2).sum())) / n
    spread = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Mean(float(np.mean(values)), mc, spread)


def summary_table(table: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """A row per quantity: mean, both errors and the kind; errors of ``name`` are in ``name_error``."""
    import pandas as pd

    rows = {}
    for name, kind in kinds.items():
        found = mean_of(table[name].to_numpy(), table[f"{name}_error"].to_numpy())
        rows[name] = {
            "mean": found.value,
            "mc_error": found.mc_error,
            "std_error": found.std_error,
            "kind": kind,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def log_mean(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log of the mean weight of each datum (n,), from (n, chains), and its standard error (delta method)."""
    chains = log_weights.shape[1]
    value = np.logaddexp.reduce(log_weights, axis=1) - math.log(chains)
    ratio = np.exp(log_weights - value[:, None])
    return value, ratio.std(1, ddof=1) / math.sqrt(chains)


__all__ = ["Mean", "log_mean", "mean_of", "summary_table"]
