"""Gaps of an encoder, stacked by datum, and what its latents carry."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ppl_lvm.gaps import AmortisationGap, LatentDiagnostics
from ppl_lvm.plots._style import BLACK, COLORS, FAINT, blank, styled
from ppl_lvm.plots._text import plain, shorten

_PARTS = {"amortisation": COLORS[1], "approximation": COLORS[0]}
_MOST_BARS = 60  # data whose error bars can still be told apart
_MARK = {"at least": "≥ ", "difference": "", "lower bound": "≥ "}


@styled
def plot_gaps(gap: AmortisationGap, *, num_data: int = 200) -> Figure:
    """The amortisation gap and, on top of it, the approximation gap of every datum; their means over data.

    Data are sorted by the whole gap, log p(x) less the encoder's ELBO; of more than ``num_data`` an even
    selection is shown (the means are of all). Bars on the means are two standard errors over data.

    Raises
    ------
    TypeError, ValueError
        If ``gap`` is not what :func:`ppl_lvm.amortisation_gap` returns, or ``num_data`` no positive integer.
    """
    if not isinstance(gap, AmortisationGap):
        raise TypeError(f"gap: expected what lvm.amortisation_gap returns, got {type(gap).__name__}.")
    if isinstance(num_data, bool) or not isinstance(num_data, int) or num_data < 1:
        raise ValueError(f"num_data: expected a positive integer, got {num_data!r}.")
    table = gap.table.sort_values("inference", ascending=False)
    keep = np.unique(np.linspace(0, len(table) - 1, min(num_data, len(table))).astype(int))
    shown = table.iloc[keep]
    kinds = gap.summary["kind"]
    legend = [(Patch(color=c), f"{name} gap ({kinds[name]})") for name, c in _PARTS.items()]
    bars = len(shown) <= _MOST_BARS
    way = "AIS" if gap.settings["log_p"] == "ais" else "IWAE"
    caption = (
        f"log p(x) by {way}, a stochastic lower bound; the best q is a {gap.settings['family']} normal. "
    )
    caption += "Left: bars are two Monte Carlo errors of the whole gap. " if bars else ""
    caption += "Right: two standard errors of the mean over data."
    if (shown["approximation"] < 0).any():
        caption += " A blue bar inside an orange one is a negative approximation gap, by Monte Carlo error."
    title = f"What the encoder costs: {shorten(plain(gap.settings['model']), 4.5)}"
    figure = blank(title, caption, 2.6, legend=legend)
    left, right = figure.subplots(1, 2, width_ratios=[3, 1.15])
    _bars(left, shown, bars)
    left.set_xlabel(f"datum, by its whole gap ({len(shown)} of {len(table)})")
    left.set_ylabel("gap (nats)")
    left.set_title("each datum")
    right.set_title("mean over data")
    _means(right, gap)
    return figure


def _bars(axes: Axes, table: Any, errors: bool) -> None:
    at = np.arange(len(table))
    below, above = (np.asarray(table[n], float) for n in _PARTS)
    colors = list(_PARTS.values())
    axes.bar(at, below, width=1.0, color=colors[0], linewidth=0)
    axes.bar(at, above, bottom=below, width=1.0, color=colors[1], linewidth=0)
    if errors:
        total, noise = (np.asarray(table[n], float) for n in ("inference", "inference_error"))
        axes.errorbar(at, total, yerr=2 * noise, fmt="none", ecolor=BLACK, elinewidth=0.7)
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.set_xlim(-0.6, len(at) - 0.4)
    step = max(1, -(-len(at) // 6))
    axes.set_xticks(at[::step])


def _means(axes: Axes, gap: AmortisationGap) -> None:
    names = ["amortisation", "approximation", "inference"]
    rows = gap.summary.loc[names]
    errors = np.where(np.isfinite(rows["std_error"]), rows["std_error"], rows["mc_error"])
    colors = [*_PARTS.values(), FAINT]
    axes.bar(range(3), rows["mean"], yerr=2 * errors, color=colors, width=0.7, error_kw={"elinewidth": 1.0})
    for i, name in enumerate(names):
        text = f"{_MARK[rows['kind'][name]]}{rows['mean'][name]:.2f}".replace("-", "\u2212")
        top = max(float(rows["mean"][name]), 0.0) + 2 * float(errors[i])
        axes.annotate(text, (i, top), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom")
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.margins(y=0.15)
    axes.set_xticks(range(3), ["amort.", "approx.", "both"])
    axes.set_xlabel("gap")
    axes.set_ylabel("gap (nats)")


@styled
def plot_latent_diagnostics(found: LatentDiagnostics) -> Figure:
    """KL to the prior and activity of every latent dimension, the largest KL first, with two standard errors.

    Raises
    ------
    TypeError
        If ``found`` is not what :func:`ppl_lvm.latent_diagnostics` returns.
    """
    if not isinstance(found, LatentDiagnostics):
        raise TypeError(f"found: expected what lvm.latent_diagnostics returns, got {type(found).__name__}.")
    table = found.table.sort_values("kl", ascending=False)
    active = table["active"].to_numpy(bool)
    legend = [(Patch(color=COLORS[0]), "active"), (Patch(color=FAINT), "idle")] if not active.all() else []
    total = found.summary.loc["kl"]
    caption = (
        f"{int(active.sum())} of {len(table)} dimensions active on {found.num_data} data; KL in all "
        f"{total['value']:.2f} \u00b1 {total['error']:.2f} nats. Bars are two standard errors; dashed: the "
        "threshold of activity, 0.01."
    )
    figure = blank(f"Latents of {shorten(plain(found.model), 5.0)}", caption, 2.6, legend=legend)
    left, right = figure.subplots(1, 2)
    at, names = np.arange(len(table)), [n.partition("[")[2].rstrip("]") or n for n in table.index]
    colors = np.where(active, COLORS[0], FAINT)
    left.bar(
        at, table["kl"], yerr=2 * table["kl_error"], color=colors, width=0.8, error_kw={"elinewidth": 0.8}
    )
    left.set_ylabel("KL (nats)")
    left.set_title("KL to the prior")
    right.set_title("variance over data of the mean")
    right.errorbar(
        at, table["activity"], yerr=2 * table["activity_error"], fmt="none", ecolor=FAINT, elinewidth=0.8
    )
    right.scatter(at, table["activity"], c=colors, s=18, zorder=3)
    right.axhline(0.01, color=BLACK, linewidth=0.8, linestyle=(0, (4, 3)))
    right.set_yscale("log")
    right.set_ylabel("activity")
    step = max(1, len(at) // 15)
    for axes in (left, right):
        axes.set_xticks(at[::step], names[::step])
        axes.set_xlabel("latent dimension")
    return figure


__all__ = ["plot_gaps", "plot_latent_diagnostics"]
