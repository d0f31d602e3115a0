"""Many tiles side by side in one picture, with one scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ppl_lvm.plots._images import Shades, Shape, Tiles, shades_of
from ppl_lvm.plots._style import SHADE, WIDTH, blank
from ppl_lvm.plots._text import number, text_width

_LEAST, _MOST, _BAR, _HIGHEST = 4.6, 0.82, 0.85, 8.0
"""Inches: the narrowest figure, the widest tile, what the colour bar takes, the highest mosaic."""


def mosaic(grid: np.ndarray, gaps: tuple[int, int]) -> np.ndarray:
    """Tiles (rows, columns, h, w[, 3]) beside each other, ``gaps`` of NaN between rows and columns."""
    rows, columns, height, width = grid.shape[:4]
    down, across = height + gaps[0], width + gaps[1]
    out = np.full((rows * down - gaps[0], columns * across - gaps[1], *grid.shape[4:]), np.nan)
    for i in range(rows):
        for j in range(columns):
            out[i * down : i * down + height, j * across : j * across + width] = grid[i, j]
    return out


@dataclass(frozen=True)
class Words:
    """What is written around a mosaic: labels of rows and columns, and of the axes."""

    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    xlabel: str = ""
    ylabel: str = ""


def draw(
    tiles: Tiles,
    grid: np.ndarray,
    title: str,
    caption: str,
    words: Words,
    *,
    draws: bool = False,
    gap: int | None = None,
) -> Figure:
    """A figure of tiles (rows, columns, h, w[, 3]) with one scale; places without a tile are NaN."""
    height, width = grid.shape[2:4]
    own = max(1, round(0.1 * min(height, width))) if gap is None else gap
    gaps = (max(1, round(0.06 * height)), 0) if tiles.strips else (own, own)
    scale = shades_of(tiles, grid[np.isfinite(grid)], draws=draws)
    picture = mosaic(grid, gaps)
    place = _place(tiles, picture.shape, grid.shape, words, scale)
    figure = blank(title, caption + tiles.note(), place.room, width=place.total)
    figure.set_layout_engine("none")
    axes = figure.add_axes(place.axes(figure))
    # Large cells are copied as they are, small ones are averaged where the picture has fewer pixels.
    style: Any = {"interpolation": "none" if place.cell >= 0.03 else "antialiased", "aspect": "auto"}
    if tiles.colour:
        axes.imshow(_coloured(picture, scale), **style)
    else:
        image = axes.imshow(np.ma.masked_invalid(picture), cmap=scale.cmap, norm=scale.norm, **style)
        bar = figure.add_axes(place.bar(figure), label="<colorbar>")
        figure.colorbar(image, cax=bar, label=scale.label, ticks=scale.ticks).minorticks_off()
    columns = _thinned(words.columns, place.width / grid.shape[1])
    words = dataclasses.replace(words, columns=columns)
    _label(axes, words, (height + gaps[0], width + gaps[1]), (height, width))
    return figure


def _thinned(labels: Sequence[str], room: float) -> Sequence[str]:
    """As many labels as fit side by side, each in ``room`` inches; the middle one stays."""
    if "" in labels:  # chosen already
        return tuple(labels)
    widest = max((text_width(t) for t in labels), default=0.0)
    every = max(1, math.ceil((widest + 0.06) / room))
    middle = (len(labels) - 1) // 2
    return tuple(t if (i - middle) % every == 0 else "" for i, t in enumerate(labels))


@dataclass(frozen=True)
class Place:
    """Where a mosaic stands, inches: margins, its own width and height, that of the colour bar, of all."""

    left: float
    below: float
    width: float
    height: float
    bar_height: float
    total: float
    cell: float

    @property
    def room(self) -> float:
        return max(self.below + self.height, self.bar_height + 0.12) + 0.04

    def axes(self, figure: Figure) -> tuple[float, float, float, float]:
        return self._share(figure, self.left, self.room - self.height - 0.04, self.width, self.height)

    def bar(self, figure: Figure) -> tuple[float, float, float, float]:
        top = self.room - self.bar_height - 0.04
        return self._share(figure, self.left + self.width + 0.12, top, 0.13, self.bar_height)

    def _share(self, figure: Figure, *inches: float) -> tuple[float, float, float, float]:
        across, down = figure.get_size_inches()
        x, y, w, h = inches
        return x / across, y / down, w / across, h / down


def _place(tiles: Tiles, cells: Shape, counts: Shape, words: Words, scale: Shades) -> Place:
    left = (
        0.08 + max((text_width(t) + 0.08 for t in words.rows), default=0.0) + (0.24 if words.ylabel else 0.0)
    )
    below = 0.08 + (0.2 if any(words.columns) else 0.0) + (0.2 if words.xlabel else 0.0)
    right = 0.1 if tiles.colour else _BAR
    room = WIDTH - left - right
    if tiles.strips:
        width = min(room, max(counts[1] * 0.28, 2.6))
        cell, height = 0.1, min(max(0.14 * cells[0], 0.9), 6.5)
    else:
        cell = min(room / cells[1], _MOST * counts[1] / cells[1], _HIGHEST / cells[0])
        if cell >= 0.03:  # as many pixels for every cell, at 100 pixels an inch
            cell = math.floor(100 * cell) / 100
        width, height = cell * cells[1], cell * cells[0]
    bar = 0.0 if tiles.colour else max(min(height, 2.4), text_width(scale.label) + 0.15)
    return Place(left, below, width, height, bar, min(WIDTH, max(_LEAST, left + width + right)), cell)


def _coloured(picture: np.ndarray, scale: Shades) -> np.ndarray:
    """Colours in [0, 1], gaps in the shade of gaps."""
    unit = np.clip((picture - scale.norm.vmin) / (scale.norm.vmax - scale.norm.vmin), 0, 1)
    return np.where(np.isfinite(picture), unit, np.array(to_rgb(SHADE)))


def _label(axes: Any, words: Words, step: Shape, size: Shape) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if words == Words():
        axes.set_axis_off()
        return
    axes.set_xticks([j * step[1] + (size[1] - 1) / 2 for j in range(len(words.columns))], words.columns)
    axes.set_yticks([i * step[0] + (size[0] - 1) / 2 for i in range(len(words.rows))], words.rows)
    axes.set(xlabel=words.xlabel, ylabel=words.ylabel)


def some_numbers(values: np.ndarray, most: int) -> list[str]:
    """Tick labels, at most about ``most`` of them, the others empty."""
    every = -(-len(values) // most)
    first = (len(values) - 1) % every // 2
    return [number(round(float(v), 2)) if (i - first) % every == 0 else "" for i, v in enumerate(values)]


__all__ = ["Words", "draw", "mosaic", "some_numbers"]
