"""Overlaid marginal densities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppl_lvm.comparison import Comparison
from ppl_lvm.plots._arviz import collection
from ppl_lvm.plots._choose import chosen, comparison_columns
from ppl_lvm.plots._style import BLACK, WIDTH, Look, blank, key, looks, panels, styled
from ppl_lvm.plots._text import plain, wrap

if TYPE_CHECKING:
    import xarray as xr

CUT = 2.5
"""Panels end at this many times the reference's height (without one, the middle fit's)."""


@styled
def plot_marginals(
    comparison: Comparison, *, quantities: Sequence[str] | None = None, max_quantities: int = 12
) -> Figure:
    """Marginal posterior densities of quantities, all fits on one axis (kernel estimates by arviz-stats).

    The reference is black on grey. Points are vertical lines. Resampled draws repeat themselves, so their
    bandwidth is Silverman's at the effective size of the weights: where few draws decide, the curve is as
    coarse as what is known.

    Parameters
    ----------
    comparison
        The result of :func:`ppl_lvm.compare`.
    quantities
        Sites or single quantities (as the table names them); None: all.
    max_quantities
        Most quantities shown; of more, those on which some fit is furthest from the reference.

    Raises
    ------
    ValueError
        For unknown quantities.
    """
    names, note = chosen(comparison, quantities, max_quantities)
    look = looks(comparison.fits, comparison.reference)
    columns = min(3, len(names))
    labels = {q: wrap(plain(q), (WIDTH - 0.6) / columns - 0.35) for q in names}
    rows = -(-len(names) // columns)
    height = rows * (1.25 + 0.15 * max(len(text) for text in labels.values()))
    legend = [
        (
            key(look[n], marker=n not in comparison.draws),
            plain(n) + ("" if n in comparison.draws else " (a point)"),
        )
        for n in comparison.fits
    ]
    points = " Vertical lines are points." if comparison.points else ""
    caption = f"Kernel densities of the draws, cut at {CUT:g} times the usual height.{points} {note}"
    figure = blank("Marginal posteriors", caption, height + 0.2, legend=legend)
    axes = dict(zip(names, panels(figure, len(names), columns), strict=True))
    for fit in comparison.draws:
        densities(figure, axes, comparison_columns(comparison, fit, names), look[fit], comparison, fit)
    peaks = curve_peaks(axes)
    for fit in comparison.points:
        _lines(axes, comparison, fit, look[fit])
    for name, ax in axes.items():
        ax.set_ylim(0.0, peaks.get(name))
        ax.set_xlabel("\n".join(labels[name]))
        ax.set_yticks([])
        ax.locator_params(axis="x", nbins=5)
    figure.supylabel("density", fontsize=9)
    return figure


def densities(
    figure: Figure, axes: dict[str, Axes], draws: xr.Dataset, look: Look, comparison: Comparison, fit: str
) -> None:
    """Kernel densities of one fit's quantities on axes by name (arviz-plots)."""
    import arviz_plots

    is_reference = fit == comparison.reference
    resampled = comparison.draws[fit].attrs.get("draws") == "resampled"
    visuals: Any = {
        "dist": {"color": look.color, "linestyle": look.line, "width": 1.8 if is_reference else 1.3},
        "face": {"color": BLACK, "alpha": 0.12} if is_reference else False,
    }
    hidden: Any = (
        "credible_interval",
        "point_estimate",
        "point_estimate_text",
        "title",
        "rug",
        "remove_axis",
    )
    for name in draws.data_vars:
        column = draws[[name]]
        if float(column[name].max()) > float(column[name].min()):
            row = comparison.table.loc[(fit, name)]
            arviz_plots.plot_dist(
                column,
                kind="kde",
                plot_collection=collection(figure, axes, column),
                visuals={**visuals, **dict.fromkeys(hidden, False)},
                stats={"dist": {"bw": 0.9 * row["sd"] * max(row["ess"], 1.0) ** -0.2}} if resampled else {},
            )


def curve_peaks(axes: dict[str, Axes]) -> dict[str, float]:
    """Where each panel ends: a spike of a few repeated draws must not flatten the other curves."""
    found = {}
    for name, ax in axes.items():
        curves = [(line.get_color(), float(np.asarray(line.get_ydata()).max())) for line in ax.get_lines()]
        if curves:
            heights = sorted(height for _, height in curves)
            own = [height for color, height in curves if color == BLACK]  # the reference's
            usual = own[0] if own else heights[(len(heights) - 1) // 2]
            found[name] = 1.05 * min(heights[-1], CUT * usual)
    return found


def _lines(axes: dict[str, Axes], comparison: Comparison, fit: str, look: Look) -> None:
    means = comparison.table.loc[fit, "mean"]
    for name in axes.keys() & set(means.index):
        axes[name].axvline(means[name], color=look.color, linestyle=look.line, linewidth=1.3)
        axes[name].plot(
            [means[name]],
            [0.06],
            transform=axes[name].get_xaxis_transform(),
            color=look.color,
            marker=look.marker,
        )


__all__ = ["curve_peaks", "densities", "plot_marginals"]
