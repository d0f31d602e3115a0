"""Rank histograms and ECDF differences of a calibration, with simultaneous bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ppl_lvm.calibration import Calibration
from ppl_lvm.plots._choose import check_limit, pick
from ppl_lvm.plots._style import COLORS, FAINT, INK, WIDTH, blank, styled
from ppl_lvm.plots._text import plain, shorten

_GOOD, _OFF = COLORS[0], COLORS[1]
_BAND = "#d3dbe5"
_PROBABILITY = 0.95
_ROW = 1.5  # inches
_HEIGHTS = {
    "both": "count; ECDF difference",
    "ranks": "count",
    "ecdf": "ECDF difference",
}


@styled
def plot_calibration(
    calibration: Calibration,
    *,
    kind: Literal["both", "ranks", "ecdf"] = "both",
    quantities: Sequence[str] | None = None,
    max_quantities: int = 12,
) -> Figure:
    """Histograms of ranks and ECDF differences, one or two panels for each quantity.

    A histogram that is flat within the grey band is of a calibrated quantity; U-shaped: the posterior is too
    narrow; a hump: too wide; sloping up: too low, down: too high. The ECDF difference is ECDF(u) - u of the
    ranks on (0, 1); its band holds a whole calibrated curve with probability 0.95 (Saeilynoja et al. 2022).
    The histogram's band holds all bars together with 0.95 or more. Quantities that the table finds off are
    orange, with what is wrong in their title.

    Of too many quantities those of least p value are shown.

    Raises
    ------
    ValueError
        For an unknown kind, or quantities that the calibration does not have.
    """
    if kind not in ("both", "ranks", "ecdf"):
        raise ValueError(f"kind: expected 'both', 'ranks' or 'ecdf', got {kind!r}.")
    names, note = _chosen(calibration, quantities, max_quantities)
    wide = 2 if kind == "both" else 1
    across = min(len(names), 2 if kind == "both" else 4)
    rows = math.ceil(len(names) / across)
    any_off = bool((calibration.table.loc[names, "finding"] != "").any())
    figure = blank(
        _title(calibration), _caption(calibration, kind, note), _ROW * rows + 0.3, legend=_legend(any_off)
    )
    grid = figure.add_gridspec(rows, across * wide)
    size = max(abs(_difference(calibration, n)[1]).max() for n in names)
    size = 1.1 * max(size, _half_width(calibration))
    for i, name in enumerate(names):
        row, column = divmod(i, across)
        last = i >= len(names) - across
        axes = [figure.add_subplot(grid[row, wide * column + j]) for j in range(wide)]
        draw = {"both": (_histogram, _ecdf), "ranks": (_histogram,), "ecdf": (_ecdf,)}[kind]
        for ax, one in zip(axes, draw, strict=True):
            one(ax, calibration, name, size)
            ax.set_xlim(0, 1)
            ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
            ax.tick_params(labelbottom=last, length=2.5)
        _name(axes[0], calibration, name, WIDTH / across - 0.3, any_off)
    figure.supxlabel("rank of the true value among posterior draws, as a share", fontsize=9)
    figure.supylabel(_HEIGHTS[kind], fontsize=9)
    return figure


def _chosen(calibration: Calibration, asked: Sequence[str] | None, limit: int) -> tuple[list[str], str]:
    check_limit("max_quantities", limit)
    every = [str(q) for q in calibration.table.index]
    names = every if asked is None else pick(every, asked)
    if len(names) <= limit:
        return names, ""
    worst = calibration.table.loc[names, "p_value"].sort_values(kind="stable")
    kept = set(worst.index[:limit])
    return [n for n in names if n in kept], f"Of {len(names)} quantities, the {limit} of least p value."


def _title(calibration: Calibration) -> str:
    about = calibration.about
    verdict = "passed" if calibration.passed else "failed"
    return f"Calibration of {plain(about['engine'])} on {plain(about['model'])}: {verdict}"


def _caption(calibration: Calibration, kind: str, note: str) -> str:
    n = calibration.simulations.sizes["simulation"]
    parts = {
        "both": "Left: histogram of ranks. Right: their ECDF minus the diagonal.",
        "ranks": "Histograms of ranks.",
        "ecdf": "ECDF of ranks minus the diagonal.",
    }
    shape = "U: posterior too narrow; hump: too wide; slope up: too low, down: too high."
    text = f"{n} simulations. {parts[kind]} {shape}" if kind != "ecdf" else f"{n} simulations. {parts[kind]}"
    return f"{text} {note}".strip()


def _legend(any_off: bool) -> list[tuple[Any, str]]:
    lines = [(_GOOD, "no fault found"), *([(_OFF, "off beyond chance")] if any_off else [])]
    found: list[tuple[Any, str]] = [(Line2D([], [], color=c, linewidth=3), text) for c, text in lines]
    band = Patch(facecolor=_BAND, edgecolor="none")
    return [*found, (band, "95 % of calibrated runs lie within, all places together")]


def _color(calibration: Calibration, name: str) -> str:
    return _OFF if calibration.table.loc[name, "finding"] else _GOOD


def _name(axes: Axes, calibration: Calibration, name: str, room: float, any_off: bool) -> None:
    """The quantity over its panels; a second line says what is off, and is there for all where any is."""
    finding = str(calibration.table.loc[name, "finding"]) or (" " if any_off else "")
    lines = [
        shorten(plain(name), room),
        *([shorten(finding, room) if finding.strip() else finding] if finding else []),
    ]
    axes.set_title("\n".join(lines), color=INK, linespacing=1.15)


def _histogram(axes: Axes, calibration: Calibration, name: str, size: float) -> None:
    counts, (low, high) = calibration.histogram(name, _PROBABILITY)
    edges = np.linspace(0, 1, len(counts) + 1)
    axes.axhspan(low, high, color=_BAND, linewidth=0, zorder=0)
    axes.axhline(counts.sum() / len(counts), color=FAINT, linewidth=0.7, zorder=1)
    color = _color(calibration, name)
    axes.stairs(counts, edges, fill=True, color=color, alpha=0.35, zorder=2)
    axes.stairs(counts, edges, color=color, linewidth=1.2, zorder=3)
    axes.set_ylim(0, 1.08 * max(high, counts.max()))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _difference(calibration: Calibration, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Points z, and ECDF(z) - z, with the ends."""
    z = np.linspace(0, 1, 401)
    u = np.sort(calibration.simulations["pit"].sel(quantity=name).values)
    return z, np.searchsorted(u, z, side="right") / len(u) - z


def _half_width(calibration: Calibration) -> float:
    bands = calibration.bands(_PROBABILITY)
    return float(np.maximum(np.abs(bands.low - bands.z), np.abs(bands.high - bands.z)).max())


def _ecdf(axes: Axes, calibration: Calibration, name: str, size: float) -> None:
    bands = calibration.bands(_PROBABILITY)
    z = np.concatenate([[0], bands.z, [1]])
    low, high = (np.concatenate([[0], edge - bands.z, [0]]) for edge in (bands.low, bands.high))
    axes.fill_between(z, low, high, color=_BAND, linewidth=0, zorder=0)
    axes.axhline(0, color=FAINT, linewidth=0.7, zorder=1)
    axes.step(*_difference(calibration, name), color=_color(calibration, name), linewidth=1.3, zorder=2)
    axes.set_ylim(-size, size)
    step = next(s for s in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if s <= size)
    axes.set_yticks([-step, 0, step], [f"\u2212{step:g}", "0", f"{step:g}"])


__all__ = ["plot_calibration"]
