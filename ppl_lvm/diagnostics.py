"""Summaries and diagnostics of one fit, each with its Monte Carlo error."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ppl_lvm.result import Fit


_LEAST_WEIGHTS = 25


@dataclass(frozen=True)
class Finding:
    """One diagnostic: its figure, whether it is alarming, and what to do about it."""

    level: Literal["ok", "warning", "error"]
    check: str
    value: float
    sentence: str


def psis(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed log weights (s,), normalised, and the shape estimate k-hat.

    By arviz-stats (Vehtari, Simpson, Gelman, Yao and Gabry 2024, JMLR 25). k-hat below
    min(1 - 1/log10(s), 0.7) means that estimates from these weights can be trusted.
    """
    from arviz_stats.base import array_stats

    if not np.isfinite(np.max(log_weights)):
        raise ValueError("log_weights: all are -inf, or some are NaN; the proposal misses the posterior.")
    if np.ptp(log_weights) < 1e-9:  # equal weights have no tail to fit, and need none
        return np.full(len(log_weights), -math.log(len(log_weights))), 0.0
    if len(log_weights) < _LEAST_WEIGHTS:  # no tail to fit, and no way to tell how long it is
        return log_weights - np.logaddexp.reduce(log_weights), math.inf
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # arviz-stats warns of what k-hat itself reports
        # psislw takes the negated log weights (a log likelihood is what LOO's weights divide by)
        smoothed, khat = array_stats.psislw(-np.asarray(log_weights, dtype=float))
    smoothed = np.asarray(smoothed)
    if np.isnan(smoothed).any():  # a tail so long that all but a few of its weights underflow has no fit
        smoothed, khat = np.asarray(log_weights, dtype=float), math.inf
    return smoothed - np.logaddexp.reduce(smoothed), float(khat)


def khat_limit(size: int) -> float:
    """k-hat below which weights of ``size`` draws can be trusted, min(1 - 1 / log10(size), 0.7)."""
    return min(1 - 1 / math.log10(size), 0.7) if size > 1 else -math.inf


def log_weights(fit: Fit) -> np.ndarray | None:
    """log p - log q (s,) of a fit's draws; None where it has none."""
    stats = fit.sample_stats
    if stats is None or "log_q" not in stats or "log_p" not in stats:
        return None
    out: np.ndarray = (stats["log_p"] - stats["log_q"]).values.reshape(-1)
    return out


def khat(fit: Fit) -> float | None:
    """k-hat of a fit's importance weights p / q; None where it has none, infinite where none is finite.

    Weights that are not a number count as zero.
    """
    found = log_weights(fit)
    if found is None:
        return None
    found = np.where(np.isnan(found) | (found == np.inf), -np.inf, found)
    return psis(found)[1] if np.isfinite(found).any() else math.inf


def quantities(fit: Fit, *, invariants: bool = True) -> xr.Dataset:
    """Real-valued posterior quantities: the continuous sites, and the model's invariants."""
    draws = fit.posterior
    hidden = fit.model.internal_sites
    keep = [k for k, v in draws.data_vars.items() if v.dtype.kind == "f" and k not in hidden]
    out = draws[keep]
    return out.merge(invariants_of(fit, draws), join="exact") if invariants else out


def invariants_of(fit: Fit, draws: xr.Dataset) -> xr.Dataset:
    """The model's invariants at draws, as a Dataset; empty where it names none."""
    import xarray as xr

    from ppl_lvm.result import chain_dataset, flat_draws

    if fit.model.invariants is None:
        return xr.Dataset()
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    found = fit.model.invariants(flat_draws(draws))
    values = {k: np.asarray(v).reshape(*shape, *np.shape(v)[1:]) for k, v in found.items()}
    derived = chain_dataset(fit.problem, values, kind="derived", event_dims=fit.model.dims)
    known = {str(k): v for k, v in draws.coords.items() if v.ndim == 1}
    labels = {}
    for dim in derived.dims:  # a fit loaded without its data knows its labels from the draws alone
        own = known.get(str(dim), known.get(str(dim).removesuffix("_bis")))
        if own is not None and len(own) == derived.sizes[dim]:
            labels[str(dim)] = own.values
    return derived.assign_coords(labels)


