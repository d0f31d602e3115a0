"""A model's docstring as plain text: reStructuredText and LaTeX as one would write them by hand."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

_SIGNS = {
    "sim": "~",
    "dots": "…",
    "ldots": "…",
    "cdots": "⋯",
    "cdot": "·",
    "times": "×",
    "top": "ᵀ",
    "mid": "|",
    "le": "≤",
    "leq": "≤",
    "ge": "≥",
    "geq": "≥",
    "ne": "≠",
    "in": "∈",
    "to": "→",
    "infty": "∞",
    "approx": "≈",
    "propto": "∝",
    "sum": "∑",
    "prod": "∏",
    "int": "∫",
    "sqrt": "√",
    "pm": "±",
    "quad": "  ",
    "qquad": "    ",
}
_SMALL = (
    "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
)
_LARGE = "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
_COMMANDS = {
    **_SIGNS,
    **dict(zip(_SMALL.split(), "αβγδεζηθκλμνξπρστφχψω", strict=True)),
    **dict(zip(_LARGE.split(), "ΓΔΘΛΞΠΣΦΨΩ", strict=True)),
}


def story_of(model: Any) -> str:
    """What the model says of itself: its function's docstring, or the page of its module or class."""
    for at in ("base", "function"):  # a conditioned model, a user's own function
        inner = getattr(model, at, None)
        if inner is not None:
            return story_of(inner) if at == "base" else as_text(inspect.getdoc(inner) or "")
    module = sys.modules.get(type(model).__module__)
    own = inspect.getdoc(module) if module is not None and "models" in module.__name__.split(".") else None
    return as_text(own or inspect.getdoc(type(model)) or "")


def as_text(doc: str) -> str:
    """Paragraphs, tables and formulas of a docstring, in characters."""
    lines, in_table = [], False
    for line in doc.splitlines():
        if re.fullmatch(r"[= ]{6,}", line.strip()):
            in_table = True
        elif not line.strip():
            in_table = False
        if line.strip() == ".. math::":
            continue
        lines.append(_line(line, keep_width=in_table))
    text = "\n".join(lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _line(line: str, *, keep_width: bool) -> str:
    def role(match: re.Match[str]) -> str:
        plain = formula(match[1]) if match[0].startswith(":math:") else match[1].lstrip("~!")
        return plain.ljust(len(match[0])) if keep_width else plain

    found = re.sub(r":[a-z:]+:`([^`]*)`", role, line)
    found = re.sub(r"``([^`]*)``", lambda m: m[1].ljust(len(m[0])) if keep_width else m[1], found)
    return formula(found) if "\\" in found else re.sub(r"(?<!\*)\*([^*\s][^*]*)\*", r"\1", found)


def formula(latex: str) -> str:
    """LaTeX as characters; what has no character stays as it is, without its braces."""
    text = re.sub(r"\\\\\s*$", "", latex).replace("&", "")
    text = re.sub(r"\\(?:mathrm|mathbf|mathcal|operatorname|text)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,;!: ]", " ", text)
    text = re.sub(r"\\tfrac12|\\frac12", "½", text)
    text = re.sub(r"\\t?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1) / (\2)", text)
    text = re.sub(r"\\([A-Za-z]+)", lambda m: _COMMANDS.get(m[1], m[1]), text)
    text = re.sub(r"\^2(?!\d)", "²", text).replace("^ᵀ", "ᵀ")
    text = re.sub(r"([_^])\{([^{}]*)\}", lambda m: m[1] + m[2], text)
    return text.rstrip()


__all__ = ["as_text", "formula", "story_of"]
