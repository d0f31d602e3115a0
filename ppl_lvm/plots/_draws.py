"""Pictures of one fit's draws and weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ppl_lvm.diagnostics import psis
from ppl_lvm.plots._arviz import collection
from ppl_lvm.plots._choose import fit_columns
from ppl_lvm.plots._style import COLORS, FAINT, INK, WIDTH, Look, blank, key, looks, panels, styled
from ppl_lvm.plots._text import plain, wrap
from ppl_lvm.result import Fit

if TYPE_CHECKING:
    import xarray as xr

MOST_RANKED = 300
"""Draws of a chain that are ranked; of more, evenly spaced ones."""


@styled
def plot_trace(fit: Fit, *, var_names: Sequence[str] | None = None, max_quantities: int = 6) -> Figure:
    """Draws in their order, a colour for each chain; divergent transitions are ticks at the foot.

    Parameters
    ----------
    fit
        A fit by chains (NUTS).
    var_names
        Sites or single quantities (as ``fit.summary()`` names them); None: all.
    max_quantities
        Most quantities shown; of more, those of largest R-hat.

    Raises
    ------
    ValueError
        For a point, for draws that are no chain, and for unknown names.
    """
    import arviz_plots

    draws, note = _chains(fit, var_names, max_quantities, "plot_trace", least=1)
    figure, axes, look = _grid(
        draws, "Traces", f"A colour for each chain. {note}", fit, columns=2, styles=False
    )
    visuals: Any = {
        "trace": {"width": 0.5, "alpha": 0.6},
        "divergence": {"color": INK, "size": 40},
        "title": False,
        "xlabel": False,
        "ticklabels": False,
    }
    aes = _by_chain(look)
    arviz_plots.plot_trace(
        _with_divergences(fit, draws), plot_collection=collection(figure, axes, draws, **aes), visuals=visuals
    )
    for name, ax in axes.items():
        for line in ax.get_lines():
            line.set_rasterized(True)  # thousands of points: pixels are a tenth of the size in an SVG
        ax.set_title("\n".join(wrap(plain(name), WIDTH / 2 - 0.6)), linespacing=1.1)
        ax.set_xlim(0, max(draws.sizes["draw"] - 1, 1))
    figure.supxlabel("draw", fontsize=9)
    figure.supylabel("value", fontsize=9)
    return figure


@styled
def plot_rank(fit: Fit, *, var_names: Sequence[str] | None = None, max_quantities: int = 6) -> Figure:
    """Ranks of each chain's draws among all, as the difference of their ECDF from uniform (arviz-plots).

    Chains that sample one distribution stay in the grey 99 % band (Säilynoja, Bürkner and Vehtari 2022).
    Of long chains evenly spaced draws are ranked. Arguments and errors as for :func:`plot_trace`; at least
    two chains are needed.
    """
    import arviz_plots

    draws, note = _chains(fit, var_names, max_quantities, "plot_rank", least=2)
    every = -(-draws.sizes["draw"] // MOST_RANKED)  # the band's cost grows with the square of the draws
    draws = draws.isel(draw=slice(None, None, every))
    thinned = f" Every {every}th draw." if every > 1 else ""
    caption = f"Chains that sample one distribution stay in the grey 99 % band.{thinned} {note}"
    figure, axes, look = _grid(draws, "Ranks by chain", caption, fit, columns=3, styles=True)
    aes = _by_chain(look)
    arviz_plots.plot_rank(
        draws,
        plot_collection=collection(figure, axes, draws, **aes),
        visuals={"title": False, "xlabel": False, "remove_axis": False, "ecdf_lines": {"width": 1.2}},
    )
    for name, ax in axes.items():
        for line, own in zip(ax.get_lines(), look.values(), strict=False):  # in the order of chains
            line.set_linestyle(own.line)
        ax.set_title("\n".join(wrap(plain(name), WIDTH / 3 - 0.6)), linespacing=1.1)
        ax.set_xlim(0, 1)
    figure.supxlabel("fractional rank among all chains", fontsize=9)
    figure.supylabel("difference from uniform", fontsize=9)
    return figure


def _chains(
    fit: Fit, asked: Sequence[str] | None, limit: int, what: str, least: int
) -> tuple[xr.Dataset, str]:
    kind = fit.posterior.attrs.get("draws")
    if kind != "chain":
        raise ValueError(
            f"{what}: the draws of {type(fit.engine).__name__} are {kind}, not a chain, so their order says "
            "nothing; use plot_loss or plot_khat."
        )
    if fit.posterior.sizes["chain"] < least:
        raise ValueError(f"{what}: needs at least {least} chains to compare; run NUTS(num_chains=4).")
    return fit_columns(fit, asked, limit)


def _grid(
    draws: xr.Dataset, title: str, caption: str, fit: Fit, columns: int, *, styles: bool
) -> tuple[Figure, dict[str, Any], dict[int, Look]]:
    names = [str(v) for v in draws.data_vars]
    chains = list(range(draws.sizes["chain"]))
    look = looks(chains)
    if not styles:
        look = {c: dataclasses.replace(own, line="-") for c, own in look.items()}
    legend = [(key(look[c], marker=False), f"chain {c}") for c in chains] if len(chains) > 1 else []
    rows = -(-len(names) // min(columns, len(names)))
    figure = blank(
        f"{title} of {type(fit.engine).__name__} on {fit.backend}", caption, 1.75 * rows + 0.2, legend=legend
    )
    return figure, dict(zip(names, panels(figure, len(names), columns), strict=True)), look


def _by_chain(look: dict[int, Look]) -> dict[str, Any]:
    return {"color": (["chain"], [own.color for own in look.values()]), "overlay": (["chain"], None)}


def _with_divergences(fit: Fit, draws: xr.Dataset) -> xr.DataTree:
    import xarray as xr

    groups = {"posterior": draws}
    if fit.sample_stats is not None and "diverging" in fit.sample_stats:
        stats = fit.sample_stats[["diverging"]]
        groups["sample_stats"] = stats.assign_coords({d: draws[d] for d in ("chain", "draw")})
    return xr.DataTree.from_dict(groups)


@styled
def plot_khat(fit: Fit) -> Figure:
    """Importance weights p / q, sorted, on logarithmic axes, with the Pareto k-hat of their tail.

    A weight of 1 is the mean. Dots are the weights as they came; the line is what Pareto smoothing makes of
    them (Vehtari et al. 2024). The steeper the left end, the more a few draws decide.

    Raises
    ------
    ValueError
        If the fit has no importance weights (chains and points have none).
    """
    stats = fit.sample_stats
    if stats is None or "log_q" not in stats or "log_p" not in stats:
        raise ValueError(
            f"plot_khat: a {type(fit.engine).__name__} fit has no importance weights; pass one by SVI or "
            "ImportanceSampling."
        )
    log_w = np.asarray((stats["log_p"] - stats["log_q"]).values).reshape(-1)
    smoothed, khat = psis(log_w)
    size = len(log_w)
    limit = min(1 - 1 / math.log10(size), 0.7)
    log_w = log_w - np.logaddexp.reduce(log_w)
    middle = int(np.argsort(log_w)[size // 2])
    smoothed = (
        smoothed + log_w[middle] - smoothed[middle]
    )  # smoothing changes the tail only: the rest lies on the dots
    raw, smooth = (np.sort(size * np.exp(w))[::-1] for w in (log_w, smoothed))
    seen = raw > 1e-6
    title = f"Importance weights of {type(fit.engine).__name__}: k-hat = {khat:.2f}"
    verdict = (
        "so estimates from them can be trusted"
        if khat < limit
        else "so estimates from them cannot be trusted"
    )
    caption = (
        f"k-hat is {'below' if khat < limit else 'not below'} {limit:.2f}, {verdict}. {size} weights p/q in "
        "units of their mean, largest first."
        + ("" if seen.all() else " Weights under a millionth are left out.")
    )
    dots = key(looks([0])[0], line=False)
    line = key(looks([0, 1])[1], marker=False)
    figure = blank(title, caption, 2.9, legend=[(dots, "weights"), (line, "Pareto-smoothed")])
    axes = figure.add_subplot()
    rank = np.arange(1, size + 1)
    axes.plot(
        rank[seen], raw[seen], color=COLORS[0], marker="o", markersize=3.5, linestyle="none", rasterized=True
    )
    axes.plot(rank[seen], smooth[seen], color=COLORS[1], linestyle="--", linewidth=1.5)
    axes.axhline(1.0, color=FAINT, linewidth=0.6, zorder=0)
    for axis, setter in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        setter("log")
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("rank of the draw (log scale)")
    axes.set_ylabel("weight / mean weight (log scale)")
    return figure


__all__ = ["plot_khat", "plot_rank", "plot_trace"]