def entries(dataset: xr.Dataset, figures: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...], str]]:
    """(site, index, label) of every entry that varies; upper copies of symmetric matrices are dropped."""
    out = []
    for site, figure in figures.items():
        for index in np.ndindex(figure["mean"].shape):
            if not figure["sd"][index] > 1e-12 * (abs(figure["mean"][index]) + 1e-300):
                continue  # structural constants, such as the zeros of a Cholesky factor
            if str(site).endswith("_corr") and index[-1] >= index[-2]:
                continue
            if str(site).endswith("_cov") and index[-1] > index[-2]:
                continue
            out.append((site, index, entry_label(dataset[site], index)))
    return out


def moments(fit: Fit, dataset: xr.Dataset) -> dict[str, dict[str, np.ndarray]]:
    """Mean, sd, their Monte Carlo errors and ESS of every variable of ``dataset`` (one per entry).

    Chains: arviz-stats' ESS and MCSE. Independent draws: sd / sqrt(s). Weighted draws: from the
    weights, with ESS = 1 / sum(w^2).
    """
    kind = fit.draws.attrs.get("draws") if fit.draws is not None else "chain"
    if kind == "resampled" and "proposal" in fit.groups:
        return _weighted_moments(fit, dataset)
    if kind == "chain":
        return chain_moments(dataset)
    return _independent_moments(dataset)


def chain_moments(dataset: xr.Dataset) -> dict[str, dict[str, np.ndarray]]:
    """:func:`moments` of chains, R-hat included."""
    from arviz_stats.base import array_stats

    def ess(x: np.ndarray, method: str) -> np.ndarray:
        prob = {"prob": (0.05, 0.95)} if method == "tail" else {}
        return _safe(array_stats.ess(x, chain_axis=0, draw_axis=1, method=method, **prob))

    out = {}
    for name, var in dataset.data_vars.items():
        x = var.transpose("chain", "draw", ...).values
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # constant entries (a Cholesky factor's zeros) have no ESS
            mean_ess, sd_ess = ess(x, "mean"), ess(x, "sd")
            sd = x.std((0, 1), ddof=1)
            fourth = ((x - x.mean((0, 1))) ** 4).mean((0, 1))
            out[str(name)] = {
                "mean": x.mean((0, 1)),
                "sd": sd,
                "mcse_mean": sd / np.sqrt(mean_ess),
                "mcse_sd": np.sqrt(np.maximum(fourth - sd**4, 0) / sd_ess) / (2 * sd),
                "ess_bulk": ess(x, "bulk"),
                "ess_tail": ess(x, "tail"),
                "r_hat": _safe(array_stats.rhat(x, chain_axis=0, draw_axis=1)),
            }
    return out


def _safe(x: Any) -> np.ndarray:
    return np.asarray(x, dtype=float)


def _independent_moments(dataset: xr.Dataset) -> dict[str, dict[str, np.ndarray]]:
    out = {}
    for name, var in dataset.data_vars.items():
        x = var.transpose("chain", "draw", ...).values.reshape(-1, *var.shape[2:])
        s = len(x)
        sd = x.std(0, ddof=min(1, s - 1))
        fourth = ((x - x.mean(0)) ** 4).mean(0)
        with np.errstate(all="ignore"):
            mcse_sd = np.sqrt(np.maximum(fourth - sd**4, 0) / s) / (2 * sd)
        same = np.full(sd.shape, float(s))
        out[str(name)] = {
            "mean": x.mean(0),
            "sd": sd,
            "mcse_mean": sd / math.sqrt(s),
            "mcse_sd": mcse_sd,
            "ess_bulk": same,
            "ess_tail": same,
        }
    return out


