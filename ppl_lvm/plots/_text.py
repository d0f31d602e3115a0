"""Text that fits: measured in the font it is drawn in."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

SIZE = 9.0
"""Points, the smallest text."""


def plain(text: Any) -> str:
    """A user's string as it is: dollars start no formula, and one line stays one line."""
    return " ".join(str(text).split()).replace("$", r"\$")


def text_width(text: str, size: float = SIZE, weight: str = "normal") -> float:
    """Width of a line in inches, in the font that is in use."""
    font = FontProperties(family=matplotlib.rcParams["font.family"], size=size, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text.replace(r"\$", "$"), font, False)
    return float(width) / 72


def wrap(text: str, width: float, size: float = SIZE, weight: str = "normal") -> list[str]:
    """Lines of at most ``width`` inches; breaks at spaces (a longer word is shortened)."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if (
            lines and text_width(longer, size, weight) <= 0.985 * width
        ):  # releases of matplotlib differ a little
            lines[-1] = longer
        else:
            lines.append(shorten(word, width, size))
    return lines or [""]


def shorten(text: str, width: float, size: float = SIZE) -> str:
    """The text, its middle left out where it is wider than ``width`` inches."""
    if text_width(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = text[: math.ceil(kept / 2)].rstrip() + "…" + text[len(text) - kept // 2 :].lstrip()
        if text_width(short, size) <= width:
            return short
    return "…"


def number(value: float) -> str:
    """A number for an axis or a title, with a proper minus sign."""
    return f"{value:.4g}".replace("-", "\u2212")


__all__ = ["SIZE", "number", "plain", "shorten", "text_width", "wrap"]
