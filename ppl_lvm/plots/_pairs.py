"""Pairs of quantities, all fits in one place.

In the style of arviz-plots' ``plot_pair``, whose grid takes one model only: the densities are arviz-plots',
the scatter is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppl_lvm.comparison import Comparison
from ppl_lvm.plots._choose import chosen, comparison_columns, least_settled
from ppl_lvm.plots._marginals import curve_peaks, densities
from ppl_lvm.plots._style import WIDTH, Look, blank, key, looks, styled
from ppl_lvm.plots._text import plain, shorten

if TYPE_CHECKING:
    import xarray as xr

MOST_FITS, MOST_DRAWS = 4, 300


@styled
def plot_pairs(
    comparison: Comparison, *, quantities: Sequence[str] | None = None, max_quantities: int = 4
) -> Figure:
    """Draws of every two of a few quantities, with their densities on the diagonal.

    Correlations, curved ridges and separate modes show here that no marginal shows. At most four fits: the
    reference first, then in their order; up to 300 evenly spaced draws of each. Points are large markers.

    Parameters
    ----------
    comparison
        The result of :func:`ppl_lvm.compare`.
    quantities
        Sites or single quantities (as the table names them); None: all.
    max_quantities
        Most quantities shown, at least 2; of more, those on which some fit is furthest from the reference
        (without one, those of smallest effective size).

    Raises
    ------
    ValueError
        For unknown quantities, a single one, or a comparison of points only.
    """
    if not comparison.draws:
        raise ValueError("plot_pairs: points have no draws to show in pairs; add a fit by SVI or NUTS.")
    names, note = _names(comparison, quantities, max_quantities)
    if len(names) < 2:
        raise ValueError("plot_pairs: a pair takes two quantities; there is one.")
    look = looks(comparison.fits, comparison.reference)
    order = sorted(comparison.fits, key=lambda n: n != comparison.reference)
    fits = [n for n in order if n in comparison.draws][:MOST_FITS]
    points = list(comparison.points)
    left = len(comparison.draws) - len(fits)
    caption = f"Up to {MOST_DRAWS} draws of each fit, densities on the diagonal. {note}" + (
        f" {left} more fits are left out." if left else ""
    )
    legend = [
        (key(look[n], line=False), plain(n) + (" (a point)" if n in points else "")) for n in fits + points
    ]
    size = (WIDTH - 0.5) / len(names)
    figure = blank("Pairs of quantities", caption, size * len(names) * 0.86 + 0.4, legend=legend)
    axes = _grid(figure, names)
    for fit in reversed(fits):  # the reference last, on top
        columns = comparison_columns(comparison, fit, names)
        _scatter(axes, names, columns, look[fit])
        diagonal = {n: axes[n, n] for n in names if n in columns}
        densities(figure, diagonal, columns, look[fit], comparison, fit)
    peaks = curve_peaks({n: axes[n, n] for n in names})
    for fit in points:
        _mark(axes, names, comparison.table.loc[fit, "mean"], look[fit])
    _labels(axes, names, size, peaks)
    return figure


def _names(comparison: Comparison, asked: Sequence[str] | None, limit: int) -> tuple[list[str], str]:
    if comparison.reference is None and asked is None:
        return least_settled(comparison, limit)
    return chosen(comparison, asked, limit)


def _grid(figure: Figure, names: list[str]) -> dict[tuple[str, str], Axes]:
    """Axes of the lower triangle and the diagonal by (row, column); a column shares its x axis."""
    grid = figure.add_gridspec(len(names), len(names))
    found: dict[tuple[str, str], Axes] = {}
    for j, column in enumerate(names):
        for i, row in enumerate(names[j:], start=j):
            shared: Any = {"sharex": found[column, column]} if i > j else {}
            if i > j and j > 0:
                shared["sharey"] = found[row, names[0]]
            found[row, column] = figure.add_subplot(grid[i, j], **shared)
    return found


def _scatter(axes: dict[tuple[str, str], Axes], names: list[str], columns: xr.Dataset, look: Look) -> None:
    for (row, column), ax in axes.items():
        if row != column and row in columns and column in columns:
            x, y = (columns[n].values.reshape(-1) for n in (column, row))
            at = np.linspace(0, len(x) - 1, min(len(x), MOST_DRAWS)).astype(int)
            ax.plot(
                x[at],
                y[at],
                color=look.color,
                marker=look.marker,
                linestyle="none",
                markersize=2.6,
                markeredgewidth=0,
                alpha=0.45,
                rasterized=True,
            )


def _mark(axes: dict[tuple[str, str], Axes], names: list[str], means: Any, look: Look) -> None:
    for (row, column), ax in axes.items():
        if row in means and column in means:
            if row == column:
                ax.axvline(means[row], color=look.color, linestyle=look.line, linewidth=1.2)
            else:
                ax.plot(
                    means[column], means[row], color=look.color, marker=look.marker, markersize=8,
                    markeredgecolor="white",
                )  # fmt: skip


def _labels(
    axes: dict[tuple[str, str], Axes], names: list[str], size: float, peaks: dict[str, float]
) -> None:
    for (row, column), ax in axes.items():
        ax.locator_params(nbins=4)
        ax.tick_params(axis="x", labelbottom=row == names[-1], rotation=30)
        ax.tick_params(axis="y", labelleft=column == names[0] and row != column)
        if row == column:
            ax.set_yticks([])
            ax.set_ylim(0.0, peaks.get(row))
            ax.spines["left"].set_visible(False)
            if column == names[0]:
                ax.set_ylabel("density")
            ax.set_title(shorten(plain(row), size - 0.1))
        elif column == names[0]:
            ax.set_ylabel(shorten(plain(row), size * 0.8))
        if row == names[-1]:
            ax.set_xlabel(shorten(plain(column), size - 0.1))


__all__ = ["plot_pairs"]
