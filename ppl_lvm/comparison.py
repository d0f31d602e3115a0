r"""Same model, different inference: what each fit gets right, with errors, and a verdict.

With a reference, every quantity q (entries of the sites, and the model's invariants, after relabelling
to the reference's labels) of every fit is compared with the reference's:

- ``bias`` = (mean - reference mean) / reference sd, with its Monte Carlo error;
- ``sd_ratio`` = sd / reference sd, with its error;
- ``w1``, the 1-Wasserstein distance in reference sds, beside ``w1_noise``, its expectation for two
  samples of these effective sizes from one distribution;
- ``ess``, ``r_hat`` and ``khat`` of the fit itself.

The verdict of a fit is about its worst quantity. Bounds are one bias and one ratio for all, and errors
are widened for the number of quantities looked at (Bonferroni, 5 %):

- ``do_not_trust``: a bias above half a reference sd, beyond its error;
- ``inconclusive``: the errors are too large to exclude such a bias;
- ``means_only``: every bias is below half an sd, but a spread is off by more than a third, or the errors
  do not exclude it;
- ``means_and_spreads``: every bias below half an sd, every sd ratio between 3/4 and 4/3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppl_lvm.diagnostics import diagnose, entry_label, invariants_of, khat, moments, psis
from ppl_lvm.relabel import Labels, align, apply_orders, describe_labels, permute
from ppl_lvm.result import Fit, flat_draws

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

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


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The result of :func:`compare`.

    Attributes
    ----------
    fits, reference
        The fits, relabelled to common labels, and the reference's name (None without one).
    table
        A row per (fit, quantity); columns as in the module's page.
    verdicts
        One :class:`Verdict` per fit.
    overview
        A row per fit: engine, backend, draws, wall seconds, smallest ESS (and per second), k-hat,
        evidence with its kind and error.
    draws
        Aligned draws of every quantity, by fit (points have none).
    """

    fits: Mapping[str, Fit]
    reference: str | None
    table: pd.DataFrame
    verdicts: Mapping[str, Verdict]
    overview: pd.DataFrame
    draws: Mapping[str, xr.Dataset]
    points: Mapping[str, Mapping[str, np.ndarray]]

    def plot(self, **settings: Any) -> Any:
        """Means and intervals of every fit side by side, a Figure (:func:`ppl_lvm.plots.plot_comparison`)."""
        from ppl_lvm.plots import plot_comparison

        return plot_comparison(self, **settings)

    def to_html(self, path: str | Path) -> Path:
        """Write the report, one self-contained page; returns its path."""
        from ppl_lvm.report import write_report

        return write_report(self, Path(path))

    def __repr__(self) -> str:
        against = f" against {self.reference!r}" if self.reference else ""
        lines = [f"Comparison of {len(self.fits)} fits of {next(iter(self.fits.values())).model.describe()}{against}"]
        lines += [f"  {name:<12} {verdict}" for name, verdict in self.verdicts.items()]
        return "\n".join([*lines, "", self.overview.to_string(float_format=lambda v: f"{v:.3g}")])

    def _repr_html_(self) -> str:
        from html import escape

        items = "".join(f"<li><b>{escape(n)}</b>: {escape(str(v))}</li>" for n, v in self.verdicts.items())
        return f"<ul>{items}</ul>{self.overview.to_html(float_format=lambda v: f'{v:.3g}')}"


def compare(fits: Mapping[str, Fit], reference: str | None = None) -> Comparison:
    """Compare fits of one model to the same data by different engines (:mod:`ppl_lvm.comparison`).

    Without ``reference`` each fit is judged by what it can say of itself (R-hat and effective sizes of
    chains, k-hat and importance-corrected means of guides); a mode that a guide dropped stays unseen.

    Raises
    ------
    TypeError, ValueError
        For fits of different models or data, an unknown reference, or one that is a point.
    """
    _check(fits, reference)
    labels = _common_labels(fits, reference)
    aligned = {name: _align(fit, labels) for name, fit in fits.items()}
    draws = {n: f.posterior.merge(invariants_of(f, f.posterior)) for n, f in aligned.items() if not f.is_point}
    points = {n: _point_values(f) for n, f in aligned.items() if f.is_point}
    figures = {n: moments(aligned[n], d) for n, d in draws.items()}
    table = _table(aligned, draws, figures, points, reference)
    verdicts = {n: _verdict(n, aligned[n], table, reference) for n in fits}
    return Comparison(aligned, reference, table, verdicts, _overview(aligned, figures), draws, points)


# ---- checks and labels ---------------------------------------------------------------------------


