"""The ladder of evidence: bounds and estimates of one log evidence, told apart at a glance."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ppl_lvm.core import Evidence
from ppl_lvm.evidence import EvidenceLadder
from ppl_lvm.plots._style import BLACK, COLORS, FAINT, SHADE, blank, styled
from ppl_lvm.plots._text import plain, shorten

KINDS = {
    "lower_bound": (COLORS[0], ">", "lower bound"),
    "upper_bound": (COLORS[1], "<", "upper bound"),
    "estimate": (COLORS[2], "o", "estimate"),
    "exact": (BLACK, "D", "exact"),
}
_SIGNS = {"exact": "=", "lower_bound": "\u2265", "upper_bound": "\u2264", "estimate": "\u2248"}
_ROW = 0.27  # inches
_REACH = 4.0  # how far the axis goes below the settled values, in units of their spread


@styled
def plot_ladder(ladder: EvidenceLadder) -> Figure:
    """Every rung's log evidence in nats with two standard errors: bounds as triangles, estimates as dots.

    A bound's triangle points to where the evidence lies. A dashed line is the exact value; without one, the
    grey band spans two errors of the estimate whose error is smallest. Values far below the others
    are arrows at the edge of the axis; the figures are on the right.

    Raises
    ------
    TypeError, ValueError
        If ``ladder`` is no :class:`ppl_lvm.evidence.EvidenceLadder`, or has no rung.
    """
    if not isinstance(ladder, EvidenceLadder):
        raise TypeError(f"ladder: expected what lvm.evidence_ladder returns, got {type(ladder).__name__}.")
    found = {str(n): ladder.evidence[str(n)] for n in ladder.table.index if str(n) in ladder.evidence}
    if not found:
        raise ValueError("ladder: no rung gives a log evidence; the table's notes say why.")
    best = _best(found)
    low, high = _limits(found)
    missing = [str(n) for n in ladder.table.index if str(n) not in found]
    caption = "Bars are two Monte Carlo standard errors; a triangle points to where the evidence lies."
    if best is not None:
        caption += " Dashed: exact." if found[best].kind == "exact" else f" Grey band: {best}."
    caption += " Arrows: values beyond the axis." if any(e.nats < low for e in found.values()) else ""
    caption += f" Missing: {', '.join(missing)}." if missing else ""
    used = [k for k in KINDS if any(e.kind == k for e in found.values())]
    title = f"Log evidence of {shorten(plain(ladder.model), 5.0)}"
    figure = blank(title, caption, _ROW * len(found) + 0.6, legend=[(_handle(k), KINDS[k][2]) for k in used])
    axes = figure.add_subplot()
    axes.set_xlim(low, high)
    if best is not None and found[best].kind == "exact":
        axes.axvline(found[best].nats, color=BLACK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    elif best is not None:
        axes.axvspan(*found[best].interval(), color=SHADE, linewidth=0, zorder=0)
    for y, evidence in enumerate(found.values()):
        _rung(axes, y, evidence, low)
    _labels(axes, found)
    return figure


def _rung(axes: Axes, y: int, evidence: Evidence, low: float) -> None:
    color, marker, _ = KINDS[evidence.kind]
    axes.axhline(y, color=FAINT, linewidth=0.3, zorder=0)
    if evidence.nats < low:
        width = axes.get_xlim()[1] - low
        axes.annotate(
            "",
            xy=(low, y),
            xytext=(low + 0.05 * width, y),
            arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0},
        )
        return
    axes.errorbar(
        evidence.nats, y, xerr=2 * evidence.std_error, color=color, marker=marker, markersize=5.5, capsize=2.5
    )


def _labels(axes: Axes, found: dict[str, Evidence]) -> None:
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_yticks(range(len(found)), list(found))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("method")
    axes.set_xlabel("log p(x) of the whole data set (nats)")
    axes.locator_params(axis="x", nbins=6)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(found)), [_figures(e) for e in found.values()])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)


def _figures(evidence: Evidence) -> str:
    value = f"{_SIGNS[evidence.kind]} {evidence.nats:.2f}".replace("-", "\u2212")
    return value if evidence.kind == "exact" else f"{value} \u00b1 {evidence.std_error:.2f}"


def _handle(kind: str) -> Line2D:
    color, marker, _ = KINDS[kind]
    return Line2D([], [], color=color, marker=marker, markersize=5.5)


def _best(found: dict[str, Evidence]) -> str | None:
    """The exact value, else the estimate of the smallest error."""
    exact = [n for n, e in found.items() if e.kind == "exact"]
    estimates = sorted((e.std_error, n) for n, e in found.items() if e.kind == "estimate")
    return exact[0] if exact else estimates[0][1] if estimates else None


def _limits(found: dict[str, Evidence]) -> tuple[float, float]:
    """Room for the upper half of the values and what is near them; a poor bound must not flatten the rest."""
    values = np.array([e.nats for e in found.values()])
    ends = np.array([e.nats + s * 2 * e.std_error for e in found.values() for s in (-1, 1)])
    high = float(ends.max())
    settled = values[values >= np.median(values)]
    spread = max(high - float(settled.min()), 0.25)
    low = max(float(ends.min()), high - (1 + _REACH) * spread)
    room = 0.05 * (high - low)
    return low - room, high + room


__all__ = ["plot_ladder"]
