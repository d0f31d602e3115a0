"""Forest of every fit's mean and interval, quantity by quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppl_lvm.comparison import MAX_BIAS, Comparison
from ppl_lvm.plots._choose import INTERVAL, chosen, comparison_columns, split_label
from ppl_lvm.plots._style import FAINT, SHADE, WIDTH, Look, blank, key, looks, styled
from ppl_lvm.plots._text import plain, shorten

CLIP = 6.0
"""Reference sds at which the picture ends; what lies beyond is an arrow at the edge."""
_STEP, _GAP, _HEAD = 0.057, 0.075, 0.19  # inches: a fit, the space around a quantity, a site's name


@dataclass(frozen=True)
class Mark:
    """What is drawn of one quantity of one fit; ``low`` and ``high`` are NaN for a point."""

    mean: float
    low: float
    high: float


Marks = Mapping[str, Mapping[str, Mark]]


@styled
def plot_comparison(
    comparison: Comparison, *, quantities: Sequence[str] | None = None, max_quantities: int = 30
) -> Figure:
    """Mean and 89 % equal-tailed interval of every quantity, for all fits side by side (a forest).

    With a reference, everything is in the reference's posterior sds around its mean, so that one axis
    serves all quantities, and the shaded band is the largest bias that a verdict forgives. Without one
    there is a panel for each site, in the units of the quantities. Points have a marker and no interval.

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
    legend = [
        (key(look[n], line=n in comparison.draws), plain(n) + ("" if n in comparison.draws else " (a point)"))
        for n in comparison.fits
    ]
    intervals = f"Lines are {INTERVAL * 100:.0f} % equal-tailed intervals, markers are means."
    if comparison.reference is None:
        return _by_site(comparison, names, look, legend, f"{intervals} {note}")
    reference = shorten(plain(comparison.reference), 2.5)
    marks = _scaled(comparison, names, _marks(comparison, names))
    rows = _Rows(names, len(look))
    caption = f"{intervals} Grey band: bias of at most {MAX_BIAS} sd, which verdicts forgive. {note}" + (
        f" Arrows: means beyond {CLIP:.0f} sds." if _beyond(marks) else ""
    )
    figure = blank(f"Every fit against {reference}", caption, rows.height + 0.55, legend=legend)
    axes = figure.add_subplot()
    axes.axvspan(-MAX_BIAS, MAX_BIAS, color="#d5dbe3", zorder=0.5, linewidth=0)
    axes.axvline(0.0, color=FAINT, linewidth=0.8, zorder=1)
    rows.draw(axes, marks, look, clip=True)
    low, high = _limits(marks)
    axes.set_xlim(low, high)
    axes.set_xlabel(f"distance from the mean of {reference}, in its posterior sds")
    axes.set_ylabel("quantity")
    return figure


def _by_site(
    comparison: Comparison, names: list[str], look: Mapping[str, Look], legend: list, caption: str
) -> Figure:
    """A panel for each site, in its own units."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split_label(name)[0], []).append(name)
    rows = [_Rows(group, len(look), heads=False) for group in groups.values()]
    heights = [r.height for r in rows]
    figure = blank(
        "Every fit, in the units of each quantity", caption, sum(heights) + 0.62 * len(rows), legend=legend
    )
    grid = figure.add_gridspec(len(rows), 1, height_ratios=[h + 0.05 for h in heights])
    marks = _marks(comparison, names)
    for i, (site, own) in enumerate(zip(groups, rows, strict=True)):
        axes = figure.add_subplot(grid[i])
        own.draw(axes, marks, look)
        axes.set_xlabel(plain(site))
    figure.supylabel("quantity", fontsize=9)
    return figure


# ---- what is drawn -------------------------------------------------------------------------------


def _marks(comparison: Comparison, names: Sequence[str]) -> dict[str, dict[str, Mark]]:
    """Means from the table, intervals of the draws by arviz-stats; by fit and quantity."""
    import arviz_stats  # noqa: F401  (adds .azstats to xarray)

    found: dict[str, dict[str, Mark]] = {}
    for fit in comparison.fits:
        means = (
            comparison.table.loc[fit, "mean"] if fit in comparison.table.index.get_level_values("fit") else {}
        )
        ends = {}
        if fit in comparison.draws:
            columns = comparison_columns(comparison, fit, names)
            intervals = columns.azstats.eti(prob=INTERVAL, dim=["chain", "draw"])
            ends = {str(k): v.values for k, v in intervals.data_vars.items()}
        nothing = (np.nan, np.nan)
        found[fit] = {
            q: Mark(float(means[q]), *map(float, ends.get(q, nothing))) for q in names if q in means
        }
    return found


def _scaled(comparison: Comparison, names: Sequence[str], marks: Marks) -> dict[str, dict[str, Mark]]:
    """In the reference's sds around its mean."""
    centre = comparison.table.loc[comparison.reference]
    out: dict[str, dict[str, Mark]] = {}
    for fit, own in marks.items():
        out[fit] = {}
        for q, mark in own.items():
            mean, sd = float(centre.loc[q, "mean"]), float(centre.loc[q, "sd"])
            out[fit][q] = Mark((mark.mean - mean) / sd, (mark.low - mean) / sd, (mark.high - mean) / sd)
    return out


