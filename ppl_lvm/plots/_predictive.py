"""Replicated data over the observed, column by column."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ppl_lvm.comparison_checks import Column, replicated_columns
from ppl_lvm.plots._arviz import collection
from ppl_lvm.plots._style import BLACK, COLORS, WIDTH, Look, blank, key, panels, styled
from ppl_lvm.plots._text import plain, shorten, wrap
from ppl_lvm.result import Fit

MOST_PANELS = 6


@styled
def plot_predictive(fit: Fit, *, num_draws: int = 40, seed: int = 0) -> Figure:
    """Data sets drawn from the posterior predictive over the data that were seen (arviz-plots).

    Kernel densities of continuous columns, cumulative distributions of whole numbers; at most six columns.

    Parameters
    ----------
    fit
        Any fit of a model that can be simulated from; a point predicts at its parameters.
    num_draws, seed
        Replicated data sets, and the seed that they are drawn with.

    Raises
    ------
    ValueError
        For a fit loaded without its data, or a model that cannot be simulated from.
    """
    every = list(replicated_columns(fit, num_draws=num_draws, seed=seed))
    shown = every[:MOST_PANELS]
    if not shown:
        raise ValueError(f"plot_predictive: {fit.model.describe()} has no observed values to replicate.")
    whole = all(_is_whole(c) for c in shown)
    caption = f"{'Cumulative distributions' if whole else 'Densities'} of {num_draws} replicated data sets."
    caption += f" The first {len(shown)} of {len(every)} columns." if len(every) > len(shown) else ""
    handles = [(key(Look(BLACK, "", "-"), marker=False), "data"),
               (key(Look(COLORS[0], "", "-"), marker=False), "replicated")]  # fmt: skip
    columns = min(3, len(shown))
    labels = {c.label: wrap(plain(c.label), (WIDTH - 0.6) / columns - 0.35) for c in shown}
    rows = -(-len(shown) // columns)
    height = rows * (1.3 + 0.15 * max(len(t) for t in labels.values())) + 0.2
    name = shorten(f"{type(fit.engine).__name__} on {fit.backend}", 4)
    figure = blank(f"Data and replicates by {name}", caption, height, legend=handles)
    for column, axes in zip(shown, panels(figure, len(shown), columns), strict=True):
        _panel(figure, axes, column, "ecdf" if whole else "kde")
        axes.set_xlabel("\n".join(labels[column.label]))
        axes.locator_params(axis="x", nbins=5)
        if not whole:
            axes.set_yticks([])
    figure.supylabel("share at most" if whole else "density", fontsize=9)
    return figure


def _is_whole(column: Column) -> bool:
    return bool((column.observed == np.round(column.observed)).all())


def _panel(figure: Figure, axes: Any, column: Column, kind: Any) -> None:
    import arviz_plots
    import xarray as xr

    dims = ("chain", "draw", "row")
    tree = xr.DataTree.from_dict(
        {
            "posterior_predictive": xr.Dataset({"x": (dims, column.replicated[None])}),
            "observed_data": xr.Dataset({"x": (("row",), column.observed)}),
        }
    )
    stacked = tree["posterior_predictive"].to_dataset().stack(sample=("chain", "draw"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the data look discrete or binary, which the kind minds
        arviz_plots.plot_ppc_dist(
            tree,
            kind=kind,
            num_samples=len(column.replicated),
            plot_collection=collection(figure, {"x": axes}, stacked, overlay_ppc=(["sample"], None)),
            visuals={
                "predictive_dist": {"color": COLORS[0], "alpha": 0.25, "width": 0.6},
                "observed_dist": {"color": BLACK, "width": 1.6},
                "title": False,
                "remove_axis": False,
            },
        )
    lines = axes.get_lines()
    for line in lines[:-1]:
        line.set_rasterized(True)  # forty curves a panel: pixels are a tenth of the size in an SVG


__all__ = ["plot_predictive"]
