"""A model's graph: sites, what depends on what, and plates."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

from ppl_lvm.plots._graph_layout import Block, lay_out
from ppl_lvm.plots._style import FAINT, INK, WIDTH, blank, styled
from ppl_lvm.plots._text import plain, shorten, text_width
from ppl_lvm.structure import ModelGraph, Node

MOST_NODES = 40
_SHADED, _FRAME = "#c9d3de", "#8a94a0"
_HEIGHT = 0.4
_WORDS = {
    "latent": "latent",
    "observed": "observed",
    "deterministic": "computed",
    "param": "parameter (optimised)",
    "factor": "factor of the density",
}


@styled
def plot_model(graph: ModelGraph) -> Figure:
    """Sites as ellipses, observed ones shaded, with arrows from what each depends on; plates are frames.

    Computed sites have a dashed outline, parameters and factors are boxes. A plate's frame gives its size.

    Parameters
    ----------
    graph
        What :func:`ppl_lvm.model_graph` returns.

    Raises
    ------
    TypeError, ValueError
        If ``graph`` is something else, or has more than forty sites.
    """
    if not isinstance(graph, ModelGraph):
        raise TypeError(f"graph: expected what lvm.model_graph returns, got {type(graph).__name__}.")
    if len(graph.nodes) > MOST_NODES:
        raise ValueError(
            f"graph: {len(graph.nodes)} sites are too many to draw (at most {MOST_NODES}); put repeated "
            "ones in a plate."
        )
    sizes = {n.name: (max(0.62, text_width(_label(n)) + 0.3), _HEIGHT) for n in graph.nodes}
    labels = {p: shorten(plain(f"{p} ({size})"), 2.0) for p, size in graph.plates.items()}
    widths = {p: (text, text_width(text)) for p, text in labels.items()}
    root = lay_out(graph.nodes, sizes, widths, WIDTH - 0.8)
    width = max(root.width + 0.5, 3.6)
    kinds = [k for k in _WORDS if any(_kind(n) == k for n in graph.nodes)]
    figure = blank(
        "The model",
        "An arrow leads from what a site depends on; a frame is a plate, with its size.",
        max(root.height + 0.1, 0.6),
        width=width,
        legend=[(_handle(k), _WORDS[k]) for k in kinds],
    )
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_label("graph")
    room = (max(root.width, width - 0.4) - root.width) / 2
    axes.set_xlim(-room, root.width + room)
    axes.set_ylim(-0.05, root.height + 0.05)
    axes.set_aspect("equal")
    blocks = [b for b in root.all() if b is not root]
    for block in blocks:
        if block.node is None:
            _frame(axes, block)
    nodes = {b.node.name: b for b in blocks if b.node is not None}
    for block in nodes.values():
        for parent in block.node.parents if block.node is not None else ():
            if parent in nodes:
                _arrow(axes, nodes[parent], block, list(nodes.values()))
    for block in nodes.values():
        _site(axes, block)
    return figure


def _kind(node: Node) -> str:
    return "factor" if node.is_factor else node.kind


def _label(node: Node) -> str:
    return shorten(plain(node.name), 2.4)


def _handle(kind: str) -> Line2D:
    marker = "s" if kind in ("param", "factor") else "o"
    face = _SHADED if kind in ("observed", "factor") else "white"
    style: Any = {"markeredgecolor": INK if kind != "deterministic" else FAINT, "markersize": 8}
    return Line2D([], [], linestyle="none", marker=marker, markerfacecolor=face, **style)


def _frame(axes: Axes, block: Block) -> None:
    corner = (block.x - block.width / 2, block.y - block.height / 2)
    box = FancyBboxPatch(
        corner,
        block.width,
        block.height,
        boxstyle="round,pad=0,rounding_size=0.08",
        fill=False,
        edgecolor=_FRAME,
        linewidth=1.0,
        zorder=1,
    )
    axes.add_patch(box)
    axes.text(
        corner[0] + block.width - 0.08, corner[1] + 0.06, block.label, ha="right", va="bottom", color=FAINT
    )


def _site(axes: Axes, block: Block) -> None:
    node = block.node
    if node is None:
        return
    kind = _kind(node)
    look: Any = {
        "facecolor": _SHADED if kind in ("observed", "factor") else "white",
        "edgecolor": INK,
        "linewidth": 1.1,
        "linestyle": (0, (3, 2)) if kind == "deterministic" else "-",
        "zorder": 3,
    }
    shape: Patch
    if kind in ("param", "factor"):
        corner = (block.x - block.width / 2, block.y - block.height / 2)
        shape = Rectangle(corner, block.width, block.height, **look)
    else:
        shape = Ellipse((block.x, block.y), block.width, block.height, **look)
    axes.add_patch(shape)
    axes.text(block.x, block.y, _label(node), ha="center", va="center_baseline", zorder=4)


def _arrow(axes: Axes, start: Block, end: Block, others: list[Block]) -> None:
    """From border to border; bent where a straight one would run through another site."""
    hit = next((b for b in others if b is not start and b is not end and _through(start, end, b)), None)
    bend = 0.0 if hit is None else _bend(start, end, hit)
    a, b = _border(start, end), _border(end, start)
    axes.add_patch(
        FancyArrowPatch(
            a,
            b,
            arrowstyle="-|>",
            mutation_scale=9,
            color=INK,
            linewidth=0.9,
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={bend}",
            zorder=2,
        )
    )


def _bend(start: Block, end: Block, hit: Block) -> float:
    """How far an arc has to swing out (in units of its chord, at its control point) to pass by a site."""
    dx, dy = end.x - start.x, end.y - start.y
    length = math.hypot(dx, dy)
    side = (dx * (hit.y - start.y) - dy * (hit.x - start.x)) / length  # the site's distance from the chord
    room = math.hypot(hit.width / 2 * dy, hit.height / 2 * dx) / length + 0.17
    along = ((hit.x - start.x) * dx + (hit.y - start.y) * dy) / length**2
    reach = max(2 * along * (1 - along), 0.2)  # of the control point's swing, what the arc has there
    size = min((room - abs(side)) / length / reach, 0.7)
    return size if side >= 0 else -size


def _border(block: Block, towards: Block) -> tuple[float, float]:
    """Where the line to another block leaves the ellipse, or the box."""
    dx, dy = towards.x - block.x, towards.y - block.y
    across, up = abs(dx) / (block.width / 2), abs(dy) / (block.height / 2)
    box = block.node is not None and _kind(block.node) in ("param", "factor")
    scale = 1 / (max(across, up) if box else math.hypot(across, up))
    return block.x + scale * dx, block.y + scale * dy


def _through(start: Block, end: Block, other: Block) -> bool:
    """Whether the straight line meets another site (in coordinates where that is a unit circle)."""

    def scaled(block: Block) -> complex:
        dx, dy = block.x - other.x, block.y - other.y
        return complex(dx / (other.width / 2 + 0.04), dy / (other.height / 2 + 0.04))

    a, b = scaled(start), scaled(end)
    along = max(0.0, min(1.0, -(a * (b - a).conjugate()).real / abs(b - a) ** 2))
    return abs(a + along * (b - a)) < 1.0


__all__ = ["plot_model"]