def _beyond(marks: Marks) -> bool:
    return any(abs(m.mean) > CLIP for own in marks.values() for m in own.values())


def _limits(marks: Marks) -> tuple[float, float]:
    ends = np.array([(m.mean, m.low, m.high) for own in marks.values() for m in own.values()]).ravel()
    ends = ends[np.isfinite(ends)]
    low, high = max(float(ends.min()), -CLIP), min(float(ends.max()), CLIP)
    room = 0.03 * (high - low)
    return low - room, high + room


class _Rows:
    """Places of quantities from top to bottom, in inches, so that text and marks never crowd."""

    def __init__(self, names: Sequence[str], num_fits: int, *, heads: bool = True) -> None:
        self.block = max(_STEP * num_fits + _GAP, 0.19)
        self.num_fits = num_fits
        self.ticks: list[tuple[float, str, bool]] = []  # place, text, whether it is a site's name
        self.places: dict[str, float] = {}
        sites = [split_label(n)[0] for n in names]
        at, last = 0.0, None
        for name, site in zip(names, sites, strict=True):
            entry = split_label(name)[1]
            if heads and entry and site != last:
                self.ticks.append((at + _HEAD / 2, site, True))
                at += _HEAD
            self.places[name] = at + self.block / 2
            self.ticks.append((self.places[name], entry or site, not entry))
            at, last = at + self.block, site
        self.height = at

    def draw(self, axes: Axes, marks: Marks, look: Mapping[str, Look], *, clip: bool = False) -> None:
        for i, place in enumerate(self.places.values()):
            if i % 2 == 0:
                axes.axhspan(
                    place - self.block / 2, place + self.block / 2, color=SHADE, zorder=0, linewidth=0
                )
        for i, (fit, own) in enumerate(marks.items()):
            shift = (i - (self.num_fits - 1) / 2) * _STEP
            for name in own.keys() & self.places.keys():
                shown = _clipped(own[name], look[fit]) if clip else (own[name], look[fit])
                _draw_mark(axes, self.places[name] + shift, *shown)
        axes.set_ylim(self.height, 0.0)
        texts = [shorten(plain(text), WIDTH * 0.42) for _, text, _ in self.ticks]
        axes.set_yticks([place for place, _, _ in self.ticks], texts)
        for label, (_, _, head) in zip(axes.get_yticklabels(), self.ticks, strict=True):
            label.set_fontweight("bold" if head else "normal")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)


def _draw_mark(axes: Axes, y: float, mark: Mark, look: Look) -> None:
    axes.plot([mark.low, mark.high], [y, y], color=look.color, linestyle=look.line, linewidth=1.2, zorder=2)
    axes.plot(
        [mark.mean], [y], color=look.color, marker=look.marker, markersize=3.4, linestyle="none", zorder=3
    )


def _clipped(mark: Mark, look: Look) -> tuple[Mark, Look]:
    """The mark within the picture: an arrow at the edge instead of a mean beyond it."""
    if abs(mark.mean) <= CLIP:
        return mark, look
    edge = CLIP if mark.mean > 0 else -CLIP
    return Mark(edge, mark.low, mark.high), Look(look.color, ">" if edge > 0 else "<", look.line)


__all__ = ["plot_comparison"]
