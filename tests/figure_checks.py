"""What every figure must have: labels, text of a readable size that overlaps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

LEAST_POINTS = 9.0
# A pixel of rounding on each side at 100 pixels an inch.
SLACK = 2.0


def visible_axes(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible() and axes.axison]


def ticks_with_text(axis: Any) -> list[Text]:
    """Labels of the ticks that are drawn: those inside the view."""
    low, high = sorted(axis.get_view_interval())
    inside = [t for t in axis.get_major_ticks() if low - 1e-9 <= t.get_loc() <= high + 1e-9]
    labels = [label for t in inside for label in (t.label1, t.label2)]
    return [label for label in labels if label.get_visible() and label.get_text()]


def texts_of(figure: Figure) -> Iterator[Text]:
    """Every text that is drawn."""
    found: list[Text] = list(figure.texts)
    for legend in figure.legends:
        found += legend.get_texts()
    for axes in visible_axes(figure):
        for part in (axes, *axes.child_axes):
            for axis in (part.xaxis, part.yaxis):
                found += [axis.label, axis.get_offset_text(), *ticks_with_text(axis)]
        found += [axes.title, axes._left_title, axes._right_title, *axes.texts]  # type: ignore[attr-defined]
        legend_here = axes.get_legend()
        found += legend_here.get_texts() if legend_here else []
    found += [text for axes in figure.axes if axes.get_label() == "graph" for text in axes.texts]
    seen: set[int] = set()
    for text in found:
        if text.get_visible() and text.get_text().strip() and id(text) not in seen:
            seen.add(id(text))
            yield text


def boxes_of(figure: Figure) -> list[tuple[str, Bbox]]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts_of(figure)]


def overlaps(boxes: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a pixel's rounding both ways."""
    found = []
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            if wide > SLACK and high > SLACK:
                found.append((one, other))
    return found


def has_label(axes: Axes, figure: Figure, which: str) -> bool:
    """Its own label, the figure's, or none needed: an inner panel without tick labels, by a labelled one."""
    overall = figure.get_supxlabel() if which == "x" else figure.get_supylabel()
    axis = axes.xaxis if which == "x" else axes.yaxis
    if axis.label.get_text() or overall:
        return True
    place = axes.get_subplotspec()
    if place is None or ticks_with_text(axis):
        return False
    span = "colspan" if which == "x" else "rowspan"
    for other in visible_axes(figure):
        there = other.get_subplotspec()
        if there is not None and getattr(there, span) == getattr(place, span):
            label = (other.xaxis if which == "x" else other.yaxis).label.get_text()
            if label:
                return True
    return False