def _check(fits: Any, reference: str | None) -> None:
    if not isinstance(fits, Mapping) or not fits:
        raise TypeError("fits: expected a mapping of names to fits, such as {'vi': vi, 'mcmc': mcmc}.")
    for name, fit in fits.items():
        if not isinstance(fit, Fit):
            raise TypeError(f"fits[{name!r}]: expected a Fit, got {type(fit).__name__}.")
    if reference is not None:
        if reference not in fits:
            raise ValueError(f"reference: no fit {reference!r}; the fits are {sorted(fits)}.")
        if fits[reference].is_point:
            raise ValueError(f"reference: {reference!r} is a point without a posterior; use NUTS as reference.")
    items = list(fits.items())
    first_name, first = items[0]
    for name, fit in items[1:]:
        _check_same(first_name, first, name, fit)


def _check_same(first_name: str, first: Fit, name: str, fit: Fit) -> None:
    if first.model.describe() != fit.model.describe():
        raise ValueError(
            f"fits: {first_name!r} is of {first.model.describe()} and {name!r} of {fit.model.describe()}; compare "
            "takes one model (use lvm.rank for different ones)."
        )
    if first.problem is None or fit.problem is None:
        return
    mine, other = first.problem.data.values, fit.problem.data.values
    same = set(mine) == set(other) and all(np.array_equal(mine[k], other[k]) for k in mine)
    if not same:
        raise ValueError(f"fits: {first_name!r} and {name!r} were fitted to different data.")


def _common_labels(fits: Mapping[str, Fit], reference: str | None) -> Labels | None:
    model = next(iter(fits.values())).model
    with_draws = [f for f in fits.values() if not f.is_point]
    if not model.label_axes or not with_draws:
        return None
    chains = [f for f in with_draws if f.posterior.attrs.get("draws") == "chain"]
    owner = fits[reference] if reference else (chains or with_draws)[0]
    return describe_labels(owner.model.label_features(flat_draws(owner.posterior)))


def _align(fit: Fit, labels: Labels | None) -> Fit:
    axes = fit.model.label_axes
    if labels is None or not axes:
        return fit
    if fit.is_point:
        values = {k: np.asarray(v)[None] for k, v in fit.params.items()}
        order = align(fit.model.label_features(values), labels)
        moved = permute(values, axes, order)
        import dataclasses

        return dataclasses.replace(fit, params={k: v[0] for k, v in moved.items()})
    values = flat_draws(fit.posterior)
    orders = align(fit.model.label_features(values), labels)
    return apply_orders(fit, permute(values, axes, orders), orders, axes)


def _point_values(fit: Fit) -> dict[str, np.ndarray]:
    values = {k: np.asarray(v) for k, v in fit.params.items()}
    if fit.model.invariants is not None:
        found = fit.model.invariants({k: v[None] for k, v in values.items()})
        values |= {k: np.asarray(v)[0] for k, v in found.items()}
    return values


# ---- the table -----------------------------------------------------------------------------------


def _table(
    fits: Mapping[str, Fit],
    draws: Mapping[str, xr.Dataset],
    figures: Mapping[str, dict],
    points: Mapping[str, Mapping[str, np.ndarray]],
    reference: str | None,
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    base = reference or next(iter(draws), None)
    names = _entries(draws[base], figures[base]) if base is not None else _point_entries(points)
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
    table = pd.DataFrame(rows).set_index(["fit", "quantity"])
    return table.rename(columns={"ess_bulk": "ess"}).drop(columns=["ess_tail"], errors="ignore")


def _entries(dataset: xr.Dataset, figures: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...], str]]:
    """(site, index, label) of every entry that varies; upper copies of symmetric matrices are dropped."""
    out = []
    for site, figure in figures.items():
        for index in np.ndindex(figure["mean"].shape):
            if not figure["sd"][index] > 1e-12 * (abs(figure["mean"][index]) + 1e-300):
                continue
            if str(site).endswith("_corr") and index[-1] >= index[-2]:
                continue
            out.append((site, index, entry_label(dataset[site], index)))
    return out


def _point_entries(points: Mapping[str, Mapping[str, np.ndarray]]) -> list[tuple[str, tuple[int, ...], str]]:
    from ppl_lvm.diagnostics import label

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
        return out | {"sd_ratio": 1.0, "sd_ratio_error": ref["mcse_sd"] / ref["sd"], "w1": 0.0, "w1_noise": 0.0}
    ratio = row["sd"] / ref["sd"]
    relative = math.hypot(row["mcse_sd"] / row["sd"], ref["mcse_sd"] / ref["sd"]) if row["sd"] > 0 else math.inf
    out |= {"sd_ratio": ratio, "sd_ratio_error": ratio * relative}
    ours, theirs = _column(draws[fit_name], site, index), _column(draws[ref_name], site, index)
    out["w1"], out["w1_noise"] = _wasserstein(ours, theirs, row["ess_bulk"], ref["ess_bulk"], ref["sd"])
    return out


