"""One look for every picture: colours, fonts, the place of title, caption and legend; no pyplot.

Colours are Okabe and Ito's (2008), which people with any common colour vision tell apart, without the
yellow that is lost on white; each comes with a marker and a line style of its own, so that a picture reads
in grey as well.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ppl_lvm.plots._text import SIZE, shorten, text_width, wrap

P = ParamSpec("P")
R = TypeVar("R")

WIDTH = 7.6
"""Inches; the report shows pictures at this width or wider, so its letters are never smaller than here."""
INK, FAINT, SHADE = "#1a1a1a", "#5c5c5c", "#e9edf2"
BLACK = "#000000"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES: tuple[Any, ...] = ("-", "--", (0, (1, 1.2)), "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))

_RC: dict[str, Any] = {
    "font.size": SIZE,
    "font.family": ["sans-serif"],
    "font.weight": "normal",
    "axes.titlesize": SIZE,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.labelsize": SIZE,
    "axes.labelcolor": INK,
    "axes.labelweight": "normal",
    "axes.edgecolor": FAINT,
    "axes.facecolor": "white",
    "axes.grid": False,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "figure.edgecolor": "white",
    "figure.dpi": 100.0,
    "legend.fontsize": SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": SIZE,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": SIZE,
}


class Picture(Figure):
    """A matplotlib Figure of no pyplot session: nothing to close, and notebooks show it all the same."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a plot function under the package's settings; the user's rcParams come back afterwards."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_RC):
            return function(*args, **kwargs)

    return wrapper


# ---- who looks how -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of one fit, chain or component."""

    color: str
    marker: str
    line: Any


def looks(names: Iterable[Any], reference: Any = None) -> dict[Any, Look]:
    """A look for each name, by its place; the reference is black.

    Past six names, markers and lines go out of step with colours. A reference keeps its place, so that the
    others look the same in pictures that know no reference.
    """
    found: dict[Any, Look] = {}
    for i, name in enumerate(names):
        again, at = divmod(i, len(COLORS))
        found[name] = Look(COLORS[at], MARKERS[(at + again) % 6], LINES[(at + again) % 6])
    if reference is not None:
        found[reference] = Look(BLACK, "X", "-")
    return found


def key(look: Look, *, line: bool = True, marker: bool = True) -> Line2D:
    """What stands for a look in a legend."""
    return Line2D(
        [],
        [],
        color=look.color,
        linestyle=look.line if line else "none",
        marker=look.marker if marker else None,
    )


# ---- the frame -----------------------------------------------------------------------------------

_MARGIN, _TITLE, _LINE, _ROW = 0.08, 11.0, 0.165, 0.19
_HANDLE = 0.42
"""Inches that a legend's entry takes beside its text, with the gap to the next."""


def blank(
    title: str,
    caption: str,
    height: float,
    *,
    width: float = WIDTH,
    legend: Sequence[tuple[Any, str]] = (),
) -> Picture:
    """An empty figure with title, caption and legend on top; ``height`` (inches) is what is left for axes.

    The head has a fixed height, measured from its text, so that nothing there meets the axes below.
    """
    inside = width - 2 * _MARGIN
    titles, captions = wrap(title, inside, _TITLE, "bold"), wrap(caption, 0.985 * inside)
    labels = [shorten(label, inside - 2 * _HANDLE) for _, label in legend]
    columns = _columns(labels, inside)
    rows = math.ceil(len(labels) / columns) if labels else 0
    head = _MARGIN + 0.2 * len(titles) + _LINE * len(captions) + _ROW * rows + 0.1
    total = height + head
    figure = Picture(figsize=(width, total), layout="constrained")
    FigureCanvasAgg(figure)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.0, 0.0, 1.0, height / total), w_pad=0.06, h_pad=0.05)
    left, top = _MARGIN / width, 1 - _MARGIN / total
    _head_text(figure, left, top, titles, size=_TITLE, fontweight="bold")
    top -= 0.2 * len(titles) / total
    _head_text(figure, left, top, captions, size=SIZE, color=FAINT)
    top -= (_LINE * len(captions) + 0.03) / total
    if labels:
        _legend(figure, [handle for handle, _ in legend], labels, columns, left, top)
    return figure


def _head_text(figure: Figure, x: float, y: float, lines: list[str], **settings: Any) -> None:
    text = figure.text(x, y, "\n".join(lines), ha="left", va="top", linespacing=1.25, **settings)
    text.set_in_layout(False)


def _columns(labels: Sequence[str], width: float) -> int:
    """The most columns whose widest labels fit side by side."""
    for columns in range(len(labels), 1, -1):
        parts = np.array_split(np.array(labels), columns)  # as matplotlib divides them
        if sum(max((text_width(t) for t in part), default=0.0) + _HANDLE for part in parts) <= width:
            return columns
    return 1


def _legend(figure: Figure, handles: list[Any], labels: list[str], columns: int, x: float, y: float) -> None:
    found = figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(x, y),
        ncols=columns,
        borderpad=0.0,
        borderaxespad=0.0,
        handlelength=2.0,
        handletextpad=0.5,
        columnspacing=1.0,
        labelspacing=0.3,
    )
    found.set_in_layout(False)


def panels(figure: Figure, count: int, columns: int, **settings: Any) -> list[Axes]:
    """``count`` axes in a grid of at most ``columns`` columns; places left over stay empty."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    grid = figure.add_gridspec(rows, columns, **settings)
    return [figure.add_subplot(grid[divmod(i, columns)]) for i in range(count)]


__all__ = [
    "BLACK",
    "COLORS",
    "FAINT",
    "INK",
    "LINES",
    "MARKERS",
    "SHADE",
    "WIDTH",
    "Look",
    "Picture",
    "blank",
    "key",
    "looks",
    "panels",
    "styled",
]
