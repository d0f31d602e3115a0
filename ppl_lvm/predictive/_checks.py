"""Posterior predictive checks: a statistic of the data beside that of its replicates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_lvm.predictive._draws import sample_predictive
from ppl_lvm.predictive._inputs import observed_values, problem_at
from ppl_lvm.result import Fit


@dataclass(frozen=True)
class PredictiveCheck:
    """A posterior predictive check (Gelman, Meng and Stern 1996).

    ``observed`` is T(x), ``replicated`` (s,) are T(x_rep); ``p_value`` is P(T(x_rep) >= T(x)), ties
    counted half, with its Monte Carlo standard error.
    """

    name: str
    observed: float
    replicated: np.ndarray
    p_value: float
    std_error: float

    def __str__(self) -> str:
        return (
            f"{self.name}: observed {self.observed:.4g}, replicated "
            f"{self.replicated.mean():.4g} +- {self.replicated.std(ddof=1):.3g} (sd), "
            f"p = {self.p_value:.3f} +- {self.std_error:.3f}"
        )

    def plot(self) -> Any:
        """Histogram of the replicated statistic with the observed one marked; a Figure."""
        from ppl_lvm.plots import plot_check

        return plot_check(self)


def check(
    fit: Fit, statistic: Callable[[Any], float], *, num_draws: int = 500, seed: int = 0
) -> PredictiveCheck:
    """T(x_rep) against T(x); ``statistic`` takes the observed array (or a mapping, if several sites).

    Raises
    ------
    TypeError, ValueError
        If the statistic is not a function of the data that returns one finite number.
    """
    if not callable(statistic):
        raise TypeError(f"statistic: expected a function of the data, got {type(statistic).__name__}.")
    problem = problem_at(fit, None)
    observed = observed_values(problem)
    drawn = sample_predictive(fit, num_draws=num_draws, seed=seed)
    names = list(observed)
    replicated = {k: _like_observed(drawn[k].values[0], observed[k]) for k in names}

    def apply(values: Mapping[str, np.ndarray]) -> float:
        out = np.asarray(statistic(values[names[0]] if len(names) == 1 else values), dtype=float)
        if out.shape != () or not np.isfinite(out):
            missing = any(np.isnan(v).any() for v in observed.values() if v.dtype.kind == "f")
            hint = " The data have missing entries (NaN): use np.nanmean and the like." if missing else ""
            raise ValueError(f"statistic: expected one finite number, got {out!r}.{hint}")
        return float(out)

    own = apply(observed)
    others = np.array([apply({k: v[i] for k, v in replicated.items()}) for i in range(num_draws)])
    p = float((others > own).mean() + 0.5 * (others == own).mean())
    error = math.sqrt(max(p * (1 - p), 1.0 / num_draws / 4) / num_draws)
    return PredictiveCheck(getattr(statistic, "__name__", "statistic"), own, others, p, error)


def _like_observed(replicated: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Replicates miss what the data miss, so that a statistic of both sees the same entries."""
    if observed.dtype.kind != "f" or not np.isnan(observed).any():
        return replicated
    return np.where(np.isnan(observed), np.nan, replicated)