def _column(dataset: xr.Dataset, site: str, index: tuple[int, ...]) -> np.ndarray:
    values = dataset[site].transpose("chain", "draw", ...).values
    return values[(slice(None), slice(None), *index)].reshape(-1)


def _wasserstein(a: np.ndarray, b: np.ndarray, ess_a: float, ess_b: float, scale: float) -> tuple[float, float]:
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


def _overview(fits: Mapping[str, Fit], figures: Mapping[str, dict]) -> pd.DataFrame:
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
    return pd.DataFrame.from_dict(rows, orient="index")


# ---- verdicts ------------------------------------------------------------------------------------


def _verdict(name: str, fit: Fit, table: pd.DataFrame, reference: str | None) -> Verdict:
    if reference is None or name == reference:
        return _judge_alone(fit)
    rows = table.loc[name]
    trouble = _reference_trouble(table.loc[reference])
    if trouble:
        return Verdict("inconclusive", "", math.nan, f"the reference {reference!r} is not good enough: {trouble}")
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
        return Verdict("inconclusive", bad, math.nan, f"the Monte Carlo error of {bad} cannot be told; draw more")
    if (sure > MAX_BIAS).any():
        worst = str(sure.idxmax())
        value = float(rows["bias"][worst])
        what = "the point is" if fit.is_point else "the mean is"
        return Verdict(
            "do_not_trust", worst, value, f"{what} {abs(value):.2f} posterior sds off for {worst} (more than {MAX_BIAS})"
        )
    if (possible > MAX_BIAS).any():
        worst = str(possible.idxmax())
        value = float(rows["bias"][worst])
        return Verdict(
            "inconclusive",
            worst,
            value,
            f"the mean of {worst} is {abs(value):.2f} +- {float(rows['bias_error'][worst]):.2f} posterior sds off, "
            f"which leaves more than {MAX_BIAS} possible; draw more",
        )
    if fit.is_point:
        worst = str(size.idxmax())
        value = float(rows["bias"][worst])
        return Verdict(
            "means_only", worst, value, f"a point, within {abs(value):.2f} posterior sds of every mean; it has no spread"
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
            f"every mean is within {bias:.2f} posterior sds, but the sd of {worst} is {value:.2f} +- {error:.2f} of the "
            "reference's",
        )
    return Verdict(
        "means_and_spreads",
        worst,
        value,
        f"every mean is within {bias:.2f} posterior sds, and every sd ratio between 3/4 and 4/3 (worst {worst}: {value:.2f})",
    )


def _judge_alone(fit: Fit) -> Verdict:
    """What a fit can say of itself, without a reference."""
    if fit.is_point:
        return Verdict("inconclusive", "", math.nan, "a point says nothing of the posterior; compare it with draws")
    found = diagnose(fit)
    bad = [f for f in found if f.level == "error"]
    if bad:
        return Verdict("do_not_trust", bad[0].check, bad[0].value, bad[0].sentence)
    doubtful = [f for f in found if f.level == "warning"]
    if doubtful:
        return Verdict("inconclusive", doubtful[0].check, doubtful[0].value, doubtful[0].sentence)
    kind = fit.posterior.attrs.get("draws")
    if kind == "chain" and fit.posterior.sizes["chain"] < 2:
        return Verdict("inconclusive", "r_hat", math.nan, "one chain cannot show whether it found the whole posterior")
    if kind == "independent" and found:
        return _judge_corrected(fit)
    if not found:
        return Verdict("inconclusive", "", math.nan, "nothing to judge it by; compare it with NUTS as reference")
    return Verdict("means_and_spreads", found[0].check, found[0].value, "; ".join(f.sentence for f in found))


def _judge_corrected(fit: Fit) -> Verdict:
    """A guide against its own importance-corrected means and spreads (valid while k-hat is good)."""
    from ppl_lvm.diagnostics import quantities

    stats: Any = fit.sample_stats
    weights = np.exp(psis((stats["log_p"] - stats["log_q"]).values.reshape(-1))[0])
    worst, value, error = "", 0.0, 0.0
    for name, var in quantities(fit).data_vars.items():
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
            worst, value, error = entry_label(var, tuple(int(i) for i in at)), float(bias[at]), float(unsure[at])
    if abs(value) - 3 * error > MAX_BIAS:
        return Verdict("do_not_trust", worst, value, f"importance weights move the mean of {worst} by {abs(value):.2f} sds")
    if abs(value) + 3 * error > MAX_BIAS:
        return Verdict("inconclusive", worst, value, f"importance weights may move the mean of {worst} by {abs(value):.2f} sds")
    return Verdict("means_only", worst, value, f"importance weights move no mean by more than {abs(value):.2f} sds; no reference checked for dropped modes")


__all__ = ["Comparison", "Verdict", "compare"]
