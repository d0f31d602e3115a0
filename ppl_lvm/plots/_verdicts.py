"""Bias against spread of every quantity, with the limits that verdicts use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ppl_lvm.comparison import MAX_BIAS, MAX_LOG_RATIO, Comparison, Verdict
from ppl_lvm.plots._style import FAINT, INK, SHADE, WIDTH, Look, blank, looks, panels, styled
from ppl_lvm.plots._text import plain, shorten, wrap

if TYPE_CHECKING:
    import pandas as pd

LEVELS = {
    "do_not_trust": "do not trust",
    "inconclusive": "inconclusive",
    "means_only": "means only",
    "means_and_spreads": "means and spreads",
}
_FINE = {1 / 2: "1/2", 3 / 4: "3/4", 1.0: "1", 4 / 3: "4/3", 2.0: "2"}
_RATIOS = {
    1 / 16: "1/16",
    1 / 8: "1/8",
    1 / 4: "1/4",
    1 / 2: "1/2",
    1.0: "1",
    2.0: "2",
    4.0: "4",
    8.0: "8",
    16.0: "16",
}
_SPREADS_COLOR = "#bcd0e3"
_FAR_BIAS, _FAR_RATIO = 5.0, 16.0


@styled
def plot_verdicts(comparison: Comparison) -> Figure:
    """Bias (posterior sds) against sd ratio (log scale) of every quantity, a panel for each fit.

    The shaded box holds what a verdict of "means and spreads" forgives: |bias| <= 0.5 and a ratio of sds
    between 3/4 and 4/3; the band above and below it what "means only" does. Thin bars are one Monte Carlo
    standard error. Points have no spread: their biases are marks at the foot. Quantities beyond the axes
    are arrows at the edge.

    Without a reference there is no bias to show; the picture then gives each fit's verdict.
    """
    if comparison.reference is None:
        return _levels(comparison)
    fits = [n for n in comparison.fits if n != comparison.reference] or list(comparison.fits)
    look = looks(comparison.fits, comparison.reference)
    columns = min(3, len(fits))
    room = (WIDTH - 0.5) / columns - 0.3
    titles = {n: _title(n, comparison.verdicts[n], room) for n in fits}
    rows = -(-len(fits) // columns)
    tallest = max(len(t) for t in titles.values())
    reference = shorten(plain(comparison.reference), 2.5)
    caption = (
        f"Each mark is a quantity, with one Monte Carlo standard error. Dark box: |bias| at most {MAX_BIAS}, "
        "sd ratio 3/4 to 4/3 (means and spreads); light band: means only. Arrows lie beyond the axes."
        + (" Points have no spread: marks at the foot." if comparison.points else "")
    )
    figure = blank(f"Bias and spread against {reference}", caption, rows * (1.75 + 0.155 * tallest) + 0.25)
    bias, ratio = _extent(comparison.table)
    for i, (name, ax) in enumerate(zip(fits, panels(figure, len(fits), columns), strict=True)):
        _limits(ax, bias, ratio)
        _scatter(ax, comparison.table.loc[name], look[name], bias, ratio)
        ax.set_title("\n".join(titles[name]), linespacing=1.2)
        ax.tick_params(labelleft=i % columns == 0)
    figure.supxlabel(f"bias: difference of means, in sds of {reference}", fontsize=9)
    figure.supylabel("ratio of sds (log scale)", fontsize=9)
    return figure


def _title(name: str, verdict: Verdict, room: float) -> list[str]:
    lines = wrap(f"{plain(name)}: {LEVELS[verdict.level]}", room)
    return lines + (wrap(f"worst: {plain(verdict.quantity)}", room) if verdict.quantity else [])


def _extent(table: pd.DataFrame) -> tuple[float, float]:
    """How far the axes reach: largest |bias| and ratio shown."""
    bias = table["bias"].abs().max() if "bias" in table else 1.0
    ratio = 2.0
    if "sd_ratio" in table:
        positive = table["sd_ratio"][table["sd_ratio"] > 0]
        if len(positive):
            ratio = max(float(positive.max()), 1 / float(positive.min()), ratio)
    return float(np.clip(1.15 * bias, 1.0, _FAR_BIAS)), float(min(1.15 * ratio, _FAR_RATIO))


def _limits(axes: Axes, bias: float, ratio: float) -> None:
    high = math.exp(MAX_LOG_RATIO)
    axes.set_yscale("log")
    axes.set_xlim(-bias, bias)
    axes.set_ylim(1 / ratio, ratio)
    axes.axvspan(-MAX_BIAS, MAX_BIAS, color=SHADE, zorder=0, linewidth=0)
    box = (-MAX_BIAS, 1 / high), 2 * MAX_BIAS, high - 1 / high
    axes.add_patch(Rectangle(*box, facecolor=_SPREADS_COLOR, edgecolor=FAINT, linewidth=0.6, zorder=0.5))
    axes.axhline(1.0, color=FAINT, linewidth=0.6, zorder=1)
    axes.axvline(0.0, color=FAINT, linewidth=0.6, zorder=1)
    names = _FINE if ratio < 3 else _RATIOS
    shown = [r for r in names if 1 / ratio <= r <= ratio]
    axes.yaxis.set_major_locator(FixedLocator(shown))
    axes.yaxis.set_major_formatter(FixedFormatter([names[r] for r in shown]))
    axes.yaxis.set_minor_locator(NullLocator())


def _scatter(axes: Axes, rows: pd.DataFrame, look: Look, bias: float, ratio: float) -> None:
    if "sd_ratio" not in rows or rows["sd_ratio"].isna().all():
        x = rows["bias"].clip(-bias, bias)
        foot = axes.get_xaxis_transform()
        axes.plot(
            x,
            np.full(len(x), 0.06),
            transform=foot,
            color=look.color,
            marker="|",
            markersize=9,
            linestyle="none",
        )
        return
    x, y = rows["bias"].to_numpy(), rows["sd_ratio"].to_numpy()
    inside = (np.abs(x) <= bias) & (y < ratio) & (y > 1 / ratio)
    axes.errorbar(
        x[inside],
        y[inside],
        xerr=rows["bias_error"].to_numpy()[inside],
        yerr=rows["sd_ratio_error"].to_numpy()[inside],
        color=look.color,
        marker=look.marker,
        markersize=3.5,
        linestyle="none",
        elinewidth=0.5,
        alpha=0.75,
    )
    for at in np.flatnonzero(~inside & np.isfinite(x) & np.isfinite(y)):
        _arrow(axes, x[at], y[at], look, bias, ratio)


def _arrow(axes: Axes, x: float, y: float, look: Look, bias: float, ratio: float) -> None:
    """A quantity beyond the axes, at their edge."""
    marker = ("^" if y >= ratio else "v") if not 1 / ratio < y < ratio else (">" if x > 0 else "<")
    place = np.clip(x, -0.97 * bias, 0.97 * bias), np.clip(y, 1.06 / ratio, ratio / 1.06)
    axes.plot(*place, color=look.color, marker=marker, markersize=5, linestyle="none", alpha=0.75)


def _levels(comparison: Comparison) -> Figure:
    """Each fit's verdict on itself, where there is no reference."""
    fits = list(comparison.fits)
    caption = (
        "No reference: each fit is judged by what it says of itself (R-hat, effective size, k-hat). A part "
        "of the posterior that a fit never saw stays unseen."
    )
    figure = blank("What each fit can say of itself", caption, 0.32 * len(fits) + 0.7)
    axes = figure.add_subplot()
    look = looks(fits)
    order = list(LEVELS)
    for i, name in enumerate(fits):
        x = order.index(comparison.verdicts[name].level)
        axes.plot([0, x], [i, i], color=SHADE, linewidth=5, zorder=1, solid_capstyle="round")
        axes.plot(
            x, i, color=look[name].color, marker=look[name].marker, markersize=9, linestyle="none", zorder=2
        )
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_ylim(len(fits) - 0.4, -0.6)
    axes.set_xticks(range(len(order)), list(LEVELS.values()))
    axes.set_yticks(range(len(fits)), [shorten(plain(n), 2.5) for n in fits], color=INK)
    axes.set_xlabel("verdict")
    axes.set_ylabel("fit")
    return figure


__all__ = ["LEVELS", "plot_verdicts"]
