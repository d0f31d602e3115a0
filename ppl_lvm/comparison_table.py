"""The numbers of a comparison: a row per (fit, quantity), and an overview with a row per fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_lvm.comparison_distances import kl_divergences, quantile_shift
from ppl_lvm.diagnostics import entries, khat, label
from ppl_lvm.effort import effort_of
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


_DISTANCES = (
    "w1", "w1_noise", "q05_shift", "q05_error", "q95_shift", "q95_error", "kl_to", "kl_to_error", "kl_from",
    "kl_from_error",
)  # fmt: skip


def comparison_table(
    fits: Mapping[str, Fit],
    draws: Mapping[str, xr.Dataset],
    figures: Mapping[str, dict],
    points: Mapping[str, Mapping[str, np.ndarray]],
    reference: str | None,
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    bases = [reference] if reference else list(draws)
    found = [entries(draws[b], figures[b]) for b in bases]
    names = max(found, key=len) if found else _point_entries(points)  # a fit of one repeated draw has none
    for fit_name, fit in fits.items():
        own_khat = khat(fit)
        for site, index, text in names:
            row: dict[str, Any] = {"fit": fit_name, "quantity": text}
            if fit_name in points:
                if site not in points[fit_name]:
                    continue
                row["mean"] = float(points[fit_name][site][index])
            else:
                row |= {k: float(v[index]) for k, v in figures[fit_name][site].items()}
                row["khat"] = math.nan if own_khat is None else own_khat
            if reference is not None:
                row |= _against(site, index, row, figures[reference], draws, fit_name, reference, fits)
            rows.append(row)
    table = pd.DataFrame(rows, columns=None if rows else ["fit", "quantity"]).set_index(["fit", "quantity"])
    return table.rename(columns={"ess_bulk": "ess"}).drop(columns=["ess_tail"], errors="ignore")


def _point_entries(points: Mapping[str, Mapping[str, np.ndarray]]) -> list[tuple[str, tuple[int, ...], str]]:
    first = next(iter(points.values()))
    return [(site, index, label(site, index)) for site, v in first.items() for index in np.ndindex(v.shape)]


def _against(
    site: str,
    index: tuple[int, ...],
    row: Mapping[str, Any],
    reference: Mapping[str, Any],
    draws: Mapping[str, xr.Dataset],
    fit_name: str,
    ref_name: str,
    fits: Mapping[str, Fit],
) -> dict[str, float]:
    """Bias, sd ratio and Wasserstein distance of one quantity, in reference sds, with errors."""
    ref = {k: float(v[index]) for k, v in reference[site].items()}
    bias = (row["mean"] - ref["mean"]) / ref["sd"]
    out = {"bias": bias, "bias_error": math.hypot(row.get("mcse_mean", 0.0), ref["mcse_mean"]) / ref["sd"]}
    if "sd" not in row:
        return out
    if fit_name == ref_name:
        return out | {
            "sd_ratio": 1.0,
            "sd_ratio_error": ref["mcse_sd"] / ref["sd"],
            **dict.fromkeys(_DISTANCES, 0.0),
        }
    ratio = row["sd"] / ref["sd"]
    relative = (
        math.hypot(row["mcse_sd"] / row["sd"], ref["mcse_sd"] / ref["sd"]) if row["sd"] > 0 else math.inf
    )
    out |= {"sd_ratio": ratio, "sd_ratio_error": ratio * relative}
    ours, theirs = _column(draws[fit_name], site, index), _column(draws[ref_name], site, index)
    sizes = row["ess_bulk"], ref["ess_bulk"]
    out["w1"], out["w1_noise"] = _wasserstein(ours, theirs, *sizes, ref["sd"])
    for name, prob in (("q05", 0.05), ("q95", 0.95)):
        out[f"{name}_shift"], out[f"{name}_error"] = quantile_shift(ours, theirs, *sizes, prob, ref["sd"])
    divergences = kl_divergences(ours, theirs, *sizes)
    return out | dict(zip(("kl_to", "kl_to_error", "kl_from", "kl_from_error"), divergences, strict=True))


def _column(dataset: xr.Dataset, site: str, index: tuple[int, ...]) -> np.ndarray:
    values = dataset[site].transpose("chain", "draw", ...).values
    where: Any = (slice(None), *index)
    return values.reshape(-1, *values.shape[2:])[where]


def _wasserstein(
    a: np.ndarray, b: np.ndarray, ess_a: float, ess_b: float, scale: float
) -> tuple[float, float]:
    """W1 in units of ``scale``, and its expectation for samples of these sizes from one distribution.

    Under equality sqrt(1/m + 1/n) times the integral of a Brownian bridge's mean modulus,
    sqrt(2 F (1 - F) / pi), over the pooled sample.
    """
    from scipy.stats import wasserstein_distance

    pooled = np.sort(np.concatenate([a, b]))
    level = np.arange(1, len(pooled)) / len(pooled)
    integral = float((np.sqrt(2 * level * (1 - level) / math.pi) * np.diff(pooled)).sum())
    noise = integral * math.sqrt(1 / max(ess_a, 1.0) + 1 / max(ess_b, 1.0))
    return float(wasserstein_distance(a, b)) / scale, noise / scale


_OVERVIEW = (
    "engine", "backend", "status", "draws", "seconds", "gradients", "log_densities", "min_ess",
    "min_ess_per_s", "khat", "log_evidence", "evidence_error", "evidence_kind", "log_likelihood",
)  # fmt: skip


def _whole(value: float) -> float:
    """A count of passes over the data, which minibatches leave broken."""
    return value if math.isnan(value) else float(round(value))


def overview_table(fits: Mapping[str, Fit], figures: Mapping[str, dict]) -> pd.DataFrame:
    import pandas as pd

    rows = {}
    for name, fit in fits.items():
        seconds = float(fit.meta.get("wall_seconds", math.nan))
        row: dict[str, Any] = {
            "engine": type(fit.engine).__name__,
            "backend": fit.backend,
            "status": fit.status.outcome.name.lower(),
            "draws": 0 if fit.is_point else fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"],
            "seconds": seconds,
        }
        effort = effort_of(fit)
        row |= {"gradients": _whole(effort.gradients), "log_densities": _whole(effort.densities)}
        if name in figures:
            sizes = np.concatenate([np.ravel(f["ess_bulk"]) for f in figures[name].values()])
            sizes = sizes[np.isfinite(sizes)]
            row["min_ess"] = float(sizes.min()) if sizes.size else math.nan
            row["min_ess_per_s"] = row["min_ess"] / seconds if seconds > 0 else math.nan
        value = khat(fit)
        row["khat"] = math.nan if value is None else value
        if fit.evidence is not None:
            row |= {
                "log_evidence": fit.evidence.nats,
                "evidence_error": fit.evidence.std_error,
                "evidence_kind": fit.evidence.kind,
            }
        if fit.log_likelihood is not None:
            row["log_likelihood"] = fit.log_likelihood
        rows[name] = row
    found = pd.DataFrame.from_dict(rows, orient="index")
    counts = [c for c in ("gradients", "log_densities") if not found[c].isna().all()]
    found = found.astype(dict.fromkeys(counts, "Int64"))  # whole numbers with a place for "unknown"
    return found[[c for c in _OVERVIEW if c in found]]