def _between_runs(values: np.ndarray, weights: np.ndarray, runs: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Standard error of a weighted mean from the spread of the means of independent runs."""
    total = np.zeros_like(mean)
    count = int(runs.max()) + 1
    for r in range(count):
        own = runs == r
        w = weights[own].reshape((-1,) + (1,) * (values.ndim - 1))
        total += ((w * (values[own] - mean)).sum(0)) ** 2
    return np.sqrt(total * count / (count - 1))


def _weighted_moments(fit: Fit, dataset: xr.Dataset) -> dict[str, dict[str, np.ndarray]]:
    proposal = weighted_quantities(fit, list(dataset.data_vars))
    stats: Any = fit.sample_stats  # kept with the draws
    weights = np.exp(stats["log_weight"].values.reshape(-1))
    runs = stats["run"].values.reshape(-1) if "run" in stats else None
    out = {}
    for name, var in proposal.items():
        w = weights.reshape((-1,) + (1,) * (var.ndim - 1))
        mean = (w * var).sum(0)
        variance = (w * (var - mean) ** 2).sum(0)
        sd = np.sqrt(variance)
        with np.errstate(all="ignore"):
            error = np.sqrt((w**2 * (var - mean) ** 2).sum(0))
            error_sd = np.sqrt((w**2 * ((var - mean) ** 2 - variance) ** 2).sum(0)) / (2 * sd)
            ess = np.full(sd.shape, 1.0 / (weights**2).sum())
            if runs is not None:
                error = _between_runs(var, weights, runs, mean)
                error_sd = _between_runs((var - mean) ** 2, weights, runs, variance) / (2 * sd)
                ess = np.minimum(variance / error**2, len(var))
        out[str(name)] = {
            "mean": mean,
            "sd": sd,
            "mcse_mean": error,
            "mcse_sd": error_sd,
            "ess_bulk": ess,
            "ess_tail": ess,
        }
    return out


def weighted_quantities(fit: Fit, names: list[Any]) -> dict[Any, np.ndarray]:
    """Values (s, ...) of the unresampled proposal draws, relabelled as the fit's own draws are."""
    from ppl_lvm.result import flat_draws
    from ppl_lvm.symmetry import reference_of, settle_values

    values = settle_values(fit.model, flat_draws(fit.groups["proposal"]), reference_of(fit))
    derived: Mapping[str, Any] = fit.model.invariants(values) if fit.model.invariants is not None else {}
    return {n: values[n] if n in values else derived[n] for n in names}


def summary(fit: Fit, *, prob: float = 0.89) -> pd.DataFrame:
    """Table of posterior quantities: mean, sd, equal-tailed interval, Monte Carlo errors, ESS, R-hat.

    For points: the values, without any spread.
    """
    import pandas as pd

    if not 0 < prob < 1:
        raise ValueError(f"prob: expected a number between 0 and 1, got {prob!r}.")
    if fit.is_point:
        rows = {
            label(name, index): {"value": float(value[index])}
            for name, value in fit.params.items()
            if name not in fit.model.internal_sites
            for index in np.ndindex(np.shape(value))
        }
        return pd.DataFrame.from_dict(rows, orient="index")
    dataset = quantities(fit)
    found = moments(fit, dataset)
    tail = (1 - prob) / 2
    low, high = f"eti{prob * 100:g}_lb", f"eti{prob * 100:g}_ub"
    ends = {
        site: np.quantile(x.reshape(-1, *x.shape[2:]), [tail, 1 - tail], axis=0)
        for site in found
        for x in [dataset[site].transpose("chain", "draw", ...).values]
    }
    table: dict[str, dict[str, Any]] = {}
    for site, index, text in entries(dataset, found):
        figures = found[site]
        row: dict[str, Any] = {"mean": figures["mean"][index], "sd": figures["sd"][index]}
        row |= {low: ends[site][0][index], high: ends[site][1][index]}
        table[text] = row | {k: v[index] for k, v in figures.items() if k not in ("mean", "sd")}
    return pd.DataFrame.from_dict(table, orient="index")


def entry_label(variable: xr.DataArray, index: tuple[int, ...]) -> str:
    """``loc[0, petal length]``: a scalar entry by its coordinates."""
    dims = [d for d in variable.dims if d not in ("chain", "draw")]
    names = [
        str(variable.coords[d].values[i]) if d in variable.coords else str(i)
        for d, i in zip(dims, index, strict=True)
    ]
    return label(str(variable.name), tuple(names))


def label(name: str, index: tuple[Any, ...]) -> str:
    return f"{name}[{', '.join(str(i) for i in index)}]" if index else name
